"""NIfTI-1, .nii and .nii.gz, by nibabel. Its arrays [x, y, z, t, c], the first fastest, are ours [c, t, z, y, x] as
they lie."""

import functools
import gzip
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from datasets.volumes import Voxels, Write
from datasets.volumes.place import in_millimetres
from datasets.volumes.planes import channel_by_channel
from utils.errors import InputError, one_line
from utils.files import aside
from utils.memory import check_memory

_AXES = "CTZYX"
_LONGEST = 2**15 - 1  # voxels along an axis, of the header
_PADDING = bytes(4)  # between header and values
_UNITS = {"meter": "meter", "micron": "micrometer"}
"""Of lengths, other than millimetres: their names in the header, and ours."""


def open_voxels(path: Path, has_times: bool) -> Voxels:
    """Open a volume: values of a .nii are mapped; those of a .nii.gz are unpacked at the first reading, and kept."""
    nibabel = _nibabel(path)
    try:
        image = nibabel.load(path)
        shape, dtype = image.shape, image.get_data_dtype()
        slope, intercept = (float(number) for number in (image.dataobj.slope, image.dataobj.inter))
        affine, unit = image.affine, image.header.get_xyzt_units()[0]
    except Exception as error:  # whatever a damaged file raises
        raise InputError(f"{path} is not a readable NIfTI file ({one_line(error)})") from error
    if len(shape) < 3 or any(length != 1 for length in shape[len(_AXES) :]):
        raise InputError(f"{path} holds values of shape {shape}; use a volume (x, y, z), of times or of channels")
    if min(shape) < 1:
        raise InputError(f"{path} is of shape {shape}, and so has no values; use another one")
    if dtype.names is not None:
        raise InputError(f"{path} holds colours; use a volume of one value a voxel")
    shape = shape[: len(_AXES)]

    @functools.cache
    def values() -> np.ndarray:
        check_memory(path, shape[2::-1], prod(shape) * dtype.itemsize)
        try:
            return np.asanyarray(image.dataobj.get_unscaled()).reshape(shape, order="F").T
        except Exception as error:  # whatever damaged data raises
            raise InputError(f"{path} is damaged: its values cannot be read ({one_line(error)})") from error

    return Voxels(
        _AXES[-len(shape) :],
        shape[::-1],
        dtype,
        lambda index: values()[index],
        affine.tolist(),
        _UNITS.get(unit),
        None if (slope, intercept) == (1.0, 0.0) else [slope, intercept],
        held_bytes=prod(shape) * dtype.itemsize if path.suffix.lower() == ".gz" else 0,
        close=values.cache_clear,
    )


def _nibabel(path: Path) -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        raise InputError(f"{path}: NIfTI needs the package nibabel; pip install nibabel") from error
    return nibabel


@contextmanager
def writing(path: Path, shape: tuple[int, int, int, int], dtype: np.dtype, source: dict[str, Any]) -> Iterator[Write]:
    """Write a volume where the one that was fitted lies, slice by slice; equal ones are equal files. Several channels
    are a vector at each voxel."""
    nibabel = _nibabel(path)
    n_channels, *size = shape
    if max(size) > _LONGEST:
        raise InputError(f"{path}: NIfTI holds {_LONGEST} voxels along an axis, not {max(size)}; write .npy")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape((*size[::-1], 1, n_channels) if n_channels > 1 else size[::-1])
    if n_channels > 1:
        header.set_intent("vector")
    unit = {ours: theirs for theirs, ours in _UNITS.items()}.get(source.get("unit"))
    affine = np.array(source["affine"]) if unit else in_millimetres(source)
    header.set_xyzt_units(unit or "mm")
    header.set_sform(affine, code="aligned")
    header.set_qform(affine, code="aligned", strip_shears=True)
    header["vox_offset"] = header.single_vox_offset
    header.set_slope_inter(*(source.get("scaling") or (1, 0)))
    beginning = header.binaryblock + _PADDING
    with aside(path) as file:
        if path.suffix.lower() != ".gz":
            file.write(beginning)
            yield channel_by_channel(file, len(beginning), shape, dtype)
            return
        with gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
            packed.write(beginning)
            if n_channels == 1:
                yield lambda values: packed.write(np.ascontiguousarray(values, dtype).data)
            else:
                with tempfile.TemporaryFile(dir=path.parent) as unpacked:
                    yield channel_by_channel(unpacked, 0, shape, dtype)
                    unpacked.seek(0)
                    shutil.copyfileobj(unpacked, packed)
