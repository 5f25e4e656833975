"""A few bytes that unpack to gigabytes are refused before they do; what others write is read."""

import asyncio
import struct
import zipfile
import zlib

import google_crc32c
import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import torch
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.core.sync import _get_loop

from datasets.sources import open_picture, read_picture
from utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs")  # of zarr, which tests make talk again
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
BOMB = bytes(2**22)
OLD = {
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
    "zstd": numcodecs.Zstd(),
    "blosc": numcodecs.Blosc(),
    "lz4": numcodecs.LZ4(),
}
NEW = {"gzip": GzipCodec(), "zstd": ZstdCodec(), "blosc": BloscCodec()}


def make(path, zarr_format=3, compressors="auto", **settings):
    """An array of chunks (32, 32, 3)."""
    settings = {"chunks": (32, 32, 3), "zarr_format": zarr_format, "compressors": compressors} | settings
    zarr.create_array(path, data=PIXELS, **settings)
    return path


def is_read(path) -> bool:
    return torch.equal(read_picture(path).values, torch.from_numpy(PIXELS.transpose(2, 0, 1) / np.float32(255)))


@pytest.mark.parametrize("name", OLD)
def test_chunks_of_version_2_are_bounded(tmp_path, name):
    path = make(tmp_path / "x.zarr", 2, OLD[name])
    (path / "0.0.0").write_bytes(OLD[name].encode(BOMB))
    with pytest.raises(InputError, match=r"x\.zarr is damaged.*a chunk of \d+ bytes unpacks to more than 68608"):
        read_picture(path)


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("is_sharded", [False, True])
def test_chunks_of_version_3_are_bounded(tmp_path, name, is_sharded):
    path = make(tmp_path / "x.zarr", 3, NEW[name], **({"shards": (64, 64, 3)} if is_sharded else {}))
    bomb = bytes(OLD[name].encode(BOMB))
    if is_sharded:
        index = struct.pack("<QQ", 0, len(bomb)) * 4
        bomb += index + struct.pack("<I", google_crc32c.value(index))
    (path / "c/0/0/0").write_bytes(bomb)
    with pytest.raises(InputError, match=r"x\.zarr is damaged.*a chunk of \d+ bytes unpacks to more than 68608"):
        read_picture(path)


@pytest.mark.parametrize("n_blocks", [1, 300])
def test_zstd_that_does_not_declare_its_size_is_bounded(tmp_path, n_blocks):
    path = make(tmp_path / "x.zarr", 3, NEW["zstd"])
    raw = PIXELS[:32, :32].tobytes()
    last = (1 | len(raw) << 3).to_bytes(3, "little") + raw
    repeated = (1 << 1 | 2**17 << 3).to_bytes(3, "little") + b"\0"  # 128 KiB of zeros
    (path / "c/0/0/0").write_bytes(b"\x28\xb5\x2f\xfd\0\x58" + repeated * (n_blocks - 1) + last)
    if n_blocks == 1:
        assert is_read(path)
    else:
        with pytest.raises(InputError, match=r"x\.zarr is damaged"):
            read_picture(path)


def test_entries_of_a_zip_are_bounded(tmp_path):
    path = make(tmp_path / "x.zarr", 3, None)
    for name, chunk in (("whole", None), ("bomb", BOMB)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in path.rglob("*"):
                if file.is_file():
                    data = chunk if chunk and file.suffix != ".json" else file.read_bytes()
                    archive.writestr(str(file.relative_to(path)), data)
    assert is_read(tmp_path / "whole.zip")
    with pytest.raises(InputError, match=r"bomb\.zip is not a readable Zarr \(c/\S+ has 4194304 bytes, and a chunk"):
        open_picture(tmp_path / "bomb.zip")


@pytest.mark.parametrize("shards", [None, (64, 64, 3)])
@pytest.mark.parametrize(
    "codecs", [*NEW.values(), None, [ZstdCodec(), Crc32cCodec()], [GzipCodec(), Crc32cCodec()]], ids=str
)
def test_what_zarr_3_writes_is_read(tmp_path, codecs, shards):
    assert is_read(make(tmp_path / "x.zarr", 3, codecs, shards=shards))


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("filters", [[], [numcodecs.Delta("u1"), numcodecs.AsType("f8", "u1")]])
def test_what_zarr_2_writes_is_read(tmp_path, name, filters):
    assert is_read(make(tmp_path / "x.zarr", 2, OLD[name], filters=filters))


def test_codecs_beyond_the_specification_are_read(tmp_path):
    assert is_read(make(tmp_path / "x.zarr", 3, zarr.codecs.numcodecs.Zlib()))


@pytest.mark.parametrize("last", [GzipCodec(), zarr.codecs.numcodecs.Shuffle()], ids=str)
def test_what_follows_a_compressor_is_refused(tmp_path, last):
    with pytest.raises(InputError, match=r"codec \w+ after gzip is not read"):
        open_picture(make(tmp_path / "x.zarr", 3, [GzipCodec(), last], chunks=PIXELS.shape))


@pytest.mark.parametrize("kind", ["jpeg", "jpeg2000", "png", "webp"])
def test_tiles_that_are_pictures_are_bounded(tmp_path, kind):
    encode = {"jpeg": imagecodecs.jpeg8_encode, "jpeg2000": imagecodecs.jpeg2k_encode}
    encode |= {"png": imagecodecs.png_encode, "webp": imagecodecs.webp_encode}
    tiles = dict(shape=(64, 64, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb", compression=kind)
    for name, n in (("whole", 64), ("bomb", 1000)):
        tifffile.imwrite(tmp_path / f"{name}.tif", iter([encode[kind](np.zeros((n, n, 3), np.uint8))]), **tiles)
    assert open_picture(tmp_path / "whole.tif").read(0, 64).max() == 0
    with pytest.raises(InputError, match="a chunk of 1000x1000 pixels instead of 64x64"):
        open_picture(tmp_path / "bomb.tif").read(0, 64)


def test_other_tiles_are_bounded(tmp_path):
    tiles = dict(shape=(64, 64, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb", compression="zlib")
    tifffile.imwrite(tmp_path / "bomb.tif", iter([zlib.compress(BOMB)]), **tiles)
    with pytest.raises(InputError, match="INSUFFICIENT_SPACE"):
        open_picture(tmp_path / "bomb.tif").read(0, 64)


@pytest.mark.parametrize("suffix", ["zarr", "tif"])
def test_where_a_chunk_is_damaged_the_reading_of_others_ends(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    if suffix == "zarr":
        zarr.create_array(path, data=pixels, chunks=(20, 20, 3))
        (path / "c/0/5/0").write_bytes(b"damaged")
    else:
        tifffile.imwrite(path, pixels, tile=(32, 32), compression="zlib", photometric="rgb")
        with tifffile.TiffFile(path) as tiff:
            offset = tiff.pages[0].dataoffsets[5]
        data = path.read_bytes()
        path.write_bytes(data[:offset] + b"damaged" + data[offset + 7 :])
    with pytest.raises(InputError, match=f"x.{suffix} is damaged"):
        read_picture(path)
    assert not asyncio.all_tasks(_get_loop())
