"""How slow libraries are imported."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """While slow libraries are imported, Ctrl-C ends the program in silence: they do not all let the exception pass."""
    spin_briefly()
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with uncollected():
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def spin_briefly() -> None:
    """Let torch's threads, where GNU's OpenMP has them, spin for some 50 microseconds while they wait for each other,
    then sleep, unless the user wants otherwise; before torch is imported.

    By default they spin some milliseconds. Where another program needs a core too, that keeps it from the thread they
    wait for, and takes several times as long. Sleeping at once costs a fifth where nothing else runs.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


@contextmanager
def uncollected() -> Iterator[None]:
    """While entered, nothing looks for garbage: imports leave none, and much to look through."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
