"""Files that are written a few rows at a time: what they hold, what they take, what is left where they fail."""

import errno
import os
import resource
import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest
import tifffile
import torch
import zarr
from helpers import ROOT, one_group, write_picture

from datasets.formats import tiff
from datasets.formats.npy import open_array
from datasets.writers import write_rows
from models.encoding import encoded_width
from models.level import Level
from models.networks import make_network
from models.shape import NetworkShape
from utils.blocks import grid_shape
from utils.checkpoint import level_path, save_level
from utils.errors import InputError
from utils.pyramid import level_size

SIZE = (700, 530)
CUTS = [[0, 700], [0, 1, 3, 255, 256, 257, 600, 700]]


def pixels_of(n_channels: int, bits: int) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(0).integers(0, 2**bits, (*SIZE, n_channels), dtype=dtype)


def rows_of(pixels: np.ndarray, cuts: list[int]):
    values = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)
    return (values[:, top:bottom] for top, bottom in pairwise(cuts))


def read(path) -> np.ndarray:
    """By the formats' own libraries, in their own types: (h, w) or (h, w, c)."""
    if path.suffix == ".zarr":
        return zarr.open_array(path, mode="r")[:]
    if path.suffix == ".tif":
        return tifffile.imread(path)
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("n_channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif", "zarr"])
def test_pixels_come_back_as_they_went_however_they_are_cut(tmp_path, suffix, n_channels, bits):
    pixels = pixels_of(n_channels, bits)
    for index, cuts in enumerate(CUTS):
        write_rows(tmp_path / f"{index}.{suffix}", rows_of(pixels, cuts), n_channels, SIZE, bits)
        stored = read(tmp_path / f"{index}.{suffix}")
        assert stored.dtype == pixels.dtype
        assert np.array_equal(stored, pixels[:, :, 0] if n_channels == 1 else pixels)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{index}.{suffix}" for index in range(2)]


@pytest.mark.parametrize("n_channels", [1, 3])
def test_jpeg_is_near_and_does_not_depend_on_the_cuts(tmp_path, n_channels):
    smooth = np.linspace(0, 255, SIZE[0] * n_channels).reshape(SIZE[0], 1, n_channels).astype(np.uint8)
    pixels = np.repeat(smooth, SIZE[1], axis=1)
    for index, cuts in enumerate(CUTS):
        write_rows(tmp_path / f"{index}.jpg", rows_of(pixels, cuts), n_channels, SIZE, 8)
    assert np.abs(np.atleast_3d(read(tmp_path / "0.jpg")).astype(int) - pixels).max() <= 4
    assert (tmp_path / "0.jpg").read_bytes() == (tmp_path / "1.jpg").read_bytes()


def test_tiff_takes_wide_offsets_where_it_needs_them(tmp_path, monkeypatch):
    pixels = pixels_of(3, 8)
    write_rows(tmp_path / "plain.tif", rows_of(pixels, CUTS[0]), 3, SIZE, 8)
    monkeypatch.setattr(tiff, "NEAR_BYTES", pixels.nbytes - 1)
    write_rows(tmp_path / "big.tif", rows_of(pixels, CUTS[0]), 3, SIZE, 8)
    for name, is_big in (("plain.tif", False), ("big.tif", True)):
        with tifffile.TiffFile(tmp_path / name) as file:
            assert (file.is_bigtiff, file.pages[0].tile) == (is_big, (256, 256))
            assert np.array_equal(file.asarray(), pixels)


def test_zarr_is_cut_into_chunks_and_names_its_axes(tmp_path):
    write_rows(tmp_path / "x.zarr", rows_of(pixels_of(3, 8), CUTS[0]), 3, SIZE, 8)
    array = zarr.open_array(tmp_path / "x.zarr", mode="r")
    assert array.metadata.zarr_format == 3
    assert array.chunks == (512, 512, 3)
    assert array.metadata.dimension_names == ("y", "x", "c")


