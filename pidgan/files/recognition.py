"""What a path is: a dataset, a model, a bundle, a map, a ROOT file, ...

Whoever gives a bundle where an efficiency map is expected reads so, instead of the
error of a parser. A kind is told by the names in a folder, or by the first bytes and
keys of a file; whether the content is whole is left to whoever opens it.
"""

import mmap
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pidgan.errors import PidganError, nearest
from pidgan.files.places import file_problem

KINDS = {
    "dataset": "a dataset",
    "model": "a model folder",
    "unfinished": "a training that is not finished",
    "members": "a folder of members",
    "report": "a report folder",
    "comparison": "a comparison of families",
    "tuning": "a search for settings",
    "demo": "the folder of a demo",
    "bundles": "a folder of bundles",
    "maps": "a folder of efficiency maps",
    "folder": "a directory",
    "bundle": "a bundle",
    "onnx": "an ONNX file that is no bundle",
    "collection": "a collection",
    "campaign": "the file of a campaign",
    "campaign folder": "the folder of a campaign",
    "sample": "a sample definition",
    "geometry": "a geometry of a calorimeter",
    "settings": "a file of settings",
    "toml": "a TOML file",
    "map": "an efficiency map",
    "control": "a comparison with a control channel",
    "quantile map": "a quantile map",
    "manifest": "a manifest of `pidgan apply`",
    "pidcalib samples": "a list of samples of PIDCalib2",
    "binning": "a binning of PIDCalib2",
    "json": "a JSON file",
    "root": "a ROOT file",
    "parquet": "a Parquet file",
    "hdf5": "an HDF5 file",
    "npz": "a numpy file",
    "csv": "a CSV table",
    "c": "a C file",
    "html": "an HTML page",
}
"""Kinds that `recognise` tells, and how a message names them."""

# A file in a folder that tells what the folder is; the first one counts.
_IN_FOLDERS = {
    "dataset.json": "dataset",
    "model.json": "model",
    "chain.json": "model",
    "member_*/model.json": "members",
    "member_*/chain.json": "members",
    "checkpoint.npz": "unfinished",
    "link_*/checkpoint.npz": "unfinished",
    "*-training/checkpoint.npz": "unfinished",
    "study.json": "tuning",
    "report.json": "report",
    "comparison.json": "comparison",
    "demo.json": "demo",
    "campaign.json": "campaign folder",
    "*.onnx": "bundles",
}
# First bytes of a file.
_STARTS = {
    b"root": "root",
    b"PAR1": "parquet",
    b"\x89HDF": "hdf5",
    b"PK\x03\x04": "npz",
    b"\x93NUMPY": "npz",
    b"<!DOCTYPE html": "html",
    b"<!doctype html": "html",
}
# Keys in the head of a JSON document; the first ones that are all there count.
_JSON_KEYS = {
    ('"kind"', r"control channel"): "control",
    ('"schema_version"', r"\npidgan: {"): "map",
    ('"schema"', '"simulation"'): "quantile map",
    ('"request"', '"tracks"'): "manifest",
    ('"tuple_names"',): "pidcalib samples",
    ('"probe_prefix"',): "pidcalib samples",
    ('"sweight_dir"',): "pidcalib samples",
}
# Lines of a TOML document.
_TOML_LINES = {
    r"\[grid\]|grid\s*=": "campaign",
    r"\[\[bundles\]\]|bundles\s*=": "collection",
    r"family\s*=|\[settings\]": "settings",
    r"species\s*=|extends\s*=|\[\[?targets|\[cells\]|targets\s*=|after\s*=": "sample",
    r"\[\[layers\]\]|\[layers\.|layers\s*=|kind\s*=": "geometry",
}
_VAGUE = {
    **dict.fromkeys(("campaign", "collection", "sample", "geometry"), "toml"),
    "settings": "toml",
    **dict.fromkeys(("pidcalib samples", "binning", "map", "quantile map"), "json"),
}
_HEAD_BYTES = 65_536  # bytes of a document in which its keys are looked for
_CARD = b"pidgan_card"  # key of the card of a bundle; bundle/bundle_file writes it
_MOST_SIBLINGS = 200  # files of a folder that are looked at for the nearest name


