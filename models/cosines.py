"""Networks of one linear layer, over products of cosines of the position."""

import math

import torch
from torch import Tensor, nn

from models.block_network import BlockNetwork
from models.shape import NetworkShape


class BlockCosines(BlockNetwork):
    """n_blocks networks whose outputs are linear in the cosines of a cosine transform of type II (Ahmed, Natarajan and
    Rao, 1974): at the pixels of a block, these are an orthonormal basis.

    A block is cut into parts of `shape.n_hidden` pixels along each axis, and a cosine is 0 outside its part.

    Parameters
        weight.0  (n_blocks, n_cosines, n_out), where cosines lie as the pixels of a block do: in C order, those of each
            part in its place, the lowest frequency first. Most are 0
    """

    def __init__(self, n_blocks: int, shape: NetworkShape):
        super().__init__(n_blocks, shape, [math.prod(shape.lengths), shape.n_out])
        self.bias = nn.ParameterList()  # the lowest frequency is a constant

    @property
    def n_parameters(self) -> int:
        """Those that are not 0."""
        return int(self.weight[0].count_nonzero())

    def forward(self, coords: Tensor) -> Tensor:
        """
        Inputs
            coords: (n_points, n_in) coordinates, shared by all blocks
        Outputs
            (n_blocks, n_points, n_out) prediction, in units of the signal
        """
        return self.features(coords) @ self.weight[0]

    def features(self, coords: Tensor) -> Tensor:
        """(n_points, n_cosines), the same for all blocks."""
        features = coords.new_ones(len(coords), 1)
        for axis, length in enumerate(self.shape.lengths):
            along = axis_cosines(coords[:, axis], length, self.shape.n_hidden)
            features = (features[:, :, None] * along[:, None]).flatten(1)
        return features


def axis_cosines(positions: Tensor, length: int, n: int) -> Tensor:
    """(n_positions, length) cosines along an axis.

    Inputs
        positions: in [-1, 1], where a block of `length` pixels lies
        n: pixels of a part
    """
    within = (positions.double() + 1) / 2 * length
    part = torch.div(within, n, rounding_mode="floor").clamp(0, length // n - 1)
    frequency = torch.arange(n, dtype=torch.float64, device=positions.device)
    values = torch.cos(math.pi / n * frequency * (within - n * part)[:, None]) * math.sqrt(2 / n)
    values[:, 0] /= math.sqrt(2)
    table = values.new_zeros(len(positions), length // n, n)
    table[torch.arange(len(positions), device=positions.device), part.long()] = values
    return table.flatten(1).float()


def axes_of(coords: Tensor) -> list[Tensor] | None:
    """The positions along each axis of points that are all combinations of these, in C order; None for other points."""
    axes = [column.unique() for column in coords.T]
    if math.prod(map(len, axes)) != len(coords):
        return None
    return axes if torch.equal(torch.cartesian_prod(*axes).view(coords.shape), coords) else None
