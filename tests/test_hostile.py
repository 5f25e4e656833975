"""Whatever a file or an option holds, the outcome is a valid result or one line of error, and nothing is lost."""

import json
import os
import resource
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
import zarr
from helpers import SMALL_FIT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train
from datasets.occupancy import read_occupancy, write_distances, write_occupancy
from datasets.sources import open_picture
from datasets.tasks import VALUES
from models.miner import MINER
from opt import make_parser, parse_options
from training.module import LevelModule
from utils import memory
from utils.checkpoint import load_level, save_level
from utils.errors import InputError
from utils.files import write_aside
from utils.frame import Frame
from utils.pyramid import upsample_whole
from utils.raster import computed

N_EXAMPLES = int(os.environ.get("FUZZ", 60))
fuzz = settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

damage = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True, allow_subnormal=False), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True, allow_subnormal=False), st.just(0)),
    st.tuples(st.just("grow"), st.just(0.0), st.integers(1, 100)),
)


def damaged(data: bytes, how: tuple[str, float, int]) -> bytes:
    kind, place, value = how
    at = int(place * len(data))
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
    return data[:at] if kind == "cut" else data + bytes(value)


@pytest.fixture
def copy(small_run, tmp_path) -> Path:
    for path in small_run.glob("l*.ckpt"):
        shutil.copy(path, tmp_path)
    return tmp_path


def check_message(error: InputError, name: str) -> None:
    """One line, that names the file."""
    assert "\n" not in str(error)
    assert name in str(error)


def decodes_or_says_why(folder: Path) -> torch.Tensor | None:
    try:
        return MINER.load(folder, backend="reference").decode()
    except InputError as error:
        check_message(error, ".ckpt")
        return None


@fuzz
@given(how=damage)
def test_a_damaged_checkpoint_decodes_as_it_was_or_is_refused(copy, small_run, how):
    expected = MINER.load(small_run, backend="reference").decode()
    (copy / "l0.ckpt").write_bytes(damaged((small_run / "l0.ckpt").read_bytes(), how))
    decoded = decodes_or_says_why(copy)
    assert decoded is None or torch.equal(decoded, expected)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_subnormal=False),
    st.text(max_size=5),
    st.lists(st.integers(-3, 10**12), max_size=4),
    st.sampled_from(
        [
            torch.zeros(0),
            torch.ones(3, dtype=torch.bool),
            torch.zeros(2, 2, dtype=torch.float64),
            torch.tensor(1.0),
            torch.full((35, 16, 20), torch.nan),
        ]
    ),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.fixture(scope="session")
