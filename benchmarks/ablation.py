"""What each choice of the method is worth: quality, parameters, points trained and seconds over several signals.

    python -m benchmarks.ablation STUDY DATA RESULTS [--seeds 2] [--only VARIANT ...] [--out FILE]

STUDY is images or meshes, DATA a folder of pictures or meshes (their names are in this file; those that are missing are
left out), RESULTS a file of one line of JSON a fit, from which a study that was stopped goes on. Every variant is
compared with the first one, signal by signal and seed by seed: the table gives means, and the worst and the best.
"""

import contextlib
import gc
import io
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import preprocess_mesh
import train
from benchmarks.recipes import MESH, PICTURE, UNIFORM
from benchmarks.records import Printer, make_parser
from options.presets import PRESETS

PICTURES = {  # and the size that they are fitted at, if not their own
    "kodak/kodim05.png": None,
    "kodak/kodim08.png": None,
    "kodak/kodim19.png": None,
    "kodak/kodim23.png": None,
    "small/skimage_astronaut.png": None,
    "small/skimage_retina.jpg": None,
    "pluto_gray_4408x4344.jpg": (1024, 1024),
    "forest_6016x4016.jpg": (1200, 800),
    "city_singapore_3840x2160.jpg": (1280, 720),
    "mars_hirise_4096x2160.jpg": (1280, 675),
}
MESHES = ("bunny.ply", "armadillo.ply", "lucy.ply")
N_VOXELS = 256

Options = dict[str, Any]

EXP = ("--exp_name", "exp", "--overwrite")

