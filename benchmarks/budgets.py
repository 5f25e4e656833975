"""How many points a method trains until a picture is as good as wanted: the same recipe over ever more epochs.

    python -m benchmarks.budgets DATA RESULTS [--psnr 35] [--out FILE]

DATA and RESULTS are those of benchmarks.ablation. A budget is a part of the recipe's epochs, with as many validations;
between the last one that misses the quality and the first that reaches it, the logarithm of the points is interpolated.
"""

import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.ablation import LONG_STEPS, Results, best_of, signals
from benchmarks.recipes import PICTURE
from benchmarks.records import Printer, make_parser

BUDGETS = (0.01, 0.02, 0.04, 0.06, 0.1, 0.16, 0.25, 0.5, 1.0)
BEST = best_of(PICTURE, "image")
METHODS = {"seed": PICTURE, "plain steps": BEST | LONG_STEPS | dict(order="random"), "best": BEST}
"""Plain steps are those that suit many epochs, in random order, from a random start, however few the epochs are."""


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
    ratios = {method: [] for method in METHODS if method != "best"}
    columns = ["picture", *(f"{method}, M points" for method in METHODS), *(f"best / {method}" for method in ratios)]
    table = Printer(f"Points until a picture has {options.psnr:g} dB", columns, options.out)
    with tempfile.TemporaryDirectory() as place:
        results = Results(options.results, Path(place))
        for name, signal in signals("images", options.data.resolve(), Path(place)).items():
            needed = {method: reach(options.psnr, results, recipe, name, signal) for method, recipe in METHODS.items()}
            cells = []
            for method, found in ratios.items():
                if needed["best"] and needed[method]:
                    found.append(needed["best"] / needed[method])
                cells.append(f"{found[-1]:.2f}" if needed["best"] and needed[method] else "")
            table.add(name, *(f"{points / 1e6:.1f}" if points else "never" for points in needed.values()), *cells)
    means = (f"{statistics.geometric_mean(found):.2f} of {len(found)}" for found in ratios.values())
    table.add("geometric mean", *[""] * len(METHODS), *means)


def reach(wanted: float, results: Results, recipe: dict[str, Any], name: str, signal: dict[str, Any]) -> float | None:
    """`points_to_reach`, with as few budgets as that takes."""
    fits: list[dict[str, float]] = []
    for budget in BUDGETS:
        epochs = [max(1, round(budget * n)) for n in PICTURE["num_epochs"]]
        short = dict(num_epochs=epochs, val_freq=max(1, round(budget * 50)))
        fits.append(results.fit(recipe | short, name, signal, seed=0))
        if fits[-1]["quality"] >= wanted:
            break
    return points_to_reach(wanted, fits)


if __name__ == "__main__":
    main()
