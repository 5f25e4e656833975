"""What was fitted, read again to compare with."""

import sys
from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch import Tensor

from datasets.tasks import task_of
from models.miner import MINER, WINDOW_VALUES
from utils.errors import InputError
from utils.pyramid import pyramid
from utils.transfer import Reading
from utils.windows import Window, cut_rows


def original_rows(path: str, model: MINER) -> Callable[[int, int], Tensor]:
    """What was fitted, at the size of the fit: (start, stop) -> its rows (c, stop - start, *rest) in [0, 1]."""
    channels = model.source.get("channels")
    reading = Reading(model.transfer, time=model.source.get("time"), channels=channels and tuple(channels))
    source = task_of(len(model.size), model.source).open(path, model.size, reading)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    if source.n_channels != model.n_channels:
        channels = f"{source.n_channels}-channel, and the fit {model.n_channels}-channel"
        raise InputError(f"--original {path}: is {channels}; use what was fitted")
    if source.transfer != model.transfer:
        values = f"plain pixels, and the fit {model.transfer.dtype} values" if model.transfer else "no plain pixels"
        raise InputError(f"--original {path}: holds {values}; use what was fitted")
    peak = 2**source.bits - 1
    return lambda start, stop: torch.from_numpy(source.read(start, stop).astype(np.float32)).div_(peak)


def level_window(rows: Callable[[int, int], Tensor], size: tuple[int, ...], level: int, window: Window) -> Tensor:
    """A window (c, n_rows, *rest) of a level, from the rows of level 0, which has size (h, w) or (d, h, w)."""
    (top, bottom), *across = window
    parts = []
    for start, stop in cut_rows(top, bottom, 1, max(1, WINDOW_VALUES // (2**level * prod(size[1:])))):
        reach = rows(start * 2**level, min(stop * 2**level, size[0]))
        parts.append(pyramid(reach, level + 1)[level][:, :, *(slice(*along) for along in across)])
    return torch.cat(parts, dim=1)
