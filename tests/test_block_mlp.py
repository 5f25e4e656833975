import math
from dataclasses import replace

import pytest
import torch
from helpers import BACKENDS, SHAPES, random_network, skip_what_no_kernel_does

from models import block_network
from models.block_mlp import BlockMLP
from models.block_network import init_blocks_
from models.encoding import SPACINGS, encode, encoded_width, frequencies
from models.gabor import GaborMLP
from models.networks import make_network
from models.shape import NetworkShape
from utils.blocks import block_coords

GABOR = [SHAPES[-1], replace(SHAPES[-1], n_in=3, n_out=1, n_layers=2, n_hidden=5, omega=5.0)]


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_batched_blocks_equal_separate_mlps(shape):
    network = random_network(5, shape).double()
    coords = torch.rand(63, shape.n_in, dtype=torch.float64) * 2 - 1
    together = network(coords)
    for block in range(5):
        x = coords
        for layer in range(shape.n_layers):
            x = x @ network.weight[layer][block] + network.bias[layer][block]
            if layer < shape.n_layers - 1:
                if shape.activation == "sine":
                    x = torch.sin(30 * x)
                else:
                    x = torch.exp(-0.5 * (x / network.a[layer][block]) ** 2) - shape.centre
        if shape.output == "sine":
            x = network.amplitude[block] * torch.sin(network.a[-1][block] * x)
        elif shape.output == "sigmoid":
            x = 1 / (1 + torch.exp(-x))
        torch.testing.assert_close(together[block], x)


def test_a_centre_changes_nothing_that_the_next_bias_cannot_make_up_for():
    shape = NetworkShape(n_in=5, n_out=2, n_layers=3, n_hidden=7, output="sine")
    plain, centred = (random_network(4, replace(shape, centre=centre)).double() for centre in (0.0, 0.5))
    with torch.no_grad():
        for bias, weight in zip(centred.bias[1:], centred.weight[1:], strict=True):
            bias += 0.5 * weight.sum(1, keepdim=True)
    coords = torch.rand(63, 5, dtype=torch.float64)
    torch.testing.assert_close(centred(coords), plain(coords))


def gabor_features(network: GaborMLP, block: int, point: torch.Tensor) -> list[torch.Tensor]:
    """z_1 to z_k and the output, from the equations of the paper, unit by unit."""

    def g(i: int, unit: int) -> torch.Tensor:
        omega, phi, mu, gamma = (
            group[i][block][:, unit] for group in (network.omega, network.phi, network.mu, network.gamma)
        )
        distance = (point - mu).norm()
        return torch.exp(-gamma.abs() / 2 * distance**2) * torch.sin(omega.dot(point) + phi)

    units = range(network.shape.n_hidden)
    features = [torch.cat([g(0, unit) for unit in units])]
    for i, (weight, bias) in enumerate(zip(network.weight, network.bias, strict=True)):
        after = features[-1] @ weight[block] + bias[block][0]
        last = i == len(network.weight) - 1
        features.append(after if last else after * torch.cat([g(i + 1, unit) for unit in units]))
    return features


def random_gabor(shape: NetworkShape, n_blocks: int = 3) -> GaborMLP:
    network = random_network(n_blocks, shape).double()
    with torch.no_grad():
        for gamma in network.gamma:
            gamma[:, :, ::2] *= -1
    return network


@pytest.mark.parametrize("shape", GABOR)
def test_gabor_filters_are_those_of_the_paper(shape):
    network = random_gabor(shape)
    coords = torch.rand(7, shape.n_in, dtype=torch.float64) * 2 - 1
    together = network(coords)
    assert len(network.omega) == len(network.weight) == shape.n_layers - 1
    for block in range(3):
        for point, values in zip(coords, together[block], strict=True):
            torch.testing.assert_close(values, gabor_features(network, block, point)[-1])


@pytest.mark.parametrize("shape", GABOR)
def test_the_gradients_of_gabor_filters_are_those_of_differences(shape):
    network = random_gabor(shape, n_blocks=2)
    coords = torch.rand(3, shape.n_in, dtype=torch.float64) * 2 - 1
    names, parameters = zip(*network.named_parameters(), strict=True)

    def predict(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (coords,))

    assert torch.autograd.gradcheck(predict, parameters)


@pytest.mark.parametrize("shape", GABOR)
def test_restricted_networks_give_at_x_what_their_parents_give_at_half_of_it_past_the_offset(shape):
    parents, d = random_gabor(shape), shape.n_in
    before = {name: tensor.clone() for name, tensor in parents.state_dict().items()}
    offset = torch.rand(3, d, dtype=torch.float64) - 0.5
    children = parents.restricted(offset)
    for block in range(3):
        for x in torch.rand(5, d, dtype=torch.float64) * 2 - 1:
            expected = gabor_features(parents, block, x / 2 + offset[block])
            torch.testing.assert_close(gabor_features(children, block, x), expected)
            torch.testing.assert_close(children(x[None])[block, 0], expected[-1])
    assert torch.equal(children.amplitude, parents.amplitude)
    for name, tensor in parents.state_dict().items():
        assert torch.equal(tensor, before[name]), "the parents stay what they are"


@pytest.mark.parametrize("extreme", [-1.0, 1 - 2**-23])
def test_initial_filters_are_numbers_whatever_is_drawn(monkeypatch, extreme):
    monkeypatch.setattr(block_network, "block_uniform", lambda *key: torch.full((1, key[-1]), extreme))
    network = GaborMLP(1, GABOR[0])
    init_blocks_(network, torch.arange(1), seed=0, level=0)
    assert network.is_finite().all()
    assert network(block_coords((4, 4))).isfinite().all()


