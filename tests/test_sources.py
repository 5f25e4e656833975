import json
import os
import subprocess
import sys
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile
import zarr
from helpers import ROOT, chunk_of_png

from datasets import sources
from datasets.occupancy import open_occupancy
from datasets.sources import Source, open_picture
from utils.errors import InputError

GENERATOR = np.random.default_rng(0)
RGB = GENERATOR.integers(0, 256, (45, 70, 3), dtype=np.uint8)
RGBA16 = GENERATOR.integers(0, 65536, (45, 70, 4), dtype=np.uint16)
GREY = RGB[..., 0]
GREY_ALPHA = RGB[..., :2]
BILEVEL = GREY > 127
PALETTE = GENERATOR.integers(0, 256, (3, 256)).astype(np.uint16)

TIFFS = {
    "grey": (GREY, {}, GREY),
    "inverted": (GREY, {"photometric": "miniswhite"}, 255 - GREY),
    "bilevel": (BILEVEL, {"photometric": "minisblack"}, BILEVEL * np.uint8(255)),
    "palette": (GREY, {"photometric": "palette", "colormap": PALETTE << 8}, PALETTE.T.astype(np.uint8)[GREY]),
    "grey_alpha": (GREY_ALPHA, {"extrasamples": ["unassalpha"]}, GREY_ALPHA[..., [0, 0, 0, 1]]),
    "RGB": (RGB, {"photometric": "rgb"}, RGB),
    "planes": (RGB.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}, RGB),
    "RGBA16": (RGBA16, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, RGBA16),
    "big_endian": (RGBA16, {"photometric": "rgb", "extrasamples": ["unassalpha"], "byteorder": ">"}, RGBA16),
}
LAYOUTS = {
    "plain": {},
    "tiles": {"tile": (16, 32), "compression": "zlib"},
    "plain_tiles": {"tile": (16, 16)},
    "strips": {"rowsperstrip": 7, "compression": "lzw", "predictor": True},
    "one_strip": {"rowsperstrip": 45, "compression": "zstd"},
}


def by_windows(source: Source) -> np.ndarray:
    """All rows, by windows that follow no chunk, the last ones first: (h, w, c)."""
    edges = sorted({0, 1, *range(6, source.size[0], 11), source.size[0]})
    windows = [source.read(start, stop) for start, stop in reversed(list(pairwise(edges)))]
    return np.moveaxis(np.concatenate(windows[::-1], axis=1), 0, -1)


def with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(*pixels.shape[:2], -1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", TIFFS)
def test_windows_of_a_tiff_are_those_of_the_picture(tmp_path, kind, layout):
    pixels, options, expected = TIFFS[kind]
    options = LAYOUTS[layout] | options
    if kind == "bilevel":
        options.pop("predictor", None)
    tifffile.imwrite(tmp_path / "x.tif", pixels, **options)
    source = open_picture(tmp_path / "x.tif")
    expected = with_channels(expected)
    assert (*source.size, source.n_channels) == expected.shape
    assert source.bits == 8 * expected.itemsize
    read = by_windows(source)
    assert read.dtype == expected.dtype
    assert np.array_equal(read, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_windows_of_a_turned_tiff_are_upright(tmp_path, orientation, layout):
    options = {"photometric": "rgb", "extratags": [(274, "H", 1, orientation, True)]}
    tifffile.imwrite(tmp_path / "turned.tif", RGB, **options, **LAYOUTS[layout])
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / "turned.png")))
    assert np.array_equal(by_windows(open_picture(tmp_path / "turned.tif")), upright)
    assert np.array_equal(by_windows(open_picture(tmp_path / "turned.png")), upright)


def test_the_first_page_of_a_pyramid_is_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pyramid.tif", bigtiff=True) as tiff:
        tiff.write(RGB, subifds=1, photometric="rgb", tile=(16, 16), compression="jpeg")
        tiff.write(RGB[::2, ::2], subfiletype=1, photometric="rgb", tile=(16, 16), compression="jpeg")
    whole = tifffile.imread(tmp_path / "pyramid.tif")
    assert np.array_equal(by_windows(open_picture(tmp_path / "pyramid.tif")), whole)


@pytest.mark.parametrize("size", [(45, 70), (44, 23), (17, 70), (7, 9), (1, 1)])
@pytest.mark.parametrize("orientation", [1, 8])
def test_strips_shrink_to_the_exact_mean(tmp_path, monkeypatch, size, orientation):
    """Every pixel repeated size times along each axis, the file's size of these make the mean."""
    monkeypatch.setattr(sources, "_VALUES_AT_ONCE", 1)
    upright = np.rot90(RGBA16, -1) if orientation == 8 else RGBA16
    extratags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(
        tmp_path / "x.tif",
        upright,
        photometric="rgb",
        extrasamples=["unassalpha"],
        extratags=extratags,
        **LAYOUTS["tiles"],
    )
    means = RGBA16.astype(np.float64)
    for axis in (0, 1):
        n, n_means = means.shape[axis], size[axis]
        parts = np.moveaxis(np.repeat(means, n_means, axis), axis, 0)
        means = np.moveaxis(parts.reshape(n_means, n, *parts.shape[1:]).mean(axis=1), 0, axis)
    source = open_picture(tmp_path / "x.tif", size)
    assert (source.size, source.file_size) == (size, (45, 70))
    shrunk = by_windows(source)
    assert abs(shrunk - means).max() < 0.52
    whole = cv2.resize(RGBA16, size[::-1], interpolation=cv2.INTER_AREA).reshape(*size, 4)
    assert abs(shrunk.astype(int) - whole).max() <= 1


