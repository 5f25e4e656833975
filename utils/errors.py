"""Errors of a command line: one line each, without a traceback."""

import os
import re
import signal
import sys
from collections.abc import Callable

_BROKEN_PIPE = 128 + 13  # how shells report a program that SIGPIPE has ended


class InputError(ValueError):
    """Bad input; the message names the value and what to try."""


class Interrupted(Exception):
    """The user or the system wants the run to end; its progress is saved."""


class KernelError(RuntimeError):
    """A kernel is not available here; the message says why."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's main function; bad input and failed writes end it with one line and status 1.

    Closed streams do not matter. Where a reader of the output leaves, as `head` does, the program ends in silence with
    status 141, as a shell would report it.
    """
    _open_streams()
    end = _run(main)
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        lost = f"error: the output cannot be written: {error.strerror}"
        end = end or (_BROKEN_PIPE if isinstance(error, BrokenPipeError) else lost)
    if end:
        sys.exit(end)


def _run(main: Callable[[], None]) -> int | str | None:
    """What `sys.exit` takes for how a main function has ended."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except SystemExit as end:
        return end.code
    except InputError as error:
        return f"error: {one_line(error)}"
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = one_line(error)[:200]
        return f"error: out of memory; use a smaller size, network, batch, --scale or --b_chunks ({reason})"
    except BrokenPipeError:
        return _BROKEN_PIPE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return f"error: {place}{error.strerror or one_line(error)}"
    finally:
        signal.signal(signal.SIGINT, before)


def _open_streams() -> None:
    """Put empty streams in the place of closed ones: a file that is opened later would be taken for them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest one that is free, so that of the stream
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the machine or a device is out of memory; torch has no single type for that."""
    signs = "out of memory|not enough memory|(can't|cannot) allocate memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
    return isinstance(error, MemoryError) or re.search(signs, str(error), re.IGNORECASE) is not None


def size_text(size: tuple[int, ...]) -> str:
    """A size (h, w) or (d, h, w) in the order of the command line, WxH or WxHxD."""
    return "x".join(map(str, size[::-1]))


def one_line(text: object) -> str:
    return " ".join(str(text).split())
