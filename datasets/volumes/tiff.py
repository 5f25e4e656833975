"""TIFF stacks: a page for each slice, all of one size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from datasets.formats import tiff  # which silences tifffile's own messages
from datasets.volumes import Voxels, Write
from utils.errors import InputError, one_line, size_text
from utils.files import aside
from utils.memory import check_memory

_ONE_VALUE = {tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE}


def open_voxels(path: Path) -> Voxels:
    """Open the pages, each of which is read by itself."""
    try:
        file = tifffile.TiffFile(path)
        stack = _mapped(file)
        if stack is not None:
            return Voxels(stack.shape, stack.dtype, lambda start, stop: stack[start:stop])
        pages = [page for page in file.pages if not page.is_reduced]
        _check_pages(path, pages)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file raises
        raise InputError(f"{path} is not a readable TIFF ({one_line(error)})") from error

    def slices(start: int, stop: int) -> np.ndarray:
        try:
            return np.stack([page.asarray() for page in pages[start:stop]])
        except Exception as error:  # whatever damaged pages raise
            raise InputError(f"{path} is damaged: its pages cannot be read ({one_line(error)})") from error

    return Voxels((len(pages), *pages[0].shape), pages[0].dtype, slices)


def _mapped(file: tifffile.TiffFile) -> np.ndarray | None:
    """The stack of a file that tells of its first page alone, as ImageJ writes large ones: its slices follow it."""
    series = file.series[0]
    if len(file.pages) > 1 or len(series.shape) != 3 or series.axes[-2:] != "YX" or not series.is_memmappable:
        return None
    return series.asarray(out="memmap")


def _check_pages(path: Path, pages: list[tifffile.TiffPage]) -> None:
    """InputError unless the pages are slices of one volume."""
    first = pages[0]
    if first.axes != "YX" or first.photometric not in _ONE_VALUE or not first.dtype:
        raise InputError(f"{path} has pages of {first.axes} {first.photometric.name}; use grey ones, of one channel")
    for number, page in enumerate(pages, 1):
        if (page.shape, page.dtype, page.axes) != (first.shape, first.dtype, first.axes):
            of_page, of_first = (f"{size_text(one.shape[:2])} {one.dtype}" for one in (page, first))
            raise InputError(f"{path}: page {number} is {of_page}, and the first {of_first}; use pages of one kind")
    check_memory(path, first.shape, 2 * first.nbytes)


@contextmanager
def writing(path: Path, size: tuple[int, int, int], dtype: np.dtype, source: dict[str, Any]) -> Iterator[Write]:
    """Write a page for each slice, with 64-bit offsets if the file needs them."""
    is_large = np.prod(size, dtype=float) * dtype.itemsize > tiff.NEAR_BYTES
    with aside(path) as file, tifffile.TiffWriter(file, bigtiff=is_large) as writer:

        def write(values: np.ndarray) -> None:
            for page in values:
                writer.write(
                    page, photometric="minisblack", compression="zlib", predictor=True, contiguous=False, metadata=None
                )

        yield write
