"""The decoder that a browser runs, in Node.js: it finds what Python does, of whatever has a packed form."""

import json
import random
import zlib
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from cosine_models import cosine_model
from helpers import ROOT
from nodes import run_module
from test_packed_file import parts_of, quantised, random_model
from test_quantised import level_with_gaps
from torch import Tensor

from models.miner import MINER
from models.packed.layout import beginning, checksum
from models.shape import NetworkShape
from packing.write import write_packed
from utils.pyramid import FILLS, downsample, upsampling
from viewing.compile import WASM, compile_decoder

FARTHEST = 2e-4
PIXELS_APART = 1e-5
"""At most; of pixels that differ by more than 1/255."""

PLANE, ROUGH, LONG = ((75, 101), (8, 16)), ((61, 90), (25, 25)), ((37, 50), (7, 9))
SOLID, CUBES = ((15, 11, 26), (4, 4, 8)), ((13, 12, 17), (5, 6, 7))
WAVES, BASES = (1.0, 3.5), (3.0, 6.0, 9.0, 12.0)
SINES = dict(activation="sine", omega=30.0)
FILTERS = dict(kind="filters", activation="gabor", output="linear", omega=10.0)
CASES = {
    "deep": (PLANE, 3, (4, 7, 12), BASES, dict(n_layers=4)),
    "centred": (ROUGH, 4, (5, 60), BASES, dict(n_layers=2, centre=0.5)),
    "grey": (LONG, 1, (3, 8), WAVES, dict(n_layers=3)),
    "linear": (LONG, 2, (6, 9), None, dict(n_layers=3, output="linear")),
    "sigmoids": (PLANE, 4, (1, 2), (1.0,), dict(n_layers=2, output="sigmoid")),
    "sines": (ROUGH, 3, (6, 9), None, dict(n_layers=3, output="linear") | SINES),
    "sines with a sine": (PLANE, 1, (6,), WAVES, dict(n_layers=4, output="sine") | SINES),
    "filters": (PLANE, 3, (4, 8), None, dict(n_layers=4) | FILTERS),
    "encoded filters": (LONG, 3, (5,), WAVES, dict(n_layers=2) | FILTERS),
    "one pixel": (((1, 1), (8, 8)), 3, (3,), WAVES, dict(n_layers=2)),
    "volume": (SOLID, 1, (4, 9), (3.0, 6.0), dict(n_layers=3, centre=0.5)),
    "volume of odd blocks": (CUBES, 1, (5,), WAVES, dict(n_layers=2)),
    "volume of sines": (SOLID, 1, (7,), None, dict(n_layers=3, output="linear") | SINES),
    "volume of filters": (CUBES, 1, (7,), None, dict(n_layers=3) | FILTERS),
    "volume of encoded filters": (SOLID, 1, (3,), (1.0,), dict(n_layers=3) | FILTERS),
}


def model_of(name: str, fill: str = "spline") -> MINER:
    signal, n_channels, widths, frequencies, form = CASES[name]
    return random_model(*signal, n_channels, 2, widths, fill=fill, frequencies=frequencies, **form)


def decoded(path: Path, folder: Path, *factors: int) -> None:
    folder.mkdir()
    run_module("decode.mjs", path, folder, *factors)


def values(path: Path, like: Tensor) -> Tensor:
    return torch.from_numpy(np.fromfile(path, np.float32)).view(like.shape)


def check_same(theirs: Tensor, mine: Tensor) -> None:
    apart = (theirs - mine).abs()
    assert (apart.amax(0) > 1 / 255).double().mean() <= PIXELS_APART
    assert apart.max() <= FARTHEST
    assert (apart < 2e-6).double().mean() > 0.9


def check(model: MINER, codings: dict, folder: Path) -> None:
    """What the page's decoder makes of the file of a fit, at every level."""
    write_packed(folder / "x.miner", model, codings)
    check_file(model, folder / "x.miner", folder)


def check_file(model: MINER, path: Path, folder: Path) -> None:
    decoded(path, folder / "out")
    pyramid = model.decode_pyramid()
    for index, mine in enumerate(pyramid):
        check_same(values(folder / "out" / f"{index}.f32", mine), mine)
        groups = np.fromfile(folder / "out" / f"{index}.groups", np.int8)
        assert (groups == model.levels[index].group.numpy()).all()
    assert any(0.1 < float(((mine > 0) & (mine < 1)).double().mean()) for mine in pyramid), "not all is black or white"


@pytest.mark.parametrize(("name", "fill"), list(zip(CASES, cycle(FILLS))))
def test_every_architecture_decodes_without_loss(tmp_path, name, fill):
    check(model_of(name, fill), {}, tmp_path)


