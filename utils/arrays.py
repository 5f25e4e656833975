"""Arrays that lie in files."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.files import WriteError, writing

_BLOCK = 2**20


def map_new_array(path: Path, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file, mapped for writing. It takes its room on the disk at once: where a mapped page finds none, the
    process would be killed.

    Errors
        WriteError, and no file is left
    """
    try:
        with writing(path):
            array = np.lib.format.open_memmap(path, "w+", dtype, shape)
            with path.open("r+b") as file:
                _take_room(file, path.stat().st_size)
        return array
    except WriteError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def _take_room(file: BinaryIO, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
        return
    start = file.read(min(n_bytes, _BLOCK))  # the header, and zeros
    file.seek(0)
    file.write(start)
    for done in range(len(start), n_bytes, _BLOCK):
        file.write(bytes(min(_BLOCK, n_bytes - done)))
