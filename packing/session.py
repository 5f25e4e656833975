"""The checkpoints of a run -> one file, and what it saves."""

import json
import sys
from argparse import Namespace
from math import inf
from pathlib import Path

import torch

from models.miner import MINER
from packing.loss import difference, pack_within
from packing.quantise import fraction_for
from packing.sizes import figure, size_line
from packing.write import codings_of, write_packed
from utils.checkpoint import checkpoint_bytes
from utils.errors import InputError
from utils.files import check_file, check_replaceable
from utils.metrics import psnr


def run(options: Namespace) -> None:
    """Pack what a command line of pack.py says."""
    torch.set_flush_denormal(True)
    folder = Path(options.ckpts)
    check_run(folder)
    path = Path(options.out or f"{folder.resolve().name}.miner")
    check_replaceable(path)
    model = MINER.load(folder)
    check_finished(folder, model)
    error = pack(folder, model, path, options.loss_db)
    n_bytes = path.stat().st_size
    times = figure(checkpoint_bytes(folder) / n_bytes)
    print(f"{path}: {size_line(n_bytes, model.size)}, {times} times smaller than the checkpoints")
    if error is not None:
        added = difference(model, MINER.load(path))
        print(f"{psnr.line.format(psnr.value(error + added, 1))}, {lost(error, added):.3f} dB less")


def check_run(folder: Path) -> None:
    """InputError where there is no folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not the folder of a run; use ckpts/EXP_NAME")


def check_finished(folder: Path, model: MINER) -> None:
    """InputError for a run that lacks levels."""
    if model.finest > 0:
        raise InputError(f"{folder} is not finished: level {model.finest} is its finest so far; go on with --resume")


def pack(folder: Path, model: MINER, path: Path, loss_db: float) -> float | None:
    """Write the file of a run.

    Inputs
        model: the same run, read
        loss_db: of PSNR that rounding its networks may cost, unless they were rounded or coded as they were fitted
    Outputs
        mean squared error of the run, if its networks were rounded now
    Errors
        as for `fit_error` and `pack_within`
    """
    packed, codings, error = model, codings_of(folder, model), None
    if loss_db > 0 and not codings:
        error = fit_error(folder)
        found = pack_within(model, error * fraction_for(loss_db), lambda added: note_try(error, added))
        packed, codings = found.model, found.codings
    write_packed(path, packed, codings)
    return error


def fit_error(folder: Path) -> float:
    """The mean squared error of a fit, from what its run has measured.

    Errors
        InputError where metrics.json does not say, or there is none
    """
    path = folder / "metrics.json"
    try:
        check_file(path)
        quality = json.loads(path.read_text())["psnr"]
        if quality is not None:
            error = 10.0 ** (-float(quality) / 10)
            if not 0 < error < inf:
                raise ValueError(f"PSNR {quality}")
            return error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise InputError(f"{path} does not say the PSNR of the fit; --loss_db 0 does without") from error
    raise InputError(f"{folder} is a perfect fit, of which nothing may be lost; use --loss_db 0")


def lost(error: float, added: float) -> float:
    """Decibels that an error which is added to that of a fit costs."""
    return psnr.value(error, 1) - psnr.value(error + added, 1)


def note_try(error: float, added: float) -> None:
    """Say what quantised networks would lose."""
    print(f"quantised: {lost(error, added):.3f} dB less", file=sys.stderr)
