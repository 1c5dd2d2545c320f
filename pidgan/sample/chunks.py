"""The usable rows of one chunk of a calibration sample, as a dataset stores them.

Everything here is done row by row, so that chunks may be read in any order and by
several threads. What is known of all rows together only is counted, in a `Tally`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import SampleError
from pidgan.files.tables import Source
from pidgan.sample.cells import Cells
from pidgan.sample.cuts import parse_cut
from pidgan.sample.definition import Sample
from pidgan.sample.events import event_hashes
from pidgan.sample.stored import as_column, as_double
from pidgan.sample.tally import Bad, Median, Tally, Values
from pidgan.sample.variables import UNIT_FACTORS, Variable

# "#" cannot begin the name of a variable, so these columns never collide with one.
CELLS, EVENTS, MASS, WEIGHT = "#cells", "#events", "#mass", "#weight"
KEPT = "#kept "
#: Arrays of the rows that are usable.
CONDITIONS, TARGETS, FURTHER, EXCLUDED = "conditions", "targets", "#further", "#apart"
NOT_SELECTED, NOT_FINITE, NO_WEIGHT = "selection", "NaN or infinite", "no sWeight"
NOT_FIDUCIAL = "fiducial"
#: Relative difference up to which two views hold the same total energy.
VIEWS_AGREE = 1e-3
#: No calorimeter shows more than its incident energy, but for fluctuations and
#: calibrations.
MOST_RESPONSE = 3.0

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is read of each row: the sample, branches to keep, branches of an event."""

    sample: Sample
    keep: tuple[str, ...] = ()
    key: tuple[str, ...] = ()


@final
class Chunk:
    """Rows of a chunk, from the selected ones to the usable ones."""

    def __init__(self, wanted: Wanted, read: int) -> None:
        self.sample, self.wanted = wanted.sample, wanted
        self.tally = Tally(read=read)
        self.columns: Columns = {}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def count(self, bad: BoolArray, reason: str) -> None:
        """Count the rows that a mask (n,) marks as dropped."""
        dropped = self.tally.dropped
        dropped[reason] = dropped.get(reason, 0) + int(np.count_nonzero(bad))

    def drop(self, bad: BoolArray, reason: str) -> None:
        """Drop the rows that a mask (n,) marks, and count them."""
        self.count(bad, reason)
        self.keep(~bad)

    def keep(self, kept: BoolArray) -> None:
        """Keep the rows that a mask (n,) marks."""
        if not kept.all():
            self.columns = {name: array[kept] for name, array in self.columns.items()}


def usable_rows(
    frame: pd.DataFrame,
    cells: npt.NDArray[Any] | None,
    matched: Callable[[BoolArray], FloatArray] | None,
    *,
    wanted: Wanted,
    source: Source,
) -> tuple[Columns, Tally]:
    """Return the usable rows of a chunk and the account of them.

    `cells` (n, n_cells) are those of all views. `matched` returns the sWeights (n,)
    from another file, NaN where it has none, and is told which rows are selected.
    """
    chunk = Chunk(wanted, len(frame))
    sample, passed = wanted.sample, np.ones(len(frame), dtype=np.bool_)
    if sample.selection:
        # The cut fails rows with a NaN, which thus count as not selected.
        passed = parse_cut(sample.selection, names=frame.columns).passes(frame)
        chunk.count(~passed, NOT_SELECTED)
    weights: FloatArray | None = None
    if matched is not None:
        weights = matched(passed)
        has_none = passed & np.isnan(weights)
        chunk.count(has_none, NO_WEIGHT)
        passed &= ~has_none
        weights = weights[passed]
    if not passed.all():
        frame = frame.loc[passed]
        cells = None if cells is None else cells[passed]
    chunk.columns = _columns(sample, frame, cells, weights)
    for name in wanted.keep:
        chunk.columns[f"{KEPT}{name}"] = _kept(frame, name, source)
    if wanted.key:
        chunk.columns[EVENTS] = event_hashes(frame, wanted.key)
    _drop_unfinished(chunk)
    for variable in (*sample.conditions, *sample.variables):
        values = chunk.columns[variable.name]
        if variable.sentinels and not variable.derive:
            values = values[~chunk.columns[sentinel_key(variable)]]
        chunk.tally.medians[variable.name] = Median.of(values, *variable.range)
    if sample.cells:
        _count_energies(chunk, sample.cells)
    _keep_inside(chunk)
    _count_targets(chunk)
    return _arrays(chunk), chunk.tally


