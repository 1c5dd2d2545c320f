"""The rows of a calibration sample, from its files to the rows that are usable.

The selection on branches comes first. Rows without an sWeight in a file of sWeights,
which were outside of its fit, are dropped next. Variables are derived and converted to
package units, and rows with a NaN or infinity are dropped. Units must fit the declared
ranges. The fiducial cut and the ranges come last; the sentinels of a target stay.

A row that is dropped is in no denominator: efficiencies are those of the rows that are
left. Many rows with one and the same value outside of a target's range are often tracks
without a measurement, which belong into the denominator. Such values are announced.

Files are read in pieces by several threads, and usable rows stay in memory or go to
files as they come: the memory that is needed does not grow with the sample.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import DatasetError, NtupleError, PidganWarning, SampleError
from pidgan.files.frames import Rows
from pidgan.files.in_order import in_order
from pidgan.files.mapped import GrowingArrays
from pidgan.files.tables import (
    Source,
    count_entries,
    describe_tree,
    iterate_columns,
    iterate_rows,
)
from pidgan.files.trees import BASKET_ENTRIES, TreeInfo
from pidgan.progress import Bar, is_interactive
from pidgan.sample.cells import Cells
from pidgan.sample.chunks import (
    NO_WEIGHT,
    NOT_FIDUCIAL,
    NOT_FINITE,
    NOT_SELECTED,
    Columns,
    Wanted,
    usable_rows,
)
from pidgan.sample.dataset import ALTERNATIVE_WEIGHT
from pidgan.sample.definition import Sample
from pidgan.sample.events import EVENT, common_key
from pidgan.sample.matching import Matched, Matcher, find_weighted
from pidgan.sample.tally import Median, Tally
from pidgan.sample.variables import DISCRIMINANT, UNIT_FACTORS, Variable

#: Fraction of rows that, dropped for one reason, is worth a warning.
MANY_DROPPED = 0.05
#: Share of rows, and number of them, with one value from which it is a spike.
SPIKE_SHARE, SPIKE_ROWS = 1e-3, 10
#: Spikes of one target that are listed; a wrong range has as many as values.
_MOST_SPIKES = 8
#: Entries of one piece of work, and bytes of it: a chunk of showers is short.
PIECE_ENTRIES, PIECE_BYTES = 1_000_000, 100_000_000


class SampleRows:
    """Rows of a calibration sample, with an account of the rows that were dropped.

    `arrays` has the arrays (n, ...) of a dataset, by the names in
    `pidgan.sample.chunks`; `where` names the files in messages. `spikes` has the share
    of rows by target and value, for values outside of its range. `left_out` has the
    conditions that are not used, with the value that all rows have, or None where there
    is no branch. `tally` counts the rows. `scratch` is where temporary files lie.
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
        scratch: str | Path | None = None,
        threads: int | None = None,
    ) -> None:
        trees = {source: describe_tree(source) for source in sources}
        more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        missing = _without_branch(sample, trees.values())
        self.sample = sample.without(missing) if missing else sample
        self.where = f"{sources[0]}{more}"
        self.files: list[dict[str, Any]] = []
        self.spikes: dict[str, dict[str, float]] = {}
        self.key = tuple(key)
        if not key and not sample.cells:
            self.key = common_key(trees.values())
        self.left_out: dict[str, float | None] = dict.fromkeys(missing)
        self.tally, self.scratch = Tally(), scratch
        if is_interactive():
            bar.expect(sum(tree.entries for tree in trees.values()))
        self._wanted = Wanted(sample=self.sample, keep=tuple(keep), key=self.key)
        branches = [*self.sample.branches, *self._wanted.keep, *self.key]
        for source, tree in trees.items():
            if matcher is None or matcher.pairs[source].entries:
                _check(source, tree, [] if sample.cells else branches)
        rows = GrowingArrays(scratch)
        pieces = self._pieces(trees, matcher)
        for chunks in in_order(self._read, pieces, threads=threads):
            for columns, tally in chunks:
                rows.append(columns)
                self.tally.add(tally)
                bar.add(tally.read)
        self.arrays: Columns = rows.finish()
        self.n = rows.rows

    def __len__(self) -> int:
        return self.n

    @property
    def n_read(self) -> int:
        """Number of rows in the files."""
        return self.tally.read

    @property
    def dropped(self) -> dict[str, int]:
        """Number of rows that were dropped, by reason."""
        return {reason: n for reason, n in self.tally.dropped.items() if n}

    def check_any(self, left: int, reasons: Sequence[str] | None = None) -> None:
        """Raise a DatasetError if no row is left; `reasons` are those so far."""
        if not left:
            listed = ", ".join(
                f"{key}: {n}"
                for key, n in self.dropped.items()
                if reasons is None or key in reasons
            )
            raise DatasetError(
                f"{self.where}: no rows left; dropped for {listed or 'no reason'}"
            )

    def _pieces(
        self, trees: Mapping[Source, TreeInfo], matcher: Matcher | None
    ) -> Iterator["_Piece"]:
        """Yield the ranges of entries that are read one by one."""
        branches = [*self.sample.branches, *self._wanted.keep, *self.key]
        for source, tree in trees.items():
            file: dict[str, Any] = {"source": str(source), "rows": tree.entries}
            self.files.append(file)
            if matcher and not matcher.pairs[source].entries:
                continue
            matched = matcher.match(source) if matcher else None
            if matched is not None:
                file |= {"sweights": str(matched.pair.weights), "ties": matched.ties}
            chunk = max(1, min(BASKET_ENTRIES, PIECE_BYTES // _width(tree, branches)))
            size = max(1, PIECE_ENTRIES // BASKET_ENTRIES) * chunk
            for start in range(0, tree.entries, size):
                yield _Piece(source, start, start + size, chunk, matched)

    def _read(self, piece: "_Piece") -> list[tuple[Columns, Tally]]:
        """Return the usable rows of a piece, in chunks."""
        further = [*self._wanted.keep, *self.key]
        found, first = [], piece.start
        for frame, cells in _iterate(self.sample, piece, further):
            matched: Callable[[BoolArray], FloatArray] | None = None
            if piece.matched is not None:
                matched = functools.partial(piece.matched.rows, first)
            found.append(
                usable_rows(
                    frame, cells, matched, wanted=self._wanted, source=piece.source
                )
            )
            first += len(frame)
        return found


def _check(source: Source, tree: TreeInfo, branches: Sequence[str]) -> None:
    """Raise an NtupleError if a tree lacks a branch or is empty, before the work."""
    count_entries(source, branches)
    if not tree.entries:
        raise NtupleError(f"{source} is empty: got 0 entries, expected at least 1")


@dataclass(frozen=True)
class _Piece:
    """A range of entries of a tree, which is read in chunks."""

    source: Source
    start: int
    stop: int
    chunk: int
    matched: Matched | None


def _width(tree: TreeInfo, branches: Sequence[str]) -> int:
    """Return about how many bytes an entry takes."""
    bytes_of = 0
    for name in set(branches):
        kind = tree.types.get(name)
        length = kind.shape[0] if kind is not None and kind.shape else 1
        bytes_of += 8 if kind is None else kind.number.itemsize * (length or 1)
    return max(1, bytes_of)


def read_rows(
    sample: Sample,
    files: Rows,
    *,
    sweights_from: str | Path | None = None,
    keep: Sequence[str] = (),
    key: Sequence[str] = (),
    bar: Bar,
    scratch: str | Path | None = None,
    threads: int | None = None,
) -> SampleRows:
    """Read the rows of a sample that can be used; drop the others in a fixed order.

    Neither the rows nor their account depend on the number of `threads`.
    """
    _check_keep(sample, keep)
    rows = SampleRows(
        sample,
        *find_weighted(sample, files, sweights_from),
        keep=keep,
        key=key,
        bar=bar,
        scratch=scratch,
        threads=threads,
    )
    first = (NOT_SELECTED, NO_WEIGHT, NOT_FINITE)
    left = rows.n_read - sum(rows.dropped.get(reason, 0) for reason in first)
    _warn_unfinished(rows)
    rows.check_any(left, first)
    for variable in (*rows.sample.conditions, *rows.sample.variables):
        _check_unit(rows, variable)
    if rows.sample.cells:
        _check_energies(rows, rows.sample.cells)
    _note_spikes(rows)
    rows.check_any(len(rows))
    _warn_dropped(rows)
    return rows


def _without_branch(sample: Sample, trees: Iterable[TreeInfo]) -> list[str]:
    """List the optional conditions that no source has a branch for."""
    asked = [v for v in sample.conditions if v.optional]
    if not asked or sample.needed_conditions.issuperset(v.name for v in asked):
        return []
    found = {name for tree in trees for name in tree.branches}
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


def _iterate(
    sample: Sample, piece: _Piece, keep: Sequence[str]
) -> Iterator[tuple[pd.DataFrame, npt.NDArray[Any] | None]]:
    """Yield chunks: columns, and the cells (n, n_cells) if there are any."""
    names = list(dict.fromkeys([*sample.branches, *keep]))
    source = piece.source
    places: Any = {"start": piece.start, "stop": piece.stop, "chunk": piece.chunk}
    if sample.cells is None:
        for _, frame in iterate_columns(source, names, **places):
            yield frame, None
        return
    inputs = {name for variable in sample.conditions for name in variable.inputs}
    branches = map(sample.cells.branches, sample.cells.arrays)
    views = set().union(*branches) - inputs
    for arrays in iterate_rows(source, names, **places):
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
        parts = [arrays[name] for name in cells.branches(view.name)]
        parts = [part[:, None] if part.ndim == 1 else part for part in parts]
        array = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        if array.shape[1] != view.n_cells:
            raise SampleError(
                f"{source}: the array of view {view.name!r} has {array.shape[1]} "
                f"cells, the geometry {view.n_cells}"
            )
        found.append(array)
    return np.concatenate(found, axis=1)


def _warn_unfinished(rows: SampleRows) -> None:
    """Warn of the columns that have a NaN or infinity."""
    infinite = rows.tally.infinite
    if infinite:
        variables = (*rows.sample.conditions, *rows.sample.variables)
        names = ["#cells", *(v.name for v in variables), "#weight", "#mass"]
        found = [
            f"{n.removeprefix('#')} in {infinite[n]}" for n in names if n in infinite
        ]
        warnings.warn(
            f"{rows.where}: {rows.dropped[NOT_FINITE]} of {rows.n_read} rows dropped: "
            f"{NOT_FINITE} ({', '.join(found)}); efficiencies are those of the other "
            "rows",
            PidganWarning,
            stacklevel=4,
        )


def _note_spikes(rows: SampleRows) -> None:
    """Note and announce values outside of a target's range that many rows have."""
    for variable in rows.sample.variables:
        outside = rows.tally.outside.get(variable.name)
        if outside is None:
            continue
        values, counts = outside.different, outside.counts
        shares = counts / max(rows.tally.inside, 1)
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
            stacklevel=4,
        )


def _check_unit(rows: SampleRows, variable: Variable) -> None:
    """Refuse a variable whose median lies outside its range: a unit or a branch."""
    found = rows.tally.medians.get(variable.name, Median())
    if not found.is_outside:
        return
    (low, high), median = variable.range, found.value
    origin = f"derived from {', '.join(variable.inputs)}" if variable.derive else ""
    account = (
        f"{rows.where}: {variable.name} ({origin or f'branch {variable.inputs[0]!r}'}) "
        f"has median {median:.6g} {variable.package_unit} read with unit = "
        f"{variable.unit!r}, outside the declared range [{low:g}, {high:g}] "
        f"{variable.package_unit}"
    )
    if variable.unit == "MeV" and low <= UNIT_FACTORS["GeV"] * median <= high:
        raise SampleError(
            f'{account}; looks like GeV where MeV is declared, set unit = "GeV"'
        )
    if variable.unit == "GeV" and low <= median / UNIT_FACTORS["GeV"] <= high:
        raise SampleError(
            f'{account}; looks like MeV where GeV is declared, set unit = "MeV"; or '
            "the range is meant in GeV: ranges are in MeV"
        )
    raise SampleError(f"{account}; check branch, unit and range")


def _check_energies(rows: SampleRows, cells: Cells) -> None:
    """Refuse views that differ in their total, and a wrong unit of energy."""
    first = cells.layout.views[0].name
    for name, bad in rows.tally.views.items():
        if bad.n and cells.threshold == 0:
            raise SampleError(
                f"{rows.where}: views {first!r} and {name!r} hold different "
                f"energies in {bad.n} of {bad.rows} rows, expected equal ones; "
                f'set scheme = "cells", or give each a definition of its own'
            )
    response = rows.tally.response
    if response.is_outside:
        raise SampleError(
            f"{rows.where}: the cells hold {response.value:.3g} times the incident "
            f"energy {cells.incident!r} (median); check cells.unit = {cells.unit!r}"
        )


def _warn_dropped(rows: SampleRows) -> None:
    """Warn if many rows are outside of a range."""
    most = dict.fromkeys(
        (NOT_SELECTED, NOT_FIDUCIAL, NOT_FINITE, NO_WEIGHT), rows.n_read
    )
    for reason, n in rows.dropped.items():
        if n > most.get(reason, MANY_DROPPED * rows.n_read):
            warnings.warn(
                f"{rows.where}: {n} of {rows.n_read} rows dropped: {reason}",
                PidganWarning,
                stacklevel=4,
            )
