"""What networks of blocks have in common: many tiny networks of one shape, one a block, as batched matrices.

Notation: a *level's network* is the networks of all its blocks; *index* says which of these, along dimension 0 of
every parameter. Blocks never see each other: prediction b depends on the parameters b alone.
"""

from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from models.shape import NetworkShape
from utils.rng import block_uniform


class BlockNetwork(nn.Module):
    """n_blocks networks of one shape, whose layers are linear but for what a subclass puts between them.

    Parameters
        weight.{l}  (n_blocks, n_in, n_out) of each linear layer
        bias.{l}    (n_blocks, 1, n_out)
    Buffers
        amplitude   (n_blocks, 1, 1) the largest residual of each block

    Inputs
        widths: of the inputs of the linear layers, and of the output
    """

    def __init__(self, n_blocks: int, shape: NetworkShape, widths: list[int]):
        super().__init__()
        self.shape = shape
        self.weight = nn.ParameterList(torch.zeros(n_blocks, fan_in, fan_out) for fan_in, fan_out in pairwise(widths))
        self.bias = nn.ParameterList(torch.zeros(n_blocks, 1, fan_out) for fan_out in widths[1:])
        self.register_buffer("amplitude", torch.ones(n_blocks, 1, 1))

    @property
    def n_blocks(self) -> int:
        return len(self.amplitude)

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def activation_width(self) -> int:
        """Values that one point takes up on its way through the network of one block."""
        raise NotImplementedError

    def features(self, coords: Tensor) -> Tensor:
        """(n_blocks, n_points, n_hidden) what the last linear layer takes, at encoded coordinates (n_points, n_in)."""
        raise NotImplementedError

    def before_output(self, values: Tensor) -> Tensor:
        """What the last linear layer gives where the prediction is `values` (n_blocks, n_points, n_out); for a sine
        nearly so, where it is small."""
        raise NotImplementedError

    def random_tensors(self) -> list[Tensor]:
        """Tensors of the shapes that `init_` takes: each parameter, once for every number drawn for its elements."""
        raise NotImplementedError

    def init_(self, values: list[Tensor]) -> None:
        """Set the parameters from values uniform in [-1, 1), shaped like `random_tensors`."""
        raise NotImplementedError

    def select(self, index: Tensor | slice) -> Self:
        """The networks of some blocks: a copy for a tensor of indices, views that share memory for a slice."""
        part = type(self)(0, self.shape)
        for mine, theirs in zip(self.children(), part.children(), strict=True):
            for layer, parameter in enumerate(mine):
                theirs[layer] = nn.Parameter(parameter.detach()[index])
        part.amplitude = self.amplitude[index]
        return part

    def is_finite(self) -> Tensor:
        """(n_blocks,) whether all parameters of a block are finite numbers."""
        return torch.stack([parameter.isfinite().flatten(1).all(1) for parameter in self.parameters()]).all(0)

    @torch.no_grad()
    def write_(self, index: Tensor, part: Self) -> None:
        """Copy the parameters of `part` over those of some blocks."""
        for mine, theirs in zip(self.parameters(), part.parameters(), strict=True):
            mine[index] = theirs

    @torch.no_grad()
    def silence_(self, index: Tensor | slice) -> None:
        """Make some blocks predict a constant: a residual of 0, or as a signal 1/2 (0 where the output is linear)."""
        for parameter in (self.weight[-1], self.bias[-1]):
            parameter[index] = 0


def init_blocks_(network: BlockNetwork, blocks: Tensor, seed: int, level: int) -> None:
    """Draw the initial parameters, a function of (seed, level, index in the grid) alone.

    Inputs
        blocks: (n_blocks,) ascending indices in the grid of the level
    """
    tensors = network.random_tensors()
    sizes = [tensor.shape[1:].numel() for tensor in tensors]
    values = block_uniform(seed, level, blocks, sum(sizes)).split(sizes, dim=1)
    network.init_([part.view(tensor.shape) for part, tensor in zip(values, tensors, strict=True)])
