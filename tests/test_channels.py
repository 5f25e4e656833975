"""Pictures of 2 to 64 channels: read, fitted, measured and written, with their place on a map."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from helpers import is_one_line, kernel_problem, start_training, worst_error

from datasets.arrays import array_source
from datasets.formats.chunks import picture_axes
from datasets.sources import open_picture
from datasets.tasks import TASKS, task_of_file
from datasets.writers import write_rows
from models.miner import MINER
from models.ops import fused_cpu, reference
from models.ops.optimizers import make_optimizer
from models.packed.file import PackedFile
from models.packed.ranges import open_ranges
from models.shape import NetworkShape
from utils.channels import n_colours, n_shown
from utils.errors import InputError, KernelError
from utils.georeference import Georeference
from utils.metrics import picture_metrics, psnr, psnr_of, psnr_of_channel, ssim
from utils.rng import point_order
from utils.transfer import Transfer
from viewing.images import fit_picture

SIZE = (45, 70)
AREA = Georeference(
    pixel_scale=[10.0, 20.0, 0.0],
    tiepoints=[0.0, 0.0, 0.0, 500000.0, 4100000.0, 0.0],
    keys=[1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 1026, 34737, 20, 0],
    text="WGS 84 / UTM zone 32|",
    nodata="0",
)
POINT = replace(AREA, keys=[*AREA.keys[:11], 2, *AREA.keys[12:]])
MATRIX = Georeference(transformation=[8.0, -6.0, 0, 100.0, 6.0, 8.0, 0, 200.0, 0, 0, 1, 0, 0, 0, 0, 1], keys=AREA.keys)


def pixels_of(n_channels: int, dtype: type = np.uint8, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Waves, other ones in each channel: (h, w, c)."""
    y, x, c = np.mgrid[: size[0], : size[1], :n_channels]
    waves = 0.5 + 0.45 * np.sin(0.1 * y * (1 + c / 5) + 0.07 * x + c)
    return (waves * np.iinfo(dtype).max).round().astype(dtype)


def map_places(georeference: Georeference, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """x and y on the map of the centres of some pixels."""
    shift = 0 if georeference.keys[11] == 2 else 0.5
    raster = np.stack([columns + shift, rows + shift])
    if georeference.transformation:
        matrix = np.reshape(georeference.transformation, (4, 4))
        return matrix[:2, :2] @ raster + matrix[:2, 3:]
    i, j, _, x, y, _ = georeference.tiepoints
    across, down = (raster[0] - i) * georeference.pixel_scale[0], (raster[1] - j) * georeference.pixel_scale[1]
    return np.stack([x + across, y - down])


def write_tiff(path: Path, pixels: np.ndarray, planes: bool = False, **settings) -> None:
    settings = dict(photometric="minisblack") | settings
    pixels = pixels.transpose(2, 0, 1) if planes else pixels
    tifffile.imwrite(path, pixels, planarconfig="separate" if planes else "contig", **settings)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("settings", [{}, {"tile": (32, 32), "compression": "zlib"}, {"rowsperstrip": 7}], ids=str)
@pytest.mark.parametrize("n_channels", [2, 4, 8, 64])
def test_tiff_of_many_channels_is_read_by_windows(tmp_path, n_channels, settings, planes, dtype):
    pixels = pixels_of(n_channels, dtype)
    write_tiff(tmp_path / "x.tif", pixels, planes, **settings)
    source = open_picture(tmp_path / "x.tif")
    assert (source.size, source.n_channels, source.bits) == (SIZE, n_channels, 8 * pixels.itemsize)
    assert source.spectral
    assert np.array_equal(source.read(3, 40), pixels.transpose(2, 0, 1)[:, 3:40])
    assert open_picture(tmp_path / "x.tif", (20, 30)).read(0, 20).shape == (n_channels, 20, 30)


@pytest.mark.parametrize(
    ("n_samples", "settings", "n_channels", "spectral"),
    [
        (2, {"extrasamples": ["unassalpha"]}, 4, False),
        (2, {}, 2, True),
        (3, {"extrasamples": ["unspecified"] * 2}, 3, False),
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, 4, False),
        (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}, 4, False),
        (
            4,
            {"photometric": "rgb", "extrasamples": ["unspecified"], "extratags": [(34735, 3, 4, [1, 1, 0, 0])]},
            4,
            True,
        ),
        (4, {"extrasamples": ["unspecified"] * 3}, 4, True),
        (4, {"extrasamples": ["unspecified"] * 2 + ["unassalpha"]}, 4, False),
        (5, {"photometric": "rgb", "extrasamples": ["unspecified", "unassalpha"]}, 5, True),
    ],
)
def test_alpha_is_what_the_file_calls_so(tmp_path, n_samples, settings, n_channels, spectral):
    write_tiff(tmp_path / "x.tif", pixels_of(n_samples), **settings)
    source = open_picture(tmp_path / "x.tif")
    assert (source.n_channels, source.spectral) == (n_channels, spectral)
    assert n_colours(n_channels, spectral) == (3 if n_channels == 4 and not spectral else n_channels)
    assert n_shown(n_channels, spectral) == (n_channels if not spectral else 3 if n_channels > 2 else 1)


