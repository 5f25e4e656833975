"""What networks of several widths gain over networks of one, at as many parameters.

    python -m benchmarks.widths PICTURE ... [--parameters N] [--out FILE] [-- OPTIONS of train.py]

Each picture is fitted twice: with one width (`recipes.UNIFORM`), and by the preset best with as many parameters; with
--parameters only by the latter, with at most so many. Pictures of `ablation.PICTURES` have their sizes there. Spread is
the standard deviation of the blocks' PSNR: the less the difficulty of a block shows, the smaller it is.
"""

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import train
from benchmarks import ablation
from benchmarks.recipes import PICTURE, UNIFORM
from benchmarks.records import Printer, make_parser, parse_with_rest
from datasets.sources import read_picture
from models.miner import MINER
from utils.blocks import gather_blocks, pad_to_blocks

SIZES = {Path(name).name: size for name, size in ablation.PICTURES.items()}
BEST_PSNR = 60.0
"""Of a block: where errors are far below those of 8 bits, PSNR says nothing."""


@dataclass(frozen=True)
class Fit:
    """psnr, and its standard deviation over the blocks (`spread`), in dB; millions of points trained; seconds of
    fitting."""

    psnr: float
    parameters: int
    points: float
    seconds: float
    spread: float


def fit(path: Path, options: dict[str, Any], rest: list[str]) -> Fit:
    """A picture fitted in a folder of its own."""
    size = SIZES.get(path.name)
    options = dict(path=path.resolve(), preset="best", **options) | ({"input_size": size} if size else {})
    with tempfile.TemporaryDirectory() as place:
        ablation.call(train.cli, [*ablation.as_arguments(options), *ablation.EXP, *rest], Path(place))
        folder = Path(place) / "ckpts" / "exp"
        metrics = json.loads((folder / "metrics.json").read_text())
        model = MINER.load(folder)
        picture = read_picture(path, size and size[::-1]).values
        spread = block_psnr(model.decode(), picture, model.patch_size).std().item()
    points = metrics["points_trained"] / 1e6
    return Fit(metrics["psnr"], metrics["parameters"], points, metrics["seconds"]["fit"], spread)


def block_psnr(decoded: Tensor, picture: Tensor, patch_size: tuple[int, ...]) -> Tensor:
    """(n_blocks,) in dB, at most BEST_PSNR; of (c, h, w) each."""
    canvas = pad_to_blocks(decoded - picture, patch_size)
    n_blocks = canvas[0].numel() // (patch_size[0] * patch_size[1])
    errors = gather_blocks(canvas, patch_size, torch.arange(n_blocks)).square().mean((1, 2))
    return (-10 * errors.log10()).clamp(max=BEST_PSNR)


def cells(one: Fit) -> list[str]:
    return [f"{one.psnr:.2f}", f"{one.parameters:,}", f"{one.points:.1f}", f"{one.seconds:.2f}", f"{one.spread:.2f}"]


def mean(fits: list[Fit]) -> list[str]:
    """The row under all pictures."""
    means = Fit(**{name: statistics.mean(getattr(one, name) for one in fits) for name in Fit.__annotations__})
    return [f"**{cell.partition('.')[0] if ',' in cell else cell}**" for cell in cells(means)]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    parser.add_argument("--parameters", type=int, help="of each picture, at most")
    options, rest = parse_with_rest(parser)
    names = ["PSNR, dB", "parameters", "points, M", "seconds", "spread, dB"]
    ways = ["several widths"] if options.parameters else ["one width", "several"]
    columns = ["picture", *(f"{way}: {name}" if len(ways) > 1 else name for way in ways for name in names)]
    table = Printer("Networks of one width and of several", columns, options.out)
    rows = []
    for path in options.pictures:
        fits = []
        if options.parameters is None:
            fits.append(fit(path, UNIFORM | {"num_epochs": PICTURE["num_epochs"]}, []))
        most = options.parameters or fits[0].parameters
        fits.append(fit(path, {"n_parameters": most}, rest))
        rows.append(fits)
        table.add(path.stem, *(cell for one in fits for cell in cells(one)))
    table.add("mean", *(cell for way in zip(*rows, strict=True) for cell in mean(list(way))))


if __name__ == "__main__":
    main()
