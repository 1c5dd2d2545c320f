"""Families: the ways to learn a generator; docs/explanation/families compares them.

A family is one file: its settings (a frozen dataclass, whose docstring says what each
of them means), its losses, and `build`, which returns the generator and the phases of
the training (`pidgan.training.phases`). The table below makes it known by name.
Settings are values, `families.WganGp(width=64)`; a family that does a little more than
another has the fields of that other.

Modules:
    settings: types, meanings and texts of settings; `reading` finds them in the files.
    distilled, cramer, wgan_gp, kernel_scores, vae, spline_flow, maevskiy2019: tracks.
    shower_sequence, shower_tree, showers: the cells of a calorimeter.
    clusters: the clusters along a track.
"""

import dataclasses
import importlib
import inspect
import textwrap
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pidgan.arguments import brief, checked
from pidgan.errors import PidganError, PidganWarning, TrainingError, nearest
from pidgan.sample.definition import Sample
from pidgan.training.families.reading import read_settings
from pidgan.training.families.settings import (
    Setting,
    Spans,
    describe_settings,
    make_settings,
)

if TYPE_CHECKING:
    from pidgan.training.phases import Family

_INDENT: Any = {"initial_indent": "    ", "subsequent_indent": "    "}


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a family is, and what it learns from.

    `home` is module and class of its settings; `targets` is a kind of
    `kind_of`. A `published` recipe sees the columns of the targets as they are,
    and rows as often as they are in the sample. With `log_scale`, energies are
    logarithms in a common unit; with `as_energies`, they are coordinates themselves.
    Processes can share the steps of a family that is `shared`: its losses are means
    over rows of what depends on one row and its noise.
    """

    home: str
    targets: str = "variables"
    published: bool = False
    log_scale: bool = False
    as_energies: bool = False
    shared: bool = False


TABLE: Mapping[str, Entry] = {
    "distilled": Entry("distilled.Distilled", shared=True),
    "cramer": Entry("cramer.Cramer"),
    "wgan_gp": Entry("wgan_gp.WganGp"),
    "energy": Entry("kernel_scores.Energy"),
    "mmd": Entry("kernel_scores.Mmd"),
    "vae": Entry("vae.Vae"),
    "flow": Entry("spline_flow.Flow", shared=True),
    "maevskiy2019": Entry("maevskiy2019.Maevskiy2019", published=True),
    "shower_sequence": Entry(
        "shower_sequence.ShowerSequence", "cells", log_scale=True, shared=True
    ),
    "shower_tree": Entry(
        "shower_tree.ShowerTree", "cells", as_energies=True, shared=True
    ),
    "shower_flow": Entry("showers.ShowerFlow", "cells", shared=True),
    "shower_vae": Entry("showers.ShowerVae", "cells", shared=True),
    "shower_gan": Entry("showers.ShowerGan", "cells", shared=True),
    "clusters": Entry("clusters.Clusters", "clusters"),
}
"""All families by name; a new one is a line here and a file. The first one for a kind
of targets is the default."""

FAMILIES = tuple(
    name for name, e in TABLE.items() if e.targets == "variables" and not e.published
)
"""Families for the variables of a track, in the project's own coordinates."""

RECIPES = tuple(name for name, entry in TABLE.items() if entry.published)
"""Published recipes, on the columns of the targets as they are."""

SHOWER_FAMILIES = tuple(name for name, e in TABLE.items() if e.targets == "cells")
"""Families for the cells of a calorimeter."""

CLASSICAL = ("gflash", "pca")
"""Parametrisations of showers, which are fitted in place of a training."""

