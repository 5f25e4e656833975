"""How time and memory grow with the picture: one command at several sizes, exponents between them.

python -m benchmarks.growth PICTURE MEGAPIXELS ... [-- OPTIONS OF train.py]

Memory is what the process holds itself (RssAnon); pages of mapped files, which the system takes back at will, are told
apart (RssFile).
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    arguments = sys.argv[1:]
    own, options = (
        (arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :])
        if "--" in arguments
        else (arguments, _OPTIONS)
    )
    picture = str(Path(own[0]).resolve())
    height, width = open_picture(picture).size
    before = None
    print("megapixels | s | fit, s | own MiB | of files, MiB | dB | exponent of fit time | of own memory")
    for megapixels in map(float, own[1:]):
        factor = min(1.0, math.sqrt(megapixels * 1e6 / (height * width)))
        size = [round(width * factor), round(height * factor)]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(TRAIN), "--path", picture, "--input_size", *map(str, size), *options]
            seconds, memory = watched(command, folder)
            report = json.loads(Path(folder, "ckpts/exp/metrics.json").read_text())
        now = (size[0] * size[1], report["seconds"]["fit"], memory["RssAnon"])
        exponents = ["", ""]
        if before is not None:
            grown = math.log(now[0] / before[0])
            exponents = [f"{math.log(new / old) / grown:.2f}" for new, old in zip(now[1:], before[1:], strict=True)]
        row = [f"{now[0] / 1e6:.1f}", f"{seconds:.1f}", f"{now[1]:.1f}", f"{now[2]:.0f}", f"{memory['RssFile']:.0f}"]
        print(" | ".join([*row, f"{report['psnr']:.2f}", *exponents]), flush=True)
        before = now


if __name__ == "__main__":
    main()
