"""Whether a training can start from a model: what must be the same, and what may not.

Conditions and targets must have the same names, in the same order, the same units,
categories and sentinels; cells the same numbers in each layer. Ranges, transforms, cuts
and species may differ. The family is that of the start, and so are the settings that
change sizes of its networks.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.errors import PidganWarning, TrainingError, nearest
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.sample.variables import Variable
from pidgan.training import families
from pidgan.training.model import Model
from pidgan.training.targets.structure import find_atoms
from pidgan.training.targets.tracks import TargetTransform

# Values and ties that fewer rows have are learnt as what is around them.
MIN_SHARE = 0.005
# Fewer rows than these decide nothing about a value.
MIN_ROWS = 20
# Rows of a sample that may fit no pattern of the start.
MOST_LOST = 0.02
# Rows in which a target may be beyond all that the start knows, without a warning.
MOST_OUTSIDE = 0.005


def check_family(start: Model, family: str | None) -> str:
    """Return the family of a training, which is that of its start if none is given.

    A family that does more than another may go on from it: "cramer" from "distilled".
    """
    own = start.card.family
    if family is None or family == own:
        return own
    kinds = [type(families.parse_settings(name, {})) for name in (family, own)]
    if not (issubclass(*kinds) or issubclass(*kinds[::-1])):
        raise TrainingError(
            f"the start {start.card.sample.name!r} is of family {own!r}, which family "
            f"{family!r} cannot go on from: leave the family out, or start from a "
            f"generator of family {family!r}"
        )
    return family


def started_settings(
    start: Model, family: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of the start that the family has, and those given."""
    chosen = families.check_settings(family, settings)
    known = families.describe_family(family).settings
    names = {setting.name for setting in known} - {"xla"}
    return {k: v for k, v in start.card.settings.items() if k in names} | chosen


def check_start(start: Model, sample: Sample, part: Part, settings: Any) -> None:
    """Raise a TrainingError if a training on these rows cannot start from a model."""
    card = start.card
    where = f"sample {sample.name!r} cannot start from a generator of"
    where += f" {card.sample.name!r}"
    for kind, mine, others in (
        ("conditions", sample.conditions, card.sample.conditions),
        ("targets", sample.targets, card.sample.targets),
    ):
        if sample.cells is not None and kind == "targets":
            _check_cells(sample, card.sample, where)
        else:
            _check_variables(kind, mine, others, where)
    check_family(start, families.name_of(settings))
    _check_settings(start, settings, where)
    if isinstance(start.targets, TargetTransform):
        _check_structure(start.targets, sample, part, where)


def _check_variables(
    kind: str, mine: Sequence[Variable], others: Sequence[Variable], where: str
) -> None:
    names, known = ([v.name for v in variables] for variables in (mine, others))
    if names != known:
        unknown = [name for name in names if name not in known]
        close = nearest(unknown[0], known) if unknown else ""
        raise TrainingError(
            f"{where}: its {kind} are {', '.join(names)}, those of the start "
            f"{', '.join(known)}; expected the same, in the same order{close}"
        )
    for one, other in zip(mine, others, strict=True):
        for what in ("package_unit", "categories"):
            got, expected = getattr(one, what), getattr(other, what)
            if got != expected:
                raise TrainingError(
                    f"{where}: {what.removeprefix('package_')} of {one.name!r} is "
                    f"{got!r}, that of the start {expected!r}"
                )
        if new := sorted(set(one.sentinels) - set(other.sentinels)):
            raise TrainingError(
                f"{where}: {one.name!r} has the sentinel {new[0]:g}, the start "
                f"knows {', '.join(f'{v:g}' for v in other.sentinels) or 'none'}"
            )


def _check_cells(sample: Sample, other: Sample, where: str) -> None:
    if other.cells is None or sample.cells is None:
        raise TrainingError(f"{where}: its targets are cells, those of the start not")
    sizes = [
        [[layer.n_cells for layer in view.layers] for view in cells.layout.views]
        for cells in (sample.cells, other.cells)
    ]
    if sizes[0] != sizes[1]:
        texts = [
            "; ".join(f"{sum(v)} cells in {_layers(v)}" for v in views)
            for views in sizes
        ]
        raise TrainingError(
            f"{where}: its views have {texts[0]}, those of the start {texts[1]}"
        )
    for what in ("incident", "scheme", "scale"):
        got, expected = getattr(sample.cells, what), getattr(other.cells, what)
        if got != expected:
            raise TrainingError(
                f"{where}: {what} of its cells is {got!r}, that of the start "
                f"{expected!r}"
            )


