"""However many processes share out the blocks, and however many are trained at once, the files are the same."""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from helpers import SMALL_FIT, start_training

from training.launch import join
from training.state import PartState
from utils.checkpoint import find_levels, load_level, load_state, state_path


def fit(folder: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
    process = start_training(folder, *SMALL_FIT, *arguments, launcher=launcher)
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
        ([], ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")),
        (["--max_blocks", 4, "--max_memory", 1e-5], ()),
    ],
    ids=["two", "three", "torchrun", "a_few_blocks_at_a_time_from_mapped_files"],
)
def test_processes_and_parts_leave_the_files_of_one_process_with_all_blocks(alone, tmp_path, arguments, launcher):
    out = fit(tmp_path, *arguments, launcher=launcher)
    assert files(tmp_path) == alone
    assert out.count("PSNR") == 1
    wanted = {"--devices 2": 2, "--devices 3": 3, "": 2}.get(" ".join(map(str, arguments[:2])), 1)
    assert ("processes" in out) == (wanted > 1)
    assert wanted == 1 or f"{wanted} processes" in out
    levels = list(tmp_path.glob("ckpts/.levels/*/levels.json"))
    assert bool(levels) == ("--max_memory" in arguments)


def test_processes_end_together_at_a_target_that_a_part_reaches(tmp_path):
    arguments = ["--val_freq", 20, "--target_psnr", 31]
    fit(tmp_path / "one", *arguments, "--max_blocks", 14)
    fit(tmp_path / "two", *arguments, "--max_blocks", 7, "--devices", 2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert load_level(tmp_path / "one/ckpts/small/l0.ckpt")["incomplete"]


STEP = {"NUM_TASKS": 2, "NUM_NODES": 1, "NODELIST": "localhost", "ID": 0}  # what srun tells


def in_slurm(step: dict[str, object], task: int, local: int) -> dict[str, str]:
    own = {"JOB_ID": 77123, "PROCID": task, "LOCALID": local}
    return {f"SLURM_{name}": str(value) for name, value in own.items()} | {
        f"SLURM_STEP_{name}": str(value) for name, value in step.items()
    }


def test_tasks_of_slurm_find_each_other(alone, tmp_path):
    tasks = [start_training(tmp_path, *SMALL_FIT, env=in_slurm(STEP, task, task)) for task in (0, 1)]
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


def alive(numbers: list[int]) -> list[int]:
    return [number for number in numbers if Path(f"/proc/{number}").exists()]


@pytest.mark.parametrize("victim", [0, 2])
def test_a_process_that_dies_ends_all_with_one_line(tmp_path, victim):
    process = start_training(tmp_path, *SMALL_FIT, *LONG, "--devices", 3, "--loss_thr", 0)
    wait_for(tmp_path / "ckpts/small/l1.ckpt")
    wait_for(state_path(tmp_path / "ckpts/small"))
    workers = children(process)
    assert len(workers) == 3
    began = time.monotonic()
    os.kill(workers[victim], signal.SIGKILL)
    _, error = process.communicate(timeout=30)
    while alive(workers):
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert process.returncode == 1
    said = [line for line in error.splitlines() if "error" in line or "Traceback" in line]
    assert len(said) == 1
    expected = rf"error: process {victim} died \(SIGKILL\); progress saved; resume with: python .*train\.py .*--resume"
    assert re.match(expected, said[0])


def test_processes_whose_agent_is_killed_end_too(tmp_path):
    process = start_training(tmp_path, *SMALL_FIT, *LONG, "--devices", 2, "--loss_thr", 0)
    wait_for(state_path(tmp_path / "ckpts/small"))
    workers = children(process)
    process.kill()
    process.communicate(timeout=30)
    for _ in range(300):
        if not alive(workers):
            return
        time.sleep(0.1)
    raise AssertionError(f"{alive(workers)} still run")


def test_a_run_that_was_killed_over_three_processes_goes_on_over_two_and_one(tmp_path):
    arguments = ["--num_epochs", 60, 60, 3000, "--val_freq", 300, "--save_every", 0, "--max_blocks", 9]
    fit(tmp_path / "whole", *arguments)
    broken = tmp_path / "broken"
    generator = random.Random(0)
    kills = 0
    for devices in (3, 2, 3, 1):
        process = start_training(broken, *SMALL_FIT, *arguments, "--resume", "--devices", devices)
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
    process = start_training(broken, *SMALL_FIT, *arguments)
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


@pytest.mark.parametrize("who", ["agent", "first", "last"])
def test_a_stop_of_one_process_stops_all_and_saves(tmp_path, who):
    process = start_training(tmp_path, *SMALL_FIT, *LONG, "--devices", 2, "--loss_thr", 0)
    wait_for(state_path(tmp_path / "ckpts/small"))
    workers = children(process)
    os.kill({"agent": process.pid, "first": workers[0], "last": workers[1]}[who], signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143
    assert error.count("error: ") == 1
    assert "error: terminated; progress saved; resume with: python " in error.splitlines()[-1]
    assert "Traceback" not in error
    folder = tmp_path / "ckpts/small"
    assert load_state(folder) or find_levels(folder), "a level in the making, or one that was just done"


@pytest.mark.parametrize(
    ("step", "task", "local", "expected"),
    [
        (STEP | {"NUM_TASKS": 4, "NUM_NODES": 2}, 3, 1, (3, 4, 1, 2)),
        (STEP | {"NUM_TASKS": 4}, 2, 2, (2, 4, 2, 4)),
        (STEP | {"NUM_TASKS": 5, "NUM_NODES": 2}, 4, 2, (4, 5, 2, 3)),
    ],
)
def test_srun_needs_no_tasks_per_node(monkeypatch, step, task, local, expected):
    """What `srun -n 4` tells its tasks."""
    for name in ("init_process_group", "new_group", "destroy_process_group"):
        monkeypatch.setattr(f"training.launch.dist.{name}", lambda *_, **options: None)
    monkeypatch.setattr("training.launch._end_with", lambda parent: None)
    for name, value in in_slurm(step, task, local).items():
        monkeypatch.setenv(name, value)
    with join() as ranks:
        assert (ranks.rank, ranks.size, ranks.local_rank, ranks.n_local) == expected


def test_a_script_of_a_job_that_is_no_step_runs_alone(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    with join() as ranks:
        assert ranks.size == 1


def test_bad_input_is_told_once(tmp_path):
    process = start_training(tmp_path, *SMALL_FIT, "--devices", 2, "--path", "missing.png")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.strip() == "error: missing.png: no such file"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_merging_undoes_splitting(size):
    """Ten blocks of which some train, some ahead of others."""
    survivors = torch.tensor([0, 2, 3, 5, 9])
    state = PartState(
        network={"weight.0": torch.rand(10, 2, 3)},
        twin={"weight.0": torch.rand(5, 2, 3)},
        moments=[[torch.rand(5, 2, 3), torch.rand(5, 2, 3)]],
        survivors=survivors,
        epochs_done=torch.tensor([7, 4, 7, 4, 4]),
        block_sums=torch.rand(10, 2),
        silent=torch.arange(10) == 4,
        n_epochs_done=4,
        period_loss=torch.rand(5),
        n_diverged=1,
        block_epochs=1,
    )
    pieces = [state.split(rank, size) for rank in range(size)]
    assert all((piece.epochs_done.diff() >= 0).all() for piece in pieces), "those that are as far lie together"
    merged = PartState.merge(pieces)
    assert (merged.block_epochs, merged.n_diverged, merged.n_epochs_done) == (1, 1, 4)
    order = merged.survivors.argsort()
    assert torch.equal(merged.survivors[order], survivors)
    assert torch.equal(merged.network["weight.0"], state.network["weight.0"])
    assert torch.equal(merged.twin["weight.0"][order], state.twin["weight.0"])
    assert torch.equal(merged.moments[0][1][order], state.moments[0][1])
    assert torch.equal(merged.epochs_done[order], state.epochs_done)
    assert torch.equal(merged.block_sums, state.block_sums)
    assert torch.equal(merged.silent, state.silent)
    torch.testing.assert_close(merged.period_loss, state.period_loss)
