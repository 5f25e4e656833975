"""Networks of other methods, which this project is measured beside."""

import pytest
import torch
from torch import nn

from benchmarks.peer_networks import HashGrid, Siren, corners, largest

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")

SIZE, PARAMETERS = (40, 60), 12_000


@pytest.mark.parametrize("make", [HashGrid, Siren])
def test_a_network_has_nearly_as_many_parameters_as_it_may(make):
    network = make(SIZE, PARAMETERS)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert 0.97 * PARAMETERS < count <= PARAMETERS
    assert network(*network.inputs(torch.arange(100))).shape == (100, 3)


def test_the_largest_number_reaches_its_limit():
    assert [largest(limit, lambda n: n * n) for limit in (8, 9, 10)] == [2, 3, 3]


def test_a_ramp_on_vertices_is_one_between_them():
    shape = (5, 7)
    table = torch.arange(5)[:, None] * 10.0 + torch.arange(7)
    points = torch.rand(50, 2, dtype=torch.float64) * torch.tensor([4, 6])
    indices, weights = corners(points, shape, table.numel())
    assert torch.allclose((table.flatten()[indices] * weights).sum(1), points @ torch.tensor([10.0, 1.0]).double())


def test_vertices_are_hashed_into_a_table_that_has_fewer_entries():
    indices, weights = corners(torch.rand(50, 2) * 4, (5, 5), 7)
    assert indices.min() >= 0
    assert indices.max() < 7
    assert torch.allclose(weights.sum(1), torch.ones(50))


def test_the_gradient_of_a_hash_grid_is_that_of_a_dense_product():
    network = HashGrid(SIZE, PARAMETERS)
    nn.init.normal_(network.tables)
    matrix, transpose = network.inputs(torch.randperm(SIZE[0] * SIZE[1])[:30])
    network(matrix, transpose).square().sum().backward()
    tables = network.tables.detach().clone().requires_grad_()
    features = matrix.to_dense() @ tables
    network.network(features.view(30, -1)).square().sum().backward()
    error = (network.tables.grad - tables.grad).abs().max()
    assert error < 1e-4 * tables.grad.abs().max()
