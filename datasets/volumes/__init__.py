"""Volumes of values in files, axes [z, y, x]: the formats, and how each is read by ranges of slices and written.

To add a format, write a module of this package and an entry in `FORMATS`.

Notation: a *slice* is the values (c, h, w) at one z.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from datasets.ngff import is_zarr
from datasets.sources import Source
from datasets.tasks import DETACHED_SUFFIXES
from datasets.transferred import check_plain, transfer_of, value_type
from datasets.volumes.axes import Choice, Index, about, choose
from utils import windows
from utils.errors import InputError, size_text
from utils.files import check_file, check_replaceable
from utils.memory import check_memory, check_room
from utils.transfer import AS_SUITS, DTYPES, Reading, Transfer

Affine = list[list[float]]
"""(4, 4): where voxel (x, y, z, 1) lies, in the unit of the file; where that knows a body, x is to its right, y to its
front and z up, as in NIfTI."""


@dataclass(frozen=True)
class Voxels:
    """An array with a volume, as it lies in its file.

    axes: a letter each, as `datasets.volumes.axes` has them
    shape: their entries
    dtype: of its values
    read: of an index, an entry or a range along each axis: values, in any order of bytes; it may be a view
    affine: where they lie, or None if the file does not say
    unit: of that, if it is no millimetre
    scaling: slope and intercept, by which stored values are to be read, or None for as they are
    slices_at_once: that are cheapest to read together
    held_bytes: of memory that is kept from the first reading on
    notes: what of the file is left out, a sentence each
    close: gives back the memory that is kept
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray] = field(repr=False)
    affine: Affine | None = None
    unit: str | None = None
    scaling: list[float] | None = None
    slices_at_once: int = 1
    held_bytes: int = 0
    notes: tuple[str, ...] = ()
    close: Callable[[], None] = field(default=lambda: None, repr=False)


Write = Callable[[np.ndarray], None]
"""Takes the next slices (c, n, h, w) of a volume."""


