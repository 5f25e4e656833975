"""Errors of a command line: one line each, without a traceback."""

import os
import re
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Bad input; the message names the value and what to try."""


class Interrupted(Exception):
    """The user or the system wants the run to end; its progress is saved."""


class KernelError(RuntimeError):
    """A kernel is not available here; the message says why."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's main function; bad input and failed writes end it with one line and status 1."""
    status = _status_of(main)
    lost = _flush_output()
    if status or lost:
        sys.exit(status or lost)


def _status_of(main: Callable[[], None]) -> int | str | None:
    """What a command line ends with: its exit status, or a line of error."""
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
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return f"error: {place}{error.strerror or one_line(error)}"
    return None


def _flush_output() -> str | None:
    """Write what is left of the output; a line of error where it cannot be."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at exit
        return f"error: the output cannot be written: {error.strerror or one_line(error)}"
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the machine or a device is out of memory; torch has no single type for that."""
    signs = "out of memory|not enough memory|(can't|cannot) allocate memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
    return isinstance(error, MemoryError) or re.search(signs, str(error), re.IGNORECASE) is not None


def size_text(size: tuple[int, ...]) -> str:
    """A size (h, w) or (d, h, w) in the order of the command line, WxH or WxHxD."""
    return "x".join(map(str, size[::-1]))


def one_line(text: object) -> str:
    return " ".join(str(text).split())
