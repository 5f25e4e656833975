"""Pictures of floating point numbers: every format, what is fitted, what comes back.

images/forest.hdr is a part of Poly Haven's forest_slope (CC0): its highest value is 189 times its mean.
"""

import json
import math

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile
import torch
import zarr
from helpers import ASTRONAUT, ROOT, checkpoints, is_one_line

from datasets import formats
from datasets.arrays import array_source
from datasets.sources import open_picture
from datasets.store import map_levels, read_levels, write_levels
from datasets.tasks import task_of_file
from datasets.writers import write_rows
from miner import fit
from models.miner import MINER
from models.run import checked_run
from options.table import make_parser
from utils.errors import InputError
from utils.transfer import KINDS, MU, Reading, Transfer

FOREST = ROOT / "images" / "forest.hdr"
LIGHT = np.geomspace(0.01, 300, 20 * 31 * 3).reshape(20, 31, 3).astype(np.float16)
GREY = np.ascontiguousarray(LIGHT[..., 0])
FIT = ["--path", FOREST, "--quality", "draft", "--accelerator", "cpu"]


def write_exr(path, values):
    names = "RGB" if values.ndim == 3 else "Y"
    channels = {name: np.ascontiguousarray(np.atleast_3d(values)[..., place]) for place, name in enumerate(names)}
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels).write(str(path))


WRITERS = {
    ".exr": write_exr,
    ".tif": lambda path, values: tifffile.imwrite(path, values, photometric="rgb" if values.ndim == 3 else None),
    ".npy": np.save,
    ".zarr": lambda path, values: zarr.create_array(path, data=values),
}


LOG = Reading("log")


def read(path, reading=LOG):
    """The values of a file as its transfer gives them back, (h, w, c), and that transfer."""
    source = open_picture(path, reading=reading)
    numbers = source.read(0, source.size[0])
    assert numbers.dtype == np.uint16
    assert source.bits == 16
    return source.transfer.decode(numbers.transpose(1, 2, 0) / 65535), source.transfer


