"""The rows of a calibration sample, from its files to the rows that are usable.

The selection on branches comes first. Rows without an sWeight in a file of sWeights,
which were outside of its fit, are dropped next. Variables are derived and converted to
package units, and rows with a NaN or infinity are dropped. Units must fit the declared
ranges. The fiducial cut and the ranges come last; the sentinels of a target stay.

A row that is dropped is in no denominator: efficiencies are those of the rows that are
left. Many rows with one and the same value outside of a target's range are often tracks
without a measurement, which belong into the denominator. Such values are announced.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import DatasetError, PidganWarning, SampleError
from pidgan.files.frames import Rows
from pidgan.files.tables import Source, describe_tree, iterate_columns, iterate_rows
from pidgan.progress import Bar, is_interactive
from pidgan.sample.cells import Cells
from pidgan.sample.cuts import parse_cut
from pidgan.sample.dataset import ALTERNATIVE_WEIGHT
from pidgan.sample.definition import Sample
from pidgan.sample.events import EVENT, common_key, event_hashes
from pidgan.sample.matching import Matcher, find_weighted
from pidgan.sample.stored import as_column, as_double
from pidgan.sample.variables import DISCRIMINANT, UNIT_FACTORS, Variable

#: Fraction of rows that, dropped for one reason, is worth a warning.
MANY_DROPPED = 0.05
# "#" cannot begin the name of a variable, so these columns never collide with one.
CELLS, EVENTS, MASS, WEIGHT = "#cells", "#events", "#mass", "#weight"
KEPT = "#kept "
_NOT_FINITE, _NO_WEIGHT = "NaN or infinite", "no sWeight"
#: Share of rows, and number of them, with one value from which it is a spike.
SPIKE_SHARE, SPIKE_ROWS = 1e-3, 10
#: Spikes of one target that are listed; a wrong range has as many as values.
_MOST_SPIKES = 8
#: Relative difference up to which two views hold the same total energy.
VIEWS_AGREE = 1e-3
#: No calorimeter shows more than its incident energy, but for fluctuations and
#: calibrations.
MOST_RESPONSE = 3.0


class SampleRows:
    """Rows of a calibration sample, with an account of the rows that were dropped.

    `columns` has an array (n, ...) for each variable in package units, and for `CELLS`,
    `MASS` and `WEIGHT` where the sample has them; `where` names the files in messages.
    `spikes` has the share of rows by target and value, for values outside of its range.
    `left_out` has the conditions that are not used, with the value that all rows have,
    or None where there is no branch. Branches to `keep` are there as they are stored,
    with `KEPT` before their names, and `EVENTS` has a hash of the `key` of each event.
    """

    def __init__(
        self,
        sample: Sample,
        sources: Sequence[Source],
        matcher: Matcher | None,
        *,
        keep: Sequence[str] = (),
        key: Sequence[str] = (),
        bar: Bar,
    ) -> None:
        more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        missing = _without_branch(sample, sources)
        self.sample = sample.without(missing) if missing else sample
        self.where = f"{sources[0]}{more}"
        self.files: list[dict[str, Any]] = []
        self.dropped: dict[str, int] = {}
        self.spikes: dict[str, dict[str, float]] = {}
        self._matcher = matcher
        self._keep = keep
        self.key = tuple(key)
        if not key and not sample.cells:
            self.key = common_key(map(describe_tree, sources))
        self.left_out: dict[str, float | None] = dict.fromkeys(missing)
        if is_interactive():
            bar.expect(sum(describe_tree(source).entries for source in sources))
        self._bar = bar
        chunks = [chunk for source in sources for chunk in self._read(source)]
        self.columns: dict[str, npt.NDArray[Any]] = {
            name: np.concatenate([chunk[name] for chunk in chunks])
            for name in (chunks[0] if chunks else ())
        }

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    @property
    def n_read(self) -> int:
        """Number of rows in the files."""
        return sum(int(file["rows"]) for file in self.files)

    def drop(self, bad: BoolArray, reason: str) -> None:
        """Drop the rows that a mask (n,) marks, and count them."""
        self._count(bad, reason)
        if bad.any():
            self.columns = {name: array[~bad] for name, array in self.columns.items()}

    def is_sentinel(self, variable: Variable) -> BoolArray:
        """Return which rows (n,) hold a sentinel of a variable."""
        return self.columns[_sentinel_key(variable)]

    def check_any(self) -> None:
        """Raise a DatasetError if no row is left."""
        if not len(self):
            reasons = ", ".join(f"{key}: {n}" for key, n in self.dropped.items())
            raise DatasetError(
                f"{self.where}: no rows left; dropped for {reasons or 'no reason'}"
            )

    def _count(self, bad: BoolArray, reason: str) -> None:
        if bad.any():
            self.dropped[reason] = self.dropped.get(reason, 0) + int(bad.sum())

    def _read(self, source: Source) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yield the selected rows of one source in chunks."""
        rows = 0
        if self._matcher and not self._matcher.pairs[source].entries:
            self.files.append({"source": str(source), "rows": 0})
            return
        matched = self._matcher.match(source) if self._matcher else None
        further = [*self._keep, *self.key]
        for frame, cells in _iterate(self.sample, source, further):
            n = len(frame)
            weights: FloatArray | None = None
            if self.sample.selection:
                # The cut fails rows with a NaN, which thus count as not selected.
                cut = parse_cut(self.sample.selection, names=frame.columns)
                passed = cut.passes(frame)
                self._count(~passed, "selection")
            else:
                passed = np.ones(n, dtype=np.bool_)
            if matched is not None:
                weights = matched.rows(rows, passed)
                has_none = passed & np.isnan(weights)
                self._count(has_none, _NO_WEIGHT)
                passed &= ~has_none
                weights = weights[passed]
            if not passed.all():
                frame = frame.loc[passed]
                cells = None if cells is None else cells[passed]
            rows += n
            self._bar.add(n)
            columns = _columns(self.sample, frame, cells, weights)
            kept = {f"{KEPT}{name}": _kept(frame, name, source) for name in self._keep}
            if self.key:
                columns[EVENTS] = event_hashes(frame, self.key)
            yield {**columns, **kept}
        file: dict[str, Any] = {"source": str(source), "rows": rows}
        if matched is not None:
            file |= {"sweights": str(matched.pair.weights), "ties": matched.ties}
        self.files.append(file)