def sentinel_key(variable: Variable) -> str:
    """Return the name of the mask of rows that hold a sentinel of a variable."""
    return f"#sentinel {variable.name}"


def _columns(
    sample: Sample,
    frame: pd.DataFrame,
    cells: npt.NDArray[Any] | None,
    weights: FloatArray | None,
) -> Columns:
    """Derive and convert the columns of a chunk."""
    columns: Columns = {}
    if sample.cells and cells is not None:
        energies = cells.astype(np.float32) * UNIT_FACTORS[sample.cells.unit]
        energies[energies < sample.cells.threshold] = 0
        columns[CELLS] = energies.astype(np.float32)
    for variable in (*sample.conditions, *sample.variables):
        columns[variable.name] = variable.evaluate(frame)
        columns[sentinel_key(variable)] = variable.is_sentinel(frame)
    if sample.weight_branch:
        weights = frame[sample.weight_branch].to_numpy(np.float64)
    if weights is not None:
        columns[WEIGHT] = weights
    if mass := sample.discriminant:
        read = Variable(name=mass.branch, unit=mass.unit, range=mass.range)
        columns[MASS] = read.evaluate(frame)
    return columns


def _kept(frame: pd.DataFrame, name: str, source: Source) -> FloatArray:
    try:
        return as_double(as_column(frame[name]))
    except ValueError as error:
        raise SampleError(f"{source}: branch {name!r} to keep {error}") from None


def _drop_unfinished(chunk: Chunk) -> None:
    """Drop rows with a NaN or infinity, and count them by column."""
    bad = np.zeros(len(chunk), dtype=np.bool_)
    for name, array in chunk.columns.items():
        if array.dtype.kind != "f" or name.startswith(KEPT):
            continue
        finite = np.isfinite(array)
        if not finite.all():
            infinite = ~finite.all(axis=tuple(range(1, array.ndim)))
            bad |= infinite
            found = chunk.tally.infinite
            found[name] = int(np.count_nonzero(infinite))
    chunk.drop(bad, NOT_FINITE)


def _count_energies(chunk: Chunk, cells: Cells) -> None:
    """Count rows whose views differ in their total, and compare with the incident."""
    totals = {
        name: chunk.columns[CELLS][:, part].sum(axis=1, dtype=np.float64)
        for name, part in cells.layout.view_slices.items()
    }
    first, *others = totals.items()
    for name, total in others if cells.scheme == "layers" else ():
        bad = np.abs(total - first[1]) > VIEWS_AGREE * np.abs(first[1])
        chunk.tally.views[name] = Bad.of(bad, total)
    if cells.incident:
        response = first[1] / chunk.columns[cells.incident]
        chunk.tally.response = Median.of(response, -np.inf, MOST_RESPONSE)


