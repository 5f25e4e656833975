import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partialmethod
from math import ceil

import pytest
import torch
from helpers import ASTRONAUT, ROOT, one_group

import reconstruct
from datasets.sources import read_picture
from models.block_network import init_blocks_
from models.level import Level
from models.miner import MINER, READINGS, as_scale
from models.networks import make_network
from models.ops import reference
from models.shape import NetworkShape
from utils.checkpoint import load_level, save_level
from utils.errors import InputError
from utils.figures import LEVEL_COLOURS
from utils.metrics import psnr
from utils.pyramid import FILLS, downsample, level_size, upsample_whole
from utils.raster import computed
from utils.windows import in_samples, slices


@pytest.fixture(scope="module", params=FILLS)
def model(request) -> MINER:
    """Three levels of random networks over 45 x 61 pixels, every second block active in the finer ones."""
    size, patch_size = (45, 61), (8, 8)
    levels = {}
    for index in range(3):
        length = level_size(size, index)
        n_grid = -(-length[0] // 8) * -(-length[1] // 8)
        active = torch.ones(n_grid, dtype=torch.bool) if index == 2 else torch.arange(n_grid) % 2 == 0
        output = "sigmoid" if index == 2 else "sine"
        shape = NetworkShape(n_in=16, n_out=3, n_layers=3, n_hidden=20, output=output)
        network = make_network(int(active.sum()), shape, a=0.5)
        init_blocks_(network, active.nonzero().squeeze(1), seed=5, level=index)
        group, frequencies = one_group(active), (1.0, 2.0, 4.0, 8.0)
        levels[index] = Level(length, patch_size, frequencies, index < 2, group, (network,), request.param)
    return MINER(levels, n_scales=3, n_channels=3, size=size)


SAMPLED = [
    *((1, "lanczos"), (2, "networks"), (3, "networks"), (3, "lanczos"), (1.5, "lanczos"), (2, "sharp")),
    *((0.5, "lanczos"), (0.3, "networks"), (Fraction(3, 7), "lanczos")),
]


@pytest.mark.parametrize(("scale", "between"), SAMPLED)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_decode_of_a_crop_equals_the_crop_of_the_decode(model, level, scale, between):
    height, width = model.levels[level].size
    whole = model.decode(level, scale=scale, between=between)
    assert whole.shape[1:] == tuple(ceil(n * as_scale(scale) - Fraction(1, 2)) for n in (height, width))
    for crop in [
        ((0, 3), (0, 3)),
        ((3, 9), (7, 10)),
        ((height - 4, height), (0, width)),
        ((1, height), (5, width - 1)),
    ]:
        part = model.decode(level, crop, scale, between=between)
        assert torch.equal(part, whole[:, *slices(in_samples(crop, as_scale(scale)))])


@pytest.mark.parametrize(("scale", "between"), SAMPLED)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_windows_join_to_the_whole_bit_for_bit(model, level, scale, between):
    height, width = model.levels[level].size
    for crop, most in [
        (None, 700),
        (None, 2**13),
        (((1, height - 2), (3, width - 1)), 2000),
        (((2, 6), (0, width)), 1),
        (((1, height), (5, 9)), 1),
    ]:
        whole = model.decode(level, crop, scale, between=between)
        windows, values = zip(*model.decode_windows(level, crop, scale, most=most, between=between), strict=True)
        assert torch.equal(torch.cat(values, dim=1), whole)
        rows = [window[0] for window in windows]
        assert [start for start, _ in rows[1:]] == [stop for _, stop in rows[:-1]]
        assert all(window[1:] == windows[0][1:] for window in windows)
        row_values = values[0][:, :1].numel()
        assert all(part.numel() <= max(most, row_values) for part in values)


def test_windows_of_rows_of_blocks_evaluate_each_block_once(model):
    evaluated = []

    class Counting:
        prepare = staticmethod(reference.prepare)

        @staticmethod
        def predict(network, rows, coords):
            evaluated.append((id(network), rows.tolist()))
            return reference.predict(network, rows, coords)

    counted = MINER(model.levels, n_scales=3, n_channels=3, size=model.size, backend=Counting)
    assert len(list(counted.decode_windows(most=3 * 61 * 8))) == 6
    for level in model.levels.values():
        rows = [row for network, some in evaluated if network == id(level.networks[0]) for row in some]
        assert sorted(rows) == list(range(level.networks[0].n_blocks))


@pytest.mark.parametrize(
    "arguments", [{"level": 7}, {"crop": ((0, 0), (0, 5))}, {"scale": 0}, {"scale": float("nan")}, {"between": "lines"}]
)
def test_windows_of_what_is_not_there_are_refused_at_once(model, arguments):
    with pytest.raises(InputError):
        model.decode_windows(**arguments)


@pytest.mark.parametrize("scale", [3, 5])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_odd_scales_reproduce_the_pixel_centres(model, level, scale):
    centres = slice(scale // 2, None, scale)
    assert torch.equal(model.decode(level, scale=scale)[:, centres, centres], model.decode(level))
    evaluated = model.decode(level, scale=scale, between="networks")[:, centres, centres]
    torch.testing.assert_close(evaluated, model.decode(level), rtol=0, atol=1e-6)


def test_small_scales_are_made_of_the_level_that_is_fine_enough(model):
    """At 1/2, the means of two by two pixels of level 0; at 1/4, of level 1; at 0.15, means over 10/3 of its pixels."""
    halves = downsample(model.decode()[:, :44, :60])
    torch.testing.assert_close(model.decode(scale=0.5)[:, :22, :30], halves)
    for scale, same in [(0.25, model.decode(level=1, scale=0.5)), (0.15, model.decode(level=1, scale=0.3))]:
        small = model.decode(scale=scale)
        assert torch.equal(small, same[:, : small.shape[1], : small.shape[2]])


def test_blocks_without_a_network_show_the_coarser_level_as_the_level_says(model):
    """Every second block of level 0 has none; networks add to the spline, whatever the others show."""
    coarse = computed(model.decode(level=1))
    shown = upsample_whole(coarse, model.size, model.levels[0].fill)
    decoded = model.decode()
    assert torch.equal(decoded[:, :8, 8:16], shown[:, :8, 8:16])
    assert torch.equal(model.decode_pyramid()[0], decoded)
    levels = model.levels | {0: replace(model.levels[0], fill="spline")}
    smooth = MINER(levels, n_scales=3, n_channels=3, size=model.size)
    assert torch.equal(smooth.decode()[:, :8, :8], decoded[:, :8, :8])


def test_decoding_does_not_depend_on_the_chunks(model):
    assert torch.equal(model.decode(b_chunks=1), model.decode())


def test_a_crop_touches_only_the_blocks_that_it_needs(model):
    """Blocks that a crop does not need are filled with NaN, and do not show."""
    crop = ((17, 20), (33, 39))
    needed = {  # rows and columns of the grid; at level 1 the crop and two pixels around it, the reach of the spline
        0: (slice(2, 3), slice(4, 5)),
        1: (slice(0, 2), slice(1, 3)),
        2: (slice(None), slice(None)),
    }
    spoilt = {}
    for index, level in model.levels.items():
        keep = torch.zeros_like(level.active_grid)
        keep[needed[index]] = True
        network = level.networks[0].select(torch.arange(level.networks[0].n_blocks))
        with torch.no_grad():
            network.bias[-1][~keep[level.active_grid]] = torch.nan
        spoilt[index] = replace(level, networks=(network,))
    other = MINER(spoilt, n_scales=3, n_channels=3, size=model.size)
    assert torch.equal(other.decode(crop=crop), model.decode(crop=crop))
    assert other.decode().isnan().any()
    assert other.decode(1).isnan().any()


def test_inactive_blocks_keep_the_upsampled_value(model):
    finest = model.levels[0]
    none = torch.full_like(finest.group, -1)
    bare = replace(finest, group=none, networks=(finest.networks[0].select(slice(0, 0)),))
    plain = MINER({**model.levels, 0: bare}, n_scales=3, n_channels=3, size=model.size)
    assert torch.equal(plain.decode()[:, :8, 8:16], model.decode()[:, :8, 8:16]), "block 1 is inactive"
    assert not torch.equal(plain.decode()[:, :8, :8], model.decode()[:, :8, :8]), "block 0 is active"


@pytest.mark.parametrize("crop", [((0, 0), (0, 5)), ((-1, 5), (0, 5)), ((0, 46), (0, 5)), ((5, 4), (0, 5)), ((0, 5),)])
def test_a_crop_outside_is_refused(model, crop):
    with pytest.raises(InputError, match="must lie inside level 0"):
        model.decode(crop=crop)


def test_records_come_back_and_equal_records_give_equal_bytes(model, tmp_path):
    record = model.levels[1].record()
    save_level(tmp_path / "l1.ckpt", record)
    save_level(tmp_path / "other.ckpt", record)
    assert (tmp_path / "l1.ckpt").read_bytes() == (tmp_path / "other.ckpt").read_bytes()
    level = Level.from_record(load_level(tmp_path / "l1.ckpt"))
    again = MINER({**model.levels, 1: level}, n_scales=3, n_channels=3, size=model.size)
    assert torch.equal(again.decode(), model.decode())


def test_decoding_needs_only_the_files_and_never_imports_lightning(small_run, tmp_path):
    """In a process of its own, from a copy of the checkpoints alone."""
    for path in small_run.glob("l*.ckpt"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    script = (
        "import sys; from models.miner import MINER; picture = MINER.load(sys.argv[1]).decode();"
        "print(tuple(picture.shape), [name for name in sys.modules if 'lightning' in name or name == 'datasets'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(3, 75, 100) []"


def test_a_run_without_its_finest_level_decodes_the_others(small_run, tmp_path):
    for level in (1, 2):
        (tmp_path / f"l{level}.ckpt").write_bytes((small_run / f"l{level}.ckpt").read_bytes())
    model = MINER.load(tmp_path)
    assert model.finest == 1
    assert torch.equal(model.decode(1), MINER.load(small_run).decode(1))
    with pytest.raises(InputError, match="level 0: the fit has levels 1 to 2"):
        model.decode(0)
    (tmp_path / "l2.ckpt").unlink()
    with pytest.raises(InputError, match=r"lacks l2\.ckpt"):
        MINER.load(tmp_path)


def test_damaged_and_foreign_checkpoints_are_named(small_run, tmp_path):
    with pytest.raises(InputError, match="holds no checkpoints"):
        MINER.load(tmp_path)
    whole = (small_run / "l2.ckpt").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello", whole[:100]):
        (tmp_path / "l2.ckpt").write_bytes(content)
        with pytest.raises(InputError, match=r"l2\.ckpt is (damaged|empty)"):
            MINER.load(tmp_path)
    torch.save({"weights": 1}, tmp_path / "l2.ckpt")
    with pytest.raises(InputError, match=r"l2\.ckpt is not a checkpoint of a level"):
        MINER.load(tmp_path)
    torch.save(load_level(small_run / "l2.ckpt") | {"version": 99}, tmp_path / "l2.ckpt")
    with pytest.raises(InputError, match="format version 99"):
        MINER.load(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.pop("network"),
        lambda record: record.pop("run"),
        lambda record: record["network"].pop("weight.0"),
        lambda record: record["network"].update({"bias.0": torch.zeros(3)}),
        lambda record: record.update(active=record["active"][:-1]),
        lambda record: record.update(active=None),
        lambda record: record.update(size=[25, 26]),
        lambda record: record.update(patch_size=[0, 16]),
        lambda record: record["network_shape"].update(frobnicate=1),
        lambda record: record.update(run="no run"),
        lambda record: record["run"].update(n_channels=4),
        lambda record: record["run"].update(size=[70, 100]),
    ],
)
def test_checkpoints_that_do_not_fit_together_are_named(small_run, tmp_path, spoil):
    record = load_level(small_run / "l2.ckpt")
    spoil(record)
    torch.save(record, tmp_path / "l2.ckpt")
    with pytest.raises(InputError, match=r"l2\.ckpt is not consistent"):
        MINER.load(tmp_path)


def test_a_flipped_byte_is_noticed(small_run, tmp_path):
    content = bytearray((small_run / "l2.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "l2.ckpt").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        MINER.load(tmp_path)


def test_levels_of_different_runs_are_refused(small_run, tmp_path):
    for level in (0, 1, 2):
        (tmp_path / f"l{level}.ckpt").write_bytes((small_run / f"l{level}.ckpt").read_bytes())
    record = load_level(tmp_path / "l0.ckpt")
    record["run"]["options"]["seed"] = 99
    torch.save(record, tmp_path / "l0.ckpt")
    with pytest.raises(InputError, match="different runs"):
        MINER.load(tmp_path)


def test_reconstruct_writes_what_decode_gives(command, small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = MINER.load(small_run)
    for name, arguments, expected in [
        ("whole.png", [], model.decode()),
        ("level.tif", ["--level", 1], model.decode(1)),
        ("crop.png", ["--crop", 10, 20, 30, 7], model.decode(crop=((20, 27), (10, 40)))),
        ("dense.png", ["--crop", 10, 20, 30, 7, "--scale", 4], model.decode(crop=((20, 27), (10, 40)), scale=4)),
        ("deep.png", ["--bits", 16], model.decode()),
    ]:
        outcome = command("reconstruct.py", small_run, "--out", name, *arguments)
        assert outcome.status == 0, outcome.error
        read = read_picture(name)
        assert read.bits == (16 if name == "deep.png" else 8)
        torch.testing.assert_close(read.values, expected, rtol=0, atol=0.51 / (2**read.bits - 1))


def test_reconstruct_compares_with_the_original(command, small_run, astronaut):
    outcome = command("reconstruct.py", small_run, "--original", ASTRONAUT)
    expected = psnr(MINER.load(small_run).decode(), astronaut)
    assert outcome.out.splitlines()[0] == f"PSNR : {expected:.4f} dB"
    assert 0.8 < float(outcome.out.split()[-1]) < 1
    crop = command("reconstruct.py", small_run, "--original", ASTRONAUT, "--crop", 30, 20, 40, 40, "--level", 0)
    cropped = psnr(MINER.load(small_run).decode()[:, 20:60, 30:70], astronaut[:, 20:60, 30:70])
    assert crop.out.splitlines()[0] == f"PSNR : {cropped:.4f} dB"


def test_reconstruct_outlines_the_blocks(command, small_run, tmp_path):
    outcome = command("reconstruct.py", small_run, "--out", tmp_path / "blocks.png", "--blocks")
    assert outcome.status == 0, outcome.error
    drawn = read_picture(tmp_path / "blocks.png").values
    levels = [level for level, grid in MINER.load(small_run).active_grids.items() if grid[0, 0]]
    assert torch.allclose(drawn[:, 0, 1], LEVEL_COLOURS[min(levels)]), "the finest that has a network in the corner"


@pytest.mark.parametrize(
    "arguments", [[], ["--blocks"], ["--level", 1, "--crop", 5, 3, 40, 30], ["--blocks", "--scale", 3]]
)
def test_what_reconstruct_writes_and_prints_does_not_depend_on_the_windows(
    command, small_run, tmp_path, monkeypatch, arguments
):
    if "--scale" not in arguments:
        arguments = [*arguments, "--original", ASTRONAUT]
    whole = command("reconstruct.py", small_run, "--out", tmp_path / "whole.tif", *arguments)
    assert whole.status == 0, whole.error
    monkeypatch.setattr(MINER, "decode_windows", partialmethod(MINER.decode_windows, most=1500))
    windows = command("reconstruct.py", small_run, "--out", tmp_path / "windows.tif", *arguments)
    assert windows.out == whole.out
    assert (tmp_path / "windows.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "use --out to write a file, --original to compare"),
        (["--out", "x.gif"], "suffix '.gif' cannot be written; use one of .png"),
        (["--out", "x.jpg", "--bits", "16"], "JPEG holds 8 bits"),
        (["--out", "x.png", "--level", "7"], "--level 7: the fit has levels 0 to 2"),
        (
            ["--out", "x.png", "--crop", "90", "0", "20", "20"],
            "--crop 90 0 20 20: X Y W H must lie inside the level, which is 100x75",
        ),
        (["--out", "x.png", "--scale", "0"], "--scale 0: must be a number above 0, at most 128"),
        (
            ["--out", "x.png", "--original", str(ASTRONAUT), "--scale", "2"],
            "--scale 2: has no original to compare with; use --scale 1",
        ),
        (["--out", "x.png", "--scale", "nan"], "--scale nan: must be a number above 0"),
        (["--out", "x.png", "--scale", "0.001"], "--scale 0.001: leaves no sample of 100x75 pixels; use a larger one"),
        (["--out", "x.png", "--scale", "1.5", "--between", "networks"], "--between networks takes whole ones"),
        (["--out", "x.png", "--between", "lines"], "--between lines: must be lanczos, sharp or networks"),
        (["--original", "nowhere.png"], "nowhere.png: no such file"),
        (["--original", str(ROOT / "images" / "pluto.png")], "is 1-channel, and the fit 3-channel"),
        (["--out", "x.png", "--crop", "1", "2"], "--crop 1 2: must be X Y W H"),
        (["--out", "x.png", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_reconstruct_says_what_is_wrong_in_one_line(command, small_run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = command("reconstruct.py", small_run, *arguments)
    assert outcome.status not in (0, None)
    assert message in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("between", READINGS)
def test_every_way_to_read_between_the_pixels_has_its_name_on_the_command_line(between):
    assert reconstruct.make_parser().parse_args(["ckpts", "--between", between]).between == between
