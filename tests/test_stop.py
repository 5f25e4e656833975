"""What ends a run before all epochs are done."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from training.stop import Enough, StopSignals
from utils.errors import Interrupted
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


def test_enough_is_a_target_at_the_finest_level_or_a_deadline_at_any():
    enough = Enough(30.0, None, Ranks())
    assert not enough(1, 50.0)
    assert not enough(0, 29.9)
    assert enough(0, 30.0)
    late = Enough(None, time.perf_counter() - 1, Ranks())
    assert late(2, 0.0)
    assert late.why == "--max_seconds ran out in level 2"
    assert not Enough(None, time.perf_counter() + 100, Ranks())(0, torch.inf)
