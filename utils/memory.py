"""How much memory there is, and how much a fit takes at most."""

import resource
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path

from utils.blocks import grid_shape
from utils.errors import InputError, size_text

_MARGIN = 2**27  # what Lightning, TensorBoard and a visit take besides
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
class Bound:
    """What a fit takes at most.

    blocks, parameters: of each level, the finest first
    host, device: bytes of memory; device is 0 where training is on the CPU
    """

    blocks: list[int]
    parameters: list[int]
    host: int
    device: int


def bound_memory(
    sizes: list[tuple[int, ...]],
    n_channels: int,
    patch_size: tuple[int, ...],
    per_block: list[int],
    activations: int,
    on_device: bool,
) -> Bound:
    """Bound a fit before it begins: every block has a network and none is pruned.

    Inputs
        sizes: (h, w) or (d, h, w) of each level, the finest first
        per_block: parameters of a block, of each level
        activations: values that autograd keeps the history of
        on_device: the networks are not trained on the CPU
    """
    blocks = [prod(grid_shape(size, patch_size)) for size in sizes]
    parameters = [n_blocks * n for n_blocks, n in zip(blocks, per_block, strict=True)]
    values = n_channels * prod(sizes[0])
    padded = n_channels * blocks[0] * prod(patch_size)
    # float32 copies of the finest level: signal, base, their paddings, the coarser level, what refine works on
    copies = 4 * (2 * values + (2 * padded if padded > values else 0) + values // 2 + padded + values)
    # network, twin and two moments, once more while they are saved or shrink
    training = 8 * 4 * max(parameters)
    history = 8 * 4 * activations
    on_device_only = 4 * 2 * padded + 5 * 4 * max(parameters) + history
    return Bound(
        blocks,
        parameters,
        host=used_memory() + _MARGIN + copies + training + (0 if on_device else history),
        device=on_device_only + _MARGIN if on_device else 0,
    )
