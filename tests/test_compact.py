"""The preset compact: networks of cosines whose weights are worth their bits."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.fft
import torch
import yaml
from helpers import ASTRONAUT, is_one_line, start_training

from benchmarks.codecs import CODECS, as_pixels, bytes_at
from datasets.sources import read_picture
from miner import fit
from models.cosines import axes_of
from models.miner import MINER
from models.networks import make_network
from models.ops import fused_cpu, reference
from models.packed.coefficients import Coefficients, bounds_of, compiled, decode_chunk, encode_chunk, spreads
from models.packed.contexts import N_CONTEXTS
from models.packed.slow_coefficients import decode_coefficients
from models.run import read_folder
from models.shape import NetworkShape
from opt import parse_options, recorded_options, settle
from options.compact import aims_of
from training.prior import PRICE, choose, learn, rotation_of, spectra_of, transformed
from training.spec import specify_levels
from utils import compiler
from utils.blocks import block_coords, gather_blocks
from utils.metrics import psnr

PRICE_OF_BIT = 1e-3


def shape_of(n: int, lengths: tuple[int, ...] = (32, 32), n_out: int = 3) -> NetworkShape:
    return NetworkShape(
        len(lengths), n_out, 1, n, kind="cosines", activation="cosine", output="linear", lengths=lengths
    )


SHAPES = tuple(shape_of(n) for n in (8, 16, 32))


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """A face, 160 by 160."""
    return read_picture(ASTRONAUT).values[:, 16:176, 144:304]


@pytest.fixture(scope="module")
def values(picture) -> torch.Tensor:
    """Its blocks."""
    return gather_blocks(picture, (32, 32), torch.arange(25))


@pytest.fixture(scope="module")
def spectra(values):
    return spectra_of(values, SHAPES, rotation_of(values, 3))


@pytest.fixture(scope="module")
def coding(spectra) -> Coefficients:
    return learn(spectra, PRICE_OF_BIT, needs_one=True)


@pytest.fixture(scope="module")
def compact_run(tmp_path_factory) -> Path:
    """The folder in which a picture of four levels was fitted by a process of its own."""
    folder = tmp_path_factory.mktemp("compact_run")
    process = start_training(folder, *arguments(folder))
    (folder / "out.txt").write_text(process.communicate(timeout=120)[0])
    assert process.returncode == 0
    return folder


def arguments(folder: Path) -> list[str]:
    pixels = cv2.resize(cv2.imread(str(ASTRONAUT)), (700, 520))
    cv2.imwrite(str(folder / "face.png"), pixels)
    return ["--path", "face.png", "--preset", "compact", "--n_scales", "4", "--accelerator", "cpu"]


@pytest.mark.parametrize(("lengths", "n"), [((32, 32), 8), ((8, 16), 8), ((4, 8, 4), 4)])
def test_cosines_are_an_inverse_cosine_transform_of_each_part(lengths, n):
    shape, grid = shape_of(n, lengths), [length // n for length in lengths]
    network = make_network(3, shape)
    weight = torch.randn(network.weight[0].shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.weight[0].copy_(weight)
    expected = np.zeros((3, *lengths, 3))
    for part in np.ndindex(*grid):
        here = (slice(None), *(slice(at * n, (at + 1) * n) for at in part))
        axes = tuple(range(1, 1 + len(lengths)))
        expected[here] = scipy.fft.idctn(weight.view(3, *lengths, 3).numpy()[here], axes=axes, norm="ortho")
    coords = block_coords(lengths)
    for backend in (reference, fused_cpu):
        found = backend.predict(network, slice(None), coords)
        assert np.abs(found.view(3, *lengths, 3).numpy() - expected).max() < 1e-5
    assert torch.allclose(transformed(found, shape).float(), weight, atol=1e-5)


def test_a_window_of_a_block_has_the_bits_of_the_whole():
    network = make_network(4, SHAPES[1])
    with torch.no_grad():
        network.weight[0].normal_(generator=torch.Generator().manual_seed(1))
    coords = block_coords((32, 32))
    whole = fused_cpu.predict(network, slice(None), coords).view(4, 32, 32, 3)
    box = coords.view(32, 32, 2)[3:20, 7:9].flatten(0, 1)
    assert torch.equal(fused_cpu.predict(network, torch.tensor([2]), box).view(17, 2, 3), whole[2, 3:20, 7:9])
    scattered = coords[torch.tensor([5, 700, 12])]
    assert axes_of(scattered) is None
    found = fused_cpu.predict(network, slice(None), scattered)
    assert torch.allclose(found, whole.view(4, 1024, 3)[:, [5, 700, 12]], atol=1e-5)


def test_tables_are_of_2_to_the_14_and_each_magnitude_has_its_place():
    for bounds in spreads():
        counts = np.diff(bounds)
        assert bounds[-1] == 2**14
        assert counts.min() >= 1
        assert len(counts) <= 16
    likely = np.diff(bounds_of(2**31, 2**31)) / 2**14  # 0 half of the time, each magnitude half as often as the last
    assert np.abs(likely[:6] - [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]).max() < 2e-3


def test_what_is_coded_is_decoded_with_and_without_a_compiler(coding):
    random = np.random.default_rng(0)
    groups = random.integers(0, 3, 6).astype(np.int32)
    integers = random.choice([0, 1, -1, 7, -300, 2**20], p=[0.8, 0.08, 0.08, 0.03, 0.009, 0.001], size=(6, 3072))
    data = encode_chunk(groups, integers, coding)
    slow = decode_coefficients(data, 6, SHAPES, list(coding.starts), coding.scales, spreads())
    for found in (decode_chunk(data, 6, coding), slow):
        assert (found[0] == groups).all()
        assert (found[1] == integers).all()


def test_damaged_chunks_are_refused(coding, spectra):
    chosen = choose(spectra, coding, needs_one=True)
    data = encode_chunk(chosen.group, chosen.integers, coding)
    networks, group = coding.decode(data, 25)[::-1]
    assert coding.encode(group, networks) == data
    refused = 0
    for place in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        try:
            coding.decode(bytes(damaged), 25)
        except ValueError:
            refused += 1
    assert refused > len(data) // 97 - 2
    for short in (b"", data[:3], data[:-2]):
        with pytest.raises(ValueError, match="chunk"):
            coding.decode(short, 25)


def test_the_bits_that_are_reckoned_with_are_those_of_the_file(coding, spectra):
    chosen = choose(spectra, coding, needs_one=True)
    data = encode_chunk(chosen.group, chosen.integers, coding)
    assert abs(8 * len(data) / chosen.bits.sum() - 1) < 0.01


def test_errors_are_those_of_what_is_decoded(coding, spectra, values):
    chosen = choose(spectra, coding, needs_one=True)
    coords = block_coords((32, 32))
    for number, shape in enumerate(SHAPES):
        mine = np.flatnonzero(chosen.group == number)
        found = coding.networks_of(chosen.integers[mine], shape)(coords)
        errors = (found - values[mine]).square().sum((1, 2)).detach().numpy()
        assert np.allclose(errors, chosen.errors[mine], rtol=1e-3)


def test_blocks_know_of_each_other_by_the_prior_alone(coding, values):
    whole = choose(spectra_of(values, SHAPES, coding.rotation), coding, needs_one=False)
    for some in ([3], [20, 4, 11]):
        part = choose(spectra_of(values[some], SHAPES, coding.rotation), coding, needs_one=False)
        assert (part.integers == whole.integers[some]).all()
        assert (part.group == whole.group[some]).all()


def test_no_other_choice_of_a_block_costs_less(coding, spectra):
    """Neither another group, nor no network, nor rounding to the nearest."""
    best = choose(spectra, coding, needs_one=False)
    unit = coding.step**2
    costs = best.errors / unit + PRICE * best.bits
    assert (costs <= spectra.energy / unit + 1e-6).all()
    for number in range(3):
        alone = spectra_of(torch.zeros(1, 1024, 3), SHAPES, coding.rotation)  # so that the shapes stay those
        only = type(alone)((SHAPES[number],), [spectra.coefficients[number]], spectra.rotation, spectra.energy)
        other = Coefficients((SHAPES[number],), coding.step, coding.rotation, (0, 2**14), coding.scales)
        chosen = choose(only, other, needs_one=True)
        # of a group alone, its symbol takes nothing
        assert (costs <= chosen.errors / unit + PRICE * (chosen.bits + 14) + 1e-6).all()


def test_a_flat_signal_needs_no_bits_but_its_value():
    values = torch.full((25, 1024, 3), 0.25)
    spectra = spectra_of(values, SHAPES, rotation_of(values, 3))
    chosen = choose(spectra, learn(spectra, PRICE_OF_BIT, needs_one=True), needs_one=True)
    assert np.count_nonzero(chosen.integers) <= 75
    assert chosen.bits.mean() < 30


def test_files_are_smaller_than_those_of_jpeg(picture, tmp_path):
    model = fit(picture, tmp_path, preset="compact", quiet=True)
    found = (255 * model.decode()).round() / 255
    n_bytes = (tmp_path / "ckpts/array/array.miner").stat().st_size
    assert n_bytes < 0.8 * bytes_at(CODECS[0], as_pixels(picture), psnr(found, picture))


@pytest.mark.parametrize(("name", "aim", "within"), [("target_psnr", 36.0, 0.3), ("target_bpp", 1.5, 0.15)])
def test_it_comes_near_to_what_is_aimed_at(picture, tmp_path, name, aim, within):
    fit(picture, tmp_path, preset="compact", quiet=True, **{name: aim})
    report = json.loads((tmp_path / "ckpts/array/metrics.json").read_text())
    found = report["psnr"] if name == "target_psnr" else 8 * report["bytes"]["packed"] / (160 * 160)
    again = parse_options(["--config", str(tmp_path / "ckpts/array/options.yaml")])
    assert list(aims_of(vars(again))) == ["lambda"]
    other = parse_options(["--config", str(tmp_path / "ckpts/array/options.yaml"), "--target_psnr", "30"])
    assert aims_of(vars(other)) == {"target_psnr": 30}
    assert abs(found - aim) < within


def test_neither_alpha_nor_what_blocks_reach_beyond_the_picture_counts_in_its_psnr(picture, tmp_path):
    noise = torch.rand(1, 136, 150, generator=torch.Generator().manual_seed(0))
    fit(torch.cat([picture[:, :136, :150], noise]), tmp_path, preset="compact", quiet=True, target_psnr=36.0)
    report = json.loads((tmp_path / "ckpts/array/metrics.json").read_text())
    assert abs(report["psnr"] - 36) < 0.3


@pytest.mark.parametrize("aim", [dict(target_psnr=40.0), dict(target_bpp=30.0)], ids=["psnr", "bpp"])
def test_a_flat_picture_is_as_good_and_as_small_as_any_aim(tmp_path, aim):
    model = fit(torch.zeros(3, 64, 64), tmp_path, preset="compact", quiet=True, **aim)
    assert not model.decode().any()


@pytest.mark.parametrize("n_hidden", ["32", "8 16 32"])
def test_every_third_level_is_coded(n_hidden):
    arguments = ["--path", "x.png", "--preset", "compact", "--n_hidden", *n_hidden.split()]
    specs = specify_levels(settle(parse_options(arguments), (4200, 4200)), 2, 3)
    assert [spec.is_whole for spec in specs] == [True, False, False, True]


def test_parts_are_of_a_size_that_divides_the_blocks():
    assert parse_options(["--path", "x.png", "--preset", "compact", "--patch_size", "12", "18"]).n_hidden == [6]


def test_the_file_decodes_to_what_the_folder_does_and_a_crop_to_its_part(compact_run):
    ckpts = compact_run / "ckpts/face"
    folder, file = MINER.load(ckpts), MINER.load(ckpts / "face.miner")
    whole = folder.decode()
    for level in range(4):
        assert torch.equal(file.decode(level), folder.decode(level))
    crop = ((100, 300), (301, 333))
    assert torch.equal(file.decode(crop=crop), whole[:, 100:300, 301:333])
    assert file.n_parameters == folder.n_parameters > 0
    assert [level["active_blocks"] > 0 for level in file.summary] == [True, False, False, True]
    assert psnr(whole, read_picture(compact_run / "face.png").values) > 36


def test_its_options_can_be_given_again(compact_run):
    path = compact_run / "ckpts/face/options.yaml"
    assert recorded_options(parse_options(["--config", str(path)])).items() >= yaml.safe_load(path.read_text()).items()


def test_packing_the_folder_copies_what_is_coded(command, compact_run, tmp_path):
    outcome = command("pack.py", compact_run / "ckpts/face", "--out", tmp_path / "again.miner", "--loss_db", "0.5")
    assert outcome.status == 0, outcome.error
    assert (tmp_path / "again.miner").read_bytes() == (compact_run / "ckpts/face/face.miner").read_bytes()


def test_units_are_pixels_of_a_part(compact_run):
    model = MINER.load(compact_run / "ckpts/face")
    assert set(model.units().unique().tolist()) <= {0, 8, 16, 32}
    assert model.units_in_words == "pixels of a part, along each axis"


def test_a_run_that_was_killed_between_levels_ends_with_the_same_bytes(command, compact_run, tmp_path, monkeypatch):
    shutil.copytree(compact_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    ckpts = tmp_path / "ckpts/face"
    before = {path.name: path.read_bytes() for path in ckpts.iterdir() if path.name != "metrics.json"}
    for name in ("l0.ckpt", "metrics.json", "face.miner"):
        (ckpts / name).unlink()
    outcome = command("train.py", *arguments(tmp_path), "--resume")
    assert outcome.status == 0, outcome.error
    assert {path.name: path.read_bytes() for path in ckpts.iterdir() if path.name != "metrics.json"} == before


def test_processes_leave_the_files_of_one(compact_run, tmp_path):
    process = start_training(tmp_path, *arguments(tmp_path), "--devices", 2)
    process.communicate(timeout=120)
    assert process.returncode == 0
    for name in ("l0.ckpt", "l3.ckpt", "face.miner"):
        assert (tmp_path / "ckpts/face" / name).read_bytes() == (compact_run / "ckpts/face" / name).read_bytes()


def test_checkpoints_that_were_tampered_with_are_refused(compact_run):
    from models.packed.held import level_of
    from utils.checkpoint import load_level

    record = load_level(compact_run / "ckpts/face/l0.ckpt")
    assert read_folder(compact_run / "ckpts/face").levels[0].n_parameters == record["parameters"]
    for wrong in (
        dict(lengths=record["lengths"][1:]),
        dict(parameters=-1),
        dict(blocks_by_group=[1, 2, 3]),
        dict(coding=record["coding"] | dict(step=0.0)),
        dict(coding=record["coding"] | dict(scales=[0] * (N_CONTEXTS - 1))),
        dict(network_shapes=record["network_shapes"][:1]),
    ):
        with pytest.raises((TypeError, ValueError, KeyError)):
            level_of(record | wrong, "x").check(tuple(record["size"]), 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--lr", "0.1"], "--lr 0.1: --preset compact has none"),
        (["--lambda", "1e-3", "--target_bpp", "1"], "each says how small"),
        (["--patch_size", "48", "--n_hidden", "32"], "--n_hidden 32: must divide --patch_size 48"),
        (["--target_psnr", "900"], "this signal can have"),
        (["--quality", "high"], "--quality high: --preset compact has none"),
        (["--patch_size", "256"], "--patch_size 256: a block has at most 16,384 pixels here"),
        (["--target_bpp", "0.01"], "--target_bpp 0.01: the file of this signal takes"),
        (["--lambda", "1e-12"], "--lambda 1e-12: must be a number from 1e-10 to 1"),
        (["--n_scales", "3"], "--n_scales 3: --preset compact gives networks to every third level"),
        (["--pack", "false"], "--pack off: --preset compact always leaves"),
        (["--log_image"], "--log_image on: --preset compact has none"),
        (["--max_seconds", "5"], "--max_seconds 5.0: --preset compact has none"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused_in_one_line(command, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", "--path", ASTRONAUT, "--input_size", 64, "--preset", "compact", *given)
    assert outcome.status != 0
    assert message in outcome.error
    assert is_one_line(outcome.error.splitlines()[-1])
    assert not list(tmp_path.glob("ckpts/*/*.ckpt"))


def test_without_a_compiler_it_is_refused_in_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiler, "version", lambda _: (_ for _ in ()).throw(ImportError))
    compiled.cache_clear()
    outcome = command("train.py", "--path", ASTRONAUT, "--preset", "compact")
    assert outcome.status != 0
    assert is_one_line(outcome.error)
    assert "--preset compact: the package ziglang" in outcome.error
    assert not list(tmp_path.iterdir())


def test_its_options_are_refused_elsewhere(command):
    outcome = command("train.py", "--path", ASTRONAUT, "--lambda", "1e-3")
    assert outcome.status != 0
    assert "--lambda 0.001: is for --preset compact" in outcome.error
