"""The page's reader of a file and its tiles, in Node: what it opens, what it asks of a server, and in which order."""

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nodes import run_module
from test_packed_file import parts_of, quantised, random_model, with_version

from models.miner import MINER
from models.packed.file import PackedFile
from models.packed.layout import beginning
from models.packed.ranges import open_ranges
from packing.write import write_packed
from utils.pyramid import downsample


def run(driver: str, *arguments: object) -> Any:
    return json.loads(run_module(driver, *arguments))


def with_means(model: MINER, *indices: int) -> MINER:
    """The same fit, in which some levels are not whole."""
    return model.with_levels(model.levels | {i: replace(model.levels[i], is_whole=False) for i in indices})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three files: an odd picture with means at odd edges, quantised; an odd volume, float32; many tiles."""
    folder = tmp_path_factory.mktemp("viewer")
    odd = with_means(random_model((202, 142), (8, 8), 3, 4, fill="lanczos"), 1, 2)
    write_packed(folder / "odd.miner", *quantised(odd))
    volume = with_means(random_model((30, 21, 47), (4, 4, 4), 1, 3), 1, 2)
    write_packed(folder / "volume.miner", volume, {})
    deep = with_means(random_model((512, 512), (8, 8), 1, 5, widths=(2,)), 1, 2, 3)
    write_packed(folder / "deep.miner", deep, {})
    return folder


NAMES = ["odd.miner", "volume.miner", "deep.miner"]


def test_a_file_is_read_as_python_reads_it(folder):
    for name, outcome in zip(NAMES, run("file.mjs", "describe", *(folder / name for name in NAMES)), strict=True):
        found, file = outcome["fit"], PackedFile(open_ranges(folder / name))
        model = MINER.load(folder / name)
        assert (tuple(found["size"]), found["nScales"]) == (model.size, model.n_scales)
        assert found["nChannels"] == model.n_channels
        assert (found["name"], found["finest"], found["bytes"]) == (name, 0, (folder / name).stat().st_size)
        pictures = [tuple(picture["size"]) for picture in (found["overview"] or {"pictures": []})["pictures"]]
        assert pictures == file.pictures
        data = (folder / name).read_bytes()
        assert [data[tile["start"] : tile["stop"]] for tile in found["tiles"]] == file.tiles()
        for level, expected in zip(found["levels"], file.levels, strict=True):
            check_level(level, expected)


def check_level(found: dict, level) -> None:
    contents, active = level.contents, level.contents.active
    assert (tuple(found["size"]), found["isThere"]) == (level.size, True)
    assert found["active"] == active.ravel().tolist()
    starts = contents.chunks.starts.tolist()
    for chunk, span, checksum in zip(found["chunks"], pairwise(starts), contents.chunks.checksums, strict=True):
        blocks = contents.grid.blocks(chunk["number"])
        assert (chunk["start"], chunk["stop"], chunk["checksum"]) == (*span, checksum)
        assert tuple(map(tuple, chunk["blocks"])) == blocks
        assert chunk["active"] == active[tuple(slice(*along) for along in blocks)].ravel().tolist()
        along = zip(blocks, level.patch_size, level.size, strict=True)
        window = [[start * patch, min(stop * patch, length)] for (start, stop), patch, length in along]
        assert chunk["window"] == window
        for rank, block in enumerate(contents.grid.active_blocks(chunk["number"], active).tolist()):
            assert found["places"][block] == {"number": chunk["number"], "rank": rank}


@pytest.mark.parametrize("name", ["odd.miner", "volume.miner"])
def test_a_damaged_beginning_is_refused_in_words(folder, name):
    [right] = run("file.mjs", "describe", folder / name)
    outcomes = run("file.mjs", "damage", folder / name, 300)
    refused = [outcome for outcome in outcomes if "error" in outcome]
    assert len(refused) > 280
    assert all(outcome["inWords"] and "\n" not in outcome["error"] for outcome in refused), outcomes
    assert all(outcome["error"].startswith("x.miner ") for outcome in refused)
    same = right["fit"] | {"name": "x.miner"}
    assert all(outcome["fit"] == same for outcome in outcomes if "fit" in outcome), "a flip that was undone by another"


STRANGE = [None, True, -1, 0, 3, 2**31, 2**70, 0.5, 1e300, "", "other", [], [1], [8, 8], [-3, 10**12], {}, {"a": None}]


def tampered(header: dict, draw: random.Random) -> dict:
    """A header, with something else somewhere in it."""
    header = json.loads(json.dumps(header))
    place = header
    while True:
        key = draw.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        if not (isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8):
            break
        place = place[key]
    place[key] = draw.choice(STRANGE)
    return header


def test_a_header_with_anything_in_it_opens_or_is_refused_in_words(folder, tmp_path):
    header, index, rest = parts_of(folder / "odd.miner")
    draw, paths = random.Random(0), []
    for number in range(300):
        paths.append(tmp_path / f"{number}.miner")
        paths[-1].write_bytes(beginning(tampered(header, draw), index) + rest)
    outcomes = run("file.mjs", "describe", *paths)
    assert all(outcome["inWords"] and "\n" not in outcome["error"] for outcome in outcomes if "error" in outcome)
    assert 100 < sum("error" in outcome for outcome in outcomes) < 300, "options may hold anything"
    assert {tuple(outcome["fit"]["size"]) for outcome in outcomes if "fit" in outcome} == {(202, 142)}


REFUSED = {
    "its coding": (
        lambda header: header["levels"][1].update(coding={"name": "new"}),
        'needs a newer viewer: the coding "new" is not known here',
    ),
    "its kind": (
        lambda header: header["levels"][0]["networks"][0].update(kind="new", activation="relu"),
        'needs a newer viewer: the kind of network "new" is not known here',
    ),
    "its output": (
        lambda header: header["levels"][0]["networks"][0].update(output="tanh"),
        'needs a newer viewer: the output "tanh"',
    ),
    "a size": (lambda header: header.update(size=[10**9, 10**9]), "is not consistent (a size of level 3"),
    "an overview": (lambda header: header["overview"].update(pictures=[[10**9, 10**9]]), "is not consistent (an index"),
    "its levels": (lambda header: header["levels"].reverse(), "levels that do not follow each other"),
    "parameters": (lambda header: header["levels"][0].update(parameters=3), "3 parameters, which are not those"),
    "blocks": (lambda header: header["levels"][0].update(blocks_by_group=[0, 0], parameters=0), "0 blocks, where"),
    "frequencies": (lambda header: header["levels"][0].update(frequencies=[]), "frequencies of level 3 that are none"),
    "width": (lambda header: header["levels"][0]["networks"][0].update(n_hidden=10**300), "a network of no size"),
}  # fmt: skip


def test_what_is_refused_is_told(folder, tmp_path):
    data, expected = (folder / "odd.miner").read_bytes(), []
    for number, (spoil, message) in enumerate(REFUSED.values()):
        header, index, rest = parts_of(folder / "odd.miner")
        spoil(header)
        (tmp_path / f"{number}.miner").write_bytes(beginning(header, index) + rest)
        expected.append(message)
    for spoilt, message in [
        (with_version(data, 2, 0), "needs a newer viewer: it has format version 2, this one reads 1"),
        (data[:100], "is cut short before its coarsest level ends; get the rest of it"),
        (data[:20], "is cut short; get it again"),
        (b"\x89PNG\r\n\x1a\n" * 10, "is not a .miner file; choose one that pack.py wrote"),
        (b"", "is not a .miner file"),
        (data + b"\0", f"is damaged ({len(data) + 1} bytes, where it has {len(data)}); get it again"),
    ]:
        (tmp_path / f"{len(expected)}.miner").write_bytes(spoilt)
        expected.append(message)
    (tmp_path / "minor.miner").write_bytes(with_version(data, 1, 7))
    names = [*range(len(expected)), "minor"]
    *outcomes, minor = run("file.mjs", "describe", *(tmp_path / f"{name}.miner" for name in names))
    for number, (outcome, message) in enumerate(zip(outcomes, expected, strict=True)):
        assert outcome["inWords"]
        assert outcome["error"].startswith(f"{number}.miner ")
        assert message in outcome["error"]
    assert minor["fit"]["size"] == [202, 142]


def decoded(file: Path, folder: Path) -> dict:
    folder.mkdir()
    return run("tiles.mjs", file, folder)


def check_shown(found: dict, folder: Path, model: MINER) -> None:
    """What tiles showed of each level is what `decode` gives, but for roundings of coarser levels that flip."""
    raw = dict(zip(sorted(model.levels), model.decode_pyramid(), strict=False)) if model.finest == 0 else {}
    for index in range(model.finest, model.n_scales):
        assert set(found["levels"][str(index)]["errors"]) == {None}
        assert found["levels"][str(index)]["isRgba"]
        assert found["levels"][str(index)]["isWindow"]
        assert found["levels"][str(index)]["units"] == model.units(index).flatten().tolist()
        check_values(folder / f"shown{index}.f32", model.decode(index))
        if raw:
            check_values(folder / f"raw{index}.f32", raw[index])


def check_values(path: Path, expected: torch.Tensor) -> None:
    values = torch.from_numpy(np.fromfile(path, np.float32)).view(expected.shape)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["odd.miner", "volume.miner"])
def test_tiles_are_what_decode_gives(folder, tmp_path, name):
    model = MINER.load(folder / name, backend="reference")
    found = decoded(folder / name, tmp_path / "out")
    check_shown(found, tmp_path / "out", model)
    corner = model.decode()[(slice(None), *[slice(0, 3)] * len(model.size))]
    for axis in range(1, corner.ndim):
        corner = torch.cat([*[corner.narrow(axis, 0, 1)] * 2, corner], dim=axis)
    torch.testing.assert_close(torch.tensor(found["edge"]), corner.flatten(), rtol=0, atol=1e-4)
    if len(model.size) == 2:
        assert (set(found["samples"]["errors"]), found["samples"]["isRgba"]) == ({None}, True)
        check_values(tmp_path / "out/enlarged.f32", model.decode(scale=3))
        halved_twice = downsample(downsample(model.decode()))
        assert (halved_twice - model.decode(2)).abs().max() > 1e-3, "or odd edges are not what this test thinks"


def test_of_a_file_that_is_cut_short_the_coarser_levels_are_shown(folder, tmp_path):
    (tmp_path / "x.miner").write_bytes((folder / "odd.miner").read_bytes()[:-1])
    found = decoded(tmp_path / "x.miner", tmp_path / "out")
    assert found["finest"] == 1
    check_shown(found, tmp_path / "out", MINER.load(tmp_path / "x.miner", backend="reference"))
    assert found["beyond"] == "x.miner is cut short before this part of level 0; get the rest of it"


def test_a_damaged_chunk_fails_where_it_is_and_nowhere_else(folder, tmp_path):
    file = PackedFile(open_ranges(folder / "odd.miner"))
    data = bytearray((folder / "odd.miner").read_bytes())
    data[int(file.levels[-1].contents.chunks.starts[5]) + 9] ^= 1
    (tmp_path / "x.miner").write_bytes(data)
    found = decoded(tmp_path / "x.miner", tmp_path / "out")
    errors = {number: error for number, error in enumerate(found["levels"]["0"]["errors"]) if error}
    assert errors == {5: "x.miner: chunk 5 of level 0 is damaged; get the file again"}
    assert [error is not None for error in found["levels"]["2"]["errors"]] == [True]
    assert [error is not None for error in found["levels"]["3"]["errors"]] == [False]
    expected = MINER.load(folder / "odd.miner", backend="reference").decode()
    expected[:, 64:128, 128:] = 0
    check_values(tmp_path / "out/shown0.f32", expected)
    assert found["stats"]["failed"] >= 3


@pytest.fixture(scope="module")
def asked() -> dict[str, Any]:
    """What came of reads of a server, by case."""
    return run("ranges.mjs")


def test_the_beginning_is_asked_for_once(asked):
    assert asked["first"] == {
        "name": "x.miner",
        "size": 2**23,
        "right": True,
        "asked": [[0, 2**16]],
        "stats": {"bytes": 2**16, "requests": 1},
    }


def test_ranges_are_merged_where_little_lies_between(asked):
    found = asked["merged"]
    assert found["right"]
    assert sorted(found["asked"]) == [
        [100_000, 230_000],
        [246_385, 250_000],
        [300_000, 310_000],
        [1_000_000, 5_000_000],
        [5_000_000, 6_000_000],
    ]
    assert found["bytes"] == 2**16 + sum(stop - start for start, stop in found["asked"])
    assert asked["sixAtOnce"] == {"right": True, "most": 6}


def test_a_request_that_nobody_waits_for_is_given_up(asked):
    assert asked["aborted"] == {
        "names": [*["AbortError"] * 4, "read"],
        "asked": [[100_000, 100_020], [4_000_000, 4_000_020]],
        "aborted": 1,
    }
    given_up = "AbortError, not in words: This operation was aborted"
    assert asked["givenUpMidway"] == {"right": True, "rest": given_up}, "what nobody waits for does not come to its end"


def test_a_request_that_fails_is_made_once_more(asked):
    assert asked["retried"]["right"]
    assert asked["retried"]["error"].startswith("x.miner cannot be read (")
    assert asked["retried"]["asked"] == [[100_000, 100_100]] * 2 + [[200_000, 200_100]] * 2


def test_a_server_that_does_not_serve_is_told_in_words(asked):
    small = {"right": True, "size": 2**20}
    assert asked["noRanges"] == {"small": small, "asked": 1, "stats": {"bytes": 2**20, "requests": 1}}
    assert (
        "x.miner: the server knows no range requests, and the file is too large" in asked["noRangesAndLarge"]["error"]
    )
    assert asked["changed"]["error"] == "x.miner was changed on the server while it was read; reload the page"
    assert asked["absent"]["error"] == "absent.miner is not on the server (404); check the address"
    assert asked["unreachable"]["error"].startswith("x.miner cannot be read (")


def test_a_file_of_the_disk_is_read_by_slices(asked):
    error = "y.miner was changed or moved while it was read; open it again"
    assert asked["local"] == {"right": True, "size": 1000, "error": error}


@pytest.fixture(scope="module")
def schedule(folder) -> dict[str, Any]:
    """How tiles of a fit were made, by case; its levels 1, 2 and 3 are means of 64 tiles of level 0."""
    return run("schedule.mjs", folder / "deep.miner")


def of_kind(tasks: list[str], *beginnings: str) -> list[int]:
    """Where tasks lie in a list."""
    return [at for at, task in enumerate(tasks) if task.startswith(beginnings)]


def test_each_tile_is_made_once_and_means_as_soon_as_may_be(schedule):
    found = schedule["depthFirst"]
    tasks, leaves, means = found["tasks"], of_kind(found["tasks"], "tile/0"), of_kind(found["tasks"], "means")
    assert len(tasks) == len(of_kind(tasks, "tile")) + len(means)
    assert (found["nLeaves"], len(means)) == (64, 16 + 4 + 1)
    assert found["nDistinct"] == len(of_kind(tasks, "tile")) == 64 + 16 + 4 + 1 + 1
    waiting = [sum(leaf < at for leaf in leaves) - 4 * number for number, at in enumerate(of_kind(tasks, "means/1"))]
    assert max(waiting) <= 4 + 2, "leaves that wait for their mean, and those of the workers"
    assert (found["reads"], found["waiting"]) == (86, 0)
    assert found["moments"] <= 4, "they are asked for together, so that they merge"


def test_tiles_are_kept_up_to_the_bound(schedule):
    found = schedule["bound"]
    assert found["last"] <= found["highest"] <= found["most"] < found["all"]
    assert schedule["tinyBound"] == {"bytes": 0, "nTasks": 64 + 16 + 4 + 1 + 1 + 21}, "what is needed is not dropped"


def test_what_is_asked_for_twice_is_made_once(schedule):
    tasks = [f"tile/{level}/0" for level in (4, 3, 2, 1, 0)]
    assert schedule["once"] == {"same": True, "own": True, "again": 0, "tasks": tasks}


def test_the_coarsest_level_comes_first_and_then_what_is_urgent(schedule):
    tasks = schedule["order"]["tasks"]
    assert tasks[0] == "tile/4/0"
    assert tasks.index("tile/0/0") < tasks.index("tile/0/63")
    assert len(tasks) == 2 + 2 * 3


def test_what_nobody_wants_any_more_is_dropped(schedule):
    found = schedule["cancelled"]
    assert [error and error[0] for error in found["errors"]] == ["AbortError", "AbortError", None]
    assert set(found["after"]) <= {"tile/1/15", "tile/2/3", "tile/0/63"}, "what the third needs is made"
    assert "tile/0/63" in found["after"]
    assert found["waiting"] == 0
    reads = schedule["cancelledReads"]
    assert [error and error[0] for error in reads["errors"]] == ["AbortError", None]
    assert reads["tasks"] == [f"tile/{level}/0" for level in (4, 3, 2, 1)]
    assert reads["nAsked"] > 40
    assert (reads["read"], reads["aborted"]) == (4, reads["nAsked"] - 4)
    error = ["Error", True, "x.miner: it is damaged"]
    assert schedule["readOnce"] == {"error": error, "reads": [1, 1, 2]}, "what was read is kept, unless it is damaged"
    assert schedule["cancelledBeforeItBegan"]["error"][0] == "AbortError"
    assert schedule["cancelledBeforeItBegan"]["tasks"] == 0


def test_a_read_that_fails_is_told_to_all_who_wait_and_to_no_others(schedule):
    found, error = schedule["failedRead"], ["Error", True, "x.miner cannot be read"]
    assert found["outcomes"] == [error, error, None]
    assert found["good"]
    assert (found["failed"], found["waiting"]) == (2, 0)
    assert found["again"] is None, "it may be there when it is asked for again"
    assert schedule["failedBelow"] == {"error": error, "ends": ["aborted"] * 4}, "what else it needs is in vain"


def test_a_worker_that_dies_is_replaced(schedule):
    found = schedule["workersThatDie"]
    assert found["outcomes"] == [["Error", False, "a worker stopped (out of memory); reload the page"], None]
    assert (found["after"], found["size"]) == ([{"echo": "d"}] * 5, 2)
    assert found["seconds"] == 0.5 * 8
    assert found["nSpawned"] == 3, "an error of one that was ended calls for no other"


def test_workers_that_never_start_are_told_in_words(schedule):
    found = schedule["workersThatNeverStart"]
    for name, in_words, message in (found["one"], found["later"]):
        assert (name, in_words) == ("Error", True)
        assert message.startswith("x.miner: a worker stopped (")
    assert found["size"] == 0


def test_tasks_wait_by_priority_and_are_not_run_once_they_are_cancelled(schedule):
    found = schedule["queue"]
    assert found["order"] == ["AbortError", "late", "soonest", "soon", "late too"], "a worker has two tasks at once"
    assert found["room"] == [1, -3 - 1]
    assert found["closed"][2] == "the fit was closed"


def test_tiles_of_the_overview_are_checked(schedule):
    found = schedule["overview"]
    assert found["right"] == {"type": "image/webp", "size": found["length"]}
    message = "x.miner is damaged (tile 0 of its overview is not as it was written); get it again"
    assert found["error"] == ["Error", True, message]
