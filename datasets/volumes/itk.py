"""MetaImage and NRRD: read by SimpleITK, written here, since that writes only whole volumes.

ITK has x to the left and y to the back of a body, so both change their signs.
"""

import functools
import gzip
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from datasets.volumes import Affine, Voxels, Write
from datasets.volumes.axes import Index
from datasets.volumes.place import in_millimetres, sides_of, unit_named
from utils.errors import InputError
from utils.files import aside
from utils.memory import check_memory

_TURNED = np.diag([-1.0, -1.0, 1.0, 1.0])
_TYPES = {  # names of ours, of SimpleITK, of MetaImage and of NRRD
    **{"uint8": ("UInt8", "MET_UCHAR", "uint8"), "int8": ("Int8", "MET_CHAR", "int8")},
    **{"uint16": ("UInt16", "MET_USHORT", "uint16"), "int16": ("Int16", "MET_SHORT", "int16")},
    **{"uint32": ("UInt32", "MET_UINT", "uint32"), "int32": ("Int32", "MET_INT", "int32")},
    "float32": ("Float32", "MET_FLOAT", "float"),
    "float64": ("Float64", "MET_DOUBLE", "double"),
}
_HEADER_BYTES = 2**16  # at most


def open_voxels(path: Path, has_times: bool) -> Voxels:
    """Open a volume: of a MetaImage that is not compressed slices are read as they are needed; all other values at the
    first reading, and kept."""
    itk = _itk(path)
    try:
        reader = itk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        size, n_channels = reader.GetSize(), reader.GetNumberOfComponents()
        dtype = next((name for name, (theirs, *_) in _TYPES.items() if reader.GetPixelID() in _ids(itk, theirs)), None)
    except RuntimeError as error:  # whatever a damaged file raises
        raise InputError(f"{path} is not a readable MetaImage or NRRD file ({_reason(error)})") from error
    if len(size) not in (3, 4):
        raise InputError(f"{path} has {len(size)} axes; use a volume (x, y, z), or one over time")
    if dtype is None:
        kind = itk.GetPixelIDValueAsString(reader.GetPixelID())
        raise InputError(f"{path} holds values of kind {kind}; use integers of up to 32 bits, or floats")
    if not all(0 < side < np.inf for side in reader.GetSpacing()):
        sides = ", ".join(f"{side:g}" for side in reader.GetSpacing())
        raise InputError(f"{path} has voxels with sides of {sides}; correct its header")
    shape = (*size[::-1], n_channels) if n_channels > 1 else size[::-1]
    n_bytes = prod(shape) * np.dtype(dtype).itemsize

    header = _header(path)
    _check_stored(path, header, n_bytes)

    def part(start: tuple[int, ...], lengths: tuple[int, ...]) -> np.ndarray:
        try:
            reader.SetExtractIndex(start)
            reader.SetExtractSize(lengths)
            return itk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:  # whatever damaged data raises
            raise InputError(f"{path} is damaged: its values cannot be read ({_reason(error)})") from error

    @functools.cache
    def values() -> np.ndarray:
        check_memory(path, size[2::-1], 2 * n_bytes)
        return part((0,) * len(size), size)

    def read(index: Index) -> np.ndarray:
        start, lengths, inner = list((0,) * len(size)), list(size), list(index)
        for place, chosen in enumerate(index[: len(size)]):  # along our axes, theirs from the last one on
            low, high, _ = chosen.indices(shape[place]) if isinstance(chosen, slice) else (chosen, chosen + 1, 1)
            start[-1 - place], lengths[-1 - place] = low, high - low
            inner[place] = slice(None) if isinstance(chosen, slice) else 0
        return part(tuple(start), tuple(lengths))[tuple(inner)]

    is_held = not header.startswith(b"ObjectType") or _stored_bytes(header, n_bytes) != n_bytes
    unit = re.search(rb'space units: *"([^"]*)"', header)
    return Voxels(
        "TZYX"[-len(size) :] + "C" * (n_channels > 1),
        shape,
        np.dtype(dtype),
        (lambda index: values()[index]) if is_held else read,
        _affine(reader),
        unit_named(unit[1].decode(errors="replace")) if unit else None,
        held_bytes=n_bytes if is_held else 0,
        close=values.cache_clear,
    )


def _itk(path: Path) -> ModuleType:
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError(f"{path}: MetaImage and NRRD need the package SimpleITK; pip install SimpleITK") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # our own messages say what is wrong
    return SimpleITK


