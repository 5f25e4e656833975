"""The networks of blocks that differ in shape: in groups, each of one shape, as batched matrices.

Notation: blocks are numbered from 0, in whatever order their owner keeps them; the networks of a group follow the order
of their blocks. *Index* says which blocks; it may name them in any order, and what is returned follows it.
"""

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from models.block_network import BlockNetwork
from models.networks import make_network
from models.ops import Backend, serving
from models.ops.optimizers import make_optimizer, select_blocks
from models.shape import NetworkShape

ALL = slice(None)


class BlockNetworks(nn.Module):
    """
    Inputs
        group: (n_blocks,) int8, to which group the network of each block belongs
        groups: the networks of each group; of some there may be none
    """

    def __init__(self, group: Tensor, groups: Iterable[BlockNetwork]):
        super().__init__()
        self.groups = nn.ModuleList(groups)
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("place", places(group), persistent=False)

    @classmethod
    def make(cls, group: Tensor, shapes: Iterable[NetworkShape], a: float = 0.1) -> Self:
        """Networks of these shapes; inputs are as for `make_network`."""
        networks = (make_network(int((group == number).sum()), shape, a) for number, shape in enumerate(shapes))
        return cls(group, networks)

    @property
    def n_blocks(self) -> int:
        return len(self.group)

    def of_groups(self, index: Tensor | slice = ALL) -> list[tuple[BlockNetwork, Tensor | slice, Tensor | slice]]:
        """Each group, which of its networks are those of some blocks, and where these are among those blocks.

        A slice of the blocks is a slice of each group, so what is taken by it shares memory.
        """
        if len(self.groups) == 1:
            return [(self.groups[0], index, ALL)]
        group, place, found = self.group[index], self.place[index], []
        for number, network in enumerate(self.groups):
            where = (group == number).nonzero().squeeze(1)
            local = place[where]
            if isinstance(index, slice):
                first = int(local[0]) if len(local) else 0
                local = slice(first, first + len(local))
            found.append((network, local, where))
        return found

    def select(self, index: Tensor | slice) -> Self:
        """The networks of some blocks: a copy for a tensor of indices, views that share memory for a slice."""
        return type(self)(self.group[index], [network.select(local) for network, local, _ in self.of_groups(index)])

    def is_finite(self) -> Tensor:
        """(n_blocks,) whether all parameters of a block are finite numbers."""
        found = self.of_groups()
        return _placed([network.is_finite() for network, *_ in found], [where for *_, where in found])

    def write_(self, index: Tensor, part: Self) -> None:
        """Copy the parameters of `part` over those of some blocks."""
        for (network, local, _), new in zip(self.of_groups(index), part.groups, strict=True):
            network.write_(local, new)

    def silence_(self, index: Tensor) -> None:
        """Make some blocks predict a constant, as `BlockNetwork.silence_` does."""
        for network, local, _ in self.of_groups(index):
            network.silence_(local)

    def set_amplitude_(self, amplitude: Tensor) -> None:
        """Of each block, (n_blocks,)."""
        for network, _, where in self.of_groups():
            network.amplitude.view(-1).copy_(amplitude[where])

    def predict(self, backend: Backend, index: Tensor | slice, coords: Tensor) -> Tensor:
        """(n_index, n_points, n_out) of some blocks at encoded coordinates (n_points, n_in), as backends predict."""
        found = self.of_groups(index)
        if len(found) > 1:
            found = [one for one in found if len(one[2])] or found[:1]
        parts = [serving(backend, network.shape).predict(network, local, coords) for network, local, _ in found]
        return _placed(parts, [where for _, _, where in found])

    def tensors(self) -> list[dict[str, Tensor]]:
        """What each group is made of, by name."""
        return [dict(network.state_dict()) for network in self.groups]

    def load_tensors(self, tensors: list[dict[str, Tensor]]) -> None:
        """The inverse of `tensors`; ValueError, RuntimeError or the like for others."""
        for network, of_group in zip(self.groups, tensors, strict=True):
            network.load_state_dict(of_group)


def _placed(parts: list[Tensor], where: list[Tensor | slice]) -> Tensor:
    """One tensor from parts of it, each of which belongs where it is said; one part alone is all of it."""
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for part, place in zip(parts, where, strict=True):
        whole[place] = part
    return whole


def places(group: Tensor) -> Tensor:
    """(n_blocks,) the number of each block within its group, from the group of each; -1 where that is none, below 0."""
    place = torch.full_like(group, -1, dtype=torch.int64)
    for number in group[group >= 0].unique().tolist():
        is_mine = group == number
        place[is_mine] = torch.arange(int(is_mine.sum()), device=group.device)
    return place


def make_optimizers(
    networks: BlockNetworks, lr: float, moments: list[list[list[Tensor]]] | None, kind: str, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """An optimizer for each group; inputs are as for `make_optimizer`, the moments of each group."""
    moments = moments or [None] * len(networks.groups)
    return [
        make_optimizer(network, lr, of_group, kind, betas)
        for network, of_group in zip(networks.groups, moments, strict=True)
    ]


def select_all(
    networks: BlockNetworks, optimizers: list[torch.optim.Optimizer], index: Tensor | slice
) -> tuple[BlockNetworks, list[torch.optim.Optimizer]]:
    """The networks of some blocks and their optimizers, as `select_blocks` selects those of one group."""
    found = zip(networks.of_groups(index), optimizers, strict=True)
    parts = [select_blocks(network, optimizer, local) for (network, local, _), optimizer in found]
    return BlockNetworks(networks.group[index], [network for network, _ in parts]), [one for _, one in parts]


def fit_points(
    backend: Backend,
    networks: BlockNetworks,
    optimizers: list[torch.optim.Optimizer],
    coords: Tensor,
    target: Tensor,
    order: Tensor,
    batch_size: int,
    lr: Tensor,
) -> Tensor:
    """Train every block for some epochs, in place, group by group, as `Backend.fit_points` does: (n_epochs, n_blocks)
    losses."""
    losses, places_of = [], []
    for (network, _, where), optimizer in zip(networks.of_groups(), optimizers, strict=True):
        if network.n_blocks:
            fit = serving(backend, network.shape).fit_points
            losses.append(fit(network, optimizer, coords, target[where], order, batch_size, lr).T)
            places_of.append(where)
    return _placed(losses, places_of).T
