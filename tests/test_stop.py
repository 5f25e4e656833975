"""What ends a run before all epochs are done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import ASTRONAUT, ROOT

from training.stop import Enough, StopSignals, resumable
from utils.errors import Interrupted, run_command
from utils.ranks import Ranks


def ranks_in_which(happens) -> SimpleNamespace:
    """Two processes, in which something happens while this one waits for the other."""

    def largest(value: int) -> int:
        happens()
        return int(value)

    return SimpleNamespace(size=2, rank=1, is_first=False, max=largest)


def test_a_signal_that_arrives_while_a_process_waits_for_another_is_not_lost():
    signals = [signal.SIGTERM]
    ranks = ranks_in_which(lambda: [os.kill(os.getpid(), signals.pop()) for _ in signals[:1]])
    with StopSignals(ranks) as stop:
        assert not stop(), "the others have not heard of it yet"
        assert stop()
        assert stop(), "and for good"


def test_what_one_process_receives_stops_all_and_does_not_count_as_another_signal():
    ranks = SimpleNamespace(size=2, is_first=True, max=lambda value: max(value, signal.SIGTERM))

    def run() -> None:
        with StopSignals(ranks) as stop:
            assert stop()
            os.kill(os.getpid(), signal.SIGTERM)  # the first one of its own
            assert stop()
            raise Interrupted

    with pytest.raises(SystemExit, match="143"):
        run()


def test_a_second_signal_stops_at_once():
    with StopSignals(Ranks()):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_reader_of_the_output_that_leaves_is_not_a_write_that_failed():
    with pytest.raises(BrokenPipeError), resumable():
        raise BrokenPipeError


def test_enough_is_a_target_at_the_finest_level_or_a_deadline_at_any():
    enough = Enough(30.0, None, Ranks())
    assert not enough(1, 50.0)
    assert not enough(0, 29.9)
    assert enough(0, 30.0)
    late = Enough(None, time.perf_counter() - 1, Ranks())
    assert late(2, 0.0)
    assert late.why == "--max_seconds ran out in level 2"
    assert not Enough(None, time.perf_counter() + 100, Ranks())(0, torch.inf)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at what a process has loaded")
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("train.py", ["--path", ASTRONAUT, "--dry_run"]),
        ("reconstruct.py", ["ckpts/x", "--dry_run", "--out", "x.png"]),
        ("preprocess_mesh.py", ["--path", ROOT / "meshes" / "spot.obj", "--N", "8"]),
    ],
)
def test_an_interrupt_during_the_imports_ends_a_program_in_silence(program, arguments, tmp_path):
    command = [sys.executable, ROOT / program, *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while "numpy" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert (process.returncode, error) == (-signal.SIGINT, "")


def test_an_interrupt_is_told_in_one_line_and_handled_as_before_afterwards(capsys):
    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit, match="130"):
        run_command(interrupted)
    assert capsys.readouterr().err == "error: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before