@dataclass(frozen=True)
class VolumeFormat:
    """A format of volumes, recognised by the suffix.

    name: in messages
    module: of this package, with `open_voxels(path, has_times) -> Voxels` and, where it is written,
        `writing(path, shape, dtype, source)`, a context that gives a `Write`; imported when first needed
    suffixes: of its files; none of folders
    is_written: it is written as well
    has_half: it holds floating point numbers of 16 bits
    slices_held: that are held together while it is written
    is_folder: its files may be folders, and those that are written are; then the module has `can_replace(path) -> bool`
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    is_written: bool = True
    has_half: bool = True
    slices_held: int = 0
    is_folder: bool = False

    def open(self, path: Path, has_times: bool = False) -> Voxels:
        """Open a file.

        Inputs
            has_times: an axis without a name may be that of times
        Errors
            InputError for a file that is damaged or does not hold a volume
        """
        return self._module().open_voxels(path, has_times)

    def writing(
        self, path: Path, shape: tuple[int, int, int, int], dtype: np.dtype, source: dict[str, Any]
    ) -> AbstractContextManager[Write]:
        """Write a volume slice by slice; it replaces an old file once it is complete.

        Inputs
            shape: (c, d, h, w)
            dtype: of the values; half precision becomes single where the format has none
            source: what is known of the file that was fitted: `affine`, `unit`, `scaling` and `axes`, where there are
        Errors
            InputError if it cannot be written
        """
        is_half = dtype == np.float16 and not self.has_half
        return self._module().writing(path, shape, np.dtype(np.float32) if is_half else dtype, source)

    def check_replaceable(self, path: Path) -> None:
        """InputError if there is something that a volume must not replace."""
        if not self.is_folder:
            check_replaceable(path)
        elif path.exists() and not self._module().can_replace(path):
            raise InputError(f"{path} exists and is not a {self.name} array; choose another name")

    def _module(self) -> ModuleType:
        return import_module(f"{__name__}.{self.module}")


FORMATS = (
    VolumeFormat("NumPy", "npy", (".npy",)),
    VolumeFormat("NIfTI", "nifti", (".nii", ".nii.gz"), has_half=False),
    VolumeFormat("MetaImage", "itk", (".mha",), has_half=False),
    VolumeFormat("NRRD", "itk", (".nrrd",), has_half=False),
    VolumeFormat("header of values in another file", "itk", DETACHED_SUFFIXES, is_written=False),
    VolumeFormat("Zarr", "zarr", (".zarr",), slices_held=64, is_folder=True),
    VolumeFormat("zipped Zarr", "zarr", (".zip",), is_written=False),
    VolumeFormat("TIFF", "tiff", (".tif", ".tiff"), has_half=False),
)
_FOLDER = VolumeFormat("folder of slices", "folder", (), is_written=False)

_COPIES_HELD = 3  # gathered, joined, compressed
_MOST_BYTES = 4  # of a value that is written
_NUMBER_BYTES = 4  # of a value: its number, and that of its part
_ENCODING_BYTES = 40  # of a value, while it is encoded: a few arrays of float64

_PLAIN = np.dtype(np.uint8)  # which is fitted as it is

SUFFIXES = tuple(suffix for format in FORMATS for suffix in format.suffixes)


def open_volume(path: str | Path, size: tuple[int, int, int] | None = None, reading: Reading = AS_SUITS) -> Source:
    """Open a volume of values.

    Inputs
        path: .npy (d, h, w), (c, d, h, w) or (d, h, w, c); Zarr or OME-Zarr; .nii, .nii.gz, .mha, .mhd, .nrrd or
            .nhdr; a TIFF of pages of one size; or a folder of slices, PNG, TIFF or JPEG, in the natural order of their
            names. Integers of up to 32 bits, or floats
        size: (d, h, w), which must be the file's own; None for whatever it is
        reading: of values other than uint8, linear where it leaves that open; and of which time and channels
    Errors
        InputError for a file that is missing, is no volume, or is of another size
    """
    path = Path(path)
    if path.is_dir():
        format = format_of(Path("folder.zarr")) if is_zarr(path) else _FOLDER
    else:
        check_file(path)
        format = format_of(path)
    return volume_source(path, format.open(path, reading.time is not None), size, reading)


def format_of(path: Path) -> VolumeFormat:
    """By the suffix; InputError if there is none."""
    for format in FORMATS:
        if path.name.lower().endswith(format.suffixes):
            return format
    raise InputError(f"{path}: suffix {path.suffix!r} cannot hold a volume; use one of {', '.join(SUFFIXES)}")


def held_bytes(path: Path, n_channels: int, size: tuple[int, int, int]) -> int:
    """Bytes of memory that writing a volume takes at most, beside the slices that are written."""
    n_slices = min(format_of(path).slices_held, size[0])
    return _COPIES_HELD * _MOST_BYTES * n_channels * n_slices * prod(size[1:])


def volume_source(
    path: Path, voxels: Voxels, size: tuple[int, int, int] | None = None, reading: Reading = AS_SUITS
) -> Source:
    """A volume as `open_volume` tells; values other than uint8 are given in 16 bits by a transfer."""
    if min(voxels.shape) < 1:
        raise InputError(f"{path} is of shape {voxels.shape}, and so has no values; use another one")
    choice = choose(path, voxels.axes, voxels.shape, reading)
    if size is not None and choice.size != size:
        raise InputError(
            f"{path} holds {size_text(choice.size)} voxels, not {size_text(size)}; volumes are not resized"
        )
    dtype, affine, notes = voxels.dtype.newbyteorder("="), voxels.affine, voxels.notes
    if dtype == _PLAIN:
        check_plain(path, 8, reading)
    elif value_type(dtype) not in DTYPES:
        raise InputError(f"{path} holds {dtype} values; use integers of up to 32 bits, or floats")
    if not _is_sound(affine):
        affine = None
        notes += (f"{path}: it says that its voxels lie nowhere, or have no size; they are taken for cubes of size 1",)
    reader = _Reader(path, voxels, choice)
    if dtype != _PLAIN:
        notes += reader.find_transfer(reading)
    return Source(
        path,
        choice.size,
        n_channels=len(choice.channels),
        bits=8 if dtype == _PLAIN else 16,
        frame=None,
        file_size=choice.size,
        rows_at_once=voxels.slices_at_once,
        decode_bytes=voxels.held_bytes + reader.n_bytes(reader.n_read),
        held_bytes=voxels.held_bytes,
        reader=reader,
        notes=notes,
        close=voxels.close,
        affine=affine,
        scaling=voxels.scaling,
        transfer=reader.transfer,
        spectral=len(choice.channels) not in (1, 3),
        about=({"unit": voxels.unit} if affine and voxels.unit else {}) | about(choice, reading),
    )


class _Reader:
    """Reads slices (c, stop - start, h, w) of a volume, by a transfer if there is one.

    n_read: slices that are read together
    """

    transfer: Transfer | None = None

    def __init__(self, path: Path, voxels: Voxels, choice: Choice):
        self.path, self.voxels, self.choice = path, voxels, choice
        self.dtype, self.n_channels = voxels.dtype.newbyteorder("="), len(choice.channels)
        self.n_read, self.n_encoded = (
            min(windows.rows_at_once(self.n_channels, choice.size, step), choice.size[0])
            for step in (voxels.slices_at_once, 1)
        )

    def find_transfer(self, reading: Reading) -> tuple[str, ...]:
        """Look through all values, unless the transfer is known; notes on them."""
        size = self.choice.size
        check_room(self.path, size, 2 * self.n_channels * prod(size))
        ranges = windows.row_ranges(self.n_channels, size, self.voxels.slices_at_once)
        parts = (part for ends in ranges for part in self._parts(self._stored(*ends)))
        self.transfer, notes = transfer_of(self.path, parts, reading, lambda _: "linear")
        return notes

    def n_bytes(self, n_slices: int) -> int:
        """Bytes of memory that reading so many slices takes at its peak."""
        values = self.n_channels * prod(self.choice.size[1:])
        if self.dtype == _PLAIN:
            return n_slices * values * 2 * self.dtype.itemsize
        encoding = min(n_slices, self.n_encoded) * values * _ENCODING_BYTES
        return n_slices * values * (2 * self.dtype.itemsize + _NUMBER_BYTES) + encoding

    def __call__(self, start: int, stop: int) -> np.ndarray:
        values = self._stored(start, stop)
        if self.transfer is None:
            return values
        return np.concatenate([self.transfer.numbers(part) for part in self._parts(values)], axis=1)

    def _stored(self, start: int, stop: int) -> np.ndarray:
        check_memory(self.path, self.choice.size, self.n_bytes(stop - start))
        return np.asarray(self.choice.slices(self.voxels.read, start, stop), self.dtype)

    def _parts(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """As many slices at once as are encoded together."""
        return (values[:, start : start + self.n_encoded] for start in range(0, values.shape[1], self.n_encoded))


def _is_sound(affine: Affine | None) -> bool:
    """Whether voxels have a place and a size, where the file says something about it."""
    return affine is None or bool(np.isfinite(affine).all() and np.linalg.det(np.array(affine)) != 0)
