"""How long a run still takes: an estimate, from what is left of it and its pace so far.

All blocks of a run have as many points, so work is counted in *block-epochs*: the training of one block for one epoch.
Two things make the estimate rough. Blocks that converge leave early, so it tends to be too long. And how many blocks of
the finer levels are active is known only once these are reached; until then it assumes as many as there can be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_TO_BEGIN, _TO_FINISH = 3, 10
"""Block-epochs that a block of the grid takes besides, measured with the best preset on a CPU: to decode the coarser
level and survey this one; and to load, decode and judge the finest."""

_LEAST_SECONDS = 1.0  # of training, before which a pace says little


def finer_blocks(n_active: int, most: Sequence[int], n_dims: int) -> list[int]:
    """How many active blocks each finer level can have: those that lie in an active block of the next coarser level.

    Inputs
        n_active: of this level
        most: blocks in the grid of each finer level, the next one first
    """
    found = []
    for n_blocks in most:
        n_active = min(n_blocks, n_active * 2**n_dims)
        found.append(n_active)
    return found


def training_left(
    n_training: int, epochs_left: float, n_waiting: int, n_epochs: int, finer: Sequence[tuple[int, int]] = ()
) -> float:
    """Block-epochs of training that are left if no more blocks converge.

    Inputs
        n_training, epochs_left: blocks that are in training, and their epochs to come
        n_waiting, n_epochs: blocks of this level that have yet to begin, and the epochs of the level
        finer: active blocks and epochs of each finer level
    """
    return n_training * epochs_left + n_waiting * n_epochs + sum(blocks * epochs for blocks, epochs in finer)


def other_work_left(grids: Sequence[int], index: int) -> int:
    """What else is left in level `index`, in block-epochs.

    Inputs
        grids: blocks in the grid of each level, the finest first
    """
    return _TO_BEGIN * sum(grids[:index]) + _TO_FINISH * grids[0]


@dataclass
class Pace:
    """Block-epochs of training, and the seconds that they took."""

    work: float = 0.0
    seconds: float = 0.0

    def add(self, work: float, seconds: float) -> None:
        self.work += work
        self.seconds += seconds

    def seconds_for(self, work: float, most: float = math.inf) -> float | None:
        """What so much work takes at this pace, but no more than `most` seconds; None where it is too early to say."""
        if self.work == 0 or self.seconds < _LEAST_SECONDS:
            return None
        return min(work * self.seconds / self.work, max(0.0, most))
