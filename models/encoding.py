"""Positional encoding of a block's local coordinates."""

import torch
from einops import rearrange
from torch import Tensor


def encode(coords: Tensor, n_freq: int | None) -> Tensor:
    """[sin(xP), cos(xP)], P = [2^0 E, ..., 2^(n_freq-1) E] (Mildenhall et al., NeRF, 2020, eq. 4), E the identity.

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
    phases = rearrange(octaves[:, None] * coords[:, None], "point octave dim -> point (octave dim)")
    return torch.cat([phases.sin(), phases.cos()], dim=1)


def encoded_width(n_dims: int, n_freq: int | None) -> int:
    return n_dims if n_freq is None else 2 * n_dims * n_freq
