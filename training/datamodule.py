"""The batches of one level. A training batch is a *visit*: a range of the training blocks for a run of epochs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datasets.targets import BlockTarget
from training.lightning import LightningDataModule
from utils.blocks import runs
from utils.ranks import Ranks


@dataclass(frozen=True)
class Visit:
    """
    index: range of the twin's networks
    epochs: run of consecutive epochs
    target: (n_blocks, n_points, c) of their blocks
    """

    index: slice
    epochs: range
    target: Tensor

    def to(self, device: torch.device) -> "Visit":
        return replace(self, target=self.target.to(device))


@dataclass(frozen=True)
class Check:
    """
    index: range of the twin's networks
    signal, base, wanted: (n_blocks, n_points, c) of their blocks, the last what networks have to predict
    true: (n_blocks, n_points) bool, False in the padding
    """

    index: slice
    signal: Tensor
    base: Tensor
    wanted: Tensor
    true: Tensor

    def to(self, device: torch.device) -> "Check":
        tensors = {name: getattr(self, name).to(device) for name in ("signal", "base", "wanted", "true")}
        return replace(self, **tensors)


class LevelDataModule(LightningDataModule):
    """The visits and checks of the blocks that are still training; the module that trains tells which these are.

    All processes make as many visits in a period, some of them of no block, so that they can stop and save together.

    Inputs
        target: of the module's blocks, on the device that trains
        ranks: the processes that train
        visit_epochs: epochs of a visit, at most
        visit_points: points times epochs of a visit, at most, unless a single block has more
        visit_blocks: blocks of a visit, at most
        check_blocks: blocks of a check, at most
    """

    def __init__(
        self,
        target: BlockTarget,
        ranks: Ranks,
        *,
        visit_epochs: int,
        visit_points: int,
        visit_blocks: int,
        check_blocks: int,
    ):
        super().__init__()
        self.target = target
        self.ranks = ranks
        self.visit_epochs = visit_epochs
        self.visit_points = visit_points
        self.visit_blocks = visit_blocks
        self.check_blocks = check_blocks

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Stream(self._visits), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(_Stream(self._checks), batch_size=None)

    def _visits(self) -> Iterator[Visit]:
        """Those of a period that are left."""
        module = self.trainer.lightning_module
        n_points = self.target.base.shape[1]
        n_run = max(1, min(self.visit_epochs, self.visit_points // n_points))
        end = module.period.stop
        plan = []
        for index, epochs in plan_visits(module.epochs_done, end, n_run):
            n_blocks = max(1, min(self.visit_blocks, self.visit_points // (n_points * len(epochs))))
            plan += [(some, epochs) for some in _cut(index, n_blocks)]
        nothing = (slice(0, 0), range(end, end))
        plan += [nothing] * (self.ranks.max(len(plan)) - len(plan))
        for index, epochs in plan:
            yield Visit(index, epochs, self.target.wanted(module.survivors[index]))

    def _checks(self) -> Iterator[Check]:
        survivors = self.trainer.lightning_module.survivors
        for index in _cut(slice(0, len(survivors)), self.check_blocks):
            some = survivors[index]
            signal, base = self.target.gather(some)
            yield Check(index, signal, base, self.target.level.wanted(signal, base), self.target.true_points(some))


def plan_visits(epochs_done: Tensor, end: int, n_epochs: int) -> Iterator[tuple[slice, range]]:
    """The order in which networks are trained: those furthest behind first, until all have been through all epochs.

    Inputs
        epochs_done: (n_networks,) by each
        end: epochs that all have done in the end
        n_epochs: at a time, at most
    """
    done = epochs_done.tolist()
    while done and (low := min(done)) < end:
        behind = [index for index, epochs in enumerate(done) if epochs == low]
        epochs = range(low, min([low + n_epochs, end, *(epochs for epochs in done if epochs > low)]))
        for first, last in runs(behind, len(behind)):
            yield slice(first, last), epochs
        for index in behind:
            done[index] = epochs.stop


class _Stream(IterableDataset):
    """Batches made one by one as they are asked for: which blocks train changes from period to period."""

    def __init__(self, batches: Callable[[], Iterator]):
        self.batches = batches

    def __iter__(self) -> Iterator:
        return self.batches()


def _cut(index: slice, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, index.stop)) for start in range(index.start, index.stop, step))
