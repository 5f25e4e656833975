"""Files to signals: pictures and occupancy grids; occupancy grids to files too."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The readers refuse large pictures unless told otherwise; OpenCV reads its limits when it is imported.
for _limit in ("PIXELS", "WIDTH", "HEIGHT"):
    os.environ.setdefault(f"OPENCV_IO_MAX_IMAGE_{_limit}", str(2**40))

import cv2
import numpy as np
import PIL.Image
import tifffile
import torch
from torch import Tensor

from utils.checkpoint import write_aside
from utils.errors import InputError, one_line, size_text
from utils.frame import Frame
from utils.memory import check_memory

PIL.Image.MAX_IMAGE_PIXELS = None
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what goes wrong is told in our own words

_SUPPORTED = "PNG, JPEG or TIFF with 8 or 16 bits a channel"
_DEPTHS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
_EXIF_ORIENTATION = 0x0112
_EXCHANGED = (5, 6, 7, 8)  # EXIF orientations whose rows are columns
_OCCUPANCY_FORMAT = b"miner occupancy"
_ORIGIN_LENGTH = 2048
_TIFF_MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
_TIFF_COLOURS = {
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
}


def check_is_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path} is no file")


@dataclass(frozen=True)
class Header:
    """What a file says of the signal that it holds.

    size: (h, w), upright, or (d, h, w)
    n_channels: that reading it gives
    """

    size: tuple[int, ...]
    n_channels: int


def read_header(path: str | Path, task: str) -> Header | None:
    """What a picture, or for the task mesh an occupancy file, holds, without reading it; None where it does not tell.

    Errors
        InputError for a file that is missing or cannot be read
    """
    path = Path(path)
    check_is_file(path)
    if task == "mesh":
        stored = _map_array(path)
        if stored.dtype.names is not None:
            return Header(_occupancy_size(path, stored), 1)
        return Header(stored.shape, 1) if stored.ndim == 3 else None
    try:
        if _is_tiff(path):
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages[0]
                size, n_channels = (page.imagelength, page.imagewidth), page.samplesperpixel
                is_palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE
                has_alpha = n_channels in (2, 4)
                orientation = page.tags.valueof("Orientation", default=1)
        else:
            with PIL.Image.open(path) as picture:
                size, n_channels = picture.size[::-1], len(picture.getbands())
                is_palette = picture.mode == "P"
                has_alpha = "A" in picture.getbands() or "transparency" in picture.info
                orientation = _orientation(path, picture)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged header leads to
        raise InputError(f"{path} is no picture that can be read: {_SUPPORTED} works") from error
    n_channels = 4 if has_alpha else 3 if is_palette or n_channels > 1 else 1
    return Header(size[::-1] if orientation in _EXCHANGED else size, n_channels)


@dataclass(frozen=True)
class Picture:
    """
    values: (c, h, w) float32 in [0, 1]; c is 1 (grey), 3 (RGB) or 4 (RGBA)
    bits: of a channel, in the file
    file_size: (h, w) in the file, before any resizing
    """

    values: Tensor
    bits: int
    file_size: tuple[int, int]


def read_picture(path: str | Path, size: tuple[int, int] | None = None) -> Picture:
    """Read a picture upright, as its EXIF orientation says, and resize it.

    Inputs
        path: PNG, JPEG or TIFF, grey, RGB or either with alpha, 8 or 16 bits a channel
        size: (h, w) to resize to, by area averaging where it shrinks; None keeps the picture's own
    Errors
        InputError for a file that is missing, is no picture, or is of another kind
    """
    path = Path(path)
    check_is_file(path)
    pixels, orientation = (_read_tiff if _is_tiff(path) else _read_other)(path)
    if pixels.dtype not in _DEPTHS:
        raise InputError(f"{path} holds {pixels.dtype} values, which are not supported: {_SUPPORTED} works")
    bits = _DEPTHS[pixels.dtype]
    pixels = _upright(pixels, orientation)
    file_size = pixels.shape[:2]
    if size is not None and size != file_size:
        shrinks = size[0] <= file_size[0] and size[1] <= file_size[1]
        try:
            pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        except cv2.error as error:
            raise MemoryError(f"{path} at {size_text(size)} pixels") from error
        pixels = pixels.reshape(*size, -1)
    values = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))
    return Picture(values.div_(2**bits - 1), bits, file_size)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _TIFF_MAGIC


def _read_other(path: Path) -> tuple[np.ndarray, int]:
    """Pixels (h, w, c) as they lie in the file, and the EXIF orientation."""
    unreadable = InputError(f"{path} is no picture that can be read: {_SUPPORTED} works")
    orientation = 1
    try:
        with PIL.Image.open(path) as picture:
            orientation = _orientation(path, picture)
            if picture.format in ("JPEG", "MPO"):  # Pillow refuses a truncated one, OpenCV makes up the rest
                pixels = np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
                return pixels.reshape(*pixels.shape[:2], -1), orientation
    except InputError:
        raise
    except PIL.UnidentifiedImageError:
        pass  # OpenCV may know it, if only to tell what it holds
    except (OSError, SyntaxError, ValueError, MemoryError) as error:
        raise unreadable from error
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise unreadable
    return _swap_red_and_blue(pixels.reshape(*pixels.shape[:2], -1)), orientation


def _orientation(path: Path, picture: PIL.Image.Image) -> int:
    """By its EXIF record, which Pillow may have to read the whole picture for."""
    n_values = picture.width * picture.height * len(picture.getbands())
    check_memory(path, picture.size[::-1], n_values * (2 if picture.mode.startswith("I") else 1))
    return picture.getexif().get(_EXIF_ORIENTATION, 1)


def _read_tiff(path: Path) -> tuple[np.ndarray, int]:
    """Pixels (h, w, c) of the first page as they lie in the file, and the orientation."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            check_memory(path, (page.imagelength, page.imagewidth), page.nbytes)
            pixels, axes, photometric = page.asarray(), page.axes, page.photometric
            colormap, orientation = page.colormap, page.tags.valueof("Orientation", default=1)
            bits, samples = page.bitspersample, page.extrasamples
            if photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression == tifffile.COMPRESSION.JPEG:
                photometric = tifffile.PHOTOMETRIC.RGB  # as the decoder gives it
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise InputError(f"{path} is no TIFF that can be read ({one_line(error)})") from error
    if axes not in ("YX", "YXS", "SYX") or photometric not in _TIFF_COLOURS or pixels.size == 0:
        kind = getattr(photometric, "name", photometric)
        raise InputError(f"{path} is a TIFF of kind {kind} {axes}: grey, RGB and palette ones work, convert it to one")
    if pixels.dtype in _DEPTHS and bits != _DEPTHS[pixels.dtype]:
        raise InputError(f"{path} has {bits} bits a channel: {_SUPPORTED} works")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = np.invert(pixels)
    if photometric == tifffile.PHOTOMETRIC.PALETTE:
        return (colormap.T[pixels] >> 8).astype(np.uint8), orientation
    pixels = pixels[..., None] if axes == "YX" else pixels.transpose(1, 2, 0) if axes == "SYX" else pixels
    n_channels = pixels.shape[2]
    if n_channels == 2:  # grey and alpha
        pixels = pixels[:, :, [0, 0, 0, 1]]
    elif n_channels not in (1, 3, 4):
        raise InputError(f"{path} has {n_channels} channels: grey, RGB, and either with alpha work")
    if tifffile.EXTRASAMPLE.ASSOCALPHA in samples and pixels.dtype in _DEPTHS:
        alpha = np.maximum(pixels[:, :, 3:], 1) / np.iinfo(pixels.dtype).max
        straight = (pixels[:, :, :3] / alpha).round().clip(0, np.iinfo(pixels.dtype).max)
        pixels = np.concatenate([straight.astype(pixels.dtype), pixels[:, :, 3:]], axis=2)
    return pixels, orientation


