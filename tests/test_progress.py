"""How long a run still takes, and how it is told."""

import math
import sys
from types import SimpleNamespace

import pytest
from helpers import SMALL_FIT

from training import display
from training.display import Display, Standing
from training.progress import Pace, finer_blocks, other_seconds_left, training_left
from utils.metrics import psnr


def test_finer_levels_have_at_most_the_blocks_inside_active_ones_and_those_of_their_grids():
    assert finer_blocks(3, [16, 40, 1000], n_dims=2) == [12, 40, 160]
    assert finer_blocks(3, [64], n_dims=3) == [24]
    assert finer_blocks(0, [64, 256], n_dims=2) == [0, 0]
    assert finer_blocks(5, [], n_dims=2) == []


def test_what_is_left_counts_the_part_and_the_parts_that_wait():
    assert training_left(7, 30, 0, 50) == 210
    assert training_left(7, 30, 5, 50) == 210 + 250


def test_what_a_run_takes_besides_training_follows_the_points_that_are_left():
    assert other_seconds_left([100, 25, 9], 0) < other_seconds_left([100, 25, 9], 1)
    assert other_seconds_left([100, 25, 9], 1) < other_seconds_left([100, 25, 9], 2)
    assert other_seconds_left([200, 50], 1) == pytest.approx(2 * other_seconds_left([100, 25], 1))


def paced(*levels: tuple[float, float]) -> Pace:
    """After levels of some block-epochs and seconds."""
    pace = Pace()
    for work, seconds in levels:
        pace.start_level()
        pace.add(work, seconds)
    return pace


def test_at_a_constant_pace_with_known_blocks_the_estimate_is_exact():
    """Two levels of 4 and 16 blocks, 50 and 200 epochs, a hundredth of a second for a block's epoch."""
    pace, passed, total = Pace(), 0.0, (4 * 50 + 16 * 200) / 100
    for level, n_blocks, n_epochs in ((1, 4, 50), (0, 16, 200)):
        pace.start_level()
        for epoch in range(10, n_epochs + 1, 10):
            pace.add(n_blocks * 10, n_blocks * 10 / 100)
            passed += n_blocks * 10 / 100
            finer = sum(blocks * 200 for blocks in finer_blocks(n_blocks, [16][:level], 2))
            left = pace.seconds_for(training_left(n_blocks, n_epochs - epoch, 0, n_epochs), finer)
            assert left is None if passed < 1 else left == pytest.approx(total - passed)


def test_a_level_of_few_blocks_is_slow_and_says_little_of_finer_ones():
    pace = paced((1000, 1.0), (200, 2.0))
    assert pace.seconds_for(100, 0) == pytest.approx(1.0)
    assert pace.seconds_for(0, 5000) == pytest.approx(5.0)
    assert paced((1000, 1.0), (0, 0)).seconds_for(100, 0) == pytest.approx(0.1), "the level has just begun"


def test_blocks_that_converge_make_it_shorter():
    pace = paced((1000, 10.0))
    assert pace.seconds_for(training_left(8, 50, 0, 100), 0) == pytest.approx(4)
    assert pace.seconds_for(training_left(3, 50, 0, 100), 0) == pytest.approx(1.5)


def test_too_early_nothing_is_told():
    assert Pace().seconds_for(100, 0) is None
    assert paced((0, 5.0)).seconds_for(100, 0) is None
    assert paced((10, 0.5)).seconds_for(100, 0) is None


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(display.time, "perf_counter", lambda: now.seconds)
    return now


def spec(index: int, n_epochs: int) -> SimpleNamespace:
    return SimpleNamespace(index=index, n_epochs=n_epochs, patch_size=(32, 32), is_whole=True)


def train(shown: Display, clock: SimpleNamespace, level: SimpleNamespace, n_blocks: int, seconds: float) -> None:
    """A level in ten validations."""
    with shown.level(level, n_blocks):
        shown.start(Standing(0, 0, n_blocks, 0, 20.0))
        for tenth in range(1, 11):
            clock.seconds += seconds / 10
            epoch = level.n_epochs * tenth / 10
            shown.update(Standing(epoch, epoch, n_blocks, 0, 20.0 + tenth), is_validated=True)


