import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ASTRONAUT, ROOT, SMALL_FIT, curves
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import preprocess_mesh
import reconstruct
import train
import training.level
from datasets.sources import read_picture
from models.miner import MINER
from opt import parse_options, recorded_options
from options import table
from options.config import dump_options
from training.module import LevelModule
from utils.errors import InputError
from utils.metrics import psnr, ssim
from utils.pyramid import pyramid, upsample_whole


def test_a_short_fit_of_a_real_picture_reaches_a_psnr(small_run, astronaut):
    model = MINER.load(small_run)
    reached = psnr(model.decode(), astronaut)
    assert reached > 31
    assert reached > psnr(astronaut.mean(dim=(1, 2), keepdim=True).expand_as(astronaut), astronaut) + 15
    metrics = json.loads((small_run / "metrics.json").read_text())
    assert metrics["psnr"] == pytest.approx(reached, abs=1e-4)
    assert metrics["parameters"] == model.n_parameters
    assert [level["size"] for level in metrics["levels"]] == [[100, 75], [50, 38], [25, 19]]
    for level in metrics["levels"]:
        assert level["active_blocks"] == model.levels[level["level"]].active_grid.sum() <= level["blocks"]
    assert metrics["seconds"]["total"] > metrics["seconds"]["fit"] > 0
    assert set(metrics) >= {"peak_memory_mib", "device", "versions"}
    assert metrics["ssim"] == pytest.approx(ssim(model.decode(), astronaut), abs=1e-6)
    assert metrics["parameters_per_pixel"] == model.n_parameters / 7500
    n_bytes = sum(path.stat().st_size for path in small_run.glob("l*.ckpt"))
    assert metrics["bytes"] == {"checkpoints": n_bytes}
    assert metrics["bits_per_pixel"] == {"checkpoints": 8 * n_bytes / 7500}
    points = [level["points_trained"] for level in metrics["levels"]]
    assert points[2] == 4 * 60 * 256, "of the coarsest, no block leaves in 60 epochs"
    assert all(
        40 * 256 * level["active_blocks"] <= n <= level["epochs"] * 256 * level["active_blocks"]
        for n, level in zip(points, metrics["levels"], strict=True)
    )
    assert metrics["points_trained"] == sum(points)


def test_tensorboard_tells_what_the_files_hold(small_run, astronaut):
    scalars = curves(small_run.parent.parent / "logs" / "small")
    signals = pyramid(astronaut, 3)
    model = MINER.load(small_run)
    n_epochs = {2: 60, 1: 60, 0: 200}
    for level in range(3):
        step, value = scalars[f"level {level}/psnr"][-1]
        assert step <= n_epochs[level]
        assert value == pytest.approx(psnr(model.decode(level), signals[level]), abs=1e-3)
        if level < 2:
            base = upsample_whole(model.decode(level + 1), tuple(signals[level].shape[1:]))
            assert scalars[f"level {level}/psnr"][0] == (0, pytest.approx(psnr(base, signals[level]), abs=1e-3))
        assert scalars[f"level {level}/lr"][0] == (1, pytest.approx(3e-2))
        losses = scalars[f"level {level}/loss"]
        assert [step for step, _ in losses] == list(range(1, n_epochs[level] + 1))
        assert losses[-1][1] < losses[0][1]
        counts = [count for _, count in scalars[f"level {level}/n_training_blocks"]]
        assert counts == sorted(counts, reverse=True)


def test_the_curves_of_the_run_are_those_of_its_levels_one_after_another(small_run):
    scalars = curves(small_run.parent.parent / "logs" / "small")
    for name in ("lr", "loss", "psnr", "n_training_blocks"):
        levels = [(before, scalars[f"level {level}/{name}"]) for level, before in ((2, 0), (1, 60), (0, 120))]
        joined = [(before + step, value) for before, points in levels for step, value in points if before + step >= 0]
        ends = {60, 120}  # where the next level begins, the one that ends is shown
        assert scalars[f"all levels/{name}"] == [
            (step, value)
            for place, (step, value) in enumerate(joined)
            if step not in ends or step not in [other for other, _ in joined[:place]]
        ]
    groups = sorted({tag.partition("/")[0] for tag in scalars})
    assert groups == ["all levels", "level 0", "level 1", "level 2", "result"], "TensorBoard opens the first two"