def _swap_red_and_blue(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's BGR(A) to RGB(A) and back, (h, w, c)."""
    return pixels if pixels.shape[2] == 1 else pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 2 to 4 mirror and turn by 180 degrees, 5 to 8 exchange rows and columns as well."""
    if orientation in _EXCHANGED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class Volume:
    """
    values: (1, d, h, w) uint8, 0 or 1, axes [z, y, x]
    frame: where the voxels lie in the mesh's space, or None where the file does not tell
    """

    values: Tensor
    frame: Frame | None


def write_occupancy(path: Path, packed: np.ndarray, width: int, frame: Frame, origin: dict[str, Any]) -> None:
    """Write an occupancy grid that knows its size and where it lies, as one record of a .npy file.

    Inputs
        packed: (d, h, ceil(w / 8)) uint8, axes [z, y, x], x packed eight voxels a byte, the first in the highest bit
        width: w
        origin: what the grid was made of, plain data
    """
    record = np.zeros((), _occupancy_type(packed.shape))
    record["format"] = _OCCUPANCY_FORMAT
    record["size"] = (*packed.shape[:2], width)
    record["centre"], record["half_extents"] = frame.centre, frame.half_extents
    record["origin"] = json.dumps(origin).encode()[:_ORIGIN_LENGTH]
    record["bits"] = packed
    buffer = io.BytesIO()
    np.save(buffer, record)
    write_aside(path, buffer.getvalue())


def read_occupancy(path: str | Path, size: tuple[int, int, int] | None = None) -> Volume:
    """Read an occupancy grid.

    Inputs
        path: a file of `write_occupancy`; a .npy of bools or of bytes 0 and 1, axes [z, y, x]; or the flat packed bits
            of a grid with axes [y, x, z]
        size: (d, h, w); needed for flat bits, which do not tell it; the others must agree with it
    Errors
        InputError for a file that is missing, is none of these, or is of another size
    """
    path = Path(path)
    stored = _map_array(path)
    frame = None
    if stored.dtype.names is not None:
        depth, height, width = _occupancy_size(path, stored)
        if not (np.isfinite(stored["centre"]).all() and np.isfinite(stored["half_extents"]).all()):
            raise InputError(f"{path} is damaged: it does not tell where its voxels lie")
        check_memory(path, (depth, height, width), depth * height * width)
        grid = np.unpackbits(stored["bits"], axis=2, count=width)
        frame = Frame(tuple(stored["centre"].tolist()), tuple(stored["half_extents"].tolist()))
    elif stored.ndim == 3 and stored.dtype in (np.bool_, np.uint8):
        check_memory(path, stored.shape, stored.nbytes)
        grid = stored.astype(np.uint8)
        if grid.size == 0 or grid.max() > 1:
            raise InputError(f"{path} holds values other than 0 and 1, or none")
    elif stored.ndim == 1 and stored.dtype == np.uint8:
        grid = _unpack_flat(path, stored, size)
    else:
        raise InputError(f"{path} holds {stored.dtype} values of shape {stored.shape}: bits, bytes or bools work")
    if size is not None and grid.shape != size:
        held = size_text(grid.shape)
        raise InputError(f"{path} holds {held} voxels, not the {size_text(size)} of --input_size: leave it out")
    return Volume(torch.from_numpy(np.ascontiguousarray(grid))[None], frame)


def _map_array(path: Path) -> np.ndarray:
    check_is_file(path)
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a damaged header leads to
        raise InputError(f"{path} is no .npy file that can be read ({one_line(error)})") from error
    if not isinstance(stored, np.ndarray):
        raise InputError(f"{path} is no .npy file of one array")
    return stored


def _occupancy_size(path: Path, stored: np.ndarray) -> tuple[int, int, int]:
    """(d, h, w) of a file of `write_occupancy`."""
    if stored.dtype.names != tuple(_occupancy_type((1, 1, 1)).names) or stored["format"] != _OCCUPANCY_FORMAT:
        raise InputError(f"{path} is no occupancy file")
    depth, height, width = stored["size"].tolist()
    if width < 1 or stored["bits"].shape != (depth, height, -(-width // 8)):
        raise InputError(f"{path} is damaged: its bits are not those of {size_text((depth, height, width))} voxels")
    return depth, height, width


def _unpack_flat(path: Path, stored: np.ndarray, size: tuple[int, int, int] | None) -> np.ndarray:
    if size is None:
        raise InputError(f"{path} holds flat bits, which do not tell their size: add --input_size")
    depth, height, width = size
    n_voxels = depth * height * width
    if len(stored) != -(-n_voxels // 8):
        wanted = f"{-(-n_voxels // 8)} would be --input_size {size_text(size)}"
        raise InputError(f"{path} holds {len(stored)} bytes, {wanted}")
    return np.unpackbits(stored, count=n_voxels).reshape(height, width, depth).transpose(2, 0, 1)


def _occupancy_type(shape: tuple[int, int, int]) -> np.dtype:
    return np.dtype(
        [
            ("format", "S16"),
            ("size", "<i8", 3),  # d, h, w
            ("centre", "<f8", 3),  # x, y, z
            ("half_extents", "<f8", 3),
            ("origin", f"S{_ORIGIN_LENGTH}"),
            ("bits", "u1", shape),
        ]
    )
