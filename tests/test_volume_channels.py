"""Volumes of several channels, and the choice of channels and times: what is read, fitted and written back."""

import json
import sys
from functools import partial
from itertools import product

import numpy as np
import pytest
import tifffile
from helpers import stored
from PIL import Image

import train
from datasets.tasks import task_of_file
from datasets.volumes import format_of, open_volume
from miner import fit
from models.miner import MINER
from models.run import checked_run
from utils.errors import InputError
from utils.metrics import ssim
from utils.transfer import Reading

nibabel = pytest.importorskip("nibabel")

TWO = np.random.default_rng(0).integers(0, 999, (2, 5, 14, 17)).astype(np.uint16)
TIMES = np.stack([TWO, TWO + 1, TWO + 2])  # (t, c, d, h, w)
FILM = np.random.default_rng(1).integers(0, 255, (6, 14, 17, 3)).astype(np.uint8)
SIDES = [0.25, 0.5, 2.5]  # of a voxel along x, y and z


def write_nifti(path, values):
    nibabel.save(nibabel.Nifti1Image(values.T, np.diag([*SIDES, 1])), path)


def write_imagej(path, values, truncate=False):
    resolution = 1 / SIDES[0], 1 / SIDES[1]
    told = {"axes": "TZCYX", "spacing": SIDES[2], "unit": "um"}
    tifffile.imwrite(path, values.swapaxes(1, 2), imagej=True, resolution=resolution, metadata=told, truncate=truncate)


def write_ome(path, values):
    told = {f"PhysicalSize{axis}": side for axis, side in zip("XYZ", SIDES, strict=True)}
    tifffile.imwrite(path, values, ome=True, compression="zlib", metadata={"axes": "TCZYX"[-values.ndim :], **told})


def write_frames(path, frames):
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{number}.png")


def write_alpha(path, frames):
    write_frames(path, np.concatenate([frames, frames[..., :1]], axis=-1))


def read(path, **reading):
    source = open_volume(path, reading=Reading(**reading))
    return np.concatenate([stored(source, 0, 2), stored(source, 2, source.size[0])], axis=1)


@pytest.mark.parametrize(
    ("name", "write", "values", "reading", "read_back"),
    [
        ("first.npy", np.save, TWO, {}, TWO),
        ("last.npy", np.save, np.moveaxis(TWO, 0, -1), {}, TWO),
        ("film.npy", np.save, FILM, {}, np.moveaxis(FILM, -1, 0)),
        ("chosen.npy", np.save, TWO, {"channels": (2,)}, TWO[1:]),
        ("turned.npy", np.save, TWO, {"channels": (2, 1)}, TWO[::-1]),
        ("time.npy", np.save, TWO, {"time": 2}, TWO[1:]),
        ("times.npy", np.save, TIMES, {"time": 3}, TIMES[2]),
        ("all.nii.gz", write_nifti, TWO, {"time": "all"}, TWO),
        ("time.nii.gz", write_nifti, TWO, {"time": 2}, TWO[1:]),
        ("vector.nii", write_nifti, TWO[:, None], {}, TWO),
        ("imagej.tif", write_imagej, TIMES, {"time": 2}, TIMES[1]),
        ("channel.tif", write_imagej, TIMES, {"time": 1, "channels": (2,)}, TIMES[0, 1:]),
        ("large.tif", partial(write_imagej, truncate=True), TIMES, {"time": 2}, TIMES[1]),
        ("ome.tif", write_ome, TWO, {}, TWO),
        ("ome_times.tif", write_ome, TIMES, {"time": 3}, TIMES[2]),
        (
            "film.tif",
            lambda path, frames: tifffile.imwrite(path, frames, photometric="rgb"),
            FILM,
            {},
            np.moveaxis(FILM, -1, 0),
        ),
        ("frames", write_frames, FILM, {}, np.moveaxis(FILM, -1, 0)),
        ("alpha", write_alpha, FILM, {}, np.moveaxis(FILM, -1, 0)),
    ],
)
def test_channels_and_times_are_those_of_the_file(tmp_path, name, write, values, reading, read_back):
    write(tmp_path / name, values)
    assert np.array_equal(read(tmp_path / name, **reading), read_back)


def test_frames_come_back_as_colours(tmp_path):
    write_frames(tmp_path / "frames", FILM)
    source = open_volume(tmp_path / "frames")
    for name in ("film.npy", "film.tif"):
        with format_of(tmp_path / name).writing(
            tmp_path / name, (3, 6, 14, 17), np.dtype(np.uint8), source.about
        ) as write:
            write(stored(source, 0, 6))
    assert np.array_equal(np.load(tmp_path / "film.npy"), FILM)
    assert tifffile.TiffFile(tmp_path / "film.tif").pages[0].photometric.name == "RGB"
    assert np.array_equal(tifffile.imread(tmp_path / "film.tif"), FILM)


