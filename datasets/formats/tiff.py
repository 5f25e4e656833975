"""TIFF and BigTIFF, read by windows of their first page and written by tiles."""

import functools
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tifffile

from datasets.formats import DEPTHS, SUPPORTED, VALUES, Pixels, unsupported_type
from datasets.formats.chunks import read_window, regroup, window_bytes
from datasets.formats.jpeg import read_frame
from utils.channels import MOST_CHANNELS
from utils.errors import InputError, one_line, size_text
from utils.files import aside
from utils.georeference import Georeference

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # our own messages say what is wrong

_COLOURS = {
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
}
_OF_VALUES = {tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB}
_JPEGS = {
    tifffile.COMPRESSION.JPEG,
    tifffile.COMPRESSION.OJPEG,
    tifffile.COMPRESSION.ALT_JPEG,
    tifffile.COMPRESSION.JPEG_LOSSY,
}
_PICTURES = _JPEGS | {
    tifffile.COMPRESSION.JPEG2000,
    tifffile.COMPRESSION.JPEG_2000_LOSSY,
    tifffile.COMPRESSION.APERIO_JP2000_YCBC,
    tifffile.COMPRESSION.APERIO_JP2000_RGB,
    tifffile.COMPRESSION.WEBP,
    tifffile.COMPRESSION.WEBP_DEPRECATED,
    tifffile.COMPRESSION.PNG,
}
"""Compressions whose chunks are pictures in themselves."""
_ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
_GEOREFERENCE = {  # tags of GeoTIFF and GDAL, and their types
    "pixel_scale": (33550, "d"),
    "tiepoints": (33922, "d"),
    "transformation": (34264, "d"),
    "keys": (34735, "H"),
    "doubles": (34736, "d"),
    "text": (34737, "s"),
    "nodata": (42113, "s"),
}
_LARGER = 2  # than a chunk: some encoders pad
_TILE = 256  # pixels a side, of the files written
NEAR_BYTES = 2**32 - 2**25  # of pixels, which 32-bit offsets surely reach


def open_pixels(path: Path) -> Pixels:
    """Open the first page of a file."""
    try:
        pages = tifffile.TiffFile(path).pages
        return _open_page(path, pages[0], _count_pictures(pages))
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file raises
        raise InputError(f"{path} is not a readable TIFF ({one_line(error)})") from error


def _count_pictures(pages: tifffile.TiffPages) -> int:
    """Pages that are not smaller versions of another; 1 if what follows the first is damaged."""
    try:
        return 1 + sum(not page.is_reduced for page in pages[1:])
    except Exception:  # whatever a damaged file raises; the first page is read on its own
        return 1


def _open_page(path: Path, page: tifffile.TiffPage, n_pictures: int) -> Pixels:
    photometric = page.photometric
    if photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression == tifffile.COMPRESSION.JPEG:
        photometric = tifffile.PHOTOMETRIC.RGB  # as the decoder gives it
    _check_page(path, page, photometric)
    n_samples = _n_samples(page)
    is_palette = photometric == tifffile.PHOTOMETRIC.PALETTE
    has_alpha = _has_alpha(page, photometric)
    is_premultiplied = has_alpha and tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
    array, chunk = _page_array(page)
    read = functools.partial(read_window, path, array, page.axes)
    if page.dtype in VALUES:
        n_bytes = functools.partial(window_bytes, array, page.axes)
        return _values(path, page, has_alpha, n_pictures, read, n_bytes, chunk)
    colours = functools.partial(
        _to_colours,
        inverted=photometric == tifffile.PHOTOMETRIC.MINISWHITE,
        palette=(page.colormap.T >> 8).astype(np.uint8) if is_palette else None,
        grey_alpha=has_alpha and n_samples == 2,
        premultiplied=is_premultiplied,
    )
    n_channels = 3 if is_palette else 4 if has_alpha else n_samples
    is_converted = (
        is_palette or page.dtype == bool or n_channels != n_samples or photometric == tifffile.PHOTOMETRIC.MINISWHITE
    )
    bits = 8 if is_palette or page.dtype == bool else DEPTHS[page.dtype]
    extra_bytes = 80 if is_premultiplied else is_converted * n_channels * bits // 8  # of a pixel, as it is converted
    return Pixels(
        (page.imagelength, page.imagewidth),
        n_channels,
        bits,
        page.tags.valueof("Orientation", default=1),
        chunk,
        lambda rows, columns: colours(read(rows, columns)),
        lambda n_rows, n_columns: window_bytes(array, page.axes, n_rows, n_columns) + n_rows * n_columns * extra_bytes,
        n_pictures,
        spectral=n_channels not in (1, 3) and not has_alpha,
        georeference=_read_georeference(page),
    )


