"""The sWeight of each row of a tuple, from the file that holds the sWeights.

`Matcher.match` gives the weights (n,) of one tree of the tuple. Only the branches that
decide which rows belong together are read. Weights are NaN where the file says so: such
rows were outside of the fit.

Ranks are those of PIDCalib2: it sorts the rows of the tuple by expressions, the weights
by their order index, and puts one beside the other. The law is w[order] = v[rank], with
`order` from the sort. PIDCalib2 takes rows as they come where they are equal in all
expressions. Here, that is an error unless their weights are equal.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import PidganWarning, SampleError
from pidgan.files.frames import Rows
from pidgan.files.tables import Source, find_sources
from pidgan.sample.definition import Sample
from pidgan.sample.expressions import whole_branch
from pidgan.sample.key_matching import KeyTable
from pidgan.sample.sorting import sort_rows
from pidgan.sample.weight_columns import Column, read_whole, some_rows
from pidgan.sample.weight_file import WeightFile
from pidgan.sample.weight_pairs import (
    Pair,
    Place,
    check_place,
    find_pairs,
    weight_path,
)

#: Relative difference up to which two weights are the same: rows that are equal in the
#: variables of the fit get weights that differ by roundings at most.
SAME_WEIGHT = 1e-6
_SHOWN = 3
_AS_PIDCALIB = "ties = 'file', as PIDCalib2,"


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Weights (n,) of the rows of a tree, NaN outside of the fit.

    `unmatched` marks the rows (n,) whose key the file lacks; `ties` counts the rows
    that are equal to another one in all expressions of `order`.
    """

    pair: Pair
    weights: FloatArray
    unmatched: BoolArray | None = None
    ties: int = 0

    def rows(self, first: int, kept: BoolArray) -> FloatArray:
        """Return the weights of a chunk (m,); raise if a row that is kept has none."""
        part = slice(first, first + len(kept))
        if self.unmatched is not None and (bad := self.unmatched[part] & kept).any():
            pair = self.pair
            raise SampleError(
                f"{pair.source}: {pair.weights} lacks the keys of "
                f"{some_rows(bad, first=first)}; expected weights for all rows that "
                "the selection keeps"
            )
        return self.weights[part]


@final
class Matcher:
    """The weights of several trees; files are compared when it is made."""

    def __init__(
        self, sources: Sequence[Source], definition: WeightFile, place: Place = None
    ) -> None:
        self.definition = definition
        self.pairs = find_pairs(sources, definition, place)
        self._tables: dict[Source, KeyTable] = {}
        # Number of trees that still need the weights of a tree.
        self._left = Counter(p.weights for p in self.pairs.values() if p.entries)

    def match(self, source: Source) -> Matched:
        """Return the weights of the rows of one tree."""
        pair, definition = self.pairs[source], self.definition
        if definition.kind == "ranks":
            return _match_ranks(pair, definition)
        if definition.kind == "rows":
            branch = [whole_branch(definition.branch)]
            (weights,) = read_whole(pair.weights, branch, pair.n_weights)
            return Matched(pair=pair, weights=weights.astype(np.float64))
        if pair.weights not in self._tables:
            self._tables[pair.weights] = KeyTable(
                pair.weights, definition.match, definition.branch, pair.n_weights
            )
        weights, unmatched = self._tables[pair.weights].match(source, pair.entries)
        self._left[pair.weights] -= 1
        if not self._left[pair.weights]:
            self._check_all_used(self._tables.pop(pair.weights))
        return Matched(pair=pair, weights=weights, unmatched=unmatched)

    def _check_all_used(self, table: KeyTable) -> None:
        """Refuse weights that belong to no row; warn if the file is for many tuples."""
        unused = table.used == 0
        if not unused.any():
            return
        text = (
            f"{table.source}: no row of the tuple has the keys of {some_rows(unused)}"
        )
        if self.definition.is_shared:
            warnings.warn(text, PidganWarning, stacklevel=6)
            return
        raise SampleError(f"{text}; expected the weights of this tuple only")


def find_weighted(
    sample: Sample, files: Rows, place: Place = None
) -> tuple[list[Source], Matcher | None]:
    """Return the trees of a sample, and their weights if these are in other files.

    Files with weights that the patterns of the tuples find too are no tuples.
    """
    definition = sample.sweights
    if definition is None:
        if place is not None:
            raise SampleError(
                f"sweights_from is {str(place)!r}, and sample {sample.name!r} has no "
                "'sweights' in other files"
            )
        return find_sources(files, trees=sample.trees), None
    check_place(place)
    sources = find_sources(
        files,
        trees=sample.trees,
        companion=lambda path: weight_path(path, definition, place),
    )
    if rows := next((s for s in sources if s.table is not None), None):
        raise SampleError(
            f"{rows}: sample {sample.name!r} has 'sweights' in files beside those of "
            "its rows, and rows in memory have none; give the files, or a definition "
            "with a weight_branch"
        )
    return sources, Matcher(sources, definition, place)


