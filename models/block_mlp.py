"""Many tiny MLPs of one shape, one a block, as batched matrices.

Notation: layer l of every block is one weight (n_blocks, n_in, n_out) and one bias (n_blocks, 1, n_out), applied with
bmm. Blocks never see each other: row b of the prediction depends on row b of the parameters alone.
"""

import math
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from utils.rng import block_uniform

Output = Literal["sigmoid", "sine", "linear"]

_WIDE_INPUT = 64


class BlockMLP(nn.Module):
    """n_blocks MLPs with Gaussian (Ramasinghe and Lucey, arXiv 2111.15135) or sine hidden activations (Sitzmann et al.,
    SIREN, NeurIPS 2020).

    hidden layers   h = exp(-x^2 / (2 a^2)), one trainable a a block and layer; with omega h = sin(omega x)
    output sigmoid  the signal itself
    output sine     a residual, amplitude * sin(a x), a trainable, the amplitude fixed
    output linear   either, x itself

    Parameters
        weight.{l}  (n_blocks, n_in, n_out)
        bias.{l}    (n_blocks, 1, n_out)
        a.{l}       (n_blocks, 1, 1), of each Gaussian hidden layer and of a sine output
    Buffers
        amplitude   (n_blocks, 1, 1), read by a sine output only
    """

    def __init__(
        self,
        n_blocks: int,
        *,
        n_in: int,
        n_out: int,
        n_layers: int,
        n_hidden: int,
        output: Output,
        omega: float | None = None,
        a: float = 0.1,
    ):
        super().__init__()
        if output not in get_args(Output):
            raise ValueError(f"output {output!r} is none of {get_args(Output)}")
        if not (omega is None or (isinstance(omega, float) and 0 < omega < math.inf)):
            raise ValueError(f"omega {omega!r} is no positive number")
        self.shape = dict(n_in=n_in, n_out=n_out, n_layers=n_layers, n_hidden=n_hidden, output=output, omega=omega)
        self.output = output
        self.omega = omega
        widths = [n_in, *[n_hidden] * (n_layers - 1), n_out]
        n_widths = (n_layers - 1 if omega is None else 0) + (output == "sine")
        self.weight = nn.ParameterList(torch.zeros(n_blocks, fan_in, fan_out) for fan_in, fan_out in pairwise(widths))
        self.bias = nn.ParameterList(torch.zeros(n_blocks, 1, fan_out) for fan_out in widths[1:])
        self.a = nn.ParameterList(torch.full((n_blocks, 1, 1), a) for _ in range(n_widths))
        self.register_buffer("amplitude", torch.ones(n_blocks, 1, 1))

    @property
    def n_blocks(self) -> int:
        return len(self.amplitude)

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def packed_order(self) -> list[nn.Parameter]:
        """The parameters in the order in which kernels pack those of a block: layer by layer, then the widths a."""
        layers = zip(self.weight, self.bias, strict=True)
        return [parameter for layer in layers for parameter in layer] + list(self.a)

    def forward(self, coords: Tensor) -> Tensor:
        """
        Inputs
            coords: (n_points, n_in) encoded coordinates, shared by all blocks
        Outputs
            (n_blocks, n_points, n_out) prediction, in units of the signal
        """
        x = _shared_product(coords, self.weight[0]) + self.bias[0]
        for layer, (weight, bias) in enumerate(zip(self.weight[1:], self.bias[1:], strict=True)):
            h = torch.exp(-(x**2) / (2 * self.a[layer] ** 2)) if self.omega is None else torch.sin(self.omega * x)
            x = torch.baddbmm(bias, h, weight)
        if self.output == "sigmoid":
            return 0.5 + 0.5 * torch.tanh(0.5 * x)  # torch.sigmoid rounds by where a value lies in memory
        if self.output == "linear":
            return x
        return self.amplitude * torch.sin(self.a[-1] * x)

    def select(self, rows: Tensor | slice) -> "BlockMLP":
        """The networks of some blocks: a copy for a tensor of indices, views that share memory for a slice."""
        part = BlockMLP(0, **self.shape)
        for mine, theirs in ((self.weight, part.weight), (self.bias, part.bias), (self.a, part.a)):
            for layer, parameter in enumerate(mine):
                theirs[layer] = nn.Parameter(parameter.detach()[rows])
        part.amplitude = self.amplitude[rows]
        return part

    def is_finite(self) -> Tensor:
        """(n_blocks,) whether all parameters of a block are numbers."""
        return torch.stack([parameter.isfinite().flatten(1).all(1) for parameter in self.parameters()]).all(0)

    @torch.no_grad()
    def write_(self, rows: Tensor, part: "BlockMLP") -> None:
        """Copy the parameters of `part` over those of some blocks."""
        for mine, theirs in zip(self.parameters(), part.parameters(), strict=True):
            mine[rows] = theirs

    @torch.no_grad()
    def silence_(self, rows: Tensor) -> None:
        """Make some blocks predict a constant: no residual, or as a signal 1/2 (black where the output is linear)."""
        for parameter in (self.weight[-1], self.bias[-1]):
            parameter[rows] = 0


def _shared_product(coords: Tensor, weight: Tensor) -> Tensor:
    """(n_points, n_in) times each of (n_blocks, n_in, n_out): wide inputs as one large product, which is faster."""
    n_blocks, n_in, n_out = weight.shape
    if n_in < _WIDE_INPUT:  # there bmm gains little, and its bits do not depend on which blocks are in the batch
        return coords.expand(n_blocks, -1, -1) @ weight
    columns = weight.transpose(0, 1).reshape(n_in, n_blocks * n_out)
    return (coords @ columns).view(len(coords), n_blocks, n_out).transpose(0, 1)


@torch.no_grad()
def init_blocks_(network: BlockMLP, blocks: Tensor, seed: int, level: int) -> None:
    """Draw weights and biases uniform in +-1/sqrt(fan_in), a function of (seed, level, index in the grid) alone.

    With sines weights are in +-sqrt(6/fan_in)/omega, those of the first layer in +-1/fan_in (Sitzmann et al.,
    section 3.2).

    Inputs
        blocks: (n_blocks,) ascending indices in the grid of the level
    """
    layers = list(zip(network.weight, network.bias, strict=True))
    sizes = [parameter.shape[1:].numel() for layer in layers for parameter in layer]
    values = iter(block_uniform(seed, level, blocks, sum(sizes)).split(sizes, dim=1))
    for layer in layers:
        fan_in = layer[0].shape[1]
        divisors = [math.sqrt(fan_in)] * 2
        if network.omega is not None:
            divisors[0] = fan_in if layer is layers[0] else math.sqrt(fan_in / 6) * network.omega
        for parameter, divisor in zip(layer, divisors, strict=True):
            parameter.copy_(next(values).view(parameter.shape) / divisor)
