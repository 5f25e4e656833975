"""Signals in arrays."""

import zlib
from pathlib import Path

import numpy as np
import torch

from datasets.formats import DEPTHS, VALUES
from datasets.formats.chunks import array_pixels, picture_axes
from datasets.occupancy import grid_source
from datasets.sources import Source, picture_source
from datasets.transferred import transferred
from datasets.volumes import Voxels, volume_source
from datasets.volumes.axes import array_axes
from utils.errors import InputError
from utils.transfer import AS_SUITS, Reading


def array_source(
    values: np.ndarray | torch.Tensor, size: tuple[int, ...] | None = None, reading: Reading = AS_SUITS, n_dims: int = 2
) -> Source:
    """A signal in an array of NumPy or torch.

    Inputs
        values: a picture (h, w), (h, w, c) or (c, h, w), c of 1 to 64: uint8, uint16, floats in [0, 1], which are
            rounded to 16 bits, or other integers; floats of any range where `reading` says how; or occupancy
            (d, h, w), bool; or, of three dimensions, values (d, h, w), (c, d, h, w) or (d, h, w, c), integers of up to
            32 bits or floats
        size: (h, w) to resize a picture to
        reading: of values other than these
        n_dims: of the signal, unless it is bool
    Errors
        InputError for any other array
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    if array.size == 0:
        raise InputError(f"the array has shape {array.shape}, and so no values; use another one")
    if array.dtype == np.bool_ and array.ndim == 3:
        if size is not None:
            raise InputError("the array is a volume, which is not resized; leave the size out")
        return grid_source(
            _name(array), array.shape, None, 1, lambda start, stop: array[None, start:stop].view(np.uint8)
        )
    if n_dims == 3:
        axes = array_axes(Path("array"), array.shape, reading.time is not None)
        return volume_source(_name(array), Voxels(axes, array.shape, array.dtype, array.__getitem__), size, reading)
    if np.issubdtype(array.dtype, np.floating) and reading == AS_SUITS:
        array = _in_16_bits(array)
    axes = picture_axes(array.shape) if array.ndim in (2, 3) else None
    if axes is None or array.dtype not in DEPTHS.keys() | VALUES:
        raise InputError(
            f"the array holds {array.dtype} values of shape {array.shape}; use uint8, uint16 or floats of a picture "
            "(h, w), (h, w, c) or (c, h, w), c of 1 to 64, or bools of a volume (d, h, w)"
        )
    path = _name(array)
    pixels = array_pixels(path, array, axes, (1,) * array.ndim)
    return picture_source(path, *transferred(path, pixels, reading), size)


def _in_16_bits(array: np.ndarray) -> np.ndarray:
    least, most = array.min(), array.max()
    if not (least >= 0 and most <= 1):  # NaN is neither
        raise InputError(f"the array has values from {least} to {most}; scale them to 0 to 1, or say transfer='linear'")
    return np.rint(array * (2**16 - 1)).astype(np.uint16)


def _name(array: np.ndarray) -> Path:
    """What stands for the path of a file."""
    return Path(f"array-{zlib.crc32(np.ascontiguousarray(array)):08x}")
