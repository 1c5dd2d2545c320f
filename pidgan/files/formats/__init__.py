"""File formats: `root` (TTrees and RNTuples), `parquet`, `npz`, `hdf5`.

A module here with a `FORMAT`, a `pidgan.files.trees.Format`, is a file format that the
whole package reads and writes. A new one is one new file.
"""

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pidgan.errors import NtupleError, nearest
from pidgan.files import xrootd
from pidgan.files.formats import root
from pidgan.files.places import file_problem
from pidgan.files.recognition import KINDS, recognise
from pidgan.files.trees import Format, Source, Tree, is_remote, reading

HEADER_BYTES = 20
"""Bytes of a file that are looked at before a library opens it."""


_MODULES = [
    importlib.import_module(f"{__name__}.{name}")
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__))
]
FORMATS: tuple[Format, ...] = tuple(
    module.FORMAT for module in _MODULES if hasattr(module, "FORMAT")
)
ROOT = root.FORMAT


def format_of(path: str | Path) -> Format:
    """Return the format that the name of a file tells; ROOT if it tells none."""
    name = str(path).partition("?")[0].lower()
    return next((f for f in FORMATS if name.endswith(f.suffixes)), ROOT)


def known_suffixes() -> set[str]:
    """Return the ends of file names that tell a format."""
    return {suffix for known in FORMATS for suffix in known.suffixes}


def check_file(path: str | Path) -> None:
    """Raise if a local file is missing, of another format or shorter than it says."""
    if is_remote(path):
        xrootd.prepare_for(path)
        return
    file = Path(path)
    if file.is_dir():
        found = recognise(file)
        what = "a directory" if found == "folder" else f"{KINDS[found]}, a directory"
        raise NtupleError(f"{path} is {what}, expected a file")
    if not file.parent.is_dir():
        raise NtupleError(f"{path} does not exist, nor does its directory")
    if not file.exists():
        present = [item.name for item in file.parent.iterdir()]
        raise NtupleError(f"{path} does not exist{nearest(file.name, present)}")
    if problem := file_problem(file):
        raise NtupleError(f"{path} cannot be read: {problem}")
    with reading(str(path)), file.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
    size, kind = file.stat().st_size, format_of(path)
    got = header[: len(kind.magic)]
    if got != kind.magic or size < HEADER_BYTES:
        what = KINDS.get(recognise(file), "")
        raise NtupleError(
            f"{path} is {what}, expected a {kind.name} file"
            if what
            else f"{path} is not a {kind.name} file: starts with {got!r}, expected "
            f"{kind.magic!r}"
        )
    expected = kind.expected_size(header)
    if size < expected:
        raise NtupleError(f"{path} is truncated: got {size} bytes, expected {expected}")


@contextlib.contextmanager
def open_file(path: str | Path) -> Iterator[Any]:
    """Open a file after a look at whether it is there and complete."""
    check_file(path)
    with contextlib.ExitStack() as stack:
        with reading(str(path)):
            file = stack.enter_context(format_of(path).open(str(path)))
        yield file


@contextlib.contextmanager
def open_tree(source: Source) -> Iterator[Tree]:
    """Open a tree of any format, or of rows in memory."""
    if source.table is not None:
        yield source.table
        return
    with open_file(source.path) as file:
        yield find_tree(file, source)


def find_tree(file: Any, source: Source) -> Tree:
    """Return the tree of an open file that a source names."""
    kind = format_of(source.path)
    with reading(str(source)):
        trees = [] if kind.tree_names is None else kind.tree_names(file)
        if kind.tree_names is not None and source.name not in trees:
            listed = ", ".join(repr(tree) for tree in trees) or "none"
            raise NtupleError(
                f"{source.path} has no tree {source.tree!r}; its trees: {listed}"
                f"{nearest(source.name, trees)}"
            )
        return kind.tree(file, source.tree)
