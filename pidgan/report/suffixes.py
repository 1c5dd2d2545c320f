"""Ends of names that pictures can have; needs no library that draws."""

from pathlib import Path

SUFFIXES = (".png", ".pdf", ".svg")


def check_suffix(path: str | Path) -> None:
    """Raise a ValueError for a name that is neither a picture nor a folder."""
    if Path(path).suffix.lower() not in (*SUFFIXES, "") and not Path(path).is_dir():
        raise ValueError(
            f"{path}: expected {', '.join(SUFFIXES)}, or the name of a folder"
        )
