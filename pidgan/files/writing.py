"""Write files and folders whole or not at all.

Whatever pidgan writes is made under a temporary name beside its place, and gets its
name by a rename when it is complete. A block that fails or is interrupted leaves what
was there before.
"""

import contextlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from pidgan.errors import NtupleError, one_line
from pidgan.files.places import check_output

ENDED = ("Z", "X")
"""States, in Linux' /proc, of processes that have ended: zombie and dead."""


def exists_error(path: str | Path, reason: str = "") -> NtupleError:
    """Return the error for a path that is taken, with a reason after "exists"."""
    return NtupleError(
        f"{path} exists{reason}; choose another name or overwrite=True (--overwrite)"
    )


def refuse_existing(path: str | Path, *, overwrite: bool) -> None:
    """Raise an NtupleError if a path is taken or no output can be there.

    It is called before the work, rather than after.
    """
    check_output(path)
    if Path(path).exists() and not overwrite:
        raise exists_error(path)


@contextlib.contextmanager
def writing_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path of the same suffix that becomes the file `path`.

    It lies in the same directory, which is made if it is missing. Temporary files for
    the same path that a killed process of this machine left behind are removed.
    """
    with writing_files([path], overwrite=overwrite) as (temporary,):
        yield temporary


@contextlib.contextmanager
def writing_files(
    paths: Sequence[str | Path], *, overwrite: bool = False
) -> Iterator[list[Path]]:
    """Give temporary paths that become several files, in any directories.

    The first file stands for all: an old one is removed before the others get their
    names, and the new one comes last. Whoever finds it finds the others that belong
    to it, whenever the process is killed.
    """
    places = [Path(path) for path in paths]
    for place in places:
        if place.is_dir():
            raise NtupleError(f"{place} is a directory, expected the name of a file")
        refuse_existing(place, overwrite=overwrite)
    with contextlib.ExitStack() as stack, _errors_of(places[0]):
        temporary = [stack.enter_context(_temporary(place)) for place in places]
        yield temporary
        if len(places) > 1:
            places[0].unlink(missing_ok=True)
        for new, place in reversed(list(zip(temporary, places, strict=True))):
            os.replace(new, place)


@contextlib.contextmanager
def writing_folder(
    path: str | Path, *, mark: str | None = None, overwrite: bool = False
) -> Iterator[Path]:
    """Give a temporary folder that becomes the folder `path`.

    An existing folder is replaced as a whole, and only if it is empty or holds a file
    of the name `mark`, by which folders of its kind are known.
    """
    place = Path(path)
    refuse_existing(place, overwrite=overwrite)
    if place.exists() and not place.is_dir():
        raise NtupleError(f"{place} is a file, expected the name of a folder")
    is_known = mark is not None and (place / mark).is_file()
    if place.is_dir() and not is_known and any(place.iterdir()):
        raise NtupleError(
            f"{place} holds files but no {mark or 'mark of pidgan'}: it is not "
            "replaced; choose another name"
        )
    with _errors_of(place), _temporary(place) as new, _temporary(place) as old:
        new.mkdir()
        yield new
        try:
            if place.exists():
                os.replace(place, old)
            os.replace(new, place)
        except BaseException:
            if old.exists():
                os.replace(old, place)
            raise


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn an OSError into an NtupleError that names what is written."""
    try:
        yield
    except OSError as error:
        raise NtupleError(f"{path} cannot be written: {one_line(error)}") from error


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give a free name beside a path, and remove whatever has it in the end."""
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f".{path.stem}.{platform.node() or 'localhost'}-"
    run, end = r"(\d+)(-[0-9a-f]{8})?", re.escape(path.suffix)
    for other in path.parent.iterdir():
        abandoned = re.fullmatch(f"{re.escape(start)}{run}{end}", other.name)
        if abandoned is not None and not _is_running(int(abandoned[1])):
            _remove(other)
    # The token keeps threads of a process apart that write the same path.
    token = uuid.uuid4().hex[:8]
    temporary = path.with_name(f"{start}{os.getpid()}-{token}{path.suffix}")
    try:
        yield temporary
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    """Remove a file or folder; an error here must not hide the one that led here."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Return whether a process exists and has not ended."""
    if os.name != "posix":
        return True  # Elsewhere `os.kill` ends processes instead of asking for them.
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    # One that has ended exists until its parent asks: in a container, perhaps for ever.
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/stat").read_text()
        return status.rpartition(")")[2].split()[0] not in ENDED
    return True