RANGES: dict[str, tuple[float, float]] = {
    "width": (8, 256),
    "layers": (1, 10),
    "blocks": (1, 4),
    "n_noise": (4, 64),
    "n_latent": (2, 32),
    "bins": (4, 32),
    "samples": (2, 8),
    "beta": (0.1, 10),
    "smallest_scale": (0.05, 1),
    "scales": (1, 8),
    "teach": (0, 1),
    "distil": (0, 1),
    "warm": (0, 1),
    "play": (0, 1),
    "play_layers": (1, 10),
    "batch_size": (64, 8192),
    "learning_rate": (1e-5, 2e-3),
    "weight_decay": (0, 0.2),
    "average": (0, 0.9999),
    "critic_width": (8, 256),
    "critic_blocks": (1, 4),
    "critic_output": (8, 256),
    "critic_updates": (1, 15),
    "first_critic_updates": (1, 15),
    "begin": (0, 1),
    "critic_learning_rate": (1e-5, 1e-3),
    "penalty": (1, 100),
    "zero_penalty": (0, 100),
    "teacher_width": (8, 256),
    "teacher_blocks": (1, 4),
    "teacher_bins": (4, 32),
    "teach_batch_size": (64, 8192),
    "teach_learning_rate": (1e-5, 1e-2),
    "teach_weight_decay": (0, 0.2),
    "distil_batch_size": (64, 8192),
    "distil_learning_rate": (1e-5, 2e-2),
}
"""Ranges of the settings of families of tracks, from which a test draws at random."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyDescription:
    """What is known of a family before it trains.

    Attributes:
        name: Name of the family.
        title: What it is, one sentence.
        targets: Kind of targets that it generates.
        published: Whether it is a published recipe.
        settings: Its settings, in order.
    """

    name: str
    title: str
    targets: str
    published: bool
    settings: tuple[Setting, ...]

    def text(self) -> str:
        """Return title and settings as text, with type, default and meaning."""
        lines = [f"{self.name}: {self.title}"]
        for setting in self.settings:
            words = f"{setting.name} ({setting.type}, default {setting.default})"
            lines += [words, textwrap.fill(setting.meaning, 84, **_INDENT)]
        return "\n".join(lines)


def list_families() -> tuple[FamilyDescription, ...]:
    """Return the descriptions of all families, in the order of the table."""
    return tuple(map(describe_family, TABLE))


@checked
def describe_family(name: str) -> FamilyDescription:
    """Return what a family is, and its settings with types, defaults and meanings.

    Raises:
        PidganError: There is no such family.
    """
    kind, entry = _read(name), TABLE[name]
    return FamilyDescription(
        name=name,
        title=inspect.cleandoc(kind.__doc__ or "").split("\n", 1)[0],
        targets=entry.targets,
        published=entry.published,
        settings=describe_settings(kind),
    )


@checked
def parse_settings(family: str, settings: Mapping[str, Any]) -> Any:
    """Return the settings of a family as one value, `families.<Name>`.

    Args:
        family: Name of the family.
        settings: Chosen values by name; texts, as of a command line, become numbers
            where a number is expected.

    Raises:
        PidganError: There is no such family or setting, or a value has another type.

    Example:
        >>> parse_settings("wgan_gp", {"width": "32"}).width
        32
    """
    chosen = check_settings(family, settings)
    return _settings_type(family)(**chosen)


Kind = Literal["variables", "cells", "clusters"]


def kind_of(sample: Sample) -> Kind:
    """Return the kind of targets that a sample has."""
    if sample.cells is not None:
        return "cells"
    return "variables" if sample.clusters is None else "clusters"


def choose_name(family: str | None, recipe: str | None, sample: Sample) -> str:
    """Return the name of the family that `train` is asked for."""
    if recipe is not None:
        if family is not None:
            raise ValueError("give a family or a recipe, not both")
        if recipe not in RECIPES:
            raise PidganError(
                f"no recipe {recipe!r}; there is {', '.join(RECIPES)}"
                + nearest(recipe, RECIPES)
            )
        family = recipe
    kind = kind_of(sample)
    known = [name for name, entry in TABLE.items() if entry.targets == kind]
    name = known[0] if family is None else family
    if _known(name).targets != kind:
        raise TrainingError(
            f"sample {sample.name!r} has {kind}, which family {name!r} is not for; "
            f"expected one of {', '.join(known)}"
        )
    return name


def check_settings(family: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as `parse_settings` does, by name, without the networks.

    Raises:
        PidganError: There is no such family or setting, or a value has another type.
    """
    kind = _read(family)
    fields = kind.__dataclass_fields__
    for name in sorted(set(settings) - set(fields)):
        like = [n for n, e in TABLE.items() if e.targets == TABLE[family].targets]
        owners = [n for n in like if name in _read(n).__dataclass_fields__]
        hint = f"; family {owners[0]!r} has it" if owners else nearest(name, fields)
        raise PidganError(f"family {family!r} has no setting {name!r}{hint}")
    return make_settings(kind, settings, family=family)