def test_the_channels_of_an_array_are_its_colours_or_its_shorter_end(tmp_path):
    shapes = [(45, 70, 8), (8, 45, 70), (8, 70, 3), (4, 45, 8), (99, 70, 64), (70, 80, 65), (0, 45, 70), (5, 5, 5)]
    assert [picture_axes(shape) for shape in shapes] == ["YXS", "SYX", "YXS", "SYX", "YXS", None, "SYX", "YXS"]
    pixels = pixels_of(12, np.uint16)
    for given in (pixels, pixels.transpose(2, 0, 1), torch.from_numpy(pixels / np.float32(65535))):
        source = array_source(given)
        assert source.spectral
        assert np.array_equal(source.read(0, SIZE[0]), pixels.transpose(2, 0, 1))
    zarr.create_array(tmp_path / "x.zarr", data=pixels, chunks=(16, 16, 5))
    source = open_picture(tmp_path / "x.zarr")
    assert source.spectral
    assert np.array_equal(source.read(0, SIZE[0]), pixels.transpose(2, 0, 1))
    assert not array_source(pixels[..., :4]).spectral, "RGBA, as ever"


def mixed(path: Path) -> None:
    """A file that says 16 bits of one channel of eight."""
    write_tiff(path, pixels_of(8))
    at = tifffile.TiffFile(path).pages[0].tags["BitsPerSample"].valueoffset
    data = bytearray(path.read_bytes())
    data[at + 2] = 16
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: write_tiff(path, pixels_of(65)), "has 65 channels; choose at most 64"),
        (mixed, "has channels of 8, 16 bits; give all of them the same"),
        (lambda path: zarr.create_array(path, data=np.zeros((0, 45, 70), np.uint8)), r"shape \(0, 45, 70\); use"),
    ],
)
def test_bad_channels_are_errors_of_one_line(tmp_path, make, message):
    make(tmp_path / "x.tif")
    with pytest.raises(InputError, match=message) as error:
        open_picture(tmp_path / "x.tif")
    assert is_one_line(str(error.value))


@pytest.mark.parametrize(("suffix", "n_channels"), [("tif", 2), ("tif", 4), ("tif", 9), ("zarr", 2), ("zarr", 9)])
def test_many_channels_come_back_as_they_went(tmp_path, suffix, n_channels):
    pixels = pixels_of(n_channels, np.uint16)
    values = torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(65535))
    path = tmp_path / f"x.{suffix}"
    write_rows(path, values.split(13, dim=1), n_channels, SIZE, 16, spectral=True)
    source = open_picture(path)
    assert (source.n_channels, source.spectral) == (n_channels, True)
    assert np.array_equal(source.read(0, SIZE[0]), pixels.transpose(2, 0, 1))
    with pytest.raises(InputError, match=f"PNG holds grey and colour pictures, not {n_channels} channels"):
        write_rows(tmp_path / "x.png", [values], n_channels, SIZE, 16, spectral=True)


