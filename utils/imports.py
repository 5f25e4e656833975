"""How slow libraries are imported."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """While slow libraries are imported, Ctrl-C ends the program in silence: they do not all let the exception pass.

    Torch then has threads that sleep while they wait for each other, unless the user wants otherwise: where another
    program needs a core too, those that spin keep it from the one that they wait for, and take several times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # which is read once
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with uncollected():
            yield
    finally:
        signal.signal(signal.SIGINT, before)


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
