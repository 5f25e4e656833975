"""Other formats of pictures, as Pillow and OpenCV know them: BMP, PPM, GIF, WebP, JPEG 2000, AVIF and more."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from datasets.formats import DEPTHS, Pixels, unsupported_type
from datasets.formats.encoded import as_array, count_pictures, orientation_of, reading, unreadable, whole
from utils.memory import check_memory


def open_pixels(path: Path) -> Pixels:
    """Open a GIF by its header; the others are decoded at once, as only the pixels show what they hold."""
    orientation = n_pictures = 1
    with reading(path):
        try:
            with PIL.Image.open(path) as picture:
                n_values = prod(picture.size) * len(picture.getbands())
                check_memory(path, picture.size[::-1], n_values * (2 if picture.mode.startswith("I") else 1))
                if picture.format == "GIF":
                    return _open_gif(path, picture)
                orientation, n_pictures = orientation_of(picture), count_pictures(picture)
        except PIL.UnidentifiedImageError:
            pass  # OpenCV may still read it
    pixels = _decode_by_opencv(path)
    height, width, n_channels = pixels.shape
    bits = DEPTHS[pixels.dtype]
    return whole((height, width), n_channels, bits, orientation, lambda: pixels, pixels.nbytes, n_pictures)


def _open_gif(path: Path, picture: PIL.Image.Image) -> Pixels:
    transparent = picture.info.get("transparency")
    mode = "RGB" if transparent is None or picture.histogram()[transparent] == 0 else "RGBA"
    size, n_pictures = picture.size[::-1], count_pictures(picture)
    return whole(size, len(mode), 8, 1, lambda: _decode_gif(path, mode), prod(size) * (1 + len(mode)), n_pictures)


def _decode_gif(path: Path, mode: str) -> np.ndarray:
    with reading(path), PIL.Image.open(path) as picture:
        return as_array(picture, mode)


def _decode_by_opencv(path: Path) -> np.ndarray:
    """(h, w, c), grey, RGB or RGBA; uint8 or uint16."""
    try:
        with _muted():
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:  # a header that promises more than memory holds
        raise unreadable(path) from error
    if pixels is None:
        raise unreadable(path)
    if pixels.dtype not in DEPTHS:
        raise unsupported_type(path, pixels.dtype)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    swap = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}.get(pixels.shape[2])
    return pixels if swap is None else cv2.cvtColor(pixels, swap, dst=pixels)


@contextmanager
def _muted() -> Iterator[None]:
    """Without what C libraries print on stderr."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
