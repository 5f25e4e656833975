"""The GPU kernel against its definition: on a GPU where there is one, else in Triton's interpreter on the CPU."""

import json

import pytest
import torch
from helpers import KERNEL_CASES, KERNEL_OPTIMIZERS, SMALL_FIT, kernel_problem, worst_error

from models.networks import make_network
from models.ops import choose_backend, reference
from models.ops.optimizers import make_optimizer, select_blocks
from models.shape import NetworkShape
from utils.errors import KernelError
from utils.rng import point_order

fused_cuda = pytest.importorskip("models.ops.fused_cuda", exc_type=ImportError)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = 1e-5 if DEVICE == "cuda" else 1e-6  # three TF32 products keep some 21 bits of a float32 product's 24
N_EPOCHS = 2
MOST_BLOCKS = 1000 if DEVICE == "cuda" else 2  # the interpreter takes them one after the other
SERVED = [
    (n_points, batch_size, min(n_blocks, MOST_BLOCKS), shape)
    for n_points, batch_size, n_blocks, shape in KERNEL_CASES
    if shape.n_hidden < 64
]


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that a kernel must write holds NaN before."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def fit(backend, case, device, epochs=range(N_EPOCHS), double=False, **optimizer):
    """Network, optimizer and losses after some epochs."""
    n_points, batch_size, *_ = case
    network, coords, target = (part.to(device) for part in kernel_problem(case))
    if double:
        network, coords, target = network.double(), coords.double(), target.double()
    optimizer = make_optimizer(network, 3e-2, **optimizer)
    order = point_order(2, 1, range(N_EPOCHS), n_points)[epochs.start : epochs.stop].to(device)
    lr = torch.linspace(3e-2, 1e-2, N_EPOCHS)[epochs.start : epochs.stop]
    return network, optimizer, backend.fit_points(network, optimizer, coords, target, order, batch_size, lr)


