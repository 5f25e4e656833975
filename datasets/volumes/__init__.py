"""Volumes of values in files, axes [z, y, x]: the formats, and how each is read by ranges of slices and written.

To add a format, write a module of this package and an entry in `FORMATS`.

Notation: a *slice* is the values (h, w) at one z.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from datasets.formats import DEPTHS
from datasets.sources import Source
from datasets.transferred import check_plain, transfer_of, value_type
from utils import windows
from utils.errors import InputError, size_text
from utils.files import check_file
from utils.memory import check_memory
from utils.transfer import AS_SUITS, DTYPES, Reading

Affine = list[list[float]]
"""(4, 4): where voxel (x, y, z, 1) lies in the space of the file, in its unit."""


@dataclass(frozen=True)
class Voxels:
    """A volume as it lies in its file.

    size: (d, h, w)
    dtype: of its values
    slices: (start, stop) -> (stop - start, h, w) values, in any order of bytes; it may be a view
    affine: where they lie, or None if the file does not say
    scaling: slope and intercept, by which stored values are to be read, or None for as they are
    held_bytes: of memory that is kept from the first reading on
    close: gives that back
    """

    size: tuple[int, int, int]
    dtype: np.dtype
    slices: Callable[[int, int], np.ndarray] = field(repr=False)
    affine: Affine | None = None
    scaling: list[float] | None = None
    held_bytes: int = 0
    close: Callable[[], None] = field(default=lambda: None, repr=False)


Write = Callable[[np.ndarray], None]
"""Takes the next slices (n, h, w) of a volume."""


@dataclass(frozen=True)
class VolumeFormat:
    """A format of volumes, recognised by the suffix.

    name: in messages
    module: of this package, with `open_voxels(path) -> Voxels` and, where it is written,
        `writing(path, size, dtype, source)`, a context that gives a `Write`; imported when first needed
    suffixes: of its files; none of folders
    is_written: it is written as well
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    is_written: bool = True

    def open(self, path: Path) -> Voxels:
        """InputError for a file that is damaged or does not hold a volume."""
        return self._module().open_voxels(path)

    def writing(
        self, path: Path, size: tuple[int, int, int], dtype: np.dtype, source: dict[str, Any]
    ) -> AbstractContextManager[Write]:
        """Write a volume slice by slice; it replaces an old file once it is complete.

        Inputs
            source: what is known of the file that was fitted: `affine` and `scaling`, where there are
        Errors
            InputError if it cannot be written
        """
        return self._module().writing(path, size, dtype, source)

    def _module(self) -> ModuleType:
        return import_module(f"{__name__}.{self.module}")


FORMATS = (
    VolumeFormat("NumPy", "npy", (".npy",)),
    VolumeFormat("NIfTI", "nifti", (".nii", ".nii.gz")),
    VolumeFormat("TIFF", "tiff", (".tif", ".tiff")),
)
_FOLDER = VolumeFormat("folder of slices", "folder", (), is_written=False)

_ENCODING_BYTES = 40  # of a value, as it is encoded: a few arrays of float64

SUFFIXES = tuple(suffix for format in FORMATS for suffix in format.suffixes)


def open_volume(path: str | Path, size: tuple[int, int, int] | None = None, reading: Reading = AS_SUITS) -> Source:
    """Open a volume of values.

    Inputs
        path: .npy (d, h, w); .nii or .nii.gz; a TIFF of pages of one size; or a folder of slices, PNG, TIFF or JPEG,
            in the natural order of their names. Integers of up to 32 bits, or floats
        size: (d, h, w), which must be the file's own; None for whatever it is
        reading: of values other than uint8 and uint16; linear where it leaves that open
    Errors
        InputError for a file that is missing, is no volume, or is of another size
    """
    path = Path(path)
    if path.is_dir():
        return volume_source(path, _FOLDER.open(path), size, reading)
    check_file(path)
    return volume_source(path, format_of(path).open(path), size, reading)


def format_of(path: Path) -> VolumeFormat:
    """By the suffix; InputError if there is none."""
    for format in FORMATS:
        if path.name.lower().endswith(format.suffixes):
            return format
    raise InputError(f"{path}: suffix {path.suffix!r} cannot hold a volume; use one of {', '.join(SUFFIXES)}")


def volume_source(
    path: Path, voxels: Voxels, size: tuple[int, int, int] | None = None, reading: Reading = AS_SUITS
) -> Source:
    """A volume as `open_volume` tells; values other than uint8 and uint16 are given in 16 bits by a transfer."""
    if 0 in voxels.size:
        raise InputError(f"{path} is of size {size_text(voxels.size)}, and so has no values; use another one")
    if size is not None and voxels.size != size:
        raise InputError(
            f"{path} holds {size_text(voxels.size)} voxels, not {size_text(size)}; volumes are not resized"
        )
    dtype, slice_values = voxels.dtype.newbyteorder("="), prod(voxels.size[1:])
    if dtype in DEPTHS:
        check_plain(path, DEPTHS[dtype], reading)
    elif value_type(dtype) not in DTYPES:
        raise InputError(f"{path} holds {dtype} values; use integers of up to 32 bits, or floats")
    n_read = min(windows.rows_at_once(1, voxels.size), voxels.size[0])
    value_bytes = dtype.itemsize * 2 if dtype in DEPTHS else dtype.itemsize + _ENCODING_BYTES

    def stored(start: int, stop: int) -> np.ndarray:
        check_memory(path, voxels.size, (stop - start) * slice_values * value_bytes)
        return np.asarray(voxels.slices(start, stop), dtype)

    transfer, notes = None, ()
    if dtype not in DEPTHS:
        parts = (stored(*ends) for ends in windows.row_ranges(1, voxels.size))
        transfer, notes = transfer_of(path, parts, reading, lambda _: "linear")

    def read(start: int, stop: int) -> np.ndarray:
        values = stored(start, stop)
        return (values if transfer is None else transfer.numbers(values))[None]

    return Source(
        path,
        voxels.size,
        n_channels=1,
        bits=DEPTHS.get(dtype, 16),
        frame=None,
        file_size=voxels.size,
        rows_at_once=1,
        decode_bytes=voxels.held_bytes + n_read * slice_values * value_bytes,
        held_bytes=voxels.held_bytes,
        reader=read,
        notes=notes,
        close=voxels.close,
        affine=voxels.affine,
        scaling=voxels.scaling,
        transfer=transfer,
    )