def test_tensorboard_compares_runs_by_their_options_and_results(small_run):
    events = EventAccumulator(str(small_run.parent.parent / "logs" / "small"))
    events.Reload()
    metrics = json.loads((small_run / "metrics.json").read_text())
    assert events.Scalars("result/psnr")[0].value == pytest.approx(metrics["psnr"])
    assert events.Scalars("result/parameters")[0].value == metrics["parameters"]
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    row = HParamsPluginData.FromString(content).session_start_info.hparams
    assert row["n_layers"].number_value == 3
    assert row["num_epochs"].string_value == "[60, 60, 200]"
    assert row["use_pe"].number_value == 1


def test_a_replaced_run_leaves_no_curves_behind(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *SMALL_FIT, "--num_epochs", 1).status == 0
    assert command("train.py", *SMALL_FIT, "--num_epochs", 1, "--n_scales", 1, "--overwrite").status == 0
    assert len(list((tmp_path / "logs/small").iterdir())) == 1
    assert not [tag for tag in curves(tmp_path / "logs/small") if tag.startswith(("level 1/", "level 2/"))]


def test_the_saved_options_repeat_the_run_to_the_bit(command, small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", "--config", small_run / "options.yaml")
    assert outcome.status == 0, outcome.error
    for level in range(3):
        name = f"ckpts/small/l{level}.ckpt"
        assert (tmp_path / name).read_bytes() == (small_run.parent.parent / name).read_bytes()


def test_a_dry_run_writes_nothing_and_counts_what_a_run_without_pruning_has(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", *SMALL_FIT, "--dry_run")
    assert outcome.status == 0, outcome.error
    assert not list(tmp_path.iterdir())
    *levels, total = outcome.out.splitlines()[2:]
    assert [line.partition(",")[0] for line in levels] == ["level 2: 25x19", "level 1: 50x38", "level 0: 100x75"]
    assert total.endswith("MiB of memory: fits this machine")
    assert command("train.py", *SMALL_FIT, "--num_epochs", 1, "--loss_thr", 0).status == 0
    report = json.loads((tmp_path / "ckpts/small/metrics.json").read_text())
    n_blocks = sum(level["active_blocks"] for level in report["levels"])
    assert total.startswith(f"at most {n_blocks:,} blocks, {report['parameters']:,} parameters, ")


def test_a_run_that_may_not_fit_is_told_so(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.plan.available_memory", lambda: 2**20)
    outcome = command("train.py", *SMALL_FIT, "--dry_run")
    assert outcome.status == 1
    assert outcome.out.strip().endswith("may not fit this machine")


@pytest.mark.parametrize("networks", ["--backend fused", "--backend reference", "--arch gabor"])
def test_a_run_takes_the_memory_that_it_says_at_most_and_more_than_half_of_it(tmp_path, networks):
    arguments = ["--path", ASTRONAUT, "--n_scales", 2, "--num_epochs", 2, "--val_freq", 1, *networks.split()]
    command = [sys.executable, ROOT / "train.py", *map(str, arguments), "--accelerator", "cpu"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    bound = int(re.search(r"([\d,]+) MiB of memory", printed)[1].replace(",", ""))
    used = json.loads((tmp_path / "ckpts/exp/metrics.json").read_text())["peak_memory_mib"]["host"]
    assert bound / 2 < used <= bound


def test_the_psnr_printed_is_that_of_the_files(command, tmp_path, monkeypatch, astronaut):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", *SMALL_FIT, "--pyr", "gaussian", "--num_epochs", 100)
    assert outcome.status == 0, outcome.error
    expected = psnr(MINER.load("ckpts/small").decode(), astronaut)
    assert outcome.out.splitlines()[-1] == f"PSNR : {expected:.4f} dB"
    assert expected > 25
    assert not MINER.load("ckpts/small").levels[0].residual


def test_converged_blocks_leave_and_a_level_without_any_ends_early(command, tmp_path, monkeypatch):
    """Blocks of a smooth ramp converge at the first validation."""
    monkeypatch.chdir(tmp_path)
    ramp = np.linspace(60, 200, 64).astype(np.uint8)
    cv2.imwrite("ramp.png", np.broadcast_to(ramp, (64, 64)))
    arguments = ["--path", "ramp.png", "--n_scales", 2, "--use_pe", "--patch_size", 16, "--num_epochs", 400]
    outcome = command("train.py", *arguments, "--val_freq", 100, "--loss_thr", 1e-3)
    assert outcome.status == 0, outcome.error
    finest, coarsest = json.loads((tmp_path / "ckpts/exp/metrics.json").read_text())["levels"]
    assert coarsest["epochs"] < 400
    assert finest["active_blocks"] == 0, "the coarser level does for the finer one"
    assert psnr(MINER.load("ckpts/exp").decode(), read_picture("ramp.png").values) > 30


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_networks_of_sines_are_fitted_pruned_and_read_back(command, tmp_path, monkeypatch, astronaut, backend):
    monkeypatch.chdir(tmp_path)
    sines = ["--arch", "sine", "--omega", 10, "--optimizer", "adam", "--lr", 5e-3, "--loss_thr", 1e-3]
    outcome = command("train.py", *SMALL_FIT, *sines, "--backend", backend)
    assert outcome.status == 0, outcome.error
    model = MINER.load("ckpts/small", backend=backend)  # the other one rounds differently
    assert outcome.out.splitlines()[-1] == f"PSNR : {psnr(model.decode(), astronaut):.4f} dB"
    assert psnr(model.decode(), astronaut) > 30
    networks = [network for level in model.levels.values() for network in level.networks]
    assert all(network.shape.omega == 10 and not network.a for network in networks)
    metrics = json.loads((tmp_path / "ckpts/small/metrics.json").read_text())["levels"]
    assert metrics[0]["points_trained"] < 200 * 256 * metrics[0]["active_blocks"], "blocks have left"


def test_networks_of_gabor_filters_are_fitted_pruned_resumed_and_read_back(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    astronaut = read_picture(ASTRONAUT, (45, 60)).values
    arguments = [*SMALL_FIT, "--input_size", 60, 45, "--use_pe", "false", "--arch", "gabor", "--lr", 6e-2]
    arguments += ["--betas", 0.8, 0.99, "--loss_thr", 1e-3, "--num_epochs", 40, 40, 120]
    outcome = command("train.py", *arguments)
    assert outcome.status == 0, outcome.error
    assert "backend: reference" in outcome.out
    model = MINER.load("ckpts/small")
    assert outcome.out.splitlines()[-1] == f"PSNR : {psnr(model.decode(), astronaut):.4f} dB"
    assert psnr(model.decode(), astronaut) > 30
    assert model.summary[0]["parameters"] == model.summary[0]["active_blocks"] * (2 * 6 * 20 + 21 * 20 + 21 * 3)
    crop = ((10, 40), (20, 57))
    assert torch.equal(model.decode(crop=crop), model.decode()[:, 10:40, 20:57])
    metrics = json.loads((tmp_path / "ckpts/small/metrics.json").read_text())["levels"]
    assert metrics[0]["points_trained"] < 120 * 256 * metrics[0]["active_blocks"], "blocks have left"

    step = LevelModule.training_step

    def stopped(module, visit, index):
        step(module, visit, index)
        if module.spec.index == 0 and visit.epochs.start == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    (tmp_path / "stopped").mkdir()
    monkeypatch.chdir(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(LevelModule, "training_step", stopped)
        assert command("train.py", *arguments).status == 143
    assert not (tmp_path / "stopped/ckpts/small/l0.ckpt").exists()
    assert command("train.py", *arguments, "--resume").status == 0
    for level in range(3):
        name = f"ckpts/small/l{level}.ckpt"
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_best_preset_is_better_than_the_default_with_as_many_parameters(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--path", ASTRONAUT, "--n_scales", 3, "--num_epochs", 30, 30, 60, "--val_freq", 30, "--input_size", 128]
    found = []
    for preset in ("seed", "best"):
        options = ["--n_parameters", found[0]["parameters"]] if found else ["--use_pe", "--n_layers", 3]
        arguments = [*given, "--preset", preset, *options, "--exp_name", "exp", "--overwrite"]
        assert command("train.py", *arguments).status == 0
        found.append(json.loads((tmp_path / "ckpts/exp/metrics.json").read_text()))
    seed, best = found
    assert best["psnr"] > seed["psnr"] + 2
    assert 0.95 * seed["parameters"] < best["parameters"] <= seed["parameters"]


def test_the_paper_preset_has_its_sines_and_shares_weights(command, tmp_path, monkeypatch, astronaut):
    monkeypatch.chdir(tmp_path)
    given = ["--path", ASTRONAUT, "--input_size", 100, 75, "--n_scales", 3, "--num_epochs", 200, "--preset", "paper"]
    assert command("train.py", *given).status == 0
    model = MINER.load("ckpts/exp")
    assert psnr(model.decode(), astronaut) > 20
    for level in model.levels.values():
        assert level.n_parameters == level.group.numel() * (2 * 9 + 9 + 2 * 90 + 9 * 3 + 3), "all are active"
        assert [network.shape.omega for network in level.networks] == [150]
    assert (model.options["weight_sharing"], model.options["loss_thr"]) == ("copy", 2e-7)


def test_blocks_that_stop_later_get_better(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for ratio in (1, 0.2):
        name = ["--exp_name", f"stop{ratio}"]
        outcome = command("train.py", *SMALL_FIT, *name, "--loss_thr", 1e-3, "--stop_ratio", ratio)
        assert outcome.status == 0, outcome.error
        found.append(json.loads((tmp_path / f"ckpts/stop{ratio}/metrics.json").read_text()))
    early, late = found
    assert late["psnr"] > early["psnr"] + 1
    assert late["points_trained"] > early["points_trained"]
    assert late["levels"][2]["parameters"] == early["levels"][2]["parameters"]


@pytest.mark.parametrize("max_blocks", [1000, 10])
def test_a_run_ends_at_its_target(command, tmp_path, monkeypatch, astronaut, small_run, max_blocks):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", *SMALL_FIT, "--val_freq", 20, "--target_psnr", 28, "--max_blocks", max_blocks)
    assert outcome.status == 0, outcome.error
    assert "the target is reached" in outcome.error
    metrics = json.loads((tmp_path / "ckpts/small/metrics.json").read_text())
    assert metrics["psnr"] >= 28
    full = json.loads((small_run / "metrics.json").read_text())
    assert metrics["levels"][0]["points_trained"] < 0.8 * full["levels"][0]["points_trained"]
    assert psnr(MINER.load("ckpts/small").decode(), astronaut) == pytest.approx(metrics["psnr"], abs=1e-4)
    again = command("train.py", *SMALL_FIT, "--val_freq", 20, "--target_psnr", 28, "--resume")
    assert "is finished" in again.out


def test_a_run_ends_when_its_time_is_over_and_decodes_whole(command, tmp_path, monkeypatch, astronaut):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", *SMALL_FIT, "--max_seconds", 1e-3)
    assert outcome.status == 0, outcome.error
    assert "--max_seconds ran out in level 2" in outcome.error
    levels = json.loads((tmp_path / "ckpts/small/metrics.json").read_text())["levels"]
    assert [level["active_blocks"] for level in levels] == [0, 0, 4]
    grey = astronaut.mean(dim=(1, 2), keepdim=True).expand_as(astronaut)
    assert psnr(MINER.load("ckpts/small").decode(), astronaut) > psnr(grey, astronaut) + 3


@pytest.mark.parametrize(("shape", "n_scales"), [((5, 3), 2), ((1, 1), 1), ((1, 70), 3)])
def test_pictures_smaller_than_a_patch_and_of_one_colour(command, tmp_path, monkeypatch, shape, n_scales):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("plain.png", np.full((*shape, 3), (40, 120, 200), np.uint8))
    outcome = command("train.py", "--path", "plain.png", "--n_scales", n_scales, "--num_epochs", 100, "--use_pe")
    assert outcome.status == 0, outcome.error
    assert psnr(MINER.load("ckpts/exp").decode(), read_picture("plain.png").values) > 30
    assert command("reconstruct.py", "ckpts/exp", "--out", "back.png", "--original", "plain.png").status == 0
    assert cv2.imread("back.png").shape == (*shape, 3)


def test_alpha_and_sixteen_bits_are_kept(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    across = np.linspace(0, 65535, 40)
    channels = [across, across[::-1], np.full(40, 30000), np.where(across > 30000, 65535, 0)]
    cv2.imwrite("deep.png", np.stack([np.broadcast_to(row, (40, 40)) for row in channels], axis=2).astype(np.uint16))
    outcome = command("train.py", "--path", "deep.png", "--use_pe", "--num_epochs", 150)
    assert outcome.status == 0, outcome.error
    assert command("reconstruct.py", "ckpts/exp", "--out", "back.png").status == 0
    back, original = cv2.imread("back.png", -1), cv2.imread("deep.png", -1)
    assert back.dtype == np.uint16
    assert back.shape == (40, 40, 4)
    assert np.abs(back.astype(float) - original).mean() < 0.02 * 65535
    assert command("reconstruct.py", "ckpts/exp", "--out", "flat.jpg", "--bits", 8, "--no_alpha").status == 0
    assert cv2.imread("flat.jpg", -1).shape == (40, 40, 3)


def test_pictures_of_the_training_go_to_tensorboard(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *SMALL_FIT, "--log_image", "--num_epochs", 20).status == 0
    events = EventAccumulator(str(tmp_path / "logs/small"))
    events.Reload()
    names = ["image", "laplacian", "training_blocks"]
    assert sorted(events.Tags()["images"]) == [f"level {level}/{name}" for level in range(3) for name in names]
    for tag in [f"level 0/{name}" for name in names]:
        picture = cv2.imdecode(np.frombuffer(events.Images(tag)[-1].encoded_image_string, np.uint8), -1)
        assert picture.shape == (75, 100, 3)
    last = events.Images("level 0/image")[-1]
    shown = cv2.imdecode(np.frombuffer(last.encoded_image_string, np.uint8), -1)[:, :, ::-1] / 255
    decoded = MINER.load("ckpts/small").decode().permute(1, 2, 0)
    torch.testing.assert_close(torch.tensor(shown.copy()).float(), decoded, rtol=0, atol=1.01 / 255)


def test_a_run_is_not_replaced_unless_asked(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL_FIT, "--num_epochs", 1]
    assert command("train.py", *arguments).status == 0
    files = {path: path.read_bytes() for path in (tmp_path / "ckpts/small").iterdir()}
    refused = command("train.py", *arguments)
    assert refused.status != 0
    assert "already holds" in refused.error
    assert "--overwrite" in refused.error
    assert "--exp_name" in refused.error
    assert {path: path.read_bytes() for path in (tmp_path / "ckpts/small").iterdir()} == files
    assert command("train.py", *arguments, "--overwrite", "--n_scales", 2).status == 0
    assert sorted(MINER.load("ckpts/small").levels) == [0, 1]


def test_a_failed_write_is_told_in_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpts").write_text("not a folder")
    outcome = command("train.py", *SMALL_FIT)
    assert outcome.status != 0
    assert "ckpts" in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1


GOOD = ["--path", str(ASTRONAUT), "--input_size", "64", "64"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--path", "nowhere.png"], "nowhere.png: no such file"),
        (["--path", "."], ". is not a file, but a folder"),
        (["--path", ""], "--path '': must be text that is not empty"),
        (["--path", "/dev/zero"], "/dev/zero is not a file, but a pipe or a device"),
        (["--path", "/proc/self/mem"], "/proc/self/mem is empty"),
        (["--exp_name", "x"], "--path is missing"),
        ([*GOOD, "--input_size", "64", "64", "64"], "--input_size 64 64 64: an image takes W H"),
        ([*GOOD, "--input_size", "0", "64"], "--input_size 0: must be a whole number from 1 to 1,048,576"),
        ([*GOOD, "--patch_size", "-8"], "--patch_size -8: must be a whole number from 1 to 1,048,576"),
        ([*GOOD, "--frobnicate"], "unrecognized arguments: --frobnicate"),
        ([*GOOD, "--num_epochs", "5", "5"], "2 values for --n_scales 1; give at most 1"),
        ([*GOOD, "--num_epochs", "0"], "--num_epochs 0: must be a whole number from 1 to 10,000,000"),
        ([*GOOD, "--num_epochs", "many"], "--num_epochs many: must be a whole number"),
        ([*GOOD, "--n_scales", "0"], "--n_scales 0: must be a whole number from 1 to 64"),
        ([*GOOD, "--n_scales", "30"], "--n_scales 30: a signal of 64x64 has at most 7 levels"),
        ([*GOOD, "--n_scales", "2.5"], "--n_scales 2.5: must be a whole number from 1 to 64"),
        ([*GOOD, "--patch_size", "8", "--batch_size", "65"], "--batch_size 65: a patch of 8x8 has 64 points"),
        ([*GOOD, "--n_hidden", "1000000000"], "--n_hidden 1000000000: must be a whole number from 1 to 4,096"),
        ([*GOOD, "--use_pe", "maybe"], "--use_pe maybe: must be true or false"),
        ([*GOOD, "--target_psnr", "1001"], "--target_psnr 1001: must be a positive number, at most 1000"),
        ([*GOOD, "--lr", "nan"], "--lr nan: must be a positive number, at most 1e+30"),
        ([*GOOD, "--lr", "1e400"], "--lr 1e400: must be a positive number"),
        ([*GOOD, "--lr", "-1"], "--lr -1: must be a positive number"),
        ([*GOOD, "--loss_thr", "-1"], "--loss_thr -1: must be zero or a positive number"),
        ([*GOOD, "--n_layers", "1"], "--n_layers 1: must be a whole number from 2 to 100"),
        ([*GOOD, "--pyr", "cubist"], "--pyr cubist: must be laplacian or gaussian"),
        ([*GOOD, "--exp_name", "../up"], "--exp_name '../up'"),
        ([*GOOD, "--exp_name", ".."], "--exp_name '..'"),
        ([*GOOD, "--config", "nowhere.yaml"], "nowhere.yaml"),
        ([*GOOD, "--config"], "--config expected one argument"),
        ([*GOOD, "--seed", "-1"], "--seed -1: must be a whole number from 0"),
        ([*GOOD, "--seed", str(2**63)], "must be a whole number from 0 to 9,223,372,036,854,775,807"),
        ([*GOOD, "--input_size", "4000000000", "4"], "--input_size 4000000000: must be a whole number"),
        ([*GOOD, "--input_size", "6e1"], "--input_size 6e1: must be a whole number"),
        ([*GOOD, "--betas", "0.9"], "--betas 0.9: must be two numbers from 0 to below 1"),
        ([*GOOD, "--betas", "0.9", "1"], "--betas 1: must be a number from 0 to below 1"),
        ([*GOOD, "--omega", "0"], "--omega 0: must be a positive number"),
        (
            [*GOOD, "--arch", "gabor", "--use_pe"],
            "--arch gabor: it takes positions without an encoding; use --use_pe false",
        ),
        ([*GOOD, "--arch", "gabor", "--preset", "best"], "use --use_pe false"),
        (
            [*GOOD, "--arch", "gabor", "--backend", "fused"],
            "--backend fused: it has no gabor activations; use --backend ref",
        ),
        ([*GOOD, "--target_iou", "0.9"], "--target_iou 0.9: an image has --target_psnr"),
        ([*GOOD, "--preset", "worst"], "--preset worst: must be seed, paper, best or compact"),
        ([*GOOD, "--task", "mesh"], "--input_size 64 64: a volume takes W H D, or one number"),
    ],
)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", *arguments)
    assert outcome.status not in (0, None)
    assert message in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_pipe, "odd is not a file, but a pipe or a device; copy what it gives to a file"),
        (make_circle, "odd: Too many levels of symbolic links"),
        (Path.mkdir, "odd is not a file, but a folder; name a file in it"),
        (Path.touch, "odd is empty"),
    ],
)
@pytest.mark.parametrize("option", ["--path", "--config"])
def test_what_is_not_a_file_is_not_waited_for(command, tmp_path, monkeypatch, make, message, option):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "odd")
    outcome = command("train.py", *GOOD, option, "odd")
    assert outcome.status == f"error: {message}"


@pytest.mark.parametrize("program", [table, reconstruct, preprocess_mesh], ids=lambda module: module.__name__)
@pytest.mark.parametrize("value", ["9" * 40, "9" * 5000, "1e400", "-1e400", "nan", ""], ids=lambda value: value[:6])
def test_no_option_takes_a_number_beyond_reason(program, value):
    parser = program.make_parser()
    defaults = parser.parse_args(["ckpts"] if program is reconstruct else [])
    texts = {"config", "path", "exp_name", "ckpts", "out", "original"}
    for name in vars(defaults).keys() - (texts if value else set()) - {"ckpts"}:
        with pytest.raises(InputError, match=f"^--{name} .*: must be "):
            parser.parse_args([f"--{name}={value}"])


def test_the_patch_follows_the_task_and_the_batch_the_patch():
    good = ["--path", "x"]
    assert parse_options([*good, "--task", "mesh"]).patch_size == [16]
    assert parse_options(good).patch_size == [32, 32]
    small = parse_options([*good, "--preset", "seed", "--patch_size", "8"])
    assert small.batch_size == 64
    assert parse_options([*good, "--preset", "seed"]).batch_size == 256
    assert recorded_options(small)["batch_size"] == 64, "what a run is resumed with"
    with pytest.raises(InputError, match="--batch_size 128: a patch of 8x8 has 64 points; use at most that many"):
        parse_options([*good, "--preset", "best", "--patch_size", "8", "--batch_size", "128"])


def test_the_command_line_wins_over_a_config_in_any_order(tmp_path):
    (tmp_path / "some.yaml").write_text(f"path: {ASTRONAUT}\nuse_pe: true\nn_scales: 3\nnum_epochs: [1, 2, 3]\n")
    config = ["--config", str(tmp_path / "some.yaml")]
    override = ["--n_scales", "4", "--use_pe", "false"]
    for argv in (config + override, override + config):
        options = parse_options(argv)
        assert (options.n_scales, options.use_pe, options.num_epochs) == (4, False, [1, 2, 3])


def test_what_is_given_wins_over_a_preset(tmp_path):
    (tmp_path / "some.yaml").write_text(f"path: {ASTRONAUT}\npreset: best\nn_freq: 7\n")
    options = parse_options(["--config", str(tmp_path / "some.yaml"), "--lr", "0.5"])
    assert (options.frequencies, options.n_freq, options.lr) == ("harmonics", 7, 0.5)
    seed = parse_options(["--path", str(ASTRONAUT), "--preset", "seed"])
    assert (seed.frequencies, seed.n_freq, seed.lr, seed.betas) == ("octaves", 4, 3e-2, [0.9, 0.999])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: null", "--config bad.yaml: path has no value; give it one, or leave it out"),
        ("path: ~", "path has no value"),
        ("path: ", "path has no value"),
        ("num_epochs: [3, null]", "num_epochs has no value"),
        ("num_epochs: []", "num_epochs must be a value, or a list of values"),
        ("patch_size: {a: 1}", "patch_size must be a value, or a list of values"),
        ("frobnicate: 1", "frobnicate is not an option"),
        ("config: other.yaml", "config is not an option"),
        ("lr: .nan", "--lr .nan: must be a positive number"),
        ("n_scales: many", "--config bad.yaml: --n_scales many: must be a whole number from 1 to 64"),
        ("betas: 0.9", "--betas 0.9: must be two numbers from 0 to below 1"),
        ("patch_size: 16.0", "--patch_size 16.0: must be a whole number"),
        ("betas: [0.9, --devices=2]", "betas must be a value, or a list of values"),
        ("n_scales: [1, 2]", "--config bad.yaml: n_scales takes one value, not 2"),
        ("n_scales: !!int ''", "--n_scales '': must be a whole number"),
        ("path: ''", "--path '': must be text that is not empty"),
        (f"n_scales: {'9' * 5000}", "...: must be a whole number from 1 to 64"),
        ("&a [*a]", "cannot be read"),
        ("", "bad.yaml is empty"),
        ("\n", "holds no options"),
        ("- 1", "holds no options"),
        ("{", "cannot be read"),
        ("[" * 3000, "cannot be read"),
        (" " * 2**20 + "a: 1", "more than the 1,048,576 that are read"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_bad_config_is_told_in_one_line(command, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    outcome = command("train.py", *GOOD, "--config", "bad.yaml")
    assert outcome.status not in (0, None)
    assert message in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1


def test_a_single_number_does_for_a_list_in_a_config(tmp_path):
    (tmp_path / "some.yaml").write_text(f"path: {ASTRONAUT}\ninput_size: 64\npatch_size: 16\nnum_epochs: 3\nlr: 1e-3\n")
    options = parse_options(["--config", str(tmp_path / "some.yaml")])
    assert (options.input_size, options.patch_size, options.num_epochs, options.lr) == ([64], [16], [3], 1e-3)


@pytest.mark.parametrize("name", ["1e5", "2024", "yes", "null", "plain"])
def test_saved_options_come_back_whatever_the_name(tmp_path, name):
    options = parse_options([*GOOD, "--exp_name", name, "--lr", "1e-5"])
    (tmp_path / "options.yaml").write_text(dump_options(recorded_options(options)))
    again = parse_options(["--config", str(tmp_path / "options.yaml")])
    assert recorded_options(again) == recorded_options(options)


def test_a_fit_that_diverges_says_so_once_and_can_be_begun_again(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", *SMALL_FIT, "--num_epochs", 5, "--lr", 1e30)
    assert outcome.status not in (0, None)
    assert "the fit diverged: 4 of 4 blocks. Try a smaller --lr than 1e+30" in outcome.error
    assert "--overwrite" not in outcome.error
    assert outcome.error.count("diverged") == 1
    assert not list(tmp_path.glob("ckpts/small/*.ckpt"))
    assert command("train.py", *SMALL_FIT, "--num_epochs", 5).status == 0, "nothing is in its way"


def test_a_fit_that_diverges_at_a_finer_level_says_that_there_is_something_to_replace(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit_part = training.level.fit_part

    def diverge(job, spec, *rest):
        return fit_part(job, spec, *rest) | ({"diverged": 1000} if spec.index == 1 else {})

    arguments = [*SMALL_FIT, "--num_epochs", 5]
    with monkeypatch.context() as patch:
        patch.setattr(training.level, "fit_part", diverge)
        outcome = command("train.py", *arguments)
    assert re.search(r"the fit diverged: .* with --overwrite$", outcome.status)
    assert [path.name for path in tmp_path.glob("ckpts/small/*.ckpt")] == ["l2.ckpt"]
    assert "already holds an unfinished fit" in command("train.py", *arguments).error
    assert command("train.py", *arguments, "--lr", 0.01, "--overwrite").status == 0


def test_a_second_run_of_one_process_has_a_clock_of_its_own(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "_STARTED", time.perf_counter() - 1000)
    outcome = command("train.py", *SMALL_FIT, "--num_epochs", 2, "--max_seconds", 500)
    assert outcome.status == 0, outcome.error
    assert "--max_seconds" not in outcome.error
    report = json.loads((tmp_path / "ckpts/small/metrics.json").read_text())
    assert report["seconds"]["total"] < 500


def test_an_earlier_run_stays_until_there_is_something_in_its_place(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *SMALL_FIT, "--num_epochs", 1).status == 0
    files = {path: path.read_bytes() for path in (tmp_path / "ckpts/small").iterdir()}
    monkeypatch.setattr("training.level.fit_part", lambda *_: (_ for _ in ()).throw(MemoryError))
    failed = command("train.py", *SMALL_FIT, "--overwrite", "--n_hidden", 21)
    assert "out of memory" in failed.error
    assert {path: path.read_bytes() for path in (tmp_path / "ckpts/small").iterdir()} == files


@pytest.mark.parametrize(("signal_name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_run_says_so_and_does_not_succeed(tmp_path, signal_name, status):
    arguments = [*SMALL_FIT, "--num_epochs", "100000", "--val_freq", "100000"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have had it ignored
    )
    while not list(tmp_path.glob("logs/small/events*")):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(getattr(signal, signal_name))
    try:
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert b"Traceback" not in error
    assert error.rstrip().splitlines()[-1].startswith((b"error: interrupted", b"error: terminated"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_one_that_train_takes(path):
    options = parse_options(["--config", str(path)])
    assert options.exp_name
    assert options.input_size is None or len(options.input_size) == (1 if options.task == "mesh" else 2)


def test_an_empty_command_line_is_the_quickstart():
    options = parse_options([])
    assert options.exp_name == "quickstart"
    assert read_picture(options.path).values.shape == (1, 1024, 1024)


def test_a_run_does_not_need_its_streams(tmp_path):
    arguments = ["--path", ASTRONAUT, "--input_size", "32", "--num_epochs", "2", "--backend", "reference"]
    command = shlex.join(map(str, [sys.executable, ROOT / "train.py", *arguments]))
    done = subprocess.run(f"{command} <&- >&- 2>&-", shell=True, cwd=tmp_path)
    assert done.returncode == 0
    assert MINER.load(tmp_path / "ckpts/exp").finest == 0


def test_errors_of_the_real_command_have_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "--path", "nowhere.png"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "error: nowhere.png: no such file\n"
