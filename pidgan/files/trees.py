"""Trees on disk: where one is, what it holds, and what every file format can do."""

import contextlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pidgan.errors import NtupleError, one_line
from pidgan.files import xrootd

if TYPE_CHECKING:  # the help of the command line does without numpy
    import numpy as np

BASKET_ENTRIES = 200_000
"""Entries written at a time, so that whoever reads in chunks need not unpack more."""

CHUNK_BYTES = 100_000_000
"""Largest number of bytes of a chunk, whatever its number of entries."""

TRIAL_ENTRIES = 100
"""Entries that are copied before the work, to see whether all can be."""

RECORD = "pidgan_record"
"""Name under which a file holds its record: lines of text that say how its trees were
made. It is no tree of the user, and no branch."""

REMOTE_SILENCE = 30.0
"""Seconds without a byte from a web server after which reading ends. Requests of XRootD
have a limit of their own, 60 s in fsspec-xrootd."""

_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Source:
    """A tree in a file, local or remote, or rows in memory.

    A file of one table has no tree name. Rows in memory are a `table`
    (`pidgan.files.frames`), and the path is what messages call them.
    """

    path: str
    tree: str | None = None
    table: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.path if self.tree is None else f"{self.path}:{self.tree}"

    @property
    def branch(self) -> str:
        """What messages call a branch: rows in memory have columns."""
        return "branch" if self.table is None else "column"

    @property
    def name(self) -> str:
        """The name of the tree without cycle and outer slashes."""
        return str(self.tree).partition(";")[0].strip("/")


@dataclass(frozen=True)
class BranchType:
    """The type of the numbers of a branch, and the shape of its entries.

    The shape is () for one number per entry, (3,) for three, (None,) for any number.
    """

    number: "np.dtype[Any]"
    shape: tuple[int | None, ...] = ()

    def __str__(self) -> str:
        lengths = ("" if n is None else str(n) for n in self.shape)
        return f"{self.number}{''.join(f'[{length}]' for length in lengths)}"


@dataclass(frozen=True, kw_only=True)
class TreeInfo:
    """Content of a tree: its branches as on disk, and the types of numbers in them."""

    entries: int
    branches: dict[str, str]
    types: dict[str, BranchType]


Compute: TypeAlias = Callable[[int, Mapping[str, Any]], Mapping[str, Any]]
"""From the first entry's number and the arrays of a chunk to its new branches."""


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Branches to add to a tree, and how to compute them.

    Attributes:
        needed: Branches of numbers that `compute` gets: numpy arrays (n,) or (n, k),
            or awkward arrays (n, variable).
        types: Type of each new branch. A branch that exists keeps its type.
        like: For each new branch with a variable number of values per entry, a branch
            of the tree that has as many.
    """

    source: Source
    needed: tuple[str, ...] = ()
    types: Mapping[str, BranchType] = field(default_factory=dict)
    compute: Compute = lambda first, arrays: {}
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

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        """Return the branches with their types on disk, those within others or not."""

    def branch_type(self, name: str) -> BranchType | None:
        """Return the type of a branch, None for arrays of arrays and for no numbers."""

    def stored_bytes(self, branches: Iterable[str]) -> int:
        """Return the uncompressed size of branches; 0 if it is unknown."""

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        """Yield consecutive pieces of a range of entries, of any branches."""

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        """Return arrays of numbers: numpy (n,) or (n, k), or awkward (n, variable)."""

    def lossy(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return branches that no copy can have, and those that change their types."""

    def doubtful(self) -> list[str]:
        """Return branches whose first entries are copied before the work, to try it."""

    def try_copy(self, branches: Sequence[str]) -> bool:
        """Return whether copies of the first entries, in memory, have the same values.

        Whatever the format's library raises is raised here too.
        """

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        """Begin a copy of some branches, in pieces of `rows`, and of new branches."""


