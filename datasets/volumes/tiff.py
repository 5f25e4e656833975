"""TIFF stacks: a page for each slice, and channels and times where ImageJ or OME name them."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from datasets.formats import tiff  # which silences tifffile's own messages
from datasets.volumes import Affine, Voxels, Write
from datasets.volumes.axes import Index
from datasets.volumes.place import short_name, sides_of, unit_named
from utils.errors import InputError, one_line, size_text
from utils.files import aside
from utils.memory import check_memory

_KINDS = {
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.YCBCR,
}
_IMAGEJ_TYPES = ("uint8", "uint16", "float32")


def open_voxels(path: Path, has_times: bool) -> Voxels:
    """Map the stack, or open its pages, each of which is read by itself."""
    try:
        file = tifffile.TiffFile(path)
        series = file.series[0]
        _check_pages(path, file)
        axes, shape = _named_axes(path, series)
        affine, unit = _place(file)
        if series.dataoffset is not None and series.keyframe.is_memmappable:
            read = series.asarray(out="memmap").reshape(shape).__getitem__
        else:
            read = _page_reader(path, list(series.pages), shape[: len(axes) - series.keyframe.ndim])
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file raises
        raise InputError(f"{path} is not a readable TIFF ({one_line(error)})") from error
    if series.keyframe.photometric != tifffile.PHOTOMETRIC.RGB or shape[-1] != 4 or axes[-1] != "C":
        return Voxels(axes, shape, series.dtype, read, affine, unit)
    return Voxels(axes, (*shape[:-1], 3), series.dtype, read, affine, unit, notes=(f"{path}: its alpha is left out",))


def _check_pages(path: Path, file: tifffile.TiffFile) -> None:
    """InputError unless the pages are slices of one volume."""
    first = file.series[0].keyframe
    if first.photometric not in _KINDS or not first.dtype:
        kind = getattr(first.photometric, "name", first.photometric)
        raise InputError(f"{path} has pages of {first.axes} {kind}; use grey ones, or RGB")
    for series in file.series[1:]:
        page = series.keyframe
        if not page.is_reduced:
            of_page, of_first = (f"{size_text(one.shape[:2])} {one.dtype}" for one in (page, first))
            raise InputError(
                f"{path}: page {page.index + 1} is {of_page}, and the first {of_first}; use pages of one kind"
            )
    check_memory(path, first.shape, 2 * first.nbytes)


def _named_axes(path: Path, series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Letters as `datasets.volumes.axes` has them, and the entries of each.

    Where none is Z, the slices lie along an axis without a name, else over time, else, of grey pages, from channel to
    channel.
    """
    axes, shape = series.axes, series.shape
    if "Z" not in axes:
        unnamed = [axis for axis in axes if axis not in "TCYXS"]
        along = next((axis for axis in (*unnamed, "T", "C") if axis in axes), None)
        axes, shape = (axes.replace(along, "Z", 1), shape) if along else (f"Z{axes}", (1, *shape))
    axes = axes.replace("S", "C")
    if not set(axes) <= set("TCZYX") or len(set(axes)) < len(axes) or not set("YX") <= set(axes):
        raise InputError(
            f"{path} has axes {series.axes} of {' x '.join(map(str, series.shape))}; name them as ImageJ or OME do, "
            "T, Z and C"
        )
    return axes, shape


def _page_reader(path: Path, pages: list[Any], leading: tuple[int, ...]) -> Any:
    """What reads an index of pages that lie along the leading axes."""
    numbers = np.arange(len(pages)).reshape(leading)

    def read(index: Index) -> np.ndarray:
        chosen = numbers[index[: len(leading)]]
        try:
            values = np.stack([pages[number].asarray()[index[len(leading) :]] for number in chosen.flat])
        except Exception as error:  # whatever damaged pages raise
            raise InputError(f"{path} is damaged: its pages cannot be read ({one_line(error)})") from error
        return values.reshape(*chosen.shape, *values.shape[1:])

    return read


