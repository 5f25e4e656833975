"""Fits from Python: arrays and files, the settings and files of train.py."""

import numpy as np
import pytest
import torch
from helpers import ASTRONAUT

from datasets.arrays import array_source
from datasets.sources import read_picture
from miner import fit
from opt import parse_options
from utils.errors import InputError

SMALL = dict(n_scales=2, patch_size=16, batch_size=64, use_pe=True, n_layers=3, num_epochs=20, accelerator="cpu")


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    return read_picture(ASTRONAUT, (60, 80)).values


def test_an_array_is_fitted_as_its_file_is_and_leaves_nothing(command, face, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = fit((face * 255).round().to(torch.uint8), **SMALL)
    assert list(tmp_path.iterdir()) == []
    arguments = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    assert command("train.py", "--path", ASTRONAUT, "--input_size", 80, 60, *arguments).status == 0
    other = fit(ASTRONAUT, folder=tmp_path / "kept", input_size=[80, 60], **SMALL)
    assert torch.equal(model.decode(), other.decode())
    assert (tmp_path / "kept/ckpts/exp/l0.ckpt").read_bytes() == (tmp_path / "ckpts/exp/l0.ckpt").read_bytes()
    assert list(tmp_path.glob("kept/logs/exp/**/events*"))


@pytest.mark.parametrize(
    "change",
    [
        lambda face: face,
        lambda face: face.permute(1, 2, 0).numpy(),
        lambda face: face.double().numpy(),
        lambda face: (face * 65535).round().numpy().astype(np.uint16),
    ],
)
def test_arrays_of_all_kinds_are_the_same_picture(face, change):
    source = array_source(change(face))
    assert (source.size, source.n_channels, source.bits) == ((60, 80), 3, 16)
    assert np.array_equal(source.read(0, 60), (face * 65535).round().numpy())


def test_a_grey_array_may_be_resized_and_a_volume_is_taken_for_one():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(array_source(grey, (4, 4)).read(0, 4)[0], grey.reshape(4, 2, 4, 2).mean((1, 3)).round())
    ball = np.zeros((5, 6, 7), bool)
    ball[2:4] = True
    source = array_source(ball)
    assert (source.size, source.bits) == ((5, 6, 7), 1)
    assert np.array_equal(source.read(1, 4)[0], ball[1:4])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 1.5), "values from 1.5 to 1.5; scale them to 0 to 1"),
        (np.full((4, 4), np.nan), "values from nan to nan"),
        (np.zeros((70, 80, 90), np.uint8), r"uint8 values of shape \(70, 80, 90\); use uint8"),
        (np.zeros((4, 4), int), "int64 values"),
        (np.zeros((0, 4), np.uint8), "and so no values"),
        (np.zeros((2, 3, 4, 5), np.uint8), r"of shape \(2, 3, 4, 5\)"),
    ],
)
def test_arrays_that_are_no_signal_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        array_source(values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(lr="high"), "--lr high: must be a positive number"),
        (dict(losses=1), "unrecognized arguments: --losses=1"),
        (dict(devices=2), "devices is an option of the command line only; leave it out"),
        (dict(quality="best"), "--quality best: must be draft, normal or high"),
    ],
)
def test_bad_options_are_errors_of_one_line(face, options, message):
    with pytest.raises(ValueError, match=message):
        fit(face, **options)


def test_plain_lists_are_no_signal():
    with pytest.raises(InputError, match="list: a signal is a file, or an array of NumPy or torch"):
        fit([[0, 1], [1, 0]])


def test_defaults_are_those_of_the_command_line(face, tmp_path):
    model = fit(face, num_epochs=[1, 2], preset="best", folder=tmp_path, accelerator="cpu")
    options = parse_options(["--path", "array", "--preset", "best", "--num_epochs", "1", "2"])
    names = ("arch", "n_hidden", "betas", "seed", "exp_name", "batch_size", "loss_thr")
    assert {name: model.options[name] for name in names} == {name: getattr(options, name) for name in names}
    with pytest.raises(InputError, match="already holds a fit"):
        fit(face, num_epochs=[1, 2], preset="best", folder=tmp_path)
