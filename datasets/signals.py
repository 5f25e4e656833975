"""Signals and files: pictures in, pictures out."""

import os
from dataclasses import dataclass
from pathlib import Path

# The readers refuse large pictures unless told otherwise; OpenCV reads its limits when it is imported.
for _limit in ("PIXELS", "WIDTH", "HEIGHT"):
    os.environ.setdefault(f"OPENCV_IO_MAX_IMAGE_{_limit}", str(2**40))

import cv2
import numpy as np
import PIL.Image
import tifffile
import torch
from torch import Tensor

from utils.errors import InputError, one_line

PIL.Image.MAX_IMAGE_PIXELS = None
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what goes wrong is told in our own words

_SUPPORTED = "PNG, JPEG or TIFF with 8 or 16 bits a channel"
_DEPTHS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
_EXIF_ORIENTATION = 0x0112
_JPEG_SUFFIXES = {".jpg", ".jpeg"}
_TIFF_SUFFIXES = {".tif", ".tiff"}
_TIFF_MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
_TIFF_COLOURS = {
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
}


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
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        magic = file.read(4)
    pixels, orientation = (_read_tiff if magic in _TIFF_MAGIC else _read_other)(path)
    if pixels.dtype not in _DEPTHS:
        raise InputError(f"{path} holds {pixels.dtype} values, which are not supported: {_SUPPORTED} works")
    bits = _DEPTHS[pixels.dtype]
    pixels = _upright(pixels, orientation)
    file_size = pixels.shape[:2]
    if size is not None and size != file_size:
        shrinks = size[0] <= file_size[0] and size[1] <= file_size[1]
        pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        pixels = pixels.reshape(*size, -1)
    values = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))
    return Picture(values.div_(2**bits - 1), bits, file_size)


def _read_other(path: Path) -> tuple[np.ndarray, int]:
    """Pixels (h, w, c) as they lie in the file, and the EXIF orientation."""
    unreadable = InputError(f"{path} is no picture that can be read: {_SUPPORTED} works")
    orientation = 1
    try:
        with PIL.Image.open(path) as picture:
            orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
            if picture.format in ("JPEG", "MPO"):  # Pillow refuses a truncated one, OpenCV makes up the rest
                pixels = np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
                return pixels.reshape(*pixels.shape[:2], -1), orientation
    except PIL.UnidentifiedImageError:
        pass  # OpenCV may know it, if only to tell what it holds
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable from error
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise unreadable
    return _swap_red_and_blue(pixels.reshape(*pixels.shape[:2], -1)), orientation


def _read_tiff(path: Path) -> tuple[np.ndarray, int]:
    """Pixels (h, w, c) of the first page as they lie in the file, and the orientation."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            pixels, axes, photometric = page.asarray(), page.axes, page.photometric
            colormap, orientation = page.colormap, page.tags.valueof("Orientation", default=1)
    except (tifffile.TiffFileError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"{path} is no TIFF that can be read ({one_line(error)})") from error
    if axes not in ("YX", "YXS", "SYX") or photometric not in _TIFF_COLOURS:
        raise InputError(f"{path} is a TIFF of kind {photometric.name} {axes}: grey, RGB and palette ones work")
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
    return pixels, orientation


def write_picture(path: str | Path, values: Tensor, bits: int) -> None:
    """Write (c, h, w) in [0, 1] as PNG, JPEG or TIFF, by suffix; the file is complete when it appears.

    Errors
        InputError for another suffix, for what JPEG cannot hold, for a file that cannot be written
    """
    path = Path(path)
    check_picture_path(path, len(values), bits)
    levels = values.mul(2**bits - 1).add_(0.5).to(torch.int32).permute(1, 2, 0).numpy()
    pixels = levels.astype(np.uint8 if bits == 8 else np.uint16)
    aside = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        aside.open("wb").close()  # the operating system says why it cannot, OpenCV does not
        if path.suffix.lower() in _TIFF_SUFFIXES:
            _write_tiff(aside, pixels)
        elif not cv2.imwrite(str(aside), _swap_red_and_blue(pixels)):
            raise InputError(f"cannot write {path}: is there room on the disk?")
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)


def _write_tiff(path: Path, pixels: np.ndarray) -> None:
    grey = pixels.shape[2] == 1
    tifffile.imwrite(
        path,
        pixels[:, :, 0] if grey else pixels,
        photometric="minisblack" if grey else "rgb",
        extrasamples=["unassalpha"] if pixels.shape[2] == 4 else None,
        compression="zlib",
        predictor=True,
    )


def check_picture_path(path: Path, n_channels: int, bits: int) -> None:
    """InputError where a picture of this kind cannot be written to this path."""
    if path.suffix.lower() not in {".png"} | _JPEG_SUFFIXES | _TIFF_SUFFIXES:
        raise InputError(f"{path}: suffix {path.suffix!r} is none of .png, .jpg, .jpeg, .tif, .tiff")
    if path.suffix.lower() in _JPEG_SUFFIXES:
        if bits != 8:
            raise InputError(f"{path}: JPEG holds 8 bits a channel, not {bits}: add --bits 8, or write .png or .tif")
        if n_channels == 4:
            raise InputError(f"{path}: JPEG holds no alpha: add --no_alpha, or write .png or .tif")


def _swap_red_and_blue(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's BGR(A) to RGB(A) and back, (h, w, c)."""
    return pixels if pixels.shape[2] == 1 else pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 2 to 4 mirror and turn by 180 degrees, 5 to 8 exchange rows and columns as well."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
