"""NumPy's .npy files of an array (d, h, w)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from datasets.formats.npy import open_array
from datasets.occupancy import map_array
from datasets.volumes import Voxels, Write
from utils.errors import InputError


def open_voxels(path: Path) -> Voxels:
    """Map the array."""
    stored = map_array(path)
    if stored.dtype.names is not None or stored.dtype == np.bool_:
        raise InputError(f"{path} holds the voxels of a mesh; leave --task out")
    if stored.ndim != 3:
        raise InputError(f"{path} holds an array of shape {stored.shape}; a volume is (d, h, w)")
    return Voxels(stored.shape, stored.dtype, lambda start, stop: stored[start:stop])


@contextmanager
def writing(path: Path, size: tuple[int, int, int], dtype: np.dtype, source: dict[str, Any]) -> Iterator[Write]:
    """Write the array."""
    with open_array(path, size, dtype) as write:
        yield write
