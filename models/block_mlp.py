"""MLPs of blocks: Gaussian or sine activations between batched linear layers."""

import math

import torch
from torch import Tensor, nn

from models.block_network import BlockNetwork
from models.shape import NetworkShape

_WIDE_INPUT = 64


class BlockMLP(BlockNetwork):
    """n_blocks MLPs with Gaussian (Ramasinghe and Lucey, arXiv 2111.15135) or sine hidden activations (Sitzmann et al.,
    SIREN, NeurIPS 2020).

    activation gaussian  h = exp(-x^2 / (2 a^2)) - centre, with one trainable a for each block and layer
    activation sine      h = sin(omega x)
    output sigmoid       the signal itself
    output sine          a residual, amplitude * sin(a x), with a trainable and the amplitude fixed
    output linear        x itself, the signal or a residual

    The centre does not change which functions a network can represent, because the next layer's bias absorbs it. But
    layers whose inputs have a mean near zero train faster (LeCun et al., Efficient BackProp, 1998, section 4.3).

    Parameters, besides those of a `BlockNetwork`
        a.{l}  (n_blocks, 1, 1) of each Gaussian hidden layer and of a sine output, 0.1 to begin with
    """

    def __init__(self, n_blocks: int, shape: NetworkShape):
        hidden = [shape.n_hidden] * (shape.n_layers - 1)
        super().__init__(n_blocks, shape, [shape.n_in, *hidden, shape.n_out])
        n_widths = len(hidden) * (shape.activation == "gaussian") + (shape.output == "sine")
        self.a = nn.ParameterList(torch.full((n_blocks, 1, 1), 0.1) for _ in range(n_widths))

    @property
    def activation_width(self) -> int:
        return sum(weight.shape[2] for weight in self.weight)

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
        x = torch.baddbmm(self.bias[-1], self.features(coords), self.weight[-1])
        if self.shape.output == "sigmoid":
            return 0.5 + 0.5 * torch.tanh(0.5 * x)  # torch.sigmoid rounds by a value's place in memory
        if self.shape.output == "linear":
            return x
        return self.amplitude * torch.sin(self.a[-1] * x)

    def features(self, coords: Tensor) -> Tensor:
        h = self._activate(0, _shared_product(coords, self.weight[0]) + self.bias[0])
        for layer in range(1, self.shape.n_layers - 1):
            h = self._activate(layer, torch.baddbmm(self.bias[layer], h, self.weight[layer]))
        return h

    def _activate(self, layer: int, x: Tensor) -> Tensor:
        if self.shape.activation == "gaussian":
            return torch.exp(-(x**2) / (2 * self.a[layer] ** 2)) - self.shape.centre
        return torch.sin(self.shape.omega * x)

    def before_output(self, values: Tensor) -> Tensor:
        if self.shape.output == "sigmoid":
            return values.logit()
        return values if self.shape.output == "linear" else values / (self.a[-1] * self.amplitude)

    def random_tensors(self) -> list[Tensor]:
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
            if self.shape.activation == "sine":
                divisor = fan_in if layer == 0 else math.sqrt(fan_in / 6) * self.shape.omega
            weight.copy_(values[2 * layer] / divisor)


def _shared_product(coords: Tensor, weight: Tensor) -> Tensor:
    """(n_points, n_in) times each of (n_blocks, n_in, n_out): wide inputs as one large product, which is faster."""
    n_blocks, n_in, n_out = weight.shape
    if n_in < _WIDE_INPUT:  # one product gains little; the bits of bmm do not depend on which blocks are in the batch
        return coords.expand(n_blocks, -1, -1) @ weight
    columns = weight.transpose(0, 1).reshape(n_in, n_blocks * n_out)
    return (coords @ columns).view(len(coords), n_blocks, n_out).transpose(0, 1)
