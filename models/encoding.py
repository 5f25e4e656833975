"""Positional encoding of a block's local coordinates."""

from itertools import combinations

import torch
from einops import rearrange
from torch import Tensor


def encode(coords: Tensor, n_freq: int | None) -> Tensor:
    """[sin(xP), cos(xP)], P = [2^0 E, ..., 2^(n_freq-1) E] (Mildenhall et al., NeRF, 2020, eq. 4), E by `directions`.

    All blocks share their coordinates, so this is computed once and never per block.

    Inputs
        coords: (n_points, d) in (-1, 1)
        n_freq: number of frequencies, or None for the coordinates themselves
    Outputs
        (n_points, n_in), n_in as `encoded_width` tells
    """
    if n_freq is None:
        return coords
    octaves = 2.0 ** torch.arange(n_freq, device=coords.device)
    along = coords @ directions(coords.shape[1]).to(coords).T
    phases = rearrange(octaves[:, None] * along[:, None], "point octave dim -> point (octave dim)")
    return torch.cat([phases.sin(), phases.cos()], dim=1)


def encoded_width(n_dims: int, n_freq: int | None) -> int:
    return n_dims if n_freq is None else 2 * len(directions(n_dims)) * n_freq


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
