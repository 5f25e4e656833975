"""The processes that share the blocks of a level. Blocks never see each other, so little is exchanged."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import is_out_of_memory


class PeerLost(RuntimeError):
    """Another process is gone."""


def _say(collective: Callable, *arguments: Any, **options: Any) -> None:
    """Call one of torch's collectives; PeerLost where a process no longer answers."""
    try:
        collective(*arguments, **options)
    except RuntimeError as error:  # gloo's errors have no type of their own
        if is_out_of_memory(error):
            raise
        raise PeerLost(str(error)) from error


class Ranks:
    """One of `size` processes, number `rank`; alone unless a size and a process group are given.

    Methods that exchange something are called by all processes, and wait for all of them.

    Inputs
        local_rank, n_local: rank and size among the processes of this machine
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        n_local: int = 1,
        group: dist.ProcessGroup | None = None,
    ):
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self.n_local = n_local
        self.group = group

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share_of(self, n: int, rank: int | None = None) -> range:
        """Which of n things are this process's, or another's: consecutive ones, shared as evenly as possible."""
        rank = self.rank if rank is None else rank
        return range(rank * n // self.size, (rank + 1) * n // self.size)

    def max(self, value: int) -> int:
        """The largest value of all processes."""
        if self.size == 1:
            return value
        largest = torch.tensor(int(value))
        _say(dist.all_reduce, largest, dist.ReduceOp.MAX, self.group)
        return int(largest)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the tensors of all processes, of one shape, on the CPU."""
        if self.size == 1:
            return values
        total = values.clone()
        _say(dist.all_reduce, total, group=self.group)
        return total

    def gather(self, record: Any) -> list[Any] | None:
        """The records of all processes, in the first process; None in the others."""
        if self.size == 1:
            return [record]
        records = [None] * self.size if self.is_first else None
        _say(dist.gather_object, record, records, group=self.group)
        return records

    def exchange(self, record: Any) -> list[Any]:
        """The records of all processes, in every process."""
        if self.size == 1:
            return [record]
        records = [None] * self.size
        _say(dist.all_gather_object, records, record, group=self.group)
        return records

    def deal(self, entries: Tensor, n: int) -> Tensor:
        """Deal out a tensor of n entries, of which each process holds its `share_of(n)`: process r gets entries r,
        r + size, r + 2 size, ..."""
        if self.size == 1:
            return entries
        start = self.share_of(n).start
        pieces = [entries[(rank - start) % self.size :: self.size] for rank in range(self.size)]
        shares = [self.share_of(n, rank) for rank in range(self.size)]
        counts = [len(share[(self.rank - share.start) % self.size :: self.size]) for share in shares]
        mine = entries.new_empty(sum(counts), *entries.shape[1:])
        _say(
            dist.all_to_all_single,
            mine.unsqueeze(-1).view(torch.uint8),  # gloo does not support all types
            torch.cat(pieces).unsqueeze(-1).view(torch.uint8),
            counts,
            [len(piece) for piece in pieces],
            group=self.group,
        )
        return mine

    def share(self, record: Any = None) -> Any:
        """The record of the first process, in every process."""
        return self.exchange(record if self.is_first else None)[0]
