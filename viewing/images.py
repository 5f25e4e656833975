"""Pictures of which any window is served at any size: fits, and what was fitted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from math import ceil
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from datasets.sources import Source
from datasets.store import map_levels, store_bytes, write_levels
from decoding.originals import level_window
from models.miner import MINER
from utils.channels import n_shown
from utils.pyramid import level_size
from utils.raster import as_bytes
from utils.windows import Window, size_of
from viewing.iiif import MOST_AREA, Request, scale_factors

_SETTINGS = {  # of Pillow, by the format of a request: quick, and without anything to see
    "jpg": dict(format="jpeg", quality=90),
    "png": dict(format="png", compress_level=1),
    "webp": dict(format="webp", quality=90, method=2),
}
_TURNS = [None, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90]  # clockwise


@dataclass(frozen=True)
class Picture:
    """
    size: (h, w)
    n_channels: 1 (grey), 3 (RGB) or 4 (RGBA)
    reader: (level, window) -> (h, w, c) uint8 of the picture halved `level` times
    """

    size: tuple[int, int]
    n_channels: int
    reader: Callable[[int, Window], np.ndarray] = field(repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def n_levels(self) -> int:
        """Until it fits into a tile."""
        return len(scale_factors(self.size))

    def read(self, level: int, window: Window) -> np.ndarray:
        """(h, w, c) uint8 of a window of the picture halved so many times; one is read at a time."""
        with self._lock:
            return self.reader(level, window)


def fit_picture(model: MINER) -> Picture:
    """The finest level of a fit that is there, and means of it; the first three of many channels."""
    shown = n_shown(model.n_channels, model.spectral)
    finest, coarsest = model.finest, model.n_scales - 1
    size = model.levels[coarsest].size

    def read(halved: int, window: Window) -> np.ndarray:
        level = finest + halved
        if level > coarsest:
            values = level_window(
                lambda *rows: model.decode(coarsest, (rows, (0, size[1]))), size, level - coarsest, window
            )
            return as_bytes(values[:shown])
        return np.concatenate([as_bytes(values[:shown]) for _, values in model.decode_windows(level, window)])

    return Picture(model.levels[finest].size, shown, read)


def levels_bytes(source: Source) -> int:
    """Of the levels of what was fitted, on the disk."""
    return store_bytes(source, len(scale_factors(source.size)))


def original_picture(source: Source, folder: Path) -> Picture:
    """What was fitted, the first three of many channels. It is read when it is first asked for, and its levels are kept
    in a folder."""
    shown = n_shown(source.n_channels, source.spectral)
    n_levels = len(scale_factors(source.size))

    @cache
    def levels() -> list:
        write_levels(source, n_levels, folder)
        source.close()
        return map_levels(source, n_levels, folder).levels

    return Picture(source.size, shown, lambda level, window: as_bytes(levels()[level].read(window)[:shown]))


def image_of(pixels: np.ndarray) -> Image.Image:
    """Pixels (h, w, c) as an image of Pillow's."""
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def encoded(picture: Picture, request: Request) -> bytes:
    """The file that a request asks for."""
    image = scaled(picture, request.window, request.size)
    image = _in_quality(image, request.quality, has_alpha=request.format != "jpg")
    if request.is_mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if request.turns:
        image = image.transpose(_TURNS[request.turns])
    return saved(image, request.format)


def saved(image: Image.Image, format: str) -> bytes:
    file = BytesIO()
    image.save(file, **_SETTINGS[format])
    return file.getvalue()


def scaled(picture: Picture, window: Window, size: tuple[int, int]) -> Image.Image:
    """A window of a picture at a size: that of a level as it is, where one has this size, or else resampled from the
    coarsest level that has as many pixels."""
    level = _level_for(picture, window, size)
    factor, of = 2**level, level_size(picture.size, level)
    place = [[edge / factor for edge in along] for along in window]
    reach = tuple((int(low), min(ceil(high), length)) for (low, high), length in zip(place, of, strict=True))
    image = image_of(picture.read(level, reach))
    edges = [(edge, length) for along, length in zip(window, picture.size, strict=True) for edge in along]
    if size == size_of(reach) and all(edge % factor == 0 or edge == length for edge, length in edges):
        return image
    (top, bottom), (left, right) = (
        (low - start, high - start) for (low, high), (start, _) in zip(place, reach, strict=True)
    )
    return image.resize(size[::-1], Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def _level_for(picture: Picture, window: Window, size: tuple[int, int]) -> int:
    """The coarsest level that has the pixels of a size, or a coarser one where those would be too many to read."""
    level = 0
    while level + 1 < picture.n_levels:
        finer, coarser = ([ceil(length / 2**one) for length in size_of(window)] for one in (level, level + 1))
        has_all = all(there >= wanted for there, wanted in zip(coarser, size, strict=True))
        if not has_all and finer[0] * finer[1] <= 4 * MOST_AREA:
            break
        level += 1
    return level


def _in_quality(image: Image.Image, quality: str, has_alpha: bool) -> Image.Image:
    """In colour, in grey, or in black and white; on white where there is no alpha."""
    if image.mode == "RGBA" and (quality == "bitonal" or not has_alpha):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if quality == "gray":
        return image.convert("LA" if image.mode == "RGBA" else "L")
    if quality == "bitonal":
        return image.convert("L").point([0] * 128 + [255] * 128)
    return image