def read_rows(
    sample: Sample,
    files: Rows,
    *,
    sweights_from: str | Path | None = None,
    keep: Sequence[str] = (),
    key: Sequence[str] = (),
    bar: Bar,
) -> SampleRows:
    """Read the rows of a sample that can be used; drop the others in a fixed order."""
    _check_keep(sample, keep)
    rows = SampleRows(
        sample,
        *find_weighted(sample, files, sweights_from),
        keep=keep,
        key=key,
        bar=bar,
    )
    sample = rows.sample
    _drop_unfinished(rows)
    rows.check_any()
    for variable in (*sample.conditions, *sample.variables):
        _check_unit(rows, variable)
    if sample.cells:
        _check_energies(rows, sample.cells)
    _keep_inside(rows)
    rows.check_any()
    _warn_dropped(rows)
    return rows


def _without_branch(sample: Sample, sources: Sequence[Source]) -> list[str]:
    """List the optional conditions that no source has a branch for."""
    asked = [v for v in sample.conditions if v.optional]
    if not asked or sample.needed_conditions.issuperset(v.name for v in asked):
        return []
    found = {name for source in sources for name in describe_tree(source).branches}
    missing = [v.name for v in asked if not found.issuperset(v.inputs)]
    return [name for name in missing if name not in sample.needed_conditions]


def _check_keep(sample: Sample, keep: Sequence[str]) -> None:
    """Raise a ValueError if a branch to keep has the name of a column of a dataset."""
    known = {*sample.condition_names, *sample.target_names, DISCRIMINANT, EVENT}
    for name in keep:
        if name in known or name == "weight" or name.startswith(ALTERNATIVE_WEIGHT):
            raise ValueError(
                f"keep has {name!r}, which is a column of the dataset already, "
                "expected other branches"
            )
        if keep.count(name) > 1:
            raise ValueError(f"keep has {name!r} twice")


def _kept(frame: pd.DataFrame, name: str, source: Source) -> FloatArray:
    try:
        return as_double(as_column(frame[name]))
    except ValueError as error:
        raise SampleError(f"{source}: branch {name!r} to keep {error}") from None


def _iterate(
    sample: Sample, source: Source, keep: Sequence[str]
) -> Iterator[tuple[pd.DataFrame, npt.NDArray[Any] | None]]:
    """Yield chunks: columns, and the cells (n, n_cells) if there are any."""
    names = list(dict.fromkeys([*sample.branches, *keep]))
    if sample.cells is None:
        for _, frame in iterate_columns(source, names):
            yield frame, None
        return
    inputs = {name for variable in sample.conditions for name in variable.inputs}
    views = set(sample.cells.arrays.values()) - inputs
    for arrays in iterate_rows(source, names):
        flat = {name: array for name, array in arrays.items() if array.ndim == 1}
        for name in arrays.keys() - flat.keys() - views:
            raise SampleError(
                f"{source}: {name!r} has {arrays[name].shape[1]} numbers per entry, "
                "expected one"
            )
        yield pd.DataFrame(flat), _stack_views(arrays, sample.cells, source)