def _values(
    path: Path,
    page: tifffile.TiffPage,
    has_alpha: bool,
    n_pictures: int,
    read: Callable[[slice, slice], np.ndarray],
    n_bytes: Callable[[int, int], int],
    chunk: tuple[int, int],
) -> Pixels:
    """A page of floating point numbers or of integers that are no plain pixels, without its alpha."""
    n_channels = _n_samples(page) - has_alpha
    return Pixels(
        (page.imagelength, page.imagewidth),
        n_channels,
        16,
        page.tags.valueof("Orientation", default=1),
        chunk,
        lambda rows, columns: read(rows, columns)[..., :n_channels],
        n_bytes,
        n_pictures,
        dtype=page.dtype,
        notes=(f"{path}: its alpha is left out",) if has_alpha else (),
        spectral=n_channels not in (1, 3),
        georeference=_read_georeference(page),
    )


def _has_alpha(page: tifffile.TiffPage, photometric: int) -> bool:
    """Whether the last of two or four samples is alpha: where the file says so or, of RGB with one more that is no map,
    says nothing."""
    n_samples = _n_samples(page)
    if _ALPHA & set(page.extrasamples):
        return n_samples in (2, 4)
    return n_samples == 4 and photometric == tifffile.PHOTOMETRIC.RGB and not page.is_geotiff


def _read_georeference(page: tifffile.TiffPage) -> Georeference | None:
    """None where there is none, or it is damaged: the pixels are there all the same."""
    found = {name: page.tags.valueof(code) for name, (code, _) in _GEOREFERENCE.items()}
    found = {name: value for name, value in found.items() if value is not None}
    try:
        found = {
            name: value if isinstance(value, str) else np.atleast_1d(value).tolist() for name, value in found.items()
        }
        return Georeference(**found) if found else None
    except (AttributeError, TypeError, ValueError):
        return None


def _check_page(path: Path, page: tifffile.TiffPage, photometric: int) -> None:
    """InputError for samples that are not a palette picture, or up to 64 channels of 8 or 16 bits or of `VALUES`."""
    if isinstance(page.bitspersample, tuple):
        depths = ", ".join(map(str, dict.fromkeys(page.bitspersample)))
        raise InputError(f"{path} has channels of {depths} bits; give all of them the same")
    if page.axes not in ("YX", "YXS", "SYX") or photometric not in _COLOURS or not page.dtype or 0 in page.shape:
        kind = getattr(photometric, "name", photometric)
        raise InputError(f"{path} is a TIFF of kind {kind} {page.axes}; convert it to grey, RGB or a palette")
    if page.dtype in DEPTHS and page.bitspersample != DEPTHS[page.dtype]:
        raise InputError(f"{path} has {page.bitspersample} bits a channel; use {SUPPORTED}")
    n_samples = _n_samples(page)
    if n_samples > MOST_CHANNELS:
        raise InputError(f"{path} has {n_samples} channels; choose at most {MOST_CHANNELS} of them")
    is_plain = page.dtype in DEPTHS or page.dtype == bool
    if not is_plain and (page.dtype not in VALUES or photometric not in _OF_VALUES):
        raise unsupported_type(path, page.dtype)
    if photometric == tifffile.PHOTOMETRIC.PALETTE and (
        page.colormap is None or n_samples > 1 or page.colormap.shape != (3, 2**page.bitspersample)
    ):
        raise InputError(f"{path} is a TIFF whose palette does not match its pixels; convert it to RGB")


def _n_samples(page: tifffile.TiffPage) -> int:
    return page.shape[page.axes.index("S")] if "S" in page.axes else 1


