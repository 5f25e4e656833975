"""Write signals to files a few rows at a time, so that memory holds those rows and never the whole.

A file (a folder, for Zarr) is complete when it appears; an old one stays whole until then.

Notation: *rows* are consecutive parts of a picture from the top, (c, n_rows, w) float32 in [0, 1].
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.formats import FORMATS, Format
from utils.errors import InputError, size_text
from utils.files import check_replaceable
from utils.georeference import Georeference
from utils.transfer import Transfer

_COPIES_HELD = 3  # gathered, padded, compressed
_MOST_BYTES = 4  # of a value


def holds_values(path: Path, transfer: Transfer) -> bool:
    """Whether the format of a suffix holds the values that a transfer gives; InputError if it cannot be written."""
    format = _format_of(path)
    return transfer.dtype in format.types or (transfer.dtype == "uint16" and format.most_bits == 16)


def most_bits(path: Path) -> int:
    """Of a channel that the format of a suffix holds."""
    return _format_of(path).most_bits


def check_picture_path(
    path: Path,
    n_channels: int,
    size: tuple[int, int],
    bits: int,
    transfer: Transfer | None = None,
    spectral: bool = False,
) -> None:
    """InputError if a picture of this kind, of size (h, w), cannot be written to this path.

    Inputs
        bits: of a channel, unless
        transfer: gives other values, which the format holds
    """
    format = _format_of(path)
    if transfer is None and format.most_bits == 0:
        raise InputError(f"{path}: {format.name} holds floating point numbers, not {bits} bits; write .png or .tif")
    if transfer is None and bits > format.most_bits:
        raise InputError(
            f"{path}: {format.name} holds {format.most_bits} bits a channel, not {bits}; add --bits "
            f"{format.most_bits}, or write .png or .tif"
        )
    if spectral and not format.has_spectral:
        raise InputError(
            f"{path}: {format.name} holds grey and colour pictures, not {n_channels} channels; write .tif, .zarr or "
            ".npy, or choose one or three of them, such as --channels 3 2 1"
        )
    if n_channels == 4 and not spectral and not format.has_alpha:
        raise InputError(f"{path}: {format.name} holds no alpha; add --no_alpha, or write .png or .tif")
    if n_channels == 1 and format.is_colour:
        raise InputError(f"{path}: {format.name} holds colours, and the picture is grey; write .exr or .tif")
    if format.most_side is not None and max(size) > format.most_side:
        raise InputError(
            f"{path}: {format.name} holds {format.most_side} pixels a side, not {size_text(size)}; write .png or .tif"
        )
    if format.markers and path.exists() and not format.can_replace(path):
        raise InputError(f"{path} exists and is not a {format.name} array; choose another name")
    if not format.markers:
        check_replaceable(path)


def held_bytes(path: Path, n_channels: int, size: tuple[int, int]) -> int:
    """Bytes of memory that writing a picture takes at most, beside the rows that are written."""
    rows = _format_of(path).rows_held
    return _COPIES_HELD * _MOST_BYTES * n_channels * min(rows, size[0]) * size[1]


def _format_of(path: Path) -> Format:
    """The format of the suffix; InputError if there is none."""
    suffixes = {suffix: format for format in FORMATS for suffix in format.suffixes}
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: suffix {path.suffix!r} cannot be written; use one of {', '.join(suffixes)}")
    return suffixes[path.suffix.lower()]


def write_rows(
    path: str | Path,
    rows: Iterable[Tensor],
    n_channels: int,
    size: tuple[int, int],
    bits: int,
    transfer: Transfer | None = None,
    spectral: bool = False,
    georeference: Georeference | None = None,
) -> None:
    """Write a picture in the format of the suffix.

    TIFF has tiles of 256 x 256 pixels, and 64-bit offsets if it needs them; a Zarr array (version 3) is a folder,
    (h, w) or (h, w, c), in chunks of 512 x 512 pixels. Besides the rows, memory holds the tiles or chunks that lie side
    by side; of OpenEXR and Radiance, the whole. PNG and JPEG also need disk space for the uncompressed pixels while
    they are written.

    Inputs
        rows: of the picture, `h` in all
        n_channels, size: (h, w) of the picture
        bits: of a channel, 8 or 16, unless
        transfer: gives the values to write
        spectral: the channels are measurements, none of them alpha
        georeference: of the picture, which TIFF keeps
    Errors
        InputError for another suffix, for what the format cannot hold, for a file that cannot be written
    """
    path = Path(path)
    check_picture_path(path, n_channels, size, bits, transfer, spectral)
    if transfer:
        dtype = np.dtype(transfer.dtype)
        pixels = (np.ascontiguousarray(transfer.decode(some.permute(1, 2, 0).numpy())) for some in rows)
    else:
        dtype = np.dtype(f"uint{bits}")
        pixels = (np.ascontiguousarray(as_steps(some, bits).transpose(1, 2, 0)) for some in rows)
    about = {"spectral": spectral, "georeference": georeference}
    _format_of(path).write(path, pixels, (*size, n_channels), dtype, **about)


def as_steps(values: Tensor, bits: int) -> np.ndarray:
    """Values in [0, 1] as uint8 or uint16, rounded; those that are no numbers are 0."""
    steps = values.nan_to_num(0).mul_(2**bits - 1).add_(0.5).to(torch.int32).numpy()
    return steps.astype(np.dtype(f"uint{bits}"))
