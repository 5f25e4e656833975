"""Many tiny networks of one shape, one a block, as batched matrices.

Notation: layer l of every block is one weight (n_blocks, n_in, n_out) and one bias (n_blocks, 1, n_out), applied with
bmm. Blocks never see each other: row b of the prediction depends on row b of the parameters alone.
"""

import math
from itertools import pairwise
from typing import Any, Literal, Self, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

from utils.rng import block_uniform

Output = Literal["sigmoid", "sine", "linear"]

_WIDE_INPUT = 64


class BlockNetwork(nn.Module):
    """What the kinds of networks share: rows of parameters, one a block, in lists whose tensors have blocks first.

    The last layer, of `weight` and `bias`, is linear.

    shape: all that the constructor takes besides the number of blocks
    amplitude: (n_blocks, 1, 1) buffer, the largest residual of each block
    """

    def __init__(self, n_blocks: int, shape: dict[str, Any], widths: list[int]):
        """
        Inputs
            widths: of what the layers take, and of the output
        """
        super().__init__()
        omega = shape["omega"]
        if not (omega is None or (isinstance(omega, float) and 0 < omega < math.inf)):
            raise ValueError(f"omega {omega!r} is no positive number")
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
        """Values that a point takes on its way through the network of a block."""
        raise NotImplementedError

    def drawn(self) -> list[Tensor]:
        """A tensor of the shape of each that `init_` takes; parameters, once for each draw that they are made of."""
        raise NotImplementedError

    def init_(self, values: list[Tensor]) -> None:
        """Set the parameters from values uniform in [-1, 1), shaped like `drawn`."""
        raise NotImplementedError

    def select(self, rows: Tensor | slice) -> Self:
        """The networks of some blocks: a copy for a tensor of indices, views that share memory for a slice."""
        part = type(self)(0, **self.shape)
        for mine, theirs in zip(self.children(), part.children(), strict=True):
            for layer, parameter in enumerate(mine):
                theirs[layer] = nn.Parameter(parameter.detach()[rows])
        part.amplitude = self.amplitude[rows]
        return part

    def is_finite(self) -> Tensor:
        """(n_blocks,) whether all parameters of a block are numbers."""
        return torch.stack([parameter.isfinite().flatten(1).all(1) for parameter in self.parameters()]).all(0)

    @torch.no_grad()
    def write_(self, rows: Tensor, part: Self) -> None:
        """Copy the parameters of `part` over those of some blocks."""
        for mine, theirs in zip(self.parameters(), part.parameters(), strict=True):
            mine[rows] = theirs

    @torch.no_grad()
    def silence_(self, rows: Tensor | slice) -> None:
        """Make some blocks predict a constant: no residual, or as a signal 1/2 (black where the output is linear)."""
        for parameter in (self.weight[-1], self.bias[-1]):
            parameter[rows] = 0


