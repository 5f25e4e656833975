"""Multiplicative filter networks of blocks: products with Gabor filters of the position in place of activations."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from models.block_network import BlockNetwork
from models.shape import NetworkShape


class GaborMLP(BlockNetwork):
    """n_blocks multiplicative filter networks of Gabor filters (Fathony, Sahu, Willmott and Kolter, Multiplicative
    Filter Networks, ICLR 2021, section 3), of k = n_layers - 1 filters and as many linear layers.

    g_i(x) = exp(-|gamma_i|/2 |x - mu_i|^2) sin(omega_i x + phi_i), of each hidden unit
    z_1 = g_1(x)
    z_{i+1} = (W_i z_i + b_i) g_{i+1}(x)
    output = W_k z_k + b_k, in units of the signal, whether that is the signal or a residual

    The absolute value keeps an envelope from growing with the distance, wherever the optimizer takes gamma.

    Parameters, i from 0; shape.omega is the scale of the initial frequencies
        omega.{i}   (n_blocks, n_in, n_hidden)
        phi.{i}     (n_blocks, 1, n_hidden)
        mu.{i}      (n_blocks, n_in, n_hidden)
        gamma.{i}   (n_blocks, 1, n_hidden)
        weight.{i}  (n_blocks, n_hidden, n_hidden), n_out columns in the last one
        bias.{i}    (n_blocks, 1, n_hidden), likewise
    """

    def __init__(self, n_blocks: int, shape: NetworkShape):
        super().__init__(n_blocks, shape, [shape.n_hidden] * (shape.n_layers - 1) + [shape.n_out])

        def filters(size: int) -> nn.ParameterList:
            return nn.ParameterList(torch.zeros(n_blocks, size, shape.n_hidden) for _ in range(shape.n_layers - 1))

        self.omega, self.phi, self.mu, self.gamma = filters(shape.n_in), filters(1), filters(shape.n_in), filters(1)

    @property
    def activation_width(self) -> int:
        """A unit takes up half as much again as one of a `BlockMLP`: two activations and two products."""
        return 3 * len(self.omega) * self.shape.n_hidden // 2 + self.shape.n_out

    def random_tensors(self) -> list[Tensor]:
        filters = zip(self.omega, self.phi, self.mu, self.gamma, self.gamma, strict=True)
        layers = zip(self.weight, self.bias, strict=True)
        return [parameter for group in (*filters, *layers) for parameter in group]

    @torch.no_grad()
    def init_(self, values: list[Tensor]) -> None:
        """Gamma from a Gamma distribution, of shape 2 and rate 1; omega uniform, of standard deviation
        `shape.omega * sqrt(gamma)`; phi uniform in +-pi, mu in +-1, weights and biases in +-1/sqrt(fan_in)
        (Fathony et al., where omega is normal).
        """
        values = iter(values)
        for omega, phi, mu, gamma in zip(self.omega, self.phi, self.mu, self.gamma, strict=True):
            omega.copy_(next(values))
            phi.copy_(next(values) * math.pi)
            mu.copy_(next(values))
            first, second = ((1 - next(values).double()) / 2 for _ in range(2))  # in (0, 1], never 0
            gamma.copy_(-torch.log(first * second))  # in double: the last bit of a logarithm depends on its neighbours
            omega.mul_(self.shape.omega * math.sqrt(3) * gamma.sqrt())
        for parameter in self.random_tensors()[5 * len(self.omega) :]:
            parameter.copy_(next(values) / math.sqrt(self.shape.n_hidden))

    def forward(self, coords: Tensor) -> Tensor:
        """
        Inputs
            coords: (n_points, n_in) coordinates, shared by all blocks
        Outputs
            (n_blocks, n_points, n_out) prediction, in units of the signal
        """
        return torch.baddbmm(self.bias[-1], self.features(coords), self.weight[-1])

    def features(self, coords: Tensor) -> Tensor:
        z = self._filter(0, coords)
        for index, (weight, bias) in enumerate(zip(self.weight[:-1], self.bias[:-1], strict=True)):
            z = torch.baddbmm(bias, z, weight) * self._filter(index + 1, coords)
        return z

    def before_output(self, values: Tensor) -> Tensor:
        return values

    def _filter(self, index: int, coords: Tensor) -> Tensor:
        """(n_blocks, n_points, n_hidden) of one filter; by |x - mu|^2 = |x|^2 - 2 mu x + |mu|^2 the arguments of the
        envelope and of the sine are one product each."""
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


def _square_norm(x: Tensor) -> Tensor:
    """|x|^2 along dimension 1, which is kept; added in order, since the order of `sum` may depend on the batch."""
    return sum(x.square().split(1, dim=1))
