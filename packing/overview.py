"""Small pictures of a picture, which a viewer shows at once, before it has read a network."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

from models.miner import MINER
from utils.channels import n_shown
from utils.pyramid import downsample
from utils.raster import as_bytes

TILE = 256
"""Pixels of a tile along each axis."""

_QUALITY = 80


def overview(model: MINER) -> list[Tensor]:
    """The coarsest level halved, and again until it fits one tile, coarse to fine; or the level itself, if it fits.
    Of a volume there is none.

    Outputs
        pictures (c, h, w) in [0, 1], grey, RGB or RGBA
    """
    if len(model.size) != 2:
        return []
    pictures = [model.decode(model.n_scales - 1).cpu()[: n_shown(model.n_channels, model.spectral)]]
    while max(pictures[-1].shape[1:]) > TILE:
        pictures.append(downsample(pictures[-1]))
    return pictures[:0:-1] or pictures


def tiles(pictures: list[Tensor]) -> Iterator[bytes]:
    """The tiles of each picture, row by row, as files of WebP: 8 bits a channel, grey as RGB."""
    for picture in pictures:
        for rows in picture.split(TILE, dim=1):
            for tile in rows.split(TILE, dim=2):
                yield _webp(tile)


def _webp(picture: Tensor) -> bytes:
    pixels = as_bytes(picture)
    pixels = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "webp", quality=_QUALITY)
    return file.getvalue()
