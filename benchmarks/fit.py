"""How fast blocks are trained: the fused backend beside the reference and torch.compile of it, in one run.

    python -m benchmarks.fit [--device cpu|cuda] [--blocks 256 1024 4096 16384] [--repeats 3] [--out FILE]

For each network and number of blocks: millions of points trained a second (median of the repeats, which take turns),
the ratio of the fused backend to the reference, the operations a second that the networks' own products take in it,
their share of the processor's multiply-add peak (benchmarks.peak; unknown for a GPU), and the peak memory of each.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.peak import peak_flops
from benchmarks.records import Printer, make_parser
from models.block_network import BlockNetwork, init_blocks_
from models.encoding import encode, encoded_width, frequencies
from models.networks import make_network
from models.ops import choose_backend, reference
from models.ops.optimizers import make_optimizer
from models.shape import NetworkShape
from utils.blocks import block_coords
from utils.rng import point_order

NETWORKS = {  # patch, frequencies, points a batch, network
    "image": ((32, 32), 4, 256, dict(n_out=3, n_layers=3, n_hidden=20)),
    "mesh": ((16, 16, 16), 5, 512, dict(n_out=1, n_layers=2, n_hidden=8)),
    "paper": ((32, 32), None, 256, dict(n_out=3, n_layers=4, n_hidden=9)),
}
KINDS = ("reference", "compiled", "fused")
LEAST_POINTS = {"reference": 2**22, "compiled": 2**22, "fused": 2**25}  # of a measurement


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--blocks", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    device = torch.device(options.device)
    note, peak = f"median of {options.repeats}", None
    if device.type == "cpu":
        peak = peak_flops()
        note += f", multiply-add peak {peak / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads"
    columns = ["network", "blocks", "reference", "torch.compile of it", "fused", "fused / reference"]
    columns += ["fused, GFLOP/s", "share of the peak", "memory of each, MiB"]
    table = Printer("Millions of points trained a second", columns, options.out, note)
    for network in options.networks:
        for n_blocks in options.blocks:
            measure(table, network, n_blocks, device, options.repeats, peak)


def measure(table: Printer, name: str, n_blocks: int, device: torch.device, repeats: int, peak: float | None) -> None:
    batch_size, coords = NETWORKS[name][2], coords_of(name).to(device)
    shape = shape_of(name)
    fused = choose_backend("auto", [shape], device)
    fits = {"reference": reference.fit_points, "compiled": reference.fit_points}
    if fused is not reference:
        fits["fused"] = fused.fit_points
    target = torch.rand(n_blocks, len(coords), shape.n_out, device=device) * 0.2 - 0.1
    runs = {}
    for kind, fit_points in fits.items():
        network = make_network(n_blocks, shape)
        init_blocks_(network, torch.arange(n_blocks), seed=0, level=0)
        network.to(device)
        if kind == "compiled":
            torch.compiler.reset()  # else it gives up recompiling after some networks
            network.compile()
        n_epochs = max(1, LEAST_POINTS[kind] // (n_blocks * len(coords)))
        runs[kind] = (visit(fit_points, network, coords, target, batch_size, n_epochs), n_epochs)
    seconds, memory = {kind: [] for kind in runs}, {}
    for kind, (run, _) in list(runs.items()):
        try:
            run()  # warms up and compiles
        except Exception as error:  # torch.compile wants a compiler of its own
            print(f"{kind} failed: {type(error).__name__}", file=sys.stderr)
            del runs[kind]
    for _ in range(repeats):
        for kind, (run, _) in runs.items():
            memory[kind] = run()
            seconds[kind].append(memory[kind][0])
    speeds = {
        kind: n_blocks * len(coords) * n_epochs / statistics.median(seconds[kind])
        for kind, (_, n_epochs) in runs.items()
    }
    cells = [f"{speeds[kind] / 1e6:.1f}" if kind in speeds else "" for kind in KINDS]
    ratio = flops = share = ""
    if "fused" in speeds:
        made = speeds["fused"] * operations_per_point(shape)
        ratio, flops = f"{speeds['fused'] / speeds['reference']:.1f}", f"{made / 1e9:.0f}"
        share = f"{made / peak:.0%}" if peak else ""
    widths = [shape.n_in, *[shape.n_hidden] * (shape.n_layers - 1), shape.n_out]
    used = ", ".join(f"{memory[kind][1]:.0f}" if kind in memory else "" for kind in KINDS)
    table.add(f"{name}: {'-'.join(map(str, widths))}", n_blocks, *cells, ratio, flops, share, used)


def shape_of(name: str) -> NetworkShape:
    """Of a network of `NETWORKS`."""
    patch, n_freq, _, sizes = NETWORKS[name]
    n_in = encoded_width(len(patch), n_freq and frequencies(n_freq, "octaves"))
    return NetworkShape(n_in=n_in, output="sine", **sizes)


def coords_of(name: str) -> torch.Tensor:
    """(n_points, n_in) the encoded points of a block of `NETWORKS`."""
    patch, n_freq, *_ = NETWORKS[name]
    return encode(block_coords(patch), n_freq and frequencies(n_freq, "octaves"))


def visit(
    fit_points: Callable,
    network: BlockNetwork,
    coords: torch.Tensor,
    target: torch.Tensor,
    batch_size: int,
    n_epochs: int,
) -> Callable[[], tuple[float, float]]:
    """A function that trains for some epochs and returns the seconds, and the peak memory meanwhile in MiB."""
    optimizer = make_optimizer(network, 3e-2)
    order = point_order(0, 0, range(n_epochs), len(coords)).to(coords.device)
    lr = torch.full((n_epochs,), 3e-2)

    def run() -> tuple[float, float]:
        forget_peak_memory(coords.device)
        synchronize(coords.device)
        start = time.perf_counter()
        fit_points(network, optimizer, coords, target, order, batch_size, lr)
        synchronize(coords.device)
        return time.perf_counter() - start, peak_memory(coords.device)

    return run


def operations_per_point(shape: dict) -> int:
    """Of the matrix products that train a point: forward, and back to the weights and to the activations."""
    n_in, n_hidden = shape.n_in, shape.n_hidden
    products = n_in * n_hidden + (shape.n_layers - 2) * n_hidden**2 + n_hidden * shape.n_out
    return 2 * (3 * products - n_in * n_hidden)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # the peak is then that of the process so far


def peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**10


if __name__ == "__main__":
    main()
