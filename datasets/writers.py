"""Signals to files, a few rows at a time: memory follows the rows, not the picture or the volume.

Every file, or folder of a Zarr array, is written aside: it is complete when it appears, and an old one stays whole
until then. *Rows* are consecutive parts of a picture from the top: (c, n_rows, w) float32 in [0, 1].
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
import tifffile
import torch
from torch import Tensor

from utils.checkpoint import aside, sync_folder, unwritable
from utils.errors import InputError, one_line, size_text

_JPEG_SUFFIXES = {".jpg", ".jpeg"}
_TIFF_SUFFIXES = {".tif", ".tiff"}
_JPEG_MOST = 65500  # pixels a side, of the encoder
_JPEG_QUALITY = 95
_PNG_COMPRESSION = 3  # 6, the usual one, takes half as long again for 2% less
_TIFF_TILE = 256  # pixels a side
_TIFF_OFFSETS = 2**32 - 2**25  # bytes of pixels that 32-bit offsets surely reach
_ZARR_CHUNK = 512  # pixels a side


def check_picture_path(path: Path, n_channels: int, size: tuple[int, int], bits: int) -> None:
    """InputError where a picture of this kind, of size (h, w), cannot be written to this path."""
    suffix = path.suffix.lower()
    if suffix not in {".png", ".zarr"} | _JPEG_SUFFIXES | _TIFF_SUFFIXES:
        raise InputError(f"{path}: suffix {path.suffix!r} is none of .png, .jpg, .jpeg, .tif, .tiff, .zarr")
    if suffix in _JPEG_SUFFIXES:
        if bits != 8:
            raise InputError(f"{path}: JPEG holds 8 bits a channel, not {bits}: add --bits 8, or write .png or .tif")
        if n_channels == 4:
            raise InputError(f"{path}: JPEG holds no alpha: add --no_alpha, or write .png or .tif")
        if max(size) > _JPEG_MOST:
            raise InputError(
                f"{path}: JPEG holds {_JPEG_MOST} pixels a side, not {size_text(size)}: write .png or .tif"
            )
    if suffix == ".zarr":
        if path.exists() and not (path / "zarr.json").is_file():
            raise InputError(f"{path} exists and is no Zarr array: another name works")
    elif path.is_dir():
        raise InputError(f"{path} is a folder: another name works")


def write_picture(path: str | Path, values: Tensor, bits: int) -> None:
    """`write_rows` of a picture that is at hand, (c, h, w) in [0, 1]."""
    write_rows(path, [values], len(values), tuple(values.shape[1:]), bits)


def write_rows(path: str | Path, rows: Iterable[Tensor], n_channels: int, size: tuple[int, int], bits: int) -> None:
    """Write a picture as PNG, JPEG, TIFF or Zarr, by suffix.

    TIFF has tiles of 256 x 256 pixels, and 64-bit offsets where it needs them; a Zarr array (version 3) is a folder,
    (h, w) or (h, w, c), in chunks of 512 x 512 pixels. Besides the rows, memory holds a row of tiles or chunks. PNG
    and JPEG need room for the bare pixels on the disk meanwhile.

    Inputs
        rows: of the picture, `h` in all
        n_channels, size: (h, w) of the picture
        bits: of a channel, 8 or 16
    Errors
        InputError for another suffix, for what the format cannot hold, for a file that cannot be written
    """
    path = Path(path)
    check_picture_path(path, n_channels, size, bits)
    pixels = (_to_pixels(some, bits) for some in rows)
    shape, dtype = (*size, n_channels), np.dtype(np.uint8 if bits == 8 else np.uint16)
    suffix = path.suffix.lower()
    if suffix == ".zarr":
        _write_zarr(path, pixels, shape, dtype)
        return
    with aside(path) as file:
        if suffix in _TIFF_SUFFIXES:
            _write_tiff(file, pixels, shape, dtype)
        else:
            _write_encoded(path, file, pixels, shape, dtype)


def _to_pixels(rows: Tensor, bits: int) -> np.ndarray:
    """(n_rows, w, c) uint8 or uint16"""
    levels = rows.nan_to_num(0).mul_(2**bits - 1).add_(0.5).to(torch.int32).permute(1, 2, 0).numpy()
    return levels.astype(np.uint8 if bits == 8 else np.uint16, order="C")


def _regroup(pixels: Iterable[np.ndarray], height: int) -> Iterator[np.ndarray]:
    """The same rows, `height` at a time; fewer at the end."""
    held, n_held = [], 0
    for some in pixels:
        while len(some):
            part, some = some[: height - n_held], some[height - n_held :]
            held.append(part)
            n_held += len(part)
            if n_held == height:
                yield np.concatenate(held)
                held, n_held = [], 0
    if held:
        yield np.concatenate(held)


def _write_tiff(file: BinaryIO, pixels: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Tiles from left to right and top to bottom; shape is (h, w, c)."""
    height, width, n_channels = shape

    def tiles() -> Iterator[np.ndarray]:
        for band in _regroup(pixels, _TIFF_TILE):
            padded = np.pad(band, ((0, -len(band) % _TIFF_TILE), (0, -width % _TIFF_TILE), (0, 0)), mode="edge")
            for left in range(0, width, _TIFF_TILE):
                tile = padded[:, left : left + _TIFF_TILE]
                yield tile[:, :, 0] if n_channels == 1 else tile

    tifffile.imwrite(
        file,
        tiles(),
        shape=(height, width) if n_channels == 1 else shape,
        dtype=dtype,
        bigtiff=prod(shape) * dtype.itemsize > _TIFF_OFFSETS,
        tile=(_TIFF_TILE, _TIFF_TILE),
        photometric="minisblack" if n_channels == 1 else "rgb",
        planarconfig=None if n_channels == 1 else "contig",
        extrasamples=["unassalpha"] if n_channels == 4 else None,
        compression="zlib",
        predictor=True,
        maxworkers=os.cpu_count(),
        buffersize=2**24,
    )