def recognise(path: str | Path) -> str:
    """Return a key of `KINDS`, or "" where nothing is, or nothing that is known.

    Example:
        >>> recognise("pidgan-demo/kaon.onnx")                       # doctest: +SKIP
        'bundle'
    """
    place = Path(path)
    problem = file_problem(place)
    try:
        if problem == "a directory":
            return _folder_kind(place)
        return "" if problem else _file_kind(place)
    except (OSError, ValueError):  # not readable, or empty for a map of its bytes
        return ""


def other_kind(path: str | Path, *expected: str) -> str:
    """Return "PATH is a bundle, expected ...; closest: ..." if it is of another kind.

    It is "" for what is expected, is nothing, or is not known. A TOML or JSON file
    without the keys of a kind is left to the reader of that kind, and so is what is
    no TOML.
    """
    found = recognise(path)
    vague = {_VAGUE.get(kind) for kind in expected}
    if not found or found in expected or found in vague:
        return ""
    place = Path(path)
    if found in _TOML_LINES.values() and not _is_toml(place):
        return ""
    hint = _near(place, expected)
    if found == "members":
        hint = f"; a member is, such as {min(place.glob('member_*'))}"
    return f"{path} is {KINDS[found]}, expected {in_words(expected)}{hint}"


def refuse_other(
    path: str | Path, *expected: str, error: type[PidganError] = PidganError
) -> None:
    """Raise the error if a path is of another kind than expected."""
    problem = other_kind(path, *expected)
    if problem:
        raise error(problem)


def missing(path: str | Path, *expected: str) -> str:
    """Return that nothing is at a path, with what is expected and the nearest name."""
    what = f"{path}: no such file or folder"
    return f"{what}, expected {in_words(expected)}" + _near(Path(path), expected)


def in_words(kinds: Iterable[str]) -> str:
    """Return kinds as words: "a model folder or a bundle"."""
    return " or ".join(KINDS[kind] for kind in kinds)


def _near(path: Path, expected: Iterable[str]) -> str:
    """Return the names beside a path, of the kinds that are expected, as a hint."""
    try:
        siblings = sorted(path.absolute().parent.iterdir())[:_MOST_SIBLINGS]
    except OSError:
        return ""
    wanted = set(expected)
    names = [
        item.name
        for item in siblings
        if not item.name.startswith(".")
        and item.name != path.name
        and recognise(item) in wanted
    ]
    hint = nearest(path.name, names)
    if names and not hint:
        hint = "; there is " + ", ".join(map(repr, names[:3]))
    return hint


def _folder_kind(folder: Path) -> str:
    for pattern, kind in _IN_FOLDERS.items():
        if next(folder.glob(pattern), None) is not None:
            return kind
    maps = (recognise(item) == "map" for item in sorted(folder.glob("*.json"))[:3])
    return "maps" if any(maps) else "folder"


def _file_kind(file: Path) -> str:
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        for start, kind in _STARTS.items():
            if head.startswith(start):
                return kind
        # Field 1 of an ONNX model, its version, is a small number.
        if file.suffix.lower() == ".onnx" or head[:1] == b"\x08":
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                is_bundle = data.find(_CARD) >= 0
            return "bundle" if is_bundle else "onnx" if head[:1] == b"\x08" else ""
    text = head.decode("utf-8", "replace")
    if file.suffix.lower() == ".toml":
        found = (
            k for line, k in _TOML_LINES.items() if re.search(f"(?m)^(?:{line})", text)
        )
        return next(found, "toml")
    if text.lstrip()[:1] in ("{", "["):
        return _json_kind(text)
    return {".csv": "csv", ".c": "c"}.get(file.suffix.lower(), "")


def _is_toml(file: Path) -> bool:
    """Return whether a file reads as TOML; a long one counts as such."""
    try:
        if file.stat().st_size <= _HEAD_BYTES:
            tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def _json_kind(text: str) -> str:
    for keys, kind in _JSON_KEYS.items():
        if all(key in text for key in keys):
            return kind
    # {"K": {"P": [...]}}: edges by species and variable.
    if re.match(r'\s*\{\s*"[\w+-]+"\s*:\s*\{\s*"\w+"\s*:\s*\[\s*-?\d', text):
        return "binning"
    return "json"
