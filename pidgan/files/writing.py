"""Write files and folders whole or not at all, whenever the process is killed.

Whatever pidgan writes is made under a temporary name beside its place, and gets its
name by one rename when it is complete. A block that fails or is interrupted leaves
what was there before. Which block to use:

- `writing_file`: one file.
- `writing_files`: a file that says everything, and others that repeat parts of it. The
  others are never seen beside an older or newer first one.
- `writing_set`: a head and parts that are of use only together, such as a bundle and
  its reference file. The head holds the hash of each part, and the rename of the head
  is the moment at which the set changes. Until a part has its own name after that, it
  waits under a name made of its hash, where `pidgan.files.seals.part_of` finds it.
- `writing_set_folder`: a folder that is such a set.
- `writing_folder`: a folder of anything else.
"""

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pidgan.errors import NtupleError, PidganError, one_line
from pidgan.files.leftovers import (
    is_temporary,
    leftovers,
    remove,
    remove_leftovers,
    temporary_name,
)
from pidgan.files.places import check_output
from pidgan.files.seals import file_sha256, waiting_name, waiting_parts

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""Errors of a disk that libraries may wrap in their own."""

TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}
"""Errors of a rename or link whose target is there already."""

# Of Linux' system call renameat2: relative to the working directory, and its flag.
_HERE, _RENAME_EXCHANGE = -100, 2

LOCK_SECONDS = 20.0
"""Longest time to wait for another process that renames files of the same folder."""


def exists_error(path: str | Path, reason: str = "") -> NtupleError:
    """Return the error for a path that is taken, with a reason after "exists"."""
    return NtupleError(
        f"{path} exists{reason}; choose another name or overwrite=True (--overwrite)"
    )


def refuse_existing(path: str | Path, *, overwrite: bool) -> None:
    """Raise an NtupleError if a path is taken or cannot be one, before the work.

    What runs left that were killed while they wrote it is removed.
    """
    check_output(path)
    place = Path(path)
    with _errors_of(place):
        is_taken = os.path.lexists(place)
        remove_leftovers(place)
    if is_taken and not overwrite:
        raise exists_error(path)


@contextlib.contextmanager
def writing_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path of the same suffix that becomes the file `path`.

    It lies in the same directory, which is made if it is missing. Of two writers of one
    new file, the second fails. A path that a block of this process has given is itself.
    """
    if is_temporary(Path(path)):
        yield Path(path)
        return
    with writing_files([path], overwrite=overwrite) as (temporary,):
        yield temporary


@contextlib.contextmanager
def writing_files(
    paths: Sequence[str | Path], *, overwrite: bool = False
) -> Iterator[list[Path]]:
    """Give temporary paths that become a file and others that repeat parts of it.

    The first file stands for all, and is replaced by one rename. Others of an older
    first one are removed before, and the new ones come after. If only others are there,
    they are replaced, as nothing is lost by it.
    """
    first, *others = (Path(path) for path in paths)
    with _preparing([first, *others], overwrite=overwrite) as temporary:
        yield temporary
        with alone(first.parent):
            if overwrite or not first.exists():
                for place in others:
                    place.unlink(missing_ok=True)
            _give_name(temporary[0], first, overwrite=overwrite)
            for new, place in zip(temporary[1:], others, strict=True):
                os.replace(new, place)


@contextlib.contextmanager
def writing_set(
    head: str | Path, *parts: str | Path, overwrite: bool = False
) -> Iterator[list[Path]]:
    """Give temporary paths that become a head and its parts, in one directory.

    The head must hold, in hexadecimal, the sha256 of each part. A part that is not
    written is none of the set, and an old file of its name is removed. Who reads head
    and parts by `part_of` sees the old or the new set.
    """
    places = [Path(head), *(Path(part) for part in parts)]
    with contextlib.suppress(OSError), alone(places[0].parent):
        _settle(*places, clean=False)
    for place in places[1:]:
        refuse_existing(place, overwrite=overwrite)
    with _preparing(places, overwrite=overwrite) as temporary:
        yield temporary
        _publish(temporary, places, overwrite=overwrite)


@contextlib.contextmanager
def writing_set_folder(
    path: str | Path, head: str, *parts: str, overwrite: bool = False
) -> Iterator[list[Path]]:
    """Give temporary paths that become a head and its parts, the files of a folder.

    A new folder appears with all of them. In one that exists, other files stay, and
    parts without a head are replaced.
    """
    folder = Path(path)
    places = [folder / name for name in (head, *parts)]
    if os.path.lexists(folder):
        with contextlib.suppress(OSError), alone(folder):
            _settle(*places, clean=False)
        with _preparing(places, overwrite=overwrite) as temporary:
            yield temporary
            _publish(temporary, places, overwrite=overwrite)
        return
    refuse_existing(folder, overwrite=overwrite)
    with _errors_of(folder), _temporary(folder) as new:
        new.mkdir()
        files = [new / place.name for place in places]
        yield files
        try:
            _give_name(new, folder, overwrite=False)
        except NtupleError:
            if not overwrite:
                raise
            _publish(files, places, overwrite=True)


