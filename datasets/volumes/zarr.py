"""Zarr arrays and OME-Zarr groups, in folders and .zip files, read by chunks; written as OME-Zarr 0.5 in chunks of
64^3."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from datasets.formats.chunks import entries
from datasets.formats.zarr import can_replace as can_replace_array
from datasets.formats.zarr import open_array, replace_folder, sync_folder
from datasets.ngff import Described, describe
from datasets.volumes import Affine, Voxels, Write
from datasets.volumes.axes import Index, array_axes
from datasets.volumes.place import sides_of
from utils.errors import InputError, one_line
from utils.files import writing as writing_to

_CHUNK = 64  # voxels a side, of the arrays written
_NO_UNIT = "pixel"


def open_voxels(path: Path, has_times: bool) -> Voxels:
    """Open the array, or the finest one of a group."""
    described = describe(path)
    array = open_array(path, described.node)
    axes = described.axes or array_axes(path, array.shape, has_times)
    if "Z" not in axes:
        raise InputError(f"{path} has the axes {', '.join(axes.lower())}, without a z; --task image takes a picture")

    def read(index: Index) -> np.ndarray:
        try:
            return entries(array, index)
        except Exception as error:  # whatever damaged chunks raise
            raise InputError(f"{path} is damaged: its values cannot be read ({one_line(error)})") from error

    affine = _affine(described, axes)
    unit = described.unit or _NO_UNIT
    return Voxels(
        axes,
        array.shape,
        array.dtype,
        read,
        affine,
        None if affine is None or unit == "millimeter" else unit,
        slices_at_once=min(array.chunks[axes.index("Z")], array.shape[axes.index("Z")]),
    )


def _affine(described: Described, axes: str) -> Affine | None:
    if described.scale is None:
        return None
    places = [axes.index(axis) for axis in "XYZ"]
    affine = np.diag([*(described.scale[place] for place in places), 1.0])
    affine[:3, 3] = [described.shift[place] for place in places]
    return affine.tolist()


def can_replace(path: Path) -> bool:
    """Whether a folder is an array and nothing else, or a group of one, such as `writing` leaves."""
    try:
        is_group = {entry.name for entry in path.iterdir()} == {"zarr.json", "0"} and describe(path).node == "0"
        return can_replace_array(path / "0" if is_group else path)
    except (OSError, InputError):
        return False


@contextmanager
def writing(path: Path, shape: tuple[int, int, int, int], dtype: np.dtype, source: dict[str, Any]) -> Iterator[Write]:
    """Write a group with one array, (z, y, x) or (c, z, y, x), 64 slices at a time. It has the sizes of voxels, and
    their place if the axes are not turned."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with writing_to(path):
            array = _new_array(part, shape, dtype, source)
            held, done = [], 0

            def flush() -> None:
                nonlocal done
                values = np.concatenate(held, axis=1)
                held.clear()
                array[..., done : done + values.shape[1], :, :] = values if shape[0] > 1 else values[0]
                done += values.shape[1]

            def write(values: np.ndarray) -> None:
                while values.shape[1]:
                    room = _CHUNK - sum(some.shape[1] for some in held)
                    held.append(values[:, :room])
                    values = values[:, room:]
                    if held[-1].shape[1] == room:
                        flush()

            yield write
            if held:
                flush()
            sync_folder(part)
            replace_folder(path, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _new_array(folder: Path, shape: tuple[int, int, int, int], dtype: np.dtype, source: dict[str, Any]) -> zarr.Array:
    """The array of a new group, to be filled."""
    names = ("c", "z", "y", "x") if shape[0] > 1 else ("z", "y", "x")
    shape = shape[-len(names) :]
    chunks = (1, _CHUNK, _CHUNK, _CHUNK)[-len(names) :]
    zarr.create_group(folder, attributes={"ome": {"version": "0.5", "multiscales": [_scales(names, source)]}})
    return zarr.create_array(folder, name="0", shape=shape, chunks=chunks, dtype=dtype, dimension_names=names)


def _scales(names: tuple[str, ...], source: dict[str, Any]) -> dict[str, Any]:
    """The axes and the place of one array, as OME-NGFF 0.5 tells them."""
    unit = source.get("unit", "millimeter") if source.get("affine") else _NO_UNIT
    told = {} if unit == _NO_UNIT else {"unit": unit}
    axes = [{"name": name} | ({"type": "channel"} if name == "c" else {"type": "space"} | told) for name in names]
    affine = np.array(source.get("affine") or np.eye(4))
    sides = sides_of(affine)
    steps = [{"type": "scale", "scale": _along(names, sides, 1.0)}]
    if np.allclose(affine[:3, :3], np.diag(sides)) and affine[:3, 3].any():
        steps.append({"type": "translation", "translation": _along(names, affine[:3, 3], 0.0)})
    return {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}


def _along(names: tuple[str, ...], numbers: np.ndarray, of_channels: float) -> list[float]:
    """Numbers along x, y and z in the order of the axes."""
    return [of_channels if name == "c" else float(numbers["xyz".index(name)]) for name in names]
