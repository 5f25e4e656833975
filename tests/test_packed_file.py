"""One file for a fit: what is read of it is what was written, and no more is read than is needed."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from helpers import ROOT, SHAPES, is_one_line, random_network
from hypothesis import given
from hypothesis import strategies as st
from test_hostile import check_message, damage, damaged, fuzz, gabor_run  # noqa: F401

from benchmarks.ranges import served
from models.encoding import encoded_width
from models.level import Level
from models.miner import MINER
from models.networks import make_network
from models.packed.chunks import ChunkGrid, ChunkReader
from models.packed.coding import coding_of
from models.packed.file import PackedFile
from models.packed.float32 import Float32
from models.packed.inflate import inflated
from models.packed.layout import Index, beginning, pack_index, read_header, read_preface, unpack_index
from models.packed.quantised import Quantised
from models.packed.ranges import cut, merge, open_ranges
from models.shape import NetworkShape
from packing.quantise import Quantiser
from packing.write import write_packed
from utils.blocks import grid_shape
from utils.checkpoint import level_path
from utils.errors import InputError
from utils.pyramid import level_size


def packed(model: MINER, path: Path) -> Path:
    write_packed(path, model, {})
    return path


def quantised(model: MINER, error: float = 1e-3) -> tuple[MINER, dict[int, Quantised]]:
    """A fit with rounded networks, and their codings; an error of the root of the mean square a parameter."""
    found = {index: Quantiser.of(level).quantised(error) for index, level in model.levels.items() if level.n_parameters}
    return (
        model.with_levels(model.levels | {index: level for index, (level, _) in found.items()}),
        {index: coding for index, (_, coding) in found.items()},
    )


def random_model(
    size, patch_size, n_channels, n_scales, widths=(4, 7), bits=8, fill="spline", frequencies=None, **form
) -> MINER:
    """Networks of several widths with random parameters; in finer levels some blocks have none.

    Inputs
        form: of their `NetworkShape`, what is not to be that of two layers of Gaussians
    """
    generator, levels = torch.Generator().manual_seed(0), {}
    for index in range(n_scales):
        here = level_size(size, index)
        grid = grid_shape(here, patch_size)
        least = 0 if index == n_scales - 1 else -len(widths)
        group = torch.randint(least, len(widths), (int(np.prod(grid)),), generator=generator).clamp(min=-1)
        output = "sigmoid" if index == n_scales - 1 else "sine"
        shapes = [
            NetworkShape(
                encoded_width(len(size), frequencies),
                n_channels,
                n_hidden=width,
                **{"n_layers": 2, "output": output} | form,
            )
            for width in widths
        ]
        networks = [random_network(int((group == one).sum()), shape) for one, shape in enumerate(shapes)]
        of_level = (here, patch_size, frequencies, index < n_scales - 1, group.to(torch.int8), tuple(networks), fill)
        levels[index] = Level(*of_level)
    source = {"bits": bits} if len(size) == 2 else {"frame": {"centre": [0.1, 2, 3], "half_extents": [1 / 3, 1, 1e-9]}}
    return MINER(levels, n_scales=n_scales, n_channels=n_channels, size=size, source=source, options={"lr": 0.1})


@pytest.fixture(scope="module")
def large() -> MINER:
    """Many chunks: 13 x 17 of them at the finest level, and 600 pixels at the coarsest."""
    return random_model((800, 1080), (8, 8), 3, 2, widths=(16, 32))


@pytest.fixture(scope="module")
def large_file(large, tmp_path_factory) -> Path:
    return packed(large, tmp_path_factory.mktemp("large") / "large.miner")


@pytest.fixture(scope="module")
def small_file(small_run, tmp_path_factory) -> Path:
    return packed(MINER.load(small_run), tmp_path_factory.mktemp("small") / "small.miner")


def same_tensors(one: Level, other: Level) -> bool:
    pairs = zip(one.networks, other.networks, strict=True)
    states = [(mine.state_dict(), theirs.state_dict()) for mine, theirs in pairs]
    return torch.equal(one.group, other.group) and all(
        list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in states
    )


@pytest.mark.parametrize("run", ["small_run", "gabor_run"])
def test_a_file_holds_what_the_folder_holds(request, tmp_path, run):
    folder = MINER.load(request.getfixturevalue(run))
    file = MINER.load(packed(folder, tmp_path / "x.miner"))
    assert [file.decode(level).equal(folder.decode(level)) for level in range(3)] == [True] * 3
    assert all(map(torch.equal, file.decode_pyramid(), folder.decode_pyramid()))
    assert file.decode(scale=1.5).equal(folder.decode(scale=1.5))
    assert (file.size, file.n_channels, file.source, file.backend) == ((75, 100), 3, folder.source, folder.backend)
    told = folder.options | {"path": Path(folder.options["path"]).name}  # and not in which folder it lay
    assert file.options == json.loads(json.dumps(told))
    assert (file.summary, file.n_parameters, file.finest) == (folder.summary, folder.n_parameters, 0)
    assert file.decoding_bytes() > folder.decoding_bytes()


@pytest.mark.parametrize(
    ("size", "patch_size", "n_channels", "n_scales"),
    [((75, 100), (8, 8), 4, 3), ((19, 33), (4, 8), 1, 1), ((30, 21, 47), (4, 4, 4), 1, 2), ((1, 1), (8, 8), 3, 1)],
)
def test_levels_of_several_widths_come_back_bit_for_bit(tmp_path, size, patch_size, n_channels, n_scales):
    model = random_model(size, patch_size, n_channels, n_scales, widths=(3, 5, 9), bits=16)
    file = MINER.load(packed(model, tmp_path / "x.miner"), backend="reference")
    assert all(same_tensors(file.levels[index], model.levels[index]) for index in range(n_scales))
    assert all(torch.equal(file.active_grids[index], model.active_grids[index]) for index in range(n_scales))
    assert all(torch.equal(file.units(index), model.units(index)) for index in range(n_scales))
    assert (file.summary, file.source, file.decode().shape) == (model.summary, model.source, (n_channels, *size))
    assert torch.equal(file.decode(), model.decode())


def test_equal_fits_give_equal_bytes(small_run, small_file, tmp_path):
    again = packed(MINER.load(small_file), tmp_path / "again.miner")
    assert again.read_bytes() == small_file.read_bytes() == packed(MINER.load(small_run), again).read_bytes()


CROPS = [((0, 40), (0, 40)), ((793, 800), (1000, 1080)), ((100, 250), (63, 65)), ((399, 401), (0, 1080))]


@pytest.mark.parametrize("crop", CROPS)
def test_a_crop_of_a_file_is_that_of_the_whole(large, large_file, crop):
    file, rows, columns = MINER.load(large_file, backend="reference"), *(slice(*along) for along in crop)
    assert torch.equal(file.decode(crop=crop), large.decode()[:, rows, columns])
    scaled = file.decode(crop=crop, scale=2, between="networks")
    assert torch.equal(scaled, large.decode(crop=crop, scale=2, between="networks"))


def test_windows_join_to_the_whole_with_a_cache_that_holds_nothing(large, large_file):
    file = MINER.load(large_file, backend="reference")
    for level in file.levels.values():
        level.reader.most = 0
    rows = [values for _, values in file.decode_windows(most=2**16)]
    assert len(rows) > 10
    assert torch.equal(torch.cat(rows, dim=1), large.decode())
    assert file.levels[0].reader.n_bytes == 0


def test_the_cache_keeps_what_was_used_last(large_file):
    reader = ChunkReader(open_ranges(large_file))
    chunks = MINER.load(large_file).levels[0].contents.chunks
    reader.read(chunks, [0, 1, 2])
    reader.most = reader.n_bytes
    reader.read(chunks, [0])
    reader.read(chunks, [3])
    assert (0, 0) in reader.kept
    assert (0, 1) not in reader.kept
    assert 0 < reader.n_bytes <= reader.most


@pytest.mark.parametrize("crop", [((0, 800), (0, 1080)), *CROPS])
@pytest.mark.parametrize("n_rows", [10, 130, 800])
def test_no_more_memory_is_taken_for_networks_than_is_told(large_file, crop, n_rows):
    level = MINER.load(large_file).levels[0]
    told, most = level.reading_bytes(crop, n_rows), 0
    for top in range(crop[0][0], crop[0][1], n_rows):
        held = level.within(((top, min(top + n_rows, crop[0][1])), crop[1]))
        most = max(most, sum(tensor.nbytes for one in held.networks for tensor in one.state_dict().values()))
    assert 2 * most + level.reader.n_bytes <= told
    assert crop == ((0, 800), (0, 1080)) or told < level.reading_bytes(((0, 800), (0, 1080)), 800) / 3


def test_a_level_moves_to_a_device_and_stays_unread(large_file):
    level = MINER.load(large_file).levels[0].to("cpu")
    assert level.device == torch.device("cpu")
    assert "1080, 800" in repr(level)
    assert not level.reader.kept


def test_a_crop_is_read_over_a_network_in_few_bytes(large, large_file):
    crop = ((500, 540), (700, 740))
    with served(large_file.parent) as (address, asked):
        file = MINER.load(f"{address}/large.miner", backend="reference")
        assert asked == [(0, 2**16)]
        assert file.summary == large.summary
        assert len(asked) == 1, "the beginning says it"
        assert torch.equal(file.decode(crop=crop), large.decode(crop=crop))
        n_bytes, size = sum(stop - start for start, stop in asked), large_file.stat().st_size
        assert n_bytes < 2**16 + size / 15
        assert len(asked) < 12
        assert torch.equal(file.decode(crop=crop), large.decode(crop=crop))
        assert n_bytes == sum(stop - start for start, stop in asked), "kept"


def test_what_the_first_bytes_lack_is_read_once_more(large_file, monkeypatch):
    monkeypatch.setattr("models.packed.file._FIRST_READ", 40)
    end = read_preface(large_file.read_bytes(), "x").end
    with served(large_file.parent) as (address, asked):
        assert MINER.load(f"{address}/large.miner").summary == MINER.load(large_file).summary
    assert asked == [(0, 40), (40, end)]


def test_an_address_without_the_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"http://x/y\.miner: needs the package fsspec; pip install fsspec aiohttp"):
        MINER.load("http://x/y.miner")


def test_the_command_line_takes_an_address(command, small_file, small_run, tmp_path):
    with served(small_file.parent) as (address, _):
        assert command("reconstruct.py", f"{address}/small.miner", "--out", tmp_path / "a.png").status == 0
    assert command("reconstruct.py", small_run, "--out", tmp_path / "b.png").status == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_server_that_knows_no_ranges_is_refused(large_file):
    with served(large_file.parent, has_ranges=False) as (address, _), pytest.raises(InputError) as error:
        MINER.load(f"{address}/large.miner")
    assert "large.miner: the server gives other bytes than it is asked for" in str(error.value)
    assert is_one_line(str(error.value))


def test_what_a_network_answers_is_an_error_of_one_line(large_file):
    with served(large_file.parent) as (address, _), pytest.raises(InputError) as error:
        MINER.load(f"{address}/absent.miner")
    assert is_one_line(str(error.value))
    assert "404" in str(error.value)
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:1/x\.miner cannot be read \(.+\); check the address"):
        MINER.load("http://127.0.0.1:1/x.miner")
    with pytest.raises(InputError, match=r"nonsense://x\.miner cannot be read"):
        MINER.load("nonsense://x.miner")


def test_a_server_that_fails_later_is_an_error_of_one_line(large_file, tmp_path):
    shutil.copy(large_file, tmp_path / "x.miner")
    with served(tmp_path) as (address, _):
        file = MINER.load(f"{address}/x.miner")
        (tmp_path / "x.miner").unlink()
        with pytest.raises(InputError, match=r"x\.miner cannot be read"):
            file.decode()


def test_a_file_that_shrinks_while_it_is_read_is_told(large_file, tmp_path):
    shutil.copy(large_file, tmp_path / "x.miner")
    file = MINER.load(tmp_path / "x.miner")
    os.truncate(tmp_path / "x.miner", 2**16)
    with pytest.raises(InputError, match=r"x\.miner was changed while it was read"):
        file.decode()
    (tmp_path / "x.miner").unlink()
    with pytest.raises(InputError, match=r"x\.miner: No such file"):
        file.decode()


def test_spans_are_merged_over_small_gaps_and_cut_again():
    spans = [(90, 100), (0, 10), (4000, 4096), (10_000, 10_001), (10, 20), (0, 10)]
    merged = list(merge(spans))
    assert merged == [(0, 4096), (10_000, 10_001)]
    data = np.random.default_rng(0).bytes(10_001)
    assert list(cut({(a, b): data[a:b] for a, b in merged}, spans)) == [data[a:b] for a, b in spans]


@pytest.mark.parametrize("n_bytes", [1, 8, 31])
def test_a_file_of_another_kind_is_refused(tmp_path, small_file, n_bytes):
    (tmp_path / "x.miner").write_bytes(b"\x89PNG\r\n\x1a\n" * 10)
    with pytest.raises(InputError, match=r"x\.miner is not a \.miner file; name one that pack\.py wrote"):
        MINER.load(tmp_path / "x.miner")
    (tmp_path / "x.miner").write_bytes(small_file.read_bytes()[:n_bytes])
    with pytest.raises(InputError, match=r"x\.miner is (cut short|not a \.miner file)"):
        MINER.load(tmp_path / "x.miner")
    with pytest.raises(InputError, match=r"absent\.miner: no such file"):
        MINER.load(tmp_path / "absent.miner")


def with_version(data: bytes, major: int, minor: int) -> bytes:
    preface = data[:8] + struct.pack("<HH", major, minor) + data[12:28]
    return preface + struct.pack("<I", zlib.crc32(preface)) + data[32:]


def test_a_newer_version_is_told_from_damage_and_a_minor_one_is_read(tmp_path, small_file):
    path, data = tmp_path / "x.miner", small_file.read_bytes()
    path.write_bytes(with_version(data, 2, 0))
    with pytest.raises(InputError, match="has format version 2; this program reads version 1: update it"):
        MINER.load(path)
    path.write_bytes(with_version(data, 1, 7))
    assert torch.equal(MINER.load(path).decode(), MINER.load(small_file).decode())


def parts_of(path: Path) -> tuple[dict, bytes, bytes]:
    """Header, index, and what follows."""
    data = path.read_bytes()
    preface = read_preface(data, "x")
    middle = 32 + preface.header_bytes
    return read_header(data[32:middle]), data[middle : preface.end], data[preface.end :]


def test_keys_that_are_not_known_are_ignored(tmp_path, small_file):
    header, index, rest = parts_of(small_file)
    header["levels"][0]["new"] = header["new"] = [1, None]
    (tmp_path / "x.miner").write_bytes(beginning(header, index) + rest)
    assert torch.equal(MINER.load(tmp_path / "x.miner").decode(), MINER.load(small_file).decode())


def test_of_a_file_that_is_cut_short_the_coarser_levels_decode(command, large, large_file, tmp_path):
    path = tmp_path / "x.miner"
    path.write_bytes(large_file.read_bytes()[: large_file.stat().st_size // 2])
    file = MINER.load(path, backend="reference")
    assert file.finest == 1
    assert torch.equal(file.decode(1), large.decode(1))
    assert len(file.decode_pyramid()) == 1
    assert torch.equal(file.decode(crop=((0, 80), (0, 80))), large.decode(crop=((0, 80), (0, 80)))), "it is there"
    with pytest.raises(InputError, match=r"x\.miner is cut short before the networks of level 0 that this needs"):
        file.decode(crop=((720, 800), (0, 80)))
    outcome = command("reconstruct.py", path, "--out", tmp_path / "x.png")
    assert outcome.status == 0
    assert outcome.error.strip() == "note: the file is cut short; level 1 is the finest that it holds whole"
    assert command("reconstruct.py", path, "--level", 0, "--out", tmp_path / "x.png").status.startswith("error: ")
    path.write_bytes(large_file.read_bytes()[:40_000])
    with pytest.raises(InputError, match="cut short before its coarsest level ends"):
        MINER.load(path)


def test_a_level_that_leaves_detail_to_finer_ones_shows_what_is_there(tmp_path):
    model = random_model((200, 260), (8, 8), 3, 3)
    model.levels[1] = replace(model.levels[1], is_whole=False)
    data = packed(model, tmp_path / "x.miner").read_bytes()
    assert torch.equal(MINER.load(tmp_path / "x.miner", backend="reference").decode(1), model.decode(1))
    (tmp_path / "x.miner").write_bytes(data[:-1])
    del model.levels[0]
    assert torch.equal(MINER.load(tmp_path / "x.miner", backend="reference").decode(1), model.decode(1))


def test_bytes_that_follow_are_refused(tmp_path, small_file):
    (tmp_path / "x.miner").write_bytes(small_file.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"x\.miner is damaged \([\d,]+ bytes, where it has [\d,]+\); get it again"):
        MINER.load(tmp_path / "x.miner")


def test_chunks_that_are_swapped_are_refused(tmp_path):
    path = packed(random_model((16, 256), (8, 8), 1, 1), tmp_path / "x.miner")
    header, index, rest = parts_of(path)
    found = unpack_index(index, [64], 5)
    starts = np.cumsum([found.lengths[4], *found.lengths[:4]]).tolist()
    order = [2, 1, 0, 3]
    chunks = b"".join(rest[starts[number] : starts[number + 1]] for number in order)
    swapped = Index(found.active, found.lengths[[*order, 4]], found.checksums[[*order, 4]])
    path.write_bytes(beginning(header, pack_index(swapped)) + rest[: starts[0]] + chunks)
    with pytest.raises(InputError, match=r"x\.miner is damaged \(chunk 0 of level 0 is not as it was written\)"):
        MINER.load(path).decode()


def test_the_overview_is_the_coarsest_level_in_tiles(large, large_file, small_file, tmp_path):
    file = PackedFile(open_ranges(large_file))
    assert (file.pictures, file.tile_size) == ([(100, 135), (200, 270)], 256)
    tiles = [np.asarray(PIL.Image.open(BytesIO(tile))) for tile in file.tiles()]
    assert [tile.shape for tile in tiles] == [(100, 135, 3), (200, 256, 3), (200, 14, 3)]
    assert PackedFile(open_ranges(small_file)).pictures == [(19, 25)]
    [tile] = PackedFile(open_ranges(small_file)).tiles()
    expected = MINER.load(small_file).decode(2).permute(1, 2, 0).numpy() * 255
    assert np.abs(np.asarray(PIL.Image.open(BytesIO(tile))) - expected).mean() < 12
    for n_channels, bands in ((1, "RGB"), (4, "RGBA")):
        path = packed(random_model((20, 30), (8, 8), n_channels, 1), tmp_path / "x.miner")
        assert PIL.Image.open(BytesIO(PackedFile(open_ranges(path)).tiles()[0])).mode == bands
    volume = packed(random_model((9, 9, 9), (4, 4, 4), 1, 1), tmp_path / "v.miner")
    assert PackedFile(open_ranges(volume)).tiles() == []


def test_a_damaged_tile_is_refused_and_spoils_no_level(tmp_path, small_file):
    header, index, rest = parts_of(small_file)
    (tmp_path / "x.miner").write_bytes(beginning(header, index) + rest[:50] + b"\xff\0" + rest[52:])
    with pytest.raises(InputError, match=r"x\.miner is damaged \(tile 0 of its overview"):
        PackedFile(open_ranges(tmp_path / "x.miner")).tiles()
    assert torch.equal(MINER.load(tmp_path / "x.miner").decode(), MINER.load(small_file).decode())


def test_decoding_a_file_needs_no_lightning(small_file):
    code = "import sys; from models.miner import MINER; MINER.load(sys.argv[1]).decode();"
    unwanted = "{'pytorch_lightning', 'fsspec', 'cv2', 'PIL'}"
    code += f"sys.exit(str({unwanted} & sys.modules.keys()) if {unwanted} & sys.modules.keys() else 0)"
    subprocess.run([sys.executable, "-c", code, small_file], cwd=ROOT, check=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float32_is_exact_for_every_shape(shape):
    shapes = [shape, replace(shape, n_hidden=shape.n_hidden + 1)]
    coding = Float32(shapes)
    assert coding_of({"coding": coding.record(), "networks": [one.record() for one in shapes]}).shapes == shapes
    group = torch.tensor([1, 0, 0, 1, 1], dtype=torch.int8)
    networks = [random_network(2, shapes[0]), random_network(3, shapes[1])]
    decoded, parts = coding.decode(coding.encode(group, networks), 5)
    assert torch.equal(decoded, group)
    for mine, theirs in zip(networks, parts, strict=True):
        assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in mine.state_dict().items())


def test_data_that_is_not_of_its_blocks_is_refused_before_memory_is_taken():
    shape = NetworkShape(2, 3, 2, 4)
    coding = Float32([shape])
    data = coding.encode(torch.zeros(5, dtype=torch.int8), [random_network(5, shape)])
    for n_active in (1, 4, 6, 10**12):
        with pytest.raises(ValueError, match=r"compressed bytes|groups .* of 1"):
            coding.decode(data, n_active)
    for spoilt in (data[:-1], data + b"\0", b"", b"x" * 100):
        with pytest.raises(ValueError, match=r"compressed bytes|header check"):
            coding.decode(spoilt, 5)
    with pytest.raises(ValueError, match="groups 7 to 7 of 1"):
        coding.decode(zlib.compress(b"\7" * 5), 5)
    with pytest.raises(ValueError, match="cannot hold"):
        Float32([replace(shape, n_hidden=10**9)]).decode(data, 5)
    with pytest.raises(ValueError, match="cannot hold"):
        inflated(zlib.compress(bytes(100)), 2**50)


def test_chunks_cut_a_grid_into_boxes():
    grid = ChunkGrid((5, 7), (2, 3))
    assert grid.shape == (3, 3)
    assert grid.blocks(5) == ((2, 4), (6, 7))
    assert list(grid.touched(((1, 3), (0, 4)))) == [0, 1, 3, 4]
    active = np.random.default_rng(0).random((5, 7)) < 0.5
    blocks = [grid.active_blocks(number, active) for number in range(9)]
    assert grid.counts(active).tolist() == list(map(len, blocks))
    assert sorted(np.concatenate(blocks).tolist()) == np.flatnonzero(active).tolist()


def test_an_index_comes_back_and_is_small():
    """That of a picture of 1.2 gigapixels, whose fine blocks lie where coarser ones do."""
    rng, active = np.random.default_rng(0), []
    for index in range(9, -1, -1):
        grid = grid_shape(level_size((36_000, 34_000), index), (32, 32))
        parent = np.ones(grid, bool) if not active else active[-1].repeat(2, 0).repeat(2, 1)[: grid[0], : grid[1]]
        active.append(parent & (rng.random(grid) < 0.85))
    counts = np.concatenate([ChunkGrid(one.shape, (8, 8)).counts(one) for one in active])
    lengths = np.where(counts, counts * 400 + rng.integers(0, 2000, len(counts)), 0).astype(np.uint32)
    checksums = np.where(counts, rng.integers(0, 2**32, len(counts)), 0).astype(np.uint32)
    data = pack_index(Index(active, lengths, checksums))
    assert len(data) < 300_000
    found = unpack_index(data, [one.size for one in active], len(counts))
    assert np.array_equal(np.concatenate(found.active), np.concatenate([one.ravel() for one in active]))
    assert np.array_equal(found.lengths, lengths)
    assert np.array_equal(found.checksums, checksums)


def decodes_or_says_why(path: Path) -> torch.Tensor | None:
    try:
        return MINER.load(path, backend="reference").decode()
    except InputError as error:
        check_message(error, path.name)
        return None


@pytest.fixture(scope="module", params=["float32", "quantised"])
def tiny(request, tmp_path_factory) -> tuple[bytes, torch.Tensor]:
    """A file of some chunks, and its picture."""
    model, codings = random_model((40, 90), (8, 8), 3, 2), {}
    if request.param == "quantised":
        model, codings = quantised(model)
    path = tmp_path_factory.mktemp("tiny") / "x.miner"
    write_packed(path, model, codings)
    return path.read_bytes(), model.decode()


@fuzz
@given(how=damage)
def test_a_damaged_file_decodes_as_it_was_or_is_refused(tmp_path, tiny, how):
    data, expected = tiny
    (tmp_path / "x.miner").write_bytes(damaged(data, how))
    decoded = decodes_or_says_why(tmp_path / "x.miner")
    assert decoded is None or torch.equal(decoded, expected)


strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    st.text(max_size=5),
    st.lists(st.integers(-3, 10**12), max_size=4),
    st.dictionaries(st.text(max_size=3), st.none()),
)


@fuzz
@given(data=st.data())
def test_a_header_with_anything_in_it_decodes_to_its_size_or_is_refused(tmp_path, tiny, data):
    (tmp_path / "x.miner").write_bytes(tiny[0])
    header, index, rest = parts_of(tmp_path / "x.miner")
    place = header
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 3))):
            break
        place = place[key]
    place[key] = data.draw(strange)
    (tmp_path / "x.miner").write_bytes(beginning(header, index) + rest)
    decoded = decodes_or_says_why(tmp_path / "x.miner")
    assert decoded is None or decoded.shape == tiny[1].shape


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header: header.update(size=[40, 10**12]),
        lambda header: header.update(size=[10**9, 10**9]),
        lambda header: header.update(chunk=[8, 8, 8]),
        lambda header: header.update(levels=[]),
        lambda header: header["levels"].reverse(),
        lambda header: header["levels"][0].update(parameters=3),
        lambda header: header["levels"][0].update(coding={"name": "other"}),
        lambda header: header["levels"][0]["networks"][0].update(n_layers=10**9),
        lambda header: header["levels"][0]["networks"][0].update(n_hidden=10**9),
        lambda header: header["overview"].update(pictures=[[10**9, 10**9]]),
        lambda header: header["overview"].update(pictures=[[1, 2, 3]]),
    ],
)
def test_a_header_that_is_not_consistent_is_refused_in_one_line(tmp_path, tiny, spoil):
    (tmp_path / "x.miner").write_bytes(tiny[0])
    header, index, rest = parts_of(tmp_path / "x.miner")
    spoil(header)
    (tmp_path / "x.miner").write_bytes(beginning(header, index) + rest)
    with pytest.raises(InputError, match=r"x\.miner is not consistent \(.*\); pack the run again"):
        MINER.load(tmp_path / "x.miner")


def test_parameters_that_are_not_numbers_are_refused(tmp_path):
    model = random_model((20, 30), (8, 8), 3, 1)
    model.levels[0].networks[0].weight[0].data[1] = torch.nan
    with pytest.raises(InputError, match=r"x\.miner is damaged \(chunk 0 of level 0: parameters that are not finite"):
        MINER.load(packed(model, tmp_path / "x.miner")).decode()


def test_networks_of_no_block_are_of_their_group_all_the_same(tmp_path):
    model = random_model((20, 30), (8, 8), 3, 1)
    shape = replace(model.levels[0].shapes[0], n_hidden=11)
    networks = (*model.levels[0].networks, make_network(0, shape))
    model.levels[0] = replace(model.levels[0], networks=networks)
    assert same_tensors(MINER.load(packed(model, tmp_path / "x.miner")).levels[0], model.levels[0])


def test_the_program_packs_a_run_and_says_what_it_saves(command, small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("pack.py", small_run, "--loss_db", 0)
    before = sum(level_path(small_run, level).stat().st_size for level in range(3))
    n_bytes = Path("small.miner").stat().st_size
    assert outcome.out.startswith(f"small.miner: {n_bytes:,} bytes, ")
    assert f"bits a pixel, {before / n_bytes:.1f} times smaller than the checkpoints" in outcome.out
    assert torch.equal(MINER.load("small.miner").decode(), MINER.load(small_run).decode())


def test_the_program_refuses_what_it_cannot_pack(command, small_run, tmp_path):
    assert (
        command("pack.py", tmp_path / "x").status
        == f"error: {tmp_path / 'x'} is not the folder of a run; use ckpts/EXP_NAME"
    )
    assert "is a folder; choose another name" in command("pack.py", small_run, "--out", tmp_path).status
    shutil.copytree(small_run, tmp_path / "part")
    (tmp_path / "part/l0.ckpt").unlink()
    outcome = command("pack.py", tmp_path / "part", "--out", tmp_path / "x.miner")
    assert outcome.status.endswith("is not finished: level 1 is its finest so far; go on with --resume")
    assert list(tmp_path.iterdir()) == [tmp_path / "part"]
