"""The benchmark of bytes: fits beside picture codecs at as many dB."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from benchmarks import bytes as benchmark
from benchmarks import codecs
from benchmarks.codecs import CODECS, Codec, as_pixels, as_values, bytes_at, measure, png_bytes

N = 48
X, Y = np.meshgrid(np.arange(N), np.arange(N))
NOISE = np.random.default_rng(0).integers(0, 32, (N, N, 3))
RGB = (np.stack([2 * X, 2 * Y, X + Y], axis=2) + NOISE).astype(np.uint8)
GREY = np.ascontiguousarray(RGB[..., 0])
CURVE = {10: (30.0, 100), 20: (40.0, 200), 30: (40.0, 200), 40: (44.0, 800)}  # setting: dB, bytes


@pytest.fixture
def curve(monkeypatch):
    monkeypatch.setattr(codecs, "measure", lambda codec, pixels, setting: CURVE[setting])
    return Codec("curve", list(CURVE), encode=None, decode=None)


@pytest.mark.parametrize(
    ("wanted", "n_bytes"),
    [(30, 100), (35, 100 * 2**0.5), (40, 200), (42, 400), (44, 800), (29.9, None), (44.1, None), (math.inf, None)],
)
def test_bytes_lie_between_those_of_the_two_settings_next_to_them(curve, wanted, n_bytes):
    assert bytes_at(curve, GREY, wanted) == (n_bytes and pytest.approx(n_bytes))


@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "RGB"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_better_settings_take_more_bytes(codec, pixels):
    few, many = (measure(codec, pixels, codec.settings[len(codec.settings) * part // 4]) for part in (1, 3))
    assert 10 < few[0] < many[0] < math.inf
    assert few[1] < many[1]
    wanted = (few[0] + many[0]) / 2
    assert few[1] < bytes_at(codec, pixels, wanted) < many[1]


def test_a_png_loses_nothing_and_is_smaller_than_its_pixels():
    assert png_bytes(RGB) < RGB.size
    for pixels in (GREY, RGB):
        assert np.array_equal(as_pixels(as_values(pixels)), pixels)


@pytest.mark.parametrize("losses", [[], [0.1, 0.5]], ids=["only folder", "packed"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "RGB"])
def test_a_picture_is_fitted_packed_and_fitted_again(tmp_path, monkeypatch, pixels, losses):
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    commands = []

    def run(program, arguments, place):
        commands.append([program, *arguments])
        folder = place / "ckpts" / arguments[arguments.index("--exp_name") + 1] if program == "train.py" else place
        folder.mkdir(parents=True, exist_ok=True)
        names = ["l0.ckpt", "l1.ckpt", "metrics.json"] if program == "train.py" else [arguments[2]]
        for name in [*names, *(["closed.miner"] if "--pack" in arguments else [])]:
            (folder / name).write_bytes(bytes(300 if name.endswith(".miner") else 1200))
        return 1.5

    def load(path):
        error = {"fit": 0.01, "closed.miner": 0.02}.get(path.name, 0.1)
        return SimpleNamespace(decode=lambda: as_values(pixels) + error)

    monkeypatch.setattr(benchmark, "run", run)
    monkeypatch.setattr(benchmark.MINER, "load", load)
    name, row, found = benchmark.measure_picture(path, losses, ["--seed", "1"])
    assert name == f"picture, {N}x{N}"
    columns = benchmark.picture_columns(losses)
    cells = dict(zip(columns, benchmark.cells(row, columns.values()), strict=True))
    assert (cells["folder: dB"], cells["folder: bits"]) == ("40.00", f"{8 * 2400 / N**2:.2f}")
    first = ["train.py", "--path", str(path), "--seed", "1", "--exp_name", "fit"]
    if not losses:
        assert commands == [first]
        assert found.compared == found.folder
        return
    assert (cells["packed at 0.5: dB"], cells["packed at 0.5: bits"]) == ("20.00", f"{8 * 300 / N**2:.2f}")
    assert (cells["closed loop: dB"], cells["folder / packed"]) == ("33.98", "8.0")
    jpeg = bytes_at(CODECS[0], pixels, 20.0)
    assert cells["JPEG"] == ("-" if jpeg is None else f"{8 * jpeg / N**2:.2f}")
    pack = ["pack.py", "ckpts/fit", "--out"]
    packs = [[*pack, f"{loss}.miner", "--loss_db", str(loss)] for loss in losses]
    assert commands == [first, *packs, [*first[:-1], "closed", "--pack"]]
    assert benchmark.second_row(found)[:2] == [1.5, 1.5]
    assert len(benchmark.second_row(found)) == len(benchmark.second_columns(losses))


def test_a_mesh_stands_beside_the_bits_of_its_voxels(tmp_path, monkeypatch):
    voxels = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    voxels[:, 4:12, 4:12, 4:12] = 1
    kept = benchmark.Kept(0.999, 5000)
    found = benchmark.Measured(
        kept, [benchmark.Kept(0.99, 1000)] * 2, [benchmark.Kept(0.99, 500)], [1.0, 1.0], 0.1, 0.2
    )
    monkeypatch.setattr(benchmark, "run", lambda *arguments: 0.0)
    monkeypatch.setattr(benchmark, "read_occupancy", lambda path: SimpleNamespace(values=voxels))
    monkeypatch.setattr(benchmark, "measure", lambda *arguments, **more: found)
    name, row, _ = benchmark.measure_mesh(tmp_path / "box.ply", 16, [0.1, 0.5], [])
    columns = benchmark.mesh_columns([0.1, 0.5])
    cells = dict(zip(columns, benchmark.cells(row, columns.values()), strict=True))
    assert name == "box, 16^3"
    assert cells["folder: bytes"] == "5,000"
    assert cells["voxels' bits, bytes"] == "512"
    assert 0 < int(cells["as xz"]) < 512
    assert (cells["folder / packed"], cells["folder / closed"]) == ("5.0", "10.0")


def test_a_mean_is_that_of_all_or_none():
    assert benchmark.mean([[1.0, None], [2.0, 3.0]]) == [1.5, None]
    rows = {"one": [1.0, None], "other": [2.0, 3.0]}
    assert benchmark.with_mean(rows, {"bits": ".1f", "WebP": ".1f"}) == [["mean", "**1.5**", "**-**"]]
    assert benchmark.with_mean({"one": [1.0]}, {"bits": ".1f"}) == []
