"""How much memory there is, and how much a fit takes at most."""

import resource
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path

from utils.blocks import grid_shape
from utils.errors import InputError, size_text
from utils.raster import COMPUTED, raster_bytes, rows_at_once

_MARGIN = 2**27  # what Lightning, TensorBoard and a visit take besides
_COPIES_OF_WINDOW = 10  # while some rows of a level are upsampled, cut into blocks, judged
_MOST_POINTS = 2**24  # of the blocks that are trained at once on a CPU: more would only take memory
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available_memory() -> int | None:
    """Bytes that this process may still take, or None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    for limit in _LIMITS:
        try:
            free = min(free or 2**63, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return free


def check_memory(path: Path, size: tuple[int, ...], n_bytes: int) -> None:
    """InputError where reading a file would take more memory than there is.

    Inputs
        size: (h, w) or (d, h, w) that its header promises
        n_bytes: that reading it takes
    """
    free = available_memory()
    if free is not None and n_bytes > free:
        raise InputError(
            f"{path} is {size_text(size)}: reading it takes {n_bytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
            "free: a smaller one, or a part of it, works"
        )


def used_memory() -> int:
    """Bytes of this process that are in memory; 0 where the system does not tell."""
    return _own("VmRSS") or 0


def peak_memory() -> int:
    """Bytes of this process that were in memory at most."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _own("VmHWM") or largest  # the latter may count what the process that started this one took


def _own(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


@dataclass(frozen=True)
class Plan:
    """How a fit is laid out, and what it takes at most.

    blocks, parameters: of each level, the finest first, where every block has a network
    is_mapped: levels lie in files, else in memory
    files: bytes of these
    max_blocks: trained at once by a process
    host, device: bytes of memory besides; device is 0 where training is on the CPU
    """

    blocks: list[int]
    parameters: list[int]
    is_mapped: bool
    files: int
    max_blocks: int
    host: int
    device: int


def plan_memory(
    sizes: list[tuple[int, ...]],
    n_channels: int,
    patch_size: tuple[int, ...],
    per_block: list[int],
    *,
    signal_bytes: int,
    value_bytes: int,
    activations: int,
    budget: int,
    device_budget: int | None,
    max_blocks: int | None,
) -> Plan:
    """Lay out a fit before it begins, as if every block had a network and none were pruned.

    Inputs
        sizes: (h, w) or (d, h, w) of each level, the finest first
        per_block: parameters of a block, of each level
        signal_bytes, value_bytes: of all levels of the signal, and of a value at its finest
        activations: values that autograd keeps the history of
        budget: bytes of memory to stay in, where that is possible
        device_budget: likewise of the device that trains; None for the CPU
        max_blocks: trained at once, if that is not to follow from the budgets
    """
    blocks = [prod(grid_shape(size, patch_size)) for size in sizes]
    parameters = [n_blocks * n for n_blocks, n in zip(blocks, per_block, strict=True)]
    levels = signal_bytes + (raster_bytes(n_channels, sizes[1], COMPUTED) * 5 // 4 if sizes[1:] else 0)
    is_mapped = levels > budget / 8

    # signal and base; network, twin and two moments, these three once more while they shrink
    kept = value_bytes if device_budget is None else 4
    of_block = (kept + 4) * n_channels * prod(patch_size) + 7 * 4 * max(per_block)
    history = 8 * 4 * activations
    if max_blocks is None and device_budget is None:
        max_blocks = min(_MOST_POINTS // prod(patch_size), budget // (2 * of_block))
    elif max_blocks is None:
        max_blocks = (device_budget - history) // of_block
    max_blocks = max(1, max_blocks)
    part = of_block * min(max_blocks, max(blocks))

    rows = min(rows_at_once(n_channels, sizes[0], patch_size[0]), sizes[0][0] + patch_size[0])
    window = n_channels * prod(sizes[0][1:]) * rows
    on_host = _COPIES_OF_WINDOW * 4 * window + (0 if is_mapped else levels) + part
    return Plan(
        blocks,
        parameters,
        is_mapped,
        files=levels if is_mapped else 0,
        max_blocks=max_blocks,
        host=used_memory() + _MARGIN + on_host + (history if device_budget is None else 0),
        device=0 if device_budget is None else part + history + _MARGIN,
    )