def _ids(itk: ModuleType, name: str) -> tuple[int, int]:
    return getattr(itk, f"sitk{name}"), getattr(itk, f"sitkVector{name}")


def _affine(reader: Any) -> Affine:
    n_axes = len(reader.GetSize())
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (n_axes, n_axes))[:3, :3]
    affine[:3, :3] = direction * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return (_TURNED @ affine).tolist()


def _reason(error: RuntimeError) -> str:
    """What went wrong, without the places in ITK's own sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = re.sub(r"^.*?(ITK ERROR:|sitk::ERROR:)\s*", "", lines[-1] if lines else "")
    return re.sub(r"\w+\(0x[0-9a-f]+\):\s*", "", told)[:200]


def _header(path: Path) -> bytes:
    """The first bytes, with the header, as far as no values follow it."""
    with path.open("rb") as file:
        return re.split(rb"(?<=LOCAL)\r?\n|\n\n|\r\n\r\n", file.read(_HEADER_BYTES))[0]


def _check_stored(path: Path, header: bytes, n_bytes: int) -> None:
    """InputError for a MetaImage whose values are not there: ITK would say more than one line."""
    named = re.search(rb"ElementDataFile *= *([^\r\n]*)", header)
    if named is None or named[1].startswith(b"LIST") or b"%" in named[1]:
        return
    file = path if named[1] == b"LOCAL" else path.with_name(os.fsdecode(named[1]))
    if not file.is_file():
        raise InputError(f"{path} says that its values are in {file}, which is not there; put it beside")
    before = len(header) if file == path else 0
    if file.stat().st_size < before + _stored_bytes(header, n_bytes):
        raise InputError(f"{file} is damaged: it is cut short, {file.stat().st_size:,} bytes")


def _stored_bytes(header: bytes, n_bytes: int) -> int:
    """Bytes that the values of a MetaImage take, as it says; `n_bytes` if they are not compressed."""
    if not re.search(rb"CompressedData *= *True", header):
        return n_bytes
    found = re.search(rb"CompressedDataSize *= *([0-9]+)", header)
    return int(found[1]) if found else 0


@contextmanager
def writing(path: Path, shape: tuple[int, int, int, int], dtype: np.dtype, source: dict[str, Any]) -> Iterator[Write]:
    """Write a volume where the one that was fitted lies, slice by slice; NRRD is compressed. Equal ones are equal
    files. Several channels are a vector at each voxel."""
    affine = _TURNED @ in_millimetres(source)
    dtype = dtype.newbyteorder("<")
    is_nrrd = path.suffix.lower() == ".nrrd"
    header = (_nrrd_header if is_nrrd else _meta_header)(shape, dtype, affine).encode()
    with aside(path) as file:
        file.write(header)
        out = gzip.GzipFile("", "wb", 6, file, mtime=0) if is_nrrd else file
        yield lambda values: out.write(np.ascontiguousarray(np.moveaxis(values, 0, -1), dtype).data)
        if is_nrrd:
            out.close()


def _meta_header(shape: tuple[int, int, int, int], dtype: np.dtype, affine: np.ndarray) -> str:
    sides = sides_of(affine)
    return (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {_words(*(affine[:3, :3] / sides).T)}\nOffset = {_words(affine[:3, 3])}\n"
        f"CenterOfRotation = 0 0 0\nElementSpacing = {_words(sides)}\nDimSize = {_words(shape[:0:-1])}\n"
        f"ElementNumberOfChannels = {shape[0]}\nElementType = {_TYPES[dtype.name][1]}\nElementDataFile = LOCAL\n"
    )


def _nrrd_header(shape: tuple[int, int, int, int], dtype: np.dtype, affine: np.ndarray) -> str:
    is_vector = shape[0] > 1
    directions = [f"({_words(column, between=',')})" for column in affine[:3, :3].T]
    return (
        f"NRRD0004\ntype: {_TYPES[dtype.name][2]}\ndimension: {3 + is_vector}\nspace: left-posterior-superior\n"
        f"sizes: {_words(shape[:1] * is_vector, shape[:0:-1])}\n"
        f"space directions: {'none ' * is_vector}{' '.join(directions)}\n"
        f"kinds: {'vector ' * is_vector}domain domain domain\nendian: little\nencoding: gzip\n"
        f"space origin: ({_words(affine[:3, 3], between=',')})\n\n"
    )


def _words(*numbers: Any, between: str = " ") -> str:
    """Numbers one after another, each as short as it is exact."""
    return between.join(repr(number) for some in numbers for number in np.asarray(some).tolist())
