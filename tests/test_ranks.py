"""However many processes share out the blocks, and however many are trained at once, the files are the same."""

import errno
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import SMALL_FIT, start_training
from torch.distributed.elastic.multiprocessing import SignalException

from training.launch import join, launch
from training.state import PartState
from utils.checkpoint import load_level, state_path


def fit(folder: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
    process = start_training(folder, *SMALL_FIT, *arguments, launcher=launcher)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def files(ckpts: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in ckpts.iterdir() if path.name != "metrics.json"}


@pytest.mark.parametrize(
    ("arguments", "n_processes", "launcher"),
    [
        (["--devices", 3, "--max_blocks", 5], 3, ()),
        ([], 2, ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")),
    ],
    ids=["three_in_parts", "torchrun"],
)
def test_processes_leave_the_files_of_one_process_with_all_blocks(
    small_run, tmp_path, arguments, n_processes, launcher
):
    out = fit(tmp_path, *arguments, launcher=launcher)
    assert files(tmp_path / "ckpts/small") == files(small_run)
    assert out.count("PSNR") == 1
    assert f"{n_processes} processes" in out
    assert not list(tmp_path.glob("ckpts/.levels"))


def test_parts_and_mapped_files_leave_the_files_of_all_blocks_in_memory(command, small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitted = command("train.py", *SMALL_FIT, "--max_blocks", 4, "--max_memory", 1e-5)
    assert fitted.status == 0, fitted.error
    assert files(tmp_path / "ckpts/small") == files(small_run)
    assert "processes" not in fitted.out
    [levels] = tmp_path.glob("ckpts/.levels/*/levels.json")
    before = levels.stat().st_mtime_ns
    again = command("train.py", *SMALL_FIT, "--max_memory", 1e-5, "--exp_name", "again", "--num_epochs", 1)
    assert again.status == 0, again.error
    assert levels.stat().st_mtime_ns == before, "the levels are made once"


def test_processes_end_together_at_a_target_that_a_part_reaches(command, tmp_path, monkeypatch):
    arguments = ["--val_freq", 20, "--target_psnr", 31]
    fit(tmp_path / "two", *arguments, "--max_blocks", 7, "--devices", 2)
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *SMALL_FIT, *arguments, "--max_blocks", 14).status == 0
    assert files(tmp_path / "two/ckpts/small") == files(tmp_path / "ckpts/small")
    assert load_level(tmp_path / "ckpts/small/l0.ckpt")["incomplete"]


STEP = {"NUM_TASKS": 2, "NUM_NODES": 1, "NODELIST": "localhost", "ID": 0}  # what srun tells


def in_slurm(step: dict[str, object], task: int, local: int) -> dict[str, str]:
    own = {"JOB_ID": 77123, "PROCID": task, "LOCALID": local}
    return {f"SLURM_{name}": str(value) for name, value in own.items()} | {
        f"SLURM_STEP_{name}": str(value) for name, value in step.items()
    }


def test_tasks_of_slurm_find_each_other(small_run, tmp_path):
    tasks = [start_training(tmp_path, *SMALL_FIT, env=in_slurm(STEP, task, task)) for task in (0, 1)]
    outputs = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert "2 processes" in outputs[0]
    assert outputs[1] == ""
    assert files(tmp_path / "ckpts/small") == files(small_run)


def wait_for(happens: Callable[[], bool]) -> None:
    for _ in range(6000):
        if happens():
            return
        time.sleep(0.01)
    raise AssertionError("it does not happen")


def is_alive(number: int) -> bool:
    return Path(f"/proc/{number}").exists()


def children(number: int) -> list[int]:
    path = Path(f"/proc/{number}/task/{number}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def start_and_hit(folder: Path, arguments: list, n_processes: int, number: signal.Signals, victim: int | None) -> str:
    """Resume a run, send a signal to one of its processes, or the agent, once it has gone on; what the run says then.

    None of the processes is left.
    """
    state = state_path(folder / "ckpts/small")
    before = state.stat().st_mtime_ns if state.exists() else 0
    process = start_training(folder, *arguments, "--devices", n_processes, "--resume")
    wait_for(lambda: process.poll() is not None or len(children(process.pid)) == n_processes)
    workers = children(process.pid)
    wait_for(lambda: process.poll() is not None or (state.exists() and state.stat().st_mtime_ns > before))
    assert process.poll() is None, "the run must be longer than what comes before its end"
    os.kill(process.pid if victim is None else workers[victim], number)
    _, error = process.communicate(timeout=60)
    wait_for(lambda: not any(map(is_alive, workers)))
    assert "Traceback" not in error
    return f"{process.returncode} {error[error.find('error: ') :].strip() if 'error: ' in error else ''}".strip()


def test_a_run_whose_processes_end_in_all_ways_ends_with_the_files_of_one_that_ran_through(
    command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    size = ["--input_size", 60, 45, "--max_blocks", 6, "--loss_thr", 0]
    arguments = [*SMALL_FIT, *size, "--num_epochs", 60, 60, 5000, "--val_freq", 50]
    assert command("train.py", *arguments).status == 0
    broken = tmp_path / "broken"
    resume = "progress saved; resume with: python .*train\\.py .*--resume"
    for n_processes, number, victim, expected in [
        (3, signal.SIGKILL, 2, rf"1 error: process 2 died \(SIGKILL\); {resume}"),
        (2, signal.SIGKILL, 0, rf"1 error: process 0 died \(SIGKILL\); {resume}"),
        (2, signal.SIGKILL, None, "-9"),
        (2, signal.SIGTERM, 1, f"143 error: terminated; {resume}"),
        (2, signal.SIGTERM, None, f"143 error: terminated; {resume}"),
    ]:
        assert re.fullmatch(expected, start_and_hit(broken, arguments, n_processes, number, victim))
    monkeypatch.chdir(broken)
    assert command("train.py", *arguments, "--resume").status == 0
    assert files(broken / "ckpts/small") == files(tmp_path / "ckpts/small")


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


def test_a_signal_that_comes_when_the_run_is_finished_is_too_late(small_run, tmp_path):
    process = start_training(tmp_path, *SMALL_FIT, "--devices", 2, env={"PYTHONUNBUFFERED": "1"})
    assert any(line.startswith("PSNR") for line in process.stdout)
    time.sleep(0.02)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "error" not in error
    assert files(tmp_path / "ckpts/small") == files(small_run)


def test_a_temporary_folder_that_cannot_be_removed_is_not_told(monkeypatch):
    def end(*_):
        raise SignalException("the run was stopped", signal.SIGTERM)

    def fail(*_, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", lambda *_: end)
    monkeypatch.setattr("os.rmdir", fail)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    for name in ("MINER_AGENT", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    try:
        with pytest.raises(SystemExit, match="143"):
            launch(2, 0.0)
    finally:
        logging.disable(logging.NOTSET)


def test_bad_input_is_told_once(tmp_path):
    process = start_training(tmp_path, *SMALL_FIT, "--devices", 2, "--path", "missing.png")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.strip() == "error: missing.png: no such file"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("group", [[0] * 10, [1, 0, 0, 1, 1, 0, 1, 1, 0, 1]], ids=["one_group", "two_groups"])
def test_merging_undoes_splitting(size, group):
    """Ten blocks of which some train, some ahead of others."""
    survivors, group = torch.tensor([0, 2, 3, 5, 9]), torch.tensor(group, dtype=torch.int8)
    of_blocks = [int((group == number).sum()) for number in group.unique()]
    of_survivors = [int((group[survivors] == number).sum()) for number in group.unique()]
    state = PartState(
        group=group,
        network=[{"weight.0": torch.rand(n, 2, 3)} for n in of_blocks],
        twin=[{"weight.0": torch.rand(n, 2, 3)} for n in of_survivors],
        moments=[[[torch.rand(n, 2, 3), torch.rand(n, 2, 3)]] for n in of_survivors],
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
    assert torch.equal(merged.group, group)
    for number in group.unique():
        mine = (merged.group[merged.survivors] == number).nonzero().squeeze(1)
        order_of_group = merged.survivors[mine].argsort()
        assert torch.equal(merged.network[number]["weight.0"], state.network[number]["weight.0"])
        assert torch.equal(merged.twin[number]["weight.0"][order_of_group], state.twin[number]["weight.0"])
        assert torch.equal(merged.moments[number][0][1][order_of_group], state.moments[number][0][1])
    assert torch.equal(merged.epochs_done[order], state.epochs_done)
    assert torch.equal(merged.block_sums, state.block_sums)
    assert torch.equal(merged.silent, state.silent)
    torch.testing.assert_close(merged.period_loss, state.period_loss)