def _keep_inside(chunk: Chunk) -> None:
    """Drop rows outside the fiducial cut and the ranges, one after the other."""
    sample = chunk.sample
    if sample.fiducial:
        cut = parse_cut(sample.fiducial, names=sample.condition_names)
        chunk.drop(~cut.passes(chunk.columns), NOT_FIDUCIAL)
    chunk.tally.inside = len(chunk)
    left = np.ones(len(chunk), dtype=np.bool_)
    home = {name: link.name for link in sample.links for name in link.targets}
    targets = {variable.name for variable in sample.variables}
    for variable in (*sample.conditions, *sample.variables):
        name = variable.name
        outside = _unusable(chunk, variable)
        if name in targets:
            # As stored, which is how sentinels are declared.
            stored = chunk.columns[name][outside] / UNIT_FACTORS[variable.unit]
            chunk.tally.outside[name] = Values.of(stored)
        reason = "unknown" if variable.categories else "out of range"
        where = f", link {home[name]}" if name in home else ""
        chunk.count(outside & left, f"{name} {reason}{where}")
        left &= ~outside
    if sample.cells:
        empty = np.asarray(chunk.columns[CELLS].max(axis=1, initial=0) <= 0)
        least = sample.cells.threshold
        above = f"no cell above the threshold of {least:g}"
        chunk.count(empty & left, above if least else "no energy")
        left &= ~empty
    if mass := sample.discriminant:
        outside = _outside(chunk.columns[MASS], mass.range)
        chunk.count(outside & left, f"{mass.branch} out of range")
        left &= ~outside
    chunk.keep(left)


def _unusable(chunk: Chunk, variable: Variable) -> BoolArray:
    """Return which rows (n,) are outside a range or none of the categories."""
    column = chunk.columns[variable.name]
    if variable.categories:
        # As the columns of a dataset, so that a stored 0.1 is the category 0.1.
        known = np.isin(
            column.astype(np.float32), np.array(variable.categories, dtype=np.float32)
        )
        return ~known & ~chunk.columns[sentinel_key(variable)]
    outside = _outside(column, variable.range)
    if variable.sentinels:
        outside &= ~chunk.columns[sentinel_key(variable)]
    return outside


def _outside(column: npt.NDArray[Any], limits: tuple[float, float]) -> BoolArray:
    return np.asarray(~((column >= limits[0]) & (column <= limits[1])))


def _count_targets(chunk: Chunk) -> None:
    """Note constant conditions, and count targets that are not in the stated order."""
    if not len(chunk):
        return
    for name in chunk.sample.condition_names:
        x = chunk.columns[name]
        is_constant = bool((x == x[0]).all())
        chunk.tally.constant[name] = float(x[0]) if is_constant else None
    for variable in chunk.sample.variables:
        for other in variable.at_most:
            both = ~chunk.columns[sentinel_key(variable)]
            both &= ~chunk.columns[f"#sentinel {other}"]
            mine, bound = (chunk.columns[n][both] for n in (variable.name, other))
            chunk.tally.above[variable.name, other] = Bad.of(mine > bound, mine)


def _arrays(chunk: Chunk) -> Columns:
    """Return the arrays of a chunk, as a dataset stores them."""
    sample, columns = chunk.sample, chunk.columns
    found: Columns = {CONDITIONS: _stack(columns, sample.condition_names, len(chunk))}
    found[TARGETS] = (
        columns[CELLS]
        if sample.cells
        else _stack(columns, sample.target_names, len(chunk))
    )
    if chunk.wanted.keep:
        names = [f"{KEPT}{name}" for name in chunk.wanted.keep]
        found[FURTHER] = np.stack([columns[name] for name in names], axis=1)
    for name in (WEIGHT, MASS, EVENTS):
        if name in columns:
            found[name] = columns[name]
    if sample.exclude:
        apart = np.zeros(len(chunk), dtype=np.bool_)
        for name, intervals in sample.exclude.items():
            for low, high in intervals:
                apart |= (columns[name] >= low) & (columns[name] <= high)
        found[EXCLUDED] = apart
    return found


def _stack(
    columns: Mapping[str, npt.NDArray[Any]], names: tuple[str, ...], rows: int
) -> npt.NDArray[np.float32]:
    found = np.empty((rows, len(names)), dtype=np.float32)
    for j, name in enumerate(names):
        found[:, j] = columns[name]
    return found
