"""Other methods on the same pictures, with as many parameters: PSNR against seconds of training.

    python -m benchmarks.peers PICTURE ... --parameters N ... [--seconds 5 20 60] [--threads N] [--out FILE]
        [--plot FILE]

Beside fits by train.py, of several lengths: SIREN, by the package siren-pytorch, and a multiresolution hash grid, on a
GPU by tinycudann (benchmarks.peer_networks). All have at most so many parameters, a number for each picture, and each
number of seconds is a training of its own, for rates of learning fall by the end. A peer's seconds are those of its
steps alone, without set-up and evaluation; those of train.py are of all levels, from the survey of their blocks to
their files. PSNR is that of all pixels in RGB.
"""

import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from benchmarks.peer_networks import CudaHashGrid, HashGrid, Siren
from benchmarks.qualities import measure
from benchmarks.records import Printer, Table, make_parser
from datasets.sources import read_picture
from utils.metrics import psnr

OURS = [[], *(["--num_epochs", str(n_epochs)] for n_epochs in (25, 300, 1200, 4000))]
"""Options of train.py, for each length of this project's fits; without any, the preset best."""

_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)  # seconds


@dataclass(frozen=True)
class Peer:
    """A method and its settings: on a CPU, those that fitted best in some 10 to 30 s.

    make: (size (h, w), parameters) -> network whose `inputs` prepares pixels (n,) for its `forward`, which gives (n, 3)
    batch: pixels of a step
    lr, betas, eps: of Adam
    matmul: precision of products with float32, as torch.set_float32_matmul_precision names them
    """

    make: Callable[[tuple[int, int], int], nn.Module]
    batch: int
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    matmul: str = "highest"


CUDA = torch.cuda.is_available()
PEERS = {
    "hash grid": Peer(HashGrid, 4096, 5e-3, (0.9, 0.99), 1e-15),
    "SIREN": Peer(Siren, 1024, 3e-4, matmul="medium"),
}
if CUDA:  # steps as large as keep it busy, at rates that the papers name
    PEERS = {
        "hash grid": Peer(CudaHashGrid, 2**17, 1e-2, (0.9, 0.99), 1e-15),
        "SIREN": Peer(Siren, 2**15, 1e-4, matmul="medium"),
    }


@dataclass(frozen=True)
class Batch:
    """inputs: of a network; colours: (n, 3) in [0, 1]."""

    inputs: tuple[Tensor, ...]
    colours: Tensor


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 20, 60])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--parameters", type=int, nargs="+", required=True, help="of each picture, at most")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of train.py
    torch.set_flush_denormal(True)  # as train.py does
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
    columns = ["picture", "method", "parameters", "seconds of training", "PSNR, dB"]
    threads = f"{options.threads} {'thread' if options.threads == 1 else 'threads'}"
    table = Printer("Other methods, at as many parameters", columns, options.out, threads)
    for path, n_parameters in zip(options.pictures, options.parameters, strict=True):
        compare(table, path.resolve(), n_parameters, options.seconds)
    if options.plot is not None:
        draw(table.table, options.plot)


def compare(table: Printer, path: Path, n_parameters: int, seconds: list[float]) -> None:
    """The rows of a picture."""
    picture = read_picture(path).values
    if len(picture) != 3:
        raise SystemExit(f"{path}: not RGB")
    name = f"{path.stem}, {picture.shape[2]}x{picture.shape[1]}"
    own = ["--path", str(path), "--preset", "best", "--n_parameters", str(n_parameters)]
    with tempfile.TemporaryDirectory() as place:
        reports = sorted(measure([[*own, *length] for length in OURS], 1, Path(place)), key=itemgetter("fit"))
    fits = [(report["parameters"], report["psnr"]) for report in reports]
    add(table, name, "this project", fits, [report["fit"] for report in reports])
    for method, peer in PEERS.items():
        add(table, name, method, [fit(peer, picture, n_parameters, one) for one in seconds], seconds)


def add(table: Printer, name: str, method: str, fits: list[tuple[int, float]], seconds: list[float]) -> None:
    """A row of fits, of each of which the parameters and the PSNR are known."""
    counts = [f"{count / 1000:.0f}k" for count, _ in fits]
    table.add(name, method, counts[0], listed(seconds, "{:.3g}"), listed([psnr for _, psnr in fits], "{:.2f}"))


def listed(numbers: list[float], form: str) -> str:
    return ", ".join(form.format(number) for number in numbers)


def fit(peer: Peer, picture: Tensor, parameters: int, seconds: float) -> tuple[int, float]:
    """How many parameters a peer has, and its PSNR in dB after some seconds of training on a picture (3, h, w)."""
    torch.manual_seed(0)
    random.seed(0)
    torch.set_float32_matmul_precision(peer.matmul)
    network = peer.make(tuple(picture.shape[1:]), parameters)
    colours = picture.flatten(1).t().contiguous()
    device = "cuda" if CUDA else "cpu"
    network.to(device)
    batches = [
        Batch(tuple(one.to(device) for one in network.inputs(pixels)), colours[pixels].to(device))
        for pixels in torch.randperm(len(colours)).split(peer.batch)
    ]
    train(network, peer, batches, seconds)
    with torch.no_grad():
        found = torch.cat([network(*batch.inputs).clamp(0, 1) for batch in batches])
    true = torch.cat([batch.colours for batch in batches])
    return sum(parameter.numel() for parameter in network.parameters()), psnr(found.t(), true.t())


def train(network: nn.Module, peer: Peer, batches: list[Batch], seconds: float) -> None:
    """Adam on the mean squared error, its rate of learning falling linearly with the time that is left."""
    optimizer = torch.optim.Adam(network.parameters(), peer.lr, peer.betas, peer.eps, fused=True)
    loss_of(network, batches[0]).backward()  # what starts with the first step is set-up
    begin = now()
    for batch in shuffled(batches):
        left = 1 - (now() - begin) / seconds
        if left <= 0:
            return
        optimizer.param_groups[0]["lr"] = left * peer.lr
        optimizer.zero_grad()
        loss_of(network, batch).backward()
        optimizer.step()


def loss_of(network: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.mse_loss(network(*batch.inputs), batch.colours)


def now() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def shuffled(batches: list[Batch]) -> Iterator[Batch]:
    """Without an end, in another order each time around."""
    while True:
        yield from random.sample(batches, len(batches))


def draw(table: Table, path: Path) -> None:
    """PSNR against seconds, a panel for each picture."""
    pictures = list(dict.fromkeys(row[0] for row in table.rows))
    figure, panels = plt.subplots(1, len(pictures), figsize=(4 * len(pictures), 4), squeeze=False, layout="constrained")
    for picture, axes in zip(pictures, panels[0], strict=True):
        for name, method, _, seconds, psnrs in table.rows:
            if name == picture:
                points = ([float(number) for number in cell.split(", ")] for cell in (seconds, psnrs))
                axes.plot(*points, marker="o", label=method.replace("`", ""))
        axes.set(title=picture, xlabel="seconds of training", ylabel="PSNR, dB", xscale="log")
        axes.set_xticks(_TICKS, _TICKS)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(pictures))
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
