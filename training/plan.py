"""How a fit is laid out before it begins, and what it takes at most."""

import math
from dataclasses import dataclass
from math import prod

import torch

from datasets.sources import Source
from datasets.store import store_bytes, value_bytes
from models.block_network import BlockNetwork
from models.networks import make_network
from models.ops import Backend, reference
from models.ops.batching import points_at_once
from models.packed.chunks import CACHED_BYTES
from packing.rounding import rounding_bytes
from packing.write import CHUNK_BLOCKS
from training.prior import SAMPLE
from training.spec import LevelSpec
from utils.blocks import grid_shape
from utils.channels import n_colours
from utils.errors import size_text
from utils.memory import available_memory, shared_memory, used_memory
from utils.pyramid import level_size
from utils.raster import COMPUTED, raster_bytes
from utils.windows import rows_at_once

_MARGIN = 2**27  # what a visit and others take besides
_TO_LOAD, _TO_LOAD_SHARED = 160 * 2**20, 2**26  # Lightning and TensorBoard, which are not there yet
_COPIES_OF_WINDOW = 10  # while some rows of a level are upsampled, cut into blocks, judged
_COPIES_OF_NETWORK = 7  # itself, its twin and two moments, these three once more while they shrink
_COPIES_OF_ACTIVATION, _COPIES_OF_INPUT = 8, 2  # that autograd keeps
_COPIES_OF_LAYER = 3  # that an evaluation holds
_COPIES_OF_ROUNDED = 4  # of a level's networks: the integers of two tries, and what is made of them
_COPIES_OF_STATE = 3 * 4  # of network, twin and moments: sent to the first process, received there, merged
_HARDER = 1.25  # than the mean, the blocks that are trained at once may be
_BYTES_OF_SAMPLED = 2 * 4 + 2 * 8 + 3 * 4 + 3 * 4  # of a value: it and its base, two doubles, coefficients, integers
_VALUES_A_BYTE = 4  # that are coded
_MOST_POINTS = 2**24  # of the blocks that are trained at once on a CPU: more would only take memory


@dataclass(frozen=True)
class Plan:
    """What a fit takes at most, as if every block had a network and none were pruned.

    sizes: (h, w) or (d, h, w) of each level, the finest first
    blocks, parameters: of each level
    most_parameters: of all levels; less than their sum where some networks are smaller than others
    is_mapped: levels lie in files, else in memory
    files: bytes of these
    max_blocks: trained at once by a process
    n_local: processes on this machine
    host: bytes of memory of each of them
    shared: bytes of these that all of them share
    launcher: bytes of the process that waits for them, if it is another one
    device: bytes of memory of each device; 0 where training is on the CPU
    """

    sizes: list[tuple[int, ...]]
    blocks: list[int]
    parameters: list[int]
    most_parameters: int
    is_mapped: bool
    files: int
    max_blocks: int
    n_local: int
    host: int
    shared: int
    launcher: int
    device: int

    @property
    def all(self) -> int:
        """Bytes of memory of all processes on this machine."""
        return self.shared + self.n_local * (self.host - self.shared) + self.launcher

    def level_lines(self) -> list[str]:
        """A line for each level, the coarsest first."""
        levels = list(enumerate(zip(self.sizes, self.blocks, self.parameters, strict=True)))
        return [
            f"level {index}: {size_text(size)}, {counts_text(n_blocks, n_parameters)} at most"
            for index, (size, n_blocks, n_parameters) in reversed(levels)
        ]

    def fits(self, n_running: int) -> bool:
        """Whether this machine has the memory.

        Inputs
            n_running: of the processes, whose memory so far is not free any more
        """
        free = available_memory()
        own = used_memory() - shared_memory()
        taken = shared_memory() + n_running * own + (self.launcher if n_running > 1 else 0)
        fits = free is None or self.all - taken <= free
        return fits and not (self.device and torch.cuda.is_available() and self.device > torch.cuda.mem_get_info()[0])

    def total_line(self, fits: bool) -> str:
        """What all processes take on this machine, and whether it has that."""
        amounts = [f"{self.host / 2**20:,.0f} MiB of memory"]
        if self.n_local > 1:
            amounts[0] += f" for each of {self.n_local} processes and {self.all / 2**20:,.0f} MiB for all"
        if self.device:
            amounts.append(f"{self.device / 2**20:,.0f} MiB on each device")
        if self.files:
            amounts.append(f"{self.files / 2**30:.1f} GiB of mapped files")
        verdict = "fits this machine" if fits else "may not fit this machine"
        counts = counts_text(sum(self.blocks), self.most_parameters)
        return f"at most {counts}, {', '.join(amounts)}: {verdict}"


