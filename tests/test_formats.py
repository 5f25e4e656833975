"""Every kind of picture file is read as it should be, or refused with what to use."""

import os
import struct
import sys
import zlib
from math import prod
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile
import torch
from helpers import chunk_of_png, write_picture

from datasets import formats, writers
from datasets.formats import FORMATS
from datasets.sources import open_picture, read_picture
from utils.errors import InputError

GENERATOR = np.random.default_rng(0)
RGB = GENERATOR.integers(0, 256, (20, 30, 3), dtype=np.uint8)
RGB16 = GENERATOR.integers(0, 65536, (20, 30, 4), dtype=np.uint16)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    peak = np.iinfo(pixels.dtype).max
    return torch.from_numpy(np.moveaxis(np.atleast_3d(pixels), 2, 0) / peak).float()


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, suffix, orientation):
    path = tmp_path / f"turned.{suffix}"
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(RGB).save(path, exif=exif.tobytes())
    upright = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(path)))
    assert upright.shape == ((20, 30, 3) if orientation < 5 else (30, 20, 3))
    torch.testing.assert_close(read_picture(path).values, channels_first(upright))
    source = open_picture(path)
    assert (source.size, source.n_channels, source.bits) == (upright.shape[:2], 3, 8)


@pytest.mark.parametrize(
    ("name", "mode", "n_channels"),
    [
        ("grey.png", "L", 1),
        ("bilevel.png", "1", 1),
        ("palette.png", "P", 3),
        ("grey_alpha.png", "LA", 4),
        ("alpha.png", "RGBA", 4),
        ("grey.jpg", "L", 1),
        ("print.jpg", "CMYK", 3),
        ("bilevel.tif", "1", 1),
        ("palette.tif", "P", 3),
        ("grey_alpha.tif", "LA", 4),
        ("alpha.tif", "RGBA", 4),
    ],
)
def test_every_kind_of_picture_is_read_as_pillow_reads_it(tmp_path, name, mode, n_channels):
    picture = PIL.Image.fromarray(RGB).convert(mode)
    picture.save(tmp_path / name)
    expected = PIL.Image.open(tmp_path / name).convert({1: "L", 3: "RGB", 4: "RGBA"}[n_channels])
    read = read_picture(tmp_path / name)
    assert read.bits == 8
    source = open_picture(tmp_path / name)
    assert (source.size, source.n_channels, source.bits) == (RGB.shape[:2], n_channels, 8)
    assert torch.equal((read.values * 255).round().byte().movedim(0, 2).squeeze(2), torch.tensor(np.asarray(expected)))


@pytest.mark.parametrize("pixels", [RGB16[..., 0], RGB16[..., :3], RGB16], ids=["grey", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_come_back_as_they_went(tmp_path, pixels, suffix):
    values = channels_first(pixels)
    write_picture(tmp_path / f"deep.{suffix}", values, bits=16)
    read = read_picture(tmp_path / f"deep.{suffix}")
    assert read.bits == 16
    assert torch.equal(read.values, values)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_eight_bits_come_back_as_they_went(tmp_path, suffix):
    write_picture(tmp_path / f"plain.{suffix}", channels_first(RGB), bits=8)
    assert torch.equal(read_picture(tmp_path / f"plain.{suffix}").values, channels_first(RGB))
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / f"plain.{suffix}")), RGB)


def test_planes_and_inverted_greys_of_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "planes.tif", RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert torch.equal(read_picture(tmp_path / "planes.tif").values, channels_first(RGB))
    tifffile.imwrite(tmp_path / "inverted.tif", 255 - RGB[..., 0], photometric="miniswhite")
    assert torch.equal(read_picture(tmp_path / "inverted.tif").values, channels_first(RGB[..., 0]))


