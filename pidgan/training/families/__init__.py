"""Families: the ways to learn a generator, behind one protocol.

A family owns a `generator` (the keras model that is exported), and has `step`, one
update that returns named losses, and `losses`, the same numbers without an update.
Families are final classes that call shared functions.

Which to use when, with figures: docs/explanation/families.
"""

import importlib
import warnings
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from pidgan.errors import PidganError, PidganWarning, nearest

# Name -> module, class of the settings, class of the family.
_FAMILIES = {
    "cramer": ("cramer", "CramerSettings", "CramerGAN"),
    "wgan_gp": ("wgan_gp", "WassersteinSettings", "WassersteinGAN"),
    "energy": ("kernel_scores", "EnergySettings", "KernelScore"),
    "mmd": ("kernel_scores", "MMDSettings", "KernelScore"),
    "vae": ("vae", "VAESettings", "VariationalAutoencoder"),
    "flow": ("spline_flow", "FlowSettings", "FlowFamily"),
}
_RECIPES = {"maevskiy2019": ("maevskiy2019", "PublishedSettings", "PublishedGAN")}

_SHOWERS = dict.fromkeys(
    ("shower_flow", "shower_vae", "shower_gan"),
    ("showers", "ShowerSettings", "ShowerModel"),
)
_SEQUENCES = {
    "shower_sequence": ("shower_sequence", "SequenceSettings", "ShowerSequence")
}
# What differs from the defaults of the settings.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "shower_vae": {"shape": "latent"},
    "shower_gan": {
        "shape": "latent",
        "encoder": False,
        "likelihood": 0.3,
        "play": 0.7,
    },
}

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
    "play": (0, 1),
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

FAMILIES = tuple(_FAMILIES)
"""Ways to learn a generator, in the project's own coordinates."""

RECIPES = tuple(_RECIPES)
"""Published ways, on the columns of the targets as they are."""

SEQUENCES = tuple(_SEQUENCES)
"""Those families of showers that see logarithms in a common unit, not normal scores."""

SHOWER_FAMILIES = (*_SEQUENCES, *_SHOWERS)
"""Ways to learn the cells of a calorimeter."""


class Family(Protocol):
    """What the training loop needs from a family.

    Attributes:
        generator: from (conditions, pattern, noise) to coordinates: a keras network of
            the layers that `onnx_export` knows, or a `nodes.Writable`.
        settings: dataclass of everything that was chosen.
        variables: everything that a checkpoint must hold.
        n_noise: numbers of noise for a row.
        phases: names of the phases in order, with the share of steps each takes.
        batch_sizes: rows of one update in each phase.
        needs_positive_weights: whether batches must have "positive_w", E[w | x, y].
    """

    generator: Any
    settings: Any
    n_noise: int
    phases: Mapping[str, float]
    batch_sizes: Mapping[str, int]
    needs_positive_weights: bool

    @property
    def variables(self) -> list[Any]:
        """Return all variables, optimizers' included, in a fixed order."""

    def step(self, batch: Any, *, phase: str, seed: Any, rate: Any) -> dict[str, Any]:
        """Do one update in a phase and return the losses by name."""

    def losses(self, batch: Any, *, seed: Any) -> dict[str, Any]:
        """Return the same losses without an update."""

    def end(self, phase: str) -> None:
        """Settle what a phase has learnt; called when its last step is done."""


@runtime_checkable
class Watchful(Protocol):
    """A family that is shown the validation part now and then."""

    def watch(self, batch: Any, *, seed: Any) -> None:
        """Keep what is best by the losses of a batch that is not trained on."""


def make_family(
    name: str, *, shape: Any, settings: Mapping[str, Any], seed: int
) -> Family:
    """Build a family by name.

    Args:
        name: one of `FAMILIES` or `RECIPES`.
        shape: sizes of the arrays, a `networks.Shape`.
        settings: overrides of the family's defaults.
        seed: of the initial weights.

    Raises:
        PidganError: no such family, or a setting that it does not have.

    Warns:
        PidganWarning: a setting outside `RANGES`.
    """
    known = {**_FAMILIES, **_RECIPES, **_SHOWERS, **_SEQUENCES}
    if name not in known:
        raise PidganError(
            f"no family {name!r}; there are {', '.join(FAMILIES)}"
            + nearest(name, known)
        )
    module_name, settings_name, family_name = known[name]
    module = importlib.import_module(f"pidgan.training.families.{module_name}")
    make_settings, make = getattr(module, settings_name), getattr(module, family_name)
    fields = make_settings.__dataclass_fields__
    for key, value in settings.items():
        if key not in fields:
            raise PidganError(
                f"family {name!r} has no setting {key!r}" + nearest(key, fields)
            )
        is_name = isinstance(fields[key].default, str)
        if isinstance(value, str) != is_name:
            kind = "name" if is_name else "number"
            raise PidganError(
                f"setting {key!r} of family {name!r} is {value!r}, expected a {kind}"
            )
    values = make_settings(**(_DEFAULTS.get(name, {}) | dict(settings)))
    family: Family = make(shape=shape, settings=values, seed=seed)
    if name not in SHOWER_FAMILIES:
        _warn_outside_ranges(name, settings)
    return family


def _warn_outside_ranges(name: str, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key in RANGES and not RANGES[key][0] <= value <= RANGES[key][1]:
            least, most = RANGES[key]
            warnings.warn(
                f"setting {key!r} of family {name!r} is {value:g}, outside the range "
                f"that is tested, {least:g} to {most:g}",
                PidganWarning,
                stacklevel=4,
            )