SHORT = {  # a fiftieth, a tenth, a fifth and a half of the epochs
    "epochs 2 2 2 4": dict(num_epochs=[2, 2, 2, 4]),
    "epochs 5 5 5 20": dict(num_epochs=[5, 5, 5, 20]),
    "epochs 10 10 10 40": dict(num_epochs=[10, 10, 10, 40]),
    "epochs 25 25 25 100": dict(num_epochs=[25, 25, 25, 100]),
}
LONG_STEPS: Options = dict(batch_size=128, betas=[0.9, 0.99], start="random")
OF_SEED: dict[str, dict[str, Options]] = {  # one change each
    "images": {
        "betas 0.9 0.99": dict(betas=[0.9, 0.99]),
        "betas 0.8 0.99, lr 6e-2": dict(betas=[0.8, 0.99], lr=6e-2),
        "lr 6e-2": dict(lr=6e-2),
        "Adam, lr 3e-3": dict(optimizer="adam", lr=3e-3),
        "a 0.3": dict(a=0.3),
        "n_freq 5": dict(n_freq=5),
        "harmonics": dict(frequencies="harmonics"),
        "harmonics, a 0.5": dict(frequencies="harmonics", a=0.5),
        "2 layers of 40": dict(n_layers=2, n_hidden=40),
        "4 layers of 16": dict(n_layers=4, n_hidden=16),
        "centred": dict(arch="centred"),
        "NRAdam": dict(optimizer="nradam"),
        "centred, NRAdam, betas 0.9 0.99, lr 6e-2, a 0.3": dict(
            arch="centred", optimizer="nradam", betas=[0.9, 0.99], lr=6e-2, a=0.3
        ),
        "batches of 128": dict(batch_size=128),
        "batches of 512": dict(batch_size=512),
        "patches of 16, 9 units": dict(patch_size=16, n_hidden=9, batch_size=64),
        "3 scales": dict(n_scales=3, num_epochs=[50, 50, 200]),
        "threshold 2e-4": dict(loss_thr=2e-4),
        "blocks stop at 4e-5": dict(stop_ratio=0.4),
        "validation every 25": dict(val_freq=25),
        "Gaussian pyramid": dict(pyr="gaussian"),
        "copied weights": dict(weight_sharing="copy"),
        "inherited features": dict(weight_sharing="inherit"),
        "no encoding, 4 layers": dict(use_pe=False, n_layers=4),
        "no encoding, 4 layers, inherited features": dict(use_pe=False, n_layers=4, weight_sharing="inherit"),
        **SHORT,
    },
    "meshes": {
        "betas 0.8 0.99": dict(betas=[0.8, 0.99]),
        "a 0.3": dict(a=0.3),
        "3 octaves": dict(n_freq=3),
        "blocks stop at 5e-4": dict(stop_ratio=0.1),
        "3 layers": dict(n_layers=3),
        "6 units": dict(n_hidden=6),
        "4 units": dict(n_hidden=4),
    },
}
OF_BEST: dict[str, dict[str, Options]] = {  # taken back, or changed further
    "images": {
        "not centred": dict(arch="gaussian"),
        "RAdam": dict(optimizer="radam"),
        "not centred, RAdam, betas 0.8 0.99, lr 4e-2, a 0.5": dict(
            arch="gaussian", optimizer="radam", betas=[0.8, 0.99], lr=4e-2, a=0.5
        ),
        "octaves": dict(frequencies="octaves"),
        "8 frequencies, 16 units": dict(n_freq=8, n_hidden=16),
        "a 0.5": dict(a=0.5),
        "a 1.2": dict(a=1.2),
        "betas 0.9 0.999": dict(betas=[0.9, 0.999]),
        "lr 8e-2": dict(lr=8e-2),
        "batches of 256": dict(batch_size=256),
        "batches of 64": dict(batch_size=64),
        "2 layers of 29": dict(n_layers=2, n_hidden=29),
        "4 layers of 14": dict(n_layers=4, n_hidden=14),
        "filled by the spline": dict(fill="spline"),
        "filled by the spline, threshold 1e-4": dict(fill="spline", loss_thr=1e-4, stop_ratio=0.25),
        "plain loss": dict(loss="plain"),
        "plain loss, filled by the spline, threshold 1e-4": dict(
            loss="plain", fill="spline", loss_thr=1e-4, stop_ratio=0.25
        ),
        "threshold 7e-5": dict(loss_thr=7e-5, stop_ratio=0.35),
        "threshold 9e-5": dict(loss_thr=9e-5, stop_ratio=0.27),
        "12 units": dict(n_hidden=12),
        "5 frequencies, 11 units": dict(n_freq=5, n_hidden=11),
        "4 frequencies, 12 units": dict(n_freq=4, n_hidden=12),
        "blocks stop at 1e-4": dict(stop_ratio=1.0),
        "blocks stop at 4e-5": dict(stop_ratio=0.4),
        "blocks stop at 1e-5": dict(stop_ratio=0.1),
        "validation every 25": dict(val_freq=25),
        "sines, omega 10, lr 8e-3": dict(arch="sine", omega=10, lr=8e-3),
        "patches of 16, 3 frequencies, 9 units": dict(patch_size=16, n_freq=3, n_hidden=9, batch_size=32),
        "patches of 64, 10 frequencies, 36 units": dict(patch_size=64, n_freq=10, n_hidden=36, batch_size=512),
        "copied weights": dict(weight_sharing="copy"),
        "inherited features": dict(weight_sharing="inherit"),
        **SHORT,
        "random order": dict(order="random"),
        **{f"{name}, random order": short | dict(order="random") for name, short in SHORT.items()},
        **{f"{name}, random start": short | dict(start="random") for name, short in SHORT.items()},
        **{f"{name}, steps as of many epochs": short | LONG_STEPS for name, short in SHORT.items()},
    },
    "meshes": {
        "not centred, RAdam, betas 0.8 0.99, a 0.5": dict(arch="gaussian", optimizer="radam", betas=[0.8, 0.99], a=0.5),
        "octaves 1 2": dict(frequencies="octaves"),
        "2 layers": dict(n_layers=2),
        "blocks stop at 5e-3": dict(stop_ratio=1.0),
        "5 units": dict(n_hidden=5),
        "4 units": dict(n_hidden=4),
        "1 harmonic, 5 units": dict(n_freq=1, n_hidden=5),
        "copied weights": dict(weight_sharing="copy"),
    },
}
PAPER: dict[str, Options] = {  # with either activation
    "paper": dict(preset="paper"),
    "paper, Gaussians, RAdam, lr 3e-2": dict(preset="paper", arch="gaussian", optimizer="radam", lr=3e-2),
}


def best_of(recipe: Options, task: str) -> Options:
    """A recipe with what the preset best sets in place of its own."""
    return {name: value for name, value in recipe.items() if name not in PRESETS["best"][task]} | dict(preset="best")


def variants(study: str) -> dict[str, Options]:
    seed = PICTURE if study == "images" else MESH
    best = best_of(seed, "mesh") if study == "meshes" else best_of(seed, "image") | UNIFORM
    found = {"seed": seed}
    found |= {f"seed, {name}": seed | change for name, change in OF_SEED[study].items()}
    found |= {"best": best} | {f"best, {name}": best | change for name, change in OF_BEST[study].items()}
    own = {"use_pe", "n_layers", "n_freq", "n_hidden", "loss_thr", "batch_size"}  # what the paper has its own of
    bare = {name: value for name, value in seed.items() if name not in own}
    return found | {name: bare | change for name, change in PAPER.items()}


