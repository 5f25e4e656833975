"""Where the training of few epochs starts."""

from pathlib import Path

import pytest
import torch
from helpers import ASTRONAUT

from models.block_network import init_blocks_
from models.encoding import encode, encoded_width
from models.networks import make_network
from models.ops import fused_cpu, reference
from models.shape import NetworkShape
from models.starts import fit_last_layer, widen_
from opt import parse_options, settle
from options.presets import RIDGE_EPOCHS, steps_for
from training.spec import specify_levels
from utils.blocks import block_coords

try:
    from models.ops import fused_cuda
except ImportError:  # there is no Triton for this system
    fused_cuda = None

BACKENDS = [
    pytest.param(module, id=module.__name__.rpartition(".")[2])
    for module in (reference, fused_cpu, fused_cuda)
    if module
]
SHAPES = [
    NetworkShape(n_in=24, n_out=3, n_layers=3, n_hidden=18, output="sine", centre=0.5),
    NetworkShape(n_in=24, n_out=1, n_layers=3, n_hidden=18, output="sigmoid", centre=0.5),
    NetworkShape(n_in=2, n_out=4, n_layers=2, n_hidden=7, output="linear"),
    NetworkShape(n_in=2, n_out=3, n_layers=4, n_hidden=9, activation="sine", output="linear", omega=30.0),
]


def problem(shape: NetworkShape, n_points: int = 100, n_blocks: int = 11, backend=reference):
    torch.manual_seed(3)
    network = make_network(n_blocks, shape, 0.6)
    init_blocks_(network, torch.arange(n_blocks), seed=1, level=0)
    network.amplitude.fill_(0.4)
    coords, target = torch.rand(n_points, shape.n_in) * 2 - 1, torch.rand(n_blocks, n_points, shape.n_out) * 0.8 + 0.1
    device = "cuda" if backend is fused_cuda and torch.cuda.is_available() else "cpu"  # else Triton's interpreter
    return network.to(device), coords.to(device), target.to(device)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_last_layer_is_the_minimum_of_the_penalised_squares(backend, shape):
    """The gradient of  sum |h w + b - wanted|^2 + ridge |w|^2  vanishes there, by autograd in double precision."""
    network, coords, target = problem(shape, backend=backend)
    others = [tensor.clone() for tensor in network.packed_order()[: 2 * shape.n_layers - 2]]
    backend.fit_last_layer(network, coords, target)
    assert all(map(torch.equal, others, network.packed_order()))
    network = network.double()
    features = network.features(coords.double()).detach()
    wanted = network.before_output(target.double()).detach()
    variance = (features - features.mean(1, keepdim=True)).square().sum(1).mean(1)
    weight, bias = network.weight[-1], network.bias[-1]
    penalty = reference.RIDGE * (variance[:, None, None] * weight.square()).sum()
    loss = (torch.baddbmm(bias, features, weight) - wanted).square().sum() + penalty
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 1e-4 * wanted.square().sum() / len(wanted)


def test_blocks_do_not_see_each_other_nor_the_number_of_threads():
    shape = SHAPES[0]
    network, coords, target = problem(shape, 256)
    alone = network.select(torch.tensor([4]))
    fused_cpu.fit_last_layer(alone, coords, target[4:5])
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        fused_cpu.fit_last_layer(network, coords, target)
    finally:
        torch.set_num_threads(n_threads)
    assert torch.equal(network.weight[-1][4:5], alone.weight[-1])
    assert torch.equal(network.bias[-1][4:5], alone.bias[-1])


