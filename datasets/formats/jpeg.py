"""JPEG: grey, colour, and CMYK as RGB; 8 bits a channel."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image

from datasets.formats import Pixels
from datasets.formats.encoded import (
    as_array,
    check_size,
    count_pictures,
    orientation_of,
    reading,
    whole,
    write_pixels,
)

__all__ = ["open_pixels", "write_pixels"]

_START_OF_SCAN = 0xDA
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # among the markers of frames
_PROGRESSIVE = (0xC2, 0xCA)
_FIRST_ARITHMETIC = 0xC9
_COEFFICIENTS_BYTES = 2 * 64  # of a block


@dataclass(frozen=True)
class Frame:
    """What a JPEG says of how it is coded.

    size: (h, w)
    n_blocks: of 8 x 8 coefficients, of all components
    is_buffered: all coefficients are kept until the last scan is read
    is_huffman: each block takes a bit at least; arithmetic coding has no such bound
    """

    size: tuple[int, int]
    n_blocks: int
    is_buffered: bool
    is_huffman: bool


def open_pixels(path: Path) -> Pixels:
    """Open a JPEG, or the first of several in a file (MPO), by its header."""
    with reading(path), PIL.Image.open(path) as picture:
        size = picture.size[::-1]
        mode = "L" if picture.mode == "L" else "RGB"
        with path.open("rb") as file:
            frame = read_frame(file)
        in_pillow = prod(size) * (1 if mode == "L" else 4)
        coefficients = frame.n_blocks * _COEFFICIENTS_BYTES if frame.is_buffered else 0
        decode_bytes = in_pillow + max(coefficients, prod(size) * len(mode))
        check_size(path, size, decode_bytes, frame.n_blocks // 8 if frame.is_huffman else 0)
        orientation, n_pictures = orientation_of(picture), count_pictures(picture)
    return whole(size, len(mode), 8, orientation, lambda: _decode(path, mode), decode_bytes, n_pictures)


def _decode(path: Path, mode: str) -> np.ndarray:
    with reading(path), PIL.Image.open(path) as picture:  # Pillow refuses truncated files; others make up the rest
        return as_array(picture, mode)


def read_frame(file: BinaryIO) -> Frame:
    """ValueError if a JPEG has no frame before its first scan."""
    frame = None
    for marker, data in _segments(file):
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            frame = marker, data
        if marker == _START_OF_SCAN and frame is not None:
            coding, header = frame
            height, width, n_components = int.from_bytes(header[1:3]), int.from_bytes(header[3:5]), header[5]
            factors = [divmod(header[7 + 3 * i], 16) for i in range(n_components)]
            across, down = (max(1, *of_axis) for of_axis in zip(*factors, (1, 1), strict=True))
            n_blocks = sum(ceil(ceil(width * x / across) / 8) * ceil(ceil(height * y / down) / 8) for x, y in factors)
            is_buffered = coding in _PROGRESSIVE or data[0] < n_components
            return Frame((height, width), n_blocks, is_buffered, is_huffman=coding < _FIRST_ARITHMETIC)
    raise ValueError("no frame")


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(marker, contents) of each segment of the header, the last the first scan's."""
    marker = file.read(2)[1:]
    while marker != bytes([_START_OF_SCAN]):
        while file.read(1) not in (b"\xff", b""):  # decoders skip what lies between segments
            pass
        while (marker := file.read(1)) == b"\xff":
            pass
        if not marker:
            return
        if marker != b"\0" and not 0xD0 <= marker[0] <= 0xD8 and marker[0] != 1:  # these have no contents
            yield marker[0], file.read(int.from_bytes(file.read(2)) - 2)
