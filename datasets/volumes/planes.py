"""Volumes of several channels in files that hold one channel after another."""

from collections.abc import Callable
from math import prod
from typing import BinaryIO

import numpy as np


def channel_by_channel(
    file: BinaryIO, offset: int, shape: tuple[int, int, int, int], dtype: np.dtype
) -> Callable[[np.ndarray], None]:
    """What takes the next slices (c, n, h, w) of a volume and writes them where they belong.

    Inputs
        offset: in the file, of the first value
        shape: (c, d, h, w)
    """
    slice_bytes, n_slices = prod(shape[2:]) * dtype.itemsize, shape[1]
    done = 0

    def write(values: np.ndarray) -> None:
        nonlocal done
        for channel, of_channel in enumerate(values):
            file.seek(offset + (channel * n_slices + done) * slice_bytes)
            file.write(np.ascontiguousarray(of_channel, dtype).data)
        done += values.shape[1]

    return write
