"""The CPU kernel against its definition, the reference in double precision."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers import KERNEL_CASES, KERNEL_OPTIMIZERS, ROOT, kernel_problem, random_network, worst_error

from models.ops import _note, choose_backend, fused_cpu, reference
from models.ops.optimizers import make_optimizer, select_blocks
from models.shape import NetworkShape
from utils import compiler
from utils.errors import InputError
from utils.rng import point_order

N_EPOCHS = 5


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that a kernel must write holds NaN before."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def fit(backend, case, n_epochs, double=False, **optimizer):
    network, coords, target = kernel_problem(case)
    order = point_order(2, 1, range(n_epochs), len(coords))
    lr = torch.linspace(3e-2, 1e-2, n_epochs)
    if double:
        network, coords, target = network.double(), coords.double(), target.double()
    optimizer = make_optimizer(network, 3e-2, **optimizer)
    losses = backend.fit_points(network, optimizer, coords, target, order, case[1], lr)
    return network, optimizer, losses


@pytest.mark.parametrize("case", KERNEL_CASES, ids=str)
def test_every_gradient_is_that_of_the_definition(case):
    """After one step the first moment is a tenth of the gradient.

    A gradient is a sum that may cancel, so rounding is measured against the largest of its kind over all blocks.
    """
    case = (case[0], case[0], *case[2:])
    truth, true_optimizer, true_losses = fit(reference, case, 1, double=True)
    plain, plain_optimizer, _ = fit(reference, case, 1)
    network, optimizer, losses = fit(fused_cpu, case, 1)
    assert worst_error(losses.T, true_losses.T) < 1e-5
    for (name, expected), other, actual in zip(
        truth.named_parameters(), plain.parameters(), network.parameters(), strict=True
    ):
        for moment in ("exp_avg", "exp_avg_sq"):
            moments = (
                part.state[tensor][moment].flatten()[None]
                for part, tensor in ((optimizer, actual), (plain_optimizer, other), (true_optimizer, expected))
            )
            fused_moment, plain_moment, true_moment = moments
            assert worst_error(fused_moment, true_moment) < 5 * worst_error(plain_moment, true_moment) + 1e-6, name


@pytest.mark.parametrize("case", KERNEL_CASES, ids=str)
def test_many_steps_end_as_near_to_the_definition_as_the_reference_does(case):
    """Errors grow with the steps, in any float32 arithmetic: those of the reference are the measure."""
    truth, true_optimizer, _ = fit(reference, case, N_EPOCHS, double=True)
    plain, plain_optimizer, _ = fit(reference, case, N_EPOCHS)
    network, optimizer, losses = fit(fused_cpu, case, N_EPOCHS)
    assert losses.shape == (N_EPOCHS, case[2])
    for expected, other, actual in zip(truth.parameters(), plain.parameters(), network.parameters(), strict=True):
        assert worst_error(actual, expected) < 5 * worst_error(other, expected) + 1e-6
        state, plain_state = optimizer.state[actual], plain_optimizer.state[other]
        assert state["step"] == plain_state["step"] == N_EPOCHS * -(-case[0] // case[1])
        for moment in ("exp_avg", "exp_avg_sq"):
            true_moment = true_optimizer.state[expected][moment]
            assert worst_error(state[moment], true_moment) < 5 * worst_error(plain_state[moment], true_moment) + 2e-6


@pytest.mark.parametrize("optimizer", KERNEL_OPTIMIZERS, ids=str)
def test_each_optimizer_is_that_of_the_definition(optimizer):
    case, other_steps = KERNEL_CASES[0], fit(reference, KERNEL_CASES[0], N_EPOCHS)[0]
    truth, *_ = fit(reference, case, N_EPOCHS, double=True, **optimizer)
    plain, *_ = fit(reference, case, N_EPOCHS, **optimizer)
    network, *_ = fit(fused_cpu, case, N_EPOCHS, **optimizer)
    for expected, other, actual in zip(truth.parameters(), plain.parameters(), network.parameters(), strict=True):
        assert worst_error(actual, expected) < 5 * worst_error(other, expected) + 1e-5
    assert worst_error(other_steps.weight[0], truth.weight[0]) > 1e-2, "it matters"


def test_backends_may_be_changed_in_mid_run():
    case = KERNEL_CASES[0]
    truth, *_ = fit(reference, case, N_EPOCHS, double=True)
    plain, *_ = fit(reference, case, N_EPOCHS)
    network, coords, target = kernel_problem(case)
    optimizer = make_optimizer(network, 3e-2)
    order, lr = point_order(2, 1, range(N_EPOCHS), len(coords)), torch.linspace(3e-2, 1e-2, N_EPOCHS)
    for epoch in range(N_EPOCHS):
        backend = (reference, fused_cpu)[epoch % 2]
        once = slice(epoch, epoch + 1)
        backend.fit_points(network, optimizer, coords, target, order[once], case[1], lr[once])
    for expected, other, actual in zip(truth.parameters(), plain.parameters(), network.parameters(), strict=True):
        assert worst_error(actual, expected) < 5 * worst_error(other, expected) + 1e-6


@pytest.mark.parametrize("case", KERNEL_CASES, ids=str)
def test_predictions_are_those_of_the_definition(case):
    network, coords, _ = kernel_problem(case)
    expected = network.double()(coords.double())
    assert worst_error(fused_cpu.predict(network.float(), slice(None), coords), expected) < 1e-5


def test_a_block_without_numbers_spoils_no_other():
    case = KERNEL_CASES[0]
    healthy, optimizer, losses = fit(fused_cpu, case, 2)
    network, coords, target = kernel_problem(case)
    with torch.no_grad():
        network.weight[1][3, 0, 0] = torch.nan
    sick_optimizer = make_optimizer(network, 3e-2)
    order, lr = point_order(2, 1, range(2), len(coords)), torch.linspace(3e-2, 1e-2, 2)
    sick_losses = fused_cpu.fit_points(network, sick_optimizer, coords, target, order, case[1], lr)
    others = torch.tensor([0, 1, 2, 4, 5, 6])
    assert sick_losses[:, 3].isnan().all()
    assert torch.equal(sick_losses[:, others], losses[:, others])
    for mine, theirs in zip(
        select_blocks(network, sick_optimizer, others)[0].parameters(),
        select_blocks(healthy, optimizer, others)[0].parameters(),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


def test_the_number_of_threads_does_not_change_a_bit():
    threads = torch.get_num_threads()
    case = (64, 16, 37, KERNEL_CASES[0][3])
    results = []
    for n_threads in (1, 2, 3, 8):
        torch.set_num_threads(n_threads)
        results.append(fit(fused_cpu, case, 2)[0])
    torch.set_num_threads(threads)
    for other in results[1:]:
        for mine, theirs in zip(results[0].parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("processor", ["x86_64", "x86_64_v3"])
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of other processors")
def test_older_processors_have_the_same_kernel(processor, monkeypatch):
    if processor == "x86_64_v3" and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no AVX2")
    flags = [f"-mcpu={processor}" if flag == "-mcpu=native" else flag for flag in fused_cpu._FLAGS]
    monkeypatch.setattr(fused_cpu, "_FLAGS", flags)
    fused_cpu._library.cache_clear()
    test_many_steps_end_as_near_to_the_definition_as_the_reference_does(KERNEL_CASES[3])
    test_predictions_are_those_of_the_definition(KERNEL_CASES[3])
    fused_cpu._library.cache_clear()


def test_the_kernel_compiles_for_arm(tmp_path):
    constants = fused_cpu._constants(KERNEL_CASES[0][3])
    compiler.compile_source(
        fused_cpu._SOURCE, ["-O1", "-c", "-target", "aarch64-linux-gnu", *constants], tmp_path / "kernel.o"
    )
    assert (tmp_path / "kernel.o").stat().st_size


def test_large_phases_of_the_sine_are_taken_like_any_other():
    shape = NetworkShape(n_in=2, n_out=1, n_layers=2, n_hidden=4, output="sine")
    network = random_network(3, shape)
    with torch.no_grad():
        network.bias[1][:, 0, 0] = torch.tensor([-900.0, 3000.0, 20000.0])
    coords = torch.rand(40, 2)
    expected = network.double()(coords.double())
    actual = fused_cpu.predict(network.float(), slice(None), coords)
    assert (actual - expected).abs().max() < 2e-3, "half of the last place of 20000"


def test_without_the_compiler_auto_takes_the_reference_and_says_why(monkeypatch, capsys):
    shape = NetworkShape(n_in=2, n_out=1, n_layers=2, n_hidden=5, output="sine")
    fused_cpu._library.cache_clear()
    monkeypatch.setattr(compiler, "version", lambda _: (_ for _ in ()).throw(ImportError))
    assert choose_backend("auto", [shape], "cpu") is reference
    said = capsys.readouterr().err
    assert "ziglang" in said
    assert said.count("\n") == 1
    with pytest.raises(InputError, match=r"--backend fused: .*ziglang.*use --backend reference"):
        choose_backend("fused", [shape], "cpu")
    assert choose_backend("reference", [shape], "cpu") is reference
    fused_cpu._library.cache_clear()


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("In file included:\nx.c:3:1: error: unknown type\n  flaot x;\n", "failed: x.c:3:1: error: unknown type"),
        ("Traceback (most recent call last):\n  File 1\nFileNotFoundError: zig\n", "failed: FileNotFoundError: zig"),
        ("", "failed: it does not say why"),
    ],
)
def test_a_compiler_that_fails_is_asked_once_and_its_complaint_is_one_line(
    tmp_path, monkeypatch, capsys, printed, reason
):
    shape = NetworkShape(n_in=2, n_out=1, n_layers=2, n_hidden=5, output="sine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "_processor", lambda: "any")
    monkeypatch.setattr(compiler.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr=printed))
    monkeypatch.setattr("models.ops._note", _note.__wrapped__)  # which prints a note once
    fused_cpu._library.cache_clear()
    compiler._say_compiling.cache_clear()
    for _ in range(2):
        assert choose_backend("auto", [shape], "cpu") is reference
    fused_cpu._library.cache_clear()
    compiling, *notes = capsys.readouterr().err.splitlines()
    assert compiling.startswith("compiling the kernel")
    assert len(notes) == 2
    assert all(note.startswith("note: using the reference backend") and reason in note for note in notes)
    assert "Traceback" not in notes[0]


def test_without_a_place_for_kernels_auto_takes_the_reference(tmp_path, monkeypatch, capsys):
    shape = NetworkShape(n_in=2, n_out=1, n_layers=2, n_hidden=5, output="sine")
    monkeypatch.setattr(compiler, "_cache", lambda: tmp_path / "nowhere")
    fused_cpu._library.cache_clear()
    assert choose_backend("auto", [shape], "cpu") is reference
    fused_cpu._library.cache_clear()
    assert "nowhere" in capsys.readouterr().err


def test_gabor_filters_are_left_to_the_reference():
    shape = NetworkShape(
        n_in=2, n_out=3, n_layers=3, n_hidden=20, kind="filters", activation="gabor", output="linear", omega=10.0
    )
    assert choose_backend("auto", [shape], "cpu") is reference
    with pytest.raises(InputError, match="--backend fused: it has no gabor activations; use --backend reference"):
        choose_backend("fused", [shape], "cpu")


def test_two_processes_may_compile_one_kernel_at_once(tmp_path):
    program = """
import torch
from models.networks import make_network
from models.ops import fused_cpu
from models.shape import NetworkShape
network = make_network(2, NetworkShape(2, 1, n_layers=2, n_hidden=3, output="sine"))
print(fused_cpu.predict(network, slice(None), torch.ones(1, 2)).shape)
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for process in processes:
        out, err = process.communicate()
        assert out == "torch.Size([2, 1, 1])\n", err
        assert "compiling the kernels" in err
    assert len(list((tmp_path / "miner").glob("*.so"))) == 1
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert again.stderr == "", "compiled once"