@pytest.mark.parametrize("place", [AREA, POINT, MATRIX], ids=["area", "point", "matrix"])
@pytest.mark.parametrize(
    ("corner", "size"), [((0, 0), (1, 1)), ((7, 12), (1, 1)), ((8, 4), (4, 4)), ((0, 0), (0.5, 3))]
)
def test_a_window_lies_where_its_pixels_lie(place, corner, size):
    """The centre of a pixel of the window is the middle of the pixels that it spans."""
    rows, columns = np.array([0.0, 3.0, 5.0]), np.array([1.0, 2.0, 9.0])
    whole_rows, whole_columns = (
        start + (index + 0.5) * step - 0.5 for start, index, step in zip(corner, (rows, columns), size, strict=True)
    )
    here = map_places(place.window(corner, size), rows, columns)
    np.testing.assert_allclose(here, map_places(place, whole_rows, whole_columns), rtol=1e-12)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([(33550, 12, 2, [1.0, 2.0]), (34735, 3, 4, [1, 1, 0, 0])], None),
        ([(33550, 12, 3, [1.0, np.nan, 0.0])], None),
        ([(34737, 2, 0, b"gr\xfcn")], None),
        ([(34736, 12, 1, [6378137.0])], Georeference(doubles=[6378137.0])),
    ],
    ids=["short", "nan", "text", "one"],
)
def test_a_damaged_place_leaves_the_pixels(tmp_path, tags, expected):
    pixels = pixels_of(3)
    write_tiff(tmp_path / "x.tif", pixels, photometric="rgb", extratags=[(*tag, True) for tag in tags])
    source = open_picture(tmp_path / "x.tif")
    assert source.georeference == expected
    assert np.array_equal(source.read(0, SIZE[0]), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".zarr"])
@pytest.mark.parametrize("n_channels", [2, 4, 8])
def test_floating_point_channels_are_read_and_written_back(tmp_path, n_channels, suffix):
    values = (pixels_of(n_channels, np.uint16) / 100).astype(np.float32)
    written = tmp_path / "x.tif" if suffix == ".tif" else tmp_path / "x.npy"
    if suffix == ".tif":
        write_tiff(written, values, planes=True)
    else:
        np.save(written, values)
    assert task_of_file(str(written)) == "image"
    source = open_picture(written)
    assert (source.size, source.n_channels, source.spectral, source.transfer.kind) == (SIZE, n_channels, True, "linear")
    described = TASKS["image"].describe(source)
    assert described == {"bits": 16, "transfer": source.transfer.record(), "spectral": True}
    rows = torch.from_numpy(source.read(0, SIZE[0]) / np.float32(65535))
    path = tmp_path / f"y{suffix}"
    write_rows(path, [rows], n_channels, SIZE, 16, source.transfer, spectral=True)
    again = open_picture(path)
    assert (again.n_channels, again.spectral) == (n_channels, True)
    assert again.transfer.low == pytest.approx(source.transfer.low, abs=0.01)
    assert np.abs(again.read(0, SIZE[0]).astype(int) - source.read(0, SIZE[0])).max() <= 1
    with pytest.raises(InputError, match="OpenEXR holds grey and colour pictures"):
        write_rows(tmp_path / "x.exr", [rows], n_channels, SIZE, 16, source.transfer, spectral=True)


def test_the_mu_law_counts_all_spectral_channels():
    signal = torch.rand(4, 20, 30, generator=torch.Generator().manual_seed(0))
    other = signal.clone()
    other[3] *= 0.9
    transfer = Transfer("log", 0.0, 7.0, "float32")
    of_colours, of_all = (picture_metrics(transfer, spectral)[1](other, signal) for spectral in (False, True))
    assert of_colours == torch.inf
    assert 15 < of_all < 60


def test_the_fourth_of_spectral_channels_counts():
    signal = torch.rand(4, 20, 30, generator=torch.Generator().manual_seed(0))
    other = signal.clone()
    other[3] -= 0.1
    assert psnr(other, signal) == torch.inf
    assert psnr_of(True)(other, signal) == pytest.approx(20 + 10 * np.log10(4), abs=1e-4)
    assert [psnr_of_channel(c)(other, signal) for c in (0, 3)] == [torch.inf, pytest.approx(20, abs=1e-4)]
    assert ssim(other, signal) == 1


@pytest.mark.parametrize(
    ("n_out", "output"),
    [(2, "sigmoid"), (5, "sine"), (8, "sine"), (16, "sigmoid"), (33, "sine"), (64, "sine")],
)
def test_the_kernel_of_a_cpu_has_as_many_outputs_as_there_are_channels(n_out, output):
    """As near to the definition, in double precision, as the reference comes; test_fused_cpu.py tells more."""
    case = (112, 48, 3, NetworkShape(n_in=16, n_out=n_out, n_layers=3, n_hidden=9, output=output))
    results = {}
    for name, backend in (("truth", reference), ("plain", reference), ("fused", fused_cpu)):
        network, coords, target = kernel_problem(case)
        if name == "truth":
            network, coords, target = network.double(), coords.double(), target.double()
        optimizer = make_optimizer(network, 3e-2)
        order, lr = point_order(2, 1, range(2), len(coords)), torch.tensor([3e-2, 1e-2])
        losses = backend.fit_points(network, optimizer, coords, target, order, case[1], lr)
        backend.fit_last_layer(network, coords, target)
        predicted = backend.predict(network, slice(None), coords)
        results[name] = [losses.T, predicted, *network.parameters()]
    for truth, plain, fused in zip(*results.values(), strict=True):
        assert worst_error(fused, truth.double()) < 5 * worst_error(plain, truth.double()) + 1e-5


