"""How a run is stopped from outside."""

import shlex
import signal
import sys
from typing import Any

from utils.errors import Interrupted


class StopSignals:
    """While it is entered, the first SIGINT or SIGTERM asks for a stop; called, it tells whether one was."""

    def __init__(self):
        self.received: int | None = None

    def __call__(self) -> bool:
        return self.received is not None

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
            again = shlex.join(["python", *sys.argv, *([] if "--resume" in sys.argv else ["--resume"])])
            word = "terminated" if self.received == signal.SIGTERM else "interrupted"
            print(f"error: {word}; what is done is saved, this goes on: {again}", file=sys.stderr)
            sys.exit(128 + self.received)

    def _take(self, number: int, _: Any) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        print("\nstopping at the end of the visit (once more to stop at once)", file=sys.stderr)
