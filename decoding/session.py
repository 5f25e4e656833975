"""A fit -> picture, volume or mesh: any level or crop of it, between the pixels too, and its blocks."""

import sys
from argparse import Namespace
from pathlib import Path

import torch

from datasets.tasks import task_of
from datasets.volumes import held_bytes as held_bytes_of_volume
from datasets.writers import held_bytes
from decoding.picture import reconstruct_picture
from decoding.values import reconstruct_values
from decoding.volume import reconstruct_volume
from models.miner import MINER
from utils.devices import device_of
from utils.errors import InputError, size_text
from utils.memory import available_memory, used_memory
from utils.windows import Window, in_samples, is_inside, size_of, whole

_RECONSTRUCT = {"image": reconstruct_picture, "mesh": reconstruct_volume, "volume": reconstruct_values}
_MARGIN = 2**27  # bytes that threads take, and libraries that are loaded later


def run(options: Namespace) -> None:
    """Decode what a command line of reconstruct.py says; SystemExit after a dry run."""
    torch.set_flush_denormal(True)
    model = MINER.load(options.ckpts, device_of(options.accelerator), options.backend)
    level = model.finest if options.level is None else options.level
    if options.level is None and level > 0:
        print(f"note: {why_coarse(model)}", file=sys.stderr)
    if level not in model.levels:
        raise InputError(f"--level {level}: the fit has levels {model.finest} to {model.n_scales - 1}; use one of them")
    task = task_of(len(model.size), model.source)
    crop = parse_crop(options.crop, model.levels[level].size, task.size_order)
    if 0 in size_of(in_samples(crop, options.scale)):
        pixels = size_text(size_of(crop))
        raise InputError(f"--scale {float(options.scale):g}: leaves no sample of {pixels} pixels; use a larger one")
    if options.dry_run:
        sys.exit(0 if print_promise(model, level, crop, options) else 1)
    _RECONSTRUCT[task.name](model, level, crop, options)


def why_coarse(model: MINER) -> str:
    """Why the finest level that can be decoded is not level 0."""
    if 0 in model.levels:
        return f"the file is cut short; level {model.finest} is the finest that it holds whole"
    return f"the fit is not finished; level {model.finest} is its finest so far"


def print_promise(model: MINER, level: int, crop: Window, options: Namespace) -> bool:
    """Print how much memory decoding takes at most, except for a surface that is extracted; return whether it fits."""
    size = size_of(in_samples(crop, options.scale))
    is_grid = task_of(len(model.size), model.source).name == "mesh"
    of_writing = held_bytes if len(size) == 2 else held_bytes_of_volume
    held = 0 if options.out is None or is_grid else of_writing(Path(options.out), model.n_channels, size)
    more = _MARGIN + held + model.decoding_bytes(level, crop, options.scale, options.between)
    free = available_memory()
    fits = free is None or more <= free
    total, verdict = (used_memory() + more) / 2**20, "fits" if fits else "may not fit"
    print(f"{size_text(size)} samples, at most {total:,.0f} MiB of memory: {verdict} this machine")
    return fits


def parse_crop(numbers: list[int] | None, size: tuple[int, ...], size_order: str) -> Window:
    """X Y [Z] W H [D] as (start, stop) along the axes, the last of them x; the whole level for None.

    Inputs
        size_order: of a size on the command line, W H or W H D
    """
    if numbers is None:
        return whole(size)
    given, n_dims = " ".join(map(str, numbers)), len(size)
    order = f"{' '.join('XYZ'[:n_dims])} {size_order}"
    if len(numbers) != 2 * n_dims:
        raise InputError(f"--crop {given}: must be {order}")
    starts, lengths = numbers[:n_dims][::-1], numbers[n_dims:][::-1]
    crop = tuple((start, start + length) for start, length in zip(starts, lengths, strict=True))
    if not is_inside(crop, size):
        raise InputError(f"--crop {given}: {order} must lie inside the level, which is {size_text(size)}")
    return crop
