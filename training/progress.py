"""How long a run still takes: an estimate, from what is left of it and its pace so far.

All blocks of a run have as many points, so training is counted in *block-epochs*: one block for one epoch. The estimate
is rough for two reasons. Blocks that converge leave early, so it tends to be too long. And how many blocks of the finer
levels are active is known only once these are reached; until then it assumes as many as there can be.
"""

from collections.abc import Sequence

_TO_BEGIN, _TO_FINISH = 100e-9, 300e-9
"""Seconds a point, besides training, measured on two cores: to decode the coarser level and survey this one; and to
load, decode and judge the finest."""

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


def training_left(n_training: int, epochs_left: float, n_waiting: int, n_epochs: int) -> float:
    """Block-epochs of training that are left in a level if no more blocks converge.

    Inputs
        n_training, epochs_left: blocks that are in training, and their epochs to come
        n_waiting, n_epochs: blocks that have yet to begin, and the epochs of the level
    """
    return n_training * epochs_left + n_waiting * n_epochs


def other_seconds_left(points: Sequence[int], index: int) -> float:
    """What a run takes besides training, once level `index` is trained.

    Inputs
        points: of the grid of each level, the finest first
    """
    return _TO_BEGIN * sum(points[:index]) + _TO_FINISH * points[0]


class Pace:
    """Block-epochs of training, and the seconds that they took, level by level."""

    def __init__(self):
        self.levels: list[list[float]] = []

    def start_level(self) -> None:
        self.levels.append([0.0, 0.0])

    def add(self, work: float, seconds: float) -> None:
        self.levels[-1][0] += work
        self.levels[-1][1] += seconds

    def seconds_for(self, here: float, finer: float) -> float | None:
        """What so much work in this level and in finer ones takes; None where it is too early to say.

        A few blocks do not fill the processor, so a level has a pace of its own, and the finer ones the best so far.
        """
        if sum(seconds for _, seconds in self.levels) < _LEAST_SECONDS:
            return None
        paces = [work / seconds for work, seconds in self.levels if work and seconds]
        if not paces:
            return None
        own = self.levels[-1]
        return here / (own[0] / own[1] if all(own) else max(paces)) + finer / max(paces)
