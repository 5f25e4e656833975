"""What is known of the coefficients of cosines before they are decoded: their band of frequencies, and which others
tell how active their surroundings are. docs/format.md describes it."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

import numpy as np

from models.packed.integers import quarters
from models.shape import NetworkShape

N_BANDS, N_ACTIVITIES, N_CLASSES = 9, 12, 3
N_CONTEXTS = N_CLASSES * N_BANDS * N_ACTIVITIES
_UNIT = 64  # frequencies are counted in parts of half the highest one of a pixel


@dataclass(frozen=True)
class Contexts:
    """Of the coefficients of a part, which are numbered in C order; the lowest frequency is number 0.

    band: (n_coefficients,)
    first: (n_coefficients + 1,) where those begin whose activity each tells
    after: (n_after,) their numbers, all of them behind it
    weight: (n_after,) how much it counts to each
    """

    band: np.ndarray
    first: np.ndarray
    after: np.ndarray
    weight: np.ndarray


@lru_cache
def contexts_of(n: int, n_axes: int) -> Contexts:
    """Of parts of n coefficients along each of so many axes."""
    frequencies = np.array(list(product(range(n), repeat=n_axes)))
    squared = np.maximum(((_UNIT * frequencies // n) ** 2).sum(1), 1)
    band = np.where(frequencies.any(1), 1 + np.clip((quarters(squared) - 4) // 3, 0, N_BANDS - 2), 0)
    offsets = _offsets(n_axes)
    first, after, weight = [0], [], []
    for place in frequencies:
        for offset, counts in offsets:
            other = place + offset
            if other.min() >= 0 and other.max() < n:
                after.append(int(np.ravel_multi_index(tuple(other), (n,) * n_axes)))
                weight.append(counts)
        first.append(len(after))
    return Contexts(*(np.array(values, np.int32) for values in (band, first, after, weight)))


def _offsets(n_axes: int) -> list[tuple[np.ndarray, int]]:
    """Where those lie whose activity a coefficient tells, and how much it counts: all come behind it in C order."""
    along = np.eye(n_axes, dtype=int)
    found = [(step * axis, 3 - step) for axis in along for step in (1, 2)]
    return found + [(one + sign * other, 1) for one, other in combinations(along, 2) for sign in (-1, 1)]


def n_parts_of(shape: NetworkShape) -> int:
    """Parts of a block."""
    return int(np.prod([length // shape.n_hidden for length in shape.lengths]))


@lru_cache
def group_model(shape: NetworkShape) -> np.ndarray:
    """Networks of a shape as coefficients.c reads them, int32."""
    contexts = contexts_of(shape.n_hidden, shape.n_in)
    sizes = np.array([n_parts_of(shape), len(contexts.band)], np.int32)
    return np.concatenate([sizes, contexts.band, contexts.first, contexts.after, contexts.weight])
