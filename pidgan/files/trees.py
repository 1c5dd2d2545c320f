"""Trees on disk: where one is, what it holds, and what every file format can do.

`Format` and `Tree` are what the rest of the room knows of a file format; each one in
`pidgan.files.formats` is a file that fulfils them. Damage, which every
library reports in its own way, becomes an `NtupleError` that names the file.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from pidgan.errors import NtupleError, PidganError, one_line

BASKET_ENTRIES = 200_000
"""Entries written at a time, so that whoever reads in chunks need not unpack more."""

_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Source:
    """A tree in a file, local or remote; a file of one table has no tree name."""

    path: str
    tree: str | None = None

    def __str__(self) -> str:
        return self.path if self.tree is None else f"{self.path}:{self.tree}"

    @property
    def name(self) -> str:
        """The name of the tree without cycle and outer slashes."""
        return str(self.tree).partition(";")[0].strip("/")


@dataclass(frozen=True)
class BranchType:
    """The numbers of a branch, and the shape of its entries.

    Attributes:
        number: Type of the numbers.
        shape: () for one number per entry, (3,) for three, (None,) for any number.
    """

    number: np.dtype[Any]
    shape: tuple[int | None, ...] = ()

    def __str__(self) -> str:
        lengths = ("" if n is None else str(n) for n in self.shape)
        return f"{self.number}{''.join(f'[{length}]' for length in lengths)}"


@dataclass(frozen=True, kw_only=True)
class TreeInfo:
    """Content of a tree.

    Attributes:
        entries: Number of entries.
        branches: Branches, each with its type on disk.
        types: Types of those branches that hold numbers.
    """

    entries: int
    branches: dict[str, str]
    types: dict[str, BranchType]


Compute = Callable[[int, Mapping[str, Any]], Mapping[str, Any]]
"""From the first entry's number and the arrays of a chunk to its new branches."""


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Branches to add to a tree, and how to compute them.

    Attributes:
        source: The tree.
        needed: Branches of numbers that `compute` gets: numpy arrays (n,) or (n, k),
            or awkward arrays (n, variable).
        types: Type of each new branch. A branch that exists keeps its type.
        compute: Function of the first entry's number and the arrays of a chunk's
            `needed` that returns the new branches.
        like: For each new branch with a variable number of values per entry, a branch
            of the tree that has as many.
    """

    source: Source
    needed: tuple[str, ...]
    types: Mapping[str, BranchType]
    compute: Compute
    like: Mapping[str, str] = field(default_factory=dict)


Append: TypeAlias = Callable[[Any, Mapping[str, Any]], None]
"""Function that appends a piece and the arrays of its new branches to a copy."""


class Tree(Protocol):
    """A tree of an open file; a piece is a chunk in the form of the format's library.

    Pieces are read, turned into arrays and appended to a copy by three threads, each on
    the next piece.
    """

    @property
    def entries(self) -> int:
        """Number of entries."""

    def typenames(self) -> dict[str, str]:
        """Return the branches, each with its type on disk."""

    def names(self) -> list[str]:
        """Return the branches that are not part of another."""

    def branch_type(self, name: str) -> BranchType | None:
        """Return the type of a branch, None for arrays of arrays and for no numbers."""

    def stored_bytes(self, branches: Iterable[str]) -> int:
        """Return the uncompressed size of branches; 0 if it is unknown."""

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        """Yield consecutive pieces of a range of entries, of any branches."""

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        """Return arrays of branches of numbers.

        Those with a variable number per entry are awkward, the others numpy, (n,) or
        (n, k).
        """

    def unwritable(self) -> dict[str, str]:
        """Return the branches that cannot be written again, with their types."""

    def changed(self) -> dict[str, str]:
        """Return the branches whose copies have another type, with their types."""

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        """Begin a copy of some branches, in pieces of `rows`, and of new branches."""


def _no_size(header: bytes) -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format: its names, and the functions that know its library.

    Attributes:
        name: Name of the format, for messages.
        suffixes: Ends of file names, in lower case.
        magic: First bytes of a file.
        open: Function that opens a file, local or remote.
        tree: Function that returns a tree of an open file by its name, which is None
            for a file that is one table.
        create: Function that opens a new file for writing.
        write: Function of a new file, the name of a tree, its numpy or awkward arrays
            and, for each of them, the name of a branch for the number of values per
            entry.
        tree_names: Function that returns the names of the trees of an open file,
            directories included; None if a file is one table.
        copy_rest: Function that copies everything but some trees from an open file to a
            new one and returns notes on what is lost; it gets a function that copies a
            tree by its name. None if a file is one table.
        expected_size: Function of the first bytes of a file that returns the size which
            they tell, 0 if they tell none.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    open: Callable[[str], AbstractContextManager[Any]]
    tree: Callable[[Any, str | None], Tree]
    create: Callable[[Path], AbstractContextManager[Any]]
    write: Callable[[Any, str, Mapping[str, Any], Mapping[str, str]], None]
    tree_names: Callable[[Any], list[str]] | None = None
    copy_rest: (
        Callable[[Any, Any, set[str], Callable[[str], list[str]]], list[str]] | None
    ) = None
    expected_size: Callable[[bytes], int] = _no_size


def is_remote(path: str | Path) -> bool:
    """Return whether a path is an address such as root:// or http://."""
    return _REMOTE.match(str(path)) is not None


def file_stamp(path: str | Path) -> dict[str, int]:
    """Return the size of a file and, if it is local, the time of its last change."""
    if not is_remote(path):
        status = os.stat(path)
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    import fsspec

    with reading(str(path)):
        filesystem, name = fsspec.core.url_to_fs(str(path))
        return {"size": int(filesystem.size(name) or 0)}


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into an NtupleError."""
    try:
        yield
    except (NtupleError, MemoryError):
        raise
    # uproot, fsspec and the codecs have no common base class for damage.
    except Exception as error:
        raise NtupleError(f"{where} cannot be read: {one_line(error)}") from error


def read_pieces(pieces: Iterator[Any], source: Source) -> Iterator[Any]:
    """Yield what an iterator reads; damage becomes an error that names the source."""
    while True:
        with reading(str(source)):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


@contextlib.contextmanager
def copying(where: str) -> Iterator[None]:
    """Turn what a writer raises on contents that contradict into an NtupleError."""
    try:
        yield
    except (PidganError, MemoryError, OSError):
        raise
    # A damaged file may be read and still not be fit to be written.
    except Exception as error:
        raise NtupleError(f"{where} cannot be copied: {one_line(error)}") from error
