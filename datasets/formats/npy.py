"""Arrays of NumPy, mapped: pixels, floating point numbers or integers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets.formats import DEPTHS, VALUES, Pixels
from datasets.formats.chunks import array_pixels, picture_axes
from utils.errors import InputError, one_line
from utils.files import aside

_SUPPORTED = "use uint8, uint16, int16 or floating point numbers (h, w), (h, w, c) or (c, h, w), c of 1 to 64"


def open_pixels(path: Path) -> Pixels:
    """Map the array."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a damaged header raises
        raise InputError(f"{path} is not a readable .npy file ({one_line(error)})") from error
    axes = picture_axes(array.shape)
    if axes is None or array.size == 0 or array.dtype.newbyteorder("=") not in DEPTHS.keys() | VALUES:
        raise InputError(f"{path} holds {array.dtype} values of shape {array.shape}; {_SUPPORTED}")
    return array_pixels(path, array, axes, (1,) * array.ndim)


def write_pixels(path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Write an array (h, w) or (h, w, c)."""
    with open_array(path, shape[:2] if shape[2] == 1 else shape, dtype) as write:
        for some in rows:
            write(some)


@contextmanager
def open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a .npy file: the function that this yields takes the next rows of the array, (n_rows, *shape[1:]).

    Errors
        InputError for a file that cannot be written
    """
    with aside(path) as file:
        write_header(file, shape, dtype)
        yield lambda values: file.write(np.ascontiguousarray(values, dtype).data)


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """What an array begins with in a .npy file; its values follow in the order of C."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