@contextlib.contextmanager
def writing_folder(
    path: str | Path, *, mark: str | None = None, overwrite: bool = False
) -> Iterator[Path]:
    """Give a temporary folder that becomes the folder `path`.

    An existing folder is replaced as a whole, and only if it is empty or holds a file
    of the name `mark`, by which folders of its kind are known. Where two folders cannot
    change their names at once (other systems than Linux, network file systems), this
    takes two renames; if the process is killed between them, the next writer puts the
    old folder back.
    """
    place = Path(path)
    with _errors_of(place):
        _put_back(place)
    refuse_existing(place, overwrite=overwrite)
    if place.exists():
        refuse_foreign(place, mark)
    with _errors_of(place), _temporary(place) as new, _temporary(_old(place)) as old:
        new.mkdir()
        yield new
        with alone(place.parent):
            if not overwrite or not place.exists():
                _give_name(new, place, overwrite=False)
            elif not _exchange(new, place):
                try:
                    os.replace(place, old)
                    os.replace(new, place)
                except BaseException:
                    if old.exists() and not place.exists():
                        os.replace(old, place)
                    raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders at once; return whether that was possible."""
    with contextlib.suppress(AttributeError, OSError):
        rename = ctypes.CDLL(None).renameat2
        names = (os.fsencode(one), os.fsencode(other))
        done = rename(_HERE, names[0], _HERE, names[1], _RENAME_EXCHANGE)
        return bool(done == 0)
    return False


def refuse_foreign(folder: Path, mark: str | None) -> None:
    """Raise if a path is no folder, or one that holds other things than its kind."""
    if not folder.is_dir():
        raise NtupleError(f"{folder} is a file, expected the name of a folder")
    is_known = mark is not None and (folder / mark).is_file()
    names = (name for name in os.listdir(folder) if not name.startswith("."))
    if not is_known and any(names):
        raise NtupleError(
            f"{folder} holds files but no {mark or 'mark of pidgan'}: it is not "
            "replaced; choose another name"
        )


def _old(place: Path) -> Path:
    """Return the path by which a folder that is being replaced is named."""
    if not place.name:
        raise NtupleError(f"{place} is not a new folder; give it a name")
    return place.with_name(f"{place.name}.replaced")


def _put_back(place: Path) -> None:
    """Give a folder its name again that a killed process was replacing."""
    for name in leftovers(_absolute(_old(place))):
        if not place.exists():
            with contextlib.suppress(OSError):
                os.rename(place.with_name(name), place)


@contextlib.contextmanager
def _preparing(places: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Give temporary paths for files; errors of the block name the first of them."""
    for place in places:
        if place.is_dir():
            raise NtupleError(f"{place} is a directory, expected the name of a file")
    refuse_existing(places[0], overwrite=overwrite)
    with contextlib.ExitStack() as stack, _errors_of(places[0]):
        yield [stack.enter_context(_temporary(place)) for place in places]


def _publish(
    temporary: Sequence[Path], places: Sequence[Path], *, overwrite: bool
) -> None:
    """Give a head and its parts their names; the rename of the head is the moment."""
    head, *parts = places
    written = [
        (new, waiting_name(part, file_sha256(new)))
        for new, part in zip(temporary[1:], parts, strict=True)
        if new.exists()
    ]
    absent = {
        p for p, new in zip(parts, temporary[1:], strict=True) if not new.exists()
    }
    with alone(head.parent):
        try:
            for new, waiting in written:
                os.replace(new, waiting)
            _give_name(temporary[0], head, overwrite=overwrite)
        except BaseException:
            with contextlib.suppress(OSError):
                _settle(head, *parts)
            raise
        _settle(head, *parts)
        for part in absent:
            part.unlink(missing_ok=True)


def _settle(head: Path, *parts: Path, clean: bool = True) -> None:
    """Give parts that wait their names if the head lists them, or remove them."""
    listed = head.read_bytes() if head.is_file() else b""
    for part in parts:
        for waiting, sha256 in waiting_parts(part):
            if sha256.encode() in listed:
                os.replace(waiting, part)
            elif clean:
                remove(waiting)


def _give_name(new: Path, place: Path, *, overwrite: bool) -> None:
    """Rename a file or folder; unless `overwrite`, fail if its place is taken."""
    if overwrite:
        os.replace(new, place)
        return
    try:
        if new.is_dir():
            os.rename(new, place)  # It does not replace a folder that holds anything.
            return
        os.link(new, place)
    except OSError as error:
        if error.errno in TAKEN or place.exists():
            raise exists_error(place) from None
        if new.is_dir() or not new.exists():
            raise
        # A file system without links: `alone` keeps others away meanwhile.
        os.replace(new, place)
    else:
        remove(new)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes and threads from renaming files of a folder meanwhile.

    The lock ends with the process. Where there is none (Windows, some network file
    systems), two writers who end within a millisecond of one another may meet.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        ends = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < ends:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.002)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn an OSError into an NtupleError that names what is written."""
    try:
        yield
    except PidganError:
        raise
    except Exception as error:
        cause = _disk_error(error)
        if cause is None:
            raise
        raise NtupleError(f"{path} cannot be written: {one_line(cause)}") from error


def _disk_error(error: BaseException) -> OSError | None:
    """Return the error itself, or that of the disk behind one of a library."""
    if isinstance(error, OSError):
        return error
    behind = error.__cause__ or error.__context__
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno in DISK_ERRORS:
            return behind
        behind = behind.__cause__ or behind.__context__
    return None


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give a free name beside a path, and remove whatever has it in the end."""
    path = _absolute(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = temporary_name(path)
    try:
        yield temporary
    finally:
        remove(temporary)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
