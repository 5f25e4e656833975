"""PNG of every colour type and depth, with transparency as a fourth channel."""

import io
import os
import struct
import zlib
from math import ceil, prod
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import PIL.Image

from datasets.formats import Pixels
from datasets.formats.encoded import (
    check_size,
    count_pictures,
    orientation_of,
    reading,
    unreadable,
    whole,
    write_pixels,
)

__all__ = ["open_pixels", "write_pixels"]

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by colour type
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # of the picture, unless a chunk says what is transparent
_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEFLATE = 1032  # bytes that a byte of deflate unpacks to, at most: 258 for each pair of 1-bit codes


def open_pixels(path: Path) -> Pixels:
    """Open a PNG by its header."""
    with reading(path), PIL.Image.open(path) as picture, path.open("rb") as file:
        size, is_transparent = picture.size[::-1], "transparency" in picture.info
        depth, colour = file.read(26)[24:]
        n_channels = 4 if is_transparent else _CHANNELS[colour]
        bits = 16 if depth == 16 else 8
        decode_bytes = path.stat().st_size + prod(size) * n_channels * bits // 8
        n_unpacked = size[0] * (1 + ceil(size[1] * _SAMPLES[colour] * depth / 8))
        check_size(path, size, decode_bytes, n_unpacked // _DEFLATE)
        orientation, n_pictures = _orientation(file), count_pictures(picture)
    shape = (*size, n_channels)
    return whole(size, n_channels, bits, orientation, lambda: _decode(path, shape), decode_bytes, n_pictures)


def _orientation(file: BinaryIO) -> int:
    """By metadata before or after the pixels, which are left out here, so that Pillow need not decode them."""
    parts = [_SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))]
    file.seek(len(_SIGNATURE))
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind in _METADATA:
            parts.append(_chunk(kind, file.read(length)))
            length = 0
        file.seek(length + 4, os.SEEK_CUR)
    parts += [_chunk(b"IDAT", b""), _chunk(b"IEND", b"")]
    with PIL.Image.open(io.BytesIO(b"".join(parts))) as picture:
        return orientation_of(picture)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _decode(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """(h, w, c), grey, RGB or RGBA."""
    with reading(path):
        with PIL.Image.open(path) as picture:
            picture.verify()  # every checksum: libpng stops reading after the last pixel
        try:
            pixels = imagecodecs.png_decode(path.read_bytes())
        except imagecodecs.PngError as error:
            raise unreadable(path, error) from error
    pixels = pixels.reshape(*shape[:2], -1)
    if pixels.shape[2] == 2:
        pixels = pixels[:, :, [0, 0, 0, 1]]  # grey and alpha
    if pixels.shape != shape:
        raise unreadable(path)
    return pixels
