"""Errors of a command line: one line each, without a traceback."""

import re
import signal
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
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = one_line(error)[:200]
        sys.exit(f"error: out of memory; use a smaller size, network, batch, --scale or --b_chunks ({reason})")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {place}{error.strerror or one_line(error)}")
    finally:
        signal.signal(signal.SIGINT, before)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the machine or a device is out of memory; torch has no single type for that."""
    signs = "out of memory|not enough memory|(can't|cannot) allocate memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
    return isinstance(error, MemoryError) or re.search(signs, str(error), re.IGNORECASE) is not None


def size_text(size: tuple[int, ...]) -> str:
    """A size (h, w) or (d, h, w) in the order of the command line, WxH or WxHxD."""
    return "x".join(map(str, size[::-1]))


def one_line(text: object) -> str:
    return " ".join(str(text).split())
