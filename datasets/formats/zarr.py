"""Zarr arrays of one picture, in folders and .zip files, and OME-Zarr groups, whose finest scale is read."""

import json
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path, PurePosixPath

import numpy as np
import zarr

from datasets.formats import DEPTHS, VALUES, Pixels
from datasets.formats.chunks import array_pixels, picture_axes, regroup
from datasets.formats.packed import most_packed_bytes
from utils.errors import InputError, one_line
from utils.files import sync, writing

warnings.filterwarnings("ignore", module=r"zarr\.")  # our own messages say what is wrong

_SUPPORTED = (
    "use a uint8, uint16 or floating point array (h, w), (h, w, c) or (c, h, w), c of 1 to 64, or a group that begins "
    "with one"
)
_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_MOST_METADATA = 2**24  # bytes
_CHUNK = 512  # pixels a side, of the arrays written


def open_pixels(path: Path) -> Pixels:
    """Open the array, or the finest one of a group."""
    try:
        _check_metadata(path, "")
        node = zarr.open(path if path.is_dir() else zarr.storage.ZipStore(path, mode="r"), mode="r")
        array = node if isinstance(node, zarr.Array) else _first_scale(path, node)
        if not isinstance(array, zarr.Array):
            raise InputError(f"{path} is a Zarr of groups; {_SUPPORTED}")
        _check_chunks(path, array)
        axes = picture_axes(array.shape, is_scale=array is not node)
        dtype, chunks = array.dtype, array.chunks
    except InputError:
        raise
    except Exception as error:  # whatever a damaged folder raises
        raise InputError(f"{path} is not a readable Zarr ({one_line(error)})") from error
    if axes is None or 0 in array.shape or dtype.newbyteorder("=") not in DEPTHS.keys() | VALUES:
        raise InputError(f"{path} is a Zarr of {dtype} values of shape {array.shape}; {_SUPPORTED}")
    return array_pixels(path, array, axes, chunks)


def open_array(path: Path, node: str) -> zarr.Array:
    """The array at a node; InputError if there is none that can be read."""
    try:
        _check_metadata(path, node)
        array = zarr.open(path if path.is_dir() else zarr.storage.ZipStore(path, mode="r"), mode="r", path=node)
        if not isinstance(array, zarr.Array):
            raise ValueError(f"{node} is no array")
        _check_chunks(path, array)
    except Exception as error:  # whatever a damaged folder raises
        raise InputError(f"{path} is not a readable Zarr ({one_line(error)})") from error
    return array


def _check_metadata(path: Path, node: str) -> None:
    """ValueError for metadata of an array or a group that are too large for a picture: Zarr would read all of them."""
    with nullcontext() if path.is_dir() else zipfile.ZipFile(path) as archive:
        for name in _METADATA:
            with suppress(KeyError, FileNotFoundError, IsADirectoryError):
                if archive is None:
                    size = (path / node / name).stat().st_size
                else:
                    with archive.open(str(PurePosixPath(node, name))) as entry:
                        size = len(entry.read(_MOST_METADATA + 1))  # the archive's own word is not to be trusted
                if size > _MOST_METADATA:
                    raise ValueError(f"{name} is larger than {_MOST_METADATA // 2**20} MiB")


def _check_chunks(path: Path, array: zarr.Array) -> None:
    """ValueError for chunks without a bound to what they unpack to, and for entries of a .zip that exceed theirs."""
    most = most_packed_bytes(array)
    if path.is_dir():
        return
    folder = f"{array.path}/" if array.path else ""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            is_chunk = entry.filename.startswith(folder) and PurePosixPath(entry.filename).name not in _METADATA
            if is_chunk and entry.file_size > most:
                raise ValueError(f"{entry.filename} has {entry.file_size} bytes, and a chunk at most {most}")


def _first_scale(path: Path, group: zarr.Group) -> zarr.Array | zarr.Group:
    """The finest array of the first image of an OME-Zarr group."""
    attributes = group.attrs.asdict()
    multiscales = attributes.get("ome", attributes).get("multiscales")
    name = multiscales[0]["datasets"][0]["path"] if multiscales else "0"
    _check_metadata(path, name)
    return group[name]


def write_pixels(path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Write an array of Zarr version 3 in a folder, (h, w) or (h, w, c), in chunks of 512 x 512 pixels."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with writing(path):
            _fill(part, rows, shape, dtype)
            replace_folder(path, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(path: Path, new: Path) -> None:
    """Put a new folder in the place of an old one, which comes back if that fails."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise
    sync(path.parent)
    if old.exists():
        try:
            shutil.rmtree(old)
        except OSError as error:
            print(f"note: {old}, the old picture, is left: {error.strerror}; delete it", file=sys.stderr)


def can_replace(path: Path) -> bool:
    """Whether a folder is an array and nothing else, such as `write_pixels` leaves."""
    metadata = path / _METADATA[0]
    try:
        if not metadata.is_file() or not {entry.name for entry in path.iterdir()} <= {_METADATA[0], "c"}:
            return False
        with metadata.open("rb") as file:
            return json.loads(file.read(_MOST_METADATA))["node_type"] == "array"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fill(folder: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Write the array to a new folder, and flush it to the disk."""
    is_grey = shape[2] == 1
    array = zarr.create_array(
        folder,
        shape=shape[:2] if is_grey else shape,
        chunks=(_CHUNK, _CHUNK, shape[2])[: 2 if is_grey else 3],
        dtype=dtype,
        zarr_format=3,
        dimension_names=("y", "x", "c")[: 2 if is_grey else 3],
    )
    top = 0
    for strip in regroup(rows, _CHUNK):
        array[top : top + len(strip)] = strip[:, :, 0] if is_grey else strip
        top += len(strip)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush all files of a new folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