def test_pictures_beyond_the_readers_own_limits(tmp_path):
    """Pillow refuses more than 179 million pixels, OpenCV 2^30: each is read, at a size that fits a test's memory."""
    PIL.Image.new("1", (15000, 12500)).save(tmp_path / "large.png")
    picture = read_picture(tmp_path / "large.png", size=(4, 4))
    assert picture.values.shape == (1, 4, 4)


def test_shrinking_takes_the_mean_of_the_pixels(tmp_path):
    PIL.Image.fromarray(RGB).save(tmp_path / "small.png")
    shrunk = read_picture(tmp_path / "small.png", size=(10, 10)).values
    mean = channels_first(RGB).unflatten(2, (10, 3)).unflatten(1, (10, 2)).mean(dim=(2, 4))
    torch.testing.assert_close(shrunk, mean, rtol=0, atol=0.51 / 255)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "no such file"),
        ("empty.png", b"", "empty.png is empty"),
        ("text.jpg", b"hello", "is not a readable picture"),
        ("broken.tif", b"II*\0\xff\xff\xff\xff", "is not a readable TIFF"),
        ("short.tif", b"II*\0", "is not a readable TIFF"),
    ],
)
def test_what_is_not_a_picture_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_picture(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_truncated_picture_is_refused(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    PIL.Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="cut"):
        read_picture(path)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_other_numbers_are_refused_with_a_remedy(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "numbers.tif", RGB.astype(dtype), photometric="rgb")
    with pytest.raises(InputError, match=f"{np.dtype(dtype)} values.*8 or 16 bits"):
        read_picture(tmp_path / "numbers.tif")


@pytest.mark.parametrize("bits", [4, 12])
def test_depths_between_are_refused_with_a_remedy(tmp_path, bits):
    dtype = np.uint8 if bits == 4 else np.uint16
    tifffile.imwrite(tmp_path / "between.tif", (RGB[..., 0] >> 4).astype(dtype), bitspersample=bits)
    with pytest.raises(InputError, match=rf"{bits} bits a channel.*8 or 16 bits"):
        read_picture(tmp_path / "between.tif")


def test_jpeg_in_tiff_and_premultiplied_alpha(tmp_path):
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], (64, 64, 3))
    tifffile.imwrite(tmp_path / "jpeg.tif", smooth, photometric="rgb", compression="jpeg", tile=(64, 64))
    torch.testing.assert_close(read_picture(tmp_path / "jpeg.tif").values, channels_first(smooth), rtol=0, atol=0.02)
    straight = np.dstack([np.full((8, 8, 3), 200, np.uint8), np.full((8, 8), 128, np.uint8)])
    premultiplied = straight.copy()
    premultiplied[..., :3] = round(200 * 128 / 255)
    tifffile.imwrite(tmp_path / "alpha.tif", premultiplied, photometric="rgb", extrasamples=["assocalpha"])
    torch.testing.assert_close(
        read_picture(tmp_path / "alpha.tif").values, channels_first(straight), rtol=0, atol=0.005
    )


def test_what_a_file_cannot_hold_is_refused_and_an_old_file_stays(tmp_path):
    old = tmp_path / "old.jpg"
    old.write_bytes(b"precious")
    for values, bits, message in [(RGB, 16, "--bits 8"), (np.dstack([RGB, RGB[..., :1]]), 8, "--no_alpha")]:
        with pytest.raises(InputError, match=message):
            write_picture(old, channels_first(values), bits)
    assert old.read_bytes() == b"precious"
    with pytest.raises(InputError, match=r"suffix '\.bmp'"):
        write_picture(tmp_path / "x.bmp", channels_first(RGB), 8)
    with pytest.raises(InputError, match=r"cannot write.*No such file"):
        write_picture(tmp_path / "nowhere" / "x.png", channels_first(RGB), 8)
    assert [path.name for path in tmp_path.iterdir()] == ["old.jpg"]


WRITTEN = [(format, suffix) for format in FORMATS if format.most_bits for suffix in format.suffixes]


