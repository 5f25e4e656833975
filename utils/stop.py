"""How a run is stopped from outside."""

import shlex
import signal
import sys
import time
from typing import Any

from utils.errors import Interrupted
from utils.ranks import Ranks

_ECHO = 2  # seconds in which a second signal is the first one, passed on by a launcher


def resuming_command() -> str:
    """The command line of this process, with which it goes on."""
    return shlex.join(["python", *sys.argv, *([] if "--resume" in sys.argv else ["--resume"])])


class StopSignals:
    """While it is entered, the first SIGINT or SIGTERM that any of the processes gets asks all for a stop; called by
    all, it tells whether one was."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self.received = 0
        self.received_at = 0.0

    def __call__(self) -> bool:
        self.received = self.ranks.max(self.received)
        return self.received != 0

    def __enter__(self) -> "StopSignals":
        numbers = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.getsignal(number) for number in numbers}
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
            word = "terminated" if self.received == signal.SIGTERM else "interrupted"
            if self.ranks.is_first:
                print(f"error: {word}; what is done is saved, this goes on: {resuming_command()}", file=sys.stderr)
            sys.exit(128 + self.received)

    def _take(self, number: int, _: Any) -> None:
        if self.received and self.ranks.size > 1 and time.monotonic() - self.received_at < _ECHO:
            return
        if self.received:
            raise KeyboardInterrupt
        self.received, self.received_at = int(number), time.monotonic()
        if self.ranks.is_first:
            print("\nstopping at the end of the visit (once more to stop at once)", file=sys.stderr)