def _layers(sizes: Sequence[int]) -> str:
    return f"{len(sizes)} layer{'s' * (len(sizes) > 1)}"


def _check_settings(start: Model, settings: Any, where: str) -> None:
    """Raise if networks have other sizes, and name the settings that differ."""
    name = families.name_of(settings)
    shape = start.targets.shape(
        start.card.sample, n_conditions=start.conditions.n_columns
    )
    family = families.build_family(settings, shape=shape, seed=0)
    sizes = [
        [tuple(v.shape) for v in generator.variables]
        for generator in (family.generator, start.generator)
    ]
    if sizes[0] == sizes[1]:
        return
    mine, known = dataclasses.asdict(settings), start.card.settings
    texts = [
        f"{key} is {mine[key]!r}, that of the start {known[key]!r}"
        for key in mine
        if key in known and mine[key] != known[key] and key != "xla"
    ]
    raise TrainingError(
        f"{where}: the networks of family {name!r} have other sizes; "
        f"{'; '.join(texts) or 'their settings are the same'}"
    )


def _check_structure(
    targets: TargetTransform, sample: Sample, part: Part, where: str
) -> None:
    """Raise if rows have exact values, or ties, that the start does not know."""
    y = part.targets.astype(np.float32)
    pattern, _ = targets.forward(part.targets, conditions=part.conditions)
    lost = float(np.mean(pattern < 0))
    if lost > MOST_LOST:
        raise TrainingError(
            f"{where}: {100 * lost:.1f} % of the rows fit none of its "
            f"{targets.n_patterns} patterns of exact values and ties"
        )
    _warn_outside(targets, sample, y, pattern, where)
    if targets.grids is not None or targets.sums is not None:
        return
    names, least = sample.target_names, max(MIN_ROWS, MIN_SHARE * len(y))
    known, tree = targets.exact_values(), _trees(targets)
    on_atom = np.zeros(y.shape, dtype=np.bool_)
    for j, name in enumerate(names):
        atoms = find_atoms(y[:, j], np.zeros(0, dtype=np.float32))
        on_atom[:, j] = np.isin(y[:, j], atoms)
        for value in atoms[~np.isin(atoms, known[j])]:
            rows = int((y[:, j] == value).sum())
            if rows >= least:
                raise TrainingError(
                    f"{where}: {name!r} is exactly {value:g} in "
                    f"{100 * rows / len(y):.2g} % of the rows, never in the start"
                )
    for i, j in itertools.combinations(range(len(names)), 2):
        tied = (y[:, i] == y[:, j]) & ~on_atom[:, i] & ~on_atom[:, j]
        if tree[i] != tree[j] and tied.sum() >= least:
            raise TrainingError(
                f"{where}: {names[i]!r} and {names[j]!r} are equal in "
                f"{100 * tied.mean():.2g} % of the rows, never in the start"
            )


def _warn_outside(
    targets: TargetTransform,
    sample: Sample,
    y: FloatArray,
    pattern: IntArray,
    where: str,
) -> None:
    """Warn of targets that are often beyond all values that the start knows."""
    values = targets.coordinates(y).values
    for j, name in enumerate(sample.target_names):
        free = (pattern >= 0) & (targets.patterns[pattern, j] == 1)
        table = targets.table[pattern, j]
        low, high = targets.knots[table, 0], targets.knots[table, -1]
        outside = (values[:, j] < low) | (values[:, j] > high)
        share = float(np.mean(outside & free))
        if targets.sums is None and share > MOST_OUTSIDE:
            warnings.warn(
                f"{where} as well as others: {name!r} is beyond the range of the start "
                f"in {100 * share:.1f} % of the rows",
                PidganWarning,
                stacklevel=4,
            )


def _trees(targets: TargetTransform) -> list[int]:
    """Return for each target the one that it is, in the end, a difference of."""
    found = []
    for j in range(targets.n_targets):
        root = j
        while targets.base[root] >= 0:
            root = int(targets.base[root])
        found.append(root)
    return found
