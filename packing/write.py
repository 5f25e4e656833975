"""A fit -> one file, as docs/format.md describes it."""

import re
import shutil
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from models.level import Level
from models.miner import MINER
from models.packed.chunks import ChunkGrid
from models.packed.coding import Coding
from models.packed.coefficients import Coefficients
from models.packed.float32 import Float32
from models.packed.layout import OVERVIEW, Index, beginning, checksum, pack_index
from models.packed.level import PackedLevel
from models.packed.quantised import Quantised
from packing.overview import TILE, overview, tiles
from utils.blocks import grid_shape
from utils.checkpoint import level_path, load_level
from utils.errors import InputError, one_line
from utils.files import aside

CHUNK_BLOCKS = {2: (8, 8), 3: (4, 4, 4)}
"""Blocks of a chunk along each axis, of pictures and volumes: few enough for a crop, enough to compress."""


def write_packed(path: Path, model: MINER, codings: Mapping[int, Coding]) -> None:
    """Write a finished fit. Equal fits give equal bytes.

    Inputs
        codings: by its index, of each level whose networks have been coded or rounded; others are written without loss
    Errors
        WriteError if the file cannot be written
    """
    chunk = CHUNK_BLOCKS[len(model.size)]
    every = {index: codings.get(index) or Float32(level.shapes) for index, level in model.levels.items()}
    levels = sorted(model.levels.items(), reverse=True)
    pictures = [] if all(isinstance(coding, Coefficients) for coding in every.values()) else overview(model)
    header = {
        "n_scales": model.n_scales,
        "n_channels": model.n_channels,
        "size": list(model.size),
        "source": model.source,
        "options": without_folder(model.options),
        "chunk": list(chunk),
        "made_by": "MINER",
        "overview": {"tile": TILE, "pictures": [list(one.shape[1:]) for one in pictures], "format": "webp"}
        if pictures
        else None,
        "levels": [_entry(index, level, every[index]) for index, level in levels],
    }
    with aside(path) as file, TemporaryFile(dir=path.parent) as payload:
        of_tiles = [_put(payload, tile, OVERVIEW, number) for number, tile in enumerate(tiles(pictures))]
        of_chunks = [
            _put(payload, data, index, number)
            for index, level in levels
            for number, data in enumerate(encoded(level, chunk, every[index]))
        ]
        lengths, checksums = np.array(of_chunks + of_tiles, dtype=np.uint32).T
        active = [level.active_grid.cpu().numpy() for _, level in levels]
        file.write(beginning(header, pack_index(Index(active, lengths, checksums))))
        payload.seek(0)
        shutil.copyfileobj(payload, file)


def without_folder(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a run as others may see them: where its signal lay is nobody's business."""
    return options | {"path": re.split(r"[/\\]", options["path"])[-1]} if "path" in options else options


def codings_of(folder: Path, model: MINER) -> dict[int, Coding]:
    """How the levels of a run were coded or rounded as they were fitted; of the others, nothing.

    Errors
        InputError for a checkpoint that was tampered with
    """
    found: dict[int, Coding] = {}
    for index, level in model.levels.items():
        if isinstance(level, PackedLevel):
            found[index] = level.coding
            continue
        path = level_path(folder, index)
        record = load_level(path)
        try:
            if "coding" in record:
                found[index] = Quantised.from_record(level.shapes, record["coding"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not consistent ({one_line(error)[:200]}); fit it again") from error
    return found


def _put(file: BinaryIO, data: bytes, level: int, number: int) -> tuple[int, int]:
    """Write a chunk or a tile; its length and checksum, 0 of one without a block."""
    file.write(data)
    return len(data), checksum(data, level, number) if data else 0


def _entry(index: int, level: Level, coding: Coding) -> dict[str, Any]:
    """What the header says of a level."""
    return {
        "level": index,
        "size": list(level.size),
        "patch_size": list(level.patch_size),
        "frequencies": None if level.frequencies is None else list(level.frequencies),
        "residual": level.residual,
        "fill": level.fill,
        "is_whole": level.is_whole,
        "networks": [shape.record() for shape in level.shapes],
        "blocks_by_group": level.blocks_by_group,
        "parameters": level.n_parameters,
        "coding": coding.record(),
    }


def encoded(level: Level, chunk: tuple[int, ...], coding: Coding) -> Iterator[bytes]:
    """The chunks of a level, in their order; nothing for one without a network.

    Inputs
        chunk: blocks along each axis
    """
    if isinstance(level, PackedLevel) and level.coding is coding and level.contents.grid.chunk == chunk:
        yield from level.chunks()
        return
    grid = ChunkGrid(grid_shape(level.size, level.patch_size), chunk)
    active, place = level.active_grid.cpu().numpy(), level.network_grid.flatten()
    for number in range(prod(grid.shape)):
        blocks = grid.active_blocks(number, active)
        if not len(blocks):
            yield b""
            continue
        group, index = level.group[blocks], place[blocks]
        parts = [network.select(index[group == one]) for one, network in enumerate(level.networks)]
        yield coding.encode(group, parts)
