"""Networks that start from those of the next coarser level, of whose blocks theirs are quarters (eighths).

Notation: a block's *parent* is the block of the next coarser level that holds it. With x the coordinates in the block,
those in the parent are x / 2 + offset, the offset -1/2 or 1/2 along each axis.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from models.block_network import BlockNetwork
from models.encoding import encoded_width, restriction
from models.gabor import GaborMLP
from models.level import Level

Sharing = Literal["copy", "inherit"]


@torch.no_grad()
def share_weights_(level: Level, blocks: Tensor, coarser: Level, how: Sharing) -> None:
    """Start the networks of a level from those of their parents; where a parent has none, they stay as they are.

    copy     the parent's parameters, halved for pictures (Saragadam et al., MINER, ECCV 2022, algorithm 1)
    inherit  the hidden features that the parent has at the same places. A residual starts at zero; a prediction of the
             signal itself starts as the parent's

    Inputs
        level: whose networks, of one group, are those of the blocks
        blocks: (n_blocks,) indices in its grid
        coarser: the next coarser level, of one group as well
    """
    places = torch.stack(torch.unravel_index(blocks, level.active_grid.shape), dim=1)
    parents = coarser.network_grid[tuple((places // 2).T)]
    index = (parents >= 0).nonzero().squeeze(1)
    [mine], [theirs] = level.networks, coarser.networks
    started = theirs.select(parents[index]).to(blocks.device)
    factor = 1.0
    if how == "inherit":
        started = restricted(started, places[index] % 2 - 0.5, level.frequencies, coarser.frequencies)
        if level.residual:
            started.silence_(slice(None))
    elif len(level.size) == 2:
        factor = 0.5
    mine, theirs = mine.state_dict(), started.state_dict()
    for name in mine.keys() & theirs.keys() - {"amplitude"}:
        mine[name][index] = factor * theirs[name]


@torch.no_grad()
def restricted(
    network: BlockNetwork, offsets: Tensor, frequencies: Sequence[float] | None, coarse: Sequence[float] | None
) -> BlockNetwork:
    """Networks that take the coordinates of a part of their block, and predict there what they predict now.

    Inputs
        network: n_blocks networks, changed in place
        offsets: (n_blocks, d) of the part, -1/2 or 1/2
        frequencies: of the encoding that they take from then on, with half of each of the coarse ones
        coarse: of the encoding that they take
    """
    if isinstance(network, GaborMLP):
        return network.restricted(offsets)
    first, bias = network.weight[0], network.bias[0]
    weight = first.new_empty(len(first), encoded_width(offsets.shape[1], frequencies), first.shape[2])
    for offset in product((-0.5, 0.5), repeat=offsets.shape[1]):
        index = (offsets == offsets.new_tensor(offset)).all(1)
        matrix, constant = restriction(offset, frequencies, coarse)
        weight[index] = matrix.to(first) @ first[index]
        bias[index] += constant.to(first) @ first[index]
    network.weight[0] = nn.Parameter(weight)
    network.shape = replace(network.shape, n_in=weight.shape[1])
    return network