@pytest.fixture(scope="module")
def forest_run(tmp_path_factory):
    """A short fit of the forest, packed."""
    from conftest import fit as fit_in

    folder = tmp_path_factory.mktemp("forest")
    fit_in(folder, [*map(str, FIT), "--pack", "--exp_name", "small"])
    return folder / "ckpts" / "small"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("values", [LIGHT, GREY], ids=["RGB", "grey"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_values_come_back_from_every_format(tmp_path, suffix, values, dtype):
    if suffix == ".exr" and dtype == np.float64:
        pytest.skip("OpenEXR has no such numbers")
    WRITERS[suffix](tmp_path / f"x{suffix}", values.astype(dtype))
    found, transfer = read(tmp_path / f"x{suffix}")
    assert transfer == Transfer("log", 0.0, float(values.max()), "float16" if dtype == np.float16 else "float32")
    np.testing.assert_allclose(found, np.atleast_3d(values), rtol=0.004, atol=0.001)


def test_radiance_is_read_as_opencv_reads_it():
    expected = cv2.imread(str(FOREST), cv2.IMREAD_UNCHANGED)[..., ::-1]
    found, transfer = read(FOREST)
    assert transfer == Transfer("log", 0.0, float(expected.max()), "float32")
    np.testing.assert_allclose(found, expected, rtol=0.002, atol=1e-6)


def test_integers_come_back_exactly(tmp_path):
    heights = np.arange(-300, 300, dtype=np.int16).reshape(20, 30)
    for suffix in (".npy", ".tif"):
        WRITERS[suffix](tmp_path / f"x{suffix}", heights)
        found, transfer = read(tmp_path / f"x{suffix}", Reading())
        assert transfer == Transfer("linear", -300.0, 299.0, "int16")
        np.testing.assert_array_equal(found[..., 0], heights)
    np.save(tmp_path / "x.npy", heights.astype(np.uint16))
    assert open_picture(tmp_path / "x.npy").transfer is None, "16 bits a channel are pixels as they are"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_pixels_of_16_bits_are_fitted_in_their_own_range_where_that_is_asked_for(
    tmp_path, monkeypatch, command, suffix
):
    monkeypatch.chdir(tmp_path)
    values = (np.arange(20 * 30) * 3 + 100).astype(np.uint16).reshape(20, 30)
    path = tmp_path / f"x{suffix}"
    short = ["--transfer", "linear", "--preset", "best", "--num_epochs", 1, "--accelerator", "cpu", "--exp_name", "own"]
    np.save(path, values) if suffix == ".npy" else cv2.imwrite(str(path), values)
    found, transfer = read(path, Reading("linear"))
    assert transfer == Transfer("linear", 100.0, 1897.0, "uint16")
    assert np.array_equal(found[..., 0], values)
    assert command("train.py", "--path", path, *short).status == 0
    back = command(
        "reconstruct.py", tmp_path / "ckpts" / "own", "--out", tmp_path / f"back{suffix}", "--original", path
    )
    assert (back.status, "PSNR" in back.out) == (0, True)
    written = np.load(tmp_path / "back.npy") if suffix == ".npy" else cv2.imread(str(tmp_path / f"back{suffix}"), -1)
    assert written.dtype == np.uint16
    assert 100 <= written.min() <= written.max() <= 1897


@pytest.mark.parametrize(
    ("values", "suffix", "kind"),
    [
        (LIGHT, ".exr", "log"),
        (np.linspace(0, 1, 600).reshape(20, 30), ".npy", "linear"),
        (np.linspace(-50, 4000, 600).reshape(20, 30), ".npy", "linear"),
        (np.geomspace(0.1, 900, 600).reshape(20, 30), ".npy", "log"),
        (np.geomspace(1e-6, 1e6, 600).reshape(20, 30), ".npy", "pq"),
        (np.eye(200), ".tif", "linear"),
        (np.full((20, 30), 7.0), ".npy", "linear"),
        (np.where(np.arange(20_000) == 7, 9e5, 1.0).reshape(100, 200), ".npy", "pq"),
    ],
    ids=["light", "even", "heights", "range", "extreme range", "mask", "constant", "sun"],
)
def test_the_transfer_suits_the_values(tmp_path, values, suffix, kind):
    WRITERS[suffix](tmp_path / f"x{suffix}", values.astype(np.float32))
    assert open_picture(tmp_path / f"x{suffix}").transfer.kind == kind


@pytest.mark.parametrize("suffix", WRITERS)
def test_values_that_are_not_finite_are_counted(command, tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    values = GREY.astype(np.float32)
    values[3, :5], values[8, 9], values[9, 9] = np.nan, np.inf, -np.inf
    WRITERS[suffix](tmp_path / f"x{suffix}", values)
    refused = command("train.py", "--path", f"x{suffix}")
    assert is_one_line(refused.error)
    assert f"x{suffix} holds values that are not finite (5 NaN, 2 infinite); add --nodata" in refused.error
    source = open_picture(tmp_path / f"x{suffix}", reading=Reading("linear", nodata=True))
    assert "(5 NaN, 2 infinite); they are taken for the lowest one, 0.01" in source.notes[0]
    assert (source.read(3, 4)[0, 0, :5] == 0).all()


def test_a_file_of_nothing_but_nan_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.full((4, 5), np.nan))
    with pytest.raises(InputError, match="none of its values is a finite number"):
        open_picture(tmp_path / "x.npy", reading=Reading(nodata=True))


@pytest.mark.parametrize("option", [["--transfer", "log"], ["--nodata"]])
def test_plain_pixels_and_meshes_need_no_transfer(command, tmp_path, option):
    for path in (ASTRONAUT, ROOT / "meshes" / "spot.obj"):
        refused = command("train.py", "--path", path, *option)
        assert is_one_line(refused.error)
        assert f"{' '.join(option)}: " in refused.error
        assert "leave it out" in refused.error


def test_the_option_knows_every_transfer():
    for kind in KINDS:
        assert make_parser().parse_args(["--transfer", kind]).transfer == kind


def test_damaged_and_strange_files_are_one_line(tmp_path):
    write_exr(tmp_path / "x.exr", LIGHT)
    for path in (tmp_path / "x.exr", FOREST):
        whole = path.read_bytes()
        for length in (20, 100, 300, len(whole) - 200):
            (tmp_path / f"cut{path.suffix}").write_bytes(whole[:length])
            with pytest.raises(InputError, match="cut"):
                open_picture(tmp_path / f"cut{path.suffix}")
    (tmp_path / "huge.hdr").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 999999 +X 999999\n1234")
    with pytest.raises(InputError, match=r"huge\.hdr"):
        open_picture(tmp_path / "huge.hdr")
    names = {name: np.zeros((4, 5), np.float32) for name in ("u", "v")}
    OpenEXR.File({"type": OpenEXR.scanlineimage}, names).write(str(tmp_path / "flow.exr"))
    with pytest.raises(InputError, match="channels u, v; use R, G and B, or a single one"):
        open_picture(tmp_path / "flow.exr")


def test_alpha_of_floating_point_numbers_is_left_out_with_a_note(tmp_path):
    values = np.dstack([LIGHT, np.ones((20, 31))]).astype(np.float32)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    names = {name: np.ascontiguousarray(values[..., place]) for place, name in enumerate("RGBA")}
    OpenEXR.File({"type": OpenEXR.scanlineimage}, names).write(str(tmp_path / "x.exr"))
    for suffix in (".tif", ".exr"):
        source = open_picture(tmp_path / f"x{suffix}")
        assert source.n_channels == 3
        assert any("left out" in note for note in source.notes)


def test_arrays_in_files_are_pictures_by_their_shape(tmp_path):
    path = tmp_path / "x.npy"
    for shape, dtype, task in [
        ((20, 31), np.float32, "image"),
        ((20, 31, 3), np.int16, "image"),
        ((20, 31, 7), np.float32, "image"),
        ((20, 31, 2), np.uint16, "image"),
        ((70, 80, 64), np.float16, "image"),
        ((70, 80, 65), np.float16, "volume"),
        ((7, 20, 31), np.float32, "volume"),
        ((20, 31, 20), np.float32, "volume"),
        ((20, 31, 3), np.uint8, "image"),
        ((20, 31, 7), np.uint8, "mesh"),
        ((4, 5, 3), np.float32, "volume"),
        ((20, 31, 7), bool, "mesh"),
        ((20, 31), bool, "mesh"),
        ((400,), np.uint8, "mesh"),
    ]:
        np.save(path, np.zeros(shape, dtype))
        assert task_of_file(str(path)) == task
    assert task_of_file(str(tmp_path / "absent.npy")) == "mesh"


def test_levels_in_files_are_kept_by_the_transfer(tmp_path):
    for kind in ("log", "pq"):
        source = open_picture(FOREST, reading=Reading(kind))
        write_levels(source, 2, tmp_path)
        assert map_levels(source, 2, tmp_path).crc32 == read_levels(source, 2).crc32


def test_a_resized_picture_has_the_transfer_of_the_whole():
    whole = open_picture(FOREST)
    assert open_picture(FOREST, (48, 64)).transfer == whole.transfer


def mu_law_psnr(found, truth):
    """Of two pictures of light, from its definition."""
    found, truth = (
        np.log(1 + MU * values.astype(np.float64) / truth.max()) / np.log(1 + MU) for values in (found, truth)
    )
    return -10 * math.log10(((found - truth) ** 2).mean())


def test_a_fit_tells_both_qualities_and_comes_back_in_every_format(command, forest_run, tmp_path):
    truth = cv2.imread(str(FOREST), cv2.IMREAD_UNCHANGED)[..., ::-1]
    report = json.loads((forest_run / "metrics.json").read_text())
    model = MINER.load(forest_run)
    assert model.transfer == Transfer("log", 0.0, float(truth.max()), "float32")
    found = model.transfer.decode(model.decode().permute(1, 2, 0).numpy())
    assert report["psnr"] > 30
    assert report["mu_law_psnr"] == pytest.approx(mu_law_psnr(found, truth), abs=1e-3)
    encoded = torch.from_numpy(model.transfer.encode(truth)).permute(2, 0, 1)
    assert report["psnr"] == pytest.approx(-10 * math.log10((model.decode() - encoded).square().mean()), abs=1e-2)
    for suffix, tolerance in ((".exr", 0), (".tif", 0), (".npy", 0), (".zarr", 0), (".hdr", 1 / 128)):
        path = tmp_path / f"back{suffix}"
        outcome = command("reconstruct.py", forest_run, "--out", path, "--original", FOREST)
        assert outcome.status == 0, outcome.error
        assert f"PSNR : {report['psnr']:.4f} dB\nmu-law PSNR : {report['mu_law_psnr']:.4f} dB\nSSIM" in outcome.out
        assert "those of the encoded values (log)" in outcome.error
        back = read_whole(path)
        assert back.dtype == np.float32
        assert (abs(back - found) <= tolerance * found.max(axis=2, keepdims=True)).all()


def read_whole(path):
    """A picture (h, w, c), by a library of its own format."""
    if path.suffix == ".exr":
        return OpenEXR.File(str(path)).channels()["RGB"].pixels
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".zarr":
        return zarr.open_array(path)[:]
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 16), (".jpg", 8)])
def test_other_pictures_of_it_hold_the_encoded_values(command, forest_run, tmp_path, suffix, bits):
    path = tmp_path / f"back{suffix}"
    outcome = command("reconstruct.py", forest_run, "--out", path)
    assert outcome.status == 0, outcome.error
    assert outcome.error == f"note: {path}: holds the encoded values (log), of {bits} bits\n"
    source = open_picture(path)
    assert (source.bits, source.transfer) == (bits, None)
    values = torch.from_numpy(source.read(0, 96) / (2.0**bits - 1))
    assert (values - MINER.load(forest_run).decode()).abs().mean() < 0.02


