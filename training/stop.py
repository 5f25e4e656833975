"""How a run is stopped: by a signal, or because it is good enough or out of time."""

import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from utils.bars import tqdm
from utils.errors import InputError, Interrupted
from utils.files import WriteError, unwritable
from utils.ranks import Ranks


def resuming_command() -> str:
    """The command that resumes this run."""
    return shlex.join(["python", *sys.argv, *([] if "--resume" in sys.argv else ["--resume"])])


@contextmanager
def resumable() -> Iterator[None]:
    """A write that fails ends the run with one line: the file, the reason, what to try and how to resume.

    Errors
        InputError for any OSError and WriteError, but for a reader of the output that has left
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        failed = unwritable(error.filename or "a file", error)
        raise InputError(f"{failed}; resume with: {resuming_command()}") from error
    except WriteError as error:
        raise InputError(f"{error}; resume with: {resuming_command()}") from error


class StopSignals:
    """While entered, the first SIGINT or SIGTERM that any process receives asks all of them to stop.

    All processes call it together; it tells whether one was asked. A second signal to the same process stops that
    process at once. While it is not entered, signals are left alone.
    """

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self.before: dict[signal.Signals, Any] = {}  # handlers
        self.received = 0  # by this process; a handler may set it at any moment
        self.agreed = 0  # by all

    def __call__(self) -> bool:
        self.agreed = self.ranks.max(max(self.received, self.agreed))
        return self.agreed != 0

    def __enter__(self) -> "StopSignals":
        self.before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        return self

    def listen(self) -> None:
        """Take the signals (back)."""
        for number in self.before:
            signal.signal(number, self._take)

    def __exit__(self, kind: type | None, error: BaseException | None, _: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if isinstance(error, Interrupted):
            if self.ranks.is_first:
                word = "terminated" if self.agreed == signal.SIGTERM else "interrupted"
                print(f"error: {word}; progress saved; resume with: {resuming_command()}", file=sys.stderr)
            sys.exit(128 + self.agreed)

    def _take(self, number: int, _: Any) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = int(number)
        if self.ranks.is_first and number == signal.SIGINT:
            text = "stopping at the end of the visit (press Ctrl-C again to stop at once)"
            tqdm.write(text, file=sys.stderr)  # above the progress bar


class Enough:
    """When a run ends early, by a target or a time limit; asked by all processes together.

    Blocks that have not been trained by then, those of finer levels too, keep what the coarser levels predict.

    Inputs
        target: quality of the finest level at which the run ends, or None
        deadline: `time.perf_counter()` after which it ends, or None
    """

    def __init__(self, target: float | None, deadline: float | None, ranks: Ranks):
        self.target = target
        self.deadline = math.inf if deadline is None else deadline
        self.ranks = ranks
        self.why: str | None = None

    def __call__(self, level: int, quality: float) -> bool:
        """After a validation of a level: how good the level is then."""
        if self.ranks.max(time.perf_counter() > self.deadline):
            self.why = f"--max_seconds ran out in level {level}"
        return self.is_reached(level, quality) or self.why is not None

    def is_reached(self, level: int, quality: float) -> bool:
        """Whether a level is as good as the target; the first process alone knows the quality of all parts."""
        if level > 0 or self.target is None or not self.ranks.share(quality >= self.target):
            return False
        self.why = self.why or "the target is reached"
        return True
