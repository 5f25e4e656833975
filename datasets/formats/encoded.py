"""PNG, JPEG and other formats of Pillow or OpenCV: pictures that decode only as a whole."""

import errno
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from tempfile import TemporaryFile

import cv2
import numpy as np
import PIL.Image

from datasets.formats import DEPTHS, SUPPORTED, Pixels, unsupported_type
from utils.errors import InputError, one_line
from utils.files import aside
from utils.memory import check_memory

PIL.Image.MAX_IMAGE_PIXELS = None

_EXIF_ORIENTATION = 0x0112
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # by colour type, as OpenCV gives them
_PNG_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
_PNG_COMPRESSION = 3  # 6, the usual one, takes half as long again to save 2%
_JPEG_QUALITY = 95
_NUMBERS = {os.strerror(number): number for number in errno.errorcode}  # of the system's errors, by their texts


def open_pixels(path: Path) -> Pixels:
    """Open PNG and JPEG by their headers; other kinds are decoded at once, as only the pixels show what they hold."""
    try:
        with PIL.Image.open(path) as picture:
            if picture.format == "PNG":
                return _open_png(path, picture)
            orientation = _orientation(path, picture)
            if picture.format in ("JPEG", "MPO"):
                n_channels = 1 if picture.mode == "L" else 3
                return _whole(picture.size[::-1], n_channels, 8, orientation, lambda: _decode_jpeg(path))
    except InputError:
        raise
    except PIL.UnidentifiedImageError:
        orientation = 1  # OpenCV may still read it
    except Exception as error:  # whatever a damaged header raises
        raise _unreadable(path) from error
    pixels = _decode_by_opencv(path)
    if pixels.dtype not in DEPTHS:
        raise unsupported_type(path, pixels.dtype)
    return _whole(pixels.shape[:2], pixels.shape[2], DEPTHS[pixels.dtype], orientation, lambda: pixels)


def _unreadable(path: Path) -> InputError:
    return InputError(f"{path} is not a readable picture; use {SUPPORTED}")


def _whole(
    size: tuple[int, int], n_channels: int, bits: int, orientation: int, decode: Callable[[], np.ndarray]
) -> Pixels:
    return Pixels(size, n_channels, bits, orientation, size, lambda rows, columns: decode()[rows, columns])


def _orientation(path: Path, picture: PIL.Image.Image) -> int:
    """By its EXIF record, which Pillow may have to read the whole picture for."""
    n_values = picture.width * picture.height * len(picture.getbands())
    check_memory(path, picture.size[::-1], n_values * (2 if picture.mode.startswith("I") else 1))
    return picture.getexif().get(_EXIF_ORIENTATION, 1)


def _open_png(path: Path, picture: PIL.Image.Image) -> Pixels:
    size = picture.size[::-1]
    with path.open("rb") as file:
        depth, colour = file.read(26)[24:]
    n_channels = 4 if "transparency" in picture.info else _PNG_CHANNELS[colour]
    bits = 16 if depth == 16 else 8
    check_memory(path, size, prod(size) * n_channels * bits // 8)
    late = _PNG_METADATA & set(_chunks_after_pixels(path))
    exif = picture.getexif() if late else PIL.Image.Image.getexif(picture)  # PNG's own decodes all to find late ones
    return _whole(size, n_channels, bits, exif.get(_EXIF_ORIENTATION, 1), lambda: _decode_png(path, size, n_channels))


def _chunks_after_pixels(path: Path) -> Iterator[bytes]:
    """Types of the PNG chunks, from the first of pixels on; InputError if the file ends too early."""
    with path.open("rb") as file:
        file.seek(8)
        kind, pixels_seen = b"", False
        while kind != b"IEND":
            header = file.read(8)
            if len(header) < 8:
                raise _unreadable(path)
            length, kind = struct.unpack(">I4s", header)
            file.seek(length + 4, 1)
            pixels_seen |= kind == b"IDAT"
            if pixels_seen:
                yield kind


def _decode_png(path: Path, size: tuple[int, int], n_channels: int) -> np.ndarray:
    try:
        with PIL.Image.open(path) as picture:
            picture.verify()  # checksums first: libpng would print its complaints
    except Exception as error:  # whatever a damaged file raises
        raise _unreadable(path) from error
    pixels = _decode_by_opencv(path)
    if pixels.shape != (*size, n_channels):
        raise _unreadable(path)
    return pixels


def _decode_jpeg(path: Path) -> np.ndarray:
    try:  # Pillow refuses truncated ones, where OpenCV makes up the rest
        with PIL.Image.open(path) as picture:
            pixels = np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    except Exception as error:  # whatever a damaged file raises
        raise _unreadable(path) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode_by_opencv(path: Path) -> np.ndarray:
    """(h, w, c), grey, RGB or RGBA."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _unreadable(path)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels if pixels.shape[2] == 1 else pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


def write_pixels(path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Write PNG or JPEG, by suffix, with libvips, which takes whole pictures: this one is mapped from a file."""
    import pyvips  # reading does without it

    height, width, n_channels = shape
    deep = dtype == np.uint16
    colours = ("rgb16" if deep else "srgb") if n_channels > 1 else ("grey16" if deep else "b-w")
    with aside(path) as file, TemporaryFile(dir=path.parent) as scratch:  # nameless, so gone however this process ends
        for some in rows:
            scratch.write(some.data)
        scratch.flush()
        mapped = np.memmap(scratch, dtype, mode="r")
        picture = pyvips.Image.new_from_memory(mapped, width, height, n_channels, "ushort" if deep else "uchar")
        picture = picture.copy(interpretation=colours)
        target = pyvips.Target.new_to_descriptor(file.fileno())  # a function of ours would take no Ctrl-C
        try:
            if path.suffix.lower() == ".png":
                picture.pngsave_target(target, filter="all", compression=_PNG_COMPRESSION)
            else:
                picture.jpegsave_target(target, Q=_JPEG_QUALITY)
        except pyvips.Error as error:
            told = re.search("(?:system|unix) error: (.+)", error.detail)
            reason = told[1] if told else one_line(error)
            raise OSError(_NUMBERS.get(reason), reason) from error
