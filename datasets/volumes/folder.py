"""Folders of slices: pictures of one size, in the natural order of their names (2 before 10)."""

import re
from pathlib import Path

import numpy as np

from datasets.formats import DEPTHS, Pixels, open_pixels
from datasets.sources import picture_source
from datasets.tasks import slices_in
from datasets.volumes import Voxels
from datasets.volumes.axes import Index
from utils.channels import n_colours
from utils.errors import InputError, size_text


def open_voxels(path: Path, has_times: bool) -> Voxels:
    """Look at every picture; each is read again when its slice is."""
    paths = sorted(slices_in(path), key=_natural)
    if not paths:
        raise InputError(f"{path} is a folder without slices; use one of .png, .tif or .jpg files of one size")
    first = open_pixels(paths[0])
    for one in paths:
        _check(one, open_pixels(one), paths[0], first)
    size, n_channels = picture_source(paths[0], first).size, n_colours(first.n_channels, first.spectral)
    notes = () if n_channels == first.n_channels else (f"{path}: the alpha of its slices is left out",)

    def read(index: Index) -> np.ndarray:
        slices, *place = index
        place = place if n_channels > 1 else (*place, 0)
        return np.stack([_slice(one, paths[0], first)[*place] for one in paths[slices]])

    if n_channels == 1:
        return Voxels("ZYX", (len(paths), *size), _dtype(first), read)
    return Voxels("ZYXC", (len(paths), *size, n_channels), _dtype(first), read, notes=notes)


def _natural(path: Path) -> list[str | int]:
    parts = re.split(r"([0-9]+)", path.name)
    return [int(part) if number % 2 else part.lower() for number, part in enumerate(parts)]


def _dtype(pixels: Pixels) -> np.dtype:
    return pixels.dtype or next(dtype for dtype, bits in DEPTHS.items() if bits == pixels.bits)


def _check(path: Path, pixels: Pixels, first_path: Path, first: Pixels) -> None:
    """InputError for a picture that is no slice of the volume that begins with the first."""
    if pixels.n_pictures > 1:
        raise InputError(f"{path} holds several pictures; use one slice a file")
    if _kind(pixels) != _kind(first):
        here, there = (f"{size_text(one.size)} pixels of {one.n_channels} x {_dtype(one)}" for one in (pixels, first))
        raise InputError(f"{path} is {here}, and {first_path.name} {there}; use slices of one kind")


def _kind(pixels: Pixels) -> tuple[object, ...]:
    return pixels.size, pixels.orientation, _dtype(pixels), pixels.n_channels, pixels.spectral


def _slice(path: Path, first_path: Path, first: Pixels) -> np.ndarray:
    """(h, w, c)"""
    pixels = open_pixels(path)
    _check(path, pixels, first_path, first)
    source = picture_source(path, pixels)
    channels = source.read(0, source.size[0])[: n_colours(pixels.n_channels, pixels.spectral)]
    return np.moveaxis(channels, 0, -1)
