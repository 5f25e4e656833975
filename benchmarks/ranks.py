"""What processes gain: one process of one thread, two of one thread each, and two runs side by side.

python -m benchmarks.ranks PICTURE [BACKEND] [-- OPTIONS OF train.py]

The seconds are those of the fit, without imports and reading. Two independent runs side by side share the machine's
caches and memory as two processes of one run do: what they lose is the machine's.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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
    arguments = sys.argv[1:]
    options = arguments[arguments.index("--") + 1 :] if "--" in arguments else _OPTIONS
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    command = ["--path", str(Path(own[0]).resolve()), "--accelerator", "cpu", *options]
    command += ["--backend", own[1]] if own[1:] else []
    alone, both, beside = [], [], []
    for _ in range(_REPEATS):
        alone.append(seconds([command]))
        both.append(seconds([[*command, "--devices", "2"]]))
        beside.append(seconds([command, command]))
    one, two, independent = map(statistics.median, (alone, both, beside))
    print(f"one process {one:.1f} s, two processes {two:.1f} s, two independent runs side by side {independent:.1f} s")
    speed_up, possible = one / two, 2 * one / independent
    print(
        f"speed-up {speed_up:.2f}; two independent runs get {possible:.2f} of the work of one done in the time of one"
    )
    print(f"ratio {speed_up / possible:.2f}")


if __name__ == "__main__":
    main()
