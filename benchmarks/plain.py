"""What train.py does with nothing but a file: beside options chosen by hand, and at each quality.

    python -m benchmarks.plain choices|qualities IMAGES [MESHES] [--repeats 3] [--out FILE]

IMAGES and MESHES are folders. `choices` fits the pictures and meshes of benchmarks.ablation, and a whole photograph,
with `--path` alone and with the preset best at levels and epochs chosen by hand. `qualities` fits three pictures of
1, 4 and 24 megapixels with each --quality. Seconds are those of the whole command, from the start of the interpreter
on, median of the repeats, for which the commands take turns. A mesh's grid is sampled before.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.ablation import MESHES, N_VOXELS, PICTURES
from benchmarks.records import Printer, make_parser
from options.presets import QUALITIES

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
WHOLE = "forest_6016x4016.jpg"
QUALITY_PICTURES = {  # none of those that the qualities were chosen on
    "city, 1 MP": ("city_singapore_3840x2160.jpg", (1366, 768)),
    "Mars, 4 MP": ("mars_hirise_4096x2160.jpg", (2732, 1440)),
    "forest, 24 MP": (WHOLE, None),
}
BY_HAND = {
    "picture": "--preset best --n_scales 4 --num_epochs 50 50 50 200",
    "large": "--preset best --n_scales 5 --num_epochs 50 50 50 50 150",
    "mesh": "--preset best --task mesh --n_scales 3 --num_epochs 50 50 150",
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


def quality(report: dict[str, Any]) -> float:
    return report["psnr"] if "psnr" in report else report["iou"]


def cells(report: dict[str, Any]) -> list[str]:
    shown = f"{report['psnr']:.2f} dB" if "psnr" in report else f"IoU {report['iou']:.5f}"
    return [shown, f"{report['parameters']:,}", f"{report['whole']:.1f}"]


def plain_arguments(picture: Path, size: tuple[int, int] | None) -> list[str]:
    """That name a picture, and the size W H that it is fitted at, if not its own."""
    return ["--path", str(picture), *(["--input_size", *map(str, size)] if size else [])]


def signals(images: Path, meshes: Path | None) -> dict[str, tuple[list[str], list[str]]]:
    """Plain arguments of each signal, and options chosen by hand."""
    found = {}
    for name, size in PICTURES.items():
        found[name] = (plain_arguments(images / name, size), BY_HAND["picture"].split())
    found[f"{WHOLE}, whole"] = (["--path", str(images / WHOLE)], BY_HAND["large"].split())
    if meshes is not None:
        of_mesh = ["--values", "occupancy", "--path"]  # whose IoU is that of the options by hand
        found |= {name: ([*of_mesh, str(meshes / name)], BY_HAND["mesh"].split()) for name in MESHES}
    return found


def compare_choices(options: Any, place: Path) -> None:
    columns = ["signal", "by hand", "parameters", "seconds", "`--path` alone", "parameters", "seconds", "gain"]
    table = Printer("With `--path` alone, and with options chosen by hand", columns, options.out)
    for name, (plain, by_hand) in signals(options.images.resolve(), options.meshes).items():
        hand = [*plain, *by_hand]
        if name in MESHES:
            run([*plain, "--quality", "draft", "--exp_name", "grid", "--overwrite"], place)  # samples the grid
            hand = ["--path", f"occupancy/{Path(name).stem}_{N_VOXELS}.npy", *by_hand]
        chosen, alone = measure([hand, plain], options.repeats, place)
        gain = quality(alone) - quality(chosen)
        table.add(name, *cells(chosen), *cells(alone), f"{gain:+.5f}" if name in MESHES else f"{gain:+.2f}")


def compare_qualities(options: Any, place: Path) -> None:
    columns = ["picture", "`--quality`", "PSNR", "parameters", "seconds", "of them fitting"]
    table = Printer("Qualities", columns, options.out, f"median of {options.repeats}")
    for name, (file, size) in QUALITY_PICTURES.items():
        plain = plain_arguments(options.images.resolve() / file, size)
        reports = measure([[*plain, "--quality", one] for one in QUALITIES], options.repeats, place)
        for one, report in zip(QUALITIES, reports, strict=True):
            table.add(name, f"`{one}`", *cells(report), f"{report['fit']:.1f}")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("study", choices=("choices", "qualities"))
    parser.add_argument("images", type=Path)
    parser.add_argument("meshes", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.meshes is not None:
        options.meshes = options.meshes.resolve()
    with tempfile.TemporaryDirectory() as place:
        study = compare_choices if options.study == "choices" else compare_qualities
        study(options, Path(place))


if __name__ == "__main__":
    main()
