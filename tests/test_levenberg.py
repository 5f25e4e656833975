"""The second-order fits that benchmarks.limits measures first-order fits by."""

import torch
from torch.nn.functional import pad

from benchmarks.levenberg import Layers, descend_, normal_equations
from models.block_mlp import BlockMLP
from models.block_network import init_blocks_
from models.networks import make_network
from models.ops import reference
from models.shape import NetworkShape

SHAPE = NetworkShape(n_in=6, n_out=3, n_layers=3, n_hidden=5, output="sine", centre=0.5)


def problem() -> tuple[BlockMLP, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    network = make_network(4, SHAPE, 0.7)
    init_blocks_(network, torch.arange(4), seed=0, level=0)
    network.amplitude.uniform_(0.1, 1)
    return network, torch.rand(50, 6) * 2 - 1, torch.rand(4, 50, 3) * 0.2 - 0.1


def test_the_factors_are_the_jacobian():
    network, coords, target = problem()
    layers, inputs = Layers.of(network.double()), pad(coords.double(), (0, 1), value=1.0)
    error, factors = layers.linearised(inputs)
    error = error - target
    columns = [(s[..., None, :] * v[:, :, None, :, None]).flatten(3) for s, v in factors]
    jacobian = torch.cat(columns, 3)  # (n_blocks, n_points, n_out, n_parameters)
    for block in range(4):
        tensors = tuple(tensor[block] for tensor in layers.tensors)
        amplitude = network.amplitude[block]

        def predict(*tensors, amplitude=amplitude):
            return Layers([tensor[None] for tensor in tensors], amplitude[None], layers.centre).predict(inputs)[0]

        wanted = torch.autograd.functional.jacobian(predict, tensors)
        torch.testing.assert_close(jacobian[block], torch.cat([part.flatten(2) for part in wanted], 2))
    matrix, slope = normal_equations(factors, error)
    rows = jacobian.flatten(1, 2)
    torch.testing.assert_close(matrix, rows.mT @ rows)
    torch.testing.assert_close(slope, (rows.mT @ error.flatten(1)[..., None])[..., 0])


def test_a_descent_only_goes_down_and_leaves_the_networks_where_it_ends():
    network, coords, target = problem()
    losses = descend_(network, coords, target, n_steps=30)
    assert losses.shape == (31, 4)
    assert (losses.diff(dim=0) <= 0).all()
    assert (losses[-1] < losses[0] / 4).all()
    left = (reference.predict(network, slice(None), coords) - target).square().mean((1, 2))
    torch.testing.assert_close(left.double(), losses[-1], rtol=1e-4, atol=0)