@pytest.mark.parametrize(("name", "write"), [("i.tif", write_imagej), ("o.tif", write_ome), ("n.nii", write_nifti)])
def test_the_sizes_of_voxels_are_kept(tmp_path, name, write):
    write(tmp_path / name, TIMES)
    source = open_volume(tmp_path / name, reading=Reading(time=1))
    assert np.allclose(source.affine, np.diag([*SIDES, 1]))
    assert source.about.get("unit") == (None if name == "n.nii" else "micrometer")


@pytest.mark.parametrize(
    ("name", "write", "values", "reading", "message"),
    [
        ("a.npy", np.save, TIMES, {}, "shape (3, 2, 5, 14, 17); a volume is"),
        ("a.npy", np.save, TIMES, {"time": "all"}, "--time all: {} has channels as well; choose one time, 1 to 3"),
        ("a.npy", np.save, TWO, {"time": 3}, "--time 3: {} has times 1 to 2; use one of them"),
        ("a.npy", np.save, TWO[0], {"time": 1}, "--time 1: {} has no axis of times; leave it out"),
        ("a.npy", np.save, TWO, {"channels": (3,)}, "--channels 3: {} has channels 1 to 2; use some of them"),
        ("a.npy", np.save, np.zeros((70, 80, 80, 80), np.uint8), {}, "has 70 channels; choose at most 64 of them by"),
        ("a.nii", write_nifti, TWO, {}, "has 2 times; choose one from 1 to 2 by --time, or take all for channels by"),
        ("a.tif", write_imagej, TIMES, {}, "has 3 times; choose one from 1 to 3 by --time"),
        ("a.tif", lambda path, values: tifffile.imwrite(path, values, photometric="minisblack"), TWO, {}, "axes QQYX"),
    ],
)
def test_what_has_several_meanings_is_refused(tmp_path, name, write, values, reading, message):
    path = tmp_path / name
    write(path, values)
    with pytest.raises(InputError) as error:
        open_volume(path, reading=Reading(**reading))
    assert message.format(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".npy", ".nii", ".nii.gz", ".tif"])
@pytest.mark.parametrize(("axes", "n_channels"), [("ZYX", 1), ("CZYX", 2), ("ZYXC", 3)])
def test_every_format_writes_what_it_reads(tmp_path, suffix, axes, n_channels):
    source = {"affine": np.diag([*SIDES, 1]).tolist(), "unit": "micrometer"}
    source |= {"axes": axes} if n_channels > 1 else {}
    path = tmp_path / f"v{suffix}"
    for dtype in (np.uint8, np.uint16, np.int16, np.float32, np.float16):
        values = np.random.default_rng(2).integers(0, 99, (n_channels, 5, 14, 17)).astype(dtype)
        with format_of(path).writing(path, values.shape, values.dtype, source) as write:
            write(values[:, :3])
            write(values[:, 3:])
        opened, back = open_volume(path), read(path)
        assert np.abs(back.astype(float) - values).max() < 0.01
        if suffix != ".npy":
            assert np.allclose(opened.affine, source["affine"])
            assert opened.about["unit"] == "micrometer"
        elif n_channels > 1:
            assert opened.about["axes"] == axes


def test_a_volume_without_a_sound_place_is_taken_for_cubes(tmp_path):
    path = tmp_path / "flat.nii"
    image = nibabel.Nifti1Image(TWO[0].T, np.diag([1.0, 1, 1, 1]))
    image.header["srow_x"] = 0
    nibabel.save(image, path)
    data = bytearray(path.read_bytes())
    data[280:296] = bytes(16)  # srow_x
    path.write_bytes(data)
    source = open_volume(path)
    assert source.affine is None
    assert "cubes of size 1" in source.notes[0]


def test_four_axes_of_numbers_are_a_volume(tmp_path):
    np.save(tmp_path / "a.npy", TWO)
    assert task_of_file(str(tmp_path / "a.npy")) == "volume"


