"""The decoder of coefficients.c in Python, for machines without a compiler: some seconds for a million values."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from models.packed.contexts import N_ACTIVITIES, N_BANDS, N_CLASSES, Contexts, contexts_of, n_parts_of
from models.packed.slow_coder import Reader, Tables, quarters
from models.shape import NetworkShape

NARROWEST, BROADEST = -16, 8
"""Scales of the narrowest and of the broadest table."""


def decode_coefficients(
    data: bytes, n_active: int, shapes: Sequence[NetworkShape], starts: list[int], scales: Sequence[int], tables: Tables
) -> tuple[np.ndarray, np.ndarray]:
    """As `coefficients.decode_chunk`."""
    reader = Reader(data, tables)
    groups = [reader.symbol(starts) for _ in range(n_active)]
    each = [(n_parts_of(shape), contexts_of(shape.n_hidden, shape.n_in)) for shape in shapes]
    values = []
    for n_parts, contexts in (each[group] for group in groups):
        for _ in range(n_parts):
            first: list[int] = []
            for channel in range(shapes[0].n_out):
                of_class = scales[min(channel, N_CLASSES - 1) * N_BANDS * N_ACTIVITIES :]
                found = _channel(reader, contexts, of_class, first)
                first = first or found
                values += found
    reader.end()
    return np.array(groups, np.int32), np.array(values, np.int32).reshape(n_active, -1)


def _channel(reader: Reader, contexts: Contexts, scales: Sequence[int], first: list[int]) -> list[int]:
    """The coefficients of a channel of a part, by the scales of its class of channels.

    Inputs
        first: those of the first channel; none for that itself
    """
    found: list[int] = []
    after, weight, sums = contexts.after.tolist(), contexts.weight.tolist(), [0] * len(contexts.band)
    for number, (band, (start, stop)) in enumerate(
        zip(contexts.band.tolist(), pairwise(contexts.first.tolist()), strict=True)
    ):
        active = sums[number] + (abs(first[number]) if first else 0)
        activity = min(quarters(active + 1) - 1, N_ACTIVITIES - 1) if active else 0
        scale = scales[band * N_ACTIVITIES + activity]
        n_low = max(0, (scale - BROADEST + 3) // 4)
        found.append(reader.signed(reader.magnitude_from(reader.tables[scale - 4 * n_low - NARROWEST], n_low)))
        for place in range(start, stop) if found[-1] else ():
            sums[after[place]] += weight[place] * abs(found[-1])
    return found
