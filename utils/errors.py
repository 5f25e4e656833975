"""What the command line says when it cannot go on: one line, no traceback."""

import re
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Bad input; the message names the value and what would work."""


class Interrupted(KeyboardInterrupt):
    """The user or the system wants the run to end; what it has done is saved."""


class KernelError(RuntimeError):
    """A kernel cannot be had here; the message says why."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's main function; bad input and failed writes end it with one line and status 1."""
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("alloc|out of memory", str(error)):
            raise
        reason = one_line(error)[:200]
        sys.exit(f"error: out of memory; a smaller size, network, batch, --scale or --b_chunks works ({reason})")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {place}{error.strerror or one_line(error)}")


def size_text(size: tuple[int, ...]) -> str:
    """A size (h, w) or (d, h, w) in the order of the command line: WxH or WxHxD."""
    return "x".join(map(str, size[::-1]))


def one_line(text: object) -> str:
    return " ".join(str(text).split())
