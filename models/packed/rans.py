"""The entropy coder of quantised chunks: rANS (Duda, arXiv 1311.2540) with fixed tables, in integers alone.

Tables are of the magnitudes of normally distributed integers, one for each standard deviation 2^(scale / 4).
"""

import ctypes
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from models.packed import slow_coder
from models.packed.slow_coder import LOWEST, TOTAL, WIDEST
from utils.compiler import load_library
from utils.errors import KernelError

SIGNED, MAGNITUDE, BITS, SYMBOL, SKIPPED = range(5)
"""Kinds of values: with a sign; without; so many bits as its scale says; a symbol of a table that is given; none."""

_RATIOS = (
    *(1440801, 15004422, 78665070, 253857248, 581260615, 1044178424, 1580030169, 2117713904, 2605029347),
    *(3015876649, 3344923893, 3599040369, 3790295335, 3931635878, 4034748382, 4109287957, 4162825044, 4201101925),
    *(4228380000, 4247775344, 4261543595),
)
"""2^32 exp(-1 / (2 sigma^2)) of each table, how much rarer 1 is than 0."""


def cumulative(ratio: int) -> list[int]:
    """The bounds of the magnitudes 0, 1, ... and of the escape, of 2^14, where 1 is `ratio` / 2^32 as frequent as 0.

    The ratio of the normal density at k + 1 and at k falls by ratio^2 with each k. All magnitudes but 0 count twice.
    """
    weights, weight, step = [2**31], 2**32, ratio
    while (weight := weight * step >> 32) >= 2**17:
        weights.append(weight)
        step = (step * ratio >> 32) * ratio >> 32
    escape = 4
    left = TOTAL - escape - len(weights)
    counts = [1 + weight * left // sum(weights) for weight in weights]
    counts[0] += TOTAL - escape - sum(counts)
    return [0, *accumulate(counts), TOTAL]


@lru_cache
def tables() -> list[list[int]]:
    """`cumulative` of each scale from LOWEST to WIDEST."""
    assert len(_RATIOS) == WIDEST - LOWEST + 1
    return [cumulative(ratio) for ratio in _RATIOS]


@lru_cache
def _compiled() -> ctypes.CDLL | None:
    """The coder in C, or None where it cannot be compiled."""
    try:
        library = load_library(Path(__file__).with_name("coder.c"), ("-O3", "-shared", "-fPIC"))
    except (KernelError, OSError):
        return None
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.decode_chunk.argtypes = [ctypes.c_char_p, size, number, pointer, pointer, pointer]
    library.encode_values.argtypes = [pointer, pointer, pointer, size, pointer, pointer, size]
    library.decode_chunk.restype = library.encode_values.restype = size
    bounds = np.array([number for table in tables() for number in (len(table) - 2, *table)], np.int32)
    library.set_tables(ctypes.c_void_p(bounds.ctypes.data))
    return library


def encode_values(values: np.ndarray, scales: np.ndarray, kinds: np.ndarray, starts: np.ndarray) -> bytes:
    """
    Inputs
        values: (n,) int32
        scales: (n,) int32, in quarters of octaves; bits for values that are BITS
        kinds: (n,) uint8
        starts: (n_symbols + 1,) int32, the bounds of SYMBOLs, from 0 to 2^14
    """
    values, scales, starts = (np.ascontiguousarray(array, np.int32) for array in (values, scales, starts))
    kinds = np.ascontiguousarray(kinds, np.uint8)
    library = _compiled()
    if library is None:
        return slow_coder.encode_values(values, scales, kinds, starts, tables())
    buffer = np.empty(64 + 8 * len(values), np.uint8)
    pointers = [array.ctypes.data for array in (values, scales, kinds)]
    begin = library.encode_values(*pointers, len(values), starts.ctypes.data, buffer.ctypes.data, len(buffer))
    assert begin >= 0
    return buffer[begin:].tobytes()


def decode_chunk(data: bytes, n_active: int, model: list[int], most: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Inputs
        model: as `slow_coder.Model` packs it
        most: values of a block, at most
    Outputs
        group of each active block (n_active,) int32; the values of all blocks, one after another, (n_values,) int32
    Errors
        ValueError for data that is not a chunk of such blocks
    """
    library = _compiled()
    if library is None:
        return slow_coder.decode_chunk(data, n_active, model, tables())
    model = np.array(model, np.int32)
    groups, values = np.zeros(n_active, np.int32), np.empty(n_active * most, np.int32)
    pointers = [array.ctypes.data for array in (model, groups, values)]
    n_values = library.decode_chunk(data, len(data), n_active, *pointers)
    if n_values < 0:
        raise ValueError("a chunk that does not decode")
    return groups, values[:n_values]