def counts_text(n_blocks: int, n_parameters: int) -> str:
    """Of networks whose parameters are not known before they are fitted, the blocks alone."""
    return f"{n_blocks:,} blocks" + (f", {n_parameters:,} parameters" if n_parameters else "")


@dataclass(frozen=True)
class Demand:
    """What a fit needs memory for.

    sizes: (h, w) or (d, h, w) of each level, the finest first
    n_channels: of the signal
    patch_size: of a block
    per_block: parameters of a block, of each level, at most
    most_parameters: of all blocks
    store_bytes: of all levels of the signal
    decode_bytes: while the signal is read, besides
    value_bytes: of a value of the signal at its finest level
    history_bytes: of what autograd keeps, or of what is found of networks of cosines
    rounding_bytes: while networks are rounded, besides; None where they are not
    """

    sizes: list[tuple[int, ...]]
    n_channels: int
    patch_size: tuple[int, ...]
    per_block: list[int]
    most_parameters: int
    store_bytes: int
    decode_bytes: int
    value_bytes: int
    history_bytes: int
    rounding_bytes: int | None = None

    @property
    def blocks(self) -> list[int]:
        """Of each level."""
        return [prod(grid_shape(size, self.patch_size)) for size in self.sizes]

    @property
    def parameters(self) -> list[int]:
        """Of each level."""
        counts = [n_blocks * n for n_blocks, n in zip(self.blocks, self.per_block, strict=True)]
        return [min(count, self.most_parameters) for count in counts]

    @property
    def usual_per_block(self) -> list[int]:
        """Of each level, of many blocks together: where some have large networks, others have small ones."""
        pairs = zip(self.blocks, self.per_block, strict=True)
        return [min(n, math.ceil(_HARDER * self.most_parameters / n_blocks)) for n_blocks, n in pairs]

    @property
    def decoded(self) -> list[int]:
        """Bytes of the reconstruction of each level; the finest one is never kept."""
        return [0, *(raster_bytes(self.n_channels, size, COMPUTED) for size in self.sizes[1:])]

    @property
    def window_bytes(self) -> int:
        """While some rows of the finest level are worked on."""
        size, patch = self.sizes[0], self.patch_size[0]
        rows = min(rows_at_once(self.n_channels, size, patch), size[0] + patch)
        return _COPIES_OF_WINDOW * 4 * self.n_channels * prod(size[1:]) * rows

    def target_bytes(self, value_bytes: int) -> int:
        """Of the signal and the base of a block."""
        return (value_bytes + 4) * self.n_channels * prod(self.patch_size)

    def peak(self, is_mapped: bool, max_blocks: int, n_processes: int) -> int:
        """Most bytes that a process holds at once, beside windows: while it reads, fits or decodes a level, or reports.

        Inputs
            is_mapped: levels lie in files
            max_blocks: trained at once by a process
        """
        store, decoded = (0, [0] * len(self.sizes)) if is_mapped else (self.store_bytes, self.decoded)
        networks = [4 * parameters for parameters in self.parameters]
        moments = [store + self.decode_bytes, store + sum(networks)]
        for level, (n_blocks, per_block) in enumerate(zip(self.blocks, self.usual_per_block, strict=True)):
            coarser = sum(held[level + 1] for held in (decoded, networks) if level + 1 < len(held))
            n_trained = min(max_blocks, -(-n_blocks // n_processes))
            fit = n_trained * (self.target_bytes(self.value_bytes) + _COPIES_OF_NETWORK * 4 * per_block)
            if n_processes > 1:
                received = n_processes * _COPIES_OF_STATE * 4 * per_block
                fit += n_trained * (self.target_bytes(self.value_bytes) + received)
            if n_trained * n_processes < n_blocks:
                fit += networks[level]  # of other parts
            moments += [store + coarser + fit, store + coarser + networks[level] + decoded[level]]
            if self.rounding_bytes is not None:
                moments.append(store + coarser + _COPIES_OF_ROUNDED * networks[level] + self.rounding_bytes)
        return max(moments)


def plan_run(
    source: Source,
    specs: list[LevelSpec],
    backend: Backend,
    device: torch.device,
    n_local: int,
    max_memory: float | None,
    max_blocks: int | None,
    n_parameters: int | None,
) -> Plan:
    """The plan of a run, for each of its processes on this machine.

    Inputs
        n_local: processes on this machine
        max_memory: GiB of memory for each of them; None for what is free
        max_blocks: trained at once by each of them; None for as many as fit
        n_parameters: of all networks, where there are several to choose from; None for one a pixel or,
            of more than three channels, for every three values
    """
    networks = [make_network(1, spec.shapes[-1]) for spec in specs]  # of the most units
    sizes, patch_size = [level_size(source.size, spec.index) for spec in specs], specs[0].patch_size
    per_block = [network.n_parameters for network in networks]
    most = sum(n * prod(grid_shape(size, patch_size)) for n, size in zip(per_block, sizes, strict=True))
    if len(specs[0].shapes) > 1:
        least = make_network(1, specs[-1].shapes[0]).n_parameters * prod(grid_shape(sizes[-1], patch_size))
        usual = prod(source.size) * max(3, n_colours(source.n_channels, source.spectral)) // 3
        most = min(most, max(usual, least) if n_parameters is None else n_parameters)
    history = 0
    if specs[0].is_compact:
        history = _compact_bytes(source)
        per_row = prod(grid_shape(source.size, patch_size)[1:])
        max_blocks = CHUNK_BLOCKS[len(source.size)][0] * per_row  # a row of chunks
    elif backend is reference:
        history = _history_bytes(source.size, specs[0], networks, device)
    demand = Demand(
        sizes=sizes,
        n_channels=source.n_channels,
        patch_size=patch_size,
        per_block=per_block,
        most_parameters=most,
        store_bytes=store_bytes(source, len(specs)),
        decode_bytes=source.decode_bytes,
        value_bytes=value_bytes(source),
        history_bytes=history,
        rounding_bytes=rounding_bytes(max(per_block), patch_size, source.n_channels, specs[0].shapes)
        if specs[0].loss_db
        else None,
    )
    free = available_memory()
    free = 2**63 if free is None else free
    return plan_memory(
        demand,
        budget=int(max_memory * 2**30 if max_memory else 0.8 * free / n_local),
        device_budget=int(0.8 * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None,
        max_blocks=max_blocks,
        n_local=n_local,
    )


def _compact_bytes(source: Source) -> int:
    """What the blocks that a prior is learned from take, what is coded so far, and what is decoded again."""
    n_values = prod(source.size) * source.n_channels
    sample = min(n_values, SAMPLE * source.n_channels) * _BYTES_OF_SAMPLED
    return sample + n_values // _VALUES_A_BYTE + CACHED_BYTES


def _history_bytes(size: tuple[int, ...], finest: LevelSpec, networks: list[BlockNetwork], device: torch.device) -> int:
    """What autograd keeps, of as many points of a step as are computed together; or a level that is evaluated, without
    it, of as many as are evaluated together.

    Inputs
        size: of the finest level
    """
    n_blocks, shapes = prod(grid_shape(size, finest.patch_size)), [network.shape for network in networks]
    kept = _COPIES_OF_ACTIVATION * max(network.activation_width for network in networks)
    kept += _COPIES_OF_INPUT * max(shape.n_in for shape in shapes)
    passing = _COPIES_OF_LAYER * max(shape.n_in + shape.n_hidden + shape.n_out for shape in shapes)
    trained, evaluated = (
        min(points_at_once(device), n_blocks * n_points) for n_points in (finest.batch_size, prod(finest.patch_size))
    )
    return 4 * max(kept * trained, passing * evaluated)


def plan_memory(
    demand: Demand, *, budget: int, device_budget: int | None, max_blocks: int | None, n_local: int = 1
) -> Plan:
    """Lay out a fit.

    Inputs
        budget: bytes of memory to stay in, where that is possible
        device_budget: likewise of the device that trains; None for the CPU
        max_blocks: trained at once, if that is not to follow from the budgets
        n_local: processes on this machine
    """
    files = demand.store_bytes + sum(demand.decoded[1:2]) * 5 // 4
    is_mapped = files > budget / 8
    kept = demand.value_bytes if device_budget is None else 4
    of_block = demand.target_bytes(kept) + _COPIES_OF_NETWORK * 4 * max(demand.usual_per_block)
    if max_blocks is None and device_budget is None:
        max_blocks = min(_MOST_POINTS // prod(demand.patch_size), budget // (2 * of_block))
    elif max_blocks is None:
        max_blocks = (device_budget - demand.history_bytes) // of_block
    max_blocks = max(1, max_blocks)
    trained = of_block * min(max_blocks, max(demand.blocks))
    history = demand.history_bytes
    on_host = demand.window_bytes + demand.peak(is_mapped, max_blocks, n_local)
    return Plan(
        sizes=demand.sizes,
        blocks=demand.blocks,
        parameters=demand.parameters,
        most_parameters=demand.most_parameters,
        is_mapped=is_mapped,
        files=files if is_mapped else 0,
        max_blocks=max_blocks,
        n_local=n_local,
        host=used_memory() + _TO_LOAD + _MARGIN + on_host + (history if device_budget is None else 0),
        shared=shared_memory() + _TO_LOAD_SHARED,
        launcher=used_memory() - shared_memory() if n_local > 1 else 0,
        device=0 if device_budget is None else trained + history + _MARGIN,
    )
