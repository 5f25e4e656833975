"""What docs/format.md says is enough to decode a file: a decoder written from it finds what this program does."""

from dataclasses import replace
from pathlib import Path

import plain_decoder
import pytest
import torch
from cosine_models import cosine_model
from test_hostile import gabor_run  # noqa: F401
from test_packed_file import quantised, random_model

from models.miner import MINER
from packing.write import write_packed
from utils.pyramid import FILLS


def check(model: MINER, codings: dict, path: Path) -> None:
    """What the plain decoder makes of the file of a fit: how its levels are built on, and how they are shown."""
    write_packed(path, model, codings)
    levels, pictures = plain_decoder.decode(path.read_bytes())
    shown = [(plain_decoder.show(levels, pictures, number), model.decode(number)) for number in range(model.n_scales)]
    pairs = [*shown, *zip(pictures[::-1], model.decode_pyramid(), strict=True)]
    for theirs, mine in pairs:
        assert theirs.shape == mine.shape
        apart = (torch.from_numpy(theirs) - mine).abs()
        assert apart.max() < 6e-5
        assert (apart < 1e-6).double().mean() > 0.95
    assert any(0.1 < float(((mine > 0) & (mine < 1)).double().mean()) for _, mine in pairs), "not all is black or white"


@pytest.mark.parametrize("run", ["small_run", "gabor_run"])
@pytest.mark.parametrize("is_quantised", [False, True], ids=["float32", "quantised"])
def test_a_decoder_that_was_written_from_the_page_alone_decodes_a_fit(request, tmp_path, run, is_quantised):
    model = MINER.load(request.getfixturevalue(run))
    check(*(quantised(model) if is_quantised else (model, {})), tmp_path / "x.miner")


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("size", "patch_size"), [((75, 101), (8, 16)), ((15, 11, 26), (4, 4, 8))])
@pytest.mark.parametrize("frequencies", [None, (1.0, 3.5)])
def test_the_page_tells_all_of_pictures_and_volumes(tmp_path, fill, size, patch_size, frequencies):
    model = random_model(size, patch_size, 2, 3, fill=fill, frequencies=frequencies)
    check(model, {}, tmp_path / "x.miner")


FILTERS = dict(kind="filters", activation="gabor", output="linear", omega=10.0)
SINES = dict(activation="sine", output="linear", omega=30.0)
PLANE = ((45, 61), (8, 16))


@pytest.mark.parametrize(
    ("signal", "n_channels", "widths", "frequencies", "form"),
    [
        (PLANE, 3, (4, 7, 12), (1.0, 3.5), dict(n_layers=2)),
        (PLANE, 4, (5,), (1.0,), dict(n_layers=3, centre=0.5)),
        (PLANE, 1, (3, 8), (1.0,), dict(n_layers=4)),
        (PLANE, 3, (6, 9), None, dict(n_layers=4, output="linear")),
        (PLANE, 3, (6, 9), None, dict(n_layers=3) | SINES),
        (PLANE, 3, (4, 8), None, dict(n_layers=4) | FILTERS),
        (((9, 11, 18), (4, 4, 8)), 1, (4, 9), (1.0, 3.0), dict(n_layers=2)),
        (((9, 11, 18), (4, 4, 8)), 1, (7,), None, dict(n_layers=3) | SINES),
        (((9, 11, 18), (4, 4, 8)), 1, (7,), None, dict(n_layers=3) | FILTERS),
    ],
)
def test_the_page_tells_all_of_quantised_networks(tmp_path, signal, n_channels, widths, frequencies, form):
    model = random_model(*signal, n_channels, 2, widths, frequencies=frequencies, **form)
    check(*quantised(model), tmp_path / "x.miner")


@pytest.mark.parametrize("is_coded", [False, True], ids=["float32", "coefficients"])
@pytest.mark.parametrize(
    ("size", "patch_size", "n_channels", "widths"),
    [
        ((77, 101), (32, 32), 3, (8, 16, 32)),
        ((45, 61), (16, 32), 1, (4, 16)),
        ((30, 50), (12, 6), 4, (1, 3, 6)),
        ((9, 19, 25), (8, 16, 8), 1, (2, 8)),
    ],
)
def test_the_page_tells_all_of_networks_of_cosines(tmp_path, size, patch_size, n_channels, widths, is_coded):
    model, codings = cosine_model(size, patch_size, n_channels, 2, widths)
    check(model, codings if is_coded else {}, tmp_path / "x.miner")


def test_a_level_that_is_not_whole_is_shown_as_the_page_says(tmp_path):
    model = random_model((45, 61), (8, 8), 3, 3)
    model.levels[1] = replace(model.levels[1], is_whole=False)
    check(model, {}, tmp_path / "x.miner")
