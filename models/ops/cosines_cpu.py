"""Networks of cosines, evaluated on a CPU by cosines.c at the points of a box: a few operations for each."""

import ctypes
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.cosines import BlockCosines, axes_of, axis_cosines
from models.ops import reference
from models.ops.threads import share_out
from utils.compiler import load_library

_SOURCE = Path(__file__).with_name("cosines.c")
_FLAGS = ("-O3", "-mcpu=native", "-fno-math-errno", "-shared", "-fPIC")


@torch.no_grad()
def predict(network: BlockCosines, index: Tensor | slice, coords: Tensor) -> Tensor:
    """As reference.predict, up to rounding; a value has the same bits whichever others are computed with it."""
    axes = axes_of(coords)
    if axes is None:
        return reference.predict(network, index, coords)
    part, shape = network.select(index), network.shape
    out = coords.new_empty(part.n_blocks, len(coords), shape.n_out)
    along = zip(axes, shape.lengths, strict=True)
    tables = [axis_cosines(axis, length, shape.n_hidden).T.contiguous() for axis, length in along]
    bounds = [_bounds(table) for table in tables]
    lengths, points = (np.array(sizes, np.int32) for sizes in (shape.lengths, list(map(len, axes))))
    pointers = ctypes.c_void_p * len(axes)
    cosines = pointers(*(table.data_ptr() for table in tables))
    ends = pointers(*(bound.ctypes.data for bound in bounds))
    weight = part.weight[0].contiguous()
    call = library().predict
    share_out(
        lambda first, last: call(
            weight.data_ptr(),
            len(axes),
            lengths.ctypes.data,
            points.ctypes.data,
            shape.n_out,
            cosines,
            ends,
            out.data_ptr(),
            first,
            last,
        ),
        part.n_blocks,
    )
    return out


def _bounds(table: Tensor) -> np.ndarray:
    """(length, 2) where each cosine of a table (length, n_points) begins and ends."""
    other = (table != 0).int()
    first = other.argmax(1)
    last = table.shape[1] - other.flip(1).argmax(1)
    bounds = torch.stack([first, torch.where(other.any(1), last, first)], 1)
    return np.ascontiguousarray(bounds.numpy(), np.int32)


@lru_cache
def library() -> ctypes.CDLL:
    """KernelError or OSError where it cannot be compiled."""
    made = load_library(_SOURCE, _FLAGS)
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    made.predict.argtypes = [pointer, number, pointer, pointer, number, *[pointer] * 3, *[ctypes.c_int64] * 2]
    return made
