"""However many processes share out the blocks, and however many are trained at once, the files are the same."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SMALL_FIT

from models.level_module import merge_states, split_state
from utils.checkpoint import state_path

LAUNCHERS = {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "MINER_PARENT"}


def start(folder: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *launcher, ROOT / "train.py", *SMALL_FIT, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name not in LAUNCHERS},
    )


def fit(folder: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
    process = start(folder, *arguments, launcher=launcher)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("ckpts/small/*") if path.name != "metrics.json"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, bytes]:
    """What one process leaves."""
    folder = tmp_path_factory.mktemp("alone")
    fit(folder)
    return files(folder)


@pytest.mark.parametrize(
    ("arguments", "launcher"),
    [
        (["--devices", 2, "--max_blocks", 7], ()),
        (["--devices", 3], ()),
        ([], ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29611")),
        (["--max_blocks", 4, "--max_memory", 1e-5], ()),
    ],
    ids=["two", "three", "torchrun", "a_few_blocks_at_a_time_from_mapped_files"],
)
def test_processes_and_parts_leave_the_files_of_one_process_with_all_blocks(alone, tmp_path, arguments, launcher):
    out = fit(tmp_path, *arguments, launcher=launcher)
    assert files(tmp_path) == alone
    assert out.count("PSNR") == 1
    levels = list(tmp_path.glob("ckpts/.levels/*/levels.json"))
    assert bool(levels) == ("--max_memory" in arguments)


def test_tasks_of_slurm_find_each_other(alone, tmp_path, monkeypatch):
    job = {"JOB_ID": "77123", "JOB_NAME": "fit", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1", "NODEID": "0"}
    for name, value in (job | {"NODELIST": "localhost", "JOB_NODELIST": "localhost"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    tasks = []
    for task in "01":
        monkeypatch.setenv("SLURM_PROCID", task)
        monkeypatch.setenv("SLURM_LOCALID", task)
        tasks.append(start(tmp_path))
    outputs = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert "2 processes" in outputs[0]
    assert outputs[1] == ""
    assert files(tmp_path) == alone


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} does not come")


def children(process: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout
    return [int(number) for number in found.split()]


LONG = ["--num_epochs", 60, 60, 4000, "--val_freq", 20, "--save_every", 0]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_process_that_dies_ends_all_with_one_line_and_another_number_goes_on(alone, tmp_path, victim):
    process = start(tmp_path, *LONG, "--devices", 3, "--loss_thr", 0)
    wait_for(tmp_path / "ckpts/small/l1.ckpt")
    wait_for(state_path(tmp_path / "ckpts/small"))
    others = children(process)
    assert len(others) == 2
    os.kill([process.pid, *others][victim], signal.SIGKILL)
    began = time.monotonic()
    _, error = process.communicate(timeout=30)
    while any(Path(f"/proc/{number}").exists() for number in others):
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert process.returncode != 0
    said = [line for line in error.splitlines() if "error" in line or "Traceback" in line]
    assert len(said) == 1
    expected = rf"error: process {victim} died; what is done is saved, this goes on: python .*train\.py .*--resume"
    assert re.match(expected, said[0])


def test_a_run_that_was_killed_over_three_processes_goes_on_over_two_and_one(tmp_path):
    arguments = ["--num_epochs", 60, 60, 3000, "--val_freq", 300, "--save_every", 0, "--max_blocks", 9]
    fit(tmp_path / "whole", *arguments)
    broken = tmp_path / "broken"
    generator = random.Random(0)
    kills = 0
    for devices in (3, 2, 3, 1):
        process = start(broken, *arguments, "--resume", "--devices", devices)
        while process.poll() is None and not state_path(broken / "ckpts/small").exists():
            time.sleep(0.02)
        time.sleep(generator.uniform(0.1, 0.6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 2, "the run must be longer than what comes before its end"
    fit(broken, *arguments, "--resume", "--devices", 2)
    assert files(broken) == files(tmp_path / "whole")


def test_a_run_that_was_killed_between_the_parts_of_a_level_goes_on(tmp_path):
    arguments = ["--num_epochs", 60, 900, 60, "--val_freq", 300, "--max_blocks", 3]
    fit(tmp_path / "whole", *arguments)
    broken = tmp_path / "broken"
    process = start(broken, *arguments)
    folder = broken / "ckpts/small"
    while not (folder / "l2.ckpt").exists() or not list(folder.glob("part*6.ckpt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (folder / "l1.ckpt").exists()
    (folder / ".l0.ckpt.part").write_bytes(b"half a file")
    fit(broken, *arguments, "--resume", "--max_blocks", 5)
    assert files(broken) == files(tmp_path / "whole")
    assert sorted(path.name for path in folder.glob(".*")) == [".lock"]


def test_a_stop_of_one_process_stops_all_and_saves(tmp_path):
    process = start(tmp_path, *LONG, "--devices", 2, "--loss_thr", 0)
    wait_for(state_path(tmp_path / "ckpts/small"))
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143
    assert error.splitlines()[-1].startswith("error: terminated; what is done is saved, this goes on: python ")
    assert "Traceback" not in error


def test_bad_input_is_told_once(tmp_path):
    process = start(tmp_path, "--devices", 2, "--path", "missing.png")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.strip() == "error: missing.png: no such file"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_merging_undoes_splitting(size):
    """Ten blocks of which some train, some ahead of others."""
    training = torch.tensor([0, 2, 3, 5, 9])
    state = {
        "network": {"weight.0": torch.rand(10, 2, 3)},
        "twin": {"weight.0": torch.rand(5, 2, 3)},
        "moments": [[torch.rand(5, 2, 3), torch.rand(5, 2, 3)]],
        "training_blocks": training,
        "epochs_done": torch.tensor([7, 4, 7, 4, 4]),
        "block_sums": torch.rand(10, 2),
        "n_epochs_done": 4,
        "period_loss": torch.rand(5),
        "n_diverged": 1,
        "block_epochs": 1,
    }
    pieces = [split_state(state, rank, size) for rank in range(size)]
    assert all((piece["epochs_done"].diff() >= 0).all() for piece in pieces), "those that are as far lie together"
    merged = merge_states(pieces)
    assert merged["block_epochs"] == 1
    assert merged["n_diverged"] == 1
    order = merged["training_blocks"].argsort()
    assert torch.equal(merged["training_blocks"][order], training)
    for name in ("network", "twin"):
        whole, expected = merged[name]["weight.0"], state[name]["weight.0"]
        assert torch.equal(whole if name == "network" else whole[order], expected)
    assert torch.equal(merged["moments"][0][1][order], state["moments"][0][1])
    assert torch.equal(merged["epochs_done"][order], state["epochs_done"])
    assert torch.equal(merged["block_sums"], state["block_sums"])
    torch.testing.assert_close(merged["period_loss"], state["period_loss"])
