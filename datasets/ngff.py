"""What a Zarr says of itself, in a folder or a .zip file: its finest array, the axes and, by OME-NGFF (0.1 to 0.5),
where its values lie. No value is read.

The standard: https://ngff.openmicroscopy.org
"""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from utils.errors import InputError, one_line

MARKERS = ("zarr.json", ".zarray", ".zgroup")
"""Of the folder of an array or a group: it has one of them."""

_NAMES = {"t": "T", "time": "T", "c": "C", "channel": "C", "z": "Z", "y": "Y", "x": "X"}
_OLD_AXES = "tczyx"  # of OME-NGFF 0.1 and 0.2
_MOST_METADATA = 2**24  # bytes
_UNIT = r"[a-z]{2,32}"
_DEEPEST = 3  # groups, of which bioformats2raw makes two


@dataclass(frozen=True)
class Described:
    """
    node: where the array is, in the file
    shape: of it
    axes: a letter each, T, C, Z, Y or X; None if they are not named
    scale, shift: that take an index to where it lies, along each axis; None if they are not told
    unit: of that, if the axes of space share one, else None
    """

    node: str
    shape: tuple[int, ...]
    axes: str | None
    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    unit: str | None = None

    @property
    def has_depth(self) -> bool:
        """Whether it says that there are several slices."""
        return bool(self.axes) and "Z" in self.axes and self.shape[self.axes.index("Z")] > 1


def is_zarr(path: Path) -> bool:
    """Whether the path is a folder of a Zarr, or may be a .zip file of one."""
    return any((path / name).is_file() for name in MARKERS) or path.suffix.lower() == ".zip"


def describe(path: Path) -> Described:
    """InputError for what is no Zarr, or whose metadata are damaged."""
    try:
        if path.is_dir():
            return _describe(lambda name: _file(path / name), "")
        with zipfile.ZipFile(path) as archive:
            return _describe(lambda name: _entry(archive, name), "")
    except Exception as error:  # whatever damaged metadata raise
        raise InputError(f"{path} is not a readable Zarr ({one_line(error)})") from error


def _file(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_MOST_METADATA + 1)


def _entry(archive: zipfile.ZipFile, name: str) -> bytes | None:
    if name not in archive.namelist():
        return None
    with archive.open(name) as entry:
        return entry.read(_MOST_METADATA + 1)  # the archive's own word on the size is not to be trusted


def _describe(read: Any, node: str, depth: int = 0) -> Described:
    """The array of a node, or the first one of a group."""
    found = _json(read, node, "zarr.json")
    array = _json(read, node, ".zarray") or (found if found.get("node_type") == "array" else {})
    if array:
        names = array.get("dimension_names") or ()
        return Described(node, tuple(map(int, array["shape"])), _letters(names, len(array["shape"])))
    attributes = found.get("attributes") or _json(read, node, ".zattrs")
    scales = attributes.get("ome", attributes).get("multiscales")
    if depth == _DEEPEST:
        raise ValueError("it holds groups of groups of groups")
    inner = scales[0]["datasets"][0]["path"] if scales else "0"
    held = _describe(read, str(PurePosixPath(node, inner)), depth + 1)
    return _placed(held, scales[0]) if scales else held


def _json(read: Any, node: str, name: str) -> dict[str, Any]:
    """Of a file; empty if there is none."""
    data = read(str(PurePosixPath(node, name)))
    if data is not None and len(data) > _MOST_METADATA:
        raise ValueError(f"{name} is larger than {_MOST_METADATA // 2**20} MiB")
    return json.loads(data) if data is not None else {}


def _letters(names: Any, n_axes: int) -> str | None:
    """Of the names of axes, which may be missing."""
    letters = [_NAMES.get(str(name).lower()) for name in names]
    return "".join(letters) if letters and None not in letters and len(set(letters)) == n_axes else None


def _placed(held: Described, scales: dict[str, Any]) -> Described:
    """An array with what its multiscales say of the axes, and of where its values lie."""
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales.get("axes", _OLD_AXES)]
    letters = _letters([axis["name"] for axis in axes], len(held.shape)) or held.axes
    units = {axis.get("unit") for axis in axes if _NAMES.get(str(axis["name"]).lower()) in ("Z", "Y", "X")}
    scale, shift, is_told = [1.0] * len(held.shape), [0.0] * len(held.shape), False
    for step in (
        *scales["datasets"][0].get("coordinateTransformations", ()),
        *scales.get("coordinateTransformations", ()),
    ):
        if step["type"] == "scale":
            factors, is_told = step["scale"], True
            scale = [a * float(b) for a, b in zip(scale, factors, strict=True)]
            shift = [a * float(b) for a, b in zip(shift, factors, strict=True)]
        elif step["type"] == "translation":
            shift = [a + float(b) for a, b in zip(shift, step["translation"], strict=True)]
    if not is_told or len(units) > 1:
        return Described(held.node, held.shape, letters)
    unit = str(units.pop())
    return Described(
        held.node, held.shape, letters, tuple(scale), tuple(shift), unit if re.fullmatch(_UNIT, unit) else None
    )
