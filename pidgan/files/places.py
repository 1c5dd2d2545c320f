"""Places of files: addresses, and what lies at a local path before it is used.

A path that cannot be an output, or an input that is no plain file, is refused before
any work: a pipe or a device would wait for ever, or never end.
"""

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from pidgan.errors import NtupleError, one_line

# `Path` leaves one slash of root://host/file. One letter is a drive.
_ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+-]+):/+")


def check_output(path: str | Path) -> None:
    """Raise an NtupleError if nothing can be written at a path, before the work."""
    if _ADDRESS.match(str(path)):
        address = _ADDRESS.sub(r"\1://", str(path))
        raise NtupleError(
            f"{address} is an address, and outputs are local: choose the name of a "
            "local file or folder, and copy it afterwards"
        )
    try:
        place = Path(os.path.abspath(path))
        if _kind(place) == "other":
            raise NtupleError(f"{path} is a pipe or device, expected a file or folder")
        above = next(p for p in (*place.parents, place) if _kind(p))
        if _kind(above) != "folder":
            raise NtupleError(f"{path} cannot be written: {above} is not a folder")
    except (OSError, ValueError) as error:
        reason = f"cannot be written: {one_line(error)[:200]}"
        raise NtupleError(f"{str(path)[:200]!r} {reason}") from error
    if not os.access(above, os.W_OK | os.X_OK):
        raise NtupleError(f"{path} cannot be written: {above} is read-only")


# Ends of the names of files, which nobody gives a folder.
_FILE_ENDS = (
    *(".root", ".parquet", ".npz", ".npy", ".h5", ".hdf5", ".csv", ".dat", ".pkl"),
    *(".json", ".toml", ".onnx", ".c", ".html", ".pdf", ".png", ".svg", ".tex"),
    *(".txt", ".xml", ".yaml", ".yml"),
)


def check_end(path: str | Path, ends: Collection[str]) -> None:
    """Raise a ValueError if the name of an output does not end in one of `ends`."""
    if Path(path).suffix.lower() not in ends:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(ends)}")


def check_folder_name(path: str | Path) -> None:
    """Raise a ValueError if the name of a folder that is written is that of a file."""
    end = Path(path).suffix.lower()
    if end in _FILE_ENDS and not Path(path).is_dir():
        raise ValueError(
            f"{path}: a folder is written, expected a name that does not end in {end}"
        )


def file_problem(path: str | Path) -> str:
    """Return why a local path is no file that can be read, or "" if it is one."""
    try:
        kind = _kind(Path(path))
    except (OSError, ValueError) as error:
        return one_line(error)[:200]
    kinds = {"": "no such file", "folder": "a directory", "other": "a pipe or device"}
    return kinds.get(kind, "")


def _kind(path: Path) -> str:
    """Return file, folder or other, or "" where there is nothing."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"
