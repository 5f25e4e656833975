"""The chunks of a level, boxes of blocks of its grid that are read each on its own; and a cache of what was read."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.level import check_numbers
from models.packed.coding import Coding
from models.packed.layout import checksum, damaged
from models.packed.ranges import Ranges
from models.shape import NetworkShape
from utils.blocks import grid_shape
from utils.errors import InputError, one_line
from utils.windows import Window, slices

Networks = tuple[Tensor, list[BlockNetwork]]
"""What a chunk decodes to: the group of each active block, and the networks of each group."""

CACHED_BYTES = 2**28


@dataclass(frozen=True)
class ChunkGrid:
    """
    grid: blocks of the level along each axis
    chunk: blocks of a chunk along each axis; those at the far edges may have fewer
    """

    grid: tuple[int, ...]
    chunk: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Chunks along each axis; they are numbered in C order."""
        return grid_shape(self.grid, self.chunk)

    def blocks(self, number: int) -> Window:
        """Of a chunk, as a window of the grid."""
        place = np.unravel_index(number, self.shape)
        along = zip(map(int, place), self.chunk, self.grid, strict=True)
        return tuple((at * length, min((at + 1) * length, end)) for at, length, end in along)

    def active_blocks(self, number: int, active: np.ndarray) -> np.ndarray:
        """(n_active,) ascending indices in the grid of the blocks of a chunk that have a network.

        Inputs
            active: (*grid) bool
        """
        window = self.blocks(number)
        places = np.argwhere(active[slices(window)]) + [start for start, _ in window]
        return np.ravel_multi_index(tuple(places.T), self.grid)

    def counts(self, active: np.ndarray) -> np.ndarray:
        """(n_chunks,) how many blocks of each chunk have a network."""
        counts = active.astype(np.int64)
        for axis, (length, end) in enumerate(zip(self.chunk, self.grid, strict=True)):
            counts = np.add.reduceat(counts, range(0, end, length), axis=axis)
        return counts.reshape(-1)

    def touched(self, blocks: Window) -> Iterator[int]:
        """The numbers of the chunks that a window of the grid touches, ascending."""
        along = zip(blocks, self.chunk, strict=True)
        places = product(*(range(start // length, -(-stop // length)) for (start, stop), length in along))
        return (int(np.ravel_multi_index(place, self.shape)) for place in places)


@dataclass(frozen=True)
class Chunks:
    """Where the chunks of a level lie in a file, and how they are coded.

    level: its index
    starts: (n_chunks + 1,) where each begins, and the last one ends
    checksums: (n_chunks,)
    counts: (n_chunks,) active blocks of each
    shapes: of the networks of each group
    """

    level: int
    starts: np.ndarray
    checksums: np.ndarray
    counts: np.ndarray
    shapes: Sequence[NetworkShape]
    coding: Coding


class ChunkReader:
    """Reads the chunks of a file, and keeps what was read last.

    Inputs
        most: bytes that are kept
    """

    def __init__(self, ranges: Ranges, most: int = CACHED_BYTES):
        self.ranges, self.most, self.n_bytes = ranges, most, 0
        self.kept: OrderedDict[tuple[int, int], tuple[Networks, int]] = OrderedDict()

    def read(self, chunks: Chunks, numbers: Sequence[int]) -> list[Networks]:
        """The networks of some chunks of a level, each of which has some; those that are not kept are read at once.

        Errors
            InputError, which names the file, for chunks that it lacks, that are damaged or not consistent
        """
        name = self.ranges.name
        spans = {number: (int(chunks.starts[number]), int(chunks.starts[number + 1])) for number in numbers}
        if any(stop > self.ranges.size for _, stop in spans.values()):
            raise InputError(
                f"{name} is cut short before the networks of level {chunks.level} that this needs; "
                "get the rest of it, or decode a coarser level"
            )
        held = {number: self.kept[key][0] for number in numbers if (key := (chunks.level, number)) in self.kept}
        missing = [number for number in numbers if number not in held]
        for number, data in zip(missing, self.ranges.read([spans[number] for number in missing]), strict=True):
            held[number] = self._networks(chunks, number, data)
        for number in numbers:
            self._keep((chunks.level, number), held[number])
        return [held[number] for number in numbers]

    def _networks(self, chunks: Chunks, number: int, data: bytes) -> Networks:
        which = f"chunk {number} of level {chunks.level}"
        if checksum(data, chunks.level, number) != chunks.checksums[number]:
            raise damaged(self.ranges.name, f"{which} is not as it was written")
        n_active = int(chunks.counts[number])
        try:
            group, networks = chunks.coding.decode(data, n_active)
            _check_networks(group, networks, n_active, chunks.shapes)
        except (TypeError, ValueError) as error:
            raise damaged(self.ranges.name, f"{which}: {one_line(error)[:200]}") from error
        return group, networks

    def _keep(self, key: tuple[int, int], networks: Networks) -> None:
        """What was used last is dropped last."""
        _, n_bytes = self.kept.pop(key, (None, 0))
        self.n_bytes -= n_bytes
        n_bytes = sum(tensor.nbytes for network in networks[1] for tensor in network.state_dict().values())
        self.kept[key], self.n_bytes = (networks, n_bytes), self.n_bytes + n_bytes
        while self.n_bytes > self.most:
            _, (_, n_bytes) = self.kept.popitem(last=False)
            self.n_bytes -= n_bytes


def _check_networks(group: Tensor, networks: list[BlockNetwork], n_active: int, shapes: Sequence[NetworkShape]) -> None:
    """TypeError unless a chunk has so many blocks, each with a network of its group's shape."""
    if group.shape != (n_active,) or group.dtype != torch.int8 or group.min() < 0 or group.max() >= len(shapes):
        raise TypeError(f"groups {group.dtype} {tuple(group.shape)} of {n_active} blocks")
    counts = torch.bincount(group, minlength=len(shapes)).tolist()
    if [(network.shape, network.n_blocks) for network in networks] != list(zip(shapes, counts, strict=True)):
        raise TypeError("networks that are not those of their groups")
    for network in networks:
        check_numbers(network)
