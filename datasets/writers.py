"""Write signals to files a few rows at a time, so that memory holds those rows and never the whole.

A file (a folder, for Zarr) is complete when it appears; an old one stays whole until then.

Notation: *rows* are consecutive parts of a picture from the top, (c, n_rows, w) float32 in [0, 1].
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.formats import FORMATS, Format
from utils.errors import InputError, size_text
from utils.files import aside, check_replaceable

_COPIES_HELD = 3  # gathered, padded, compressed


def check_picture_path(path: Path, n_channels: int, size: tuple[int, int], bits: int) -> None:
    """InputError if a picture of this kind, of size (h, w), cannot be written to this path."""
    format = _format_of(path)
    if bits > format.most_bits:
        raise InputError(
            f"{path}: {format.name} holds {format.most_bits} bits a channel, not {bits}; add --bits "
            f"{format.most_bits}, or write .png or .tif"
        )
    if n_channels == 4 and not format.has_alpha:
        raise InputError(f"{path}: {format.name} holds no alpha; add --no_alpha, or write .png or .tif")
    if format.most_side is not None and max(size) > format.most_side:
        raise InputError(
            f"{path}: {format.name} holds {format.most_side} pixels a side, not {size_text(size)}; write .png or .tif"
        )
    if format.markers and path.exists() and not format.can_replace(path):
        raise InputError(f"{path} exists and is not a {format.name} array; choose another name")
    if not format.markers:
        check_replaceable(path)


def held_bytes(path: Path, n_channels: int, size: tuple[int, ...]) -> int:
    """Bytes of memory that writing a picture takes at most, beside the rows that are written; 0 for a volume."""
    if len(size) != 2:
        return 0
    rows = _format_of(path).rows_held
    return _COPIES_HELD * 2 * n_channels * min(rows, size[0]) * size[1]


def _format_of(path: Path) -> Format:
    """The format of the suffix; InputError if there is none."""
    suffixes = {suffix: format for format in FORMATS for suffix in format.suffixes}
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: suffix {path.suffix!r} cannot be written; use one of {', '.join(suffixes)}")
    return suffixes[path.suffix.lower()]


def write_rows(path: str | Path, rows: Iterable[Tensor], n_channels: int, size: tuple[int, int], bits: int) -> None:
    """Write a picture in the format of the suffix.

    TIFF has tiles of 256 x 256 pixels, and 64-bit offsets if it needs them; a Zarr array (version 3) is a folder,
    (h, w) or (h, w, c), in chunks of 512 x 512 pixels. Besides the rows, memory holds the tiles or chunks that lie side
    by side. PNG and JPEG also need disk space for the uncompressed pixels while they are written.

    Inputs
        rows: of the picture, `h` in all
        n_channels, size: (h, w) of the picture
        bits: of a channel, 8 or 16
    Errors
        InputError for another suffix, for what the format cannot hold, for a file that cannot be written
    """
    path = Path(path)
    check_picture_path(path, n_channels, size, bits)
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    pixels = (_to_pixels(some, bits, dtype) for some in rows)
    _format_of(path).write(path, pixels, (*size, n_channels), dtype)


def _to_pixels(rows: Tensor, bits: int, dtype: np.dtype) -> np.ndarray:
    """(n_rows, w, c)"""
    steps = rows.nan_to_num(0).mul_(2**bits - 1).add_(0.5).to(torch.int32).permute(1, 2, 0).numpy()
    return steps.astype(dtype, order="C")


@contextmanager
def open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a .npy file: the function that this yields takes the next rows of the array, (n_rows, *shape[1:]).

    Errors
        InputError for a file that cannot be written
    """
    with aside(path) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda values: file.write(np.ascontiguousarray(values, dtype).data)
