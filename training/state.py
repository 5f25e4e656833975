"""Where the training of a part of a level stands: one record, and how processes share it out.

Of k processes, number r trains blocks r, r + k, r + 2 k, ... of the part. A field says how its values are shared out:

    per block     an entry for each block of the part
    per network   an entry for each network that still trains, in the order of `survivors`
    grouped       likewise, but a list of one for each group, in the order of its blocks (`models.block_networks`)
    total         a sum over the blocks, which the first process takes over
    common        the same in all processes
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor

from models.block_networks import places

_PER_BLOCK, _PER_NETWORK, _TOTAL, _COMMON = ({"shared": how} for how in ("block", "network", "total", "common"))
_BLOCKS_OF_GROUP, _NETWORKS_OF_GROUP = ({"shared": how} for how in ("grouped blocks", "grouped networks"))

_GROUPED = ("network", "twin", "moments")


@dataclass
class PartState:
    """
    group: (n_blocks,) int8, the group of each block
    network: the parameters of all blocks, by name, as they were at the last validation
    twin: those of the networks that train
    moments: the optimizers' two of each parameter of the twin
    survivors: (n_survivors,) which blocks of the part these are
    epochs_done: (n_survivors,) by each of them
    block_sums: (n_blocks, 2) the metric's sums of each block at the last validation
    silent: (n_blocks,) bool, which diverged before their first validation and predict nothing
    n_epochs_done: by all blocks, at the last validation
    period_loss: (n_epochs,) sum of the losses over the training blocks, for each epoch since then
    n_diverged: blocks that have diverged
    block_epochs: epochs of training, summed over the blocks
    """

    group: Tensor = field(metadata=_PER_BLOCK)
    network: list[dict[str, Tensor]] = field(metadata=_BLOCKS_OF_GROUP)
    twin: list[dict[str, Tensor]] = field(metadata=_NETWORKS_OF_GROUP)
    moments: list[list[list[Tensor]]] = field(metadata=_NETWORKS_OF_GROUP)
    survivors: Tensor = field(metadata=_PER_NETWORK)
    epochs_done: Tensor = field(metadata=_PER_NETWORK)
    block_sums: Tensor = field(metadata=_PER_BLOCK)
    silent: Tensor = field(metadata=_PER_BLOCK)
    n_epochs_done: int = field(metadata=_COMMON)
    period_loss: Tensor = field(metadata=_TOTAL)
    n_diverged: int = field(metadata=_TOTAL)
    block_epochs: int = field(metadata=_TOTAL)

    def record(self) -> dict[str, Any]:
        """Plain data, from which `from_record` makes it again; of a single group, what it holds itself."""
        record = {one.name: getattr(self, one.name) for one in fields(self)}
        if len(self.network) == 1:
            del record["group"]
            record |= {name: record[name][0] for name in _GROUPED}
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        if "group" not in record:
            group = torch.zeros(len(record["silent"]), dtype=torch.int8)
            record = record | {"group": group} | {name: [record[name]] for name in _GROUPED}
        return cls(**record)

    def split(self, rank: int, size: int) -> Self:
        """What one of so many processes takes over from the state of a part."""
        mine = (self.survivors % size == rank).nonzero().squeeze(1)
        mine = mine[self.epochs_done[mine].argsort(stable=True)]  # those that are as far as each other lie together
        blocks, of_survivors = torch.arange(rank, len(self.group), size), self.group[self.survivors]
        split_by = {
            "block": lambda values: values[blocks],
            "network": lambda values: values[mine],
            "grouped blocks": lambda by_group: _pick(by_group, self.group, blocks),
            "grouped networks": lambda by_group: _pick(by_group, of_survivors, mine),
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
        by_block = interleaving([len(state.group) for state in states])
        survivors = torch.cat([state.survivors * len(states) + rank for rank, state in enumerate(states)])
        by_survivor = survivors.argsort()
        of_blocks = torch.cat([state.group for state in states])
        of_survivors = torch.cat([state.group[state.survivors] for state in states])
        merge_by = {
            "block": lambda *values: torch.cat(values)[by_block],
            "network": lambda *values: torch.cat(values)[by_survivor],
            "grouped blocks": lambda *parts: join_groups(parts, of_blocks, by_block),
            "grouped networks": lambda *parts: join_groups(parts, of_survivors, by_survivor),
            "total": lambda *values: sum(values),
            "common": lambda value, *_: value,
        }
        whole = cls._map(merge_by, *states)
        whole.survivors = survivors[by_survivor]
        return whole

    @classmethod
    def _map(cls, functions: dict[str, Callable], *states: Self) -> Self:
        """A state whose every field is what the function for it makes of those of the given states."""
        values = {one: [getattr(state, one.name) for state in states] for one in fields(cls)}
        return cls(**{one.name: functions[one.metadata["shared"]](*of_states) for one, of_states in values.items()})


def _apply(function: Callable, *values: Any) -> Any:
    """A function of values that may lie in dicts and lists, which all have the same structure."""
    first = values[0]
    if isinstance(first, dict):
        return {name: _apply(function, *(value[name] for value in values)) for name in first}
    if isinstance(first, list):
        return [_apply(function, *parts) for parts in zip(*values, strict=True)]
    return function(*values)


def _pick(by_group: list[Any], group: Tensor, index: Tensor) -> list[Any]:
    """Of tensors of each group those of some blocks, in the order of the index.

    Inputs
        group: (n_blocks,) of each block
        index: which of the blocks
    """
    index = index.to(group.device)
    place, wanted = places(group), group[index]
    picked = []
    for number, tensors in enumerate(by_group):
        local = place[index[wanted == number]]
        picked.append(_apply(lambda tensor, local=local: tensor[local], tensors))
    return picked


def join_groups(parts: Sequence[list[Any]], group: Tensor, order: Tensor) -> list[Any]:
    """Tensors of each group from those that k processes have of it.

    Inputs
        group: (n_blocks,) of the blocks of the processes, one process after another
        order: (n_blocks,) in which these are wanted
    """
    if len(parts) == 1:
        return parts[0]  # in order already, and a copy would take memory
    return _pick(_apply(lambda *tensors: torch.cat(tensors), *parts), group, order)


def interleaving(counts: list[int]) -> Tensor:
    """The order of the entries of k processes, one process after another, in which number r has so many entries r,
    r + k, r + 2 k, ... of the whole."""
    return torch.cat([torch.arange(count) * len(counts) + rank for rank, count in enumerate(counts)]).argsort()