def test_initial_filters_spread_as_the_paper_says():
    network = GaborMLP(20_000, GABOR[0])
    init_blocks_(network, torch.arange(20_000), seed=0, level=0)
    for omega, phi, mu, gamma in zip(network.omega, network.phi, network.mu, network.gamma, strict=True):
        assert gamma.min() > 0
        assert gamma.mean().item() == pytest.approx(2, rel=0.02)
        assert gamma.var().item() == pytest.approx(2, rel=0.05)
        assert (omega / gamma.sqrt()).std().item() == pytest.approx(10, rel=0.02)
        assert 0.99 * math.pi < phi.abs().max() <= math.pi
        assert 0.99 < mu.abs().max() <= 1
    for parameter in (*network.weight, *network.bias):
        assert 0.99 / math.sqrt(8) < parameter.abs().max() <= 1 / math.sqrt(8)
    assert network.n_parameters == 20_000 * (3 * 8 * (2 + 1 + 2 + 1) + 2 * 8 * 9 + 3 * 9)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(n_layers=1),
        dict(omega=None),
        dict(omega=10),
        dict(omega=math.inf),
        dict(n_hidden=2.5),
        dict(n_out=True),
        dict(frobnicate=1),
        dict(kind="mlp"),
        dict(activation="gaussian"),
        dict(output="sine"),
    ],
)
def test_what_no_network_has_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        replace(GABOR[0], **wrong)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_comes_back_from_its_record(shape):
    record = shape.record()
    assert NetworkShape.from_record(record) == shape
    with pytest.raises((TypeError, ValueError)):
        NetworkShape.from_record(record | {"output": "cosine"})
    if shape.kind == "mlp" and not shape.centre:
        del record["centre"]  # as it was spelled before centres existed
        assert NetworkShape.from_record(record) == shape


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_selected_written_silenced_and_checked_for_numbers(shape):
    network, coords = random_network(6, shape), torch.rand(16, shape.n_in)
    before = network(coords).detach()
    rows = torch.tensor([4, 1])
    part = network.select(rows)
    assert type(part) is type(network)
    torch.testing.assert_close(part(coords), before[rows])
    torch.testing.assert_close(part.amplitude, network.amplitude[rows])
    network.write_(rows, part.select(torch.tensor([1, 0])))
    network.amplitude[rows] = part.amplitude.flip(0)
    torch.testing.assert_close(network(coords)[rows], before[rows.flip(0)])
    network.silence_(torch.tensor([2]))
    values = network(coords)[2]
    assert (values == values[0, 0]).all()
    torch.testing.assert_close(network(coords)[3], before[3])
    with torch.no_grad():
        next(network.parameters())[5] = math.inf
    assert network.is_finite().tolist() == [True] * 5 + [False]


def test_parameter_count_of_the_default_image_network():
    signal = NetworkShape(n_in=encoded_width(2, frequencies(4, "octaves")), n_out=3, n_layers=3, n_hidden=20)
    residual, signal = BlockMLP(7, replace(signal, output="sine")), BlockMLP(7, signal)
    assert residual.n_parameters == 7 * 826
    assert signal.n_parameters == 7 * 825, "a sigmoid has no width"


def test_initial_weights_fill_the_interval_that_the_fan_in_sets():
    network = BlockMLP(300, SHAPES[0])
    init_blocks_(network, torch.arange(300), seed=0, level=0)
    for weight, bias in zip(network.weight, network.bias, strict=True):
        bound = 1 / math.sqrt(weight.shape[1])
        for parameter in (weight, bias):
            assert 0.99 * bound < parameter.abs().max() <= bound
    assert all((a == 0.1).all() for a in network.a)


def test_initial_weights_of_sines_keep_the_spread_of_their_layers():
    """Before each sine but the first lies about a normal distribution of standard deviation 1 (SIREN, theorem 1.8)."""
    network = BlockMLP(50, NetworkShape(2, 3, n_layers=4, n_hidden=60, activation="sine", output="linear", omega=150.0))
    init_blocks_(network, torch.arange(50), seed=0, level=0)
    assert network.n_parameters == 50 * (180 + 2 * 3660 + 183), "no widths"
    x = block_coords((32, 32)) @ network.weight[0] + network.bias[0]
    for weight in network.weight[1:3]:
        x = torch.sin(150 * x) @ weight
        assert 0.8 < (150 * x).std() < 1.2


@pytest.mark.parametrize("shape", SHAPES)
def test_initial_weights_belong_to_the_place_in_the_grid(shape):
    every = make_network(50, shape)
    init_blocks_(every, torch.arange(50), seed=3, level=1)
    some = torch.tensor([2, 3, 17, 49])
    few = make_network(4, shape)
    init_blocks_(few, some, seed=3, level=1)
    for whole, part in zip(every.parameters(), few.parameters(), strict=True):
        assert torch.equal(whole[some], part)


@pytest.mark.parametrize("n_points", [1, 27, 63, 256, 625])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prediction_has_the_same_bits_whichever_blocks_are_computed_with_it(backend, shape, n_points):
    skip_what_no_kernel_does(backend, shape)
    network = random_network(9, shape)
    coords = torch.rand(n_points, shape.n_in)
    together = backend.predict(network, slice(None), coords)
    assert together.shape == (9, n_points, shape.n_out)
    for rows in ([4], [0, 8], [8, 3, 5]):
        assert torch.equal(backend.predict(network, torch.tensor(rows), coords), together[rows])
    torch.testing.assert_close(together, network(coords))
    nothing = backend.predict(network, torch.tensor([], dtype=torch.long), coords)
    assert nothing.shape == (0, n_points, shape.n_out)


def test_selecting_by_slice_shares_memory_and_by_index_copies():
    network = random_network(6, SHAPES[0])
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
