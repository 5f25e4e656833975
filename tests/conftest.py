"""Shared fixtures: real pictures, and runs of the command line inside the test process."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from utils.imports import spin_briefly

spin_briefly()  # as programs do

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # GPU kernels are then interpreted on the CPU

from browsing import launched
from helpers import ASTRONAUT, BEST_FIT, SMALL_FIT, Outcome

import pack
import preprocess_mesh
import reconstruct
import train
import view
from datasets.sources import read_picture

torch.set_flush_denormal(True)

PROGRAMS = {f"{module.__name__}.py": module for module in (train, reconstruct, preprocess_mesh, pack, view)}


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A browser without a window, for pages."""
    with launched() as browser:
        yield browser


@pytest.fixture
def command(capsys, monkeypatch) -> Callable[..., Outcome]:
    """Run one of the programs with some arguments in the current folder."""

    def run(program: str, *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        status = 0
        try:
            PROGRAMS[program].cli()
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
    return fit(tmp_path_factory.mktemp("small_run"), SMALL_FIT)


@pytest.fixture(scope="session")
def best_run(tmp_path_factory) -> Path:
    """Checkpoints like those of `small_run`, by the method that fits best: networks of two layers and many widths."""
    return fit(tmp_path_factory.mktemp("best_run"), BEST_FIT)


def fit(folder: Path, arguments: list[str]) -> Path:
    """The folder of the run that a command line of train.py leaves, of the name `small`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *arguments])
        train.cli()
    return folder / "ckpts" / "small"
