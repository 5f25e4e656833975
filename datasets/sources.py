"""Signals in files, read by ranges of rows or slices, so that none has to fit into memory.

Notation: a picture lies in its file as (h, w, c) pixels, in some orientation; *upright* rows are those of the picture
as it is looked at. A *window* is a range of rows and a range of columns of the file. A *chunk* is what the file decodes
at once: a tile, a strip, a chunk of Zarr, or the whole picture.
"""

import functools
import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import tifffile
import zarr
from scipy.sparse import csr_array

from utils.errors import InputError, one_line, size_text
from utils.frame import Frame
from utils.memory import check_memory

PIL.Image.MAX_IMAGE_PIXELS = None
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what goes wrong is told in our own words

OCCUPANCY_FORMAT = b"miner occupancy"
ORIGIN_LENGTH = 2048
OCCUPANCY_HEADER = np.dtype(
    [
        ("format", "S16"),
        ("size", "<i8", 3),  # d, h, w
        ("centre", "<f8", 3),  # x, y, z
        ("half_extents", "<f8", 3),
        ("origin", f"S{ORIGIN_LENGTH}"),
    ]
)

_SUPPORTED = "PNG, JPEG or TIFF with 8 or 16 bits a channel"
_ZARR_SUPPORTED = (
    "uint8 or uint16 arrays (h, w), (h, w, c) or (c, h, w), c of 1, 3 or 4, work, and groups that begin with one"
)
_DEPTHS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
_CHANNELS = (1, 3, 4)
_EXIF_ORIENTATION = 0x0112
_EXCHANGED = (5, 6, 7, 8)  # EXIF orientations whose rows are columns
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # by colour type, as OpenCV gives them
_PNG_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
_TIFF_MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
_TIFF_COLOURS = {
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
}
_ZIP_MAGIC = b"PK\3\4"
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
_CHUNKS_AT_ONCE = 10  # of Zarr's reader
_CHUNK_COST = 2**13  # bytes that it takes for each chunk of a window, whether it is there or not
_VALUES_AT_ONCE = 2**22
_SLICES_AT_ONCE = 64


@dataclass(frozen=True)
class Source:
    """A signal in a file, read by ranges of rows (of slices, for a volume).

    path: of the file
    size: (h, w), upright and at the size that it is wanted at, or (d, h, w)
    n_channels: 1 (grey or occupancy), 3 (RGB) or 4 (RGBA)
    bits: of a channel, 8 or 16; 1 for occupancy
    frame: where the voxels of an occupancy grid lie in the mesh's space, or None where the file does not tell
    file_size: before any resizing
    rows_at_once: rows that are read together at least cost
    reader: (start, stop) -> what `read` returns
    """

    path: Path
    size: tuple[int, ...]
    n_channels: int
    bits: int
    frame: Frame | None
    file_size: tuple[int, ...]
    rows_at_once: int
    reader: Callable[[int, int], np.ndarray] = field(repr=False)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop.

        Outputs
            (c, stop - start, *rest) uint8 or uint16 as in the file; occupancy is 0 and 1. It may be a view: not to be
            written to
        Errors
            InputError where the file is damaged, or memory does not hold the rows
        """
        if not 0 <= start < stop <= self.size[0]:
            raise ValueError(f"rows {start} to {stop} of {self.size[0]}")
        return self.reader(start, stop)


@dataclass(frozen=True)
class _Pixels:
    """A picture as it lies in its file.

    size: (h, w)
    bits, n_channels: as `window` gives them
    orientation: of EXIF, 1 to 8
    chunk: (h, w)
    window: (rows, columns) -> (h, w, c) uint8 or uint16
    """

    size: tuple[int, int]
    n_channels: int
    bits: int
    orientation: int
    chunk: tuple[int, int]
    window: Callable[[slice, slice], np.ndarray]


def check_is_file(path: Path) -> None:
    """InputError for what is neither a file nor a Zarr folder."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file() and not _is_zarr_folder(path):
        raise InputError(f"{path} is no file")


