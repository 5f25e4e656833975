"""Files to signals: pictures and occupancy grids; occupancy grids to files too."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.sources import (
    OCCUPANCY_FORMAT,
    OCCUPANCY_HEADER,
    ORIGIN_LENGTH,
    open_occupancy,
    open_picture,
)
from utils.checkpoint import write_aside
from utils.frame import Frame


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
    source = open_picture(path, size)
    values = torch.from_numpy(np.ascontiguousarray(source.read(0, source.size[0]), dtype=np.float32))
    return Picture(values.div_(2**source.bits - 1), source.bits, source.file_size)


@dataclass(frozen=True)
class Volume:
    """
    values: (1, d, h, w) uint8, 0 or 1, axes [z, y, x]
    frame: where the voxels lie in the mesh's space, or None where the file does not tell
    """

    values: Tensor
    frame: Frame | None


def write_occupancy(path: Path, packed: np.ndarray, width: int, frame: Frame, origin: dict[str, Any]) -> None:
    """Write an occupancy grid that knows its size and where it lies, as a record in a .npy file, then its bits.

    Inputs
        packed: (d, h, ceil(w / 8)) uint8, axes [z, y, x], x packed eight voxels a byte, the first in the highest bit
        width: w
        origin: what the grid was made of, plain data
    """
    header = np.zeros((), OCCUPANCY_HEADER)
    header["format"] = OCCUPANCY_FORMAT
    header["size"] = (*packed.shape[:2], width)
    header["centre"], header["half_extents"] = frame.centre, frame.half_extents
    header["origin"] = json.dumps(origin).encode()[:ORIGIN_LENGTH]
    buffer = io.BytesIO()
    np.save(buffer, header)
    buffer.write(np.ascontiguousarray(packed))  # not a field of the header, which could hold 2 GiB only
    write_aside(path, buffer.getbuffer())


def read_occupancy(path: str | Path, size: tuple[int, int, int] | None = None) -> Volume:
    """An occupancy grid as `datasets.sources.open_occupancy` opens it, whole; errors are its own."""
    source = open_occupancy(path, size)
    return Volume(torch.from_numpy(source.read(0, source.size[0])), source.frame)