def gabor_run(tmp_path_factory) -> Path:
    """Checkpoints like those of `small_run`, of another kind of networks."""
    folder = tmp_path_factory.mktemp("gabor_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *SMALL_FIT, "--num_epochs", "1", "--arch", "gabor", "--use_pe=false"])
        train.cli()
    return folder / "ckpts" / "small"


@pytest.mark.parametrize("kind", ["small_run", "gabor_run"])
@fuzz
@given(data=st.data())
def test_a_checkpoint_with_anything_in_it_decodes_to_its_size_or_is_refused(tmp_path, request, kind, data):
    run = request.getfixturevalue(kind)
    for path in run.glob("l*.ckpt"):
        shutil.copy(path, tmp_path)
    record = load_level(run / "l0.ckpt")
    place = record
    keys = sorted(place)
    key = data.draw(st.sampled_from(keys))
    while isinstance(place[key], dict) and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(anything)
    save_level(tmp_path / "l0.ckpt", record)
    decoded = decodes_or_says_why(tmp_path)
    assert decoded is None or decoded.shape == (3, 75, 100)


@pytest.mark.parametrize("name", ["weight.0", "bias.1", "amplitude"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_parameters_that_are_not_numbers_are_refused(command, copy, small_run, tmp_path, name, value):
    record = load_level(small_run / "l0.ckpt")
    record["network"][name][3] = value
    save_level(copy / "l0.ckpt", record)
    outcome = command("reconstruct.py", copy, "--out", tmp_path / "x.png")
    reason = "is not consistent (parameters that are not finite numbers); fit it again"
    assert outcome.status == f"error: {copy / 'l0.ckpt'} {reason}"
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("name", ["l0.ckpt", "l2.ckpt"])
def test_a_checkpoint_that_is_a_pipe_is_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(InputError, match=f"{name} is not a file, but a pipe or a device"):
        MINER.load(copy)


@fuzz
@given(data=st.data())
def test_swapped_tensors_decode_to_the_size_or_are_refused(copy, small_run, data):
    record = load_level(small_run / "l0.ckpt")
    names = sorted(record["network"])
    one, other = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    record["network"][one], record["network"][other] = record["network"][other], record["network"][one]
    save_level(copy / "l0.ckpt", record)
    decoded = decodes_or_says_why(copy)
    assert decoded is None or decoded.shape == (3, 75, 100)


def test_a_tensor_that_promises_more_than_the_file_holds_is_refused(copy, small_run):
    record = load_level(small_run / "l0.ckpt")
    record["active"] = torch.zeros(1, dtype=torch.bool).expand(2**40)
    save_level(copy / "l0.ckpt", record)
    assert decodes_or_says_why(copy) is None


@pytest.mark.parametrize("values", VALUES)
@fuzz
@given(how=damage)
def test_a_damaged_grid_is_read_or_refused(tmp_path, values, how):
    grid = np.zeros((9, 10, 11), dtype=bool)
    grid[2:5, 3:8, 1:9] = True
    frame = Frame((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if values == "occupancy":
        write_occupancy(tmp_path / "whole.npy", np.packbits(grid, axis=2), 11, frame)
    else:
        write_distances(tmp_path / "whole.npy", [grid * np.uint8(200)], grid.shape, frame)
    (tmp_path / "grid.npy").write_bytes(damaged((tmp_path / "whole.npy").read_bytes(), how))
    try:
        volume = read_occupancy(tmp_path / "grid.npy", None)
    except InputError as error:
        check_message(error, "grid.npy")
    else:
        assert volume.values.ndim == 4


PIXELS = np.add.outer(np.arange(45), 3 * np.arange(70)).astype(np.uint8)[..., None] + np.arange(3, dtype=np.uint8)
TIFFS = {
    "tiles": {"tile": (16, 16), "compression": "zlib"},
    "jpeg": {"tile": (16, 16), "compression": "jpeg"},
    "strips": {"rowsperstrip": 7, "compression": "lzw", "predictor": True},
    "plain": {},
}


def reads_or_says_why(path: Path, name: str) -> None:
    try:
        source = open_picture(path)
        rows = source.read(0, source.size[0])
    except InputError as error:
        check_message(error, name)
    else:
        assert rows.shape == (source.n_channels, *source.size)


@pytest.mark.parametrize("kind", TIFFS)
@fuzz
@given(how=damage)
def test_a_damaged_tiff_is_read_or_refused(tmp_path, kind, how):
    tifffile.imwrite(tmp_path / "whole.tif", PIXELS, photometric="rgb", **TIFFS[kind])
    (tmp_path / "x.tif").write_bytes(damaged((tmp_path / "whole.tif").read_bytes(), how))
    reads_or_says_why(tmp_path / "x.tif", "x.tif")


def test_a_tiff_that_promises_more_than_it_holds_is_refused_before_it_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", PIXELS, photometric="rgb", **TIFFS["tiles"])
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(2**30)
    with pytest.raises(InputError, match=r"x\.tif is not a readable TIFF"):
        open_picture(tmp_path / "x.tif")


@fuzz
@given(how=damage)
def test_a_damaged_png_is_as_it_was_or_refused(tmp_path, how):
    PIL.Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    (tmp_path / "x.png").write_bytes(damaged((tmp_path / "whole.png").read_bytes(), how))
    reads_or_says_why(tmp_path / "x.png", "x.png")


@pytest.mark.parametrize("zarr_format", [2, 3])
@fuzz
@given(how=damage, file=st.integers(0, 5))
def test_a_damaged_zarr_is_read_or_refused(tmp_path, zarr_format, how, file):
    folder = tmp_path / "x.zarr"
    zarr.create_array(folder, data=PIXELS, chunks=(32, 48, 3), zarr_format=zarr_format, overwrite=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[file % len(files)]
    path.write_bytes(damaged(path.read_bytes(), how))
    reads_or_says_why(folder, "x.zarr")


@fuzz
@given(how=damage)
def test_a_damaged_zarr_zip_is_read_or_refused(tmp_path, how):
    with zarr.storage.ZipStore(tmp_path / "whole.zip", mode="w") as store:
        zarr.create_array(store, data=PIXELS, chunks=(32, 48, 3))
    (tmp_path / "x.zip").write_bytes(damaged((tmp_path / "whole.zip").read_bytes(), how))
    reads_or_says_why(tmp_path / "x.zip", "x.zip")


values = st.one_of(
    st.integers().map(str), st.floats(allow_subnormal=False).map(str), st.text(min_size=1, max_size=8), st.just("")
)


@fuzz
@given(
    name=st.sampled_from(sorted(make_parser().defaults().keys() - {"config"})),
    given_values=st.lists(values, min_size=1, max_size=3),
)
def test_options_are_taken_or_refused_in_one_line(name, given_values):
    try:
        options = parse_options(["--path", "x.png", f"--{name}", *given_values])
    except InputError as error:
        named = [name, *filter(None, given_values)]
        check_message(error, next((one for one in named if one in str(error)), "unrecognized arguments"))
    else:
        assert "/" not in options.exp_name


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "/elsewhere", "..", ".hidden", "a\\b", ""])
def test_names_that_climb_out_are_refused(name):
    with pytest.raises(InputError, match="--exp_name"):
        parse_options(["--path", "x.png", "--exp_name", name])


def test_a_disk_that_is_full_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "l0.ckpt"
    write_aside(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*l0\.ckpt: File too large"):
            write_aside(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_that_promises_more_than_memory_holds_is_refused(command, tmp_path):
    header = struct.pack(">IIBBBBB", 900_000, 800_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "huge.png").write_bytes(png + struct.pack(">I", 10) + b"IDAT" + bytes(14))
    outcome = command("train.py", "--path", tmp_path / "huge.png", "--exp_name", "huge")
    assert outcome.status not in (0, None)
    assert "huge.png is 900000x800000: reading it takes 2011.7 GiB, and" in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_that_is_too_short_for_its_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    path = tmp_path / f"x.{suffix}"
    PIL.Image.fromarray(PIXELS).save(path)
    data = bytearray(path.read_bytes())
    if suffix == "jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 65500, 65500)
    else:
        data[16:24] = struct.pack(">II", 65500, 65500)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"x.{suffix} is damaged: \d+ bytes cannot hold 65500x65500 pixels"):
        open_picture(path)


def test_an_occupancy_grid_that_is_larger_than_memory_is_refused(tmp_path, monkeypatch):
    np.save(tmp_path / "grid.npy", np.zeros((10, 20, 30), dtype=bool))
    monkeypatch.setattr(memory, "available_memory", lambda: 5999)
    with pytest.raises(InputError, match=r"grid\.npy is 30x20x10: reading it takes"):
        read_occupancy(tmp_path / "grid.npy")
    monkeypatch.setattr(memory, "available_memory", lambda: 6000)
    assert read_occupancy(tmp_path / "grid.npy").values.shape == (1, 10, 20, 30)


def test_a_newer_format_is_told_from_damage(copy, small_run):
    record = load_level(small_run / "l0.ckpt")
    buffer = copy / "l0.ckpt"
    torch.save(record | {"version": 99}, buffer)
    with pytest.raises(InputError, match=r"l0\.ckpt has format version 99; this program reads version"):
        MINER.load(copy)


def test_where_fine_levels_are_missing_the_rest_decodes(command, copy, tmp_path):
    (copy / "l0.ckpt").unlink()
    assert MINER.load(copy).finest == 1
    outcome = command("reconstruct.py", copy, "--out", tmp_path / "half.png")
    assert outcome.status == 0
    assert "level 1" in outcome.error


def test_a_block_that_diverges_is_rolled_back_and_spoils_no_other(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *SMALL_FIT).status == 0
    clean = load_level(Path("ckpts/small/l0.ckpt"))
    step = LevelModule.training_step

    def planted(module, visit, index):
        step(module, visit, index)
        if module.spec.index == 0 and visit.epochs.start == 0:
            with torch.no_grad():
                module.twin.groups[0].weight[0][3] = torch.nan  # in the first period: nothing good was seen of it yet
        if module.spec.index == 0 and visit.epochs.start == 40:
            with torch.no_grad():
                module.twin.groups[0].bias[1][0] = torch.inf

    monkeypatch.setattr(LevelModule, "training_step", planted)
    outcome = command("train.py", *SMALL_FIT, "--exp_name", "sick")
    assert outcome.status == 0
    assert "note: 2 blocks diverged and were rolled back" in outcome.error
    sick = load_level(Path("ckpts/sick/l0.ckpt"))
    assert sick["diverged"] == 2
    differs = torch.zeros(len(clean["network"]["amplitude"]), dtype=torch.bool)
    for name, tensor in sick["network"].items():
        assert tensor.isfinite().all()
        differs |= (tensor != clean["network"][name]).flatten(1).any(1)
    assert differs.nonzero().flatten().tolist()[:2] == [0, 3]
    assert differs.sum() == 2
    assert (sick["network"]["weight.2"][3] == 0).all(), "silenced: the base is kept"


def test_a_block_of_a_gaussian_pyramid_that_diverges_at_once_keeps_the_base(command, tmp_path, monkeypatch):
    """Where networks predict the signal itself, one that predicts nothing would be grey."""
    monkeypatch.chdir(tmp_path)
    step = LevelModule.training_step

    def planted(module, visit, index):
        step(module, visit, index)
        if module.spec.index == 0 and visit.epochs.start == 0:
            with torch.no_grad():
                module.twin.groups[0].weight[0][3] = torch.nan

    monkeypatch.setattr(LevelModule, "training_step", planted)
    assert command("train.py", *SMALL_FIT, "--pyr", "gaussian", "--num_epochs", 40).status == 0
    model = MINER.load("ckpts/small")
    base = upsample_whole(computed(model.decode(1)), (75, 100))
    grid = model.levels[0].active_grid
    assert (~grid).sum() == 1, "all blocks of this picture were active"
    [[row, column]] = (~grid).nonzero().tolist()
    here = (slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16))
    torch.testing.assert_close(model.decode()[:, *here], base[:, *here], rtol=0, atol=1e-6)
    report = json.loads((tmp_path / "ckpts/small/metrics.json").read_text())["levels"][0]
    assert (report["diverged_blocks"], report["active_blocks"]) == (1, int(grid.sum()))
