"""All that a GPU is needed for, in at most eight minutes: agreement, whole fits, decoding, speed.

    python -m benchmarks.gpu [PICTURE] [--out FILE]

PICTURE, by default the Pluto that ships with the project, is enlarged to 4096x4096 and fitted by the command of
configs/pluto4k.yaml, and read back. A mosaic of it is fitted by configs/shibuya28k.yaml for few epochs. Every row is
printed and kept as soon as it is known; what fails, or would take too long, says so in its row, and the rest goes on.
`--device cpu --small` tries the program itself where there is no GPU.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
import yaml

from benchmarks import fit
from benchmarks.end_to_end import milliseconds
from benchmarks.mosaic import mosaic
from benchmarks.records import Printer, make_parser
from datasets.writers import write_rows
from models.block_network import BlockNetwork, init_blocks_
from models.miner import MINER
from models.networks import make_network
from models.ops import Backend, choose_backend, reference
from models.ops.optimizers import make_optimizer
from utils.rng import point_order

ROOT = Path(__file__).resolve().parent.parent
LIMIT, FOR_SPEED = 480, 130  # seconds of it all, and of them for the speeds, which come last


class Sizes(NamedTuple):
    """How large the parts are: pictures in pixels, epochs of each level of the mosaic, blocks whose speed is measured
    and some that are compared, repeats of a measurement."""

    pluto: int
    mosaic: tuple[int, int]
    epochs: int
    blocks: int
    some: int
    crop: int
    repeats: int


FULL = Sizes(pluto=4096, mosaic=(28672, 10240), epochs=2, blocks=4096, some=64, crop=512, repeats=3)
SMALL = Sizes(pluto=256, mosaic=(896, 320), epochs=1, blocks=64, some=4, crop=64, repeats=1)
N_EPOCHS = 2  # after which trained networks are compared


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("picture", nargs="?", type=Path, default=ROOT / "images" / "pluto.png", metavar="PICTURE")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the program itself")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; --device cpu --small tries the program without one")
    torch.set_flush_denormal(True)
    sizes, device = SMALL if options.small else FULL, torch.device(options.device)
    end = time.monotonic() + LIMIT
    table = Printer("What a GPU does", ["what", "of", "measured", "seconds"], options.out)
    with tempfile.TemporaryDirectory() as place:
        folder, picture = Path(place), options.picture.resolve()
        for name in fit.NETWORKS:
            row(table, "agreement", name, lambda name=name: agreement(name, sizes.some, device))
        row(table, "fit", *pluto(folder, picture, sizes, device, lambda: end - FOR_SPEED - time.monotonic()))
        row(table, "decoding", "that fit", lambda: decoding(folder / "ckpts" / "pluto", sizes.crop, device))
        row(table, "fit", *mosaics(folder, picture, sizes, device, lambda: end - FOR_SPEED - time.monotonic()))
    for name in fit.NETWORKS:
        if time.monotonic() > end - FOR_SPEED / 3:
            table.add("speed", name, "left out: no time", "0")
            continue
        row(table, "speed", name, lambda name=name: speed(name, sizes, device))


def row(table: Printer, what: str, of: str, measure: Callable[[], str]) -> None:
    """Adds what a function measures, or why it does not."""
    start = time.monotonic()
    try:
        measured = measure()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        measured = f"failed: {type(error).__name__}: {lines[-1][:200]}".replace("|", "/")
    table.add(what, of, measured, f"{time.monotonic() - start:.0f}")


def agreement(name: str, n_blocks: int, device: torch.device) -> str:
    """Of parameters and predictions after some epochs, with those in double precision, beside the reference's."""
    shape = fit.shape_of(name)
    backends = {"fused": choose_backend("fused", [shape], device), "reference": reference}
    true_network, true_values = trained(reference, name, n_blocks, device, double=True)
    found = []
    for kind, backend in backends.items():
        network, values = trained(backend, name, n_blocks, device)
        pairs = zip(network.parameters(), true_network.parameters(), strict=True)
        found.append(f"{kind} {max(off(*pair) for pair in pairs):.1e} and {off(values, true_values):.1e}")
    return f"parameters and predictions are off by: {', '.join(found)}"


