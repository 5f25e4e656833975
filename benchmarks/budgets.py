"""How many points a preset trains until a picture is as good as wanted: the same recipe over ever more epochs.

    python -m benchmarks.budgets DATA RESULTS [--psnr 35] [--out FILE]

DATA and RESULTS are those of benchmarks.ablation. A budget is a part of the recipe's epochs, with as many validations;
between the last one that misses the quality and the first that reaches it, the logarithm of the points is interpolated.
"""

import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks.ablation import Results, best_of, signals
from benchmarks.recipes import PICTURE
from benchmarks.records import Printer, make_parser

BUDGETS = (0.02, 0.04, 0.06, 0.1, 0.16, 0.25, 0.5, 1.0)


def points_to_reach(wanted: float, fits: list[dict[str, float]]) -> float | None:
    """None where even the last one misses; the points of the first one where that reaches it already."""
    if fits[0]["quality"] >= wanted:
        return fits[0]["points_trained"]
    for below, above in pairwise(fits):
        if above["quality"] >= wanted:
            part = (wanted - below["quality"]) / (above["quality"] - below["quality"])
            return below["points_trained"] * (above["points_trained"] / below["points_trained"]) ** part
    return None


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--psnr", type=float, default=35)
    options = parser.parse_args()
    ratios = []
    columns = ["picture", "seed, M points", "best, M points", "ratio"]
    table = Printer(f"Points until a picture has {options.psnr:g} dB", columns, options.out)
    with tempfile.TemporaryDirectory() as place:
        results = Results(options.results, Path(place))
        for name, signal in signals("images", options.data.resolve(), Path(place)).items():
            needed = {}
            for preset, recipe in (("seed", PICTURE), ("best", best_of(PICTURE, "image"))):
                fits: list[dict[str, float]] = []
                for budget in BUDGETS:
                    epochs = [max(1, round(budget * n)) for n in PICTURE["num_epochs"]]
                    short = dict(num_epochs=epochs, val_freq=max(1, round(budget * 50)))
                    fits.append(results.fit(recipe | short, name, signal, seed=0))
                    if fits[-1]["quality"] >= options.psnr:
                        break
                needed[preset] = points_to_reach(options.psnr, fits)
            seed, best = (f"{points / 1e6:.1f}" if points else "never" for points in needed.values())
            ratio = ""
            if all(needed.values()):
                ratios.append(needed["best"] / needed["seed"])
                ratio = f"{ratios[-1]:.2f}"
            table.add(name, seed, best, ratio)
    table.add(f"geometric mean of {len(ratios)}", "", "", f"{statistics.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