def open_picture(path: str | Path, size: tuple[int, int] | None = None) -> Source:
    """A picture, upright, as its EXIF orientation says.

    TIFF and Zarr are read by windows. What decodes only as a whole (PNG, JPEG and others; a single chunk; anything
    that is enlarged) is decoded at the first read, and kept.

    Inputs
        path: PNG, JPEG or TIFF, grey, RGB or either with alpha, 8 or 16 bits a channel; a Zarr folder or .zip of an
            array (h, w), (h, w, c) or (c, h, w), or of a group whose first scale is one
        size: (h, w) to resize to, by area averaging where it shrinks; None keeps the picture's own
    Errors
        InputError for a file that is missing, is no picture, or is of another kind
    """
    path = Path(path)
    check_is_file(path)
    pixels = _opener(path)(path)
    upright = functools.partial(_upright_rows, pixels)
    exchanged = pixels.orientation in _EXCHANGED
    file_size, chunk = (pair[::-1] if exchanged else pair for pair in (pixels.size, pixels.chunk))
    size = file_size if size is None else size
    rows_at_once = chunk[0]
    if chunk[0] >= file_size[0] or not _shrinks(file_size, size):
        whole = functools.cache(lambda: _resize(path, upright(0, file_size[0]), size))
        rows_at_once = 1

        def rows(start: int, stop: int) -> np.ndarray:
            return whole()[start:stop]

    elif size != file_size:
        rows = functools.partial(_shrunk_rows, upright, file_size, size, rows_at_once)
        rows_at_once = max(1, rows_at_once * size[0] // file_size[0])
    else:
        rows = upright
    return Source(
        path,
        size,
        pixels.n_channels,
        pixels.bits,
        frame=None,
        file_size=file_size,
        rows_at_once=rows_at_once,
        reader=lambda start, stop: rows(start, stop).transpose(2, 0, 1),
    )


def _opener(path: Path) -> Callable[[Path], _Pixels]:
    if path.is_dir():
        return _open_zarr
    with path.open("rb") as file:
        magic = file.read(4)
    return _open_zarr if magic == _ZIP_MAGIC else _open_tiff if magic in _TIFF_MAGIC else _open_other


def _upright_rows(pixels: _Pixels, start: int, stop: int) -> np.ndarray:
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


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 2 to 4 mirror and turn by 180 degrees, 5 to 8 exchange rows and columns as well."""
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
    """(h, w, c) at another size: area averaging where it shrinks, else cubic."""
    if pixels.shape[:2] == size:
        return pixels
    method = cv2.INTER_AREA if _shrinks(pixels.shape[:2], size) else cv2.INTER_CUBIC
    try:
        return cv2.resize(pixels, size[::-1], interpolation=method).reshape(*size, -1)
    except cv2.error as error:
        raise MemoryError(f"{path} at {size_text(size)} pixels") from error


def _shrunk_rows(
    rows: Callable[[int, int], np.ndarray],
    file_size: tuple[int, int],
    size: tuple[int, int],
    rows_at_once: int,
    start: int,
    stop: int,
) -> np.ndarray:
    """Rows of a picture shrunk by area averaging, a band of the file's at a time.

    Inputs
        rows: (start, stop) -> (stop - start, w, c) of the file, upright
        file_size, size: before and after
        rows_at_once: of the file
    Outputs
        (stop - start, size[1], c), of the type that `rows` gives
    """
    begin, end = start * file_size[0] // size[0], ceil(stop * file_size[0] / size[0])
    means = dtype = None
    for first, band in _bands(rows, file_size[1], rows_at_once, begin, end):
        if means is None:
            dtype, means = band.dtype, np.zeros((stop - start, size[1] * band.shape[2]), np.float32)
        n_rows = len(band)
        band = cv2.resize(band.astype(np.float32), (size[1], n_rows), interpolation=cv2.INTER_AREA)
        low, weights = _area_weights(file_size[0], size[0], first, first + n_rows)
        skip, keep = max(start - low, 0), min(low + weights.shape[0], stop) - low
        means[low + skip - start : low + keep - start] += weights[skip:keep] @ band.reshape(n_rows, -1)
    return np.rint(means, out=means).astype(dtype).reshape(stop - start, size[1], -1)


def _bands(
    rows: Callable[[int, int], np.ndarray], width: int, rows_at_once: int, first: int, last: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Rows first to last by bands of few values, read as many at once as cost least: (its first row, (n, w, c))."""
    few = ceil(_VALUES_AT_ONCE / width)
    n_rows = rows_at_once * ceil(few / rows_at_once)
    while first < last:
        end = min((first // n_rows + 1) * n_rows, last)
        band = rows(first, end)
        for skip in range(0, len(band), few):
            yield first + skip, band[skip : skip + few]
        first = end


def _area_weights(n: int, n_means: int, first: int, end: int) -> tuple[int, csr_array]:
    """What rows first to end, of n, add to the means of n_means equal parts of all rows.

    Outputs
        the first part that they touch; (parts that they touch, end - first) weights
    """
    # in units of 1 / n_means rows, all ends are whole numbers: part i is [i n, (i + 1) n)
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


def _open_other(path: Path) -> _Pixels:
    """PNG and JPEG by their headers; what else Pillow or OpenCV know is decoded to tell what it holds."""
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
        orientation = 1  # OpenCV may know it, if only to tell what it holds
    except Exception as error:  # whatever a damaged header leads to
        raise _unreadable(path) from error
    pixels = _decode_by_opencv(path)
    if pixels.dtype not in _DEPTHS:
        raise _unsupported(path, pixels.dtype)
    return _whole(pixels.shape[:2], pixels.shape[2], _DEPTHS[pixels.dtype], orientation, lambda: pixels)


def _unreadable(path: Path) -> InputError:
    return InputError(f"{path} is no picture that can be read: {_SUPPORTED} works")


def _unsupported(path: Path, dtype: np.dtype) -> InputError:
    return InputError(f"{path} holds {dtype} values, which are not supported: {_SUPPORTED} works")


def _whole(
    size: tuple[int, int], n_channels: int, bits: int, orientation: int, decode: Callable[[], np.ndarray]
) -> _Pixels:
    return _Pixels(size, n_channels, bits, orientation, size, lambda rows, columns: decode()[rows, columns])


def _orientation(path: Path, picture: PIL.Image.Image) -> int:
    """By its EXIF record, which Pillow may have to read the whole picture for."""
    n_values = picture.width * picture.height * len(picture.getbands())
    check_memory(path, picture.size[::-1], n_values * (2 if picture.mode.startswith("I") else 1))
    return picture.getexif().get(_EXIF_ORIENTATION, 1)


def _open_png(path: Path, picture: PIL.Image.Image) -> _Pixels:
    size = picture.size[::-1]
    with path.open("rb") as file:
        depth, colour = file.read(26)[24:]
    n_channels = 4 if "transparency" in picture.info else _PNG_CHANNELS[colour]
    bits = 16 if depth == 16 else 8
    check_memory(path, size, prod(size) * n_channels * bits // 8)
    late = _PNG_METADATA & set(_chunks_after_pixels(path))
    exif = picture.getexif() if late else PIL.Image.Image.getexif(picture)  # PNG's own decodes all to get at late ones
    return _whole(size, n_channels, bits, exif.get(_EXIF_ORIENTATION, 1), lambda: _decode_png(path, size, n_channels))


def _chunks_after_pixels(path: Path) -> Iterator[bytes]:
    """Types of the PNG chunks from the first of the pixels on; InputError where the file ends too early."""
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
            picture.verify()  # the checksums, since libpng prints what it finds
    except Exception as error:  # whatever a damaged file leads to
        raise _unreadable(path) from error
    pixels = _decode_by_opencv(path)
    if pixels.shape != (*size, n_channels):
        raise _unreadable(path)
    return pixels


def _decode_jpeg(path: Path) -> np.ndarray:
    try:  # Pillow refuses a truncated one, OpenCV makes up the rest
        with PIL.Image.open(path) as picture:
            pixels = np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    except Exception as error:  # whatever a damaged file leads to
        raise _unreadable(path) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode_by_opencv(path: Path) -> np.ndarray:
    """(h, w, c), grey, RGB or RGBA."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _unreadable(path)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels if pixels.shape[2] == 1 else pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


def _open_tiff(path: Path) -> _Pixels:
    """The first page."""
    try:
        page = tifffile.TiffFile(path).pages[0]
        return _open_page(path, page)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise InputError(f"{path} is no TIFF that can be read ({one_line(error)})") from error


def _open_page(path: Path, page: tifffile.TiffPage) -> _Pixels:
    photometric = page.photometric
    if photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression == tifffile.COMPRESSION.JPEG:
        photometric = tifffile.PHOTOMETRIC.RGB  # as the decoder gives it
    if page.axes not in ("YX", "YXS", "SYX") or photometric not in _TIFF_COLOURS or not page.dtype or 0 in page.shape:
        kind = getattr(photometric, "name", photometric)
        raise InputError(
            f"{path} is a TIFF of kind {kind} {page.axes}: grey, RGB and palette ones work, convert it to one"
        )
    if page.dtype in _DEPTHS and page.bitspersample != _DEPTHS[page.dtype]:
        raise InputError(f"{path} has {page.bitspersample} bits a channel: {_SUPPORTED} works")
    is_palette = photometric == tifffile.PHOTOMETRIC.PALETTE
    n_samples = page.shape[page.axes.index("S")] if "S" in page.axes else 1
    if n_samples not in (1, 2, 3, 4):
        raise InputError(f"{path} has {n_samples} channels: grey, RGB, and either with alpha work")
    if page.dtype not in _DEPTHS and page.dtype != bool:
        raise _unsupported(path, page.dtype)
    if is_palette and (page.colormap is None or n_samples > 1 or page.colormap.shape != (3, 2**page.bitspersample)):
        raise InputError(f"{path} is a TIFF whose palette is not that of its pixels")
    array, chunk = _tiff_array(page)
    read = functools.partial(_read_window, path, array, page.axes)
    colours = functools.partial(
        _tiff_colours,
        inverted=photometric == tifffile.PHOTOMETRIC.MINISWHITE,
        palette=(page.colormap.T >> 8).astype(np.uint8) if is_palette else None,
        premultiplied=tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples,
    )
    return _Pixels(
        (page.imagelength, page.imagewidth),
        3 if is_palette else 4 if n_samples == 2 else n_samples,
        8 if is_palette or page.dtype == bool else _DEPTHS[page.dtype],
        page.tags.valueof("Orientation", default=1),
        chunk,
        lambda rows, columns: colours(read(rows, columns)),
    )


def _tiff_array(page: tifffile.TiffPage) -> tuple[Any, tuple[int, int]]:
    """The samples of a page, mapped where they lie plainly in the file; size (h, w) of a chunk."""
    if page.is_memmappable:
        return page.asarray(out="memmap"), (1, 1)
    array = zarr.open_array(page.aszarr(), mode="r", zarr_format=2)
    end = max(offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    across = array.cdata_shape[page.axes.index("X")]
    n_missing = prod(page.chunked) - len(page.dataoffsets)  # Philips leaves out the last row of tiles
    if array.shape != page.shape or end > page.parent.filehandle.size or n_missing > across:
        raise ValueError("its size is not that of its pixels")
    return array, (array.chunks[page.axes.index("Y")], array.chunks[page.axes.index("X")])


def _tiff_colours(samples: np.ndarray, inverted: bool, palette: np.ndarray | None, premultiplied: bool) -> np.ndarray:
    """Samples (h, w, s) of a TIFF as grey, RGB or RGBA."""
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * 255
    if inverted:
        samples = np.invert(samples)
    if palette is not None:
        return palette[samples[..., 0]]
    if samples.shape[2] == 2:  # grey and alpha
        samples = samples[:, :, [0, 0, 0, 1]]
    if premultiplied and samples.shape[2] == 4:
        peak = np.iinfo(samples.dtype).max
        alpha = np.maximum(samples[:, :, 3:], 1) / peak
        straight = (samples[:, :, :3] / alpha).round().clip(0, peak)
        samples = np.concatenate([straight.astype(samples.dtype), samples[:, :, 3:]], axis=2)
    return samples


def _read_window(path: Path, array: Any, axes: str, rows: slice, columns: slice) -> np.ndarray:
    """A window (h, w, c) of a mapped or a Zarr array.

    Inputs
        axes: a letter an axis: Y rows, X columns, S channels; of others the first entry is taken
    """
    index = tuple({"Y": rows, "X": columns, "S": slice(None)}.get(axis, 0) for axis in axes)
    lengths = {"Y": rows.stop - rows.start, "X": columns.stop - columns.start, "S": None}
    shape = [lengths.get(axis, 1) or n for axis, n in zip(axes, array.shape, strict=True)]
    size = array.shape[axes.index("Y")], array.shape[axes.index("X")]
    check_memory(path, size, prod(shape) * array.dtype.itemsize + _decoding_cost(array, shape))
    try:
        window = np.asarray(array[index])
    except Exception as error:  # whatever damaged chunks lead to
        raise InputError(f"{path} is damaged: its pixels cannot be read ({one_line(error)})") from error
    if "S" not in axes:
        window = window[..., None]
    elif axes.index("S") < axes.index("Y"):
        window = window.transpose(1, 2, 0)
    return window.astype(window.dtype.newbyteorder("="), copy=False)


def _decoding_cost(array: Any, shape: list[int]) -> int:
    """Bytes that reading a window takes at most besides its values."""
    if not isinstance(array, zarr.Array):
        return 0
    n_chunks = prod(ceil(n / chunk) + 1 for n, chunk in zip(shape, array.chunks, strict=True))
    return min(n_chunks, _CHUNKS_AT_ONCE) * prod(array.chunks) * array.dtype.itemsize + n_chunks * _CHUNK_COST


def _is_zarr_folder(path: Path) -> bool:
    return any((path / name).is_file() for name in _ZARR_FILES)


def _open_zarr(path: Path) -> _Pixels:
    try:
        node = zarr.open(path if path.is_dir() else zarr.storage.ZipStore(path, mode="r"), mode="r")
        array = node if isinstance(node, zarr.Array) else node[_first_scale(node)]
        if not isinstance(array, zarr.Array):
            raise InputError(f"{path} is a Zarr of groups: {_ZARR_SUPPORTED}")
        axes = _zarr_axes(array.shape, is_scale=array is not node)
        dtype, chunks = array.dtype, array.chunks
    except InputError:
        raise
    except Exception as error:  # whatever a damaged folder leads to
        raise InputError(f"{path} is no Zarr that can be read ({one_line(error)})") from error
    if axes is None or 0 in array.shape or dtype not in _DEPTHS:
        raise InputError(f"{path} is a Zarr of {dtype} values of shape {array.shape}: {_ZARR_SUPPORTED}")
    return _Pixels(
        (array.shape[axes.index("Y")], array.shape[axes.index("X")]),
        array.shape[axes.index("S")] if "S" in axes else 1,
        _DEPTHS[dtype],
        1,
        (chunks[axes.index("Y")], chunks[axes.index("X")]),
        functools.partial(_read_window, path, array, axes),
    )


def _first_scale(group: zarr.Group) -> str:
    """The finest array of the first image of an OME-Zarr group."""
    attributes = group.attrs.asdict()
    multiscales = attributes.get("ome", attributes).get("multiscales")
    return multiscales[0]["datasets"][0]["path"] if multiscales else "0"


def _zarr_axes(shape: tuple[int, ...], is_scale: bool) -> str | None:
    """A letter an axis as `_read_window` takes them, or None for a shape that is no picture's.

    Inputs
        is_scale: of a group, where axes of length 1 (t, c and z of OME-Zarr) may come first
    """
    letters = "".join("-" if is_scale and len(shape) > 3 and n == 1 else "S" for n in shape[:-2])
    if len(shape) >= 2 and "S" not in letters:
        return letters + "YX"
    if len(shape) == 3 and shape[2] in _CHANNELS:
        return "YXS"
    if letters.count("S") == 1 and shape[letters.index("S")] in _CHANNELS:
        return letters + "YX"
    return None


def open_occupancy(path: str | Path, size: tuple[int, int, int] | None = None) -> Source:
    """An occupancy grid, axes [z, y, x].

    Inputs
        path: a file of `write_occupancy`; a .npy of bools or of bytes 0 and 1, axes [z, y, x]; or the flat packed bits
            of a grid with axes [y, x, z]
        size: (d, h, w); needed for flat bits, which do not tell it; the others must agree with it
    Errors
        InputError for a file that is missing, is none of these, or is of another size
    """
    path = Path(path)
    stored = map_array(path)
    frame, rows_at_once = None, 1
    if stored.dtype.names is not None:
        held, bits = _map_bits(path, stored)
        if not (np.isfinite(stored["centre"]).all() and np.isfinite(stored["half_extents"]).all()):
            raise InputError(f"{path} is damaged: it does not tell where its voxels lie")
        frame = Frame(tuple(stored["centre"].tolist()), tuple(stored["half_extents"].tolist()))
        slices = functools.partial(_packed_slices, bits, held[2])
    elif is_flat(stored):
        if size is None:
            raise InputError(f"{path} holds flat bits, which do not tell their size: add --input_size")
        n_bytes = ceil(prod(size) / 8)
        if len(stored) != n_bytes:
            raise InputError(f"{path} holds {len(stored)} bytes, {n_bytes} would be --input_size {size_text(size)}")
        held, rows_at_once = size, min(_SLICES_AT_ONCE, size[0])
        slices = functools.partial(_flat_slices, stored, size)
    elif stored.ndim == 3 and stored.dtype in (np.bool_, np.uint8):
        held = stored.shape
        slices = functools.partial(_byte_slices, path, stored)
        if stored.size == 0:
            raise _no_bits(path)
    else:
        raise InputError(f"{path} holds {stored.dtype} values of shape {stored.shape}: bits, bytes or bools work")
    if size is not None and held != size:
        raise InputError(
            f"{path} holds {size_text(held)} voxels, not the {size_text(size)} of --input_size: leave it out"
        )

    def read(start: int, stop: int) -> np.ndarray:
        check_memory(path, held, (stop - start) * prod(held[1:]))
        return slices(start, stop)[None]

    return Source(path, held, n_channels=1, bits=1, frame=frame, file_size=held, rows_at_once=rows_at_once, reader=read)


def map_array(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped; InputError where it is none."""
    check_is_file(path)
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a damaged header leads to
        raise InputError(f"{path} is no .npy file that can be read ({one_line(error)})") from error
    if not isinstance(stored, np.memmap):
        raise InputError(f"{path} is no .npy file of one array")
    return stored


def is_flat(stored: np.ndarray) -> bool:
    """The array is flat packed bits, which do not tell the size of their grid."""
    return stored.ndim == 1 and stored.dtype == np.uint8


def _map_bits(path: Path, stored: np.memmap) -> tuple[tuple[int, int, int], np.ndarray]:
    """(d, h, w) and the packed bits (d, h, ceil(w / 8)) of a file of `write_occupancy`.

    The bits follow the header; where the header has a field for them, as a record of up to 2 GiB can, they are in it.
    """
    names = OCCUPANCY_HEADER.names
    is_header = stored.ndim == 0 and stored.dtype.names[: len(names)] == names
    if not is_header or any(stored.dtype[name] != OCCUPANCY_HEADER[name] for name in names):
        raise InputError(f"{path} is no occupancy file")
    if stored["format"] != OCCUPANCY_FORMAT:
        raise InputError(f"{path} is no occupancy file")
    size = tuple(stored["size"].tolist())
    shape = (*size[:2], ceil(size[2] / 8))
    start = stored.offset + stored.nbytes
    if min(size) >= 1 and stored.dtype == OCCUPANCY_HEADER and start + prod(shape) == path.stat().st_size:
        return size, np.memmap(path, np.uint8, "r", start, shape)
    if min(size) >= 1 and stored.dtype.names[len(names) :] == ("bits",) and stored["bits"].shape == shape:
        return size, stored["bits"]
    raise InputError(f"{path} is damaged: its bits are not those of {size_text(size)} voxels")


def _packed_slices(bits: np.ndarray, width: int, start: int, stop: int) -> np.ndarray:
    """Slices (stop - start, h, w) of bits packed along x."""
    return np.unpackbits(bits[start:stop], axis=2, count=width)


def _byte_slices(path: Path, stored: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Slices (stop - start, h, w) of bytes or bools."""
    slices = np.array(stored[start:stop], dtype=np.uint8, order="C")
    if slices.max() > 1:
        raise _no_bits(path)
    return slices


def _no_bits(path: Path) -> InputError:
    return InputError(f"{path} holds values other than 0 and 1, or none")


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
    if depth % 8 == 0:  # every column begins with a byte, so that only bytes of the slices are unpacked
        packed = stored.reshape(height, width, depth // 8)[rows, :, start // 8 : ceil(stop / 8)]
        begin = start % 8
        return np.unpackbits(packed, axis=2)[:, :, begin : begin + stop - start]
    first, end = rows.start * width * depth, rows.stop * width * depth
    bits = np.unpackbits(stored[first // 8 : ceil(end / 8)])[first % 8 :][: end - first]
    return bits.reshape(-1, width, depth)[:, :, start:stop]
