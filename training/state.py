"""Where the training of a part of a level stands: one record, and how processes share it out.

Of k processes, number r trains blocks r, r + k, r + 2 k, ... of the part. A field says how its values are shared out:

    per block     an entry for each block of the part
    per network   an entry for each network that still trains, in the order of `survivors`
    total         a sum over the blocks, which the first process takes over
    common        the same in all processes
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor

_PER_BLOCK, _PER_NETWORK, _TOTAL, _COMMON = ({"shared": how} for how in ("block", "network", "total", "common"))


@dataclass
class PartState:
    """
    network: the parameters of all blocks, by name, as they were at the last validation
    twin: those of the networks that train
    moments: the optimizer's two of each parameter of the twin
    survivors: (n_survivors,) which blocks of the part these are
    epochs_done: (n_survivors,) by each of them
    block_sums: (n_blocks, 2) the metric's sums of each block at the last validation
    silent: (n_blocks,) bool, which diverged before their first validation and predict nothing
    n_epochs_done: by all blocks, at the last validation
    period_loss: (n_epochs,) sum of the losses over the training blocks, for each epoch since then
    n_diverged: blocks that have diverged
    block_epochs: epochs of training, summed over the blocks
    """

    network: dict[str, Tensor] = field(metadata=_PER_BLOCK)
    twin: dict[str, Tensor] = field(metadata=_PER_NETWORK)
    moments: list[list[Tensor]] = field(metadata=_PER_NETWORK)
    survivors: Tensor = field(metadata=_PER_NETWORK)
    epochs_done: Tensor = field(metadata=_PER_NETWORK)
    block_sums: Tensor = field(metadata=_PER_BLOCK)
    silent: Tensor = field(metadata=_PER_BLOCK)
    n_epochs_done: int = field(metadata=_COMMON)
    period_loss: Tensor = field(metadata=_TOTAL)
    n_diverged: int = field(metadata=_TOTAL)
    block_epochs: int = field(metadata=_TOTAL)

    def record(self) -> dict[str, Any]:
        """Plain data, which the constructor takes by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def split(self, rank: int, size: int) -> Self:
        """What one of so many processes takes over from the state of a part."""
        mine = (self.survivors % size == rank).nonzero().squeeze(1)
        mine = mine[self.epochs_done[mine].argsort(stable=True)]  # those that are as far as each other lie together
        split_by = {
            "block": lambda values: values[rank::size].contiguous(),
            "network": lambda values: values[mine],
            "total": lambda value: value if rank == 0 else value * 0,
            "common": lambda value: value,
        }
        part = self._map(split_by, self)
        part.survivors = torch.div(part.survivors, size, rounding_mode="floor")
        return part

    @classmethod
    def merge(cls, states: list[Self]) -> Self:
        """The state of a part from those of the processes that share it out, in their order: the inverse of `split`."""
        if len(states) == 1:
            return states[0]
        survivors = torch.cat([state.survivors * len(states) + rank for rank, state in enumerate(states)])
        order = survivors.argsort()
        merge_by = {
            "block": lambda *values: interleave(values),
            "network": lambda *values: torch.cat(values)[order],
            "total": lambda *values: sum(values),
            "common": lambda value, *_: value,
        }
        whole = cls._map(merge_by, *states)
        whole.survivors = survivors[order]
        return whole

    @classmethod
    def _map(cls, functions: dict[str, Callable], *states: Self) -> Self:
        """A state whose every value is what the function for its field makes of the values of the given states."""
        return cls(
            **{
                one.name: _apply(functions[one.metadata["shared"]], *(getattr(state, one.name) for state in states))
                for one in fields(cls)
            }
        )


def _apply(function: Callable, *values: Any) -> Any:
    """A function of values that may lie in dicts and lists, which all have the same structure."""
    first = values[0]
    if isinstance(first, dict):
        return {name: _apply(function, *(value[name] for value in values)) for name in first}
    if isinstance(first, list):
        return [_apply(function, *parts) for parts in zip(*values, strict=True)]
    return function(*values)


def interleave(parts: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """One tensor from the entries that k processes have of it: number r has entries r, r + k, r + 2 k, ..."""
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
