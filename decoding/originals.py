"""What was fitted, read again to compare with."""

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from datasets.tasks import task_of
from models.miner import MINER
from utils.errors import InputError


def original_rows(path: str, model: MINER) -> Callable[[int, int], Tensor]:
    """What was fitted, at the size of the fit: (start, stop) -> its rows (c, stop - start, *rest) in [0, 1]."""
    source = task_of(len(model.size)).open(path, model.size)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    if source.n_channels != model.n_channels:
        channels = f"{source.n_channels}-channel, and the fit {model.n_channels}-channel"
        raise InputError(f"--original {path}: is {channels}; use what was fitted")
    peak = 2**source.bits - 1
    return lambda start, stop: torch.from_numpy(source.read(start, stop).astype(np.float32)).div_(peak)