def _page_array(page: tifffile.TiffPage) -> tuple[Any, tuple[int, int]]:
    """The samples of a page, mapped if the file holds them uncompressed, else as a Zarr array; (h, w) of a chunk."""
    if page.is_memmappable:
        return page.asarray(out="memmap"), (1, 1)
    import zarr  # mapped pages, and writing, do without it

    array = zarr.open_array(page.aszarr(), mode="r", zarr_format=2)
    end = max(offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    across = array.cdata_shape[page.axes.index("X")]
    n_missing = prod(page.chunked) - len(page.dataoffsets)  # Philips leaves out the lowest tiles
    if array.shape != page.shape or end > page.parent.filehandle.size or n_missing > across:
        raise ValueError("its size does not match its pixels")
    chunk = array.chunks[page.axes.index("Y")], array.chunks[page.axes.index("X")]
    page.decode = _bounded(page.decode, page.compression, chunk)
    return array, chunk


def _bounded(decode: Callable[..., Any], compression: int, chunk: tuple[int, int]) -> Callable[..., Any]:
    """The same, with a ValueError for chunks that are pictures in themselves and larger than (h, w) of a chunk.

    The decoders of other chunks know how much to unpack.
    """

    def checked(data: bytes | None, *args: Any, **settings: Any) -> Any:
        if data is not None and "jpegheader" not in settings:  # which goes with the size of a chunk
            size = _size_of(compression, data)
            if prod(size) > _LARGER * prod(chunk):
                raise ValueError(f"a chunk of {size_text(size)} pixels instead of {size_text(chunk)}")
        return decode(data, *args, **settings)

    return checked if compression in _PICTURES else decode


def _size_of(compression: int, data: bytes) -> tuple[int, int]:
    """(h, w) of a chunk that is a picture, as its header says."""
    if compression in _JPEGS:
        return read_frame(io.BytesIO(data)).size
    with PIL.Image.open(io.BytesIO(data)) as picture:
        return picture.size[::-1]


def _to_colours(
    samples: np.ndarray, inverted: bool, palette: np.ndarray | None, grey_alpha: bool, premultiplied: bool
) -> np.ndarray:
    """Samples (h, w, s) as grey, RGB or RGBA, or as they are."""
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * 255
    if inverted:
        samples = np.invert(samples)
    if palette is not None:
        return palette[samples[..., 0]]
    if grey_alpha:
        samples = samples[:, :, [0, 0, 0, 1]]
    if premultiplied:
        peak = np.iinfo(samples.dtype).max
        alpha = np.maximum(samples[:, :, 3:], 1) / peak
        straight = (samples[:, :, :3] / alpha).round().clip(0, peak)
        samples = np.concatenate([straight.astype(samples.dtype), samples[:, :, 3:]], axis=2)
    return samples


def write_pixels(
    path: Path,
    rows: Iterable[np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype,
    spectral: bool = False,
    georeference: Georeference | None = None,
) -> None:
    """Write tiles of 256 x 256 pixels, with 64-bit offsets if the file needs them."""
    height, width, n_channels = shape
    extra = ["unspecified"] * (n_channels - 1) if spectral else ["unassalpha"] if n_channels == 4 else None
    with aside(path) as file:
        tifffile.imwrite(
            file,
            _tiles(rows, width),
            shape=(height, width) if n_channels == 1 else shape,
            dtype=dtype,
            bigtiff=prod(shape) * dtype.itemsize > NEAR_BYTES,
            tile=(_TILE, _TILE),
            photometric="minisblack" if n_channels == 1 or spectral else "rgb",
            planarconfig=None if n_channels == 1 else "contig",
            extrasamples=extra,
            compression="zlib",
            predictor=True,
            maxworkers=os.cpu_count(),
            buffersize=2**24,
            extratags=_tags(georeference) if georeference else (),
        )


def _tags(georeference: Georeference) -> list[tuple[int, str, int, Any, bool]]:
    """As tifffile takes them: number, type, count, value, and that the first page alone has them."""
    record = georeference.record().items()
    return [(*_GEOREFERENCE[name], 0 if isinstance(value, str) else len(value), value, True) for name, value in record]


def _tiles(rows: Iterable[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Tiles from left to right and top to bottom: (h, w), or (h, w, c) in colour, padded at the edges."""
    for strip in regroup(rows, _TILE):
        padded = np.pad(strip, ((0, -len(strip) % _TILE), (0, -width % _TILE), (0, 0)), mode="edge")
        for left in range(0, width, _TILE):
            tile = padded[:, left : left + _TILE]
            yield tile[:, :, 0] if tile.shape[2] == 1 else tile
