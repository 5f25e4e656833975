"""What the soaks have in common: their options, and the log of their cases."""

import argparse
import threading
from pathlib import Path

from benchmarks.records import make_parser


def soak_parser(doc: str, name: str) -> argparse.ArgumentParser:
    """With the options that all soaks have: --seed, --log and --out."""
    parser = make_parser(doc)
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random (default: 0)")
    parser.add_argument(
        "--log", type=Path, default=Path(f"{name}.log"), metavar="FILE", help=f"a line for every case ({name}.log)"
    )
    return parser


class Log:
    """A file of lines, which several threads may write."""

    def __init__(self, path: Path):
        self.file = path.open("w")
        self.lock = threading.Lock()

    def __call__(self, line: str) -> None:
        with self.lock:
            self.file.write(f"{line}\n")
            self.file.flush()
