"""Grids of a mesh's voxels in files, axes [z, y, x]: written after a header, and read by ranges of slices.

Notation: a *slice* is the voxels (h, w) at one z. Occupancy is *packed*: its voxels lie eight a byte along x, the first
in the highest bit. Distances take a byte a voxel, 255 for 1.
"""

import functools
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.sources import Source
from utils import windows
from utils.errors import InputError, one_line, size_text
from utils.files import aside, check_file
from utils.frame import Frame
from utils.memory import check_memory

FORMAT = b"miner occupancy"
DISTANCE_FORMAT = b"miner distance"
HEADER = np.dtype(
    [
        ("format", "S16"),
        ("size", "<i8", 3),  # d, h, w
        ("centre", "<f8", 3),  # x, y, z
        ("half_extents", "<f8", 3),
        ("origin", "S2048"),  # what the file was made of
    ]
)

_VALUES_AT_ONCE = 2**22
_SLICES_AT_ONCE = 64

Slices = Callable[[int, int], np.ndarray]
"""(start, stop) -> (stop - start, h, w) uint8"""


@dataclass(frozen=True)
class Volume:
    """
    values: (1, d, h, w) in [0, 1]: uint8 of occupancy, float32 of distances
    frame: where the voxels lie in the mesh's space, or None if the file does not say
    """

    values: Tensor
    frame: Frame | None


def read_occupancy(path: str | Path, size: tuple[int, int, int] | None = None) -> Volume:
    """Read a whole grid; inputs and errors are those of `open_occupancy`."""
    source = open_occupancy(path, size)
    values = torch.from_numpy(source.read(0, source.size[0]))
    return Volume(values if source.bits == 1 else values.float().div_(2**source.bits - 1), source.frame)


def write_occupancy(path: Path, packed: np.ndarray, width: int, frame: Frame, origin: str = "") -> None:
    """Write an occupancy grid that knows its size and where it lies: a .npy file of the header, then the voxels.

    Inputs
        packed: (d, h, ceil(w / 8)) uint8
        width: w
        origin: what the grid was made of
    """
    size = (*packed.shape[:2], width)
    _write(path, FORMAT, size, frame, origin, [packed])


def write_distances(
    path: Path, slabs: Iterable[np.ndarray], size: tuple[int, int, int], frame: Frame, origin: str = ""
) -> None:
    """Write a grid of distances likewise, slab by slab.

    Inputs
        slabs: (n_slices, h, w) uint8 each, consecutive, of `datasets.distance`
        size: (d, h, w)
    """
    _write(path, DISTANCE_FORMAT, size, frame, origin, slabs)


def _write(
    path: Path, kind: bytes, size: tuple[int, int, int], frame: Frame, origin: str, parts: Iterable[np.ndarray]
) -> None:
    header = np.zeros((), HEADER)
    header["format"], header["size"] = kind, size
    header["centre"], header["half_extents"] = frame.centre, frame.half_extents
    header["origin"] = origin.encode()
    buffer = io.BytesIO()
    np.save(buffer, header)
    with aside(path) as file:
        file.write(buffer.getbuffer())
        for part in parts:  # no field of the header, which could hold only 2 GiB
            file.write(np.ascontiguousarray(part))


def origin_of(path: Path) -> str:
    """What a file was made of, as it was told when it was written; empty where the file does not say.

    Errors
        InputError for a file that is no .npy file
    """
    stored = map_array(path)
    if stored.ndim or stored.dtype.names is None or "origin" not in stored.dtype.names:
        return ""
    return stored["origin"].item().decode(errors="replace")


def open_occupancy(path: str | Path, size: tuple[int, int, int] | None = None) -> Source:
    """Open a grid, of occupancy or of distances.

    Inputs
        path: a file of `write_occupancy` or `write_distances`; a .npy of bools or of bytes 0 and 1, axes [z, y, x]; or
            the flat bits of MINER_pl, those of a grid with axes [y, x, z]
        size: (d, h, w); flat bits need it, as they do not record it; the others must agree with it
    Errors
        InputError for a file that is missing, is none of these, or is of another size
    """
    path = Path(path)
    stored = map_array(path)
    frame, rows_at_once, bits = None, 1, 1
    if stored.dtype.names is not None:
        held, slices, bits = _open_headed(path, stored)
        frame = _frame(path, stored)
    elif stored.ndim == 1 and stored.dtype == np.uint8:
        held, slices = _open_flat(path, stored, size)
        rows_at_once = min(_SLICES_AT_ONCE, held[0])
    elif stored.ndim == 3 and stored.dtype in (np.bool_, np.uint8):
        held, slices = _open_bytes(path, stored)
    else:
        raise InputError(f"{path} holds {stored.dtype} values of shape {stored.shape}; use bits, bytes or bools")
    if size is not None and held != size:
        raise InputError(
            f"{path} holds {size_text(held)} voxels, not the {size_text(size)} of --input_size; leave it out"
        )

    def read(start: int, stop: int) -> np.ndarray:
        check_memory(path, held, (stop - start) * prod(held[1:]))
        return slices(start, stop)[None]

    return grid_source(path, held, frame, rows_at_once, read, bits)


