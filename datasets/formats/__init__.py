"""The formats of picture files: how each is recognised, read and written, and what it can hold.

To add a format, write a module of this package and an entry in `FORMATS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from utils.errors import InputError

_LONGEST_MAGIC = 16

DEPTHS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
"""Bits a channel of each type of pixels."""


@dataclass(frozen=True)
class Pixels:
    """A picture as it lies in its file.

    size: (h, w)
    n_channels: 1 (grey), 3 (RGB) or 4 (RGBA)
    bits: of a channel, 8 or 16
    orientation: of EXIF, 1 to 8
    chunk: (h, w) of what the file decodes at once: a tile, a strip, a chunk of Zarr, or the whole picture
    window: (rows, columns) -> (h, w, c) uint8 or uint16, a range of the file's rows and columns
    window_bytes: (n_rows, n_columns) -> bytes of memory that reading such a window takes at its peak, with its values
    n_pictures: that the file holds: frames or pages, of which this is the first
    """

    size: tuple[int, int]
    n_channels: int
    bits: int
    orientation: int
    chunk: tuple[int, int]
    window: Callable[[slice, slice], np.ndarray]
    window_bytes: Callable[[int, int], int]
    n_pictures: int = 1


@dataclass(frozen=True)
class Format:
    """A format of picture files: recognised by how a file begins when read, and by its suffix when written.

    name: in messages
    module: of this package, with `open_pixels(path) -> Pixels` and, where there are suffixes,
        `write_pixels(path, rows, shape, dtype)` and, where there are markers too, `can_replace(path) -> bool`;
        imported when first needed, since its libraries load slowly
    magic: how its files begin: with one of these, of up to 16 bytes each
    markers: files in its folders: at least one of these
    suffixes: of files that are written in it; none if it is only read
    most_bits: of a channel
    has_alpha: it holds RGBA as well
    most_side: pixels along each axis, at most
    rows_held: that are held together while it is written
    """

    name: str
    module: str
    magic: tuple[bytes, ...]
    markers: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    most_bits: int = 16
    has_alpha: bool = True
    most_side: int | None = None
    rows_held: int = 0

    def open(self, path: Path) -> Pixels:
        """InputError for a file that is damaged or does not hold a picture."""
        return self._module().open_pixels(path)

    def write(self, path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
        """Write a picture; it replaces an old file once it is complete.

        Inputs
            rows: consecutive parts of the picture from the top, (n_rows, w, c)
            shape, dtype: (h, w, c) of the picture, uint8 or uint16
        Errors
            InputError if it cannot be written
        """
        self._module().write_pixels(path, rows, shape, dtype)

    def can_replace(self, path: Path) -> bool:
        """Whether a folder may make room for a picture that is written."""
        return path.is_dir() and self._module().can_replace(path)

    def _module(self) -> ModuleType:
        return import_module(f"{__name__}.{self.module}")


FORMATS = (
    Format("PNG", "png", magic=(b"\x89PNG",), suffixes=(".png",)),
    Format(
        "JPEG",
        "jpeg",
        magic=(b"\xff\xd8\xff",),
        suffixes=(".jpg", ".jpeg"),
        most_bits=8,
        has_alpha=False,
        most_side=65500,  # of the encoder
    ),
    Format("TIFF", "tiff", magic=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), suffixes=(".tif", ".tiff"), rows_held=256),
    Format(
        "Zarr",
        "zarr",
        magic=(b"PK\3\4",),  # in a .zip
        markers=("zarr.json", ".zarray", ".zgroup"),
        suffixes=(".zarr",),
        rows_held=512,
    ),
    Format("other", "other", magic=(b"",)),  # whatever else can be decoded: matches every file
)

_NAMES = [format.name for format in FORMATS if format.suffixes]
SUPPORTED = f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]} with 8 or 16 bits a channel"


def open_pixels(path: Path) -> Pixels:
    """Open a picture in an existing file or folder; InputError if it cannot be read."""
    if path.is_dir():
        return next(format for format in FORMATS if _is_folder_of(format, path)).open(path)
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST_MAGIC)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return next(format for format in FORMATS if start.startswith(format.magic)).open(path)


def is_picture_folder(path: Path) -> bool:
    """Whether the path is a folder in one of the formats."""
    return any(_is_folder_of(format, path) for format in FORMATS)


def _is_folder_of(format: Format, path: Path) -> bool:
    return any((path / name).is_file() for name in format.markers)


def unsupported_type(path: Path, dtype: np.dtype) -> InputError:
    return InputError(f"{path} holds {dtype} values, which are not supported; use {SUPPORTED}")
