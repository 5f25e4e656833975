"""A run that is stopped anywhere and resumed ends as if it had not been stopped."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import ASTRONAUT, SMALL_FIT, checkpoints, is_one_line

import train
from models.miner import MINER
from training import run, trainer
from training.datamodule import LevelDataModule
from training.stop import Enough
from utils.checkpoint import level_path, load_level, load_state, part_paths, save_part, save_state, state_path

N_KILLS = int(os.environ.get("KILLS", 3))
FIT = [
    *(*SMALL_FIT, "--input_size", "60", "45", "--arch", "centred", "--optimizer", "nradam"),
    *("--val_freq", "20", "--save_every", "0"),
]
N_EPOCHS = {"fused": ["20", "40", "200"], "reference": ["10", "20", "40"]}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["train", "training.level", "training.curves"])


def fit(folder: Path, arguments: list[str], visit_points: int) -> None:
    """What a process of its own does."""
    os.chdir(folder)
    os.dup2(os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    sys.argv = ["train.py", *arguments]
    trainer._VISIT_POINTS = {"cpu": visit_points}
    train.cli()


def start(folder: Path, arguments: list[str], visit_points: int = 2**12) -> multiprocessing.Process:
    process = FORKS.Process(target=fit, args=(folder, arguments, visit_points))
    process.start()
    return process


def wait_for_state(process: multiprocessing.Process, ckpts: Path) -> None:
    while not state_path(ckpts).exists():
        assert process.exitcode is None, "it ended without saving"
        time.sleep(0.02)


@pytest.fixture(scope="module", params=["fused", "reference"])
def uninterrupted(request, tmp_path_factory) -> tuple[list[str], dict[str, bytes], float]:
    """The command, the files it leaves, and how long it takes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    arguments = [*FIT, "--backend", request.param, "--num_epochs", *N_EPOCHS[request.param]]
    warm = FORKS.Process(target=int)  # the imports, which all processes share
    warm.start()
    warm.join()
    began = time.monotonic()
    process = start(folder, arguments)
    process.join()
    assert process.exitcode == 0
    return arguments, checkpoints(folder), time.monotonic() - began


def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(uninterrupted, tmp_path):
    arguments, expected, seconds = uninterrupted
    generator = random.Random(os.environ.get("KILLS_SEED", 0))
    kills = runs = 0
    while kills < N_KILLS:
        folder = tmp_path / f"run{runs}"
        folder.mkdir()
        runs += 1
        while True:
            began = time.monotonic()
            process = start(folder, [*arguments, "--resume"])
            process.join(generator.uniform(0, 0.5) * seconds if kills < N_KILLS else None)
            if process.exitcode is not None:
                seconds = min(seconds, time.monotonic() - began)  # the machine may have been busy
                break
            process.kill()
            process.join()
            kills += 1
        assert process.exitcode == 0, (folder / "output.txt").read_text()
        assert checkpoints(folder) == expected
        assert not state_path(folder / "ckpts/small").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_is_saved_and_the_command_that_is_printed_goes_on(uninterrupted, tmp_path, number, status):
    arguments, expected, _ = uninterrupted
    has_many_visits = (number == signal.SIGINT) == ("fused" in arguments)  # else one a period
    visit_points = 2**12 if has_many_visits else 2**24
    process = start(tmp_path, arguments, visit_points)
    wait_for_state(process, tmp_path / "ckpts/small")
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == status
    said = (tmp_path / "output.txt").read_text()
    assert "Traceback" not in said
    printed = said.splitlines()[-1].partition("resume with: python train.py ")[2].split()
    assert printed == [*arguments, "--resume"]
    process = start(tmp_path, printed, visit_points=2**14)
    process.join()
    assert process.exitcode == 0
    assert checkpoints(tmp_path) == expected, "however large the visits are"


def test_a_part_that_is_saved_counts_though_its_state_is_still_there(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--max_blocks", 3, "--num_epochs", 40, "--val_freq", 20]
    assert command("train.py", *arguments).status == 0
    whole = checkpoints(tmp_path)
    save_part = run.save_part

    def save_and_stop(*record):
        save_part(*record)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "save_part", save_and_stop)
    assert command("train.py", *arguments, "--overwrite").status == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert state_path(tmp_path / "ckpts/small").exists()
    assert len(part_paths(tmp_path / "ckpts/small")) == 1
    resumed = command("train.py", *arguments, "--resume")
    assert resumed.status == 0, resumed.error
    assert checkpoints(tmp_path) == whole


