"""Fit a signal, level by level, coarse to fine."""

import signal
import time

_STARTED = time.perf_counter()
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import sys
from pathlib import Path

from opt import parse_options
from utils.errors import run_command
from utils.files import check_exists
from utils.imports import importing
from utils.launchers import is_launched


def main(started: float) -> None:
    """
    Inputs
        started: `time.perf_counter()` when the run began
    """
    argv = sys.argv[1:]
    if not is_launched():  # several processes parse together, and one of them tells an error
        check_exists(Path(parse_options(argv).path))
    with importing():  # torch and Lightning load slowly: errors and the help do without
        from training.session import run
    run(argv, started)


def cli(started: float | None = None) -> None:
    """
    Inputs
        started: `time.perf_counter()` when the run began; None for now
    """
    started = time.perf_counter() if started is None else started
    run_command(lambda: main(started))


if __name__ == "__main__":
    cli(_STARTED)
