"""Copy a file of trees with branches added: everything else keeps name, value and type.

Reading, computing and writing go on at the same time, each on the next chunk: they
release Python's lock most of the time.
"""

import contextlib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import awkward as ak
import numpy as np

from pidgan.errors import NtupleError, PidganError, PidganWarning, one_line
from pidgan.files import formats, trees
from pidgan.files.trees import BASKET_ENTRIES, Addition, BranchType, Source, Tree
from pidgan.files.trees import CHUNK_BYTES as CHUNK_BYTES
from pidgan.files.writing import writing_file

Record: TypeAlias = Callable[[list[str], list[str]], Sequence[str]]
"""From the lines of an input's record and the notes on a copy to the copy's lines."""

Schema: TypeAlias = tuple[tuple[str, str], ...]
"""Names and types of the branches of a tree."""

TRIAL_BRANCHES = 32
"""Branches that are tried together: uproot's time grows with the square."""

_T = TypeVar("_T")


def _same(lines: list[str], notes: list[str]) -> Sequence[str]:
    return lines


def check_writable(source: Source, *, tried: set[Schema] | None = None) -> None:
    """Raise an NtupleError if a tree has branches that cannot be written again.

    The first entries are copied for a trial, unless the types of all branches were
    `tried` before; they are then added there.
    """
    with formats.open_tree(source) as tree:
        with trees.reading(str(source)):
            schema = tuple(tree.typenames(recursive=False).items())
        is_known = tried is not None and schema in tried
        _refuse(_unwritable(tree, source, is_tried=is_known), source)
        if tried is not None:
            tried.add(schema)


def copy_file(
    additions: Sequence[Addition],
    output: str | Path,
    *,
    keep: bool = True,
    overwrite: bool = False,
    chunk: int = BASKET_ENTRIES,
    record: Record = _same,
) -> None:
    """Write a copy of a file as `write_copy` does, under its name when it is complete.

    A PidganWarning tells what is not in the output or has changed type.
    """
    with writing_file(output, overwrite=overwrite) as temporary:
        notes = write_copy(additions, temporary, keep=keep, chunk=chunk, record=record)
    if notes:
        warnings.warn(f"{output}: {'; '.join(notes)}", PidganWarning, stacklevel=2)