def test_what_is_decoded_whole_is_resized_whole(tmp_path):
    PIL.Image.fromarray(RGB).save(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "x.tif", RGB, photometric="rgb", **LAYOUTS["tiles"])
    shrunk = cv2.resize(RGB, (31, 20), interpolation=cv2.INTER_AREA)
    assert np.array_equal(by_windows(open_picture(tmp_path / "x.png", (20, 31))), shrunk)
    enlarged = cv2.resize(RGB, (71, 20), interpolation=cv2.INTER_CUBIC)
    for name in ("x.png", "x.tif"):
        assert np.array_equal(by_windows(open_picture(tmp_path / name, (20, 71))), enlarged)


READER = """
import resource, sys, numpy as np
from datasets.sources import open_picture
def data():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
source = open_picture(sys.argv[1])
assert source.size == (15000, 20000) and source.n_channels == 3
source.read(0, 1)
resource.setrlimit(resource.RLIMIT_DATA, (data() + 2**28, resource.RLIM_INFINITY))
tile = np.add.outer(np.arange(512), np.arange(512)).astype(np.uint8)
for start in range(0, 15000, 512):
    stop = min(start + 512, 15000)
    rows = source.read(start, stop)
    expected = np.tile(tile[: stop - start], 40)[:, :20000]
    assert all((channel == expected).all() for channel in rows)
small = open_picture(sys.argv[1], (150, 200))
assert np.abs(small.read(0, 150).astype(int) - 127.5).max() < 128
try:
    source.read(0, 15000)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_picture_larger_than_memory_is_read_by_strips(tmp_path):
    tile = np.add.outer(np.arange(512), np.arange(512)).astype(np.uint8)
    encoded = zlib.compress(np.stack([tile] * 3, axis=2).tobytes(), 1)
    tifffile.imwrite(
        tmp_path / "large.tif",
        iter([encoded] * (40 * 30)),
        shape=(15000, 20000, 3),
        dtype=np.uint8,
        tile=(512, 512),
        photometric="rgb",
        compression="zlib",
    )
    command = [sys.executable, "-c", READER, str(tmp_path / "large.tif")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("InputError"), "the limit would break the whole picture"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("pixels", [GREY, RGB, RGBA16, RGBA16.transpose(2, 0, 1)], ids=["yx", "yxs", "yxs16", "syx16"])
def test_windows_of_a_zarr_are_those_of_the_picture(tmp_path, pixels, zarr_format):
    chunks = tuple(n if n < 5 else 16 for n in pixels.shape)
    zarr.create_array(tmp_path / "x.zarr", data=pixels, chunks=chunks, zarr_format=zarr_format)
    with zarr.storage.ZipStore(tmp_path / "x.zip", mode="w") as store:
        zarr.create_array(store, data=pixels, chunks=chunks, zarr_format=zarr_format)
    expected = with_channels(pixels.transpose(1, 2, 0) if len(pixels) == 4 else pixels)
    for name in ("x.zarr", "x.zip"):
        source = open_picture(tmp_path / name)
        assert source.rows_at_once == 16
        assert np.array_equal(by_windows(source), expected)


@pytest.mark.parametrize(("shape", "version"), [((1, 3, 1), "0.4"), ((3,), "0.5"), ((1, 3), None)])
def test_the_first_scale_of_a_group_is_read(tmp_path, shape, version):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=2 if version == "0.4" else 3)
    name = "0" if version is None else "full"
    group.create_array(name, data=RGB.transpose(2, 0, 1).reshape(*shape, 45, 70), chunks=(1,) * len(shape) + (16, 16))
    multiscales = [{"datasets": [{"path": "full"}, {"path": "half"}]}]
    if version is not None:
        group.attrs.update({"multiscales": multiscales} if version == "0.4" else {"ome": {"multiscales": multiscales}})
    assert np.array_equal(by_windows(open_picture(tmp_path / "x.zarr")), RGB)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: zarr.create_array(path, data=GREY.astype(np.int64)), r"int64 values of shape \(45, 70\)"),
        (lambda path: zarr.create_array(path, data=RGBA16.reshape(45, 14, 5, 4)), r"shape \(45, 14, 5, 4\)"),
        (
            lambda path: zarr.create_array(path, data=np.zeros((65, 70, 80), np.uint8)),
            r"shape \(65, 70, 80\).*c of 1 to 64",
        ),
        (lambda path: zarr.create_group(path), "is not a readable Zarr"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.write_bytes(b"PK\3\4 and no more"), "is not a readable Zarr"),
    ],
)
def test_what_is_not_a_picture_in_zarr_is_named(tmp_path, make, message):
    make(tmp_path / "x.zarr")
    with pytest.raises(InputError, match=message) as error:
        open_picture(tmp_path / "x.zarr")
    assert "x.zarr" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("codec", [{"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle"}}])
def test_a_zarr_that_would_run_a_program_is_refused(tmp_path, codec):
    zarr.create_array(tmp_path / "x.zarr", data=GREY, zarr_format=2)
    metadata = json.loads((tmp_path / "x.zarr/.zarray").read_text())
    (tmp_path / "x.zarr/.zarray").write_text(json.dumps(metadata | codec))
    with pytest.raises(InputError, match="pickle"):
        open_picture(tmp_path / "x.zarr")


def test_a_png_is_opened_by_its_header_and_read_to_the_last_byte(tmp_path):
    PIL.Image.fromarray(RGB).save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.png").write_bytes(data)
    source = open_picture(tmp_path / "x.png")
    assert (source.size, source.n_channels, source.bits) == ((45, 70), 3, 8)
    with pytest.raises(InputError, match=r"x\.png is not a readable picture"):
        source.read(0, 1)


def test_a_png_may_tell_its_orientation_after_its_pixels(tmp_path):
    PIL.Image.fromarray(RGB).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    late = chunk_of_png(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "x.png").write_bytes(data[:-12] + late + data[-12:])
    assert np.array_equal(by_windows(open_picture(tmp_path / "x.png")), np.rot90(RGB, -1))


SIDE = 6000
TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6
WHOLE = [
    ("x.jpg", "RGB", {}, None),
    ("grey.jpg", "L", {}, 600),
    ("print.jpg", "CMYK", {}, 600),
    ("progressive.jpg", "RGB", {"progressive": True, "subsampling": 0}, 600),
    ("x.png", "RGB", {"compress_level": 1}, None),
    ("deep.png", "I;16", {"compress_level": 1}, 600),
    ("turned.png", "RGB", {"compress_level": 1, "exif": TURNED}, 600),
    ("x.gif", "P", {}, 600),
]


MEASURE = """
import os, sys
from datasets.sources import open_picture
from utils.memory import peak_memory, used_memory

