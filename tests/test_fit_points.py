"""Blocks never see each other: what follows from that is exact, and each consequence is a test.

Exact bit for bit, but for a few widths (6, 9, 10, ...): there the matrix library rounds by where a matrix lies.
"""

from collections.abc import Callable

import pytest
import torch
from helpers import BACKENDS, SHAPES, random_network, skip_what_no_kernel_does

from models.ops import reference
from models.ops.optimizers import make_optimizer, select_blocks, set_step
from models.shape import NetworkShape
from utils.rng import point_order

N_POINTS, BATCH_SIZE = 112, 48  # two full batches and a short one
LR = torch.tensor([3e-2, 1e-2, 3e-3, 1e-3])


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


@pytest.fixture(params=BACKENDS)
def fit(request) -> Callable:
    def fit(network, optimizer, coords, target, epochs=range(4)):
        skip_what_no_kernel_does(request.param, network.shape)
        order = point_order(0, 0, epochs, N_POINTS)
        rates = LR[epochs.start : epochs.stop]
        return request.param.fit_points(network, optimizer, coords, target, order, BATCH_SIZE, rates)

    return fit


def problem(shape: dict, n_blocks: int = 7):
    generator = torch.Generator().manual_seed(1)
    coords = torch.rand(N_POINTS, shape.n_in, generator=generator) * 2 - 1
    target = torch.rand(n_blocks, N_POINTS, shape.n_out, generator=generator) - 0.5
    network = random_network(n_blocks, shape)
    return network, make_optimizer(network, lr=1e-3), coords, target


def assert_same(network, optimizer, other_network, other_optimizer):
    for mine, theirs in zip(network.parameters(), other_network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[mine][name], other_optimizer.state[theirs][name])


def test_survivors_do_not_notice_pruning(fit, shape):
    whole, whole_optimizer, coords, target = problem(shape)
    fit(whole, whole_optimizer, coords, target)

    network, optimizer, *_ = problem(shape)
    fit(network, optimizer, coords, target, range(2))
    survivors = torch.tensor([1, 4, 5])
    twin, twin_optimizer = select_blocks(network, optimizer, survivors)
    fit(twin, twin_optimizer, coords, target[survivors], range(2, 4))

    assert_same(twin, twin_optimizer, *select_blocks(whole, whole_optimizer, survivors))


def test_a_range_at_a_time_equals_all_at_once(fit, shape):
    whole, whole_optimizer, coords, target = problem(shape)
    losses = fit(whole, whole_optimizer, coords, target)

    network, optimizer, *_ = problem(shape)
    for epochs in (range(3), range(3, 4)):
        for rows in (slice(0, 3), slice(3, 7)):
            part, part_optimizer = select_blocks(network, optimizer, rows)
            set_step(part_optimizer, epochs.start * 3)
            part_losses = fit(part, part_optimizer, coords, target[rows], epochs)
            assert torch.equal(part_losses, losses[epochs.start : epochs.stop, rows])
    assert_same(network, optimizer, whole, whole_optimizer)


def test_awkward_widths_agree_to_rounding(fit):
    shape = NetworkShape(n_in=16, n_out=3, n_layers=4, n_hidden=9, output="sine")
    whole, whole_optimizer, coords, target = problem(shape)
    fit(whole, whole_optimizer, coords, target, range(1))
    rows = slice(3, 7)
    part, part_optimizer = select_blocks(*problem(shape)[:2], rows)
    fit(part, part_optimizer, coords, target[rows], range(1))
    for mine, theirs in zip(part.parameters(), whole.select(rows).parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_permuting_blocks_permutes_results(fit, shape):
    whole, whole_optimizer, coords, target = problem(shape)
    losses = fit(whole, whole_optimizer, coords, target)

    shuffled = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    network, optimizer = select_blocks(*problem(shape)[:2], shuffled)
    assert torch.equal(fit(network, optimizer, coords, target[shuffled]), losses[:, shuffled])
    assert_same(network, optimizer, *select_blocks(whole, whole_optimizer, shuffled))


def test_optimizer_rows_follow_their_blocks(fit, shape):
    network, optimizer, coords, target = problem(shape)
    fit(network, optimizer, coords, target)
    rows = torch.tensor([6, 0])
    part, part_optimizer = select_blocks(network, optimizer, rows)
    for old, new in zip(network.parameters(), part.parameters(), strict=True):
        state, part_state = optimizer.state[old], part_optimizer.state[new]
        assert torch.equal(part_state["exp_avg"], state["exp_avg"][rows])
        assert torch.equal(part_state["exp_avg_sq"], state["exp_avg_sq"][rows])
        assert part_state["step"] == state["step"] == 4 * 3
        assert part_state["step"] is not state["step"]


def test_the_loss_is_the_mean_over_the_points_and_falls(fit, shape):
    network, optimizer, coords, target = problem(shape)
    first = (network(coords) - target).square().mean(dim=(1, 2))
    still = reference.fit_points(
        network, optimizer, coords, target, torch.arange(N_POINTS)[None], N_POINTS, torch.zeros(1)
    )
    torch.testing.assert_close(still[0], first)
    losses = fit(*problem(shape))
    assert (losses[-1] < losses[0]).all()


def test_a_step_is_radam_on_the_loss_scaled_by_itself():
    """The first five steps of RAdam are plain momentum: parameter -= lr * gradient at the first one."""
    network, optimizer, coords, target = problem(SHAPES[0], n_blocks=2)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    loss = (network(coords) - target).square().mean(dim=(1, 2))
    gradients = torch.autograd.grad(sum(loss / (loss.detach() + 1e-8)) / 1024, list(network.parameters()))
    order = torch.arange(N_POINTS)[None]
    reference.fit_points(network, optimizer, coords, target, order, N_POINTS, torch.tensor([0.5]))
    for parameter, start, gradient in zip(network.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(parameter, start - 0.5 * gradient)


def test_nesterov_momentum_takes_each_step_of_radam_with_the_moment_that_comes_next():
    """With a constant gradient g the moment after t steps is (1 - beta_1^t) g."""
    betas, n_steps = (0.7, 0.9), 30
    parameters = [torch.nn.Parameter(torch.zeros(3, 2, 2)) for _ in range(2)]
    plain, nesterov = (
        make_optimizer(torch.nn.ParameterList([parameter]), 0.1, kind=kind, betas=betas)
        for kind, parameter in zip(("radam", "nradam"), parameters, strict=True)
    )
    gradient = torch.linspace(-2, 3, 12).view(3, 2, 2)
    for step in range(1, n_steps + 1):
        before = [parameter.detach().clone() for parameter in parameters]
        for parameter, optimizer in zip(parameters, (plain, nesterov), strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
        moved, moved_ahead = (parameter.detach() - old for parameter, old in zip(parameters, before, strict=True))
        torch.testing.assert_close(moved_ahead, moved * (1 - 0.7 ** (step + 1)) / (1 - 0.7**step))
    assert nesterov.state[parameters[1]]["step"] == n_steps


def test_no_blocks_are_no_work(fit):
    network, optimizer, coords, target = problem(SHAPES[0], n_blocks=0)
    assert fit(network, optimizer, coords, target).shape == (4, 0)
