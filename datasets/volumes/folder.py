"""Folders of slices: pictures of one size, in the natural order of their names (2 before 10)."""

import re
from pathlib import Path

import numpy as np

from datasets.formats import DEPTHS
from datasets.sources import Source, open_picture
from datasets.tasks import slices_in
from datasets.volumes import Voxels
from utils.errors import InputError, size_text


def open_voxels(path: Path) -> Voxels:
    """Look at every picture; each is read again when its slice is."""
    paths = sorted(slices_in(path), key=_natural)
    if not paths:
        raise InputError(f"{path} is a folder without slices; use one of grey .png, .tif or .jpg files of one size")
    first = open_picture(paths[0])
    for one in paths:
        _check(one, open_picture(one), paths[0], first)
    dtype = next(dtype for dtype, bits in DEPTHS.items() if bits == first.bits)

    def slices(start: int, stop: int) -> np.ndarray:
        return np.stack([_slice(one, paths[0], first) for one in paths[start:stop]])

    return Voxels((len(paths), *first.size), dtype, slices)


def _natural(path: Path) -> list[str | int]:
    parts = re.split(r"([0-9]+)", path.name)
    return [int(part) if number % 2 else part.lower() for number, part in enumerate(parts)]


def _check(path: Path, source: Source, first_path: Path, first: Source) -> None:
    """InputError for a picture that is no slice of the volume that begins with the first."""
    if source.n_channels != 1 or source.notes:
        what = "several pictures" if source.notes else f"a picture of {source.n_channels} channels"
        raise InputError(f"{path} is {what}; slices are grey pictures, one a file")
    if (source.size, source.bits) != (first.size, first.bits):
        here, there = (f"{size_text(one.size)} pixels of {one.bits} bits" for one in (source, first))
        raise InputError(f"{path} is {here}, and {first_path.name} {there}; use slices of one kind")


def _slice(path: Path, first_path: Path, first: Source) -> np.ndarray:
    source = open_picture(path)
    _check(path, source, first_path, first)
    return source.read(0, source.size[0])[0]