class PlainTree:
    """What a tree answers whose branches are arrays that any copy has as they are."""

    def lossy(self) -> tuple[dict[str, str], dict[str, str]]:
        return {}, {}

    def doubtful(self) -> list[str]:
        return []

    def try_copy(self, branches: Sequence[str]) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format: its names, and the functions that know its library.

    Attributes:
        suffixes: Ends of file names, in lower case.
        magic: First bytes of a file.
        tree: Function of an open file and the name of a tree, None for its only table.
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
        read_record: Function that returns the lines of the record of an open file.
        write_record: Function that adds a record to a new file, after its trees.
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
    expected_size: Callable[[bytes], int] = lambda header: 0
    read_record: Callable[[Any], list[str]] = lambda file: []
    write_record: Callable[[Any, Sequence[str]], None] = lambda new, lines: None


def entry_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of entries that count as rows of numbers: a column is flat."""
    size = math.prod(shape)
    return () if size == 1 else (size,)


def common_length(lengths: Iterable[int]) -> int:
    """Return the number of entries of a file of arrays: what most arrays have.

    Others, such as edges of cells, are not entries. The largest of several is taken.
    """
    found = Counter(lengths)
    return max(found, key=lambda length: (found[length], length), default=0)


def row_slices(start: int, stop: int, chunk: int) -> Iterator[slice]:
    """Yield the pieces of a file of arrays: the rows of at most one chunk each."""
    for first in range(start, stop, chunk):
        yield slice(first, min(first + chunk, stop))


def add_arrays(
    new: Any,
    types: Mapping[str, BranchType],
    entries: int,
    *,
    make: "Callable[[str, tuple[int, ...], np.dtype[Any]], None]",
    variable: str,
) -> Append:
    """Make new arrays in a file of arrays, and return the function that fills them.

    `make` makes one of a name, shape and type, in place of an old one, whose shape it
    has. `variable` is the message for a variable number of values per entry.
    """
    for name, kind in types.items():
        if None in kind.shape:
            raise NtupleError(variable.format(name))
        shape = tuple(int(n or 0) for n in kind.shape)
        if name in new:
            shape = new[name].shape[1:]
        make(name, (entries, *shape), kind.number)

    def append(piece: Any, fresh: Mapping[str, Any]) -> None:
        for name, array in fresh.items():
            new[name][piece] = array.reshape(len(array), *new[name].shape[1:])

    return append


def is_remote(path: str | Path) -> bool:
    """Return whether a path is an address such as root:// or http://."""
    return _REMOTE.match(str(path)) is not None


def remote_options(path: str | Path) -> dict[str, Any]:
    """Return options of fsspec for an address: a server that is silent is given up."""
    if not str(path).lower().startswith(("http://", "https://")):
        return {}
    from aiohttp import ClientTimeout

    limits = {"sock_connect": REMOTE_SILENCE, "sock_read": REMOTE_SILENCE}
    return {"client_kwargs": {"timeout": ClientTimeout(**limits)}}


def check_sends_parts(path: str | Path) -> None:
    """Raise an NtupleError if the web server of a file sends nothing but all of it."""
    if not str(path).lower().startswith(("http://", "https://")):
        return
    with contextlib.suppress(OSError):  # which whoever opens the file reports
        import fsspec  # takes a third of the start of the command line

        filesystem, name = fsspec.core.url_to_fs(str(path), **remote_options(path))
        try:
            with filesystem.open(name, "rb", cache_type="none") as stream:
                stream.seek(1)
                stream.read(1)
        except ValueError:
            raise NtupleError(
                f"{path} cannot be read in place: the server sends whole files only, "
                "no ranges of bytes; download the file"
            ) from None


def file_stamp(path: str | Path) -> dict[str, int]:
    """Return the size of a file and, if it is local, the time of its last change."""
    if not is_remote(path):
        status = os.stat(path)
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    xrootd.prepare_for(path)
    with reading(str(path)):
        import fsspec  # takes a third of the start of the command line

        filesystem, name = fsspec.core.url_to_fs(str(path), **remote_options(path))
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
        # fsspec says of a server that is silent that the file is not there.
        cause = error.__cause__
        reason = one_line(cause if isinstance(cause, TimeoutError) else error)
        raise NtupleError(f"{where} cannot be read: {reason}") from error


def read_pieces(pieces: Iterator[Any], source: Source) -> Iterator[Any]:
    """Yield what an iterator reads; damage becomes an error that names the source."""
    while True:
        with reading(str(source)):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece
