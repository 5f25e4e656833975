"""The levels of a signal, read once by ranges of rows and kept in memory or in mapped files."""

import hashlib
import json
import os
import shutil
import zlib
from dataclasses import dataclass
from glob import escape
from itertools import pairwise
from pathlib import Path

import torch
from filelock import FileLock

from datasets.sources import Source
from datasets.tasks import DETACHED_SUFFIXES
from utils.bars import tqdm
from utils.errors import InputError
from utils.files import sync, write_aside
from utils.pyramid import downsample, level_size
from utils.raster import COMPUTED, COMPUTED_UNIT, Raster, map_raster, new_raster, raster_bytes
from utils.windows import row_ranges, whole

_FORMAT = 1
_HEADER = "levels.json"


@dataclass(frozen=True)
class Store:
    """
    levels: the signal and its coarser levels, the finest first
    crc32: of the signal's integers
    """

    levels: list[Raster]
    crc32: int


def store_bytes(source: Source, n_scales: int) -> int:
    """Bytes that the levels take, in memory or on the disk."""
    finer = raster_bytes(source.n_channels, source.size, _type(source))
    coarser = (level_size(source.size, level) for level in range(1, n_scales))
    return finer + sum(raster_bytes(source.n_channels, size, COMPUTED) for size in coarser)


def value_bytes(source: Source) -> int:
    """Bytes that a value of the finest level takes."""
    return _type(source).itemsize


def read_levels(source: Source, n_scales: int) -> Store:
    """Read the levels into memory; InputError for a volume without a surface, all of it inside or outside."""
    return _fill(source, n_scales, None)


def write_levels(source: Source, n_scales: int, folder: Path, progress: bool = False) -> None:
    """Write the levels to files in a folder, unless an earlier call wrote them and the signal's file has not changed
    since.

    Inputs
        folder: where the levels of all signals are kept; its contents may be deleted
        progress: show a bar on a terminal
    Errors
        InputError if the disk has no room, and for a volume without a surface, all of it inside or outside
        OSError for what cannot be written
    """
    place = folder / _key(source, n_scales)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        if (place / _HEADER).exists():
            return
        missing, free = store_bytes(source, n_scales), shutil.disk_usage(folder).free
        if missing > free:
            smaller = ", or a smaller --input_size" if len(source.size) == 2 else ", or free some space"
            raise InputError(
                f"{folder} has {free / 2**30:.1f} GiB free, and the levels of {source.path} take "
                f"{missing / 2**30:.1f} GiB; use a larger --max_memory, which holds them{smaller}"
            )
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            store = _fill(source, n_scales, place, progress)
            for level in range(n_scales):
                sync(_path(place, level))
            write_aside(place / _HEADER, json.dumps({"crc32": store.crc32}).encode())
        except BaseException:  # an interrupt too
            shutil.rmtree(place, ignore_errors=True)
            raise


def map_levels(source: Source, n_scales: int, folder: Path) -> Store:
    """The levels that `write_levels` has written, read-only."""
    place = folder / _key(source, n_scales)
    levels = [map_raster(_path(place, level), unit) for level, unit in enumerate(_units(source, n_scales))]
    return Store(levels, json.loads((place / _HEADER).read_text())["crc32"])


def _fill(source: Source, n_scales: int, place: Path | None, progress: bool = False) -> Store:
    units = _units(source, n_scales)
    levels = []
    for level, unit in enumerate(units):
        dtype = _type(source) if level == 0 else COMPUTED
        path = None if place is None else _path(place, level)
        levels.append(new_raster(source.n_channels, level_size(source.size, level), dtype, unit, path))
    with tqdm(
        desc="reading the signal",
        total=sum(raster.size[0] for raster in levels),
        unit="rows",
        disable=None if progress else True,  # None: unless a terminal shows it
        leave=False,
    ) as bar:
        found, half = set(), units[0] // 2
        for start, stop in row_ranges(source.n_channels, source.size, source.rows_at_once):
            rows = source.read(start, stop)
            levels[0].numbers.numpy()[:, start:stop] = rows
            found |= {bool(rows.min() > half), bool(rows.max() > half)} if source.has_surface else set()
            bar.update(stop - start)
        if len(found) == 1:
            which = "all" if found.pop() else "none"
            message = f"{source.path}: {which} of its voxels are inside, so it has no surface; use another grid"
            raise InputError(message)
        for finer, coarser in pairwise(levels):
            for start, stop in row_ranges(4 * coarser.n_channels, coarser.size):
                window = ((2 * start, min(2 * stop, finer.size[0])), *whole(finer.size[1:]))
                coarser.write(((start, stop), *whole(coarser.size[1:])), downsample(finer.read(window)))
                bar.update(stop - start)
    return Store(levels, zlib.crc32(levels[0].numbers.numpy()))


def _type(source: Source) -> torch.dtype:
    return torch.uint16 if source.bits == 16 else torch.uint8


def _units(source: Source, n_scales: int) -> list[int]:
    return [2**source.bits - 1, *[COMPUTED_UNIT] * (n_scales - 1)]


def _path(place: Path, level: int) -> Path:
    return place / f"l{level}.npy"


def _key(source: Source, n_scales: int) -> str:
    """The name of the levels of a file as it is now, read at a size."""
    origin = source.path
    files = sorted(origin.rglob("*")) if origin.is_dir() else [origin] if origin.exists() else []  # none of an array
    if origin.suffix.lower() in DETACHED_SUFFIXES:
        files = sorted(origin.parent.glob(f"{escape(origin.stem)}.*"))  # usually the values are one of these
    stamps = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [os.stat(file)]]
    known_by = [_FORMAT, str(origin.resolve()), stamps, source.size, n_scales]
    known_by += [source.transfer.record()] if source.transfer else []
    known_by += [source.about] if source.about else []
    return f"{origin.stem}-{hashlib.sha256(json.dumps(known_by).encode()).hexdigest()[:16]}"
