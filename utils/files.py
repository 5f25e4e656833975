"""Whether a path leads to a file that can be read."""

import stat
from pathlib import Path

from utils.errors import InputError


def check_file(path: Path, most: int | None = None) -> None:
    """InputError unless there is a regular file with something in it: a pipe or a device may never end.

    Inputs
        most: bytes that it may hold
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # a circle of links, a folder that is closed to us; a zero byte
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise InputError(f"{path} is not a file, but {what}")
    if status.st_size == 0:
        raise InputError(f"{path} is empty")
    if most is not None and status.st_size > most:
        raise InputError(
            f"{path} has {status.st_size:,} bytes, and {most:,} are the most that is read; is it the right file?"
        )