def signals(study: str, data: Path, place: Path) -> dict[str, Options]:
    """Options that name each signal; occupancy grids are made once, in a folder."""
    if study == "images":
        sizes = {name: size for name, size in PICTURES.items() if (data / name).exists()}
        return {
            name: dict(path=str(data / name)) | ({"input_size": list(size)} if size else {})
            for name, size in sizes.items()
        }
    found = {}
    for name in MESHES:
        if (data / name).exists():
            grid = place / "occupancy" / f"{Path(name).stem}_{N_VOXELS}.npy"
            if not grid.exists():
                call(preprocess_mesh.cli, ["--N", N_VOXELS, "--M", 1, "--T", 1, "--path", data / name], place)
            found[name] = dict(path=str(grid))
    return found


def call(program: Any, arguments: list[Any], place: Path) -> None:
    """Run a command of this project in this process, silently, in a folder."""
    gc.unfreeze()  # a run freezes what it finds, and what an earlier one left is garbage
    gc.collect()
    argv, sys.argv = sys.argv, ["program", *map(str, arguments)]
    said = io.StringIO()
    try:
        with contextlib.chdir(place), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            program()
    except SystemExit as end:
        if end.code:
            raise SystemExit(f"{' '.join(sys.argv)}: {said.getvalue()[-500:]}{end.code}") from end
    finally:
        sys.argv = argv


def as_arguments(options: Options) -> list[Any]:
    """Options as one gives them to a command."""
    arguments: list[Any] = []
    for name, value in options.items():
        arguments += [f"--{name}", *(value if isinstance(value, list | tuple) else [value])]
    return arguments


class Results:
    """Fits of variants to signals, each made once and kept in a file of one line of JSON a fit."""

    def __init__(self, path: Path, place: Path):
        path.touch()
        self.path = path
        self.place = place
        self.done = {one["key"]: one["fit"] for one in map(json.loads, path.read_text().splitlines())}

    def fit(self, variant: Options, name: str, signal: Options, seed: int) -> dict[str, float]:
        """quality, parameters, points_trained and seconds"""
        key = json.dumps([variant, name, signal.get("input_size"), seed], sort_keys=True)
        if key not in self.done:
            call(train.cli, [*as_arguments(variant | signal | {"seed": seed}), *EXP], self.place)
            metrics = json.loads((self.place / "ckpts" / "exp" / "metrics.json").read_text())
            kept = {name: metrics[name] for name in ("parameters", "points_trained")}
            quality = metrics.get("psnr", metrics.get("iou"))
            self.done[key] = kept | {"quality": quality, "seconds": metrics["seconds"]["fit"]}
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "fit": self.done[key]}) + os.linesep)
        return self.done[key]


def row(fits: list[dict[str, float]], base: list[dict[str, float]]) -> list[str]:
    gains = [mine["quality"] - theirs["quality"] for mine, theirs in zip(fits, base, strict=True)]

    def ratio(what: str) -> float:
        return statistics.geometric_mean(mine[what] / theirs[what] for mine, theirs in zip(fits, base, strict=True))

    quality = statistics.mean(one["quality"] for one in fits)
    digits = 2 if quality > 1 else 5
    ratios = [f"{ratio(what):.2f}" for what in ("parameters", "points_trained", "seconds")]
    spread = f"{min(gains):+.{digits}f} .. {max(gains):+.{digits}f}"
    return [f"{quality:.{digits}f}", f"{statistics.mean(gains):+.{digits}f}", spread, *ratios]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("study", choices=OF_SEED)
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="these rows alone, besides the first")
    options = parser.parse_args()
    quality = "PSNR, dB" if options.study == "images" else "IoU"
    columns = ["variant", quality, "gain", "worst .. best", "parameters", "points", "seconds"]
    table = Printer(f"What each choice is worth: {options.study}", columns, options.out)
    with tempfile.TemporaryDirectory() as place:
        results = Results(options.results, Path(place))
        found, base = signals(options.study, options.data.resolve(), Path(place)), None
        for number, (name, variant) in enumerate(variants(options.study).items()):
            if number and options.only and name not in options.only:
                continue
            fits = [
                results.fit(variant, signal, named, seed)
                for seed in range(options.seeds)
                for signal, named in found.items()
            ]
            base = base or fits
            table.add(name, *row(fits, base))


if __name__ == "__main__":
    main()
