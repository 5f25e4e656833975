"""A picture as large as one likes, to measure with: pieces of real ones side by side, as a tiled TIFF.

python -m benchmarks.mosaic 56718 21450 mosaic.tif PICTURE ...
"""

import sys
from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor

from datasets.sources import read_picture
from datasets.writers import write_rows

_PIECE = 2048  # pixels along each side


def pieces(paths: list[str]) -> Iterator[np.ndarray]:
    """(3, h, w) uint8 for ever, h and w at most _PIECE: places of the pictures in turn, each mirrored another way."""
    pictures = [(read_picture(path).values * 255).round().byte().expand(3, -1, -1).numpy() for path in paths]
    generator = np.random.default_rng(0)
    for number in count():
        picture = pictures[number % len(pictures)]
        top, left = (generator.integers(max(1, length - _PIECE + 1)) for length in picture.shape[1:])
        piece = picture[:, top : top + _PIECE, left : left + _PIECE]
        yield piece[:, :: generator.choice([-1, 1]), :: generator.choice([-1, 1])]


def mosaic(width: int, height: int, paths: list[str]) -> Iterator[Tensor]:
    """Its rows, (3, n_rows, width) in [0, 1]."""
    supply = pieces(paths)
    for top in range(0, height, _PIECE):
        rows = np.zeros((3, min(_PIECE, height - top), width), np.uint8)
        for left in range(0, width, _PIECE):
            place = rows[:, :, left : left + _PIECE]
            piece = next(supply)
            reach = [range(0, length, step) for length, step in zip(place.shape[1:], piece.shape[1:], strict=True)]
            for y in reach[0]:
                for x in reach[1]:
                    part = place[:, y : y + piece.shape[1], x : x + piece.shape[2]]
                    part[:] = piece[:, : part.shape[1], : part.shape[2]]
        for start in range(0, rows.shape[1], 256):
            yield torch.from_numpy(rows[:, start : start + 256]).float() / 255


def main() -> None:
    width, height, out, *paths = sys.argv[1:]
    size = int(height), int(width)
    write_rows(out, mosaic(size[1], size[0], paths), 3, size, 8)


if __name__ == "__main__":
    main()
