"""The batches of one level. A training batch is a *visit*: a range of the training blocks for a run of epochs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datasets.targets import LevelTarget


@dataclass(frozen=True)
class Visit:
    """
    rows: range of the training blocks
    epochs: run of consecutive epochs
    target: (n_blocks, n_points, c) of those blocks
    """

    rows: slice
    epochs: range
    target: Tensor

    def to(self, device: torch.device) -> "Visit":
        return replace(self, target=self.target.to(device))


@dataclass(frozen=True)
class Check:
    """
    rows: range of the training blocks
    signal, base: (n_blocks, n_points, c) of those blocks
    true: (n_blocks, n_points) bool, False in the padding
    """

    rows: slice
    signal: Tensor
    base: Tensor
    true: Tensor

    def to(self, device: torch.device) -> "Check":
        return replace(self, signal=self.signal.to(device), base=self.base.to(device), true=self.true.to(device))


class LevelDataModule(LightningDataModule):
    """The visits and checks of the blocks that are still training; the module that trains tells which these are.

    Inputs
        target: of the level, on the device that trains
        n_epochs: epochs of the level
        val_freq: epochs between two validations; together they are one period, an epoch to Lightning
        visit_epochs: epochs of a visit, at most
        visit_points: points times epochs of a visit, at most, unless a single block has more
        visit_blocks: blocks of a visit, at most
        check_blocks: blocks of a check, at most
    """

    def __init__(
        self,
        target: LevelTarget,
        *,
        n_epochs: int,
        val_freq: int,
        visit_epochs: int,
        visit_points: int,
        visit_blocks: int,
        check_blocks: int,
    ):
        super().__init__()
        self.target = target
        self.n_epochs = n_epochs
        self.val_freq = val_freq
        self.visit_epochs = visit_epochs
        self.visit_points = visit_points
        self.visit_blocks = visit_blocks
        self.check_blocks = check_blocks

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Stream(self._visits), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(_Stream(self._checks), batch_size=None)

    def _training_blocks(self) -> Tensor:
        return self.trainer.lightning_module.training_blocks

    def _visits(self) -> Iterator[Visit]:
        """Those of a period that are left: blocks are taken through a run of epochs, range by range."""
        module = self.trainer.lightning_module
        blocks = self._training_blocks()
        n_points = prod(self.target.patch_size)
        period_end = min(self.n_epochs, (module.n_epochs_done // self.val_freq + 1) * self.val_freq)
        n_run = max(1, min(self.visit_epochs, self.visit_points // n_points))
        run, first = module.run, module.n_rows_done
        if first == len(blocks):
            run, first = range(run.stop, run.stop), 0
        while run or run.start < period_end:
            run = run or range(run.start, min(run.start + n_run, period_end))
            n_blocks = max(1, min(self.visit_blocks, self.visit_points // (n_points * len(run))))
            for rows in _ranges(first, len(blocks), n_blocks):
                yield Visit(rows, run, self.target.wanted(blocks[rows]))
            run, first = range(run.stop, run.stop), 0

    def _checks(self) -> Iterator[Check]:
        blocks = self._training_blocks()
        for rows in _ranges(0, len(blocks), self.check_blocks):
            yield Check(rows, *self.target.gather(blocks[rows]), self.target.true_points(blocks[rows]))


class _Stream(IterableDataset):
    """Batches made one by one as they are asked for: which blocks train changes from period to period."""

    def __init__(self, batches: Callable[[], Iterator]):
        self.batches = batches

    def __iter__(self) -> Iterator:
        return self.batches()


def _ranges(first: int, last: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, last)) for start in range(first, last, step))
