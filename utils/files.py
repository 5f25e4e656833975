"""How files are checked before they are read, and how they are written.

They are written under a temporary name, flushed to the disk and renamed, so that a file is complete when it appears and
an old one stays whole until then. Whatever fails names the file, the reason and what to try.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError, one_line

_TO_TRY = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or use a disk that takes larger ones",
    errno.EROFS: "make it writable, or work in another folder",
    errno.EACCES: "make it writable, or work in another folder",
    errno.EPERM: "make it writable, or work in another folder",
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "choose another name",
    errno.EISDIR: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "check the disk",
}


def check_exists(path: Path) -> os.stat_result:
    """What the system knows of a file or folder; InputError if there is none."""
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # a circle of links, a folder that is closed to us; a zero byte
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def check_file(path: Path, most: int | None = None) -> None:
    """InputError unless there is a regular file with something in it: a pipe or a device may never end.

    Inputs
        most: bytes that it may hold
    """
    status = check_exists(path)
    if not stat.S_ISREG(status.st_mode):
        remedy = "name a file in it" if stat.S_ISDIR(status.st_mode) else "copy what it gives to a file"
        raise InputError(f"{path} is not a file, but {_kind_of(status)}; {remedy}")
    if status.st_size == 0:
        raise InputError(f"{path} is empty")
    if most is not None and status.st_size > most:
        raise InputError(
            f"{path} has {status.st_size:,} bytes, more than the {most:,} that are read; is it the right file?"
        )


def check_replaceable(path: Path) -> None:
    """WriteError if there is something that a file must not replace: a folder, a pipe or a device."""
    with writing(path), suppress(FileNotFoundError):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WriteError(f"{path} is {_kind_of(status)}; choose another name")


def _kind_of(status: os.stat_result) -> str:
    return "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"


class WriteError(InputError):
    """A file cannot be written; the message names it, the reason and what to try."""


def unwritable(path: Path | str, error: OSError) -> WriteError:
    to_try = f"; {_TO_TRY[error.errno]}" if error.errno in _TO_TRY else ""
    return WriteError(f"cannot write {os.fsdecode(path)}: {error.strerror or one_line(error)}{to_try}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """WriteError that names `path` for any OSError."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def aside(path: Path, others: Collection[Path] = ()) -> Iterator[BinaryIO]:
    """A new file to fill, which replaces `path` once it is complete and on the disk. Until then, and if anything fails,
    old files stay whole.

    Inputs
        others: files that the new one replaces as well
    Errors
        WriteError for any OSError, and where there is no file but a folder, a pipe or a device
    """
    check_replaceable(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with writing(path):
            with part.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with _replacing([path, *others] if others else []):
                os.replace(part, path)
            sync(path.parent)
    finally:
        with suppress(OSError):  # the first error is the one to tell
            part.unlink(missing_ok=True)


@contextmanager
def _replacing(paths: Collection[Path]) -> Iterator[None]:
    """Files go, unless what follows fails: then they are as they were."""
    moved = []
    try:
        for path in paths:
            old = path.with_name(f".{path.name}.old")
            with suppress(FileNotFoundError):
                os.replace(path, old)
                moved.append((old, path))
        yield
    except BaseException:
        for old, path in moved:
            with suppress(OSError):
                os.replace(old, path)
        raise
    for old, _ in moved:
        with suppress(OSError):
            old.unlink()


def write_aside(path: Path, data: bytes | memoryview) -> None:
    """Write a file that appears only once it is complete and on the disk; an old one stays whole until then."""
    with aside(path) as file:
        file.write(data)


class Outlet:
    """Writes to a file for a library that hides what a file raises: the first error is kept, to be raised when the
    library is done. From then on nothing is written."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        if self.error is None:
            try:
                return self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Raise the error, if there was one."""
        if self.error is not None:
            raise self.error
        self.file.flush()


def sync(path: Path) -> None:
    """Flush a file, or what was renamed in a folder, to the disk, where the system can.

    Errors
        WriteError for any OSError
    """
    if hasattr(os, "O_DIRECTORY") or not path.is_dir():
        with writing(path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