@pytest.mark.parametrize(("name", "fill"), list(zip(CASES, cycle(FILLS[::-1]))))
def test_every_architecture_decodes_when_it_is_quantised(tmp_path, name, fill):
    check(*quantised(model_of(name, fill)), tmp_path)


COSINES = {
    "RGB": ((77, 101), (32, 32), 3, 2, (8, 16, 32)),
    "grey": ((45, 61), (16, 32), 1, 2, (4, 16)),
    "odd parts": ((30, 50), (12, 6), 4, 2, (1, 3, 6)),
    "many channels": ((20, 33), (16, 16), 6, 1, (8, 16)),
    "volume": ((9, 19, 25), (8, 16, 8), 1, 2, (2, 8)),
    "one plane": ((1, 7, 9), (1, 4, 3), 1, 1, (1,)),
}


@pytest.mark.parametrize("is_coded", [False, True], ids=["float32", "coefficients"])
@pytest.mark.parametrize("name", COSINES)
def test_networks_of_cosines_decode(tmp_path, name, is_coded):
    model, codings = cosine_model(*COSINES[name])
    check(model, codings if is_coded else {}, tmp_path)


@pytest.mark.parametrize("run", ["small_run", "best_run"])
def test_a_fit_decodes_and_is_enlarged(request, tmp_path, run):
    model = MINER.load(request.getfixturevalue(run))
    check(*quantised(model), tmp_path)
    decoded(tmp_path / "x.miner", tmp_path / "large", 2, 3, 4, 16)
    model = MINER.load(tmp_path / "x.miner")
    for factor in (2, 3, 4, 16):
        mine = model.decode(crop=[(2 * length // 3, length) for length in model.size], scale=factor)[:, 1:, 1:]
        check_same(values(tmp_path / "large" / f"x{factor}.f32", mine), mine)


def test_networks_that_give_the_signal_itself_do_not_add_to_the_coarser_level(tmp_path):
    model = model_of("linear", "lanczos")
    model.levels[0] = replace(model.levels[0], residual=False)
    check(model, {}, tmp_path)


@pytest.mark.parametrize("form", [dict(n_layers=3, output="sigmoid", centre=0.5), dict(n_layers=4) | FILTERS])
def test_units_and_networks_that_lead_nowhere(tmp_path, form):
    model = random_model((40, 56), (8, 8), 3, 1, frequencies=(1.0, 2.5), **form)
    model.levels[0] = level_with_gaps(form)
    check(*quantised(model), tmp_path)


def test_networks_of_several_kinds_lie_in_one_level(tmp_path):
    model = model_of("sines")
    other = random_model(*ROUGH, 3, 2, (6, 9), n_layers=4, **FILTERS)
    networks = (model.levels[0].networks[0], other.levels[0].networks[1])
    model.levels[0] = replace(model.levels[0], networks=networks)
    check(model, {}, tmp_path)


@pytest.mark.parametrize("name", ["grey", "sines", "filters"])
def test_forms_of_networks_may_be_written_out(tmp_path, name):
    model, path = model_of(name), tmp_path / "x.miner"
    write_packed(path, model, {})
    header, index, rest = parts_of(path)
    for level in header["levels"]:
        level["networks"] = [asdict(NetworkShape.from_record(network)) for network in level["networks"]]
    path.write_bytes(beginning(header, index) + rest)
    check_file(model, path, tmp_path)


@pytest.mark.parametrize("is_quantised", [False, True])
@pytest.mark.parametrize("name", ["deep", "filters"])
def test_a_damaged_chunk_is_told_in_words_and_the_decoder_goes_on(tmp_path, name, is_quantised):
    model = model_of(name)
    write_packed(tmp_path / "x.miner", *(quantised(model) if is_quantised else (model, {})))
    told = json.loads(run_module("damage.mjs", tmp_path / "x.miner"))
    assert told == {"messages": ["chunk 0 of level 1 is damaged; get the file again"], "wrong": []}


def test_damage_to_coefficients_is_told_in_words_and_the_decoder_goes_on(tmp_path):
    write_packed(tmp_path / "x.miner", *cosine_model(*COSINES["RGB"]))
    told = json.loads(run_module("damage.mjs", tmp_path / "x.miner"))
    assert told == {"messages": ["chunk 0 of level 1 is damaged; get the file again"], "wrong": []}


HOSTILE_COEFFICIENTS = [
    [["coding", "step", 0]],
    [["coding", "step", "x"]],
    [["coding", "rotation", [[1]]]],
    [["coding", "starts", [0, 5, 4, 16384]]],
    [["coding", "starts", [0, 16384]]],
    [["coding", "scales", []]],
    [["coding", "scales", 0, -17]],
    [["coding", "scales", 323, 73]],
    [["coding", "name", "quantised"]],
    [["patch_size", [2**20, 2**20]]],
]


def test_hostile_headers_of_coefficients_give_one_line(tmp_path):
    write_packed(tmp_path / "x.miner", *cosine_model(*COSINES["RGB"]))
    told = json.loads(run_module("header.mjs", tmp_path / "x.miner", given=[[], *HOSTILE_COEFFICIENTS]))
    assert told[0] is None
    for message in told[1:]:
        assert message.startswith("Error: ")
        assert "not consistent" in message or "is damaged" in message or "too large for the viewer" in message


HOSTILE = [
    [["coding", "steps", []]],
    [["coding", "steps", 0, -1]],
    [["coding", "floors", [10**30]]],
    [["coding", "rotation", [[1]]]],
    [["coding", "starts", [0, 5, 4, 16384]]],
    [["coding", "starts", [0, 16384]]],
    [["coding", "scales", "spread", 10**9]],
    [["coding", "scales", "base", "x"]],
    [["networks", 0, "n_hidden", 10**6]],
    [["networks", 0, "n_hidden", 2**40]],
    [["networks", 0, "n_layers", 3]],
    [["coding", {"name": "float32"}]],
    [["coding", {"name": "float32"}], ["networks", 0, "n_hidden", 10**7], ["networks", 0, "n_layers", 500]],
    [["coding", {"name": "quantised"}]],
    [["patch_size", [8, 2**30]]],
    [["patch_size", [2**30, 8]]],
]


def test_hostile_headers_give_one_line(tmp_path):
    write_packed(tmp_path / "x.miner", *quantised(model_of("deep")))
    told = json.loads(run_module("header.mjs", tmp_path / "x.miner", given=[[], *HOSTILE]))
    assert told[0] is None
    for message in told[1:]:
        assert message.startswith("Error: ")
        assert "not consistent" in message or "is damaged" in message or "too large for the viewer" in message


def test_checksums_are_those_of_zlib():
    data = list(random.Random(0).randbytes(1000))
    calls = [["crc32", [data, cut]] for cut in (0, 1, 500)] + [["chunkChecksum", [3, 2**32 - 1, data]]]
    expected = [zlib.crc32(bytes(data))] * 3 + [checksum(bytes(data), 3, 2**32 - 1)]
    assert json.loads(run_module("call.mjs", given=calls)) == expected


def test_windows_reach_as_far_as_the_kernels():
    draw, calls, expected = random.Random(0), [], []
    for _ in range(200):
        size = [draw.randint(1, 30) for _ in range(draw.choice((2, 3)))]
        fill = draw.choice(FILLS)
        for kind, factor in ((fill, 2), ("lanczos", draw.choice((2, 3, 16)))):
            starts = [draw.randrange(length * factor) for length in size]
            window = [[s, draw.randint(s + 1, length * factor)] for s, length in zip(starts, size, strict=True)]
            expected.append(list(map(list, upsampling(kind, factor).source_window(window, size))))
            calls.append(["enlargedWindow", [window, factor, size]])
        calls[-2] = ["parentWindow", [calls[-2][1][0], size, fill]]
    assert json.loads(run_module("call.mjs", given=calls)) == expected


@pytest.mark.parametrize("size", [(6, 4), (5, 7), (1, 2), (3, 5, 4)])
def test_means_are_those_of_the_pyramid(size):
    pixels = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    [told] = json.loads(run_module("call.mjs", given=[["halved", [pixels.flatten().tolist(), size]]]))
    assert torch.allclose(torch.tensor(told), downsample(pixels).flatten(), atol=1e-6)


@pytest.mark.parametrize(
    ("n_channels", "has_alpha", "planes"),
    [
        (1, False, [0, 0, 0]),
        (2, False, [0, 0, 0]),
        (3, False, [0, 1, 2]),
        (4, True, [0, 1, 2, 3]),
        (4, False, [0, 1, 2]),
        (5, False, [0, 1, 2]),
    ],
)
def test_pixels_of_the_screen_are_rounded(n_channels, has_alpha, planes):
    pixels = torch.rand(n_channels, 50, generator=torch.Generator().manual_seed(0))
    pixels[0, :2] = torch.tensor([0.0, 1.0])
    [told] = json.loads(
        run_module("call.mjs", given=[["rgbaOf", [pixels.flatten().tolist(), n_channels, 50, has_alpha]]])
    )
    told = torch.tensor(told).view(50, 4).T
    assert torch.equal(told[: len(planes)], (pixels[planes] * 255).round().long())
    assert (told[len(planes) :] == 255).all()


def test_what_is_shipped_is_what_the_source_compiles_to(tmp_path):
    compile_decoder(tmp_path / "decoder.wasm")
    assert (tmp_path / "decoder.wasm").read_bytes() == WASM.read_bytes(), "run python -m viewing.compile"
    assert WASM.is_relative_to(ROOT / "viewer")