@pytest.mark.parametrize("case", SERVED, ids=str)
def test_many_steps_end_as_near_to_the_definition_as_the_reference_does(case):
    truth, true_optimizer, true_losses = fit(reference, case, "cpu", double=True)
    plain, plain_optimizer, _ = fit(reference, case, "cpu")
    network, optimizer, losses = fit(fused_cuda, case, DEVICE)
    assert worst_error(losses.T.cpu(), true_losses.T) < 10 * ROUNDING
    for expected, other, actual in zip(truth.parameters(), plain.parameters(), network.parameters(), strict=True):
        assert worst_error(actual.cpu(), expected) < 5 * worst_error(other, expected) + ROUNDING
        state, plain_state = optimizer.state[actual], plain_optimizer.state[other]
        assert state["step"] == plain_state["step"] == N_EPOCHS * -(-case[0] // case[1])
        for moment in ("exp_avg", "exp_avg_sq"):
            true_moment = true_optimizer.state[expected][moment]
            allowed = 5 * worst_error(plain_state[moment], true_moment) + 10 * ROUNDING
            assert worst_error(state[moment].cpu(), true_moment) < allowed


@pytest.mark.parametrize("optimizer", KERNEL_OPTIMIZERS[-1:], ids=str)
def test_each_optimizer_is_that_of_the_definition(optimizer):
    case = SERVED[0]
    truth, *_ = fit(reference, case, "cpu", double=True, **optimizer)
    plain, *_ = fit(reference, case, "cpu", **optimizer)
    network, *_ = fit(fused_cuda, case, DEVICE, **optimizer)
    for expected, other, actual in zip(truth.parameters(), plain.parameters(), network.parameters(), strict=True):
        assert worst_error(actual.cpu(), expected) < 5 * worst_error(other, expected) + 10 * ROUNDING


@pytest.mark.parametrize("case", SERVED, ids=str)
def test_predictions_are_those_of_the_definition(case):
    network, coords, _ = kernel_problem(case)
    expected = network.double()(coords.double())
    network, coords = network.float().to(DEVICE), coords.to(DEVICE)
    together = fused_cuda.predict(network, slice(None), coords)
    assert worst_error(together.cpu(), expected) < 10 * ROUNDING
    last = torch.tensor([case[2] - 1], device=DEVICE)
    assert torch.equal(fused_cuda.predict(network, last, coords), together[last])


def test_a_part_of_the_blocks_and_a_break_between_epochs_change_no_bit():
    case = SERVED[0]
    whole, whole_optimizer, losses = fit(fused_cuda, case, DEVICE)
    network, optimizer, _ = fit(fused_cuda, case, DEVICE, range(1))
    survivors = torch.tensor([1], device=DEVICE)
    part, part_optimizer = select_blocks(network, optimizer, survivors)
    coords, target = (tensor.to(DEVICE) for tensor in kernel_problem(case)[1:])
    order = point_order(2, 1, range(1, N_EPOCHS), len(coords)).to(DEVICE)
    lr = torch.linspace(3e-2, 1e-2, N_EPOCHS)[1:]
    rest = fused_cuda.fit_points(part, part_optimizer, coords, target[survivors], order, case[1], lr)
    assert torch.equal(rest, losses[1:, survivors])
    expected, expected_optimizer = select_blocks(whole, whole_optimizer, survivors)
    for mine, theirs in zip(part.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(part_optimizer.state[mine][moment], expected_optimizer.state[theirs][moment])


def test_views_of_a_larger_network_are_trained_in_place():
    case = SERVED[0]
    whole, _, _ = fit(fused_cuda, case, DEVICE)
    network = kernel_problem(case)[0].to(DEVICE)
    coords, target = (tensor.to(DEVICE) for tensor in kernel_problem(case)[1:])
    optimizer = make_optimizer(network, 3e-2)
    order = point_order(2, 1, range(N_EPOCHS), len(coords)).to(DEVICE)
    for rows in (slice(0, 1), slice(1, None)):
        part, part_optimizer = select_blocks(network, optimizer, rows)
        lr = torch.linspace(3e-2, 1e-2, N_EPOCHS)
        fused_cuda.fit_points(part, part_optimizer, coords, target[rows], order, case[1], lr)
    for mine, theirs in zip(network.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_no_blocks_are_no_work():
    network = make_network(0, SERVED[0][3]).to(DEVICE)
    coords = torch.rand(9, 16, device=DEVICE)
    assert fused_cuda.predict(network, slice(None), coords).shape == (0, 9, 3)
    target, order = coords.new_empty(0, 9, 3), point_order(0, 0, range(2), 9).to(DEVICE)
    losses = fused_cuda.fit_points(network, make_optimizer(network, 0.1), coords, target, order, 4, torch.ones(2))
    assert losses.shape == (2, 0)


def test_networks_that_no_kernel_does_are_left_to_the_reference(capsys):
    wide = NetworkShape(n_in=16, n_out=3, n_layers=3, n_hidden=65, output="sine")
    with pytest.raises(KernelError, match="16-65-3 is too wide"):
        fused_cuda.prepare(wide)
    assert choose_backend("auto", [wide], "cuda") is reference
    assert "too wide" in capsys.readouterr().err
    gabor = NetworkShape(
        n_in=2, n_out=3, n_layers=3, n_hidden=20, kind="filters", activation="gabor", output="linear", omega=10.0
    )
    with pytest.raises(KernelError, match="no gabor activations"):
        fused_cuda.prepare(gabor)
    assert choose_backend("auto", [gabor], "cuda") is reference


@pytest.mark.skipif(DEVICE == "cpu", reason="whole runs are slow in the interpreter")
def test_a_run_on_the_gpu_is_as_good_as_with_the_reference(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quality = {}
    for backend in ("fused", "reference"):
        options = ["--accelerator", "gpu", "--backend", backend, "--exp_name", backend]
        assert command("train.py", *SMALL_FIT, *options).status == 0
        quality[backend] = json.loads((tmp_path / "ckpts" / backend / "metrics.json").read_text())["psnr"]
    assert abs(quality["fused"] - quality["reference"]) < 0.3