def test_zarr_replaces_an_array_and_no_other_folder(tmp_path):
    write_picture(tmp_path / "x.zarr", torch.zeros(1, 600, 10), 8)
    write_picture(tmp_path / "x.zarr", torch.ones(1, 5, 5), 8)
    assert np.array_equal(read(tmp_path / "x.zarr"), np.full((5, 5), 255))
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "letter").write_text("precious")
    with pytest.raises(InputError, match=r"mine\.zarr exists and is not a Zarr array"):
        write_picture(tmp_path / "mine.zarr", torch.ones(1, 5, 5), 8)
    assert (tmp_path / "mine.zarr" / "letter").read_text() == "precious"
    zarr.create_group(tmp_path / "group.zarr").create_array("0", shape=(4, 4), dtype="uint8")
    (tmp_path / "x.zarr" / "letter").write_text("precious")
    for name in ("group", "x"):
        with pytest.raises(InputError, match=rf"{name}\.zarr exists and is not a Zarr array"):
            write_picture(tmp_path / f"{name}.zarr", torch.ones(1, 5, 5), 8)
    assert zarr.open_group(tmp_path / "group.zarr", mode="r")["0"].shape == (4, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["group.zarr", "mine.zarr", "x.zarr"]


def test_zarr_gives_the_old_array_its_place_back_where_the_new_one_cannot_take_it(tmp_path, monkeypatch):
    write_picture(tmp_path / "x.zarr", torch.zeros(1, 6, 10), 8)
    replace = os.replace

    def fail(source, target):
        if source.name.endswith(".part"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match=r"cannot write .*x\.zarr: Input/output error; check the disk"):
        write_picture(tmp_path / "x.zarr", torch.ones(1, 5, 5), 8)
    assert np.array_equal(read(tmp_path / "x.zarr"), np.zeros((6, 10)))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]


def test_what_a_format_cannot_hold_is_refused_before_a_row_is_asked_for(tmp_path):
    def never():
        raise AssertionError
        yield

    with pytest.raises(InputError, match="JPEG holds 65500 pixels a side, not 65501x3"):
        write_rows(tmp_path / "x.jpg", never(), 3, (3, 65501), 8)
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match=r"x\.png is a folder"):
        write_rows(tmp_path / "x.png", never(), 3, (3, 3), 8)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.zarr", "x.npy"])
def test_a_disk_that_is_full_or_rows_that_fail_leave_the_old_file_whole(tmp_path, name):
    path = tmp_path / name

    def write(rows, size):
        if name == "x.npy":
            with open_array(path, size, np.dtype(np.float32)) as put:
                for some in rows:
                    put(some[0].numpy())
        else:
            write_rows(path, rows, 3, size, 8)

    def failing():
        yield torch.rand(3, 300, 100)
        raise InputError("the rest is missing")

    old = torch.rand(3, 20, 20)
    write([old], (20, 20))
    before = np.load(path) if name == "x.npy" else read(path)
    with pytest.raises(InputError, match="the rest is missing"):
        write(failing(), (1000, 100))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError, match=rf"cannot write .*{name}: File too large"):
            write([torch.rand(3, 500, 500)], (500, 500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [path]
    assert np.array_equal(np.load(path) if name == "x.npy" else read(path), before)


def save_synthetic_fit(folder, size: tuple[int, ...], n_channels: int, patch: int) -> None:
    """Two levels: constant blocks below, and above them one block in a hundred that adds nothing."""
    source = {"bits": 8} if len(size) == 2 else {}
    run = dict(n_scales=2, n_channels=n_channels, size=list(size), source=source, options={})
    for index in range(2):
        length, patch_size = level_size(size, index), (patch,) * len(size)
        active = torch.arange(int(np.prod(grid_shape(length, patch_size)))) % (1 if index else 100) == 0
        output = "sigmoid" if index else "sine"
        shape = NetworkShape(encoded_width(len(size), None), n_channels, n_layers=2, n_hidden=4, output=output)
        network = make_network(int(active.sum()), shape)
        if index:
            network.bias[-1].data += torch.linspace(-3, 3, network.n_blocks)[:, None, None]
        level = Level(length, patch_size, None, index == 0, one_group(active), (network,))
        save_level(level_path(folder, index), {"run": run, "level": index, "options": {}} | level.record())


BOUNDED = """
import resource, sys
import cv2, numpy, pyvips, tifffile, torch
import reconstruct
from models.miner import MINER
from utils.memory import _own

model = MINER.load(sys.argv[1])
model.decode(crop=tuple((0, 70) for _ in model.size))
resource.setrlimit(resource.RLIMIT_DATA, (_own("VmData") + int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    model.decode()
except RuntimeError as error:
    print("alloc" in str(error))
sys.argv[1:] = [sys.argv[1], "--out", sys.argv[3]]
reconstruct.cli()
"""


@pytest.mark.parametrize(
    ("name", "size", "n_channels", "patch"),
    [("x.png", (5000, 4000), 3, 50), ("x.tif", (5000, 4000), 3, 50), ("x.npy", (500, 360, 400), 1, 20)],
)
def test_files_larger_than_memory_are_written(tmp_path, name, size, n_channels, patch):
    save_synthetic_fit(tmp_path, size, n_channels, patch)
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, tmp_path, str(2**29), tmp_path / name], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    stored = np.load(tmp_path / name, mmap_mode="r") if name == "x.npy" else read(tmp_path / name)
    assert stored.shape[: len(size)] == size
    assert stored[0, 0].min() == stored[0, 0].max() != stored[-1, -1].max()
