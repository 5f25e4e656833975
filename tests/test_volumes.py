"""Volumes of values: their formats, their fits against an analytic field, and what comes back."""

import gzip
import json
import sys

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

import train
from datasets.tasks import task_of_file
from datasets.volumes import format_of, open_volume
from decoding.values import affine_of
from models.miner import MINER
from training import run
from utils.errors import InputError
from utils.metrics import ssim

nibabel = pytest.importorskip("nibabel")

AFFINE = np.array([[0.5, 0.1, 0, -20], [-0.1, 0.5, 0, 7], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])
SIZE = (20, 34, 27)
FIT = ["--preset", "best", "--n_scales", "2", "--num_epochs", "15", "30", "--accelerator", "cpu", "--quiet"]


def field(peak=255, dtype=np.uint8):
    """Two smooth blobs in a slope, (d, h, w) with integers up to a peak."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    blobs = sum(
        np.exp(-8 * ((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2)) for a, b, c in ((0, 0.3, 0), (0.2, -0.4, 0.5))
    )
    return np.rint(peak * (0.7 * blobs + 0.15 * (x + 1))).clip(0, peak).astype(dtype)


def write_nifti(path, values, affine=AFFINE, scaling=None):
    image = nibabel.Nifti1Image(np.asarray(values).T, affine)
    image.header.set_slope_inter(*(scaling or (1, 0)))
    nibabel.save(image, path)


def write_folder(path, values):
    path.mkdir()
    for number, plane in enumerate(values):  # 10 comes after 9, as numbers do
        Image.fromarray(plane).save(path / f"slice{number}.png")


WRITERS = {
    "v.npy": np.save,
    "v.nii": write_nifti,
    "v.nii.gz": write_nifti,
    "v.tif": lambda path, values: tifffile.imwrite(path, values, photometric="minisblack"),
    "zlib.tif": lambda path, values: tifffile.imwrite(path, values, photometric="minisblack", compression="zlib"),
    "imagej.tif": lambda path, values: tifffile.imwrite(path, values, imagej=True, metadata={"axes": "ZYX"}),
    "slices": write_folder,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_format_gives_the_values_as_they_are(tmp_path, name, dtype):
    values = field(np.iinfo(dtype).max, dtype)
    WRITERS[name](tmp_path / name, values)
    source = open_volume(tmp_path / name, SIZE)
    assert (source.size, source.n_channels, source.bits) == (SIZE, 1, 8 * values.itemsize)
    read = np.concatenate([source.read(0, 7), source.read(7, 20)], axis=1)
    assert read.dtype == dtype
    back = read[0] if source.transfer is None else source.transfer.decode(read[0] / (2**16 - 1))
    assert back.dtype == dtype
    assert np.array_equal(back, values)
    assert (np.allclose(source.affine, AFFINE)) if ".nii" in name else source.affine is None


def test_numbers_of_12_bits_fill_the_16_of_their_type(tmp_path):
    values = field(4095, np.uint16)
    np.save(tmp_path / "12.npy", values)
    source = open_volume(tmp_path / "12.npy")
    assert (source.transfer.low, source.transfer.high) == (values.min(), values.max())
    numbers = source.read(0, SIZE[0])
    assert (numbers.min(), numbers.max()) == (0, 2**16 - 1)


@pytest.mark.parametrize(("name", "dtype"), [("v.npy", "<i2"), ("v.npy", "<f2"), ("v.npy", ">f4"), ("v.nii", "<i2")])
def test_other_values_lie_between_the_lowest_and_the_highest(tmp_path, name, dtype):
    values = (field(2000, np.int16) - 700).astype(dtype)
    WRITERS[name](tmp_path / name, values)
    source = open_volume(tmp_path / name)
    assert (source.bits, source.transfer.low, source.transfer.high) == (16, values.min(), values.max())
    back = source.transfer.decode(source.read(0, SIZE[0])[0] / (2**16 - 1))
    assert back.dtype == values.dtype.newbyteorder("=")
    assert np.abs(back.astype(float) - values).max() <= (0 if "i" in dtype else 1)


@pytest.mark.parametrize(
    ("name", "values", "task"),
    [
        ("a.npy", field(), "volume"),
        ("a.npy", field().astype(np.float32), "volume"),
        ("a.npy", field() > 99, "mesh"),
        ("a.npy", (field() > 99).astype(np.uint8), "mesh"),
        ("a.npy", field().ravel(), "mesh"),
        ("slices", field(), "volume"),
        ("v.tif", field(), "image"),  # of several pages: the first, unless --task says otherwise
    ],
)
def test_the_file_tells_what_it_holds(tmp_path, name, values, task):
    WRITERS.get(name, np.save)(tmp_path / name, values)
    assert task_of_file(str(tmp_path / name)) == task


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A folder with a volume in NIfTI, its fit, and the packed file of that."""
    folder = tmp_path_factory.mktemp("head")
    write_nifti(folder / "head.nii.gz", field())
    fit_in(folder, "--path", "head.nii.gz", "--pack")
    return folder


