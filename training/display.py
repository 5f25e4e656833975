"""The progress of a run on stderr: on a terminal and in a notebook a bar for each level, elsewhere lines."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from training.progress import Pace, finer_blocks, other_seconds_left, training_left
from training.spec import LevelSpec
from utils.bars import IS_IN_NOTEBOOK, tqdm
from utils.metrics import Metric

_LINES_APART = 5.0  # seconds, at least
_LONGER_APART = 1 / 50  # of the time so far: a day's run has hundreds of lines, not thousands


@dataclass(frozen=True)
class Standing:
    """How far the training of a level is.

    epoch: of the part in training
    level_epoch: the epoch of the level that this counts as
    n_training: blocks of the part that still train
    n_waiting: blocks of the level that wait for a later part
    quality: of the level
    """

    epoch: float
    level_epoch: float
    n_training: int
    n_waiting: int
    quality: float


class Display:
    """What the first process shows of a run while it trains.

    Inputs
        specs: of each level, the finest first
        blocks: in the grid of each level
        metric: that judges the fit
        deadline: `time.perf_counter()` after which the run ends
        is_silent: show nothing
    """

    def __init__(self, specs: list[LevelSpec], blocks: list[int], metric: Metric, deadline: float, is_silent: bool):
        self.specs = specs
        self.blocks = blocks
        self.metric = metric
        self.deadline = deadline
        self.is_silent = is_silent
        self.has_bar = not is_silent and (IS_IN_NOTEBOOK or sys.stderr.isatty())
        self.bar: tqdm | None = None
        self.pace = Pace()
        self.began = self.told_at = self.at = time.perf_counter()
        self.standing: Standing | None = None

    @contextmanager
    def level(self, spec: LevelSpec, n_active: int) -> Iterator[None]:
        """While entered, the active blocks of a level are trained."""
        self.spec, self.n_active, self.standing = spec, n_active, None
        self.pace.start_level()
        began = time.perf_counter()
        try:
            yield
            took = f"{n_active:,} blocks in {time.perf_counter() - began:.1f} s"
            if self.standing is not None:
                self.standing = replace(self.standing, n_training=0, n_waiting=0)
            self._show(took if self.has_bar else f"{took}{self._time_left()}", is_line=True)
        finally:
            if self.bar is not None:
                self.bar.close()
                self.bar = None

    def start(self, standing: Standing) -> None:
        """A part begins to train, or goes on."""
        self.standing, self.at = standing, time.perf_counter()
        if self.bar is None and self.has_bar:
            self.bar = tqdm(
                desc=f"level {self.spec.index}",
                total=self.spec.n_epochs,
                initial=standing.level_epoch,
                dynamic_ncols=True,
                miniters=0,
                bar_format="{desc}: |{bar}| epoch {n:.0f}/{total}{postfix}",
            )

    def update(self, standing: Standing, is_validated: bool) -> None:
        """The part has got further.

        Inputs
            is_validated: whether it has just been validated
        """
        now = time.perf_counter()
        self.pace.add(self.standing.n_training * (standing.epoch - self.standing.epoch), now - self.at)
        self.standing, self.at = standing, now
        n_blocks = standing.n_training + standing.n_waiting
        goes_on = standing.n_waiting or (standing.n_training and standing.epoch < self.spec.n_epochs)
        is_due = now - self.told_at > max(_LINES_APART, _LONGER_APART * (now - self.began))
        self._show(f"{n_blocks:,} blocks{self._time_left()}", is_line=bool(is_validated and goes_on and is_due))

    @contextmanager
    def rows(self, what: str, n_rows: int) -> Iterator[Callable[[int], None]]:
        """While entered, something is done row by row; what it gives is called with how many more are done."""
        with tqdm(
            desc=what,
            total=n_rows,
            dynamic_ncols=True,
            bar_format="{desc}: |{bar}| {percentage:.0f}%",
            leave=False,
            disable=not self.has_bar,
        ) as bar:
            yield bar.update

    def _time_left(self) -> str:
        """Of the whole run, in words; nothing where it is too early to say."""
        if self.standing is None:
            return ""
        standing, index, n_epochs = self.standing, self.spec.index, self.spec.n_epochs
        here = training_left(standing.n_training, n_epochs - standing.epoch, standing.n_waiting, n_epochs)
        n_blocks = finer_blocks(self.n_active, self.blocks[:index][::-1], len(self.spec.patch_size))
        finer = sum(blocks * spec.n_epochs for blocks, spec in zip(n_blocks, self.specs[:index][::-1], strict=True))
        training = self.pace.seconds_for(here, finer)
        if training is None:
            return ""
        points = [n_blocks * math.prod(self.spec.patch_size) for n_blocks in self.blocks]
        most = max(0.0, self.deadline - time.perf_counter())
        seconds = min(training + other_seconds_left(points, index), most)
        return f", about {tqdm.format_interval(math.ceil(seconds))} left"

    def _show(self, more: str, is_line: bool) -> None:
        """Say how far the level is, and more.

        Inputs
            is_line: where there is no bar, print a line
        """
        standing = self.standing
        if standing is None:
            text = "no block is trained" if self.n_active else "no block is active"
        else:
            # of a level that leaves detail to finer ones the quality says nothing
            text = f"{self.metric.brief.format(standing.quality)}, {more}" if self.spec.is_whole else more
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(standing.level_epoch - self.bar.n)
            if is_line:
                self.bar.refresh()
        elif is_line and not self.is_silent:
            self.told_at = time.perf_counter()
            epoch = "" if standing is None else f"epoch {standing.level_epoch:.0f}/{self.spec.n_epochs}, "
            tqdm.write(f"level {self.spec.index}: {epoch}{text}", file=sys.stderr)
