"""Shared fixtures: real pictures, and runs of the command line inside the test process."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # GPU kernels are then interpreted on the CPU

import preprocess_mesh
import reconstruct
import train
from datasets.sources import read_picture
from datasets.writers import write_rows
from models.ops import fused_cpu, reference

ROOT = Path(__file__).resolve().parent.parent
ASTRONAUT = ROOT / "images" / "astronaut.png"

BACKENDS = [pytest.param(module, id=module.__name__.rpartition(".")[2]) for module in (reference, fused_cpu)]

torch.set_flush_denormal(True)


def write_picture(path: Path, values: torch.Tensor, bits: int) -> None:
    """`write_rows` of a picture that is at hand, (c, h, w) in [0, 1]."""
    write_rows(path, [values], len(values), tuple(values.shape[1:]), bits)


@dataclass
class Outcome:
    """status: of the process; out, error: what it printed"""

    status: int | str
    out: str
    error: str


@pytest.fixture
def command(capsys, monkeypatch) -> Callable[..., Outcome]:
    """Run one of the programs with some arguments in the current folder."""

    def run(program: str, *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        status = 0
        try:
            {"train.py": train, "reconstruct.py": reconstruct, "preprocess_mesh.py": preprocess_mesh}[program].cli()
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return Outcome(status, printed.out, f"{status if isinstance(status, str) else ''}{printed.err}")

    return run


@pytest.fixture(scope="session")
def astronaut() -> torch.Tensor:
    """A face, (3, 75, 100): no size is a multiple of anything."""
    return read_picture(ASTRONAUT, (75, 100)).values


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """The checkpoints of a short fit of that face: three levels, blocks of 16, padded at every level."""
    folder = tmp_path_factory.mktemp("small_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *SMALL_FIT])
        train.cli()
    return folder / "ckpts" / "small"


SMALL_FIT = [
    *("--path", str(ASTRONAUT), "--input_size", "100", "75", "--patch_size", "16", "16", "--batch_size", "64"),
    *("--n_scales", "3", "--use_pe", "--n_layers", "3", "--num_epochs", "60", "60", "200", "--val_freq", "40"),
    *("--exp_name", "small", "--accelerator", "cpu"),
]
