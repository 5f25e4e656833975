"""Occupancy grids in every kind of file."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from datasets import occupancy
from datasets.occupancy import FORMAT, HEADER, open_occupancy, read_occupancy, write_occupancy
from datasets.sources import Source
from utils.errors import InputError
from utils.frame import Frame

GRID = np.random.default_rng(0).integers(0, 2, (21, 9, 13), dtype=np.uint8)
FRAME = Frame((0.0, 1.0, 2.0), (1.0, 2.0, 3.0))


def by_slices(source: Source) -> np.ndarray:
    """All slices, by ranges that follow no byte, the last ones first: (d, h, w)."""
    edges = sorted({0, 1, *range(6, source.size[0], 11), source.size[0]})
    ranges = [source.read(start, stop)[0] for start, stop in reversed(list(pairwise(edges)))]
    return np.concatenate(ranges[::-1])


def occupancy_files(folder: Path, grid: np.ndarray) -> list[tuple[Path, tuple[int, int, int] | None]]:
    """The grid in every kind of file, and the size that it needs to be given."""
    packed = np.packbits(grid, axis=2)
    write_occupancy(folder / "file.npy", packed, grid.shape[2], FRAME)
    record = np.zeros((), [*HEADER.descr, ("bits", "u1", packed.shape)])
    record["format"], record["size"], record["bits"] = FORMAT, grid.shape, packed
    record["half_extents"] = FRAME.half_extents
    np.save(folder / "record.npy", record)
    np.save(folder / "bytes.npy", grid)
    np.save(folder / "bools.npy", np.asfortranarray(grid.astype(bool)))
    np.save(folder / "flat.npy", np.packbits(grid.transpose(1, 2, 0)))
    names = ("file", "record", "bytes", "bools", "flat")
    return [(folder / f"{name}.npy", grid.shape if name == "flat" else None) for name in names]


@pytest.mark.parametrize("depth", [21, 16, 1])
@pytest.mark.parametrize("values_at_once", [1, 2**22])
def test_slices_of_occupancy_are_those_of_the_grid(tmp_path, monkeypatch, depth, values_at_once):
    monkeypatch.setattr(occupancy, "_VALUES_AT_ONCE", values_at_once)
    grid = GRID[:depth]
    for path, size in occupancy_files(tmp_path, grid):
        source = open_occupancy(path, size)
        assert (source.size, source.n_channels, source.bits) == (grid.shape, 1, 1)
        assert np.array_equal(by_slices(source), grid), path
    assert open_occupancy(tmp_path / "file.npy").frame == FRAME


def test_values_other_than_0_and_1_are_refused_where_they_are_read(tmp_path):
    grid = GRID.copy()
    grid[7, 3, 3] = 2
    np.save(tmp_path / "x.npy", grid)
    source = open_occupancy(tmp_path / "x.npy")
    assert np.array_equal(source.read(0, 7)[0], grid[:7])
    with pytest.raises(InputError, match=r"x\.npy holds values other than 0 and 1"):
        source.read(5, 8)


def test_a_grid_of_more_than_2_GiB_is_read_by_slices(tmp_path):
    header = np.zeros((), HEADER)
    header["format"], header["size"] = FORMAT, (4096, 4096, 2048)
    header["half_extents"] = FRAME.half_extents
    np.save(tmp_path / "x.npy", header)
    with (tmp_path / "x.npy").open("r+b") as file:
        end = file.seek(0, 2) + 4096 * 4096 * 256
        file.seek(end - 1)
        file.write(b"\1")
    source = open_occupancy(tmp_path / "x.npy")
    assert source.size == (4096, 4096, 2048)
    last = source.read(4094, 4096)
    assert last.shape == (1, 2, 4096, 2048)
    assert np.argwhere(last).tolist() == [[0, 1, 4095, 2047]]


@pytest.mark.parametrize("n", [1, 7, 16, 19])
def test_files_know_their_size_and_frame(tmp_path, n):
    grid = np.random.default_rng(0).integers(0, 2, (n, n, n), dtype=np.uint8)
    write_occupancy(tmp_path / "l.npy", np.packbits(grid, axis=2), n, FRAME)
    volume = read_occupancy(tmp_path / "l.npy")
    assert volume.frame == FRAME
    assert np.array_equal(volume.values[0].numpy(), grid)
    with pytest.raises(InputError, match=rf"holds {n}x{n}x{n} voxels, not the 5x5x5 of --input_size"):
        read_occupancy(tmp_path / "l.npy", (5, 5, 5))


def test_flat_files_are_packed_from_y_x_z(tmp_path):
    grid = np.random.default_rng(0).random((3, 4, 5)) > 0.5  # [z, y, x]
    np.save(tmp_path / "flat.npy", np.packbits(grid.transpose(1, 2, 0)))
    assert np.array_equal(read_occupancy(tmp_path / "flat.npy", (3, 4, 5)).values[0].numpy(), grid)
    with pytest.raises(InputError, match="add --input_size"):
        read_occupancy(tmp_path / "flat.npy")
    with pytest.raises(InputError, match="holds 8 bytes, and --input_size 8x8x8 needs 64; use the size"):
        read_occupancy(tmp_path / "flat.npy", (8, 8, 8))


def test_plain_arrays_are_read_and_others_named(tmp_path):
    grid = np.random.default_rng(0).random((3, 4, 5)) > 0.5
    np.save(tmp_path / "plain.npy", grid)
    assert np.array_equal(read_occupancy(tmp_path / "plain.npy").values[0].numpy(), grid)
    for name, array, message in [
        ("floats", grid.astype(float), "float64 values of shape"),
        ("counts", grid.astype(np.uint8) * 7, "values other than 0 and 1"),
        ("empty", np.zeros((0, 3, 3), bool), "values other than 0 and 1, or none"),
    ]:
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(InputError, match=message):
            read_occupancy(tmp_path / f"{name}.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(InputError, match=r"is not a readable \.npy file"):
        read_occupancy(tmp_path / "text.npy")


def test_files_of_earlier_versions_are_read(tmp_path):
    """Their headers also hold what the grid was made of."""
    write_occupancy(tmp_path / "x.npy", np.packbits(GRID, axis=2), GRID.shape[2], FRAME)
    new = (tmp_path / "x.npy").read_bytes()
    header = np.load(tmp_path / "x.npy")
    header["origin"] = b'{"mesh": "spot.obj", "N": 512}'
    with (tmp_path / "old.npy").open("wb") as file:
        np.save(file, header)
        file.write(np.packbits(GRID, axis=2).tobytes())
    assert len((tmp_path / "old.npy").read_bytes()) == len(new)
    source = open_occupancy(tmp_path / "old.npy")
    assert source.frame == FRAME
    assert np.array_equal(by_slices(source), GRID)
