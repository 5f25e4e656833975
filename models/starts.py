"""Where the training of few epochs starts: from a wider draw, and from last layers that are fitted to the target."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.block_mlp import BlockMLP
from models.block_network import BlockNetwork
from models.ops import POINTS, Backend, serving
from utils.bounds import without_bounds

_FIRST, _HIDDEN, _HIDDEN_BIAS = 1.42, 1.42, 1.23
_CENTRE, _DECAY = 10.5, -0.35
_WIDTHS, _INNER = 0.705, 0.811
"""Factors of the usual draw, found on pictures: of the first layer's weights and biases, the former besides times
(frequency / centre)^decay; of hidden weights and biases; of the widths of the first and the last activation, and of
those between."""


@torch.no_grad()
def widen_(network: BlockNetwork, frequencies: Sequence[float] | None) -> None:
    """Scale the draw of MLPs with Gaussian activations; others stay as they are.

    Inputs
        frequencies: of the positional encoding, or None
    """
    if not isinstance(network, BlockMLP) or network.shape.activation != "gaussian":
        return
    for layer in range(network.shape.n_layers - 1):
        network.weight[layer].mul_(_HIDDEN if layer else _FIRST)
        network.bias[layer].mul_(_HIDDEN_BIAS if layer else _FIRST)
    if frequencies is not None:
        slopes = (torch.tensor(frequencies, dtype=torch.float64) / _CENTRE) ** _DECAY
        n_directions = network.shape.n_in // (2 * len(frequencies))
        network.weight[0].mul_(slopes.float().repeat_interleave(n_directions).repeat(2)[:, None])
    for place, width in enumerate(network.a):
        width.mul_(_INNER if 0 < place < network.shape.n_layers - 1 else _WIDTHS)


def fit_last_layer(backend: Backend, network: BlockNetwork, coords: Tensor, target: Tensor, order: Tensor) -> None:
    """Fit the last layer of every block, in place, at the first points of an order.

    Inputs
        coords: (n_points, n_in) encoded coordinates
        target: (n_blocks, n_points, c) what to predict, bounds as the numbers themselves
        order: (n_points,) a permutation of the points
    """
    some = order[:POINTS]
    serving(backend, network.shape).fit_last_layer(network, coords[some], without_bounds(target[:, some]))