@pytest.mark.parametrize(("format", "suffix"), WRITTEN, ids=[suffix for _, suffix in WRITTEN])
def test_a_format_recognises_the_files_that_it_writes(tmp_path, format, suffix):
    write_picture(tmp_path / f"x{suffix}", channels_first(RGB), 8)
    path = (tmp_path / f"x{suffix}").rename(tmp_path / "unnamed")
    if format.markers:
        assert (path / format.markers[0]).is_file()
    else:
        assert path.read_bytes().startswith(format.magic)
    source = open_picture(path)
    assert (source.size, source.n_channels, source.bits) == (RGB.shape[:2], 3, 8)


def test_a_format_takes_a_module_and_a_row(tmp_path, monkeypatch):
    """Plain grey pixels after their height and width, a byte each."""

    def open_pixels(path):
        data = np.fromfile(path, np.uint8)
        pixels = data[6:].reshape(*data[4:6], 1)
        return formats.Pixels(
            pixels.shape[:2], 1, 8, 1, (1, 1), lambda rows, columns: pixels[rows, columns], lambda *size: prod(size)
        )

    def write_pixels(path, rows, shape, dtype):
        path.write_bytes(b"GREY" + bytes(shape[:2]) + b"".join(some.tobytes() for some in rows))

    module = SimpleNamespace(open_pixels=open_pixels, write_pixels=write_pixels)
    monkeypatch.setitem(sys.modules, "datasets.formats.plain", module)
    row = formats.Format("Plain", "plain", magic=(b"GREY",), suffixes=(".grey",), most_bits=8, most_side=255)
    monkeypatch.setattr(formats, "FORMATS", (row, *FORMATS))
    monkeypatch.setattr(writers, "FORMATS", (row, *FORMATS))
    values = channels_first(RGB[..., :1])
    write_picture(tmp_path / "x.grey", values, 8)
    assert torch.equal(read_picture(tmp_path / "x.grey").values, values)
    with pytest.raises(InputError, match="Plain holds 255 pixels a side, not 256x1"):
        write_picture(tmp_path / "x.grey", torch.zeros(1, 1, 256), 8)
    with pytest.raises(InputError, match="Plain holds 8 bits a channel, not 16"):
        write_picture(tmp_path / "x.grey", values, 16)


SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel of PNG, by colour type
PASSES = {
    False: [(0, 0, 1, 1)],
    True: [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)],
}


def png_row(samples: np.ndarray, depth: int) -> bytes:
    if depth >= 8:
        return samples.astype(">u2" if depth == 16 else np.uint8).tobytes()
    bits = np.unpackbits(samples.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits).tobytes()


@pytest.mark.parametrize("interlaced", PASSES)
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(
    ("colour", "depths"), [(0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))]
)
def test_every_kind_of_png_is_read(tmp_path, colour, depths, transparent, interlaced):
    """By the definition of the format: transparency is a colour, or an alpha for each colour of the palette."""
    if transparent and colour in (4, 6):
        pytest.skip("these have alpha already")
    for depth in depths:
        check_png(tmp_path / "x.png", colour, depth, transparent, interlaced)


