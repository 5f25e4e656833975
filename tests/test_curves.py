"""What TensorBoard shows of a run, in both of its loaders: a run that is resumed has the curves of one that was not."""

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import SMALL_FIT, curves
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.data.server_ingester import NoDataServerError, SubprocessServerDataIngester, get_server_binary
from tensorboard.util.grpc_util import ChannelCredsType

import train
from training.curves import Curves, LevelCurves, read_records
from training.module import LevelModule
from training.part import Part

STOPPED_FIT = [*SMALL_FIT, "--num_epochs", 20, 20, 40, "--val_freq", 10, "--max_blocks", 20]


@pytest.fixture(scope="module")
def small_curves(tmp_path_factory) -> dict[str, list[tuple[int, float]]]:
    """Those of a run that is not stopped, but for the time it takes."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *map(str, STOPPED_FIT)])
        train.cli()
    found = curves(folder / "logs/small")
    del found["result/seconds"]
    return found


def curves_of_data_server(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """`curves`, as TensorBoard's data server reads them, its default on Linux."""
    try:
        binary = get_server_binary()
    except NoDataServerError:
        pytest.skip("TensorBoard has no data server here")
    server = SubprocessServerDataIngester(
        server_binary=binary, logdir=str(folder), reload_interval=5, channel_creds_type=ChannelCredsType.LOCAL
    )
    server.start()
    try:
        asked = dict(experiment_id="", plugin_name="scalars", downsample=10000)
        while not (runs := server.data_provider.read_scalars(RequestContext(), **asked)):
            time.sleep(0.01)
    finally:
        server._stdin_handle.close()
    [tags] = runs.values()
    return {tag: [(point.step, point.value) for point in points] for tag, points in tags.items()}


@pytest.fixture(params=[curves, curves_of_data_server], ids=["python", "data_server"])
def load(request) -> Callable:
    return request.param


def of_level(curves: Curves, level: int = 0, n_epochs_done: int = 0) -> LevelCurves:
    """Of three levels with 10 epochs each."""
    return curves.of_level(level, 10 * (2 - level), lambda epoch: epoch, n_epochs_done)


def log(folder: Path, level: int, epochs: range, n_epochs_done: int = 0) -> Curves:
    """What a process logs that trains a level from an epoch on."""
    whole = Curves(folder)
    one = of_level(whole, level, n_epochs_done)
    for epoch in epochs:
        one.log(epoch, {"loss": level + epoch / 100})
    return whole


def steps(found: dict[str, list[tuple[int, float]]]) -> dict[str, list[int]]:
    return {tag: [step for step, _ in points] for tag, points in found.items()}


def test_what_lies_beyond_the_state_that_is_resumed_is_dropped_on_both_axes(load, tmp_path):
    log(tmp_path, 2, range(1, 11)).close()
    log(tmp_path, 1, range(1, 9)).close()  # a later file, as if it had been resumed before
    log(tmp_path, 1, range(5, 7), n_epochs_done=4).close()
    assert steps(load(tmp_path)) == {
        "all levels/loss": list(range(1, 17)),
        "level 2/loss": list(range(1, 11)),
        "level 1/loss": list(range(1, 7)),
    }


def test_a_level_that_is_fitted_anew_loses_its_curves_and_the_results(load, tmp_path):
    whole = log(tmp_path, 1, range(1, 11))
    of_level(whole, 0).log(1, {"loss": 1.0})
    whole.log_results({"lr": 0.1}, {"psnr": 30.0})
    whole.close()
    log(tmp_path, 0, range(2, 4)).close()
    assert steps(load(tmp_path)) == {
        "all levels/loss": [*range(11, 21), 22, 23],
        "level 1/loss": list(range(1, 11)),
        "level 0/loss": [2, 3],
    }


def test_a_loader_that_watches_a_run_sees_it_resumed(tmp_path):
    events = EventAccumulator(str(tmp_path))
    log(tmp_path, 0, range(1, 9)).close()
    events.Reload()
    log(tmp_path, 0, range(4, 6), n_epochs_done=3).close()
    events.Reload()
    assert [event.step for event in events.Scalars("level 0/loss")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("damage", ["cut", "zeros", "flipped", "unreadable"])
def test_a_damaged_event_file_costs_a_note_and_what_it_held(load, tmp_path, capsys, damage):
    log(tmp_path, 2, range(1, 4)).close()
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "unreadable":
        path.unlink()
        path.symlink_to(tmp_path / "gone")
    else:
        middle = len(whole) // 2
        ends = {"cut": b"", "zeros": bytes(middle), "flipped": bytes(byte ^ 255 for byte in whole[middle:])}
        path.write_bytes(whole[:middle] + ends[damage])
    log(tmp_path, 2, range(4, 6), n_epochs_done=3).close()
    found = steps(load(tmp_path))["level 2/loss"]
    assert found[-2:] == [4, 5]
    assert found[:-2] == ([] if damage == "unreadable" else [1])
    note = capsys.readouterr().err
    assert note.startswith("" if damage == "cut" else f"note: {path} cannot be read to its end (")
    assert note.count("\n") == (damage != "cut"), "a process that is killed may leave half a record"


def test_curves_that_cannot_be_rewritten_stay_and_cost_a_note(tmp_path, monkeypatch, capsys):
    log(tmp_path, 0, range(1, 9)).close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("utils.files.os.fsync", full)
    log(tmp_path, 0, range(4, 6), n_epochs_done=3).close()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert f"note: the curves in {tmp_path} are incomplete: cannot write" in capsys.readouterr().err


def test_pictures_are_kept_as_they_are(tmp_path):
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = Curves(tmp_path)
    for epoch in (2, 4, 6):
        of_level(whole).log_picture(epoch, "image", noise)
    whole.close()
    [path] = tmp_path.iterdir()
    _, *before = [record for _, record in read_records(path)]
    log(tmp_path, 0, range(5, 6), n_epochs_done=4).close()
    _, kept, _ = sorted(tmp_path.iterdir())
    assert [record for event, record in read_records(kept) if event.summary.value] == before[:2]


def test_parts_take_the_epochs_of_one_level_in_turn():
    parts = [Part(span, *[torch.empty(0)] * 3, 60) for span in (range(40), range(40, 60))]
    assert [part.level_epoch(epoch, 30) for part in parts for epoch in (0, 15, 30)] == [0, 10, 20, 20, 25, 30]


@pytest.mark.parametrize("stop_at", [1, 3, 6, 8])
def test_a_run_that_is_stopped_and_resumed_has_the_curves_of_one_that_was_not(
    command, tmp_path, monkeypatch, small_curves, stop_at
):
    monkeypatch.chdir(tmp_path)
    judge, calls = LevelModule._judge, itertools.count()

    def stop(self) -> dict[str, float]:
        if next(calls) == stop_at:  # the losses of the period are logged, and it is not saved
            raise KeyboardInterrupt
        return judge(self)

    with monkeypatch.context() as patch:
        patch.setattr(LevelModule, "_judge", stop)
        assert command("train.py", *STOPPED_FIT).status == 130
    resumed = command("train.py", *STOPPED_FIT, "--resume")
    assert resumed.status == 0, resumed.error
    found = curves(tmp_path / "logs/small")
    del found["result/seconds"]
    assert found == small_curves
