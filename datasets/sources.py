"""Signals in files, read by ranges of rows, so that none has to fit into memory. Pictures can be resized.

Notation: a picture lies in its file as (h, w, c) pixels, in some orientation; *upright* rows are those of the picture
as it is viewed.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from datasets.formats import Pixels, is_picture_folder, open_pixels
from datasets.transferred import transferred
from utils import windows
from utils.errors import size_text
from utils.files import check_file
from utils.frame import Frame
from utils.georeference import Georeference
from utils.transfer import AS_SUITS, Reading, Transfer

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_EXCHANGED = (5, 6, 7, 8)  # EXIF orientations that exchange rows and columns
_VALUES_AT_ONCE = 2**22
_ALLOCATOR = 2**22  # bytes that come with large arrays


@dataclass(frozen=True)
class Source:
    """A signal in a file, read by ranges of rows (of slices, for a volume).

    path: of the file
    size: (h, w), upright and resized as asked for, or (d, h, w)
    n_channels: 1 (grey or a volume), 3 (RGB), 4 (RGBA) or, where they are spectral, any number up to 64
    bits: of a channel as it is read, 8 or 16; 1 for occupancy
    frame: where the voxels of a grid lie in the mesh's space, or None if the file does not say
    file_size: before any resizing
    rows_at_once: rows that are cheapest to read together
    decode_bytes: of memory that reading takes at its peak, by the ranges of `utils.windows.row_ranges`, with what it
        returns and what is kept
    held_bytes: of memory that is kept from the first reading on
    reader: (start, stop) -> what `read` returns
    notes: what of the file is left out, a sentence each
    close: gives back the memory that is kept
    transfer: how values were taken to the numbers that are read; None where the file holds these
    has_surface: all of it inside, or outside, is an error
    affine, scaling: of a volume of values: where its voxels lie, and how stored values are to be read; None where the
        file does not say (`datasets.volumes.Voxels`)
    spectral: its channels are measurements, none of them alpha
    georeference: of the picture at its size
    about: of a volume of values, what else is recorded, as plain data, where it applies: `unit` of where voxels lie,
        if that is no millimetre; `axes` of the file, if there are several channels; and `time` and `channels`, if they
        were chosen (`utils.transfer.Reading`)
    """

    path: Path
    size: tuple[int, ...]
    n_channels: int
    bits: int
    frame: Frame | None
    file_size: tuple[int, ...]
    rows_at_once: int
    decode_bytes: int
    held_bytes: int
    reader: Callable[[int, int], np.ndarray] = field(repr=False)
    notes: tuple[str, ...] = ()
    close: Callable[[], None] = field(default=lambda: None, repr=False)
    transfer: Transfer | None = None
    has_surface: bool = False
    affine: list[list[float]] | None = None
    scaling: list[float] | None = None
    spectral: bool = False
    georeference: Georeference | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop.

        Outputs
            (c, stop - start, *rest) uint8 or uint16 as in the file, or of a transfer; occupancy is 0 and 1. It may be
            a view: do not write to it
        Errors
            InputError if the file is damaged, or the rows do not fit into memory
        """
        if not 0 <= start < stop <= self.size[0]:
            raise ValueError(f"rows {start} to {stop} of {self.size[0]}")
        return self.reader(start, stop)


@dataclass(frozen=True)
class Picture:
    """
    values: (c, h, w) float32 in [0, 1]; c is 1 (grey), 3 (RGB), 4 (RGBA) or, of a spectral one, any number up to 64
    bits: of a channel, in the file
    """

    values: Tensor
    bits: int


def read_picture(path: str | Path, size: tuple[int, int] | None = None) -> Picture:
    """Read a whole picture; inputs and errors are those of `open_picture`."""
    source = open_picture(path, size)
    values = torch.from_numpy(np.ascontiguousarray(source.read(0, source.size[0]), dtype=np.float32))
    return Picture(values.div_(2**source.bits - 1), source.bits)


def open_picture(path: str | Path, size: tuple[int, int] | None = None, reading: Reading = AS_SUITS) -> Source:
    """Open a picture, upright by its EXIF orientation. Values other than plain pixels are read through once, for the
    transfer that takes them to 16 bits.

    Chunked files (TIFF, Zarr) are read by windows. Those that decode only as a whole (PNG, JPEG and others; a single
    chunk), and those that are enlarged, are decoded at the first read and kept.

    Inputs
        path: PNG, JPEG or TIFF, grey, RGB or either with alpha, 8 or 16 bits a channel; a TIFF of up to 64 channels;
            a Zarr folder or .zip of an array (h, w), (h, w, c) or (c, h, w), or of a group whose first scale is one, or
            such a .npy; or floating point numbers in OpenEXR, Radiance, TIFF, Zarr or .npy
        size: (h, w) to resize to, by area averaging if it shrinks; None keeps the picture's own
        reading: of values other than plain pixels
    Errors
        InputError for a file that is missing, is not a picture, or is of an unsupported kind
    """
    path = Path(path)
    if not is_picture_folder(path):
        check_file(path)
    return picture_source(path, *transferred(path, open_pixels(path), reading), size)


