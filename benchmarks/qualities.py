"""What train.py does with nothing but a file, at each quality.

    python -m benchmarks.qualities IMAGES [--repeats 3] [--out FILE]

IMAGES is a folder, of which three pictures of 1, 4 and 24 megapixels are fitted with each --quality. Seconds are those
of the whole command, from the start of the interpreter on, median of the repeats, for which the commands take turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.records import Printer, make_parser
from options.presets import QUALITIES

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
PICTURES = {  # none of those that the qualities were chosen on
    "city, 1 MP": ("city_singapore_3840x2160.jpg", (1366, 768)),
    "Mars, 4 MP": ("mars_hirise_4096x2160.jpg", (2732, 1440)),
    "forest, 24 MP": ("forest_6016x4016.jpg", None),
}


def measure(commands: list[list[str]], repeats: int, place: Path) -> list[dict[str, Any]]:
    """quality (as train.py prints it), parameters, seconds of the fit and of the whole command, for each command."""
    found: list[list[dict[str, Any]]] = [[] for _ in commands]
    for _ in range(repeats):
        for command, results in zip(commands, found, strict=True):
            begin = time.perf_counter()
            run(["--exp_name", "measured", "--overwrite", *command], place)
            whole = time.perf_counter() - begin
            report = json.loads((place / "ckpts/measured/metrics.json").read_text())
            results.append(report | {"fit": report["seconds"]["fit"], "whole": whole})
    return [
        results[0] | {name: statistics.median(one[name] for one in results) for name in ("fit", "whole")}
        for results in found
    ]


def run(arguments: list[str], place: Path) -> None:
    done = subprocess.run([sys.executable, TRAIN, *arguments], cwd=place, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"train.py {' '.join(arguments)}: {done.stderr[-500:]}")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    columns = ["picture", "`--quality`", "PSNR", "parameters", "seconds", "of them fitting"]
    table = Printer("Qualities", columns, options.out, f"median of {options.repeats}" if options.repeats > 1 else "")
    with tempfile.TemporaryDirectory() as place:
        for name, (file, size) in PICTURES.items():
            plain = [
                "--path",
                str(options.images.resolve() / file),
                *(["--input_size", *map(str, size)] if size else []),
            ]
            reports = measure([[*plain, "--quality", one] for one in QUALITIES], options.repeats, Path(place))
            for one, report in zip(QUALITIES, reports, strict=True):
                seconds = f"{report['whole']:.1f}", f"{report['fit']:.1f}"
                table.add(name, f"`{one}`", f"{report['psnr']:.2f} dB", f"{report['parameters']:,}", *seconds)


if __name__ == "__main__":
    main()
