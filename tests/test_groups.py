"""A fit whose blocks have networks of several widths, from the options to the picture."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from helpers import ROOT, checkpoints, is_one_line, start_training

import train
from datasets.sources import read_picture
from models.level import Level
from models.miner import MINER, as_scale
from opt import parse_options, recorded_options
from training import run, trainer
from utils.checkpoint import load_level, load_state, part_paths, save_level
from utils.errors import InputError
from utils.metrics import psnr
from utils.pyramid import downsample
from utils.windows import in_samples, slices

PLUTO = ROOT / "images" / "pluto.png"
SIZE = (110, 125)  # of levels 1 to 3 (55, 63), (28, 32), (14, 16)
FIT = [
    *("--path", str(PLUTO), "--input_size", "125", "110", "--preset", "best", "--n_scales", "4", "--patch_size", "8"),
    *("--n_freq", "1", "--n_hidden", "4", "8", "12", "--loss_thr", "0.0014", "--stop_ratio", "0.4"),
    *("--num_epochs", "4", "8", "--val_freq", "4", "--exp_name", "small", "--accelerator", "cpu"),
    *("--backend", "reference", "--quiet"),
]
"""A dwarf planet, fitted shortly: levels 0 and 3 are whole, and every level has networks of more than one width."""


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> Iterator[tuple[Path, subprocess.Popen]]:
    """The fit by two processes, each of 15 blocks at once, which goes on while other tests run."""
    folder = tmp_path_factory.mktemp("processes")
    process = start_training(folder, *FIT, "--devices", 2, "--max_blocks", 15)
    yield folder, process
    if process.poll() is None:
        process.kill()
    process.communicate()


def fit(folder: Path, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *FIT, *map(str, arguments)])
        train.cli()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, processes) -> Path:
    """The folder of the fit."""
    folder = tmp_path_factory.mktemp("whole")
    fit(folder)
    return folder


@pytest.fixture(scope="module")
def model(whole) -> MINER:
    return MINER.load(whole / "ckpts/small", backend="reference")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The folder of the fit in parts, stopped inside the second part of level 0, when some of its blocks are ahead."""
    folder = tmp_path_factory.mktemp("stopped")
    save_state = run.save_state

    def save_and_stop(ckpts, record):
        save_state(ckpts, record)
        if record["level"] == 0 and record["span"][0] > 0 and len(record["state"]["epochs_done"].unique()) > 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "save_state", save_and_stop)
        patch.setattr(trainer, "_VISIT_POINTS", {"cpu": 2**12})
        with pytest.raises(SystemExit):
            fit(folder, "--max_blocks", 25, "--save_every", 0)
    return folder


def test_every_level_of_the_fit_has_networks_and_most_of_several_widths(model):
    assert [len(level.networks) > 1 for level in model.levels.values()].count(True) >= 3
    assert all(level.active_grid.any() for level in model.levels.values())
    assert [model.levels[index].is_whole for index in range(4)] == [True, False, False, True]
    assert sum(bool(level.active_grid.all()) for level in model.levels.values()) == 1, "of the coarsest"


def test_the_files_decode_to_what_training_reported(whole, model):
    report = json.loads((whole / "ckpts/small/metrics.json").read_text())
    picture = read_picture(PLUTO, SIZE).values
    assert report["psnr"] == pytest.approx(psnr(model.decode(), picture), abs=1e-4)
    assert report["psnr"] > 20
    assert report["parameters"] == model.n_parameters
    for level, reported in zip(model.summary, report["levels"], strict=True):
        assert reported | level == reported
        units = model.levels[level["level"]].units_grid
        by_units = {str(n): int((units == n).sum()) for n in units[units > 0].unique().tolist()}
        assert level.get("blocks_by_units", dict.fromkeys(by_units, level["active_blocks"])) == by_units


def test_a_run_in_parts_that_was_stopped_leaves_the_files_of_one_that_was_not(
    command, whole, stopped, tmp_path, monkeypatch
):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert len(part_paths(tmp_path / "ckpts/small")) == 1
    assert len(load_state(tmp_path / "ckpts/small")["state"]["group"].unique()) > 1
    resumed = command("train.py", *FIT, "--max_blocks", 25, "--resume")
    assert resumed.status == 0, resumed.error
    assert checkpoints(tmp_path) == checkpoints(whole)


def test_the_order_of_widths_does_not_matter_nor_how_often_they_are_given():
    expected = parse_options(["--path", "x.png", "--n_hidden", "4", "8", "12"])
    for widths in ("12 4 8", "8 8 12 4 12"):
        assert parse_options(["--path", "x.png", "--n_hidden", *widths.split()]) == expected
    once, twice = (parse_options(["--path", "x.png", "--n_hidden", *["8"] * n]) for n in (1, 2))
    assert recorded_options(once)["n_hidden"] == recorded_options(twice)["n_hidden"] == 8


