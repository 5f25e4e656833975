"""What the command line says when it cannot go on: one line, no traceback."""

import sys
from collections.abc import Callable

import torch


class InputError(ValueError):
    """Bad input; the message names the value and what would work."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's main function; bad input and failed writes end it with one line and status 1."""
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {one_line(error)}")
    except torch.OutOfMemoryError as error:
        sys.exit(f"error: the device is out of memory, try a smaller --batch_size or --b_chunks ({one_line(error)})")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {place}{error.strerror or one_line(error)}")


def one_line(text: object) -> str:
    return " ".join(str(text).split())