def _place(file: tifffile.TiffFile) -> tuple[Affine | None, str | None]:
    """The affine of the sizes of a voxel that ImageJ or OME tell, and its unit; None where they do not."""
    if file.is_ome:
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        pixels = (pixels[0] if isinstance(pixels, list) else pixels)["Pixels"]
        unit = unit_named(pixels.get("PhysicalSizeXUnit", "µm"))
        sides = [pixels.get(f"PhysicalSize{axis}") for axis in "XYZ"]
        units = {unit_named(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XYZ"}
        if None in sides or len(units) > 1:
            return None, None
    elif file.is_imagej and "spacing" in file.imagej_metadata:
        unit = unit_named(str(file.imagej_metadata.get("unit", "")))
        tags = file.pages.first.tags
        ratios = [tags.valueof(f"{axis}Resolution", default=(1, 1)) for axis in "XY"]
        sides = [*(below / above if above else 0 for above, below in ratios), abs(file.imagej_metadata["spacing"])]
    else:
        return None, None
    return np.diag([*map(float, sides), 1.0]).tolist(), unit


@contextmanager
def writing(path: Path, shape: tuple[int, int, int, int], dtype: np.dtype, source: dict[str, Any]) -> Iterator[Write]:
    """Write a page for each slice and channel, or RGB ones where the file that was fitted has channels last, with
    64-bit offsets if the file needs them. Sizes of voxels and channels are told as ImageJ does, or OME for other types.
    """
    is_large = prod(shape) * dtype.itemsize > tiff.NEAR_BYTES
    is_rgb = shape[0] == 3 and source.get("axes", "").endswith("C")
    first = _told(shape, dtype, is_rgb, source)
    with aside(path) as file, tifffile.TiffWriter(file, bigtiff=is_large) as writer:

        def write(values: np.ndarray) -> None:
            nonlocal first
            for pages in values.swapaxes(0, 1):
                for page in [np.moveaxis(pages, 0, -1)] if is_rgb else pages:
                    writer.write(
                        np.ascontiguousarray(page),
                        photometric="rgb" if is_rgb else "minisblack",
                        compression="zlib",
                        predictor=True,
                        contiguous=False,
                        metadata=None,
                        **first,
                    )
                    first = {}

        yield write


def _told(shape: tuple[int, int, int, int], dtype: np.dtype, is_rgb: bool, source: dict[str, Any]) -> dict[str, Any]:
    """What the first page tells of the stack, for `TiffWriter.write`; nothing where it is one volume of grey slices, of
    which no more is known."""
    if shape[0] == 1 and not source.get("affine"):
        return {}
    n_channels, depth, *rest = shape
    sides = sides_of(np.array(source.get("affine") or np.eye(4))).tolist()
    unit = short_name(source.get("unit"))
    order, pages = ("ZYXS", (depth, *rest, 3)) if is_rgb else ("ZCYX", (depth, n_channels, *rest))
    if dtype.name in _IMAGEJ_TYPES and not (is_rgb and dtype != np.uint8):
        unit = "um" if unit == "µm" else unit
        about = tifffile.tifffile.imagej_description(pages, axes=order, rgb=is_rgb, spacing=sides[2], unit=unit)
        return {"description": about, "resolution": (1 / sides[0], 1 / sides[1]), "resolutionunit": 1}
    told = {
        f"PhysicalSize{axis}{word}": value
        for axis, side in zip("XYZ", sides, strict=True)
        for word, value in (("", side), ("Unit", unit))
    }
    about = tifffile.OmeXml(UUID="urn:uuid:00000000-0000-0000-0000-000000000000")
    n_samples = 3 if is_rgb else 1
    stored = (depth if is_rgb else depth * n_channels, 1, 1, *rest, n_samples)
    about.addimage(dtype, pages, stored, axes=order, **told)
    return {"description": about.tostring().encode()}