def check_shared(
    family: str | None, settings: Mapping[str, Any], sample: Sample, processes: int
) -> None:
    """Raise a TrainingError if processes cannot share the steps of a training.

    A chain has no family of its own.
    """
    if processes == 1:
        return
    if family is None:
        raise TrainingError(
            f"{sample.name!r} is a chain, whose links are trained one by one, which "
            f"{processes} processes do not share; train it with one process"
        )
    kind, entry = _read(family), TABLE[family]
    chosen = kind(**check_settings(family, settings))
    if entry.shared and not getattr(chosen, "compares_showers", False):
        return
    like = [n for n, e in TABLE.items() if e.shared and e.targets == entry.targets]
    others = f", or take {' or '.join(like)}" if like and not entry.shared else ""
    if entry.shared:
        others = ", or without observables: critic_sees='', constrain=''"
    raise TrainingError(
        f"family {family!r} compares the rows of a step with each other, which "
        f"{processes} processes cannot share; train with one process{others}"
    )


def spans_of(family: str) -> Spans:
    """Return the settings of a family that a search changes, and how far."""
    found: Spans = _read(family).spans
    return found


def name_of(settings: Any) -> str:
    """Return the name of the family that a value `families.<Name>(...)` is of."""
    kind = type(settings)
    home = f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
    names = [name for name, entry in TABLE.items() if entry.home == home]
    if not names:
        raise TypeError(
            f"family is {brief(settings)}, expected a name or a value such as "
            "pidgan.training.families.WganGp(width=64)"
        )
    return names[0]


def build_family(settings: Any, *, shape: Any, seed: int) -> "Family":
    """Build the generator of a family and its phases, from `families.<Name>(...)`."""
    module = importlib.import_module(type(settings).__module__)
    family: Family = module.build(settings, shape=shape, seed=seed)
    return family


def warn_outside_ranges(family: str, settings: Any) -> None:
    """Warn of each chosen setting of a family of tracks that is outside `RANGES`."""
    fields = dataclasses.fields(settings)
    chosen = {f.name: getattr(settings, f.name) for f in fields}
    defaults = {f.name: f.default for f in fields}
    known = RANGES if TABLE[family].targets == "variables" else {}
    for name in chosen.keys() & known.keys():
        (least, most), value = known[name], chosen[name]
        if value != defaults[name] and not least <= value <= most:
            warnings.warn(
                f"setting {name!r} of family {family!r} is {value:g}, outside the "
                f"range that is tested, {least:g} to {most:g}",
                PidganWarning,
                stacklevel=3,
            )


def _known(name: str) -> Entry:
    if name in CLASSICAL:
        raise PidganError(
            f"{name!r} is fitted, not trained, and has no settings; `pidgan compare "
            f"DATASET --families {name}` fits and judges it, and writes its bundle"
        )
    if name not in TABLE:
        raise PidganError(
            f"no family {name!r}; there are {', '.join(TABLE)}" + nearest(name, TABLE)
        )
    return TABLE[name]


def _read(name: str) -> Any:
    """Return a class with the settings of a family, without the networks."""
    return read_settings(_known(name).home)


def _settings_type(name: str) -> Any:
    _known(name)
    module, _, kind = TABLE[name].home.partition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)


def __getattr__(name: str) -> Any:
    for family, entry in TABLE.items():
        if entry.home.endswith(f".{name}"):
            return _settings_type(family)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
