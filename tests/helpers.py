"""What several test files use: places, short fits, networks, and how the programs are run."""

import os
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datasets.sources import Source
from datasets.writers import write_rows
from models.block_network import BlockNetwork, init_blocks_
from models.networks import make_network
from models.ops import Backend, fused_cpu, reference
from models.shape import NetworkShape
from utils.bounds import BOUND

ROOT = Path(__file__).resolve().parent.parent
ASTRONAUT = ROOT / "images" / "astronaut.png"
SMALL_FIT = [
    *("--path", str(ASTRONAUT), "--input_size", "100", "75", "--patch_size", "16", "16", "--batch_size", "64"),
    *("--n_scales", "3", "--use_pe", "--n_layers", "3", "--num_epochs", "60", "60", "200", "--val_freq", "40"),
    *("--exp_name", "small", "--accelerator", "cpu"),
]
"""A face, fitted shortly: three levels, blocks of 16, padded at every level."""

BEST_FIT = [
    *("--path", str(ASTRONAUT), "--input_size", "100", "75", "--preset", "best", "--n_scales", "2"),
    *("--num_epochs", "20", "40", "--exp_name", "small", "--accelerator", "cpu"),
]

BACKENDS = [pytest.param(module, id=module.__name__.rpartition(".")[2]) for module in (reference, fused_cpu)]
LAUNCHERS = ("SLURM_", "TORCHELASTIC_", "LOCAL_", "MINER_")  # beginnings of the variables by which they tell

SHAPES = [
    NetworkShape(n_in=16, n_out=3, n_layers=3, n_hidden=20, output="sine"),
    NetworkShape(n_in=2, n_out=1, n_layers=4, n_hidden=20, output="sigmoid"),
    NetworkShape(n_in=7, n_out=4, n_layers=2, n_hidden=20, output="sine"),
    NetworkShape(n_in=210, n_out=1, n_layers=2, n_hidden=8, output="sine"),
    NetworkShape(n_in=2, n_out=3, n_layers=4, n_hidden=8, activation="sine", output="linear", omega=30.0),
    NetworkShape(n_in=24, n_out=3, n_layers=3, n_hidden=16, output="sine", centre=0.5),
    NetworkShape(2, 3, n_layers=4, n_hidden=8, kind="filters", activation="gabor", output="linear", omega=10.0),
]


KERNEL_CASES = [  # points, points a batch, blocks, network
    (112, 48, 7, NetworkShape(n_in=16, n_out=3, n_layers=3, n_hidden=20, output="sine")),
    (1024, 256, 2, NetworkShape(n_in=16, n_out=3, n_layers=3, n_hidden=20, output="sigmoid")),
    (
        1000,
        1000,
        9,
        NetworkShape(n_in=2, n_out=1, n_layers=4, n_hidden=9, output="sine"),
    ),  # more points than a tile has
    (63, 17, 1, NetworkShape(n_in=16, n_out=4, n_layers=2, n_hidden=6, output="sine")),
    (27, 27, 11, NetworkShape(n_in=210, n_out=1, n_layers=2, n_hidden=8, output="sine")),
    (27, 5, 3, NetworkShape(n_in=3, n_out=2, n_layers=5, n_hidden=1, output="sigmoid")),
    (
        300,
        299,
        3,
        NetworkShape(n_in=21, n_out=3, n_layers=3, n_hidden=67, output="sine"),
    ),  # the last batch has one point
    (112, 48, 5, NetworkShape(n_in=2, n_out=3, n_layers=4, n_hidden=9, activation="sine", output="linear", omega=30.0)),
    (100, 30, 3, NetworkShape(n_in=2, n_out=1, n_layers=3, n_hidden=20, activation="sine", output="sine", omega=5.5)),
    (150, 64, 4, NetworkShape(n_in=24, n_out=3, n_layers=4, n_hidden=18, output="sine", centre=0.5)),
    (16, 16, 1000, NetworkShape(n_in=2, n_out=1, n_layers=2, n_hidden=7, output="sigmoid")),
]
KERNEL_OPTIMIZERS = [
    dict(kind="adam"),
    dict(betas=(0.8, 0.99)),
    dict(kind="adam", betas=(0.0, 0.9)),
    dict(kind="nradam", betas=(0.5, 0.999)),
    dict(kind="nradam", betas=(0.6, 0.99)),
]


@dataclass
class Outcome:
    """status: of the process; out, error: what it printed"""

    status: int | str
    out: str
    error: str


def stored(source: Source, start: int, stop: int) -> np.ndarray:
    """The values of some rows or slices, (c, ...), as they lie in the file."""
    numbers = source.read(start, stop)
    return numbers if source.transfer is None else source.transfer.decode(numbers / 65535)


def start_training(
    folder: Path, *arguments: object, launcher: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> subprocess.Popen:
    """train.py in a process of its own, in a folder, outside any launcher that the tests run under."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *launcher, ROOT / "train.py", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)} | (env or {}),
    )


def is_one_line(message: str) -> bool:
    return len(message.strip().splitlines()) == 1


def checkpoints(folder: Path, name: str = "small") -> dict[str, bytes]:
    """The levels of a run in a folder, by their file names."""
    return {path.name: path.read_bytes() for path in folder.glob(f"ckpts/{name}/l*.ckpt")}


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's curves of a run, by tag: (step, value)."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def chunk_of_png(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_picture(path: Path, values: torch.Tensor, bits: int) -> None:
    """Write a picture (c, h, w) in [0, 1] whole."""
    write_rows(path, [values], len(values), tuple(values.shape[1:]), bits)


def random_network(n_blocks: int, shape: NetworkShape, seed: int = 0) -> BlockNetwork:
    """Random everything: initial weights, and widths and amplitudes away from their initial values too."""
    network = make_network(n_blocks, shape)
    init_blocks_(network, torch.arange(n_blocks), seed, level=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for a in getattr(network, "a", []):
            a.copy_(0.1 + torch.rand(a.shape, generator=generator))
        network.amplitude.copy_(torch.rand(network.amplitude.shape, generator=generator))
    return network


def one_group(active: torch.Tensor) -> torch.Tensor:
    """The group of each block where the networks of all active ones are of one group."""
    return active.to(torch.int8) - 1


def skip_what_no_kernel_does(backend: Backend, shape: NetworkShape) -> None:
    if backend is not reference and shape.activation not in backend.SERVED:
        pytest.skip(f"the kernel has no {shape.activation} activations")


def kernel_problem(case: tuple[int, int, int, NetworkShape]) -> tuple[BlockNetwork, torch.Tensor, torch.Tensor]:
    """A network, encoded coordinates and a target, some of it bounds."""
    n_points, _, n_blocks, shape = case
    generator = torch.Generator().manual_seed(5)
    coords = torch.rand(n_points, shape.n_in, generator=generator) * 2 - 1
    target = torch.rand(n_blocks, n_points, shape.n_out, generator=generator)
    if shape.output == "sine":
        target -= 0.5
    target[:, 1::5] += BOUND
    target[:, 2::7] -= BOUND
    return random_network(n_blocks, shape), coords, target


def worst_error(values: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest deviation in a block, relative to the block's largest value: the worst block's."""
    if len(truth) == 0:
        return 0.0
    values, truth = values.detach().double().flatten(1), truth.detach().flatten(1)
    return ((values - truth).abs().amax(1) / truth.abs().amax(1).clamp(min=1e-12)).max().item()
