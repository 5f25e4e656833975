"""pack.py: a file that loses no more than is asked for, and one line where there can be none."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import is_one_line

from models.miner import MINER
from packing.loss import difference, pack_within
from utils.checkpoint import checkpoint_bytes
from utils.metrics import psnr


@pytest.mark.parametrize("loss_db", [0.1, 1.0])
def test_a_file_is_small_and_as_near_to_the_picture_as_was_asked_for(command, best_run, tmp_path, astronaut, loss_db):
    path = tmp_path / "x.miner"
    outcome = command("pack.py", best_run, "--out", path, "--loss_db", loss_db)
    assert outcome.status == 0, outcome.error
    before, after = psnr(MINER.load(best_run).decode(), astronaut), psnr(MINER.load(path).decode(), astronaut)
    assert before - after < loss_db + 0.02 + 0.2 * loss_db**2, "errors that are added hardly depend on each other"
    n_bytes = path.stat().st_size
    assert n_bytes * 4 < checkpoint_bytes(best_run)
    first, second = outcome.out.splitlines()
    assert first.startswith(f"{path}: {n_bytes:,} bytes, {8 * n_bytes / 7500:.1f} bits a pixel, ")
    found = re.fullmatch(r"PSNR : ([\d.]+) dB, ([\d.]+) dB less", second)
    assert 0.8 * loss_db < float(found[2]) <= loss_db
    assert float(found[1]) == pytest.approx(before - float(found[2]), abs=0.002)
    assert "\nquantised: " in "\n" + outcome.error


def test_the_default_loses_a_tenth_of_a_decibel(command, best_run, tmp_path, astronaut):
    assert command("pack.py", best_run, "--out", tmp_path / "default.miner").status == 0
    assert command("pack.py", best_run, "--out", tmp_path / "x.miner", "--loss_db", 0.1).status == 0
    assert (tmp_path / "default.miner").read_bytes() == (tmp_path / "x.miner").read_bytes()
    lost = psnr(MINER.load(best_run).decode(), astronaut) - psnr(MINER.load(tmp_path / "x.miner").decode(), astronaut)
    assert lost == pytest.approx(0.1, abs=0.02)


def test_nothing_is_lost_where_nothing_may_be(command, best_run, tmp_path):
    outcome = command("pack.py", best_run, "--out", tmp_path / "x.miner", "--loss_db", 0)
    assert (outcome.status, outcome.error) == (0, "")
    assert torch.equal(MINER.load(tmp_path / "x.miner").decode(), MINER.load(best_run).decode())


def test_a_file_decodes_to_what_was_measured_bit_for_bit_and_so_do_crops(command, best_run, tmp_path):
    path, model = tmp_path / "x.miner", MINER.load(best_run)
    assert command("pack.py", best_run, "--out", path).status == 0
    error = 10 ** (-json.loads((best_run / "metrics.json").read_text())["psnr"] / 10)
    packed = pack_within(model, error * (10**0.01 - 1))
    whole = MINER.load(path).decode()
    assert torch.equal(whole, packed.model.decode())
    assert packed.added == pytest.approx(float((whole - model.decode()).double().square().mean()))
    assert difference(model, packed.model) == packed.added
    for crop in (((0, 75), (3, 9)), ((40, 41), (0, 100)), ((31, 64), (50, 100))):
        rows, columns = (slice(*along) for along in crop)
        assert torch.equal(MINER.load(path).decode(crop=crop), whole[:, rows, columns])
    for level in range(1, model.n_scales):
        assert torch.equal(MINER.load(path).decode(level), packed.model.decode(level))


def test_equal_runs_give_equal_files(command, best_run, tmp_path):
    for name in ("a", "b"):
        assert command("pack.py", best_run, "--out", tmp_path / name).status == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def without_report(folder: Path) -> None:
    (folder / "metrics.json").unlink()


def with_report(text: str):
    return lambda folder: (folder / "metrics.json").write_text(text)


def unfinished(folder: Path) -> None:
    (folder / "l0.ckpt").unlink()


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "old"])
@pytest.mark.parametrize(
    ("spoil", "loss_db", "message"),
    [
        (with_report(""), 0.1, "metrics.json"),
        (without_report, 0.1, "metrics.json: no such file"),
        (with_report('{"psnr": null}'), 0.1, "is a perfect fit, of which nothing may be lost; use --loss_db 0"),
        *(
            (with_report(text), 0.1, "metrics.json does not say the PSNR of the fit; --loss_db 0 does without")
            for text in ("{", "[]", "{}", '{"psnr": "high"}', '{"psnr": [30]}', "[" * 3000, '{"psnr": NaN}')
        ),
        (with_report('{"psnr": Infinity}'), 0.1, "metrics.json does not say the PSNR"),
        (with_report('{"psnr": 1e400}'), 0.1, "metrics.json does not say the PSNR"),
        (with_report('{"psnr": -1e5}'), 0.1, "metrics.json does not say the PSNR"),
        (unfinished, 0.1, "is not finished: level 1 is its finest so far; go on with --resume"),
        (unfinished, 0, "is not finished: level 1 is its finest so far; go on with --resume"),
        (lambda _: None, 1e-12, "no steps are small enough for a loss as small as that; use --loss_db 0"),
    ],
)
def test_what_cannot_be_packed_is_told_in_one_line_and_leaves_what_was_there(
    command, best_run, tmp_path, spoil, loss_db, message, is_there
):
    shutil.copytree(best_run, tmp_path / "run")
    spoil(tmp_path / "run")
    if is_there:
        (tmp_path / "x.miner").write_bytes(b"older")
    outcome = command("pack.py", tmp_path / "run", "--out", tmp_path / "x.miner", "--loss_db", loss_db)
    assert outcome.status not in (0, None)
    told = [line for line in outcome.error.splitlines() if not line.startswith("quantised: ")]
    assert is_one_line("\n".join(told))
    assert message in told[0]
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "run"}
    assert left == ({"x.miner": b"older"} if is_there else {})


def test_what_memory_cannot_hold_is_not_begun(command, best_run, tmp_path, monkeypatch):
    monkeypatch.setattr("packing.loss.available_memory", lambda: 2**20)
    outcome = command("pack.py", best_run, "--out", tmp_path / "x.miner")
    assert is_one_line(outcome.error)
    assert "rounding the networks takes 0.3 GiB, and 0.0 GiB are free; use --loss_db 0" in outcome.error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spoil", [without_report, with_report("{")])
def test_a_report_is_not_needed_where_nothing_may_be_lost(command, best_run, tmp_path, spoil):
    shutil.copytree(best_run, tmp_path / "run")
    spoil(tmp_path / "run")
    assert command("pack.py", tmp_path / "run", "--out", tmp_path / "x.miner", "--loss_db", 0).status == 0
    assert torch.equal(MINER.load(tmp_path / "x.miner").decode(), MINER.load(best_run).decode())
