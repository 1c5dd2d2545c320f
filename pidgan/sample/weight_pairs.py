"""Pairs of a tuple's tree and the tree with its sWeights, checked before work starts.

The file with the weights lies beside the tuple, or in the folder or at the address that
the user gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pidgan.errors import NtupleError, SampleError, nearest
from pidgan.files.tables import Source, TreeInfo, choose_tree, count_entries
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
    found = {s: _find_weights(s, definition, place) for s in sources}
    owners: dict[Source, Source] = {}
    for source, (weights, _) in found.items() if definition.kind != "keys" else ():
        owner = owners.setdefault(weights, source)
        if owner != source:
            raise SampleError(
                f"{owner} and {source} would both have the weights {weights}; "
                "expected weights of their own, or match = [...], branches of both"
            )
    return {s: _pair(s, *weights, definition) for s, weights in found.items()}


def _find_weights(
    source: Source, definition: WeightFile, place: Place
) -> tuple[Source, int]:
    """Return the tree with the weights of a tuple's tree, and its number of entries."""
    path = weight_path(source.path, definition, place)

    def choose(trees: list[str]) -> str | None:
        asked = definition.tree
        if asked is not None and asked not in trees:
            raise SampleError(
                f"{path} has no tree {asked!r}; its trees: {', '.join(trees) or 'none'}"
                f"{nearest(asked, trees)}"
            )
        if asked is not None or len(trees) <= 1:
            return asked or "".join(trees) or None
        if source.tree is not None and source.name in trees:
            return source.name
        raise SampleError(
            f"{path} has the trees {', '.join(map(repr, trees))}, expected one, or one "
            f"with the name of the tuple's, or sweights.tree"
            f"{nearest(source.name, trees)}"
        )

    try:
        weights, info = choose_tree(path, choose)
    except SampleError as error:
        raise SampleError(f"sWeights of {source}: {error}") from None
    except NtupleError as error:
        hint = "" if place else "; --sweights-from names another place"
        raise NtupleError(f"sWeights of {source}: {error}{hint}") from None
    _check_branches(source, weights, info, definition)
    return weights, info.entries


def _check_branches(
    source: Source, weights: Source, info: TreeInfo, definition: WeightFile
) -> None:
    """Refuse a tree of weights without the branches of numbers that are needed."""
    kind = definition.kind
    for name in (*(definition.match if kind != "rows" else ()), definition.branch):
        if name not in info.branches:
            hint = (
                "; PIDCalib2 takes a file without ranks row by row, which is match = "
                "'entry' without order"
            )
            raise SampleError(
                f"sWeights of {source}: {weights} has no branch {name!r}"
                f"{nearest(name, info.branches)}"
                f"{hint if kind == 'ranks' and name != definition.branch else ''}"
            )
        if name not in info.types or info.types[name].shape:
            raise SampleError(
                f"sWeights of {source}: {weights}, branch {name!r} is of type "
                f"{info.branches[name]}, expected one number per entry"
            )
    if kind == "rows" and ORDER_INDEX in info.branches:
        raise SampleError(
            f"{weights} has a branch {ORDER_INDEX!r}, so its rows are not in the order "
            f"of {source}: expected match = {ORDER_INDEX!r} and order, got match = "
            "'entry'"
        )


def _pair(
    source: Source, weights: Source, n_weights: int, definition: WeightFile
) -> Pair:
    kind = definition.kind
    needed = list(definition.match if kind == "keys" else ())
    needed += [name for one in definition.expressions for name in one.names]
    try:
        entries = count_entries(source, needed)
    except NtupleError as error:
        hint = "; a match without order is of branches of both files"
        raise SampleError(f"{error}{hint if kind == 'keys' else ''}") from None
    if kind != "keys" and entries != n_weights:
        raise SampleError(
            f"{source} has {entries} rows, and {weights} has weights for {n_weights}: "
            "expected as many; the weights of rows outside of a fit are NaN"
        )
    return Pair(source=source, weights=weights, entries=entries, n_weights=n_weights)