for path, side in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    if os.fork():
        os.wait()
        continue
    source = open_picture(path, (side, side))
    before = used_memory()
    rows = source.read(0, 1)
    print(path, peak_memory() - before, source.decode_bytes, used_memory() - before, source.held_bytes, flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def decodings(tmp_path_factory) -> dict[str, list[int]]:
    """Of each file, measured in processes that hold no free memory: bytes that decoding took and promised, and bytes
    that were held and promised."""
    folder, arguments = tmp_path_factory.mktemp("decodings"), []
    for name, mode, options, side in WHOLE:
        PIL.Image.new(mode, (SIDE, SIDE)).save(folder / name, **options)
        arguments += [name, str(side or SIDE)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return {name: [int(amount) for amount in amounts] for name, *amounts in lines}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
@pytest.mark.parametrize("name", [name for name, *_ in WHOLE])
def test_decoding_takes_the_memory_that_is_promised(decodings, name):
    used, promised, held, promised_to_be_held = decodings[name]
    assert used <= promised <= 1.5 * used
    assert held <= promised_to_be_held + 2**24


def test_what_is_no_file_is_named_as_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    zarr.create_array(tmp_path / "x.npy", data=GREY)
    for path, message in [
        (tmp_path / "fifo", "is not a file, but a pipe"),
        (tmp_path / "loop", "Too many levels of symbolic links"),
        (Path("/proc/self/mem"), "is empty"),
        (Path(""), "is not a file, but a folder"),
    ]:
        for opener in (open_picture, open_occupancy):
            with pytest.raises(InputError, match=message):
                opener(path)
    with pytest.raises(InputError, match="is not a file, but a folder"):
        open_occupancy(tmp_path / "x.npy")
    assert open_picture(tmp_path / "x.npy").size == GREY.shape


def test_metadata_that_are_too_large_for_a_picture_are_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", bytes(2**24 + 1))
    zarr.create_array(tmp_path / "x.zarr", data=GREY)
    os.truncate(tmp_path / "x.zarr/zarr.json", 2**40)
    group = zarr.create_group(tmp_path / "group.zarr")
    group.create_array("0", data=GREY)
    os.truncate(tmp_path / "group.zarr/0/zarr.json", 2**40)
    for name in ("x.zip", "x.zarr", "group.zarr"):
        with pytest.raises(InputError, match=rf"{name} is not a readable Zarr \(zarr.json is larger than 16 MiB\)"):
            open_picture(tmp_path / name)