def test_lines_are_few_and_every_level_ends_with_one(clock, capsys):
    specs = [spec(0, 100), spec(1, 50)]
    shown = Display(specs, [16, 4], psnr, math.inf, is_silent=False)
    train(shown, clock, specs[1], 4, seconds=4)
    train(shown, clock, specs[0], 16, seconds=32)
    out, error = capsys.readouterr()
    assert out == ""
    assert "\r" not in error
    first, *middle, last = error.splitlines()
    assert first == "level 1: epoch 50/50, PSNR 30.00 dB, 4 blocks in 4.0 s, about 00:33 left"
    assert last.startswith("level 0: epoch 100/100, PSNR 30.00 dB, 16 blocks in 32.0 s, about 00:0")
    assert 3 <= len(middle) <= 6
    assert all(line.startswith("level 0: epoch ") and line.endswith(" left") for line in middle)


def test_no_more_is_told_than_the_time_that_is_left(clock, capsys):
    specs = [spec(0, 100), spec(1, 50)]
    shown = Display(specs, [16, 4], psnr, 6.9, is_silent=False)
    train(shown, clock, specs[1], 4, seconds=4)
    assert capsys.readouterr().err.endswith("in 4.0 s, about 00:03 left\n")
    train(shown, clock, specs[0], 16, seconds=4)
    assert capsys.readouterr().err.endswith("in 4.0 s, about 00:00 left\n")


def test_what_goes_row_by_row_has_a_bar_on_a_terminal_alone_that_goes_away(clock, capsys, monkeypatch):
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with Display([spec(0, 100)], [16], psnr, math.inf, is_silent=False).rows("reading back", 10) as done:
            clock.seconds += 1
            done(5)
        assert ("reading back: |" in capsys.readouterr().err) == is_terminal


def test_a_level_without_active_blocks_and_one_that_time_has_left_no_room_for_are_told(clock, capsys):
    specs = [spec(0, 100), spec(1, 50)]
    shown = Display(specs, [16, 4], psnr, math.inf, is_silent=False)
    with shown.level(specs[1], 0):
        pass
    with shown.level(specs[0], 16):
        pass
    assert capsys.readouterr().err == "level 1: no block is active\nlevel 0: no block is trained\n"


def test_a_level_that_fails_is_not_told_as_done(clock, capsys):
    shown = Display([spec(0, 100)], [16], psnr, math.inf, is_silent=False)
    with pytest.raises(KeyboardInterrupt), shown.level(spec(0, 100), 16):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_silence_is_silent(clock, capsys, monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    train(Display([spec(0, 100)], [16], psnr, math.inf, is_silent=True), clock, spec(0, 100), 16, seconds=100)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar_for_each_level_that_ends_with_its_time(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = Display([spec(0, 100)], [16], psnr, 50.0, is_silent=False)
    train(shown, clock, spec(0, 100), 16, seconds=40)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    frames = error.split("\r")
    assert "epoch 90/100, PSNR 29.00 dB, 16 blocks, about 00:" in error
    assert frames[-1].rstrip().endswith("| epoch 100/100, PSNR 30.00 dB, 16 blocks in 40.0 s")
    assert max(len(frame.rstrip("\n")) for frame in frames) <= 80


def test_a_quiet_run_prints_notes_alone(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = [*SMALL_FIT, "--num_epochs", 1, "--quiet"]
    done = command("train.py", *fit, "--input_size", 1000, 600, "--loss_thr", 0.01)
    note = f"note: {SMALL_FIT[1]} is 512x512 and is enlarged to 1000x600\n"
    assert (done.status, done.out, done.error) == (0, "", note)
    assert (tmp_path / "ckpts/small/metrics.json").exists()
    again = command("train.py", *fit, "--input_size", 1000, 600, "--loss_thr", 0.01, "--resume")
    assert (again.status, again.out, again.error) == (0, "", note), "it is finished"
    refused = command("train.py", *fit)
    assert (refused.status[:6], refused.out) == ("error:", "")
    assert command("train.py", *SMALL_FIT, "--dry_run", "--quiet").out == ""
