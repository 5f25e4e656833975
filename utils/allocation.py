"""How many units the network of each block gets, so that all parameters together leave the least error.

A cosine transform tells how hard a block is before anything is fitted: a network of n parameters leaves about the error
that the 3/4 n largest cosines of its block leave. With that, blocks are given networks as transform coders give them
bits (Shoham and Gersho, Efficient bit allocation for an arbitrary set of quantizers, 1988): each gets the number of
units at which a parameter more would no longer lower the squared error by its *price*. A block of a coarser level may
have a network, and leave it to each of the blocks below it whether it needs one as well; or it is *split*: the blocks
below it have networks in its place (as in a quadtree; Sullivan and Baker, Efficient quadtree coding, 1994).

Where blocks are split, a level is no picture by itself. So that a coarse picture does not take all networks, every
third level is *whole*: its own errors count, as if it were the finest, and the levels below it build on it.

Notation: of k choices of a network the first has the fewest parameters; errors are mean squares in units of the signal,
until they are weighted; the *children* of a block are the 2^d blocks of the next finer level that lie on it, fewer at
the far edges.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.limits import APART

COSINES = 0.75
"""That do as well as a network, for each of its parameters."""

_STEPS = 60  # of a bisection: to the last digit


def is_whole(level: int) -> bool:
    """Whether a level is a picture by itself."""
    return level % APART == 0


def cosine_errors(blocks: Tensor, patch_size: tuple[int, ...], counts: Tensor) -> Tensor:
    """What the largest cosines of a block leave of its mean square, beside the mean colour.

    The channels of each block are decorrelated first (Karhunen and Loeve's transform), then its points along each axis
    by an orthonormal cosine transform of type II.

    Inputs
        blocks: (n_blocks, n_points, c)
        counts: (k,) numbers of cosines
    Outputs
        (n_blocks, k) float32, in squared units of the signal; rounded from double precision, so that it does not
        depend on which blocks are transformed together
    """
    _, n_points, n_channels = blocks.shape
    values = blocks.double()
    values = values - values.mean(1, keepdim=True)
    if n_channels > 1:
        _, axes = torch.linalg.eigh(values.mT @ values)
        values = values @ axes
    values = values.unflatten(1, patch_size)
    for axis, length in enumerate(patch_size, 1):
        values = torch.tensordot(values, _cosines(length), dims=([axis], [1])).movedim(-1, axis)
    energies = np.sort(values.flatten(1).square().float().numpy(), axis=1)  # the largest last
    sums = np.cumsum(energies, axis=1, dtype=np.float64)
    left = torch.from_numpy(np.pad(sums, ((0, 0), (1, 0))))[:, (n_points * n_channels - counts).clamp(min=0)]
    return (left / (n_points * n_channels)).float()


def _cosines(length: int) -> Tensor:
    """(length, length) float64, a cosine a row; the matrix is orthonormal."""
    frequency, place = torch.arange(length, dtype=torch.float64)[:, None], torch.arange(length) + 0.5
    rows = torch.cos(math.pi / length * frequency * place) * math.sqrt(2 / length)
    rows[0] /= math.sqrt(2)
    return rows


@dataclass(frozen=True)
class LevelCosts:
    """What the blocks of a level cost, by the choice of their networks.

    grid: blocks along each axis
    n_values: of a block, over its points and channels
    parameters: (k,) of each choice
    with_network: (n_grid, k) mean square errors that are left with each choice
    without: (n_grid,) of the level's own detail: what is left when the next coarser level is upsampled
    """

    grid: tuple[int, ...]
    n_values: int
    parameters: Tensor
    with_network: Tensor
    without: Tensor


@dataclass(frozen=True)
class _Verdict:
    """What is best for each block of a level.

    choice: (n_grid,) of its network, if it has one
    is_split: (n_grid,) bool, whether its children have networks in its place
    needs_none: (n_grid, n_children) bool, where it has a network, which of its children can do without
    """

    choice: Tensor
    is_split: Tensor
    needs_none: Tensor


def allocate(levels: list[LevelCosts], price: float) -> list[Tensor]:
    """The networks that cost least, a parameter counting as a squared error of `price`, summed over the values of the
    whole level that it serves. Coarsest blocks always have one.

    Inputs
        levels: the finest first
    Outputs
        for each level (n_grid,) int8, the choice of each block's network, -1 for none
    """
    choices = []
    for first in range(0, len(levels), APART):
        some = levels[first : first + APART]
        choices += _allocate(some, price, has_base=first + len(some) < len(levels))
    return choices


def _allocate(levels: list[LevelCosts], price: float, has_base: bool) -> list[Tensor]:
    """`allocate` for a whole level and those down to the next whole one, which they build on if it is there."""
    verdicts, is_open = _judge(levels, price, has_base)
    choices: list[Tensor] = []
    for index in reversed(range(len(levels))):
        verdict = verdicts[index]
        has_network = is_open & ~verdict.is_split
        choices.insert(0, torch.where(has_network, verdict.choice, -1).to(torch.int8))
        if index:
            is_open = is_open[:, None] & ~(has_network[:, None] & verdict.needs_none)
            is_open = _from_children(is_open, levels[index].grid, levels[index - 1].grid)
    return choices


def _judge(levels: list[LevelCosts], price: float, has_base: bool) -> tuple[list[_Verdict], Tensor]:
    """What is best for each block, from the finest level to the coarsest; and which of the coarsest need a network,
    their own or their children's."""
    verdicts: list[_Verdict] = []
    missed = cost = torch.empty(0)  # of the next finer level, without a network and at best
    for index, level in enumerate(levels):
        weight = level.n_values * 2.0 ** (index * len(level.grid))  # of the finest
        left, without = weight * level.with_network.double(), weight * level.without.double()
        if index == 0:
            cost, choice = (left + price * level.parameters).min(1)
            shown = torch.zeros_like(cost)  # the error where blocks show the level itself
            verdicts.append(_Verdict(choice, torch.zeros_like(choice, dtype=torch.bool), torch.empty(len(cost), 0)))
        else:
            finer = levels[index - 1].grid
            missed, covered = _to_children(missed, finer, level.grid), _to_children(cost, finer, level.grid)
            exists = _to_children(torch.ones(math.prod(finer), dtype=torch.bool), finer, level.grid)
            share = left[:, :, None] / exists.sum(1)[:, None, None]
            each = torch.minimum(missed[:, None] + share, covered[:, None])  # 0 where there is no child
            own, choice = (each.sum(2) + price * level.parameters).min(1)
            split = covered.sum(1)
            is_split = (split < own) & (has_base or index + 1 < len(levels))
            chosen = share.take_along_dim(choice[:, None, None], 1).squeeze(1)
            verdicts.append(_Verdict(choice, is_split, missed + chosen <= covered))
            cost, shown = torch.where(is_split, split, own), missed.sum(1)
        missed = shown + without
    return verdicts, (missed > cost) if has_base else torch.ones_like(cost, dtype=torch.bool)


def count_parameters(levels: list[LevelCosts], choices: list[Tensor]) -> int:
    """Of the networks of all levels."""
    return sum(
        int(level.parameters[choice[choice >= 0].long()].sum()) for level, choice in zip(levels, choices, strict=True)
    )


def price_for(levels: list[LevelCosts], n_parameters: int) -> float:
    """The least price at which networks have at most so many parameters; or where none does, the highest."""
    low, high = -30.0, 10.0  # of its logarithm
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if count_parameters(levels, allocate(levels, 10**middle)) > n_parameters:
            low = middle
        else:
            high = middle
    return 10**high


def _to_children(values: Tensor, fine: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """(n_fine,) of the blocks of a grid -> (n_grid, 2^d) of the children of each block of the coarser one, else 0."""
    padded = values.new_zeros([2 * length for length in grid])
    padded[tuple(slice(length) for length in fine)] = values.view(fine)
    return _pairs(padded).flatten(0, len(grid) - 1).flatten(1)


def _from_children(values: Tensor, grid: tuple[int, ...], fine: tuple[int, ...]) -> Tensor:
    """The inverse of `_to_children`."""
    whole = values.new_empty([2 * length for length in grid])
    view = _pairs(whole)
    view.copy_(values.view(view.shape))
    return whole[tuple(slice(length) for length in fine)].flatten()


def _pairs(values: Tensor) -> Tensor:
    """(2 n, 2 m, ...) as (n, m, ..., 2, 2, ...), sharing its memory."""
    n_dims = values.ndim
    for axis in range(n_dims):
        values = values.unflatten(2 * axis, (-1, 2))
    return values.permute(*range(0, 2 * n_dims, 2), *range(1, 2 * n_dims, 2))
