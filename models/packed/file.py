"""A fit in one file, opened: what its beginning says, without reading a network."""

import zlib
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from models.level import form_of
from models.packed.chunks import ChunkGrid, ChunkReader, Chunks
from models.packed.coding import coding_of
from models.packed.layout import (
    OVERVIEW,
    PREFACE_BYTES,
    Preface,
    checksum,
    damaged,
    read_header,
    read_preface,
    unpack_index,
)
from models.packed.level import Contents, PackedLevel
from models.packed.ranges import Head, Ranges, open_ranges
from models.run import Run, checked_run
from models.shape import NetworkShape
from utils.blocks import grid_shape
from utils.errors import InputError, one_line
from utils.pyramid import level_size

_FIRST_READ = 2**16  # bytes: they hold what comes before the chunks of most files
_MOST_LAYERS, _MOST_CHANNELS, _MOST_LENGTH = 2**10, 2**10, 2**30  # more than any file needs, and few enough to count


def read_packed(where: str | Path) -> Run:
    """The fit that a file holds; InputError, which names it, if it is none."""
    return PackedFile(open_ranges(where)).run()


class PackedFile:
    """
    header: what it says
    pictures: (h, w) of the pictures of its overview, coarse to fine; there may be none
    """

    def __init__(self, ranges: Ranges):
        """InputError, which names the file, if its beginning is damaged or not consistent."""
        self.ranges, self.name = Head(ranges, _FIRST_READ), ranges.name
        preface = read_preface(self.ranges.kept[:PREFACE_BYTES], self.name)
        header, index = self._beginning(preface)
        try:
            self.header = checked_run(read_header(header))
            self._read(index, preface.end)
        except InputError:
            raise
        except Exception as error:  # whatever a header that was tampered with raises
            raise InputError(f"{self.name} is not consistent ({one_line(error)[:200]}); pack the run again") from error
        if not self.levels[0].is_there:
            raise InputError(f"{self.name} is cut short before its coarsest level ends; get the rest of it")
        if self.ranges.size > self._end:
            raise damaged(self.name, f"{self.ranges.size:,} bytes, where it has {self._end:,}")

    def _beginning(self, preface: Preface) -> tuple[bytes, bytes]:
        """Header and index, as they were written."""
        if preface.end > self.ranges.size:
            raise InputError(f"{self.name} is cut short before its coarsest level ends; get the rest of it")
        self.ranges.extend(preface.end)
        middle = PREFACE_BYTES + preface.header_bytes
        header, index = self.ranges.kept[PREFACE_BYTES:middle], self.ranges.kept[middle : preface.end]
        for data, expected, what in (
            (header, preface.header_checksum, "header"),
            (index, preface.index_checksum, "index"),
        ):
            if zlib.crc32(data) != expected:
                raise damaged(self.name, f"its {what} is not as it was written")
        return header, index

    def _read(self, index: bytes, start: int) -> None:
        """Levels and overview; whatever a header that is not consistent raises."""
        _check_header(self.header)
        entries, size = self.header["levels"], tuple(self.header["size"])
        grids = [self._grid(entry, size) for entry in entries]
        n_chunks = [prod(grid.shape) for grid in grids]
        n, (self.pictures, self.tile_size) = sum(n_chunks), overview_of(self.header)
        found = unpack_index(index, [prod(grid.grid) for grid in grids], n + sum(map(prod, self._tile_grids())))
        lengths = found.lengths.astype(np.int64)
        self._tile_starts, self._tile_checksums = start + np.cumsum([0, *lengths[n:]]), found.checksums[n:]
        starts = self._tile_starts[-1] + np.concatenate([[0], np.cumsum(lengths[:n])])
        self._end, reader, first, self.levels = int(starts[-1]), ChunkReader(self.ranges), 0, []
        for entry, grid, active, n in zip(entries, grids, found.active, n_chunks, strict=True):
            of_level = starts[first : first + n + 1], found.checksums[first : first + n]
            self.levels.append(PackedLevel(_contents(entry, grid, active.reshape(grid.grid), *of_level), reader))
            self.levels[-1].check_form(level_size(size, entry["level"]), self.header["n_channels"])
            first += n

    def _grid(self, entry: dict[str, Any], size: tuple[int, ...]) -> ChunkGrid:
        """The chunks of a level."""
        form, chunk = form_of(entry), tuple(self.header["chunk"])
        lengths = (*chunk, *form["patch_size"])
        if len(lengths) != 2 * len(size) or not all(type(length) is int and length > 0 for length in lengths):
            raise TypeError(f"chunks of {chunk} blocks, blocks of {form['patch_size']}")
        return ChunkGrid(grid_shape(level_size(size, entry["level"]), form["patch_size"]), chunk)

    def run(self) -> Run:
        """The fit; its networks are read as they are needed."""
        header = self.header
        levels = {entry["level"]: level for entry, level in zip(header["levels"], self.levels, strict=True)}
        size, options = tuple(header["size"]), dict(header["options"])
        return Run(levels, header["n_scales"], header["n_channels"], size, header["source"], options)

    def _tile_grids(self) -> Iterator[tuple[int, ...]]:
        return (grid_shape(picture, (self.tile_size, self.tile_size)) for picture in self.pictures)

    def tiles(self) -> list[bytes]:
        """Those of the overview, pictures of their own: of each of its pictures, row by row.

        Errors
            InputError, which names the file, for tiles that are damaged or lacking
        """
        starts = self._tile_starts.tolist()
        found = self.ranges.read(list(pairwise(starts)))
        for number, (data, expected) in enumerate(zip(found, self._tile_checksums, strict=True)):
            if checksum(data, OVERVIEW, number) != expected:
                raise damaged(self.name, f"tile {number} of its overview is not as it was written")
        return found


