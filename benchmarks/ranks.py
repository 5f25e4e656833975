"""What processes gain: one process of one thread, two of one thread each, and two runs side by side.

    python -m benchmarks.ranks PICTURE [BACKEND] [--out FILE] [-- OPTIONS OF train.py]

The seconds are those of the fit, without imports and reading. Two independent runs side by side share the machine's
caches and memory as two processes of one run do, so their speed-up is the most that two processes can reach.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.records import Printer, make_parser, parse_with_rest

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
_OPTIONS = [
    *("--input_size", "2048", "2048", "--n_scales", "4", "--use_pe", "--n_layers", "3"),
    *("--num_epochs", "50", "50", "50", "150"),
]
_REPEATS = 3


def start(folder: str, arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(TRAIN), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def seconds(runs: list[list[str]]) -> float:
    """Of the slowest of some commands that are started together."""
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place, str(number)) for number in range(len(runs))]
        for folder in folders:
            folder.mkdir()
        processes = [start(str(folder), run) for folder, run in zip(folders, runs, strict=True)]
        if any(process.wait() for process in processes):
            raise SystemExit("a run failed")
        reports = [json.loads((folder / "ckpts/exp/metrics.json").read_text()) for folder in folders]
    return max(report["seconds"]["fit"] for report in reports)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("backend", nargs="?", default="auto")
    own, options = parse_with_rest(parser)
    command = ["--path", str(own.picture.resolve()), "--accelerator", "cpu", *(options or _OPTIONS)]
    command += ["--backend", own.backend]
    columns = ["one process, s", "two, s", "speed-up", "two independent runs, s", "their speed-up", "ratio"]
    table = Printer("What a second process gains", columns, own.out, f"median of {_REPEATS}")
    alone, both, beside = [], [], []
    for _ in range(_REPEATS):
        alone.append(seconds([command]))
        both.append(seconds([[*command, "--devices", "2"]]))
        beside.append(seconds([command, command]))
    one, two, independent = map(statistics.median, (alone, both, beside))
    speed_up, possible = one / two, 2 * one / independent
    both_ways = (f"{one:.1f}", f"{two:.1f}", f"{speed_up:.2f}", f"{independent:.1f}", f"{possible:.2f}")
    table.add(*both_ways, f"{speed_up / possible:.2f}")


if __name__ == "__main__":
    main()
