"""Positional encoding of a block's local coordinates."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

Spacing = Literal["octaves", "harmonics"]

SPACINGS = get_args(Spacing)


def frequencies(n_freq: int, spacing: Spacing) -> tuple[float, ...]:
    """The frequencies of an encoding, in radians over half a block.

    octaves    1, 2, 4, ... (Mildenhall et al., NeRF, 2020, eq. 4)
    harmonics  3, 6, 9, ...: a Fourier series; its period, 2 pi / 3, is a little more than a block, which is 2 long, so
               that no two points of a block are encoded alike
    """
    return tuple(2.0**k if spacing == "octaves" else 3.0 * (k + 1) for k in range(n_freq))


def nested(frequencies: Sequence[float] | None, n_coarser: int) -> tuple[float, ...] | None:
    """The frequencies of a level whose encoding can express that of the next coarser level: besides its own, half of
    each of the coarser level's.

    Inputs
        frequencies: of the coarsest level, and every level's own
        n_coarser: levels that are coarser
    """
    if frequencies is None:
        return None
    found = set(frequencies)
    for _ in range(n_coarser):
        found = {*frequencies, *(frequency / 2 for frequency in found)}
    return tuple(sorted(found))


def encode(coords: Tensor, frequencies: Sequence[float] | None) -> Tensor:
    """[sin(xP), cos(xP)], P = [f_1 E, ..., f_n E], E by `directions`.

    All blocks share their coordinates, so this is computed once and never per block.

    Inputs
        coords: (n_points, d) in (-1, 1)
        frequencies: f, or None for the coordinates themselves
    Outputs
        (n_points, n_in), n_in from `encoded_width`
    """
    if frequencies is None:
        return coords
    along = coords @ directions(coords.shape[1]).to(coords).T
    factors = torch.tensor(frequencies, device=coords.device)
    phases = rearrange(factors[:, None] * along[:, None], "point freq dim -> point (freq dim)")
    return torch.cat([phases.sin(), phases.cos()], dim=1)


def encoded_width(n_dims: int, frequencies: Sequence[float] | None) -> int:
    return n_dims if frequencies is None else 2 * len(directions(n_dims)) * len(frequencies)


def restriction(
    offset: Sequence[float], frequencies: Sequence[float] | None, coarse: Sequence[float] | None
) -> tuple[Tensor, Tensor]:
    """How an encoding in a part of a block follows from one whose coordinates x are those of the part.

    encode(x / 2 + offset, coarse) = encode(x, frequencies) @ matrix + constant, by the addition theorems.

    Inputs
        offset: of the part's centre, d numbers
        frequencies: that hold half of each of the coarse ones
    Outputs
        matrix (n_in, n_coarse_in), constant (1, n_coarse_in)
    """
    offset = torch.tensor(offset)
    if coarse is None:
        return torch.eye(len(offset)) / 2, offset[None]
    along = directions(len(offset)) @ offset
    matrix = torch.zeros(2, len(frequencies), len(along), 2, len(coarse), len(along))
    for place, frequency in enumerate(coarse):
        half, (sin, cos) = frequencies.index(frequency / 2), ((frequency * along).sin(), (frequency * along).cos())
        for to, of, factor in ((0, 0, cos), (1, 0, sin), (0, 1, -sin), (1, 1, cos)):
            matrix[to, half, :, of, place] = factor.diag()
    return matrix.flatten(3).flatten(0, 2), torch.zeros(1, matrix[0, 0, 0].numel())


def directions(n_dims: int) -> Tensor:
    """E, the directions that phases are taken along: the axes of a picture, 21 evenly spread ones of a volume.

    The latter are the vertices of an icosahedron whose edges are halved, one of each opposite pair (Barron et al.,
    mip-NeRF 360, CVPR 2022, last appendix).

    Outputs
        (n_directions, n_dims) unit vectors
    """
    if n_dims != 3:
        return torch.eye(n_dims)
    golden = (1 + 5**0.5) / 2
    corners = [
        torch.tensor(corner, dtype=torch.float64).roll(turn)
        for turn in range(3)
        for corner in ([0, 1, golden], [0, 1, -golden], [0, -1, golden], [0, -1, -golden])
    ]
    middles = [(a + b) / 2 for a, b in combinations(corners, 2) if (a - b).norm() < 2.01]  # of edges, which are 2 long
    points = [point for point in corners + middles if tuple(point.tolist()) > (0, 0, 0)]
    return torch.stack([point / point.norm() for point in points]).float()