def trained(
    backend: Backend, name: str, n_blocks: int, device: torch.device, double: bool = False
) -> tuple[BlockNetwork, torch.Tensor]:
    """A network after some epochs, and what it predicts."""
    batch_size, coords, shape = fit.NETWORKS[name][2], fit.coords_of(name), fit.shape_of(name)
    network = make_network(n_blocks, shape)
    init_blocks_(network, torch.arange(n_blocks), seed=0, level=0)
    generator = torch.Generator().manual_seed(5)
    target = torch.rand(n_blocks, len(coords), shape.n_out, generator=generator) - 0.5
    network, coords, target = (part.to(device) for part in (network, coords, target))
    if double:
        network, coords, target = network.double(), coords.double(), target.double()
    order = point_order(0, 0, range(N_EPOCHS), len(coords)).to(device)
    rates = torch.full((N_EPOCHS,), 3e-2)
    backend.fit_points(network, make_optimizer(network, 3e-2), coords, target, order, batch_size, rates)
    return network, backend.predict(network, slice(None), coords)


def off(values: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest deviation in a block, relative to the block's largest value: the worst block's."""
    values, truth = values.detach().double().flatten(1), truth.detach().flatten(1)
    return ((values - truth).abs().amax(1) / truth.abs().amax(1).clamp(min=1e-12)).max().item()


def pluto(
    folder: Path, picture: Path, sizes: Sizes, device: torch.device, left: Callable[[], float]
) -> tuple[str, Callable[[], str]]:
    """What is fitted, and the fit."""
    size = [sizes.pluto, sizes.pluto]
    changes = dict(path=str(picture), input_size=size, exp_name="pluto")
    return f"{picture.name} at {size[0]}x{size[1]}", lambda: train(folder, "pluto4k", changes, device, left())


def mosaics(
    folder: Path, picture: Path, sizes: Sizes, device: torch.device, left: Callable[[], float]
) -> tuple[str, Callable[[], str]]:
    """The same of a mosaic for few epochs."""
    width, height = sizes.mosaic

    def run() -> str:
        pieces = [str(picture), str(ROOT / "images" / "astronaut.png")]
        write_rows(folder / "mosaic.tif", mosaic(width, height, pieces), 3, (height, width), 8)
        epochs = [sizes.epochs] * 6
        changes = dict(path="mosaic.tif", input_size=[width, height], num_epochs=epochs, exp_name="mosaic")
        return train(folder, "shibuya28k", changes, device, left())

    return f"mosaic at {width}x{height}, --num_epochs {sizes.epochs}", run


def train(folder: Path, config: str, changes: dict, device: torch.device, limit: float) -> str:
    """Run train.py with the options of one of configs/, some of them changed.

    Errors
        TimeoutExpired after `limit` seconds, RuntimeError with what it printed if it fails
    """
    options = yaml.safe_load((ROOT / "configs" / f"{config}.yaml").read_text())
    options |= changes | dict(backend="fused", accelerator="gpu" if device.type == "cuda" else "cpu")
    (folder / "row.yaml").write_text(yaml.safe_dump(options))
    start = time.monotonic()
    command = [sys.executable, ROOT / "train.py", "--config", "row.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=max(1, limit))
    if done.returncode:
        raise RuntimeError(done.stderr)
    wall = time.monotonic() - start
    report = json.loads((folder / "ckpts" / changes["exp_name"] / "metrics.json").read_text())
    memory = " + ".join(f"{amount:.0f}" for amount in report["peak_memory_mib"].values())
    fitted = report["seconds"]["fit"]
    return (
        f"{wall:.1f} s, {fitted:.1f} s of them the fit; {report['psnr']:.2f} dB, {report['parameters']:,} parameters, "
        f"{memory} MiB"
    )


def decoding(run: Path, crop: int, device: torch.device) -> str:
    """Of a whole fit and of a crop in its middle."""
    model = MINER.load(run, device.type, "fused")
    window = tuple((length // 2, length // 2 + crop) for length in model.size)
    whole, part = milliseconds(model.decode), milliseconds(lambda: model.decode(crop=window))
    size = "x".join(map(str, reversed(model.size)))
    return f"{size}: {whole:.0f} ms; {crop}x{crop} of it: {part:.1f} ms"


def speed(name: str, sizes: Sizes, device: torch.device) -> str:
    """As benchmarks.fit has it."""
    found = []
    fit.measure(
        SimpleNamespace(add=lambda *cells: found.extend(cells)), name, sizes.blocks, device, sizes.repeats, None
    )
    _, _, plain, compiled, fused, ratio, flops, _, memory = found
    return (
        f"{sizes.blocks} blocks, millions of points a second: reference {plain}, torch.compile of it "
        f"{compiled or 'failed'}, fused {fused} ({ratio} times the reference, {flops} GFLOP/s); "
        f"memory of each {memory} MiB"
    )


if __name__ == "__main__":
    main()
