"""Levels whose networks lie coded in memory, as checkpoints keep those that were fitted for few bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from models.level import Level, form_of
from models.packed.chunks import ChunkGrid, ChunkReader, Chunks
from models.packed.coding import Coding, coding_of
from models.packed.layout import checksum
from models.packed.level import Contents, PackedLevel
from models.packed.ranges import Span
from models.shape import NetworkShape
from utils.blocks import grid_shape


@dataclass(frozen=True)
class _Held:
    """Ranges of bytes that are in memory."""

    data: bytes | memoryview
    name: str

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, spans: list[Span]) -> list[bytes]:
        return [bytes(self.data[start:stop]) for start, stop in spans]


def held_level(
    form: dict[str, Any],
    shapes: Sequence[NetworkShape],
    coding: Coding,
    index: int,
    group: np.ndarray,
    grid: ChunkGrid,
    chunks: Sequence[bytes],
    n_parameters: int,
) -> PackedLevel:
    """A level from its chunks.

    Inputs
        form: the fields of `Level`, besides those of its networks
        shapes: of the networks of each group
        index: of the level
        group: (n_grid,) int8, to which group the network of each block of the grid belongs, -1 for none
        chunks: all of them, in their order; nothing for one without a network
        n_parameters: of all networks
    """
    active = (group >= 0).reshape(grid.grid)
    starts = np.cumsum([0, *map(len, chunks)])
    checksums = [checksum(data, index, number) if data else 0 for number, data in enumerate(chunks)]
    where = Chunks(index, starts, np.array(checksums, np.uint32), grid.counts(active), tuple(shapes), coding)
    counts = [int((group == number).sum()) for number in range(len(shapes))]
    contents = Contents(form, counts, n_parameters, active, grid, where)
    return PackedLevel(contents, ChunkReader(_Held(b"".join(chunks), "the level")))


def level_of(record: dict[str, Any], name: str) -> Level:
    """A level from the record that `Level.record` gives; TypeError or the like for one that is not consistent.

    Inputs
        name: of its file, for messages
    """
    if "chunks" not in record:
        return Level.from_record(record)
    form = form_of(record)
    grid = ChunkGrid(grid_shape(form["size"], form["patch_size"]), tuple(record["chunk"]))
    active, lengths, checksums = (record[part].numpy() for part in ("active", "lengths", "checksums"))
    if not lengths.shape == checksums.shape == (prod(grid.shape),) or lengths.min() < 0:
        raise TypeError(f"{len(lengths)} chunks of a grid of {grid.shape}")
    shapes = tuple(map(NetworkShape.from_record, record["network_shapes"]))
    coding = coding_of({"networks": record["network_shapes"], "coding": record["coding"]})
    active, starts = active.reshape(grid.grid), np.concatenate([[0], np.cumsum(lengths)])
    where = Chunks(record["level"], starts, checksums.astype(np.uint32), grid.counts(active), shapes, coding)
    contents = Contents(form, record["blocks_by_group"], record["parameters"], active, grid, where)
    return PackedLevel(contents, ChunkReader(_Held(memoryview(record["chunks"].numpy()), name)))