@pytest.mark.skipif(fused_cuda is None, reason="there is no Triton for this system")
@pytest.mark.parametrize("n_points", [3, 37, 256])
def test_on_a_gpu_a_last_layer_is_that_of_the_definition_and_no_block_sees_another(n_points):
    network, coords, target = problem(SHAPES[0], n_points, 3, fused_cuda)
    alone, expected = network.select(torch.tensor([1])), network.select(torch.arange(3))
    fused_cuda.fit_last_layer(network, coords, target)
    fused_cuda.fit_last_layer(alone, coords, target[1:2])
    reference.fit_last_layer(expected, coords, target)
    for mine, single, true in zip(network.parameters(), alone.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine[1:2], single)
        torch.testing.assert_close(mine, true, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_units_that_are_constant_leave_the_layer_as_it_was(backend):
    network, coords, target = problem(SHAPES[2], backend=backend)
    with torch.no_grad():
        network.weight[0][2] = 0
    before = network.weight[-1][2].clone()
    backend.fit_last_layer(network, coords, target)
    assert torch.equal(network.weight[-1][2], before)
    assert network.is_finite().all()


def test_a_picture_starts_nearer_than_by_the_usual_draw_and_by_its_mean(astronaut):
    frequencies = tuple(3.0 * k for k in range(1, 7))
    blocks = astronaut[:, :64, :96].unfold(1, 32, 32).unfold(2, 32, 32).reshape(3, 6, -1).permute(1, 2, 0).contiguous()
    shape = NetworkShape(n_in=encoded_width(2, frequencies), n_out=3, n_layers=3, n_hidden=18, centre=0.5)
    coords = encode(block_coords((32, 32)), frequencies)
    network = make_network(6, shape, 0.8)
    init_blocks_(network, torch.arange(6), seed=0, level=0)
    usual = (network(coords) - blocks).square().mean()
    widen_(network, frequencies)
    fit_last_layer(fused_cpu, network, coords, blocks, torch.randperm(1024))
    assert (network(coords) - blocks).square().mean() < min(0.75 * usual, blocks.var(1).mean())


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_parts_that_start_fitted_leave_the_files_of_a_level_at_once(command, tmp_path, monkeypatch, backend):
    fit = [
        "--path",
        ASTRONAUT,
        "--input_size",
        150,
        100,
        "--preset",
        "best",
        "--num_epochs",
        2,
        3,
        5,
        "--loss_thr",
        1e-5,
    ]
    left = []
    for more in ([], ["--max_blocks", 4]):
        (tmp_path / str(len(left))).mkdir()
        monkeypatch.chdir(tmp_path / str(len(left)))
        done = command("train.py", *fit, "--exp_name", "one", "--backend", backend, "--accelerator", "cpu", *more)
        assert done.status == 0, done.error
        left.append([Path("ckpts/one", name).read_bytes() for name in ("l0.ckpt", "l1.ckpt", "l2.ckpt")])
    assert left[0] == left[1]


def test_a_wider_draw_is_of_gaussian_networks_alone():
    for shape in SHAPES[3:]:
        network, *_ = problem(shape)
        before = [parameter.clone() for parameter in network.parameters()]
        widen_(network, None)
        assert all(map(torch.equal, before, network.parameters()))


def test_steps_follow_from_the_epochs_of_each_level():
    options = parse_options(["--path", "x.png", "--preset", "best", "--num_epochs", "20", "40", "41", "200"])
    specs = specify_levels(settle(options, (1000, 1000)), 2, 3)[::-1]
    assert [spec.batch_size for spec in specs] == [64, 64, 128, 128]
    short, long = (steps_for("image", "clipped", 1024, n_epochs)[1] for n_epochs in (20, 200))
    assert short != long
    assert [spec.betas for spec in specs] == [short] * 2 + [long] * 2
    assert [spec.starts_fitted for spec in specs] == [True, False, False, False]
    given = parse_options(["--path", "x.png", "--preset", "best", "--num_epochs", "5", "--batch_size", "100"])
    [*_, spec] = specify_levels(settle(given, (1000, 1000)), 2, 3)
    assert (spec.batch_size, spec.betas, spec.starts_fitted) == (100, short, True)


def test_the_seeds_steps_do_not_follow_from_the_epochs():
    options = parse_options(["--path", "x.png", "--num_epochs", "5"])
    [spec] = specify_levels(options, 2, 3)
    assert (spec.batch_size, spec.betas, spec.starts_fitted) == (256, (0.9, 0.999), False)


def test_batches_follow_the_patch():
    assert steps_for("image", "plain", 16 * 16, 200)[0] == 32
    assert steps_for("image", "clipped", 3, 5)[0] == 1
    assert steps_for("mesh", "clipped", 16**3, 150)[0] == 512
    assert steps_for("mesh", "plain", 16**3, 150)[0] == 1024
    assert RIDGE_EPOCHS <= 40


@pytest.mark.parametrize("n_points", [625, 21 * 21, 33 * 33, 17**3, 100 * 100 + 1])
@pytest.mark.parametrize("n_epochs", [5, 200])
@pytest.mark.parametrize("task", ["image", "mesh"])
def test_no_batch_is_a_small_rest_of_an_epoch(task, n_points, n_epochs):
    """The loss of a batch is scaled by itself, so that of a single point would weigh as much as all others."""
    batch_size, _ = steps_for(task, "plain", n_points, n_epochs)
    assert -n_points % batch_size < batch_size / 2
