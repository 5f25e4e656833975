"""How time and memory grow with the picture: one command at several sizes, exponents between them.

    python -m benchmarks.growth PICTURE MEGAPIXELS ... [--out FILE] [-- OPTIONS OF train.py]

Own memory is what the process holds itself (RssAnon). Pages of mapped files (RssFile) are counted separately, since the
system takes them back at will.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.records import Printer, make_parser, parse_with_rest
from datasets.sources import open_picture

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
_OPTIONS = [
    *("--n_scales", "5", "--patch_size", "64", "--n_freq", "5", "--use_pe", "--n_layers", "3"),
    *("--num_epochs", "10", "--val_freq", "10"),
]


def watched(command: list[str], folder: str) -> tuple[float, dict[str, float]]:
    """Run a command; seconds, and the most MiB that it held of each kind of memory."""
    start, peak = time.perf_counter(), {"RssAnon": 0.0, "RssFile": 0.0}
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        for line in lines:
            name = line.partition(":")[0]
            if name in peak:
                peak[name] = max(peak[name], int(line.split()[1]) / 1024)
        time.sleep(0.05)
    if process.wait() != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, peak


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("megapixels", type=float, nargs="+")
    own, options = parse_with_rest(parser)
    picture = str(own.picture.resolve())
    height, width = open_picture(picture).size
    before = None
    columns = ["megapixels", "command, s", "fit, s", "own memory, MiB", "of files, MiB", "PSNR, dB"]
    columns += ["exponent of fit time", "of own memory"]
    table = Printer("Time and memory against size", columns, own.out)
    for megapixels in own.megapixels:
        factor = min(1.0, math.sqrt(megapixels * 1e6 / (height * width)))
        size = [round(width * factor), round(height * factor)]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(TRAIN), "--path", picture, "--input_size", *map(str, size)]
            seconds, memory = watched([*command, *(options or _OPTIONS)], folder)
            report = json.loads(Path(folder, "ckpts/exp/metrics.json").read_text())
        now = (size[0] * size[1], report["seconds"]["fit"], memory["RssAnon"])
        exponents = ["", ""]
        if before is not None:
            grown = math.log(now[0] / before[0])
            exponents = [f"{math.log(new / old) / grown:.2f}" for new, old in zip(now[1:], before[1:], strict=True)]
        row = [f"{now[0] / 1e6:.1f}", f"{seconds:.1f}", f"{now[1]:.1f}", f"{now[2]:.0f}", f"{memory['RssFile']:.0f}"]
        table.add(*row, f"{report['psnr']:.2f}", *exponents)
        before = now


if __name__ == "__main__":
    main()
