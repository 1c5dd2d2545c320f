"""Pairs of a tuple's tree and the tree with its sWeights, checked before work starts.

The file with the weights lies beside the tuple, or in the folder or at the address that
the user gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pidgan.errors import NtupleError, SampleError, nearest
from pidgan.files.tables import Source, count_entries, list_trees
from pidgan.files.trees import is_remote
from pidgan.sample.weight_file import ORDER_INDEX, WeightFile

Place = str | Path | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A tree of a tuple, the tree with its weights, and their numbers of entries."""

    source: Source
    weights: Source
    entries: int
    n_weights: int


def weight_path(path: str, definition: WeightFile, place: Place = None) -> str:
    """Return the path of the file with the weights of a tuple."""
    base = path.partition("?")[0] if is_remote(path) else path
    name = definition.name_for(Path(base).stem)
    if place is None and not is_remote(path):
        return str(Path(path).parent / name)
    if place is not None and not is_remote(place):
        return str(Path(place) / name)
    address, mark, query = str(path if place is None else place).partition("?")
    folder = address.rpartition("/")[0] if place is None else address.rstrip("/")
    return f"{folder}/{name}{mark}{query}"


def check_place(place: Place) -> None:
    """Raise an NtupleError if the folder of the weights is none."""
    if place is not None and not is_remote(place) and not Path(place).is_dir():
        got = "a file" if Path(place).exists() else "no such folder"
        raise NtupleError(f"sweights_from: {place} is {got}, expected a folder")


def find_pairs(
    sources: Sequence[Source], definition: WeightFile, place: Place = None
) -> dict[Source, Pair]:
    """Return the pair of each tree; raise if a file, tree, branch or row is missing."""
    found = {s: _weights_of(s, definition, place) for s in sources}
    owners: dict[Source, Source] = {}
    for source, weights in found.items() if definition.kind != "keys" else ():
        owner = owners.setdefault(weights, source)
        if owner != source:
            raise SampleError(
                f"{owner} and {source} would both have the weights {weights}; "
                "expected weights of their own, or match = [...], branches of both"
            )
    return {s: _checked_pair(s, weights, definition) for s, weights in found.items()}


def _weights_of(source: Source, definition: WeightFile, place: Place) -> Source:
    """Return the tree with the weights of a tuple's tree."""
    path = weight_path(source.path, definition, place)
    try:
        trees = list_trees(path)
    except NtupleError as error:
        hint = "" if place else "; --sweights-from names another folder or address"
        raise NtupleError(f"sWeights of {source.path}: {error}{hint}") from None
    if definition.tree:
        return Source(path, definition.tree)
    if not trees:
        return Source(path)
    if source.tree is not None and source.name in trees:
        return Source(path, source.name)
    if len(trees) == 1:
        return Source(path, trees[0])
    wanted = f"a tree {source.name!r}, as {source.path}" if source.tree else "one tree"
    raise SampleError(
        f"sWeights of {source}: {path} has the trees {', '.join(map(repr, trees))}, "
        f"expected {wanted}, or sweights.tree"
        f"{nearest(source.name, trees) if source.tree else ''}"
    )


def _checked_pair(source: Source, weights: Source, definition: WeightFile) -> Pair:
    kind = definition.kind
    own = [*(definition.match if kind != "rows" else ()), definition.branch]
    needed = list(definition.match if kind == "keys" else ())
    needed += [name for one in definition.expressions for name in one.names]
    try:
        n_weights, present = count_entries(weights, own)
    except NtupleError as error:
        raise SampleError(f"sWeights of {source}: {error}{_hint(definition)}") from None
    if kind == "rows" and ORDER_INDEX in present:
        raise SampleError(
            f"{weights} has a branch {ORDER_INDEX!r}, so its rows are not in the order "
            f"of {source}: expected match = {ORDER_INDEX!r} and order, got match = "
            "'entry'"
        )
    try:
        entries, _ = count_entries(source, needed)
    except NtupleError as error:
        hint = "; a match without order is of branches of both files"
        raise SampleError(f"{error}{hint if kind == 'keys' else ''}") from None
    if kind != "keys" and entries != n_weights:
        raise SampleError(
            f"{source} has {entries} rows, and {weights} has weights for {n_weights}: "
            "expected as many; the weights of rows outside of a fit are NaN"
        )
    return Pair(source=source, weights=weights, entries=entries, n_weights=n_weights)


def _hint(definition: WeightFile) -> str:
    if definition.kind != "ranks":
        return ""
    return (
        f"; match = {definition.match[0]!r} is the branch with ranks, and match = "
        "'entry', without order, matches row by row, as PIDCalib2 does where there is "
        "none"
    )
