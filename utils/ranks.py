"""The processes that share out the blocks of a level. Blocks never see each other, so little has to be said."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """One of `size` processes, number `rank`; alone unless a process group is given.

    What says something is called by all of them, and waits for the others.
    """

    def __init__(self, rank: int = 0, size: int = 1, group: dist.ProcessGroup | None = None):
        self.rank = rank
        self.size = size
        self.group = group

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share_of(self, n: int) -> range:
        """Which of n things are this process's, as many for each as can be."""
        return range(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def max(self, value: int) -> int:
        """The largest of their values."""
        if self.size == 1:
            return value
        largest = torch.tensor(int(value))
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.group)
        return int(largest)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of their tensors, of one shape, on the CPU."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total, group=self.group)
        return total

    def gather(self, record: Any) -> list[Any] | None:
        """What they all have, in the first process; None in the others."""
        if self.size == 1:
            return [record]
        records = [None] * self.size if self.is_first else None
        dist.gather_object(record, records, group=self.group)
        return records

    def exchange(self, record: Any) -> list[Any]:
        """What they all have, in every process."""
        if self.size == 1:
            return [record]
        records = [None] * self.size
        dist.all_gather_object(records, record, group=self.group)
        return records

    def share(self, record: Any = None) -> Any:
        """What the first one has, in every process; it comes when the first is there."""
        return self.exchange(record if self.is_first else None)[0]