def test_a_level_that_is_no_picture_by_itself_shows_the_means_of_the_finer_one(model):
    """Of two by two pixels; of fewer where the number of pixels is odd."""
    shown = [model.decode(level) for level in range(4)]
    torch.testing.assert_close(shown[1], downsample(shown[0]), rtol=0, atol=2e-6)
    torch.testing.assert_close(shown[2][:, :27, :31], downsample(shown[1])[:, :27, :31], rtol=0, atol=2e-6)
    assert (shown[3] - downsample(shown[2])).abs().max() > 0.02, "it is one"
    for level in (0, 3):  # which are whole
        torch.testing.assert_close(model.decode_pyramid()[level], shown[level], rtol=0, atol=2e-6)


def test_a_coarser_level_is_written_as_the_means_of_level_0(command, whole, model, tmp_path):
    done = command("reconstruct.py", whole / "ckpts/small", "--level", 1, "--out", tmp_path / "half.png")
    assert done.status == 0, done.error
    written = read_picture(tmp_path / "half.png").values
    torch.testing.assert_close(written, downsample(model.decode()), rtol=0, atol=0.51 / 255)


@pytest.mark.parametrize("scale", [0.3, 0.5, 1, 1.5])
@pytest.mark.parametrize("level", range(4))
def test_a_crop_and_windows_are_the_whole(model, level, scale):
    """But for what products of matrices of these widths round by their shape."""
    decoded, (height, width) = model.decode(level, scale=scale), model.levels[level].size
    crop = ((3, height - 2), (5, width - 1))
    of_whole = decoded[:, *slices(in_samples(crop, as_scale(scale)))]
    torch.testing.assert_close(model.decode(level, crop, scale), of_whole, rtol=0, atol=1e-6)
    windows = [values for _, values in model.decode_windows(level, scale=scale, most=100)]
    assert len(windows) > 1 or decoded.numel() <= 100
    torch.testing.assert_close(torch.cat(windows, dim=1), decoded, rtol=0, atol=1e-6)


def test_networks_of_a_level_that_is_no_picture_are_not_read_between_its_pixels(model):
    with pytest.raises(InputError, match="level 1: leaves detail to the networks of finer levels"):
        model.decode(1, scale=2, between="networks")
    assert model.decode(3, scale=2, between="networks").shape[1:] == (28, 32)


def test_how_blocks_are_grouped_does_not_show(model):
    """Each group cut in two of the same width."""
    cut = {}
    for index, level in model.levels.items():
        group, networks = level.group.clone(), list(level.networks)
        for number, network in enumerate(level.networks):
            mine = (level.group == number).nonzero().squeeze(1)
            group[mine[1::2]] = len(networks)
            networks[number] = network.select(torch.arange(0, len(mine), 2))
            networks.append(network.select(torch.arange(1, len(mine), 2)))
        cut[index] = Level.from_record(replace(level, group=group, networks=tuple(networks)).record())
        assert torch.equal(cut[index].units_grid, level.units_grid)
    other = MINER(cut, n_scales=4, n_channels=model.n_channels, size=SIZE)
    torch.testing.assert_close(other.decode(), model.decode(), rtol=0, atol=1e-6)


def test_a_level_of_one_width_is_recorded_as_it_was_without_groups(whole, small_run):
    one, several = load_level(small_run / "l0.ckpt"), load_level(whole / "ckpts/small/l1.ckpt")
    assert {"active", "network_shape", "network"} <= one.keys()
    assert not {"group", "network_shapes", "networks", "is_whole"} & one.keys()
    assert one["active"].dtype == torch.bool
    assert one["network"]["weight.0"].shape[0] == one["active"].sum()
    assert {"group", "network_shapes", "networks", "is_whole"} <= several.keys()
    assert not {"active", "network_shape", "network"} & several.keys()


def with_group(change: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[dict], None]:
    return lambda record: record.update(group=change(record["group"]))


def set_first(value: int) -> Callable[[dict], None]:
    return lambda record: record["group"].__setitem__(0, value)


