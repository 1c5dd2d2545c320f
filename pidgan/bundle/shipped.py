"""What ships with the package under a short name: a small bundle for first steps.

`demo-kaon` stands for a trained bundle of simulated kaons, with a reference file, and
for its efficiency map, wherever the path of a bundle or of a map is taken.
`docs/studies/shipped_bundle.py` makes them.
"""

import os
import warnings
from pathlib import Path

from pidgan.errors import PidganWarning

FOLDER = Path(__file__).parent / "shipped_files"
"""Folder of the files that ship."""


def shipped_names() -> list[str]:
    """Return the names that stand for a bundle and its map."""
    return sorted(path.stem for path in FOLDER.glob("*.onnx"))


def shipped_path(given: str | Path, suffix: str) -> Path:
    """Return the file that ships under this name, else the path as it is.

    A file or folder of that name in the current folder wins, with a warning.

    Args:
        given: Path of a file, or a name of `shipped_names`.
        suffix: Suffix of the file, ".onnx" for a bundle and ".json" for a map.
    """
    path = Path(given)
    if str(given) not in shipped_names():
        return path
    if os.path.lexists(path):
        warnings.warn(
            f"{given} is taken from the current folder, not what ships with pidgan "
            "under this name",
            PidganWarning,
            stacklevel=3,
        )
        return path.absolute()
    return FOLDER / f"{path.name}{suffix}"
