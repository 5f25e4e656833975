"""A level of a file, whose networks are read as they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.level import Level
from models.networks import form_of_networks, joined, make_network
from models.packed.chunks import ChunkGrid, ChunkReader, Chunks
from models.packed.coding import Coding
from models.shape import NetworkShape
from utils.windows import Window, whole

_COPIES_READ = 3  # of networks: as they lie in the file, by chunks, and together


@dataclass(frozen=True)
class Contents:
    """What the beginning of a file says of a level.

    form: the fields of `Level`, besides those of its networks
    blocks_by_group: blocks whose networks are of each group
    parameters: of all networks
    active: (*grid) bool, which blocks have a network
    """

    form: dict[str, Any]
    blocks_by_group: list[int]
    parameters: int
    active: np.ndarray
    grid: ChunkGrid
    chunks: Chunks

    def __post_init__(self) -> None:
        """TypeError if its parts do not agree."""
        if not all(type(count) is int and count >= 0 for count in self.blocks_by_group):
            raise TypeError(f"{self.blocks_by_group} blocks by group")
        if len(self.blocks_by_group) != len(self.chunks.shapes) or sum(self.blocks_by_group) != self.active.sum():
            raise TypeError(f"{self.blocks_by_group} blocks by group, where {self.active.sum()} have a network")
        if ((self.chunks.counts > 0) != (np.diff(self.chunks.starts) > 0)).any():
            raise TypeError("chunks without a block, or blocks without a chunk")
        most = n_parameters(self.chunks.shapes, self.blocks_by_group)
        is_sparse = self.chunks.shapes[0].kind == "cosines"
        if type(self.parameters) is not int or not (0 if is_sparse else most) <= self.parameters <= most:
            raise TypeError(f"{self.parameters} parameters, which are not those of its networks")


class PackedLevel(Level):
    """What the level is made of is known at once. `group`, `networks` and what is made of them read all of it, and
    `within` reads the chunks that a window touches."""

    def __init__(self, contents: Contents, reader: ChunkReader, device: str | torch.device = "cpu"):
        vars(self).update(contents.form)  # the fields of a frozen class
        self.contents, self.reader, self._device = contents, reader, torch.device(device)
        self._last: tuple[list[int], Level] | None = None

    def __repr__(self) -> str:
        return f"PackedLevel({self.summary()})"

    @property
    def shapes(self) -> tuple[NetworkShape, ...]:
        return tuple(self.contents.chunks.shapes)

    @property
    def blocks_by_group(self) -> list[int]:
        return self.contents.blocks_by_group

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def is_there(self) -> bool:
        return int(self.contents.chunks.starts[-1]) <= self.reader.ranges.size

    @property
    def n_parameters(self) -> int:
        return self.contents.parameters

    @property
    def coding(self) -> Coding:
        return self.contents.chunks.coding

    def check(self, size: tuple[int, ...], n_channels: int) -> None:
        """As for any level, but chunks are checked when they are read."""
        self.check_form(size, n_channels)

    def chunks(self) -> Iterator[bytes]:
        """Of each chunk what is written of it, in their order; nothing for one without a network.

        Errors
            InputError, which names the file, if they cannot be read
        """
        for span in pairwise(self.contents.chunks.starts.tolist()):
            yield self.reader.ranges.read([span])[0] if span[0] < span[1] else b""

    def _record_of_networks(self) -> dict[str, Any]:
        """What `held.level_of` makes the level from."""
        chunks = self.contents.chunks
        return {
            "network_shapes": [shape.record() for shape in chunks.shapes],
            "coding": chunks.coding.record(),
            "blocks_by_group": list(self.blocks_by_group),
            "parameters": self.n_parameters,
            "active": self.active_grid.cpu().flatten(),
            "chunk": list(self.contents.grid.chunk),
            "lengths": torch.from_numpy(np.diff(chunks.starts)),
            "checksums": torch.from_numpy(chunks.checksums.astype(np.int64)),
            "chunks": torch.frombuffer(bytearray(b"".join(self.chunks())) or bytearray(1), dtype=torch.uint8),
        }

    @property
    def active_grid(self) -> Tensor:
        return torch.from_numpy(self.contents.active).to(self.device)

    @cached_property
    def _all(self) -> Level:
        return self.within(whole(self.size))

    @property
    def group(self) -> Tensor:
        return self._all.group

    @property
    def networks(self) -> tuple[BlockNetwork, ...]:
        return self._all.networks

    def to(self, device: str | torch.device) -> "PackedLevel":
        return PackedLevel(self.contents, self.reader, device)

    def within(self, window: Window) -> Level:
        """A level that has the networks of the chunks that a window touches, in pixels, and no others.

        Errors
            InputError, which names the file, if they cannot be read
        """
        counts = self.contents.chunks.counts
        numbers = [number for number in self.contents.grid.touched(self._blocks(window)) if counts[number]]
        if self._last is None or self._last[0] != numbers:  # windows that follow each other share their chunks
            self._last = None
            self._last = numbers, self._of_chunks(numbers)
        return self._last[1]

    def reading_bytes(self, window: Window, n_rows: int) -> int:
        contents, numbers = self.contents, list(self.contents.grid.touched(self._blocks(window)))
        first, last = (number // prod(contents.grid.shape[1:]) for number in (numbers[0], numbers[-1]))
        by_row = contents.chunks.counts[numbers].reshape(last + 1 - first, -1).sum(axis=1)  # of chunks
        n_at_once = n_rows // (contents.grid.chunk[0] * self.patch_size[0]) + 2
        at_once = np.convolve(by_row, np.ones(n_at_once, np.int64)).max()
        n_bytes = [4 * sum(size.numel() for size in form_of_networks(1, shape).values()) for shape in self.shapes]
        of_level = sum(count * of_block for count, of_block in zip(self.blocks_by_group, n_bytes, strict=True))
        held, kept = (min(int(count) * max(n_bytes), of_level) for count in (at_once, by_row.sum()))
        return _COPIES_READ * held + min(self.reader.most, kept)

    def _blocks(self, window: Window) -> Window:
        """Of the grid, those that a window touches, in pixels."""
        along = zip(window, self.patch_size, strict=True)
        return tuple((start // patch, -(-stop // patch)) for (start, stop), patch in along)

    def _of_chunks(self, numbers: list[int]) -> Level:
        """A level that has the networks of some chunks."""
        grid, chunks = self.contents.grid, self.contents.chunks
        blocks = [torch.from_numpy(grid.active_blocks(number, self.contents.active)) for number in numbers]
        read = self.reader.read(chunks, numbers)
        group = torch.full((prod(grid.grid),), -1, dtype=torch.int8)
        for here, (of_chunk, _) in zip(blocks, read, strict=True):
            group[here] = of_chunk
        networks = []
        for number, shape in enumerate(chunks.shapes):
            found = [
                (here[of_chunk == number], of_groups[number])
                for here, (of_chunk, of_groups) in zip(blocks, read, strict=True)
                if of_groups[number].n_blocks
            ]
            order = torch.cat([here for here, _ in found]).argsort() if found else None
            networks.append(make_network(0, shape) if order is None else joined([one for _, one in found], order))
        return Level(**self.contents.form, group=group, networks=tuple(networks)).to(self.device)


def n_parameters(shapes: tuple[NetworkShape, ...], blocks_by_group: list[int]) -> int:
    """Of networks of some shapes, so many of each; the amplitudes, which are not trained, do not count."""
    of_block = (
        sum(size.numel() for name, size in form_of_networks(1, shape).items() if name != "amplitude")
        for shape in shapes
    )
    return sum(count * number for count, number in zip(blocks_by_group, of_block, strict=True))
