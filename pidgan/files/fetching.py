"""Files at addresses, fetched once into a cache, and known by their sha256.

A file lies in the cache under the sha256 that it must have, so that no address, time or
server decides what is read. It is verified whenever it is asked for. What is wrong is
removed, and what is right is never fetched again, so that it can be used off-line.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec

from pidgan.errors import NtupleError, PidganError
from pidgan.files import xrootd
from pidgan.files.seals import file_sha256
from pidgan.files.trees import reading, remote_options
from pidgan.files.writing import writing_file

CACHE = "PIDGAN_CACHE"
"""Environment variable with the folder of the cache."""

MOST_BYTES = 8 * 2**30
"""Largest size of a file that is fetched; reference files have up to some 100 MB."""

BLOCK = 2**20
"""Bytes read from a server at a time."""


def cache_folder() -> Path:
    """Return the folder of the cache: `PIDGAN_CACHE`, else that of the platform."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given)
    try:
        if sys.platform == "win32":
            usual = Path.home() / "AppData" / "Local"
            base = Path(os.environ.get("LOCALAPPDATA") or usual)
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise NtupleError(
            f"there is no home directory for the cache; set {CACHE} to a folder"
        ) from error
    return base / "pidgan"


def file_name(address: str) -> str:
    """Return the name of the file at an address."""
    name = address.partition("?")[0].rstrip("/").rpartition("/")[2]
    return name if name not in ("", ".", "..") else "file"


def neighbour(address: str, name: str) -> str:
    """Return the address of another file in the same folder."""
    path, mark, query = address.partition("?")
    return f"{path.rpartition('/')[0]}/{name}{mark}{query}"


def fetch(
    address: str, sha256: str, *, beside: Path | None = None, most: int = MOST_BYTES
) -> Path:
    """Return a local file with the content of an address, fetched if it is missing.

    Args:
        address: Address such as `https://...` or `root://...`.
        sha256: What the file must have, in hexadecimal.
        beside: A file of the cache, whose folder is used; by default a folder of the
            sha256.
        most: Largest number of bytes that are read.

    Raises:
        NtupleError: The address cannot be read, is too large or silent, or the file has
            another sha256; nothing is then left of it.
    """
    folder = cache_folder() / sha256 if beside is None else beside.parent
    place = folder / file_name(address)
    damaged = ""
    if place.is_file():
        if file_sha256(place) == sha256:
            return place
        place.unlink(missing_ok=True)
        damaged = f"{place} was damaged and is removed; "
    try:
        with writing_file(place, overwrite=True) as temporary:
            with temporary.open("wb") as file:
                file.writelines(_blocks(address, most))
            found = file_sha256(temporary)
            if found != sha256:
                raise NtupleError(
                    f"{address} has sha256 {found}, expected {sha256}: it is another "
                    "file than the one meant, or damaged; it is not used"
                )
    except PidganError as error:
        raise NtupleError(f"{damaged}{error}") from error
    return place


def keep(address: str, *, most: int) -> tuple[Path, str]:
    """Fetch a file whose sha256 nobody has stated; return its place and its sha256."""
    data = b"".join(_blocks(address, most))
    sha256 = hashlib.sha256(data).hexdigest()
    place = cache_folder() / sha256 / file_name(address)
    with writing_file(place, overwrite=True) as temporary:
        temporary.write_bytes(data)
    return place, sha256


def _blocks(address: str, most: int) -> Iterator[bytes]:
    """Yield the bytes at an address; raise an NtupleError that names the address."""
    xrootd.prepare_for(address)
    with reading(address):
        filesystem, name = fsspec.core.url_to_fs(address, **remote_options(address))
        size = 0
        with filesystem.open(name, "rb") as source:
            while block := source.read(BLOCK):
                size += len(block)
                if size > most:
                    raise NtupleError(
                        f"{address} has more than {most // 2**20} MiB, expected less"
                    )
                yield block