def picture_source(
    path: Path, pixels: Pixels, transfer: Transfer | None = None, size: tuple[int, int] | None = None
) -> Source:
    """A picture, upright and resized, as `open_picture` tells."""
    upright = functools.partial(_upright_rows, pixels)
    exchanged = pixels.orientation in _EXCHANGED
    file_size, chunk = (pair[::-1] if exchanged else pair for pair in (pixels.size, pixels.chunk))
    size = file_size if size is None else size
    rows_at_once, held_bytes, close = chunk[0], 0, lambda: None
    if chunk[0] >= file_size[0] or not _shrinks(file_size, size):
        whole = functools.cache(lambda: _resize(path, upright(0, file_size[0]), size))
        rows_at_once, held_bytes, close = 1, _n_bytes(pixels, size), whole.cache_clear
        before = 0 if size == file_size else _n_bytes(pixels, file_size)
        decode_bytes = max(_upright_bytes(pixels, file_size[0]), before + held_bytes)

        def rows(start: int, stop: int) -> np.ndarray:
            return whole()[start:stop]

    elif size != file_size:
        rows = functools.partial(_shrunk_rows, upright, file_size, size, rows_at_once)
        decode_bytes = _shrinking_bytes(pixels, file_size, size, rows_at_once)
        rows_at_once = max(1, rows_at_once * size[0] // file_size[0])
    else:
        rows = upright
        decode_bytes = _upright_bytes(pixels, windows.rows_at_once(pixels.n_channels, size, rows_at_once))
    more = () if pixels.n_pictures == 1 else (f"{path} holds {pixels.n_pictures} pictures; only the first is read",)
    return Source(
        path,
        size,
        pixels.n_channels,
        pixels.bits,
        frame=None,
        file_size=file_size,
        rows_at_once=rows_at_once,
        decode_bytes=decode_bytes,
        held_bytes=held_bytes,
        reader=lambda start, stop: rows(start, stop).transpose(2, 0, 1),
        notes=pixels.notes + more,
        close=close,
        transfer=transfer,
        spectral=pixels.spectral,
        georeference=_georeference(pixels, size),
    )


def _georeference(pixels: Pixels, size: tuple[int, int]) -> Georeference | None:
    """Of the picture at a size; None for one that its file holds turned or mirrored."""
    if pixels.georeference is None or pixels.orientation != 1:
        return None
    return pixels.georeference.window((0, 0), tuple(a / b for a, b in zip(pixels.size, size, strict=True)))


def _n_bytes(pixels: Pixels, size: tuple[int, int]) -> int:
    return prod(size) * pixels.n_channels * pixels.bits // 8


def _upright_rows(pixels: Pixels, start: int, stop: int) -> np.ndarray:
    """Upright rows (stop - start, w, c): a range of rows of the file, or of columns where they are exchanged."""
    exchanged = pixels.orientation in _EXCHANGED
    height = pixels.size[1] if exchanged else pixels.size[0]
    if pixels.orientation in (3, 4, 7, 8):
        start, stop = height - stop, height - start
    if exchanged:
        window = pixels.window(slice(0, pixels.size[0]), slice(start, stop))
    else:
        window = pixels.window(slice(start, stop), slice(0, pixels.size[1]))
    return _upright(window, pixels.orientation)


def _upright_bytes(pixels: Pixels, n_rows: int) -> int:
    """Bytes of memory that so many upright rows take at their peak."""
    exchanged = pixels.orientation in _EXCHANGED
    height, width = pixels.size[::-1] if exchanged else pixels.size
    n_rows = min(n_rows, height)
    window = (width, n_rows) if exchanged else (n_rows, width)
    turning = 0 if pixels.orientation == 1 else 2 * _n_bytes(pixels, window) + _ALLOCATOR
    return max(pixels.window_bytes(*window), turning)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 2 to 4 mirror or turn by 180 degrees, 5 to 8 exchange rows and columns as well."""
    if orientation in _EXCHANGED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _shrinks(file_size: tuple[int, int], size: tuple[int, int]) -> bool:
    return size[0] <= file_size[0] and size[1] <= file_size[1]


def _resize(path: Path, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, c) at another size: area averaging if it shrinks, else cubic."""
    if pixels.shape[:2] == size:
        return pixels
    method = cv2.INTER_AREA if _shrinks(pixels.shape[:2], size) else cv2.INTER_CUBIC
    try:
        return _resized(pixels, size, method)
    except cv2.error as error:
        raise MemoryError(f"{path} at {size_text(size)} pixels") from error


def _resized(pixels: np.ndarray, size: tuple[int, int], method: int) -> np.ndarray:
    """(h, w, c) at another size, by a method of OpenCV's, which takes four channels at once."""
    parts = (pixels[:, :, first : first + 4] for first in range(0, pixels.shape[2], 4))
    resized = [cv2.resize(part, size[::-1], interpolation=method).reshape(*size, -1) for part in parts]
    return np.concatenate(resized, axis=2) if len(resized) > 1 else resized[0]


def _shrunk_rows(
    rows: Callable[[int, int], np.ndarray],
    file_size: tuple[int, int],
    size: tuple[int, int],
    rows_at_once: int,
    start: int,
    stop: int,
) -> np.ndarray:
    """Rows of a picture shrunk by area averaging, a strip of the file at a time.

    Inputs
        rows: (start, stop) -> (stop - start, w, c) of the file, upright
        file_size, size: before and after
        rows_at_once: of the file
    Outputs
        (stop - start, size[1], c), of the type that `rows` gives
    """
    begin, end = start * file_size[0] // size[0], ceil(stop * file_size[0] / size[0])
    means = dtype = None
    for first, strip in _strips(rows, file_size[1], rows_at_once, begin, end):
        if means is None:
            dtype, means = strip.dtype, np.zeros((stop - start, size[1] * strip.shape[2]), np.float32)
        n_rows = len(strip)
        strip = _resized(strip.astype(np.float32), (n_rows, size[1]), cv2.INTER_AREA)
        low, weights = _area_weights(file_size[0], size[0], first, first + n_rows)
        skip, keep = max(start - low, 0), min(low + weights.shape[0], stop) - low
        means[low + skip - start : low + keep - start] += weights[skip:keep] @ strip.reshape(n_rows, -1)
    return np.rint(means, out=means).astype(dtype).reshape(stop - start, size[1], -1)


def _strips(
    rows: Callable[[int, int], np.ndarray], width: int, rows_at_once: int, first: int, last: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Rows first..last-1 in strips of few values, read as many at once as cost least: (first row, (n_rows, w, c))."""
    few, n_rows = _strip_rows(width, rows_at_once)
    while first < last:
        end = min((first // n_rows + 1) * n_rows, last)
        strip = rows(first, end)
        for skip in range(0, len(strip), few):
            yield first + skip, strip[skip : skip + few]
        first = end


def _strip_rows(width: int, rows_at_once: int) -> tuple[int, int]:
    """Rows of a strip, and rows to read at once: some strips."""
    few = ceil(_VALUES_AT_ONCE / width)
    return few, rows_at_once * ceil(few / rows_at_once)


def _shrinking_bytes(pixels: Pixels, file_size: tuple[int, int], size: tuple[int, int], rows_at_once: int) -> int:
    """Bytes of memory that `_shrunk_rows` takes at its peak; its inputs are explained there."""
    few, n_read = _strip_rows(file_size[1], rows_at_once)
    n_means = windows.rows_at_once(pixels.n_channels, size, max(1, rows_at_once * size[0] // file_size[0]))
    strip = min(few, file_size[0]) * (file_size[1] + size[1])
    means = min(n_means, size[0]) * size[1] * 2
    return _upright_bytes(pixels, n_read) + 4 * pixels.n_channels * (strip + means)


def _area_weights(n: int, n_means: int, first: int, end: int) -> tuple[int, "csr_array"]:
    """The weights of rows first..end-1, of n, in the means of n_means equal parts of all rows.

    Outputs
        the first part that they touch; (parts that they touch, end - first) weights
    """
    from scipy.sparse import csr_array  # most pictures do without

    # in units of 1 / n_means rows, all ends are integers: part i is [i n, (i + 1) n)
    begins = np.arange(first, end) * n_means
    part = begins // n
    inside = np.minimum(n_means, (part + 1) * n - begins)
    low = int(part[0])
    columns = np.tile(np.arange(end - first), 2)
    weights = np.concatenate([inside, n_means - inside]) / n
    places = np.concatenate([part, part + 1]) - low
    touched = weights > 0
    shape = (int(places[touched].max()) + 1, end - first)
    return low, csr_array((weights[touched].astype(np.float32), (places[touched], columns[touched])), shape)