def write_copy(
    additions: Sequence[Addition],
    output: Path,
    *,
    keep: bool = True,
    chunk: int = BASKET_ENTRIES,
    chunk_bytes: int = CHUNK_BYTES,
    record: Record = _same,
) -> list[str]:
    """Write a copy of a file, in which one or several trees have branches added.

    Unless `keep`, only the new branches are written, in trees of the same names. A
    chunk has at most `chunk` entries and `chunk_bytes`; some five are in memory. The
    `record` is that of the input if the branches are kept, and what a function makes of
    it when the trees are complete. The notes that are returned tell what is not in the
    output or has changed type.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    path = additions[0].source.path
    known = formats.format_of(path)
    with formats.open_file(path) as file, known.create(output) as new:

        def copy(addition: Addition, *, is_tried: bool = True) -> list[str]:
            tree = formats.find_tree(file, addition.source)
            if keep:
                refused = _unwritable(tree, addition.source, is_tried=is_tried)
                _refuse(refused, addition.source)
            with trees.reading(str(addition.source)):
                changed = tree.lossy()[1] if keep else {}
                kept = list(tree.typenames(recursive=False)) if keep else []
                whole = _with_old_types(addition, tree, kept)
                stored = tree.stored_bytes([*kept, *addition.needed])
            # A chunk of a wide tree has fewer entries than asked for.
            fitting = int(chunk_bytes * tree.entries / stored) if stored else chunk
            rows = max(1, min(chunk, fitting))
            _copy_tree(tree, new, whole, kept, rows)
            kinds = "plain numbers, arrays or strings"
            notes = [f"written as {kinds}: {_listed(changed)}"] if changed else []
            flags = {
                name: str(old)
                for name, kind in whole.types.items()
                if name in kept and (old := tree.branch_type(name))
                if is_flag(kind, old)
            }
            return [*notes, f"flags as numbers: {_listed(flags)}"] if flags else notes

        notes: list[str] = []
        if keep and known.copy_rest is not None:
            done = {addition.source.name for addition in additions}
            notes = known.copy_rest(
                file,
                new,
                done,
                lambda name: copy(Addition(source=Source(path, name)), is_tried=False),
            )
        notes += [note for addition in additions for note in copy(addition)]
        with trees.reading(f"the record in {path}"):
            old = known.read_record(file) if keep else []
        if lines := record(old, notes):
            known.write_record(new, lines)
        return notes


def replaced_type(new: BranchType, old: BranchType | None, *, where: str) -> BranchType:
    """Return the old type of a branch, None for no numbers; raise if it cannot stay.

    A flag becomes a number, because generated ones may be missing.
    """
    if old is not None and is_flag(new, old):
        return new
    if old is None or old.number.kind != new.number.kind or old.shape != new.shape:
        got = "no numbers" if old is None else str(old)
        raise NtupleError(
            f"{where} cannot be replaced: its type does not hold {new} (got {got})"
        )
    return old


def is_flag(new: BranchType, old: BranchType) -> bool:
    """Return whether a branch of flags is replaced by numbers."""
    return old.number.kind == "b" and new.number.kind == "f" and old.shape == new.shape


def cast(values: Any, kind: BranchType) -> Any:
    """Return an array with numbers of a type."""
    if kind.shape == (None,):
        return ak.values_astype(values, kind.number)
    return np.asarray(values, dtype=kind.number)


@contextlib.contextmanager
def ahead(items: Iterable[_T]) -> Iterator[Iterator[_T]]:
    """Give the items, in order, while a thread makes the next one.

    At most two items are alive that were not taken: one that waits, one in the making.
    An exception of the thread is raised where its item would have come. The thread has
    ended when the block ends, however it ends.
    """
    iterator, end = iter(items), object()
    pool = ThreadPoolExecutor(1)

    def take() -> Iterator[_T]:
        waiting: deque[Any] = deque(pool.submit(next, iterator, end) for _ in range(2))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, iterator, end))
            yield item

    try:
        yield take()
    finally:
        pool.shutdown(cancel_futures=True)


def _unwritable(tree: Tree, source: Source, *, is_tried: bool) -> dict[str, str]:
    """Return the branches that a copy cannot have, with their types or the reason."""
    with trees.reading(str(source)):
        refused = dict(tree.lossy()[0])
        names = [name for name in tree.doubtful() if name not in refused]
    if is_tried:
        return refused
    for first in range(0, len(names), TRIAL_BRANCHES):
        group = names[first : first + TRIAL_BRANCHES]
        if _reason(tree, group):
            found = {name: _reason(tree, [name]) for name in group}
            refused |= {name: reason for name, reason in found.items() if reason}
    return refused


def _reason(tree: Tree, branches: Sequence[str]) -> str:
    """Return why branches cannot be copied, "" if the first entries can."""
    try:
        is_same = tree.try_copy(branches)
    except MemoryError:
        raise
    # uproot refuses what it does not know with many classes of exceptions.
    except Exception as error:
        return one_line(error)
    return "" if is_same else "a copy has other values"


def _refuse(refused: Mapping[str, str], source: Source) -> None:
    if refused:
        raise NtupleError(
            f"{source}: cannot write {_listed(refused)}; write a friend tree (--mode "
            "friend)"
        )


def _with_old_types(addition: Addition, tree: Tree, kept: Sequence[str]) -> Addition:
    """Return an addition whose branches that replace others have the types of those."""
    types = dict(addition.types)
    for name in types.keys() & set(kept):
        where = f"{addition.source}, branch {name!r}"
        types[name] = replaced_type(types[name], tree.branch_type(name), where=where)
    return replace(addition, types=types)


def _copy_tree(
    tree: Tree, new: Any, addition: Addition, kept: Sequence[str], rows: int
) -> None:
    """Copy a tree with its additions."""
    source, types = addition.source, addition.types
    append = tree.copy(new, addition, kept=kept, rows=rows)
    first = 0

    def compute(piece: Any) -> tuple[Any, dict[str, Any]]:
        nonlocal first
        arrays = tree.arrays(piece, addition.needed)
        fresh = addition.compute(first, arrays)
        first += len(next(iter(arrays.values()), ()))
        return piece, {name: cast(fresh[name], kind) for name, kind in types.items()}

    branches = list(dict.fromkeys([*kept, *addition.needed]))
    pieces = tree.pieces(branches, start=0, stop=tree.entries, chunk=rows)
    with (
        ahead(trees.read_pieces(pieces, source)) as read,
        ahead(map(compute, read)) as computed,
    ):
        for piece, fresh in computed:
            try:
                append(piece, fresh)
            except (PidganError, MemoryError, OSError):
                raise
            # A damaged file may be read and still not be fit to be written.
            except Exception as error:
                message = f"{source} cannot be copied: {one_line(error)}"
                raise NtupleError(message) from error


def _listed(branches: Mapping[str, str]) -> str:
    """Return names with types for a message."""
    return ", ".join(f"{name!r} ({kind})" for name, kind in branches.items())
