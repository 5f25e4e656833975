import math

import pytest
import torch
from conftest import BACKENDS

from models.block_mlp import BlockMLP, init_blocks_
from models.encoding import SPACINGS, encode, encoded_width, frequencies
from utils.blocks import block_coords

SHAPES = [
    dict(n_in=16, n_out=3, n_layers=3, n_hidden=20, output="sine"),
    dict(n_in=2, n_out=1, n_layers=4, n_hidden=20, output="sigmoid"),
    dict(n_in=7, n_out=4, n_layers=2, n_hidden=20, output="sine"),
    dict(n_in=210, n_out=1, n_layers=2, n_hidden=8, output="sine"),
    dict(n_in=2, n_out=3, n_layers=4, n_hidden=8, output="linear", omega=30.0),
]


def make_network(n_blocks: int, shape: dict, seed: int = 0) -> BlockMLP:
    """Random everything: initial weights, and widths and amplitudes away from their initial values too."""
    network = BlockMLP(n_blocks, **shape)
    init_blocks_(network, torch.arange(n_blocks), seed, level=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for a in network.a:
            a.copy_(0.1 + torch.rand(a.shape, generator=generator))
        network.amplitude.copy_(torch.rand(network.amplitude.shape, generator=generator))
    return network


@pytest.mark.parametrize("shape", SHAPES)
def test_batched_blocks_equal_separate_mlps(shape):
    network = make_network(5, shape).double()
    coords = torch.rand(63, shape["n_in"], dtype=torch.float64) * 2 - 1
    together = network(coords)
    for block in range(5):
        x = coords
        for layer in range(shape["n_layers"]):
            x = x @ network.weight[layer][block] + network.bias[layer][block]
            if layer < shape["n_layers"] - 1:
                x = torch.sin(30 * x) if "omega" in shape else torch.exp(-0.5 * (x / network.a[layer][block]) ** 2)
        if shape["output"] == "sine":
            x = network.amplitude[block] * torch.sin(network.a[-1][block] * x)
        elif shape["output"] == "sigmoid":
            x = 1 / (1 + torch.exp(-x))
        torch.testing.assert_close(together[block], x)


def test_parameter_count_of_the_default_image_network():
    shape = dict(n_in=encoded_width(2, frequencies(4, "octaves")), n_out=3, n_layers=3, n_hidden=20)
    residual, signal = BlockMLP(7, **shape, output="sine"), BlockMLP(7, **shape, output="sigmoid")
    assert residual.n_parameters == 7 * 826
    assert signal.n_parameters == 7 * 825, "a sigmoid has no width"


def test_initial_weights_fill_the_interval_that_the_fan_in_sets():
    network = BlockMLP(300, **SHAPES[0])
    init_blocks_(network, torch.arange(300), seed=0, level=0)
    for weight, bias in zip(network.weight, network.bias, strict=True):
        bound = 1 / math.sqrt(weight.shape[1])
        for parameter in (weight, bias):
            assert 0.99 * bound < parameter.abs().max() <= bound
    assert all((a == 0.1).all() for a in network.a)


def test_initial_weights_of_sines_keep_the_spread_of_their_layers():
    """Before each sine but the first lies about a normal distribution of standard deviation 1 (SIREN, theorem 1.8)."""
    network = BlockMLP(50, n_in=2, n_out=3, n_layers=4, n_hidden=60, output="linear", omega=150.0)
    init_blocks_(network, torch.arange(50), seed=0, level=0)
    assert network.n_parameters == 50 * (180 + 2 * 3660 + 183), "no widths"
    x = block_coords((32, 32)) @ network.weight[0] + network.bias[0]
    for weight in network.weight[1:3]:
        x = torch.sin(150 * x) @ weight
        assert 0.8 < (150 * x).std() < 1.2


def test_initial_weights_belong_to_the_place_in_the_grid():
    every = BlockMLP(50, **SHAPES[0])
    init_blocks_(every, torch.arange(50), seed=3, level=1)
    some = torch.tensor([2, 3, 17, 49])
    few = BlockMLP(4, **SHAPES[0])
    init_blocks_(few, some, seed=3, level=1)
    for whole, part in zip(every.parameters(), few.parameters(), strict=True):
        assert torch.equal(whole[some], part)


@pytest.mark.parametrize("n_points", [1, 27, 63, 256, 625])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prediction_has_the_same_bits_whichever_blocks_are_computed_with_it(backend, shape, n_points):
    network = make_network(9, shape)
    coords = torch.rand(n_points, shape["n_in"])
    together = backend.predict(network, slice(None), coords)
    assert together.shape == (9, n_points, shape["n_out"])
    for rows in ([4], [0, 8], [8, 3, 5]):
        assert torch.equal(backend.predict(network, torch.tensor(rows), coords), together[rows])
    torch.testing.assert_close(together, network(coords))
    nothing = backend.predict(network, torch.tensor([], dtype=torch.long), coords)
    assert nothing.shape == (0, n_points, shape["n_out"])


def test_selecting_by_slice_shares_memory_and_by_index_copies():
    network = make_network(6, SHAPES[0])
    before = network.weight[0].detach().clone()
    network.select(torch.tensor([1, 2])).weight[0].data.zero_()
    assert torch.equal(network.weight[0], before)
    network.select(slice(1, 3)).weight[0].data.zero_()
    assert (network.weight[0][1:3] == 0).all()
    assert torch.equal(network.weight[0][3:], before[3:])


def test_encoding_is_sines_and_cosines_of_octaves():
    coords = torch.tensor([[0.3, -0.7]])
    features = encode(coords, frequencies(2, "octaves"))[0]
    phases = [0.3, -0.7, 0.6, -1.4]
    expected = [math.sin(x) for x in phases] + [math.cos(x) for x in phases]
    torch.testing.assert_close(features, torch.tensor(expected))
    assert torch.equal(encode(coords, None), coords)
    four = frequencies(4, "octaves")
    assert encode(block_coords((5, 5)), four).shape == (25, encoded_width(2, four)) == (25, 16)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_points_far_apart_in_a_block_are_encoded_far_apart(spacing):
    coords = block_coords((64, 64))
    features = encode(coords, frequencies(4, spacing))
    places, distances = torch.cdist(coords, coords), torch.cdist(features, features)
    assert distances[places > 0.25].min() > distances[(places > 0) & (places < 0.04)].max() / 2
