"""Whole commands: wall time, quality and memory of train.py, and how long decoding takes.

    python -m benchmarks.end_to_end [--backends fused reference] [--repeats 3] [--out FILE] [CONFIG ...]

CONFIG are files for train.py --config; without any, pictures and a mesh that ship with the project. The backends take
turns; times are medians. Wall time counts everything from the start of the interpreter on.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from benchmarks.recipes import MESH, PICTURE
from benchmarks.records import Printer, make_parser
from models.miner import MINER

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = {
    "astronaut, 512x512": PICTURE | dict(path="images/astronaut.png", input_size=[512, 512]),
    "Pluto, 1024x1024": PICTURE | dict(path="images/pluto.png", input_size=[1024, 1024]),
    "spot, 128^3": MESH | dict(path="occupancy/spot_128.npy"),
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG")
    parser.add_argument("--backends", nargs="+", default=["fused", "reference"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--accelerator", default="auto")
    options = parser.parse_args()
    if options.configs:
        rows = {path.stem: yaml.safe_load(path.read_text()) for path in options.configs}
    else:
        command = ["preprocess_mesh.py", "--N", "128", "--path", "meshes/spot.obj", "--overwrite"]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        rows = SHIPPED
    columns = ["signal", "backend", "wall, s", "fit, s", "memory, MiB", "parameters", "quality"]
    columns += ["decode, ms", "1/16 of it, ms"]
    note = f"{torch.get_num_threads()} threads, median of {options.repeats}"
    table = Printer("Whole commands", columns, options.out, note)
    for name, row in rows.items():
        measure(table, name, row, options.backends, options.repeats, options.accelerator)


def measure(table: Printer, name: str, row: dict, backends: list[str], repeats: int, accelerator: str) -> None:
    seconds = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for file in ("images", "meshes", "occupancy"):
            (Path(folder) / file).symlink_to(ROOT / file)
        for _ in range(repeats):
            for backend in backends:
                run = row | dict(exp_name=backend, overwrite=True, backend=backend, accelerator=accelerator)
                config = Path(folder) / "row.yaml"
                config.write_text(yaml.safe_dump(run))
                start = time.perf_counter()
                command = [sys.executable, ROOT / "train.py", "--config", config]
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                seconds[backend].append(time.perf_counter() - start)
        for backend in backends:
            report = json.loads((Path(folder) / "ckpts" / backend / "metrics.json").read_text())
            device = "cuda" if "device" in report["peak_memory_mib"] else "cpu"
            model = MINER.load(Path(folder) / "ckpts" / backend, device, backend)
            corner = tuple((length // 2, length // 2 + -(-length // 4)) for length in model.size)
            whole, part = milliseconds(model.decode), milliseconds(lambda: model.decode(crop=corner))  # noqa: B023
            quality = f"{report['psnr']:.2f} dB" if "psnr" in report else f"{report['iou']:.6f}"
            memory = " + ".join(f"{value:.0f}" for value in report["peak_memory_mib"].values())
            wall, fit = f"{statistics.median(seconds[backend]):.1f}", f"{report['seconds']['fit']:.1f}"
            cells = (wall, fit, memory, f"{report['parameters']:,}", quality, f"{whole:.0f}", f"{part:.1f}")
            table.add(name, backend, *cells)


def milliseconds(call: Callable[[], torch.Tensor], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call().cpu()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
