"""What limits a block: its optimisation or its parameters? Fits of a few blocks against the best minima found.

    python -m benchmarks.limits PICTURES [--out FILE] [--figure FILE]

PICTURES is the folder of the pictures of benchmarks.ablation. Of each in colour, and of one more, the program takes two
blocks of the residual against the upsampled half-size picture, so that all together run evenly from the easiest to the
hardest. They are fitted by the preset best for more and more epochs, by wider networks, and by Levenberg-Marquardt from
random starts and from where the other fits end. The loss is the plain one.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import Tensor

from benchmarks import ablation
from benchmarks.levenberg import descend_
from benchmarks.recipes import UNIFORM
from benchmarks.records import Printer, make_parser
from datasets.sources import read_picture
from models.block_mlp import BlockMLP
from models.block_network import init_blocks_
from models.encoding import encode, frequencies
from models.networks import make_network
from models.ops import Backend, choose_backend
from models.ops.optimizers import make_optimizer
from models.shape import NetworkShape
from options.presets import PRESETS, SEED, steps_for
from utils.blocks import block_coords, gather_blocks, pad_to_blocks
from utils.pyramid import downsample, upsample_whole
from utils.rng import even_order

PICTURES = {name: size for name, size in ablation.PICTURES.items() if "gray" not in name}
PICTURES["pier_sunset_5470x3646.jpg"] = (1200, 800)
"""And their sizes, as in `ablation`. A grey block has hardly more values than a network has parameters."""

BEST = SEED | PRESETS["best"]["image"] | UNIFORM
PATCH = tuple(BEST["patch_size"])
EPOCHS = (200, 2000, 20000)
WIDER = (22, 27)
"""Hidden units in place of 18."""

_SEEDS, _SEEDS_OF_DESCENT = 4, 2
_CHOICE_EPOCHS = 20  # of the fits that say how hard a block is


def shape_of(n_hidden: int) -> NetworkShape:
    """Of networks for a residual of three channels."""
    n_in = 2 * len(PATCH) * BEST["n_freq"]
    sizes = dict(n_in=n_in, n_out=3, n_layers=BEST["n_layers"], n_hidden=n_hidden)
    return NetworkShape(**sizes, activation="gaussian", output="sine", centre=0.5)


def target_of(picture: Tensor) -> Tensor:
    """What the finest level of two has to predict where the coarser one is perfect, in the blocks whose base is off by
    more than the threshold.

    Inputs
        picture: (3, h, w) in [0, 1]
    Outputs
        (n_blocks, n_points, 3)
    """
    residual = picture - upsample_whole(downsample(picture), tuple(picture.shape[1:]))
    canvas = pad_to_blocks(residual, PATCH)
    blocks = gather_blocks(canvas, PATCH, torch.arange(canvas[0].numel() // math.prod(PATCH)))
    return blocks[blocks.square().mean((1, 2)) > BEST["loss_thr"]]


def start(target: Tensor, n_hidden: int, seed: int) -> BlockMLP:
    """Networks as they are before training."""
    network = make_network(len(target), shape_of(n_hidden), BEST["a"])
    init_blocks_(network, torch.arange(len(target)), seed, 0)
    network.amplitude.copy_(target.abs().amax((1, 2), keepdim=True))
    return network


def train_(network: BlockMLP, target: Tensor, n_epochs: int, seed: int) -> None:
    """Train as the preset best does, from a random start for few epochs too."""
    batch_size, _ = steps_for("image", "plain", target.shape[1], max(n_epochs, EPOCHS[0]))
    phase = torch.arange(n_epochs, dtype=torch.float64) / n_epochs * math.pi
    rates = BEST["lr"] / 30 + BEST["lr"] * (1 - 1 / 30) * (1 + phase.cos()) / 2
    optimizer = make_optimizer(network, BEST["lr"], kind=BEST["optimizer"], betas=BEST["betas"])
    order = even_order(seed, 0, range(n_epochs), PATCH)
    backend_of(network).fit_points(network, optimizer, inputs(), target, order, batch_size, rates)


def backend_of(network: BlockMLP) -> Backend:
    return choose_backend("auto", [network.shape], "cpu")


def inputs() -> Tensor:
    """(n_points, n_in) the encoded points of a block."""
    return encode(block_coords(PATCH), frequencies(BEST["n_freq"], BEST["frequencies"]))


def errors(network: BlockMLP, target: Tensor) -> Tensor:
    """(n_blocks,) mean square error."""
    return (backend_of(network).predict(network, slice(None), inputs()) - target).square().mean((1, 2))


def chosen_blocks(folder: Path) -> Tensor:
    """(2 n_pictures, n_points, 3) targets: of picture i of n, the blocks at (i + 1/2) / 2n and (n + i + 1/2) / 2n of
    its blocks, which are sorted by the error that a short fit leaves."""
    chosen = []
    for place, (name, size) in enumerate(PICTURES.items()):
        target = target_of(read_picture(folder / name, size and size[::-1]).values)
        network = start(target, BEST["n_hidden"], seed=0)
        train_(network, target, _CHOICE_EPOCHS, seed=0)
        ranked = errors(network, target).argsort()
        quantiles = (torch.tensor([0, len(PICTURES)]) + place + 0.5) / (2 * len(PICTURES))
        chosen.append(target[ranked[(quantiles * len(target)).long()]])
    return torch.cat(chosen)


def fits(target: Tensor, n_steps: int) -> Iterator[tuple[str, int, Tensor]]:
    """Every fit: its name, its hidden units and the errors (n_seeds, n_blocks) that it leaves.

    Inputs
        n_steps: of Levenberg-Marquardt
    """
    repeated = target.repeat(_SEEDS, 1, 1)  # a block's start follows from its index

    def trained(n_hidden: int, n_epochs: int) -> BlockMLP:
        network = start(repeated, n_hidden, seed=0)
        train_(network, repeated, n_epochs, seed=0)
        return network

    ends = {"a random start": start(repeated, BEST["n_hidden"], seed=0)}
    for n_epochs in EPOCHS:
        name = f"{n_epochs:,} epochs"
        ends[name] = network = trained(BEST["n_hidden"], n_epochs)
        yield name, BEST["n_hidden"], errors(network, repeated).view(_SEEDS, -1)
    for n_hidden in WIDER:
        for n_epochs in EPOCHS[:2]:
            network = trained(n_hidden, n_epochs)
            yield f"{n_epochs:,} epochs, wider", n_hidden, errors(network, repeated).view(_SEEDS, -1)
    some = slice(_SEEDS_OF_DESCENT * len(target))
    for name, network in ends.items():
        part = network.select(some)
        reached = descend_(part, inputs(), repeated[some], n_steps)[-1]
        yield f"{n_steps} steps after {name}", BEST["n_hidden"], reached.view(_SEEDS_OF_DESCENT, -1)


def psnr(error: Tensor) -> Tensor:
    return -10 * error.double().log10()


def row(error: Tensor, base: Tensor) -> list[str]:
    """Cells for the errors (n_seeds, n_blocks) of a fit, against those of another."""
    gains = psnr(error).mean(0) - psnr(base).mean(0)
    mean, pooled = psnr(error).mean(), psnr(error.mean(1)).mean()
    return [f"{mean:.2f}", f"{gains.mean():+.2f}", f"{gains.min():+.2f} .. {gains.max():+.2f}", f"{pooled:.2f}"]


def draw(curves: dict[str, Tensor], path: Path) -> None:
    """The PSNR of each block by several fits, as lines over the blocks, which are sorted by the first."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    ranks = next(iter(curves.values())).argsort()
    styles = zip(("o-", "s-", "k^-", "x:"), curves.items(), strict=False)
    for style, (name, values) in styles:
        axes.plot(range(1, len(ranks) + 1), values[ranks], style, markersize=4, linewidth=1, label=name)
    axes.set(xlabel="blocks, from the hardest to the easiest", ylabel="PSNR of the block, dB")
    axes.set_xticks(range(1, len(ranks) + 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--steps", type=int, default=150, help="of Levenberg-Marquardt")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the blocks into this picture")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    columns = ["fit", "units", "parameters", "PSNR, dB", "gain", "worst .. best", "PSNR of the mean error"]
    note = f"Steps are Levenberg-Marquardt's; means over {_SEEDS} seeds, or {_SEEDS_OF_DESCENT} where there are steps"
    command = f"python -m benchmarks.limits PICTURES --steps {options.steps}"
    table = Printer("Twenty blocks by how they are fitted", columns, options.out, note, command)
    target = chosen_blocks(options.pictures)
    found = {}
    for name, n_hidden, error in fits(target, options.steps):
        found[name, n_hidden] = error
        base = next(iter(found.values()))
        parameters = make_network(1, shape_of(n_hidden)).n_parameters
        table.add(name, n_hidden, parameters, *row(error, base))
    lowest = torch.cat([error for (_, n_hidden), error in found.items() if n_hidden == BEST["n_hidden"]]).amin(0)
    parameters = make_network(1, shape_of(BEST["n_hidden"])).n_parameters
    table.add("the lowest of these for each block", BEST["n_hidden"], parameters, *row(lowest[None], base))
    if options.figure:
        shown = {f"{n:,} epochs": (f"{n:,} epochs", BEST["n_hidden"]) for n in EPOCHS[:2]}
        curves = {name: psnr(found[key]).mean(0) for name, key in shown.items()}
        curves["the lowest minimum found"] = psnr(lowest)
        wider = psnr(found[f"{EPOCHS[0]:,} epochs, wider", WIDER[-1]]).mean(0)
        draw(curves | {f"{EPOCHS[0]:,} epochs, {WIDER[-1]} units": wider}, options.figure)


if __name__ == "__main__":
    main()