def grid_source(
    path: Path, size: tuple[int, int, int], frame: Frame | None, rows_at_once: int, read: Slices, bits: int = 1
) -> Source:
    """A grid of size (d, h, w).

    Inputs
        rows_at_once: slices that are cheapest to read together
        read: (start, stop) -> (1, stop - start, h, w)
        bits: of a value: 1 for occupancy, 8 for distances
    """
    n_read = min(windows.rows_at_once(1, size, rows_at_once), size[0])
    return Source(
        path,
        size,
        n_channels=1,
        bits=bits,
        frame=frame,
        file_size=size,
        rows_at_once=rows_at_once,
        decode_bytes=2 * n_read * prod(size[1:]),
        held_bytes=0,
        reader=read,
        has_surface=True,
    )


def map_array(path: Path) -> np.memmap:
    """The array of a .npy file; InputError if it is not one."""
    check_file(path)
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a damaged header raises
        raise InputError(f"{path} is not a readable .npy file ({one_line(error)})") from error
    if not isinstance(stored, np.memmap):
        raise InputError(f"{path} is not a .npy file of one array")
    return stored


def _open_headed(path: Path, stored: np.memmap) -> tuple[tuple[int, int, int], Slices, int]:
    """(d, h, w), the slices, and the bits of a value, of a file of `write_occupancy` or `write_distances`.

    Packed voxels follow the header or, up to 2 GiB, may be a field of it.
    """
    names = HEADER.names
    is_header = stored.ndim == 0 and stored.dtype.names[: len(names)] == names
    is_header = is_header and all(stored.dtype[name] == HEADER[name] for name in names)
    if not is_header or stored["format"] not in (FORMAT, DISTANCE_FORMAT):
        raise InputError(f"{path} is not an occupancy file")
    is_packed = stored["format"] == FORMAT
    size = tuple(stored["size"].tolist())
    shape = (*size[:2], ceil(size[2] / 8) if is_packed else size[2])
    start = stored.offset + stored.nbytes
    if min(size) >= 1 and stored.dtype == HEADER and start + prod(shape) == path.stat().st_size:
        voxels = np.memmap(path, np.uint8, "r", start, shape)
    elif is_packed and stored.dtype.names[len(names) :] == ("bits",) and stored["bits"].shape == shape:
        voxels = stored["bits"]
    else:
        raise InputError(f"{path} is damaged: it does not hold {size_text(size)} voxels; make it again")
    if is_packed:
        return size, lambda start, stop: np.unpackbits(voxels[start:stop], axis=2, count=size[2]), 1
    return size, lambda start, stop: np.array(voxels[start:stop]), 8


def _frame(path: Path, header: np.ndarray) -> Frame:
    try:
        return Frame(tuple(header["centre"].tolist()), tuple(header["half_extents"].tolist()))
    except ValueError as error:
        raise InputError(f"{path} is damaged: it does not say where its voxels lie; make it again") from error


def _open_bytes(path: Path, stored: np.ndarray) -> tuple[tuple[int, int, int], Slices]:
    """(d, h, w) and the slices of an array of bytes or bools."""
    if stored.size == 0:
        raise _no_bits(path)

    def slices(start: int, stop: int) -> np.ndarray:
        voxels = np.array(stored[start:stop], dtype=np.uint8, order="C")
        if voxels.max() > 1:
            raise _no_bits(path)
        return voxels

    return stored.shape, slices


def _no_bits(path: Path) -> InputError:
    return InputError(f"{path} holds values other than 0 and 1, or none; use 0 and 1")


def _open_flat(
    path: Path, stored: np.ndarray, size: tuple[int, int, int] | None
) -> tuple[tuple[int, int, int], Slices]:
    """(d, h, w) and the slices of flat bits."""
    if size is None:
        raise InputError(f"{path} holds flat bits, which do not record their size; add --input_size")
    n_bytes = ceil(prod(size) / 8)
    if len(stored) != n_bytes:
        needed = f"--input_size {size_text(size)} needs {n_bytes}"
        raise InputError(f"{path} holds {len(stored)} bytes, and {needed}; use the size that it was written with")
    return size, functools.partial(_flat_slices, stored, size)


def _flat_slices(stored: np.ndarray, size: tuple[int, int, int], start: int, stop: int) -> np.ndarray:
    """Slices (stop - start, h, w) of flat bits [y, x, z], some rows at a time."""
    depth, height, width = size
    slices = np.empty((stop - start, height, width), np.uint8)
    n_rows = max(1, _VALUES_AT_ONCE // (width * depth))
    for first in range(0, height, n_rows):
        rows = slice(first, min(first + n_rows, height))
        slices[:, rows] = _columns(stored, size, rows, start, stop).transpose(2, 0, 1)
    return slices


def _columns(stored: np.ndarray, size: tuple[int, int, int], rows: slice, start: int, stop: int) -> np.ndarray:
    """(rows, w, stop - start) of flat bits [y, x, z]."""
    depth, height, width = size
    if depth % 8 == 0:  # every column begins with a byte, so only the bytes of these slices are unpacked
        packed = stored.reshape(height, width, depth // 8)[rows, :, start // 8 : ceil(stop / 8)]
        begin = start % 8
        return np.unpackbits(packed, axis=2)[:, :, begin : begin + stop - start]
    first, end = rows.start * width * depth, rows.stop * width * depth
    bits = np.unpackbits(stored[first // 8 : ceil(end / 8)])[first % 8 :][: end - first]
    return bits.reshape(-1, width, depth)[:, :, start:stop]