def _stack_views(
    arrays: Mapping[str, FloatArray], cells: Cells, source: Source
) -> FloatArray:
    """Return the cells of all views (n, n_cells) from branches with one view each."""
    found = []
    for view in cells.layout.views:
        array = arrays[cells.arrays[view.name]]
        array = array[:, None] if array.ndim == 1 else array
        if array.shape[1] != view.n_cells:
            raise SampleError(
                f"{source}: the array of view {view.name!r} has {array.shape[1]} "
                f"cells, the geometry {view.n_cells}"
            )
        found.append(array)
    return np.concatenate(found, axis=1)


def _columns(
    sample: Sample,
    frame: pd.DataFrame,
    cells: npt.NDArray[Any] | None,
    weights: FloatArray | None,
) -> dict[str, npt.NDArray[Any]]:
    """Derive and convert the columns of a chunk."""
    columns: dict[str, npt.NDArray[Any]] = {}
    if sample.cells and cells is not None:
        energies = cells.astype(np.float32) * UNIT_FACTORS[sample.cells.unit]
        energies[energies < sample.cells.threshold] = 0
        columns[CELLS] = energies.astype(np.float32)
    for variable in (*sample.conditions, *sample.variables):
        columns[variable.name] = variable.evaluate(frame)
        columns[_sentinel_key(variable)] = variable.is_sentinel(frame)
    if sample.weight_branch:
        weights = frame[sample.weight_branch].to_numpy(np.float64)
    if weights is not None:
        columns[WEIGHT] = weights
    if mass := sample.discriminant:
        read = Variable(name=mass.branch, unit=mass.unit, range=mass.range)
        columns[MASS] = read.evaluate(frame)
    return columns


def _sentinel_key(variable: Variable) -> str:
    return f"#sentinel {variable.name}"


def _drop_unfinished(rows: SampleRows) -> None:
    """Drop rows with a NaN or infinity, and warn of the columns that have some."""
    bad = np.zeros(len(rows), dtype=np.bool_)
    found = []
    for name, array in rows.columns.items():
        if array.dtype != np.bool_ and not name.startswith(KEPT):
            infinite = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            bad |= infinite
            if infinite.any():
                found.append(f"{name.removeprefix('#')} in {infinite.sum()}")
    rows.drop(bad, _NOT_FINITE)
    if found:
        warnings.warn(
            f"{rows.where}: {bad.sum()} of {rows.n_read} rows dropped: {_NOT_FINITE} "
            f"({', '.join(found)}); efficiencies are those of the other rows",
            PidganWarning,
            stacklevel=4,
        )


def _note_spikes(rows: SampleRows) -> None:
    """Note and announce values outside of a target's range that many rows have."""
    for variable in rows.sample.variables:
        column = rows.columns[variable.name]
        outside = _unusable(rows, variable)
        # As stored, which is how sentinels are declared.
        stored = column[outside] / UNIT_FACTORS[variable.unit]
        values, counts = np.unique(stored, return_counts=True)
        shares = counts / max(len(rows), 1)
        notable = (shares >= SPIKE_SHARE) & (counts >= SPIKE_ROWS)
        order = np.argsort(-shares[notable], kind="stable")[:_MOST_SPIKES]
        found = {
            f"{value:.6g}": float(share)
            for value, share in zip(
                values[notable][order], shares[notable][order], strict=True
            )
        }
        if not found:
            continue
        rows.spikes[variable.name] = found
        listed = ", ".join(f"{value} in {share:.2%}" for value, share in found.items())
        low, high = variable.range
        wanted = f"outside its range [{low:g}, {high:g}]"
        if variable.categories:
            known = ", ".join(f"{value:g}" for value in variable.categories)
            wanted = f"that is none of its categories {known}"
        warnings.warn(
            f"{rows.where}: many rows have one value of {variable.name} {wanted}: "
            f"{listed}; they are dropped, and are in no "
            f"denominator; if it means 'no measurement', declare sentinels = "
            f"[{', '.join(found)}] for {variable.name} to keep them",
            PidganWarning,
            stacklevel=5,
        )


