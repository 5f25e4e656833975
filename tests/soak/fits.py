"""Random fits of a second or two: what is fitted, and the options that decide the bytes of the checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch

from datasets.sources import read_picture
from datasets.writers import write_rows
from tests.soak.forks import ROOT
from utils.errors import size_text

_SIGNALS = ("RGB", "grey 16 bits", "RGBA", "volume", "grey", "tiled TIFF")


@dataclass(frozen=True)
class Fit:
    """
    name: what it is, in some words
    arguments: of train.py; how the run is handled (processes, memory, savings) is not among them
    task: image or mesh
    ends: how it ends: at the last epoch, at a target, or again and again for lack of time
    is_shared: whether several processes fit it
    """

    name: str
    arguments: list[str]
    task: str
    ends: str
    is_shared: bool


def draw_fits(generator: Random, n: int, folder: Path) -> list[Fit]:
    """Fits of which every kind is about as frequent as the others; their signals are written to the folder."""
    columns = (_SIGNALS, ("fused", "fused", "reference"), ("end", "end", "target", "time"), (True, False, False))
    kinds = zip(*(_deal(generator, choices, n) for choices in columns), strict=True)
    return [_draw_fit(generator, *kind, folder / f"signal{number:03d}") for number, kind in enumerate(kinds)]


def _deal(generator: Random, choices: Sequence, n: int) -> list:
    """Each choice as often, in random order."""
    dealt = [choices[number % len(choices)] for number in range(n)]
    generator.shuffle(dealt)
    return dealt


def _draw_fit(generator: Random, kind: str, backend: str, ends: str, is_shared: bool, path: Path) -> Fit:
    n_dims = 3 if kind == "volume" else 2
    size = tuple(generator.randint(*((18, 33) if n_dims == 3 else (50, 120))) for _ in range(n_dims))
    patch = tuple(generator.randint(*((6, 9) if n_dims == 3 else (9, 18))) for _ in range(n_dims))
    n_scales = generator.randint(1, 3)
    preset, options = _draw_method(generator, n_dims, backend, patch)
    # all fits take about as long: the reference is slower, and processes need seconds to start
    epochs = (1 if backend == "fused" else 0.25) * (3 if is_shared else 1) * (0.5 if n_dims == 3 else 1)
    n_epochs = [round(epochs * generator.randint(*few)) for few in ((60, 120), (60, 120), (250, 500))][-n_scales:]
    arguments = [
        *("--task", "mesh" if n_dims == 3 else "image", "--path", write_signal(path, kind, size), "--preset", preset),
        *("--n_scales", n_scales, "--patch_size", *patch[::-1], "--num_epochs", *n_epochs, "--backend", backend),
        *("--val_freq", round(epochs * generator.choice((10, 25, 60, 200))) or 1, "--seed", generator.randint(0, 99)),
        *("--accelerator", "cpu", "--exp_name", "run", *options),
        *(["--log_image"] if generator.random() < 0.3 else []),
    ]
    name = f"{kind} {size_text(size)}, {n_scales} {'level' if n_scales == 1 else 'levels'}, {preset}, {backend}"
    name += {"end": "", "target": ", to a target", "time": ", out of time"}[ends]
    return Fit(name, list(map(str, arguments)), "mesh" if n_dims == 3 else "image", ends, is_shared)


def _draw_method(generator: Random, n_dims: int, backend: str, patch: tuple[int, ...]) -> tuple[str, list]:
    """A preset and options beside it; for the reference, of those whose results do not depend on who computes them
    (docs/design.md): even widths, and encodings of less than 64 features."""
    presets = ("seed", "best", "paper") if backend == "fused" else ("seed", "best")
    preset = generator.choice(presets)
    n_points = int(np.prod(patch))
    options = ["--batch_size", generator.randint(n_points // 5, n_points)]
    options += ["--pyr", "gaussian"] if generator.random() < 0.2 else []
    if preset == "seed":
        options += ["--use_pe", "--n_layers", "3", "--n_freq", generator.randint(2, 5)]
        options += ["--arch", generator.choice(("gaussian", "centred")), "--n_hidden", generator.choice((8, 12, 20))]
        options += ["--optimizer", generator.choice(("radam", "adam", "nradam"))]
        options += ["--weight_sharing", generator.choice(("none", "copy", "inherit"))]
    if n_dims == 3 and preset != "best":
        options += ["--loss_thr", generator.choice((1e-3, 5e-3))]
    elif preset != "paper" and generator.random() < 0.7:
        options += ["--stop_ratio", generator.choice((0.05, 0.5))]
    return preset, options


def write_signal(path: Path, kind: str, size: tuple[int, ...]) -> Path:
    """A face of the given size, or some balls in a box; returns the file."""
    if kind == "volume":
        path = path.with_suffix(".npy")
        z, y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in size), indexing="ij")
        near = [(x - dx) ** 2 + (y - dy) ** 2 + (z - dz) ** 2 for dx, dy, dz in ((-0.3, 0, 0.1), (0.4, 0.2, -0.3))]
        np.save(path, (near[0] < 0.3) | (near[1] < 0.15))
        return path
    values = read_picture(ROOT / "images" / "astronaut.png", size).values
    if kind.startswith("grey"):
        values = values.mean(0, keepdim=True)
    if kind == "RGBA":
        values = torch.cat([values, torch.linspace(0, 1, size[1]).expand(1, *size)])
    path = path.with_suffix(".tif" if kind == "tiled TIFF" else ".png")
    write_rows(path, [values], len(values), size, 16 if kind == "grey 16 bits" else 8)
    return path