def check_png(path: Path, colour: int, depth: int, transparent: bool, interlaced: bool) -> None:
    samples = GENERATOR.integers(0, 2**depth, (13, 19, SAMPLES[colour]))
    palette = GENERATOR.integers(0, 256, (2**depth if colour == 3 else 0, 4), dtype=np.uint8)
    peak = 65535 if depth == 16 else 255
    if colour == 3:
        expected = palette[samples[..., 0]][..., : 4 if transparent else 3]
        transparency = palette[:, 3].tobytes()
    else:
        expected = samples * peak // (2**depth - 1)
        clear = samples[3, 4]
        transparency = clear.astype(">u2").tobytes()
        if colour == 4:
            expected = expected[..., [0, 0, 0, 1]]
        if transparent:
            colours = np.broadcast_to(expected, (13, 19, 3))
            alpha = np.where((samples == clear).all(axis=2, keepdims=True), 0, peak)
            expected = np.concatenate([colours, alpha], axis=2)
    rows = (row for y, x, dy, dx in PASSES[interlaced] for row in samples[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", 19, 13, depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"PLTE", palette[:, :3].tobytes()), (b"tRNS", transparency)]
    chunks.append((b"IDAT", zlib.compress(b"".join(b"\0" + png_row(row, depth) for row in rows))))
    wanted = {b"IHDR", b"IDAT", b"IEND"} | ({b"PLTE"} if colour == 3 else set()) | ({b"tRNS"} if transparent else set())
    parts = [chunk_of_png(*chunk) for chunk in (*chunks, (b"IEND", b"")) if chunk[0] in wanted]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    source = open_picture(path)
    assert (source.size, source.n_channels, source.bits) == ((13, 19), expected.shape[2], 16 if depth == 16 else 8)
    assert np.array_equal(source.read(0, 13), np.moveaxis(expected, 2, 0))


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.png", "x.tif", "x.mpo", "x.avif"])
def test_what_follows_the_first_picture_is_noted(command, small_run, tmp_path, name):
    pictures = [PIL.Image.fromarray(np.roll(np.tile(RGB, (4, 4, 1))[:75, :100], n, 1)) for n in range(3)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    source = open_picture(tmp_path / name)
    assert source.notes == (f"{tmp_path / name} holds 3 pictures; only the first is read",)
    assert source.n_channels == 3, "all of it is opaque"
    outcome = command("reconstruct.py", small_run, "--original", tmp_path / name, "--backend", "reference")
    assert outcome.status == 0
    assert outcome.error.count("note: ") == 1
    assert "holds 3 pictures" in outcome.error


def test_smaller_versions_of_a_picture_are_no_others(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as tiff:
        for subfiletype, step in [(0, 1), (1, 2), (1, 4)]:
            tiff.write(np.ascontiguousarray(RGB[::step, ::step]), photometric="rgb", subfiletype=subfiletype)
    assert open_picture(tmp_path / "pyramid.tif").notes == ()


def test_libraries_print_nothing_of_their_own(tmp_path, capfd):
    PIL.Image.fromarray(RGB).save(tmp_path / "plain.png")
    data = (tmp_path / "plain.png").read_bytes()
    start, end = data.index(b"IDAT"), data.index(b"IEND")
    (tmp_path / "x.png").write_bytes(data[: start - 4] + chunk_of_png(b"IDAT", b"no deflate") + data[end - 4 :])
    PIL.Image.fromarray(RGB).save(tmp_path / "x.jpg")
    data = bytearray((tmp_path / "x.jpg").read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12  # bits, which no decoder here knows
    (tmp_path / "x.jpg").write_bytes(data)
    (tmp_path / "x.bin").write_bytes(data.replace(b"\xff\xd8\xff", b"\xff\xd8\0\xff", 1))
    PIL.Image.fromarray(RGB).save(tmp_path / "x.jp2")
    (tmp_path / "x.jp2").write_bytes((tmp_path / "x.jp2").read_bytes()[:150])
    for name in ("x.png", "x.jpg", "x.bin", "x.jp2"):
        for is_closed in (False, True):
            kept = os.dup(2)
            if is_closed:
                os.close(2)
            try:
                with pytest.raises(InputError, match=f"{name} is not a readable picture"):
                    read_picture(tmp_path / name)
            finally:
                os.dup2(kept, 2)
                os.close(kept)
    assert capfd.readouterr().err == ""


def test_a_header_that_promises_more_than_memory_holds_is_no_picture(tmp_path, monkeypatch):
    def fail(*_):
        raise cv2.error("Insufficient memory")

    (tmp_path / "x.bmp").write_bytes(b"BM" + bytes(60))
    monkeypatch.setattr(cv2, "imread", fail)
    with pytest.raises(InputError, match=r"x\.bmp is not a readable picture"):
        open_picture(tmp_path / "x.bmp")
