"""Entries with several tracks: columns laid out with one row per track, and put back.

A generator knows rows. In an ntuple, an entry holds one track (flat branches), a fixed
number (`K_P[2]`) or any number (`Track_P[nTrack]`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from pidgan.errors import NtupleError
from pidgan.files.trees import BranchType

Shape = tuple[int | None, ...]
"""Shape of an entry: () for one track, (3,) for three, (None,) for any number."""

Counts = npt.NDArray[np.int64]


def common_shape(
    types: Mapping[str, BranchType], *, own: Sequence[str], where: str
) -> Shape:
    """Return the shape of a track from the types of the branches that are read for it.

    Its `own` branches decide it. Others, such as a selection's or a key's, must fit,
    or an NtupleError names the tree and track, `where`. Flat branches fit every shape.
    """
    nested = {name: types[name] for name in own if types[name].shape}
    if len({kind.shape for kind in nested.values()}) > 1:
        listed = ", ".join(f"{name!r} ({kind})" for name, kind in nested.items())
        raise NtupleError(
            f"{where}: branches hold different numbers of tracks per entry: {listed}"
        )
    shape = next((kind.shape for kind in nested.values()), ())
    for name, kind in types.items():
        if kind.shape not in ((), shape):
            raise NtupleError(
                f"{where}: {name!r} is of type {kind}, expected {kind.number} or the "
                f"shape of the conditions, {BranchType(kind.number, shape)}"
            )
    return shape


def lay_out(
    columns: Mapping[str, Any], branches: Sequence[str], shape: Shape, *, where: str
) -> tuple[dict[str, npt.NDArray[Any]], Counts | None]:
    """Return columns (rows,) with a row for each track, and the tracks of each entry.

    The columns of a chunk are numpy (n,) or (n, k), or awkward (n, variable), the
    counts (n,), or None if every entry is a row. An NtupleError tells which branches
    hold different numbers of tracks in the same entry.
    """
    arrays = {name: columns[name] for name in branches}
    if shape == ():
        return arrays, None
    nested = [name for name, array in arrays.items() if array.ndim == 2]
    counts = _counts(arrays[nested[0]])
    for name in nested[1:]:
        found = _counts(arrays[name])
        if not np.array_equal(found, counts):
            entry = int(np.flatnonzero(found != counts)[0])
            raise NtupleError(
                f"{where}: {nested[0]!r} holds {counts[entry]} tracks and {name!r} "
                f"{found[entry]} in the same entry"
            )
    rows = {
        name: np.asarray(ak.flatten(array, axis=1))
        if name in nested
        else np.repeat(array, counts)
        for name, array in arrays.items()
    }
    return rows, counts


def restore(values: npt.NDArray[Any], shape: Shape, counts: Counts | None) -> Any:
    """Return a result (rows,) in the shape of the branches that it comes from."""
    if counts is None:
        return values
    if shape == (None,):
        return ak.unflatten(values, counts)
    return values.reshape(len(counts), *(int(n or 0) for n in shape))


def _counts(array: Any) -> Counts:
    """Return the tracks of each entry of a nested array."""
    return np.asarray(ak.num(array, axis=1), dtype=np.int64)
