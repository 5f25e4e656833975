"""How frequent the groups of a level are among the networks of its chunks: bounds from 0 to 2^14, one more than there
are groups."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from models.packed.slow_coder import TOTAL


def bounds_for(counts: np.ndarray) -> tuple[int, ...]:
    """Nearly in proportion to the blocks of each group; none is impossible."""
    shares = 1 + np.floor(counts / max(1, counts.sum()) * (TOTAL - len(counts))).astype(int)
    shares[counts.argmax()] += TOTAL - shares.sum()
    return (0, *np.cumsum(shares).tolist())


def check_bounds(starts: Sequence[int], n_groups: int) -> None:
    """ValueError for bounds that are none of so many groups."""
    if len(starts) != n_groups + 1 or not all(type(start) is int for start in starts):
        raise ValueError(f"groups {starts}")
    if starts[0] != 0 or starts[-1] != TOTAL or any(a > b for a, b in pairwise(starts)):
        raise ValueError(f"groups {starts}")
