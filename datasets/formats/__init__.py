"""The formats of picture files: how each is recognised, read and written, and what it can hold.

To add a format, write a module of this package and an entry in `FORMATS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from datasets.ngff import MARKERS
from utils.errors import InputError
from utils.georeference import Georeference
from utils.transfer import DTYPES

_LONGEST_MAGIC = 16

DEPTHS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
"""Bits a channel of each type of pixels."""

VALUES = frozenset(np.dtype(name) for name in (*DTYPES, "float64")) - DEPTHS.keys()
"""Other types of values, which a transfer takes to 16 bits."""


@dataclass(frozen=True)
class Pixels:
    """A picture as it lies in its file.

    size: (h, w)
    n_channels: 1 (grey), 3 (RGB), 4 (RGBA) or, where they are spectral, any number up to 64
    bits: of a channel, 8 or 16
    orientation: of EXIF, 1 to 8
    chunk: (h, w) of what the file decodes at once: a tile, a strip, a chunk of Zarr, or the whole picture
    window: (rows, columns) -> (h, w, c) uint8 or uint16, or `dtype`, a range of the file's rows and columns
    window_bytes: (n_rows, n_columns) -> bytes of memory that reading such a window takes at its peak, with its values
    n_pictures: that the file holds: frames or pages, of which this is the first
    dtype: one of `VALUES`, as the header says, where a transfer has to take them to `bits`; None for plain pixels
    is_light: whether these are intensities of light, of any range
    notes: what of the file is left out, a sentence each
    spectral: its channels are measurements, none of them alpha
    georeference: of the file's rows and columns
    """

    size: tuple[int, int]
    n_channels: int
    bits: int
    orientation: int
    chunk: tuple[int, int]
    window: Callable[[slice, slice], np.ndarray]
    window_bytes: Callable[[int, int], int]
    n_pictures: int = 1
    dtype: np.dtype | None = None
    is_light: bool = False
    notes: tuple[str, ...] = ()
    spectral: bool = False
    georeference: Georeference | None = None


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
    most_bits: of a channel; 0 if it holds no plain pixels
    types: of other values that it holds, their names
    has_alpha: it holds RGBA as well
    has_spectral: it holds any number of channels
    keeps: more arguments that `write_pixels` takes
    most_side: pixels along each axis, at most
    is_colour: it holds no grey pictures
    rows_held: that are held together while it is written
    """

    name: str
    module: str
    magic: tuple[bytes, ...]
    markers: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    most_bits: int = 16
    types: tuple[str, ...] = ()
    has_alpha: bool = True
    has_spectral: bool = False
    keeps: tuple[str, ...] = ()
    most_side: int | None = None
    is_colour: bool = False
    rows_held: int = 0

    def open(self, path: Path) -> Pixels:
        """InputError for a file that is damaged or does not hold a picture."""
        return self._module().open_pixels(path)

    def write(
        self, path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype, **about: Any
    ) -> None:
        """Write a picture; it replaces an old file once it is complete.

        Inputs
            rows: consecutive parts of the picture from the top, (n_rows, w, c)
            shape, dtype: (h, w, c) of the picture; uint8, uint16 or one of `types`
            about: `spectral` and `georeference` of the picture, as of `Pixels`, of which a format keeps what it can
        Errors
            InputError if it cannot be written
        """
        kept = {name: about[name] for name in self.keeps if name in about}
        self._module().write_pixels(path, rows, shape, dtype, **kept)

    def can_replace(self, path: Path) -> bool:
        """Whether a folder may make room for a picture that is written."""
        return path.is_dir() and self._module().can_replace(path)

    def _module(self) -> ModuleType:
        return import_module(f"{__name__}.{self.module}")


_EVERY_ROW = 2**31  # of formats that are written as a whole
_FLOATS = ("float16", "float32")

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
    Format(
        "TIFF",
        "tiff",
        magic=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        suffixes=(".tif", ".tiff"),
        types=DTYPES,
        has_spectral=True,
        keeps=("spectral", "georeference"),
        rows_held=256,
    ),
    Format(
        "Zarr",
        "zarr",
        magic=(b"PK\3\4",),  # in a .zip
        markers=MARKERS,
        suffixes=(".zarr",),
        types=DTYPES,
        has_spectral=True,
        rows_held=512,
    ),
    Format("NumPy", "npy", magic=(b"\x93NUMPY",), suffixes=(".npy",), types=DTYPES, has_spectral=True),
    Format(
        "OpenEXR",
        "exr",
        magic=(b"\x76\x2f\x31\x01",),
        suffixes=(".exr",),
        most_bits=0,
        types=_FLOATS,
        has_alpha=False,
        rows_held=_EVERY_ROW,
    ),
    Format(
        "Radiance",
        "radiance",
        magic=(b"#?",),
        suffixes=(".hdr",),
        most_bits=0,
        types=_FLOATS,
        has_alpha=False,
        is_colour=True,
        rows_held=_EVERY_ROW,
    ),
    Format("other", "other", magic=(b"",)),  # whatever else can be decoded: matches every file
)


def _any_of(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


_PLAIN = [format.name for format in FORMATS if format.suffixes and format.most_bits]
_OF_VALUES = [format.name for format in FORMATS if format.types]
SUPPORTED = f"{_any_of(_PLAIN)} with 8 or 16 bits a channel, or floating point numbers in {_any_of(_OF_VALUES)}"


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