class BlockMLP(BlockNetwork):
    """n_blocks MLPs with Gaussian (Ramasinghe and Lucey, arXiv 2111.15135) or sine hidden activations (Sitzmann et al.,
    SIREN, NeurIPS 2020).

    hidden layers   h = exp(-x^2 / (2 a^2)) - centre, one trainable a a block and layer; with omega h = sin(omega x)
    output sigmoid  the signal itself
    output sine     a residual, amplitude * sin(a x), a trainable, the amplitude fixed
    output linear   either, x itself

    The centre changes nothing of what a network can be, for the next layer's bias makes up for it. But layers whose
    inputs have a mean near zero train faster (LeCun et al., Efficient BackProp, 1998, section 4.3).

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
        centre: float = 0.0,
        a: float = 0.1,
    ):
        shape = dict(n_in=n_in, n_out=n_out, n_layers=n_layers, n_hidden=n_hidden, output=output, omega=omega)
        super().__init__(n_blocks, shape | {"centre": centre}, [n_in, *[n_hidden] * (n_layers - 1), n_out])
        if not (isinstance(centre, float) and 0 <= centre < 1):
            raise ValueError(f"centre {centre!r} is none of a Gaussian")
        if output not in get_args(Output):
            raise ValueError(f"output {output!r} is none of {get_args(Output)}")
        self.output = output
        self.omega = omega
        self.centre = centre
        n_widths = (n_layers - 1 if omega is None else 0) + (output == "sine")
        self.a = nn.ParameterList(torch.full((n_blocks, 1, 1), a) for _ in range(n_widths))

    @property
    def activation_width(self) -> int:
        return sum(weight.shape[1] for weight in self.weight) + self.shape["n_out"]

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
            if self.omega is None:
                h = torch.exp(-(x**2) / (2 * self.a[layer] ** 2)) - self.centre
            else:
                h = torch.sin(self.omega * x)
            x = torch.baddbmm(bias, h, weight)
        if self.output == "sigmoid":
            return 0.5 + 0.5 * torch.tanh(0.5 * x)  # torch.sigmoid rounds by where a value lies in memory
        if self.output == "linear":
            return x
        return self.amplitude * torch.sin(self.a[-1] * x)

    def drawn(self) -> list[Tensor]:
        return [parameter for layer in zip(self.weight, self.bias, strict=True) for parameter in layer]

    @torch.no_grad()
    def init_(self, values: list[Tensor]) -> None:
        """Weights and biases uniform in +-1/sqrt(fan_in).

        With sines weights are in +-sqrt(6/fan_in)/omega, those of the first layer in +-1/fan_in (Sitzmann et al.,
        section 3.2).
        """
        for layer, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            fan_in = weight.shape[1]
            divisor = math.sqrt(fan_in)
            bias.copy_(values[2 * layer + 1] / divisor)
            if self.omega is not None:
                divisor = fan_in if layer == 0 else math.sqrt(fan_in / 6) * self.omega
            weight.copy_(values[2 * layer] / divisor)


class GaborMLP(BlockNetwork):
    """n_blocks multiplicative filter networks of Gabor filters (Fathony, Sahu, Willmott and Kolter, Multiplicative
    Filter Networks, ICLR 2021, section 3), of k = n_layers - 1 filters and as many linear layers.

    g_i(x) = exp(-|gamma_i|/2 |x - mu_i|^2) sin(omega_i x + phi_i), of each hidden unit
    z_1 = g_1(x)
    z_{i+1} = (W_i z_i + b_i) g_{i+1}(x)
    output = W_k z_k + b_k, in units of the signal, whether that is the signal or a residual

    The absolute value keeps an envelope from growing with the distance, wherever the optimizer takes gamma.

    Parameters, i from 0
        omega.{i}   (n_blocks, n_in, n_hidden)
        phi.{i}     (n_blocks, 1, n_hidden)
        mu.{i}      (n_blocks, n_in, n_hidden)
        gamma.{i}   (n_blocks, 1, n_hidden)
        weight.{i}  (n_blocks, n_hidden, n_hidden), n_out columns in the last one
        bias.{i}    (n_blocks, 1, n_hidden), likewise

    Inputs
        omega: scale of the initial frequencies
    """

    def __init__(
        self,
        n_blocks: int,
        *,
        n_in: int,
        n_out: int,
        n_layers: int,
        n_hidden: int,
        output: Literal["gabor"],
        omega: float,
    ):
        shape = dict(n_in=n_in, n_out=n_out, n_layers=n_layers, n_hidden=n_hidden, output=output, omega=omega)
        super().__init__(n_blocks, shape, [n_hidden] * (n_layers - 1) + [n_out])
        if output != "gabor" or omega is None or n_layers < 2:
            raise ValueError(f"{shape} is no network of Gabor filters")

        def filters(size: int) -> nn.ParameterList:
            return nn.ParameterList(torch.zeros(n_blocks, size, n_hidden) for _ in range(n_layers - 1))

        self.omega, self.phi, self.mu, self.gamma = filters(n_in), filters(1), filters(n_in), filters(1)

    @property
    def activation_width(self) -> int:
        """A unit takes half as many again as one of a `BlockMLP`: two activations, and two products."""
        return 3 * len(self.omega) * self.shape["n_hidden"] // 2 + self.shape["n_out"]

    def drawn(self) -> list[Tensor]:
        filters = zip(self.omega, self.phi, self.mu, self.gamma, self.gamma, strict=True)
        layers = zip(self.weight, self.bias, strict=True)
        return [parameter for group in (*filters, *layers) for parameter in group]

    @torch.no_grad()
    def init_(self, values: list[Tensor]) -> None:
        """Gamma from a Gamma distribution, of shape 2 and rate 1; omega uniform, of standard deviation
        `shape["omega"] * sqrt(gamma)`; phi uniform in +-pi, mu in +-1, weights and biases in +-1/sqrt(fan_in)
        (Fathony et al., where omega is normal).
        """
        values = iter(values)
        for omega, phi, mu, gamma in zip(self.omega, self.phi, self.mu, self.gamma, strict=True):
            omega.copy_(next(values))
            phi.copy_(next(values) * math.pi)
            mu.copy_(next(values))
            first, second = ((1 - next(values).double()) / 2 for _ in range(2))  # in (0, 1], never 0
            gamma.copy_(-torch.log(first * second))  # in double: the last bit of a logarithm depends on its neighbours
            omega.mul_(self.shape["omega"] * math.sqrt(3) * gamma.sqrt())
        for parameter in self.drawn()[5 * len(self.omega) :]:
            parameter.copy_(next(values) / math.sqrt(self.shape["n_hidden"]))

    def forward(self, coords: Tensor) -> Tensor:
        """
        Inputs
            coords: (n_points, n_in) coordinates, shared by all blocks
        Outputs
            (n_blocks, n_points, n_out) prediction, in units of the signal
        """
        z = self._filter(0, coords)
        for index, (weight, bias) in enumerate(zip(self.weight[:-1], self.bias[:-1], strict=True)):
            z = torch.baddbmm(bias, z, weight) * self._filter(index + 1, coords)
        return torch.baddbmm(self.bias[-1], z, self.weight[-1])

    def _filter(self, index: int, coords: Tensor) -> Tensor:
        """(n_blocks, n_points, n_hidden) of one filter; with |x - mu|^2 = |x|^2 - 2 mu x + |mu|^2 both what the
        envelope and what the sine take are one product."""
        omega, phi, mu, gamma = (group[index] for group in (self.omega, self.phi, self.mu, self.gamma))
        rate = gamma.abs() / -2
        features = torch.cat([coords, _square_norm(coords)], dim=1).expand(self.n_blocks, -1, -1)
        exponent = torch.baddbmm(rate * _square_norm(mu), features, torch.cat([-2 * rate * mu, rate], dim=1))
        phase = torch.baddbmm(phi, coords.expand(self.n_blocks, -1, -1), omega)
        return torch.exp(exponent) * torch.sin(phase)

    @torch.no_grad()
    def restricted(self, offset: Tensor) -> "GaborMLP":
        """The networks that at x give what these give at x/2 + offset: z_1 to z_k, and the output.

        Inputs
            offset: (n_blocks, n_in)
        """
        part = self.select(torch.arange(self.n_blocks, device=offset.device))
        for omega, phi, mu, gamma in zip(part.omega, part.phi, part.mu, part.gamma, strict=True):
            phi += rearrange(offset, "b d -> b 1 d") @ omega
            mu.sub_(rearrange(offset, "b d -> b d 1")).mul_(2)
            omega /= 2
            gamma /= 4
        return part


def make_network(n_blocks: int, a: float = 0.1, **shape: Any) -> BlockNetwork:
    """Networks of a shape, whichever kind that is of.

    Inputs
        a: initial width of the activations that have one
        shape: as in `BlockNetwork.shape`
    Errors
        TypeError or ValueError for what is no shape
    """
    if shape.get("output") == "gabor":
        return GaborMLP(n_blocks, **shape)
    return BlockMLP(n_blocks, a=a, **shape)


def _shared_product(coords: Tensor, weight: Tensor) -> Tensor:
    """(n_points, n_in) times each of (n_blocks, n_in, n_out): wide inputs as one large product, which is faster."""
    n_blocks, n_in, n_out = weight.shape
    if n_in < _WIDE_INPUT:  # there bmm gains little, and its bits do not depend on which blocks are in the batch
        return coords.expand(n_blocks, -1, -1) @ weight
    columns = weight.transpose(0, 1).reshape(n_in, n_blocks * n_out)
    return (coords @ columns).view(len(coords), n_blocks, n_out).transpose(0, 1)


def _square_norm(x: Tensor) -> Tensor:
    """|x|^2 along dimension 1, which is kept; added in order, for `sum` may take another order in other batches."""
    return sum(x.square().split(1, dim=1))


def init_blocks_(network: BlockNetwork, blocks: Tensor, seed: int, level: int) -> None:
    """Draw the initial parameters, a function of (seed, level, index in the grid) alone.

    Inputs
        blocks: (n_blocks,) ascending indices in the grid of the level
    """
    drawn = network.drawn()
    sizes = [tensor.shape[1:].numel() for tensor in drawn]
    values = block_uniform(seed, level, blocks, sum(sizes)).split(sizes, dim=1)
    network.init_([part.view(tensor.shape) for part, tensor in zip(values, drawn, strict=True)])