def _match_ranks(pair: Pair, definition: WeightFile) -> Matched:
    names = (*definition.match, definition.branch)
    columns = [whole_branch(name) for name in names]
    ranks, weights = read_whole(pair.weights, columns, pair.n_weights)
    by_rank = np.empty(len(weights))
    by_rank[_positions(pair, names[0], ranks)] = weights
    del ranks, weights
    keys = read_whole(pair.source, definition.expressions, pair.entries)
    for text, key in zip(definition.order, keys, strict=True):
        if key.dtype.kind == "f" and (bad := np.isnan(key)).any():
            account = (
                f"{pair.source}: {text!r}, by which rows are sorted, is NaN in "
                f"{some_rows(bad)}"
            )
            if definition.ties == "refuse":
                raise SampleError(f"{account}; {_AS_PIDCALIB} puts them last")
            warnings.warn(f"{account}; they come last", PidganWarning, stacklevel=6)
    order, tied = sort_rows(keys)
    if definition.ties == "refuse":
        _check_ties(pair, definition, tied, order, by_rank, keys)
    matched = np.empty(len(order))
    matched[order] = by_rank
    alike = np.append(tied, False) | np.append(False, tied)
    return Matched(pair=pair, weights=matched, ties=int(alike.sum()))


def _positions(pair: Pair, name: str, ranks: Column) -> npt.NDArray[np.int64]:
    """Return ranks as 0 to n - 1, each once; raise if they are not."""
    where, n = f"{pair.weights}, branch {name!r}", len(ranks)
    if ranks.dtype.kind == "f":
        broken = ~(np.isfinite(ranks) & (ranks == np.floor(ranks)))
        if broken.any():
            raise SampleError(
                f"{where} is no whole number in {some_rows(broken, values=ranks)}"
            )
    whole = ranks.astype(np.int64)
    least = int(whole.min()) if n else 0
    first = least if least > 0 and int(whole.max()) - least + 1 == n else 0
    whole -= first
    outside = (whole < 0) | (whole >= n)
    if outside.any():
        raise SampleError(
            f"{where} is out of range in {some_rows(outside, values=ranks)}; expected "
            f"the ranks 0 to {n - 1}"
        )
    counts = np.bincount(whole, minlength=n)
    if (counts != 1).any():
        repeats = counts[whole] > 1
        lacking = np.flatnonzero(counts == 0)
        more = "" if len(lacking) == 1 else f" and {len(lacking) - 1} more"
        raise SampleError(
            f"{where} repeats ranks in {some_rows(repeats, values=ranks)}, and lacks "
            f"the rank {lacking[0] + first}{more}; expected the ranks 0 to {n - 1}, "
            "each once"
        )
    if first:
        warnings.warn(
            f"{where} goes from {least} to {least + n - 1}, expected 0 to {n - 1}; "
            "only the order counts, as for PIDCalib2",
            PidganWarning,
            stacklevel=6,
        )
    return whole


def _check_ties(
    pair: Pair,
    definition: WeightFile,
    tied: BoolArray,
    order: npt.NDArray[np.int64],
    weights: FloatArray,
    keys: Sequence[Column],
) -> None:
    """Refuse rows that are equal in all expressions, and have different weights."""
    at = np.flatnonzero(tied)
    one, other = weights[at], weights[at + 1]
    same = np.abs(one - other) <= SAME_WEIGHT * np.maximum(np.abs(one), np.abs(other))
    same |= (one == other) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return
    bad = at[~same]
    listed = "; ".join(
        f"rows {order[i]} and {order[i + 1]} "
        f"({', '.join(str(key[order[i]]) for key in keys)}) with the weights "
        f"{weights[i]:.6g} and {weights[i + 1]:.6g}"
        for i in bad[:_SHOWN]
    )
    raise SampleError(
        f"{pair.source}: rows are equal in {', '.join(definition.order)} and have "
        f"different weights in {len(bad)} pairs: {listed}; which weight belongs to "
        f"which row is open; {_AS_PIDCALIB} takes them in the order of the file"
    )
