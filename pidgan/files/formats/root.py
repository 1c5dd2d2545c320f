"""ROOT files: directories with TTrees, RNTuples and other objects, by uproot."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uproot

from pidgan.errors import one_line
from pidgan.files.formats.rntuple import RNTuple
from pidgan.files.formats.ttree import TTree, write
from pidgan.files.trees import Format, Tree, reading

TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "RNTuple")

COMPRESSION = uproot.ZSTD(1)
"""Several times faster to write than uproot's default, ZLIB(1), and no larger; ROOT
reads it from 6.20 on."""


def _open(path: str) -> Any:
    return uproot.open({path: None})


def _tree(file: Any, name: str | None) -> Tree:
    """Return a tree of an open file."""
    found = file[str(name)]
    return TTree(found) if isinstance(found, uproot.TTree) else RNTuple(found)


def _tree_names(file: Any) -> list[str]:
    """Return the names of the trees of an open file, directories included."""
    classes = file.classnames(recursive=True, cycle=False)
    return [name for name, kind in classes.items() if _is_tree(kind)]


def _create(path: Path) -> Any:
    return uproot.recreate(path, compression=COMPRESSION)


def _expected_size(header: bytes) -> int:
    """Return fEND, 8 bytes in large files.

    https://root.cern.ch/doc/master/classTFile.html
    """
    is_large = struct.unpack(">i", header[4:8])[0] >= 1_000_000
    end: int = struct.unpack(">q", header[12:20])[0]
    return end if is_large else end >> 32


def _copy_rest(
    file: Any, new: Any, done: set[str], copy: Callable[[str], list[str]]
) -> list[str]:
    """Copy everything but some trees; return notes on what is lost."""
    lost: list[str] = []
    notes: list[str] = []
    with reading(str(file.file_path)):
        classes = file.classnames(recursive=True, cycle=False)
    for name, kind in classes.items():
        if name in done or kind.startswith("TDirectory"):
            continue
        try:
            if _is_tree(kind):
                notes += copy(name)
            else:
                new.copy_from(file, filter_name=lambda key, name=name: key == name)
                if "" in new.keys(recursive=False, cycle=False):
                    # uproot 5.7 leaves a nameless directory with each such copy.
                    del new[""]
        # uproot refuses what it does not know with many classes of exceptions.
        except Exception as error:
            lost.append(f"{name} ({kind}: {one_line(error)})")
    return [f"not copied: {', '.join(lost)}", *notes] if lost else notes


def _is_tree(name: str) -> bool:
    """Return whether a C++ class name is the class of a tree."""
    return name.split("::")[-1] in TREE_CLASSES


FORMAT = Format(
    name="ROOT",
    suffixes=(".root",),
    magic=b"root",
    open=_open,
    tree=_tree,
    create=_create,
    write=write,
    tree_names=_tree_names,
    copy_rest=_copy_rest,
    expected_size=_expected_size,
)
