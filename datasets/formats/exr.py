"""OpenEXR: the RGB or the only channel of a file's first part."""

from collections.abc import Collection, Iterable
from math import prod
from pathlib import Path

import numpy as np
import OpenEXR

from datasets.formats import Pixels
from datasets.formats.encoded import check_size, reading, unreadable, whole
from utils.errors import InputError
from utils.files import aside

_COLOURS = ("R", "G", "B")
_MOST_PACKED = 2**12  # pixels for a byte of a file, at most
_MOST_SIDE = 2**24
_MOST_NAMED = 8  # channels, in a message


def open_pixels(path: Path) -> Pixels:
    """Open a picture by its header."""
    with reading(path), OpenEXR.File(str(path), header_only=True) as file:
        header, n_parts = file.header(), len(file.parts)
        low, high = (np.asarray(corner, np.int64) for corner in header["dataWindow"])
        size = tuple((high - low + 1)[::-1].tolist())
        there = {channel.name: (channel.xSampling, channel.ySampling) for channel in header["channels"]}
    if min(size) < 1 or max(size) > _MOST_SIDE:
        raise unreadable(path, "it has no pixels")
    names = _chosen(path, there)
    n_bytes = prod(size) * 4 * (len(there) + len(names))
    check_size(path, size, n_bytes, prod(size) // _MOST_PACKED)
    left = sorted(there.keys() - set(names))
    notes = (f"{path}: {_named(left)} left out",) if left else ()
    dtype = np.dtype(np.float32)  # or half of it, as the pixels show
    return whole(
        size, len(names), 16, 1, lambda: _decode(path, names, size), n_bytes, n_parts, dtype=dtype, notes=notes
    )


def _chosen(path: Path, there: dict[str, tuple[int, int]]) -> tuple[str, ...]:
    """The channels to read; InputError if the file does not tell which, or they are smaller than the picture."""
    names = _COLOURS if set(_COLOURS) <= set(there) else tuple(name for name in there if name != "A")
    if names != _COLOURS and len(names) != 1:
        raise InputError(f"{path} has {_named(there)}; use R, G and B, or a single one")
    if any(there[name] != (1, 1) for name in names):
        raise InputError(f"{path} has channels of several sizes; convert it to R, G and B")
    return names


def _named(names: Collection[str]) -> str:
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return f"channel{'s' if len(names) > 1 else ''} {', '.join(list(names)[:_MOST_NAMED])}{more}"


def _decode(path: Path, names: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
    with reading(path), OpenEXR.File(str(path), separate_channels=True) as file:
        channels = file.channels()
        return np.stack([channels[name].pixels for name in names], axis=2).reshape(*size, len(names))


def write_pixels(path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Write a picture as a whole, of half or single precision."""
    values = np.concatenate(list(rows))
    names = _COLOURS if shape[2] == 3 else ("Y",)
    channels = {name: np.ascontiguousarray(values[..., number]) for number, name in enumerate(names)}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with aside(path) as file:
        OpenEXR.File(header, channels).write(file)
