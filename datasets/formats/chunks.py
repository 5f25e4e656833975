"""Chunked pictures: windows to read, and rows grouped by chunk to write."""

import asyncio
import functools
from collections.abc import Iterable, Iterator
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from datasets.formats import DEPTHS, Pixels
from utils.channels import MOST_CHANNELS
from utils.errors import InputError, one_line
from utils.memory import check_memory

_COLOURS, _COLOURS_OF_VALUES = (1, 3, 4), (1, 3)  # values other than plain pixels have no alpha
_CHUNKS_AT_ONCE = 10  # of Zarr's reader
_CHUNK_COST = 2**13  # bytes that each chunk of a window takes, whether the file holds it or not


def picture_axes(shape: tuple[int, ...], is_scale: bool = False) -> str | None:
    """A letter for each axis, as `read_window` takes them, or None if no picture has the shape.

    Of the first and the last of three axes, that of 1, 3 or 4 entries is the channels'; else the shorter one, if it
    has at most 64.

    Inputs
        is_scale: of a group, where axes of length 1 (t, c and z of OME-Zarr) may come first
    """
    letters = "".join("-" if is_scale and len(shape) > 3 and n == 1 else "S" for n in shape[:-2])
    if len(shape) >= 2 and "S" not in letters:
        return letters + "YX"
    if letters.count("S") != 1:
        return None
    first, last = shape[letters.index("S")], shape[-1] if len(shape) == 3 else None
    if last in _COLOURS:
        return "YXS"
    if last is not None and first not in _COLOURS and last <= min(first, MOST_CHANNELS):
        return "YXS"
    return letters + "YX" if first <= MOST_CHANNELS else None


def array_pixels(path: Path, array: Any, axes: str, chunks: tuple[int, ...]) -> Pixels:
    """The picture in an array in memory, in a mapped file or of Zarr, of pixels or of `VALUES`.

    Inputs
        axes: as `read_window` takes them
        chunks: of the array, along its axes
    """
    rows, columns = axes.index("Y"), axes.index("X")
    dtype = array.dtype.newbyteorder("=")
    n_channels = array.shape[axes.index("S")] if "S" in axes else 1
    return Pixels(
        (array.shape[rows], array.shape[columns]),
        n_channels,
        DEPTHS.get(dtype, 16),
        1,
        (chunks[rows], chunks[columns]),
        functools.partial(read_window, path, array, axes),
        functools.partial(window_bytes, array, axes),
        dtype=None if dtype in DEPTHS else dtype,
        spectral=n_channels not in (_COLOURS if dtype in DEPTHS else _COLOURS_OF_VALUES),
    )


def read_window(path: Path, array: Any, axes: str, rows: slice, columns: slice) -> np.ndarray:
    """A window (h, w, c) of a mapped or a Zarr array.

    Inputs
        path: of its file, for messages
        axes: a letter for each axis: Y rows, X columns, S channels; of any other, the first entry is taken
    Errors
        InputError if the file is damaged, or the window does not fit into memory
    """
    index = tuple({"Y": rows, "X": columns, "S": slice(None)}.get(axis, 0) for axis in axes)
    size = array.shape[axes.index("Y")], array.shape[axes.index("X")]
    check_memory(path, size, window_bytes(array, axes, rows.stop - rows.start, columns.stop - columns.start))
    try:
        window = entries(array, index)
    except Exception as error:  # whatever damaged chunks raise
        raise InputError(f"{path} is damaged: its pixels cannot be read ({one_line(error)})") from error
    if "S" not in axes:
        window = window[..., None]
    elif axes.index("S") < axes.index("Y"):
        window = window.transpose(1, 2, 0)
    return window.astype(window.dtype.newbyteorder("="), copy=False)


def entries(array: Any, index: tuple[int | slice, ...]) -> np.ndarray:
    """array[index]; where a chunk fails, or the user interrupts, Zarr's reading of the others ends with it."""
    try:
        return np.asarray(array[index])
    except BaseException:
        if not isinstance(array, np.ndarray):
            from zarr.core.sync import sync  # mapped pages do without it

            sync(_cancel_others())
        raise


async def _cancel_others() -> None:
    """Cancel all other tasks of the running loop: left to themselves, they complain when the program ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def window_bytes(array: Any, axes: str, n_rows: int, n_columns: int) -> int:
    """Bytes of memory that `read_window` takes at its peak for such a window, with its values."""
    lengths = {"Y": n_rows, "X": n_columns, "S": None}
    shape = [lengths.get(axis, 1) or n for axis, n in zip(axes, array.shape, strict=True)]
    n_bytes = prod(shape) * array.dtype.itemsize * (1 if array.dtype.isnative else 2)
    if isinstance(array, np.ndarray):
        return n_bytes
    counts = (
        min(ceil(n / chunk) + 1, ceil(length / chunk))
        for n, chunk, length in zip(shape, array.chunks, array.shape, strict=True)
    )
    n_chunks = prod(counts)
    chunk_bytes = 2 * prod(array.chunks) * array.dtype.itemsize  # as it is unpacked, and as it is given on
    return n_bytes + min(n_chunks, _CHUNKS_AT_ONCE) * chunk_bytes + n_chunks * _CHUNK_COST


def regroup(rows: Iterable[np.ndarray], height: int) -> Iterator[np.ndarray]:
    """The same rows of a picture, `height` at a time; fewer at the end."""
    held, n_held = [], 0
    for some in rows:
        while len(some):
            part, some = some[: height - n_held], some[height - n_held :]
            held.append(part)
            n_held += len(part)
            if n_held == height:
                yield np.concatenate(held)
                held, n_held = [], 0
    if held:
        yield np.concatenate(held)