@pytest.mark.parametrize(
    "spoil",
    [
        set_first(3),
        set_first(127),
        set_first(-2),
        set_first(-128),
        lambda record: record["group"].fill_(-1),
        with_group(lambda group: group[:-1]),
        with_group(lambda group: torch.cat([group, group])),
        with_group(lambda group: torch.cat([group, group.new_full((1,), -1)])),
        with_group(lambda group: group.new_zeros(len(group))),
        with_group(lambda group: group[:0]),
        with_group(lambda group: group[None]),
        with_group(lambda group: group[0]),
        with_group(lambda group: group.long()),
        with_group(lambda group: group.float()),
        with_group(lambda group: group >= 0),
        with_group(lambda group: group.tolist()),
        with_group(lambda group: None),
        with_group(lambda group: group[:1].expand(2**40)),
        lambda record: record.pop("networks"),
        lambda record: record.pop("network_shapes"),
        lambda record: record.update(networks=[], network_shapes=[]),
        lambda record: record.update(networks=record["networks"][:-1]),
        lambda record: record.update(network_shapes=record["network_shapes"][:-1]),
        lambda record: record.update(networks=dict(enumerate(record["networks"]))),
        lambda record: record.update(network_shapes=tuple(record["network_shapes"])),
        lambda record: record["networks"].reverse(),
        lambda record: record["network_shapes"].reverse(),
        lambda record: record["network_shapes"].__setitem__(0, None),
        lambda record: record["networks"].__setitem__(0, {}),
        lambda record: record["networks"][1]["weight.0"].fill_(torch.nan),
        lambda record: record["networks"][1].update(amplitude=record["networks"][1]["amplitude"].double()),
        lambda record: record.update(is_whole=1),
        lambda record: record.update(is_whole=None),
    ],
)
def test_a_level_whose_groups_do_not_fit_together_is_refused_in_one_line(command, whole, tmp_path, spoil):
    for path in whole.glob("ckpts/small/l*.ckpt"):
        shutil.copy(path, tmp_path)
    record = load_level(tmp_path / "l1.ckpt")
    spoil(record)
    save_level(tmp_path / "l1.ckpt", record)
    outcome = command("reconstruct.py", tmp_path, "--out", tmp_path / "x.png")
    assert re.match(rf"error: {tmp_path}/l1\.ckpt is (not consistent|damaged)", str(outcome.status))
    assert is_one_line(outcome.error)
    assert not (tmp_path / "x.png").exists()


PART = "part000000000000.ckpt"


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("state.ckpt", ["state", "group"], torch.zeros(25, dtype=torch.int8)),
        ("state.ckpt", ["state", "group"], torch.full((25,), 3, dtype=torch.int8)),
        ("state.ckpt", ["state", "group"], torch.zeros(3, dtype=torch.int8)),
        ("state.ckpt", ["state", "group"], None),
        ("state.ckpt", ["state", "network"], []),
        ("state.ckpt", ["state", "twin"], [{}, {}, {}]),
        ("state.ckpt", ["state", "moments"], [[], [], []]),
        ("state.ckpt", ["state", "survivors"], torch.arange(100, 104)),
        (PART, ["group"], torch.zeros(25, dtype=torch.int8)),
        (PART, ["group"], torch.full((25,), -1, dtype=torch.int8)),
        (PART, ["group"], None),
        (PART, ["networks"], []),
        (PART, ["networks", 1], {}),
        (PART, ["networks", 0, "bias.0"], torch.zeros(2, 1, 4)),
    ],
)
def test_progress_that_was_tampered_with_is_told_in_one_line(
    command, stopped, tmp_path, monkeypatch, file, keys, value
):
    shutil.copytree(stopped / "ckpts", tmp_path / "ckpts")
    monkeypatch.chdir(tmp_path)
    record = torch.load(tmp_path / "ckpts/small" / file)
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    torch.save(record, tmp_path / "ckpts/small" / file)
    outcome = command("train.py", *FIT, "--max_blocks", 25, "--resume")
    assert re.match(rf"error: .*{file} is not consistent", str(outcome.status))
    assert is_one_line(outcome.error)


def test_two_processes_with_few_blocks_at_once_leave_the_files_of_one_with_all(whole, processes):
    folder, process = processes
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert checkpoints(folder) == checkpoints(whole)


@pytest.mark.parametrize("size", [(1, 1), (300, 2), (40, 40)])
def test_no_fit_has_more_parameters_than_are_announced(command, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "noise.png"
    values = torch.randint(256, (*size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    cv2.imwrite(str(path), values.numpy())
    done = command("train.py", "--path", path, "--preset", "best", "--num_epochs", 1, "--exp_name", "noise")
    assert done.status == 0, done.error
    most, found = (
        int(re.search(pattern, done.out)[1].replace(",", ""))
        for pattern in (r"blocks, ([\d,]+) parameters", r"ckpts/noise: ([\d,]+) parameters")
    )
    assert found <= most