def _check_unit(rows: SampleRows, variable: Variable) -> None:
    """Refuse a variable whose median lies outside its range: a unit or a branch."""
    column = rows.columns[variable.name][~rows.is_sentinel(variable)]
    low, high = variable.range
    if not len(column) or low <= (median := float(np.median(column))) <= high:
        return
    origin = f"derived from {', '.join(variable.inputs)}" if variable.derive else ""
    account = (
        f"{rows.where}: {variable.name} ({origin or f'branch {variable.inputs[0]!r}'}) "
        f"has median {median:.6g} {variable.package_unit} read with unit = "
        f"{variable.unit!r}, outside the declared range [{low:g}, {high:g}] "
        f"{variable.package_unit}"
    )
    if variable.unit == "MeV" and low <= 1000 * median <= high:
        raise SampleError(
            f'{account}; looks like GeV where MeV is declared, set unit = "GeV"'
        )
    if variable.unit == "GeV" and low <= median / 1000 <= high:
        raise SampleError(
            f'{account}; looks like MeV where GeV is declared, set unit = "MeV"; or '
            "the range is meant in GeV: ranges are in MeV"
        )
    raise SampleError(f"{account}; check branch, unit and range")


def _check_energies(rows: SampleRows, cells: Cells) -> None:
    """Refuse views that differ in their total, and a wrong unit of energy."""
    totals = {
        name: rows.columns[CELLS][:, part].sum(axis=1, dtype=np.float64)
        for name, part in cells.layout.view_slices.items()
    }
    first, *others = totals.items()
    for name, total in others if cells.scheme == "layers" else ():
        bad = np.abs(total - first[1]) > VIEWS_AGREE * np.abs(first[1])
        if bad.any() and cells.threshold == 0:
            raise SampleError(
                f"{rows.where}: views {first[0]!r} and {name!r} hold different "
                f"energies in {bad.sum()} of {len(bad)} rows, expected equal ones; "
                f'set scheme = "cells", or give each a definition of its own'
            )
    if cells.incident:
        response = float(np.median(first[1] / rows.columns[cells.incident]))
        if response > MOST_RESPONSE:
            raise SampleError(
                f"{rows.where}: the cells hold {response:.3g} times the incident "
                f"energy {cells.incident!r} (median); check cells.unit = {cells.unit!r}"
            )


def _keep_inside(rows: SampleRows) -> None:
    """Drop rows outside the fiducial cut and the ranges, one after the other."""
    sample = rows.sample
    if sample.fiducial:
        cut = parse_cut(sample.fiducial, names=sample.condition_names)
        rows.drop(~cut.passes(rows.columns), "fiducial")
    _note_spikes(rows)
    home = {name: link.name for link in sample.links for name in link.targets}
    for variable in (*sample.conditions, *sample.variables):
        name = variable.name
        reason = "unknown" if variable.categories else "out of range"
        where = f", link {home[name]}" if name in home else ""
        rows.drop(_unusable(rows, variable), f"{name} {reason}{where}")
    if sample.cells:
        empty = np.asarray(rows.columns[CELLS].max(axis=1) <= 0)
        least = sample.cells.threshold
        above = f"no cell above the threshold of {least:g}"
        rows.drop(empty, above if least else "no energy")
    if sample.discriminant:
        outside = _outside(rows.columns[MASS], sample.discriminant.range)
        rows.drop(outside, f"{sample.discriminant.branch} out of range")


def _unusable(rows: SampleRows, variable: Variable) -> BoolArray:
    """Return which rows (n,) are outside a range or none of the categories."""
    column = rows.columns[variable.name]
    if variable.categories:
        # As the columns of a dataset, so that a stored 0.1 is the category 0.1.
        known = np.isin(
            column.astype(np.float32), np.array(variable.categories, dtype=np.float32)
        )
        return ~known & ~rows.is_sentinel(variable)
    return _outside(column, variable.range) & ~rows.is_sentinel(variable)


def _outside(column: npt.NDArray[Any], limits: tuple[float, float]) -> BoolArray:
    return np.asarray(~((column >= limits[0]) & (column <= limits[1])))


def _warn_dropped(rows: SampleRows) -> None:
    """Warn if many rows are outside of a range."""
    most = dict.fromkeys(
        ("selection", "fiducial", _NOT_FINITE, _NO_WEIGHT), rows.n_read
    )
    for reason, n in rows.dropped.items():
        if n > most.get(reason, MANY_DROPPED * rows.n_read):
            warnings.warn(
                f"{rows.where}: {n} of {rows.n_read} rows dropped: {reason}",
                PidganWarning,
                stacklevel=4,
            )