def test_a_level_that_was_stopped_between_its_parts_goes_on_with_parts_of_another_size(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--num_epochs", 40, "--val_freq", 20]
    assert command("train.py", *arguments).status == 0
    whole = checkpoints(tmp_path)
    save_part = run.save_part

    def save_and_stop(folder, first, record):
        save_part(folder, first, record)
        if (record["level"], first) == (1, 6):
            raise KeyboardInterrupt

    folder = tmp_path / "ckpts/small"
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_part", save_and_stop)
        assert command("train.py", *arguments, "--max_blocks", 3, "--overwrite").status == 130
    assert len(part_paths(folder)) == 3
    assert not level_path(folder, 1).exists()
    (folder / ".l0.ckpt.part").write_bytes(b"half a file")
    resumed = command("train.py", *arguments, "--resume", "--max_blocks", 5)
    assert resumed.status == 0, resumed.error
    assert checkpoints(tmp_path) == whole
    assert sorted(path.name for path in folder.glob(".*")) == [".lock"]


@pytest.mark.parametrize("parts", [(), ("--max_blocks", "9")], ids=["whole", "in_parts"])
@pytest.mark.parametrize("level", [2, 1, 0])
def test_a_run_whose_time_ran_out_continues_as_if_it_had_not(command, tmp_path, monkeypatch, level, parts):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--num_epochs", "40", "--val_freq", "20", *parts]
    assert command("train.py", *arguments).status == 0
    whole = checkpoints(tmp_path)
    with monkeypatch.context() as patch:  # out of time at the first validation of a level
        patch.setattr(Enough, "__call__", lambda enough, index, _: runs_out(enough, index == level, index))
        ended = command("train.py", *arguments, "--overwrite")
    assert ended.status == 0, ended.error
    assert f"--max_seconds ran out in level {level}" in ended.error
    assert checkpoints(tmp_path) != whole
    assert MINER.load("ckpts/small").finest == 0, "it decodes"
    resumed = command("train.py", *arguments, "--resume")
    assert resumed.status == 0, resumed.error
    assert checkpoints(tmp_path) == whole
    assert "is finished" in command("train.py", *arguments, "--resume").out


def runs_out(enough: Enough, now: bool, level: int) -> bool:
    if now:
        enough.why = f"--max_seconds ran out in level {level}"
    return enough.why is not None


def test_a_run_that_reached_its_target_is_finished_until_more_is_asked_for(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--val_freq", "20"]
    assert command("train.py", *arguments).status == 0
    whole = checkpoints(tmp_path)
    assert command("train.py", *arguments, "--overwrite", "--target_psnr", 28).status == 0
    early = checkpoints(tmp_path)
    assert early != whole
    assert "is finished" in command("train.py", *arguments, "--resume", "--target_psnr", 27).out
    assert command("train.py", *arguments, "--resume").status == 0
    assert checkpoints(tmp_path)["l0.ckpt"] == whole["l0.ckpt"], "the coarser ones record the target"


def test_a_target_may_be_raised(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--val_freq", "20"]
    assert command("train.py", *arguments, "--target_psnr", 33).status == 0
    expected = checkpoints(tmp_path)["l0.ckpt"]
    assert command("train.py", *arguments, "--overwrite", "--target_psnr", 25).status == 0
    raised = command("train.py", *arguments, "--resume", "--target_psnr", 33)
    assert raised.status == 0, raised.error
    assert "is finished" not in raised.out
    assert checkpoints(tmp_path)["l0.ckpt"] == expected


def test_time_may_be_given_again_and_again(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--num_epochs", "40", "--val_freq", "20"]
    assert command("train.py", *arguments, "--exp_name", "whole").status == 0
    outcome, n_runs = command("train.py", *arguments, "--max_seconds", 1e-3), 1
    while "--max_seconds ran out" in outcome.error:
        outcome = command("train.py", *arguments, "--max_seconds", 1e-3, "--resume")
        assert outcome.status == 0, outcome.error
        n_runs += 1
    assert 3 < n_runs < 9, "a period each time"
    assert torch.equal(MINER.load("ckpts/small").decode(), MINER.load("ckpts/whole").decode())


def test_a_run_that_ended_early_is_called_unfinished(command, tmp_path, monkeypatch):
    """Here between two levels, so there is no state either."""
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--num_epochs", "20", "--val_freq", "20"]
    assert command("train.py", *arguments, "--max_seconds", 1e-3).status == 0
    assert not state_path(tmp_path / "ckpts/small").exists()
    assert "already holds an unfinished fit: --resume continues it" in command("train.py", *arguments).error
    assert command("train.py", *arguments, "--resume").status == 0
    assert "already holds a fit: --overwrite replaces it" in command("train.py", *arguments).error


def test_a_level_without_networks_waits_for_the_one_that_ran_out_of_time(command, tmp_path, monkeypatch):
    """With this threshold level 1 needs none."""
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--num_epochs", "40", "--val_freq", "20", "--loss_thr", 0.06]
    assert command("train.py", *arguments).status == 0
    whole = checkpoints(tmp_path)
    assert len(load_level(tmp_path / "ckpts/small/l1.ckpt")["network"]["amplitude"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Enough, "__call__", lambda enough, index, _: runs_out(enough, index == 2, index))
        assert command("train.py", *arguments, "--overwrite").status == 0
    resumed = command("train.py", *arguments, "--resume")
    assert resumed.status == 0, resumed.error
    assert checkpoints(tmp_path) == whole


def test_a_signal_that_comes_while_lightning_sets_up_is_handled_as_any_other(command, tmp_path, monkeypatch):
    """The last visit of a level, after which Lightning looks for a signal that it has seen itself."""
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--num_epochs", "20", "--val_freq", "20"]
    assert command("train.py", *arguments).status == 0
    whole, load = checkpoints(tmp_path), LevelDataModule.train_dataloader

    def hit(data):
        signal.raise_signal(signal.SIGTERM)
        return load(data)

    with monkeypatch.context() as patch:
        patch.setattr(LevelDataModule, "train_dataloader", hit)
        outcome = command("train.py", *arguments, "--overwrite")
    assert outcome.status == 143
    assert "error: terminated; progress saved; resume with" in outcome.error
    assert command("train.py", *arguments, "--resume").status == 0
    assert checkpoints(tmp_path) == whole


def test_an_older_run_in_the_folder_does_not_count_as_finished(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *SMALL_FIT).status == 0
    arguments = [*SMALL_FIT, "--lr", 1e-3, "--num_epochs", 40, "--val_freq", 20]
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_level", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(run.Run, "drop_progress", lambda _: None)
        patch.setattr(run, "files_of_run", lambda _: [])
        assert command("train.py", *arguments, "--overwrite").status == 130
    outcome = command("train.py", *arguments, "--resume", "--target_psnr", 1)
    assert outcome.status == 0, outcome.error
    assert "is finished" not in outcome.out


def test_a_run_killed_after_it_reached_its_target_ends_the_same(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--val_freq", "20", "--target_psnr", 28]
    assert command("train.py", *arguments).status == 0
    whole = checkpoints(tmp_path)
    save_level = run.save_level

    def save_or_die(path, record, others):
        if record["level"] == 0:
            raise KeyboardInterrupt
        save_level(path, record, others)

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_level", save_or_die)
        assert command("train.py", *arguments, "--overwrite").status == 130
    assert command("train.py", *arguments, "--resume").status == 0
    assert checkpoints(tmp_path) == whole


def test_a_finished_run_says_so(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *SMALL_FIT, "--resume").status == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("ckpts/small/*")}
    again = command("train.py", *SMALL_FIT, "--resume", "--log_image")
    assert again.status == 0
    assert "ckpts/small is finished" in again.out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("ckpts/small/*")} == before


def test_more_epochs_at_the_finest_level_give_what_they_would_have_given(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *SMALL_FIT, "--num_epochs", 20, 20, 40).status == 0
    fewer = command("train.py", *SMALL_FIT, "--num_epochs", 20, 20, 30, "--resume")
    assert "level 0 of ckpts/small has 40 epochs, but --num_epochs asks for 30" in fewer.error
    other = command("train.py", *SMALL_FIT, "--num_epochs", 20, 30, 40, "--resume")
    assert "level 1 of ckpts/small has 20 epochs, but --num_epochs asks for 30" in other.error
    assert command("train.py", *SMALL_FIT, "--num_epochs", 20, 20, 80, "--resume").status == 0
    assert command("train.py", *SMALL_FIT, "--num_epochs", 20, 20, 80, "--exp_name", "fresh").status == 0
    resumed, fresh = MINER.load("ckpts/small"), MINER.load("ckpts/fresh")
    assert torch.equal(resumed.decode(), fresh.decode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lr", "0.01"], "another --lr:"),
        (["--n_hidden", "21", "--seed", "3", "--backend", "reference"], "another --n_hidden, --seed:"),
        (["--input_size", "99", "75"], "another --input_size:"),
    ],
)
def test_options_that_change_the_result_are_refused_by_name(command, small_copy, change, message):
    outcome = command("train.py", *SMALL_FIT, *change, "--resume")
    assert outcome.status not in (0, None)
    assert message in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1


@pytest.fixture
def small_copy(small_run, tmp_path, monkeypatch) -> Path:
    """A copy of the finished small run, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpts/small").mkdir(parents=True)
    for path in small_run.iterdir():
        if path.is_file():
            (tmp_path / "ckpts/small" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "ckpts/small"


def test_another_picture_is_refused(command, small_copy, tmp_path):
    import cv2

    picture = cv2.imread(str(ASTRONAUT))
    cv2.imwrite(str(tmp_path / "other.png"), picture[::-1])
    outcome = command("train.py", *SMALL_FIT, "--path", tmp_path / "other.png", "--resume")
    assert "another signal" in outcome.error


def test_without_resume_an_unfinished_run_is_left_alone(command, small_copy):
    (small_copy / "metrics.json").unlink()
    outcome = command("train.py", *SMALL_FIT)
    assert "already holds an unfinished fit: --resume continues it" in outcome.error
    level_path(small_copy, 0).unlink()
    assert command("train.py", *SMALL_FIT, "--resume").status == 0
    assert json.loads((small_copy / "metrics.json").read_text())["psnr"] > 31


def test_a_damaged_state_is_told_in_one_line(command, small_copy):
    level_path(small_copy, 0).unlink()
    state_path(small_copy).write_bytes(b"PK nonsense")
    outcome = command("train.py", *SMALL_FIT, "--resume")
    assert "state.ckpt is damaged" in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1


def test_a_state_that_does_not_fit_is_told_in_one_line(command, small_copy, tmp_path, monkeypatch):
    arguments = [*SMALL_FIT, "--exp_name", "stopped", "--num_epochs", "40"]
    process = start(tmp_path, [*arguments, "--val_freq", "1"])
    wait_for_state(process, tmp_path / "ckpts/stopped")
    process.kill()
    process.join()
    state = load_state(tmp_path / "ckpts/stopped")
    state["state"]["survivors"] = torch.arange(100, 200)
    save_state(tmp_path / "ckpts/stopped", {name: state[name] for name in ("level", "run", "options", "span", "state")})
    outcome = command("train.py", *arguments, "--val_freq", "1", "--resume")
    assert "state.ckpt is not consistent" in outcome.error
    assert "Traceback" not in outcome.error


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"psnr": "high", "parameters": 3}', '{"psnr": NaN}', "[" * 3000],
)
def test_a_damaged_report_is_told_in_one_line_and_written_again(command, small_copy, text):
    (small_copy / "metrics.json").write_text(text)
    outcome = command("train.py", *SMALL_FIT, "--resume")
    assert str(outcome.status).startswith("error: ckpts/small/metrics.json is ")
    assert str(outcome.status).endswith("delete it, and --resume writes it again")
    assert is_one_line(outcome.error)


def test_the_report_of_a_run_that_is_replaced_is_not_read(command, small_copy):
    """It may be that of another kind of signal, or damaged."""
    (small_copy / "metrics.json").write_text('{"iou": 1}')
    assert command("train.py", *SMALL_FIT, "--num_epochs", 1, "--overwrite").status == 0
    assert "psnr" in json.loads((small_copy / "metrics.json").read_text())


def test_a_report_that_is_deleted_is_written_again(command, small_copy):
    before = json.loads((small_copy / "metrics.json").read_text())
    (small_copy / "metrics.json").unlink()
    assert command("train.py", *SMALL_FIT, "--resume").status == 0
    assert json.loads((small_copy / "metrics.json").read_text())["psnr"] == before["psnr"]


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory) -> tuple[list[str], Path]:
    """A command and the folder of its run, stopped inside the second part of its finest level."""
    folder = tmp_path_factory.mktemp("stopped_run")
    arguments = [*SMALL_FIT, "--num_epochs", "8", "--val_freq", "2", "--max_blocks", "20", "--backend", "reference"]
    saves = run.save_state

    def save_and_stop(ckpts, record):
        saves(ckpts, record)
        if record["level"] == 0 and record["span"][0] > 0:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(run, "save_state", save_and_stop)
        patch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit):
            train.cli()
    return arguments, folder / "ckpts"


PART = "part000000000000.ckpt"


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("state.ckpt", ["span"], 20),
        ("state.ckpt", ["span"], [20]),
        ("state.ckpt", ["span"], ["20", "35"]),
        ("state.ckpt", ["span"], [35, 20]),
        ("state.ckpt", ["span"], [20, 10**12]),
        ("state.ckpt", ["span"], torch.arange(2)),
        ("state.ckpt", ["level"], "0"),
        ("state.ckpt", ["run"], torch.arange(2)),
        ("state.ckpt", ["options", "num_epochs"], None),
        ("state.ckpt", ["state"], None),
        ("state.ckpt", ["state", "n_epochs_done"], "2"),
        ("state.ckpt", ["state", "n_diverged"], None),
        ("state.ckpt", ["state", "moments"], []),
        ("state.ckpt", ["state", "silent"], torch.zeros(2, dtype=torch.bool)),
        ("state.ckpt", ["state", "block_sums"], torch.zeros(2, 2)),
        (PART, ["span"], [0]),
        (PART, ["span"], [5, 20]),
        (PART, ["span"], [0, 10**12]),
        (PART, ["sums"], torch.zeros(3, 2)),
        (PART, ["silent"], None),
        (PART, ["epochs"], "many"),
        (PART, ["networks", 0, "bias.0"], torch.zeros(20, 1, 3)),
        (PART, ["networks"], []),
        (PART, ["networks"], [{}]),
        (PART, ["group"], None),
        (PART, ["group"], torch.ones(20, dtype=torch.int8)),
    ],
)
def test_a_record_that_was_tampered_with_is_told_in_one_line(
    command, stopped_run, tmp_path, monkeypatch, file, keys, value
):
    arguments, ckpts = stopped_run
    shutil.copytree(ckpts, tmp_path / "ckpts")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ckpts/small" / file
    record = torch.load(path)
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    torch.save(record, path)
    outcome = command("train.py", *arguments, "--resume")
    assert isinstance(outcome.status, str)
    assert re.match(r"error: .*(ckpts/small is not consistent|\.ckpt(:| is not consistent))", outcome.status)
    assert is_one_line(outcome.status)
    assert path.exists()


def test_a_part_that_was_deleted_is_missed(command, stopped_run, tmp_path, monkeypatch):
    arguments, ckpts = stopped_run
    shutil.copytree(ckpts, tmp_path / "ckpts")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpts/small" / PART).rename(tmp_path / "part.ckpt")
    outcome = command("train.py", *arguments, "--resume")
    assert "state.ckpt is not consistent: delete it, and --resume continues" in outcome.status
    state = load_state(tmp_path / "ckpts/small")
    later = {name: state[name] for name in ("level", "run", "options")} | {"span": [20, 30]}
    save_part(tmp_path / "ckpts/small", 20, later)
    outcome = command("train.py", *arguments, "--resume")
    assert "part000000000020.ckpt: the part before it is missing; delete it" in outcome.status


def test_two_runs_of_one_name_exclude_each_other(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = start(tmp_path, [*SMALL_FIT, "--num_epochs", "100000", "--val_freq", "10"])
    wait_for_state(process, tmp_path / "ckpts/small")
    second = command("train.py", *SMALL_FIT, "--overwrite")
    assert second.error.strip() == ("error: ckpts/small is being fitted by another process; choose another --exp_name")
    process.kill()
    process.join()
    assert load_state(tmp_path / "ckpts/small")["level"] == 2
    assert command("train.py", *SMALL_FIT, "--num_epochs", 1, "--overwrite").status == 0, "a crash leaves no lock"
