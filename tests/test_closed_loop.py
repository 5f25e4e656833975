"""train.py --pack: finer levels build on networks that are rounded, and the run leaves them as one file too."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import BEST_FIT, checkpoints, is_one_line, start_training

from models.miner import MINER
from utils.checkpoint import checkpoint_bytes

FIT = [*BEST_FIT, "--pack"]


@pytest.fixture(scope="module")
def packed_run(tmp_path_factory) -> Path:
    """The folder in which a packed run was fitted by a process of its own."""
    folder = tmp_path_factory.mktemp("packed_run")
    process = start_training(folder, *FIT)
    (folder / "out.txt").write_text(process.communicate(timeout=120)[0])
    assert process.returncode == 0
    return folder


@pytest.fixture
def packed_copy(packed_run, tmp_path, monkeypatch) -> Path:
    """The folder of a copy of that run, in the current folder."""
    shutil.copytree(packed_run / "ckpts/small", tmp_path / "ckpts/small")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ckpts/small"


def files(folder: Path) -> dict[str, bytes]:
    """The checkpoints of a run in a folder, and its file."""
    return checkpoints(folder) | {"small.miner": (folder / "ckpts/small/small.miner").read_bytes()}


def test_the_file_of_a_run_decodes_to_what_its_checkpoints_do_and_is_told(packed_run):
    ckpts = packed_run / "ckpts/small"
    folder, file = MINER.load(ckpts), MINER.load(ckpts / "small.miner")
    for level in range(2):
        assert torch.equal(file.decode(level), folder.decode(level))
    report, n_bytes = json.loads((ckpts / "metrics.json").read_text()), (ckpts / "small.miner").stat().st_size
    assert report["bytes"] == {"checkpoints": checkpoint_bytes(ckpts), "packed": n_bytes}
    assert report["bits_per_pixel"] == {name: 8 * size / 7500 for name, size in report["bytes"].items()}
    assert 4 * n_bytes < checkpoint_bytes(ckpts)
    assert f"ckpts/small/small.miner: {n_bytes:,} bytes, " in (packed_run / "out.txt").read_text()
    assert file.levels[0].contents.chunks.coding.name == "quantised"


def test_packing_it_again_gives_the_same_bytes(command, packed_run, tmp_path):
    outcome = command("pack.py", packed_run / "ckpts/small", "--out", tmp_path / "x.miner")
    assert outcome.status == 0, outcome.error
    assert (tmp_path / "x.miner").read_bytes() == files(packed_run)["small.miner"]


@pytest.mark.parametrize("left", [["l1.ckpt"], ["l1.ckpt", "l0.ckpt"], []])
def test_a_run_that_was_killed_between_levels_ends_with_the_same_files(command, packed_run, packed_copy, left):
    for path in packed_copy.iterdir():
        if path.name not in left and path.is_file():
            path.unlink()
    outcome = command("train.py", *FIT, "--resume")
    assert outcome.status == 0, outcome.error
    assert files(packed_copy.parent.parent) == files(packed_run)


def test_two_processes_leave_the_files_of_one(packed_run, tmp_path):
    process = start_training(tmp_path, *FIT, "--devices", 2)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert files(tmp_path) == files(packed_run)


def test_nothing_is_rounded_where_nothing_may_be_lost(command, packed_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *FIT, "--loss_db", 0).status == 0
    file = MINER.load("ckpts/small/small.miner")
    assert file.levels[0].contents.chunks.coding.name == "float32"
    assert torch.equal(file.decode(), MINER.load("ckpts/small").decode())
    assert len(files(tmp_path)["small.miner"]) > 2 * len(files(packed_run)["small.miner"])


def test_a_loss_without_a_file_is_told_in_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", *BEST_FIT, "--loss_db", 0.5)
    assert outcome.status == "error: --loss_db 0.5: is for --pack, which is not given; add it, or leave this out"
    assert is_one_line(outcome.error)
    assert not list(tmp_path.iterdir())


def test_a_run_that_replaces_it_without_a_file_removes_the_old_one(command, packed_copy):
    assert command("train.py", *BEST_FIT, "--num_epochs", 1, "--overwrite").status == 0
    assert not (packed_copy / "small.miner").exists()
    assert "packed" not in json.loads((packed_copy / "metrics.json").read_text())["bytes"]


def test_going_on_without_the_file_is_refused_by_name(command, packed_copy):
    (packed_copy / "l0.ckpt").unlink()
    outcome = command("train.py", *BEST_FIT, "--resume")
    assert "was fitted with another --pack, --loss_db: use the same" in outcome.error
    assert is_one_line(outcome.error)


def test_the_options_of_a_run_give_its_file_again(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *FIT, "--batch_size", 128, "--betas", 0.9, 0.95).status == 0
    expected = files(tmp_path)
    shutil.copy("ckpts/small/options.yaml", tmp_path)
    shutil.rmtree("ckpts")
    assert command("train.py", "--config", "options.yaml", "--accelerator", "cpu").status == 0
    assert files(tmp_path) == expected