def _write_encoded(
    path: Path, file: BinaryIO, pixels: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype
) -> None:
    """PNG or JPEG by libvips, which takes no rows but a whole picture: one that lies in a file, mapped; shape is
    (h, w, c)."""
    import pyvips

    height, width, n_channels = shape
    deep = dtype == np.uint16
    colours = ("rgb16" if deep else "srgb") if n_channels > 1 else ("grey16" if deep else "b-w")
    with TemporaryFile(dir=path.parent) as scratch:  # without a name: gone however this process ends
        for some in pixels:
            scratch.write(some.data)
        scratch.flush()
        mapped = np.memmap(scratch, dtype, mode="r")
        picture = pyvips.Image.new_from_memory(mapped, width, height, n_channels, "ushort" if deep else "uchar")
        picture = picture.copy(interpretation=colours)
        target = pyvips.Target.new_to_descriptor(file.fileno())
        try:
            if path.suffix.lower() in _JPEG_SUFFIXES:
                picture.jpegsave_target(target, Q=_JPEG_QUALITY)
            else:
                picture.pngsave_target(target, filter="all", compression=_PNG_COMPRESSION)
        except pyvips.Error as error:
            system = re.search("(?:system|unix) error: (.+)", error.detail)
            raise InputError(f"cannot write {path}: {system[1] if system else one_line(error)}") from error


def _write_zarr(path: Path, pixels: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    import zarr

    part, old = (path.with_name(f".{path.name}.{end}") for end in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    is_grey = shape[2] == 1
    try:
        array = zarr.create_array(
            part,
            shape=shape[:2] if is_grey else shape,
            chunks=(_ZARR_CHUNK, _ZARR_CHUNK, shape[2])[: 2 if is_grey else 3],
            dtype=dtype,
            zarr_format=3,
            dimension_names=("y", "x", "c")[: 2 if is_grey else 3],
        )
        top = 0
        for band in _regroup(pixels, _ZARR_CHUNK):
            array[top : top + len(band)] = band[:, :, 0] if is_grey else band
            top += len(band)
        for file in part.rglob("*"):
            if file.is_file():
                _flush(file)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
        os.replace(part, path)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextmanager
def open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a .npy file: what it gives takes the next rows or planes of an array in C order, (n, *shape[1:]).

    Errors
        InputError for a file that cannot be written
    """
    with aside(path) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda values: file.write(np.ascontiguousarray(values, dtype).data)
