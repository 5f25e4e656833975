"""How a fit is laid out before it begins, and what it takes at most."""

from dataclasses import dataclass
from math import prod

import torch

from datasets.sources import Source
from datasets.store import store_bytes, value_bytes
from models.networks import make_network
from models.ops import Backend, reference
from models.ops.batching import points_at_once
from training.spec import LevelSpec
from utils.blocks import grid_shape
from utils.errors import size_text
from utils.memory import available_memory, used_memory
from utils.pyramid import level_size
from utils.raster import COMPUTED, raster_bytes
from utils.windows import rows_at_once

_MARGIN = 2**27  # what Lightning, TensorBoard and a visit take besides
_COPIES_OF_WINDOW = 10  # while some rows of a level are upsampled, cut into blocks, judged
_MOST_POINTS = 2**24  # of the blocks that are trained at once on a CPU: more would only take memory


@dataclass(frozen=True)
class Plan:
    """What a fit takes at most, as if every block had a network and none were pruned.

    sizes: (h, w) or (d, h, w) of each level, the finest first
    blocks, parameters: of each level
    is_mapped: levels lie in files, else in memory
    files: bytes of these
    max_blocks: trained at once by a process
    host, device: bytes of memory of a process besides; device is 0 where training is on the CPU
    """

    sizes: list[tuple[int, ...]]
    blocks: list[int]
    parameters: list[int]
    is_mapped: bool
    files: int
    max_blocks: int
    host: int
    device: int

    def level_lines(self) -> list[str]:
        """A line for each level, the coarsest first."""
        levels = list(enumerate(zip(self.sizes, self.blocks, self.parameters, strict=True)))
        return [
            f"level {index}: {size_text(size)}, {n_blocks:,} blocks, {n_parameters:,} parameters at most"
            for index, (size, n_blocks, n_parameters) in reversed(levels)
        ]

    def fits(self, n_local: int) -> bool:
        """Whether this machine has the memory for so many processes."""
        free = available_memory()
        fits = free is None or n_local * (self.host - used_memory()) <= free
        return fits and not (self.device and torch.cuda.is_available() and self.device > torch.cuda.mem_get_info()[0])

    def total_line(self, n_local: int, fits: bool) -> str:
        """What so many processes take on this machine, and whether it has that."""
        amounts = [f"{n_local * self.host / 2**20:,.0f} MiB of memory"]
        if self.device:
            amounts.append(f"{self.device / 2**20:,.0f} MiB on each device")
        if self.files:
            amounts.append(f"{self.files / 2**30:.1f} GiB of mapped files")
        verdict = "fits this machine" if fits else "may not fit this machine"
        counts = f"{sum(self.blocks):,} blocks, {sum(self.parameters):,} parameters"
        return f"at most {counts}, {', '.join(amounts)}: {verdict}"


def plan_run(
    source: Source,
    specs: list[LevelSpec],
    backend: Backend,
    device: torch.device,
    n_local: int,
    max_memory: float | None,
    max_blocks: int | None,
) -> Plan:
    """The plan of a run, for each of its processes on this machine.

    Inputs
        n_local: processes on this machine
        max_memory: GiB of memory for each of them; None for what is free
        max_blocks: trained at once by each of them; None for as many as fit
    """
    networks = [make_network(1, spec.shape) for spec in specs]
    width = max(network.activation_width for network in networks) if backend is reference else 0
    free = available_memory()
    free = 2**63 if free is None else free
    return plan_memory(
        [level_size(source.size, spec.index) for spec in specs],
        source.n_channels,
        specs[0].patch_size,
        [network.n_parameters for network in networks],
        signal_bytes=store_bytes(source, len(specs)),
        value_bytes=value_bytes(source),
        activations=points_at_once(device) * width,
        budget=int(max_memory * 2**30 if max_memory else 0.8 * free / n_local),
        device_budget=int(0.8 * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None,
        max_blocks=max_blocks,
    )


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
    """Lay out a fit.

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
    trained = of_block * min(max_blocks, max(blocks))

    rows = min(rows_at_once(n_channels, sizes[0], patch_size[0]), sizes[0][0] + patch_size[0])
    window = n_channels * prod(sizes[0][1:]) * rows
    on_host = _COPIES_OF_WINDOW * 4 * window + (0 if is_mapped else levels) + trained
    return Plan(
        sizes,
        blocks,
        parameters,
        is_mapped,
        files=levels if is_mapped else 0,
        max_blocks=max_blocks,
        host=used_memory() + _MARGIN + on_host + (history if device_budget is None else 0),
        device=0 if device_budget is None else trained + history + _MARGIN,
    )
