"""Radiance's pictures (.hdr): RGB with a common exponent."""

import re
from collections.abc import Iterable
from math import prod
from pathlib import Path

import imagecodecs
import numpy as np

from datasets.formats import Pixels
from datasets.formats.encoded import check_size, reading, unreadable, whole
from utils.files import aside

_HEADER = 2**16  # bytes, at most
_CODED, _DECODED = 4, 12  # bytes of a pixel
_MOST_RUN = 32  # pixels for a byte of a file


def open_pixels(path: Path) -> Pixels:
    """Open a picture by its header."""
    with path.open("rb") as file:
        header = file.read(_HEADER)
    found = re.search(rb"\n\n-Y (\d{1,7}) \+X (\d{1,7})\n", header)
    if found is None or b"xyze" in header[: found.start()]:
        raise unreadable(path, "a Radiance picture has to be RGB, rows from the top and columns from the left")
    size = int(found[1]), int(found[2])
    if 0 in size:
        raise unreadable(path, "it has no pixels")
    n_bytes = prod(size) * _DECODED + path.stat().st_size
    check_size(path, size, n_bytes, prod(size) // _MOST_RUN)
    return whole(size, 3, 16, 1, lambda: _decode(path, size), n_bytes, dtype=np.dtype(np.float32))


def _decode(path: Path, size: tuple[int, int]) -> np.ndarray:
    with reading(path):
        return imagecodecs.rgbe_decode(path.read_bytes()).reshape(*size, 3)


def write_pixels(path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Write a picture as a whole; values below zero are zero there."""
    values = np.concatenate([some.astype(np.float32) for some in rows])
    with aside(path) as file:
        file.write(imagecodecs.rgbe_encode(np.maximum(values, 0), header=True))