def fit_in(folder, *options):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *FIT, *options])
        train.cli()


def psnr_of(values, truth, peak):
    return -10 * np.log10(np.mean((np.asarray(values, float) - truth) ** 2) / peak**2)


def test_a_fit_is_as_near_as_its_metrics_say(head):
    model, metrics = MINER.load(head / "ckpts/head"), json.loads((head / "ckpts/head/metrics.json").read_text())
    reached = psnr_of(model.decode()[0], field() / 255, 1)
    assert reached > 38
    assert metrics["psnr"] == pytest.approx(reached, abs=1e-3)
    planes = zip(model.decode()[0], torch.from_numpy(field() / 255).float(), strict=True)
    assert metrics["ssim"] == pytest.approx(np.mean([ssim(one[None], other[None]) for one, other in planes]), abs=1e-5)
    assert "iou" not in metrics
    assert model.source["bits"] == 8
    assert np.allclose(model.source["affine"], AFFINE)


def test_the_packed_file_is_the_same_fit(head):
    model, packed = MINER.load(head / "ckpts/head"), MINER.load(head / "ckpts/head/head.miner")
    assert torch.equal(model.decode(), packed.decode())
    assert packed.source == model.source


@pytest.mark.parametrize("suffix", [".npy", ".nii", ".nii.gz", ".tif"])
def test_a_volume_comes_back_in_the_values_of_its_file(head, command, monkeypatch, suffix):
    monkeypatch.chdir(head)
    decoded = MINER.load("ckpts/head").decode()[0].numpy() * 255
    done = command("reconstruct.py", "ckpts/head", "--out", f"back{suffix}", "--original", "head.nii.gz")
    assert done.status == 0, done.error
    source = open_volume(f"back{suffix}")
    back = source.read(0, SIZE[0])[0]
    assert source.bits == 8
    assert np.abs(back - decoded).max() <= 0.5001
    told = float(done.out.split("PSNR : ")[1].split()[0])
    assert told == pytest.approx(json.loads((head / "ckpts/head/metrics.json").read_text())["psnr"], abs=1e-3)
    if "nii" in suffix:
        assert np.allclose(nibabel.load(f"back{suffix}").affine, AFFINE)


def test_a_crop_of_a_level_lies_where_its_voxels_do(head, command, monkeypatch):
    monkeypatch.chdir(head)
    crop = ["--level", 1, "--crop", 3, 5, 2, 8, 7, 6, "--original", "head.nii.gz"]
    assert command("reconstruct.py", "ckpts/head", "--out", "part.nii", *crop).status == 0
    part = nibabel.load("part.nii")
    assert part.shape == (8, 7, 6)
    corner = AFFINE @ [6.5, 10.5, 4.5, 1]  # between voxels 6 and 7 along x, 10 and 11 along y, 4 and 5 along z
    assert np.allclose(part.affine @ [0, 0, 0, 1], corner)
    assert np.allclose(part.affine[:3, :3], 2 * AFFINE[:3, :3])
    assert np.allclose(
        affine_of(np.eye(4), 0, ((0, 9), (0, 9), (4, 9)), 2) @ np.array([0, 0, 0, 1]), [3.75, -0.25, -0.25, 1]
    )


def test_a_fit_that_was_stopped_and_resumed_leaves_the_same_bytes(tmp_path, head, monkeypatch):
    write_nifti(tmp_path / "head.nii.gz", field())
    options, save_part = ("--path", "head.nii.gz", "--pack", "--max_blocks", "1"), run.save_part

    def save_and_stop(folder, first, record):
        save_part(folder, first, record)
        if record["level"] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "save_part", save_and_stop)
    with pytest.raises(SystemExit):
        fit_in(tmp_path, *options)
    monkeypatch.undo()
    assert not (tmp_path / "ckpts/head/l1.ckpt").exists()
    fit_in(tmp_path, *options, "--resume")
    for name in ("l0.ckpt", "l1.ckpt", "head.miner"):
        assert (tmp_path / "ckpts/head" / name).read_bytes() == (head / "ckpts/head" / name).read_bytes(), name