def test_the_packed_file_keeps_the_transfer(command, forest_run, tmp_path):
    packed = forest_run / "small.miner"
    assert MINER.load(packed).transfer == MINER.load(forest_run).transfer
    for name, where in (("a.npy", forest_run), ("b.npy", packed)):
        assert command("reconstruct.py", where, "--out", tmp_path / name).status == 0
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


def test_a_fit_is_compared_with_what_was_fitted_alone(command, forest_run, small_run, tmp_path):
    write_rows(tmp_path / "plain.png", [torch.zeros(3, 96, 128)], 3, (96, 128), 16)
    refused = command("reconstruct.py", forest_run, "--original", tmp_path / "plain.png")
    assert is_one_line(refused.error)
    assert "plain pixels, and the fit float32 values" in refused.error
    np.save(tmp_path / "values.npy", np.ones((75, 100, 3), np.float32))
    assert "holds no plain pixels" in command("reconstruct.py", small_run, "--original", tmp_path / "values.npy").error
    refused = command("reconstruct.py", small_run, "--out", tmp_path / "x.exr")
    assert is_one_line(refused.error)
    assert "OpenEXR holds floating point numbers, not 8 bits; write .png or .tif" in refused.error


def test_a_run_that_is_resumed_is_the_same_and_its_transfer_may_not_change(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = [*FIT, "--input_size", 64, 48, "--n_scales", 2, "--num_epochs", 5, 8, "--exp_name"]
    assert command("train.py", *short, "small").status == 0
    options = (tmp_path / "ckpts" / "small" / "options.yaml").read_text()
    assert "transfer: log" in options
    assert "nodata" not in options
    assert command("train.py", *short, "again", "--max_seconds", 1e-3).status == 0
    assert command("train.py", *short, "again", "--resume").status == 0
    whole, resumed = (
        {name: MINER.load(tmp_path / "ckpts" / one).decode() for name in "x"} for one in ("small", "again")
    )
    assert torch.equal(whole["x"], resumed["x"])
    assert len(checkpoints(tmp_path)) == 2
    refused = command("train.py", *short, "small", "--resume", "--transfer", "pq")
    assert is_one_line(refused.error)
    assert "--transfer: use the same" in refused.error


def test_plain_pictures_record_no_transfer(small_run):
    model = MINER.load(small_run)
    assert model.transfer is None
    assert model.source.keys() == {"bits", "crc32"}
    assert "transfer" not in (small_run / "options.yaml").read_text()
    assert "mu_law_psnr" not in json.loads((small_run / "metrics.json").read_text())


@pytest.mark.parametrize(
    "transfer", [{}, None, "log", {"kind": "log"}, {"kind": "log", "low": 2.0, "high": 1.0, "dtype": "float32"}]
)
def test_a_record_that_can_be_no_transfer_is_refused(transfer):
    run = {"n_scales": 1, "n_channels": 1, "size": [4, 4], "source": {"bits": 16, "transfer": transfer}}
    with pytest.raises((TypeError, ValueError)):
        checked_run(run)


def test_arrays_of_any_range_are_fitted_where_the_transfer_is_said():
    values = np.linspace(-7, 90, 40 * 50).reshape(40, 50)
    with pytest.raises(InputError, match="transfer='linear'"):
        array_source(values)
    model = fit(values, transfer="linear", quality="draft", quiet=True)
    assert model.transfer == Transfer("linear", -7.0, 90.0, "float32")
    np.testing.assert_allclose(model.transfer.decode(model.decode()[0].numpy()), values, atol=2)


def test_every_format_of_values_can_be_written():
    assert {suffix for format in formats.FORMATS if format.types for suffix in format.suffixes} == {
        *(".tif", ".tiff", ".zarr", ".npy", ".exr", ".hdr")
    }
