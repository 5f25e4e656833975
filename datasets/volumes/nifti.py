"""NIfTI-1, .nii and .nii.gz, by nibabel. Its arrays [x, y, z], the first fastest, are ours [z, y, x] as they lie."""

import functools
import gzip
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from datasets.volumes import Voxels, Write
from utils.errors import InputError, one_line
from utils.files import aside
from utils.memory import check_memory

_LONGEST = 2**15 - 1  # voxels along an axis, of the header
_PADDING = bytes(4)  # between header and values


def open_voxels(path: Path) -> Voxels:
    """Open a volume: values of a .nii are mapped; those of a .nii.gz are unpacked at the first reading, and kept."""
    nibabel = _nibabel(path)
    try:
        image = nibabel.load(path)
        shape, dtype = image.shape, image.get_data_dtype()
        slope, intercept = (float(number) for number in (image.dataobj.slope, image.dataobj.inter))
        affine = image.affine.tolist()
    except Exception as error:  # whatever a damaged file raises
        raise InputError(f"{path} is not a readable NIfTI file ({one_line(error)})") from error
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise InputError(f"{path} holds values of shape {shape}; use one volume (x, y, z), without time or channels")
    if dtype.names is not None:
        raise InputError(f"{path} holds colours; use a volume of one value a voxel")

    @functools.cache
    def values() -> np.ndarray:
        check_memory(path, shape[2::-1], prod(shape) * dtype.itemsize)
        try:
            return np.asanyarray(image.dataobj.get_unscaled()).reshape(shape[:3], order="F").T
        except Exception as error:  # whatever damaged data raises
            raise InputError(f"{path} is damaged: its values cannot be read ({one_line(error)})") from error

    return Voxels(
        shape[2::-1],
        dtype,
        lambda start, stop: values()[start:stop],
        affine,
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
def writing(path: Path, size: tuple[int, int, int], dtype: np.dtype, source: dict[str, Any]) -> Iterator[Write]:
    """Write a volume where the one that was fitted lies, slice by slice; equal ones are equal files."""
    nibabel = _nibabel(path)
    if max(size) > _LONGEST:
        raise InputError(f"{path}: NIfTI holds {_LONGEST} voxels along an axis, not {max(size)}; write .npy")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(size[::-1])
    header.set_xyzt_units("mm")
    affine = np.array(source.get("affine") or np.eye(4))
    header.set_sform(affine, code="aligned")
    header.set_qform(affine, code="aligned", strip_shears=True)
    header["vox_offset"] = header.single_vox_offset
    header.set_slope_inter(*(source.get("scaling") or (1, 0)))
    with aside(path) as file:
        is_packed = path.suffix.lower() == ".gz"
        with gzip.GzipFile("", "wb", 9, file, mtime=0) if is_packed else nullcontext(file) as out:
            out.write(header.binaryblock + _PADDING)
            yield lambda values: out.write(np.ascontiguousarray(values, dtype).data)