def test_the_kernel_of_a_gpu_says_what_is_too_wide_for_it():
    fused_cuda = pytest.importorskip("models.ops.fused_cuda")
    shape = NetworkShape(n_in=16, n_out=64, n_layers=3, n_hidden=20, output="sine")
    assert fused_cuda.prepare(shape)["p_out"] == 64
    with pytest.raises(KernelError, match="16-20-65 is too wide"):
        fused_cuda.prepare(replace(shape, n_out=65))


@pytest.fixture(scope="module")
def eight(tmp_path_factory) -> Path:
    """A GeoTIFF of eight channels in planes."""
    path = tmp_path_factory.mktemp("eight") / "eight.tif"
    pixels = pixels_of(8, size=(96, 128))
    values = torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))
    write_rows(path, [values], 8, (96, 128), 8, spectral=True, georeference=AREA)
    return path


@pytest.fixture(scope="module")
def fitted(eight) -> Path:
    """The folder of its fit by MINER_pl's command, packed."""
    sizes = ["--input_size", 128, 96, "--patch_size", 32, 32, "--batch_size", 256, "--n_scales", 2, "--num_epochs", 60]
    method = ["--task", "image", "--path", eight, "--use_pe", "--n_layers", 3]
    process = start_training(eight.parent, *method, *sizes, "--exp_name", "x", "--log_image", "--pack")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return eight.parent / "ckpts/x"


def test_a_map_of_eight_channels_is_fitted_told_and_read_back(command, eight, fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = json.loads((fitted / "metrics.json").read_text())
    errors = [10 ** (-quality / 10) for quality in report["psnr_per_channel"]]
    assert len(errors) == 8
    assert report["psnr"] == pytest.approx(-10 * np.log10(np.mean(errors)), abs=1e-3)
    assert report["psnr"] > 20
    model, packed = MINER.load(fitted), MINER.load(fitted / "x.miner")
    assert (packed.spectral, packed.source) == (True, model.source)
    assert model.georeference == AREA
    assert packed.decode().shape == (8, 96, 128)
    file = PackedFile(open_ranges(fitted / "x.miner"))
    assert file.pictures == [(48, 64)]
    assert len(file.tiles()) == 1

    shown = fit_picture(model)
    assert shown.n_channels == 3
    assert shown.read(0, ((5, 15), (0, 20))).shape == (10, 20, 3)

    outcome = command("reconstruct.py", fitted, "--out", "back.tif", "--original", eight)
    assert f"PSNR : {report['psnr']:.4f} dB" in outcome.out, outcome.error
    back = open_picture("back.tif")
    assert (back.n_channels, back.spectral, back.georeference) == (8, True, AREA)
    for arguments, corner, pixel in (
        (["--crop", 20, 10, 40, 30], (10, 20), 1),
        (["--level", 1], (0, 0), 2),
        (["--level", 1, "--crop", 4, 6, 20, 10, "--scale", 2], (12, 8), 1),
    ):
        assert command("reconstruct.py", fitted, "--out", "part.tif", *arguments).status == 0
        assert open_picture("part.tif").georeference == AREA.window(corner, (pixel, pixel))
    assert command("reconstruct.py", fitted, "--out", "deep.tif", "--bits", 16).status == 0
    assert open_picture("deep.tif").georeference == replace(AREA, nodata=None)


def test_some_channels_of_many_are_a_picture(command, fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("reconstruct.py", fitted, "--out", "some.png", "--channels", 4, 3, 8).status == 0
    some = open_picture("some.png")
    expected = (MINER.load(fitted).decode()[[3, 2, 7]] * 255).round().byte().numpy()
    assert np.array_equal(some.read(0, 96), expected)
    assert command("reconstruct.py", fitted, "--out", "blocks.png", "--blocks").status == 0
    for arguments, message in (
        (["--out", "all.png"], "PNG holds grey and colour pictures, not 8 channels"),
        (["--out", "x.png", "--channels", 9], "--channels 9: the fit has channels 1 to 8"),
    ):
        outcome = command("reconstruct.py", fitted, *arguments)
        assert outcome.status
        assert message in outcome.error
        assert is_one_line(outcome.error)
