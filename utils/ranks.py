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

    def share_of(self, n: int, rank: int | None = None) -> range:
        """Which of n things are this process's, or another's: consecutive ones, as many for each as can be."""
        rank = self.rank if rank is None else rank
        return range(rank * n // self.size, (rank + 1) * n // self.size)

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

    def deal(self, rows: Tensor, n: int) -> Tensor:
        """Of a tensor of n rows, of which each process has its `share_of(n)`, process number r gets rows r, r + size,
        r + 2 size, ..."""
        if self.size == 1:
            return rows
        start = self.share_of(n).start
        pieces = [rows[(rank - start) % self.size :: self.size] for rank in range(self.size)]
        shares = [self.share_of(n, rank) for rank in range(self.size)]
        counts = [len(share[(self.rank - share.start) % self.size :: self.size]) for share in shares]
        mine = rows.new_empty(sum(counts), *rows.shape[1:])
        dist.all_to_all_single(
            mine.unsqueeze(-1).view(torch.uint8),  # gloo does not know all types
            torch.cat(pieces).unsqueeze(-1).view(torch.uint8),
            counts,
            [len(piece) for piece in pieces],
            group=self.group,
        )
        return mine

    def share(self, record: Any = None) -> Any:
        """What the first one has, in every process; it comes when the first is there."""
        return self.exchange(record if self.is_first else None)[0]
