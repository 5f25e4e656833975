"""Pictures that decode only as a whole: what their formats share, and how PNG and JPEG are written."""

import errno
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import PIL.Image

from datasets.formats import SUPPORTED, Pixels
from utils.errors import InputError, one_line, size_text
from utils.files import aside
from utils.memory import check_memory

PIL.Image.MAX_IMAGE_PIXELS = None  # `check_memory` judges by the memory there is
warnings.filterwarnings("ignore", module=r"PIL\.")  # our own messages say what is wrong
for _library in ("PIL", "imagecodecs"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)

_EXIF_ORIENTATION = 0x0112
_VALUES_AT_ONCE = 2**20
_BUFFERS = 2**24  # bytes, of decoders
_PNG_COMPRESSION = 3  # 6, the usual one, takes half as long again to save 2%
_JPEG_QUALITY = 95
_NUMBERS = {os.strerror(number): number for number in errno.errorcode}  # of the system's errors, by their texts


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """InputError for whatever a damaged picture raises meanwhile."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(path) from error


def unreadable(path: Path, reason: object = None) -> InputError:
    why = "" if reason is None else f" ({one_line(reason)})"
    return InputError(f"{path} is not a readable picture{why}; use {SUPPORTED}")


def check_size(path: Path, size: tuple[int, int], decode_bytes: int, least_bytes: int) -> None:
    """InputError if a picture does not fit into memory, or its file is too short to hold it.

    Inputs
        size: (h, w), as the header says
        decode_bytes: of memory that decoding takes at its peak
        least_bytes: of a file that holds so many pixels
    """
    check_memory(path, size, decode_bytes)
    n_bytes = path.stat().st_size
    if n_bytes < least_bytes:
        raise InputError(f"{path} is damaged: {n_bytes} bytes cannot hold {size_text(size)} pixels; use an intact copy")


def orientation_of(picture: PIL.Image.Image) -> int:
    """By its EXIF record, 1 to 8; 1 if it has none."""
    return PIL.Image.Image.getexif(picture).get(_EXIF_ORIENTATION, 1)  # a PNG's own method decodes all its pixels


def count_pictures(picture: PIL.Image.Image) -> int:
    """Frames or pages in a file; 1 if what follows the first is damaged."""
    try:
        return getattr(picture, "n_frames", 1)
    except Exception:  # whatever a damaged file raises; the first picture is read on its own
        return 1


def whole(
    size: tuple[int, int],
    n_channels: int,
    bits: int,
    orientation: int,
    decode: Callable[[], np.ndarray],
    decode_bytes: int,
    n_pictures: int = 1,
    dtype: np.dtype | None = None,
    notes: tuple[str, ...] = (),
) -> Pixels:
    """A picture that `decode` gives as a whole, (h, w, c).

    Inputs
        decode_bytes: of memory that pixels take at the peak of decoding, besides buffers
        dtype: of intensities of light, in place of pixels
    """
    return Pixels(
        size,
        n_channels,
        bits,
        orientation,
        chunk=size,
        window=lambda rows, columns: decode()[rows, columns],
        window_bytes=lambda n_rows, n_columns: decode_bytes + _BUFFERS,
        n_pictures=n_pictures,
        dtype=dtype,
        is_light=dtype is not None,
        notes=notes,
    )


def as_array(picture: PIL.Image.Image, mode: str) -> np.ndarray:
    """The pixels (h, w, c) in a mode of Pillow, some rows at a time: converted at once they would lie in memory thrice.

    Inputs
        mode: L, RGB or RGBA
    """
    width, height = picture.size
    pixels = np.empty((height, width, len(mode)), np.uint8)
    n_rows = max(1, _VALUES_AT_ONCE // (width * len(mode)))
    for top in range(0, height, n_rows):
        rows = picture.crop((0, top, width, min(top + n_rows, height)))
        rows = rows if rows.mode == mode else rows.convert(mode)
        pixels[top : top + n_rows] = np.asarray(rows).reshape(-1, width, len(mode))
    return pixels


def write_pixels(path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Write PNG or JPEG, by suffix, with libvips, which takes whole pictures: this one is mapped from a file."""
    import pyvips  # reading does without it

    height, width, n_channels = shape
    deep = dtype == np.uint16
    colours = ("rgb16" if deep else "srgb") if n_channels > 1 else ("grey16" if deep else "b-w")
    with aside(path) as file, TemporaryFile(dir=path.parent) as scratch:  # nameless, so gone however this process ends
        for some in rows:
            scratch.write(some.data)
        scratch.flush()
        mapped = np.memmap(scratch, dtype, mode="r")
        picture = pyvips.Image.new_from_memory(mapped, width, height, n_channels, "ushort" if deep else "uchar")
        picture = picture.copy(interpretation=colours)
        target = pyvips.Target.new_to_descriptor(file.fileno())  # a function of ours would take no Ctrl-C
        try:
            if path.suffix.lower() == ".png":
                picture.pngsave_target(target, filter="all", compression=_PNG_COMPRESSION)
            else:
                picture.jpegsave_target(target, Q=_JPEG_QUALITY)
        except pyvips.Error as error:
            told = re.search("(?:system|unix) error: (.+)", error.detail)
            reason = told[1] if told else one_line(error)
            raise OSError(_NUMBERS.get(reason), reason) from error