def overview_of(header: dict[str, Any]) -> tuple[list[tuple[int, int]], int]:
    """(h, w) of the pictures of an overview, and the side of a tile; TypeError or the like if it is not consistent."""
    overview = header["overview"]
    if overview is None:
        return [], 1
    pictures, tile = [tuple(picture) for picture in overview["pictures"]], overview["tile"]
    lengths = [tile, *(length for picture in pictures for length in picture)]
    if not all(type(length) is int and 0 < length <= _MOST_LENGTH for length in lengths):
        raise TypeError(f"an overview of {pictures}, in tiles of {tile}")
    if any(len(picture) != 2 for picture in pictures):
        raise TypeError(f"an overview of {pictures}")
    return pictures, tile


def _check_header(header: dict[str, Any]) -> None:
    """TypeError or the like unless what it says of all levels is consistent, and within what a file may have."""
    n_scales, n_channels, entries = header["n_scales"], header["n_channels"], header["levels"]
    if n_channels > _MOST_CHANNELS or max(header["size"]) > _MOST_LENGTH:
        raise TypeError(f"{n_channels} channels, size {header['size']}")
    if not isinstance(header["options"], dict) or not isinstance(header["source"], dict):
        raise TypeError("options or a source that are no object")
    if not entries or [entry["level"] for entry in entries] != list(range(n_scales))[: -len(entries) - 1 : -1]:
        raise TypeError("levels that do not follow each other from the coarsest on")


def _contents(
    entry: dict[str, Any], grid: ChunkGrid, active: np.ndarray, starts: np.ndarray, checksums: np.ndarray
) -> Contents:
    """Of a level, from its entry in the header and its part of the index; TypeError or the like if they disagree."""
    if not all(0 < shape["n_layers"] <= _MOST_LAYERS for shape in entry["networks"]) or len(entry["networks"]) > 127:
        raise TypeError(f"{len(entry['networks'])} groups, or too many layers")
    coding = coding_of(entry)
    shapes = tuple(NetworkShape.from_record(shape) for shape in entry["networks"])
    chunks = Chunks(entry["level"], starts, checksums, grid.counts(active), shapes, coding)
    return Contents(form_of(entry), entry["blocks_by_group"], entry["parameters"], active, grid, chunks)