def test_values_of_other_types_come_back_as_they_were(tmp_path, command, monkeypatch):
    values = field(3000, np.int16) - 1000
    write_nifti(tmp_path / "ct.nii", values, scaling=(2.0, -5.0))
    fit_in(tmp_path, "--path", "ct.nii")
    monkeypatch.chdir(tmp_path)
    assert command("reconstruct.py", "ckpts/ct", "--out", "back.nii.gz").status == 0
    back = nibabel.load("back.nii.gz")
    assert (back.get_data_dtype(), back.dataobj.slope, back.dataobj.inter) == (np.int16, 2, -5)
    reached = json.loads((tmp_path / "ckpts/ct/metrics.json").read_text())["psnr"]
    assert psnr_of(back.dataobj.get_unscaled().T, values, float(np.ptp(values))) == pytest.approx(reached, abs=0.05)


def mixed(path):
    write_folder(path, field())
    Image.fromarray(field()[0, :-1]).save(path / "slice3.png")


def cut_short(path):
    path.write_bytes(gzip.compress(b"n+1" * 50))


def nan(path):
    values = field().astype(np.float32)
    values[1, 2, 3:5] = np.nan
    np.save(path, values)


def no_size(path):
    write_nifti(path, field())
    data = bytearray(path.read_bytes())
    data[42:48] = np.array([-5, 3, 3], "<i2").tobytes()  # dim
    path.write_bytes(data)


def vast(path):
    zarr.create_array(path, shape=(99999,) * 3, dtype="f4", chunks=(64,) * 3)


def pages(path):
    with tifffile.TiffWriter(path) as file:
        file.write(field()[0])
        file.write(field()[0, :9])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("mixed", mixed, "slice3.png is 27x33 pixels of 1 x uint8, and slice0.png 27x34 pixels of 1 x uint8; use"),
        ("empty", lambda path: path.mkdir(), "is a folder without slices; use one of .png"),
        ("bad.nii.gz", cut_short, "is not a readable NIfTI file"),
        ("nan.npy", nan, "not finite (2 NaN); add --nodata"),
        ("pages.tif", pages, "page 2 is 27x9 uint8, and the first 27x34 uint8; use pages of one kind"),
        (
            "flat.npy",
            lambda path: np.save(path, field().ravel()),
            "a volume is (d, h, w), (c, d, h, w) or (",
        ),
        ("bits.npy", lambda path: np.save(path, field() > 9), "holds the voxels of a mesh; leave --task out"),
        ("long.npy", lambda path: np.save(path, field().astype(int)), "holds int64 values; use integers of up to 32"),
        ("bits.tif", lambda path: tifffile.imwrite(path, field() > 9), "holds bool values; use integers of up to 32"),
        ("none.nii", no_size, "is of shape (-5, 3, 3), and so has no values; use another one"),
        ("vast.zarr", vast, "is 99999x99999x99999: its levels take"),
        ("x.vtk", lambda path: path.write_bytes(b"# vtk"), "suffix '.vtk' cannot hold a volume; use one of .npy"),
        (
            "4d.nii",
            lambda path: write_nifti(path, np.stack([field()] * 2)),
            "choose one from 1 to 2 by --time, or",
        ),
    ],
)
def test_what_is_no_volume_is_refused_in_one_line(tmp_path, command, monkeypatch, name, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    done = command("train.py", "--path", name, "--task", "volume")
    assert message in done.error
    assert str(done.status).startswith("error: ")
    assert "\n" not in str(done.status)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--path", "head.nii.gz", "--target_iou", "0.9"], "a volume of values has --target_psnr"),
        (["--path", "spot.obj", "--task", "volume"], "--task volume: spot.obj is a mesh; leave it out"),
        (["--path", "head.nii.gz", "--input_size", "8", "--exp_name", "x"], "27x34x20 voxels, not 8x8x8; volumes are"),
    ],
)
def test_options_that_do_not_go_with_a_volume_are_refused(head, command, monkeypatch, options, message):
    monkeypatch.chdir(head)
    done = command("train.py", *options)
    assert message in done.error
    assert str(done.status).startswith("error: ")
    assert "\n" not in str(done.status)


def test_nifti_without_its_package_says_what_to_install(head, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match="needs the package nibabel; pip install nibabel"):
        open_volume(head / "head.nii.gz")
    assert format_of(head / "head.nii.gz").name == "NIfTI"
