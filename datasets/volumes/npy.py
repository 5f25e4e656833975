"""NumPy's .npy files of an array (d, h, w), or of one with an axis of channels, the first or the last."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from datasets.formats.npy import open_array, write_header
from datasets.occupancy import map_array
from datasets.volumes import Voxels, Write
from datasets.volumes.axes import array_axes
from datasets.volumes.planes import channel_by_channel
from utils.errors import InputError
from utils.files import aside


def open_voxels(path: Path, has_times: bool) -> Voxels:
    """Map the array."""
    stored = map_array(path)
    if stored.dtype.names is not None or stored.dtype == np.bool_:
        raise InputError(f"{path} holds the voxels of a mesh; leave --task out")
    return Voxels(array_axes(path, stored.shape, has_times), stored.shape, stored.dtype, stored.__getitem__)


@contextmanager
def writing(path: Path, shape: tuple[int, int, int, int], dtype: np.dtype, source: dict[str, Any]) -> Iterator[Write]:
    """Write the array: several channels where the file that was fitted has them, else last."""
    n_channels, *size = shape
    if n_channels > 1 and not source.get("axes", "ZYXC").endswith("C"):
        with aside(path) as file:
            write_header(file, shape, dtype)
            yield channel_by_channel(file, file.tell(), shape, dtype)
    else:
        with open_array(path, (*size, n_channels) if n_channels > 1 else tuple(size), dtype) as write:
            yield lambda values: write(np.moveaxis(values, 0, -1))