def waves():
    """(t, c, d, h, w): two smooth channels at two times."""
    z, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (18, 22, 20)), indexing="ij")
    return np.array([[np.sin(z + y + t), np.cos(x + t)] for t in (0, 1)], np.float32)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A folder with the fit of the second time of a volume of two channels."""
    folder = tmp_path_factory.mktemp("chosen")
    np.save(folder / "waves.npy", waves())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit_here(patch)
    return folder


def fit_here(patch, *more):
    options = ["--n_scales", "1", "--num_epochs", "40", "--preset", "best", "--accelerator", "cpu", "--quiet"]
    patch.setattr(sys, "argv", ["train.py", "--path", "waves.npy", "--time", "2", "--pack", *options, *more])
    train.cli()


def test_a_fit_of_several_channels_is_as_near_as_its_metrics_say(chosen):
    model, metrics = MINER.load(chosen / "ckpts/waves"), json.loads((chosen / "ckpts/waves/metrics.json").read_text())
    truth, back = waves()[1], model.transfer.decode(model.decode().numpy())
    errors = [np.mean((back - truth) ** 2 / np.ptp(truth) ** 2, axis=axes) for axes in (None, (1, 2, 3))]
    assert metrics["psnr"] == pytest.approx(-10 * np.log10(errors[0]), abs=0.02)
    assert metrics["psnr_per_channel"] == pytest.approx(-10 * np.log10(errors[1]), abs=0.02)
    assert metrics["psnr"] > 25
    assert {name: model.source[name] for name in ("time", "axes", "spectral")} == {
        **{"time": 2, "axes": "CZYX", "spectral": True}
    }
    assert MINER.load(chosen / "ckpts/waves/waves.miner").source == model.source


def test_it_comes_back_and_is_compared_with_the_same_time(chosen, command, monkeypatch):
    monkeypatch.chdir(chosen)
    metrics = json.loads((chosen / "ckpts/waves/metrics.json").read_text())
    done = command("reconstruct.py", "ckpts/waves", "--out", "back.npy", "--original", "waves.npy")
    assert done.status == 0, done.error
    assert float(done.out.split("PSNR : ")[1].split()[0]) == pytest.approx(metrics["psnr"], abs=1e-3)
    assert float(done.out.split("SSIM : ")[1].split()[0]) == pytest.approx(metrics["ssim"], abs=1e-3)
    back = np.load("back.npy")
    assert (back.shape, back.dtype) == ((2, 18, 22, 20), np.float32)
    assert command("reconstruct.py", "ckpts/waves", "--out", "second.npy", "--channels", 2).status == 0
    assert np.array_equal(np.load("second.npy"), back[1])


@pytest.mark.parametrize("name", ["back.zip", "back.mhd"])
def test_what_is_only_read_is_not_written(chosen, command, monkeypatch, name):
    monkeypatch.chdir(chosen)
    done = command("reconstruct.py", "ckpts/waves", "--out", name)
    assert "is only read; write .npy" in done.error
    assert not (chosen / name).exists()


def test_it_goes_on_with_the_same_time_alone(chosen, command, monkeypatch):
    monkeypatch.chdir(chosen)
    fit_here(monkeypatch, "--resume")
    done = command(
        "train.py",
        "--path",
        "waves.npy",
        "--time",
        "1",
        "--pack",
        "--n_scales",
        "1",
        "--resume",
        "--num_epochs",
        "40",
        "--preset",
        "best",
        "--accelerator",
        "cpu",
    )
    assert str(done.status).startswith("error: ")
    assert "--time" in done.error


def test_an_array_of_four_axes_is_fitted_in_python():
    values = (waves()[0] + 1) / 2
    model = fit(values, n_scales=1, num_epochs=[5], preset="best", quiet=True)
    assert (model.n_channels, model.size) == (2, values.shape[1:])


def test_times_and_channels_are_chosen_of_volumes_alone(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(FILM[0]).save("a.png")
    for option, value in product(("--time", "--channels"), "1"):
        assert (
            f"{option} 1: chooses of a volume of values, and this is an image"
            in command("train.py", "--path", "a.png", option, value).error
        )


@pytest.mark.parametrize(
    "told",
    [{"time": 0}, {"time": "some"}, {"channels": []}, {"channels": [0]}, {"unit": "a\nb"}, {"axes": "XX"}, {"axes": 3}],
)
def test_records_that_tell_nonsense_are_refused(chosen, told):
    model = MINER.load(chosen / "ckpts/waves")
    run = {"n_scales": 1, "n_channels": 2, "size": list(model.size), "source": model.source}
    assert checked_run(run) == run
    with pytest.raises(TypeError):
        checked_run(run | {"source": model.source | told})


def test_a_dry_run_counts_what_writing_holds(chosen, command, monkeypatch):
    monkeypatch.chdir(chosen)
    told = [command("reconstruct.py", "ckpts/waves", "--out", name, "--dry_run").out for name in ("a.npy", "a.zarr")]
    assert all("20x22x18 samples, at most" in line for line in told)


def test_similarity_of_a_volume_is_the_mean_over_its_slices():
    import torch

    from utils.metrics import SliceSimilarity

    first, other = torch.rand(2, 2, 6, 20, 15)
    similarity = SliceSimilarity(spectral=True)
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        similarity.add(first[:, start:stop], other[:, start:stop])
    slices = [ssim(first[None, channel, z], other[None, channel, z]) for channel in range(2) for z in range(6)]
    assert similarity.value == pytest.approx(np.mean(slices), abs=1e-6)
