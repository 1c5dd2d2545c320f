"""ROOT files: directories with TTrees, RNTuples and other objects, by uproot.

New trees are TTrees; a copy keeps its class.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot

from pidgan.errors import NtupleError, one_line
from pidgan.files import trees
from pidgan.files.formats.rntuple import RNTuple
from pidgan.files.formats.ttree import TTree
from pidgan.files.trees import BASKET_ENTRIES, RECORD

TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "RNTuple")


class Histogram(NamedTuple):
    """A stored histogram: title, edges by title of the axis, contents, variances."""

    title: str
    edges: dict[str, Any]
    contents: Any
    variances: Any


COMPRESSION = uproot.ZSTD(1)
"""Several times faster to write than uproot's default, ZLIB(1), and no larger; ROOT
reads it from 6.20 on."""


def _array_type(array: Any) -> Any:
    """Return the type of an array for uproot's `mktree`."""
    if isinstance(array, np.ndarray):
        return np.dtype((array.dtype.newbyteorder("="), array.shape[1:]))
    kind = ak.type(array).content
    # uproot 5.7 writes wrong offsets for arrays of arrays (`x[n][3]`).
    if array.ndim > 2 and not array.layout.purelist_isregular:
        raise NtupleError(f"a branch of type {kind} cannot be written to a TTree")
    return kind


def _write(
    new: Any, name: str, arrays: Mapping[str, Any], counters: Mapping[str, str]
) -> None:
    """Add a TTree to an open file, in baskets of BASKET_ENTRIES."""
    types = {branch: _array_type(array) for branch, array in arrays.items()}
    tree = new.mktree(name, types, counter_name=counters.__getitem__)
    entries = max((len(array) for array in arrays.values()), default=0)
    for first in range(0, entries, BASKET_ENTRIES):
        last = first + BASKET_ENTRIES
        tree.extend({branch: array[first:last] for branch, array in arrays.items()})


def _tree(file: Any, name: str | None) -> trees.Tree:
    """Return a tree of an open file."""
    found = file[str(name)]
    return TTree(found) if isinstance(found, uproot.TTree) else RNTuple(found)


def _tree_names(file: Any) -> list[str]:
    """Return the names of the trees of an open file, directories included."""
    classes = file.classnames(recursive=True, cycle=False)
    return [n for n, kind in classes.items() if _is_tree(kind) and n != RECORD]


def _read_record(file: Any) -> list[str]:
    """Return the lines of the record."""
    if RECORD not in file.keys(recursive=False, cycle=False):
        return []
    text: str = file[RECORD]["text"].array(library="np").tobytes().decode()
    return text.splitlines()


def _write_record(new: Any, lines: Sequence[str]) -> None:
    """Add the record as a tree with one byte of its text an entry.

    `hadd` puts trees of the same name one after the other, so that the lines of all
    parts are there in the end. With strings as entries hadd ends in an abort: it makes
    room for those of the first file only.
    """
    text = "".join(f"{line}\n" for line in lines).encode()
    tree = new.mktree(RECORD, {"text": np.uint8}, title="Text: lines of JSON")
    tree.extend({"text": np.frombuffer(text, dtype=np.uint8)})


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
    with trees.reading(str(file.file_path)):
        classes = file.classnames(recursive=True, cycle=False)
    for name, kind in classes.items():
        if name in {*done, RECORD} or kind.startswith("TDirectory"):
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


def read_histograms(file: Any) -> dict[str, Histogram]:
    """Return the histograms of an open file that have one to three axes."""
    found = {}
    for name, kind in file.classnames(recursive=True, cycle=False).items():
        if kind[:3] in ("TH1", "TH2", "TH3"):
            stored = file[name]
            axes = {
                str(axis.all_members.get("fTitle") or f"axis {i + 1}"): axis.edges()
                for i, axis in enumerate(stored.axes)
            }
            numbers = stored.values(), stored.variances()
            found[name] = Histogram(str(stored.title), axes, *numbers)
    return found


def _is_tree(name: str) -> bool:
    """Return whether a C++ class name is the class of a tree."""
    return name.split("::")[-1] in TREE_CLASSES


def _open(path: str) -> Any:
    try:
        return uproot.open({path: None}, **trees.remote_options(path))
    except OSError:
        raise
    except Exception:
        # uproot takes the beginning of a file for the part that it asked for.
        trees.check_sends_parts(path)
        raise


FORMAT = trees.Format(
    name="ROOT",
    suffixes=(".root",),
    magic=b"root",
    open=_open,
    tree=_tree,
    create=lambda path: uproot.recreate(path, compression=COMPRESSION),
    write=_write,
    tree_names=_tree_names,
    copy_rest=_copy_rest,
    expected_size=_expected_size,
    read_record=_read_record,
    write_record=_write_record,
)
