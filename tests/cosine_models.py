"""Fits by random networks of cosines, and their codings."""

from math import prod

import numpy as np
import torch

from models.level import Level
from models.miner import MINER
from models.packed.coefficients import Coefficients
from models.packed.contexts import N_CONTEXTS
from models.shape import NetworkShape
from utils.blocks import grid_shape
from utils.pyramid import level_size

STEP = 1 / 60


def cosine_model(size, patch_size, n_channels, n_scales, widths) -> tuple[MINER, dict[int, Coefficients]]:
    """Pictures of many greys or volumes; in finer levels some blocks have no network, and most integers are 0."""
    draw, levels, codings = np.random.default_rng(0), {}, {}
    for index in range(n_scales):
        here, is_coarsest = level_size(size, index), index == n_scales - 1
        least = 0 if is_coarsest else -1
        group = draw.integers(least, len(widths), prod(grid_shape(here, patch_size))).astype(np.int8)
        coding = codings[index] = _coding(draw, patch_size, n_channels, widths)
        networks = tuple(
            coding.networks_of(_integers(draw, int((group == number).sum()), shape, is_coarsest), shape)
            for number, shape in enumerate(coding.shapes)
        )
        form = (here, patch_size, None, not is_coarsest, torch.from_numpy(group), networks, "lanczos")
        levels[index] = Level(*form)
    source = {"bits": 8} if len(size) == 2 else {"frame": None}
    model = MINER(levels, n_scales=n_scales, n_channels=n_channels, size=size, source=source, options={"lr": 0.1})
    return model, codings


def _coding(draw: np.random.Generator, patch_size, n_channels, widths) -> Coefficients:
    shapes = tuple(
        NetworkShape(len(patch_size), n_channels, 1, n, "cosines", "cosine", "linear", lengths=tuple(patch_size))
        for n in widths
    )
    rotation, _ = np.linalg.qr(draw.normal(size=(n_channels, n_channels)))
    starts = [16384 * number // len(widths) for number in range(len(widths) + 1)]
    scales = draw.integers(-16, 30, N_CONTEXTS).tolist()
    return Coefficients(shapes, STEP, tuple(map(tuple, rotation.tolist())), tuple(starts), tuple(scales))


def _integers(draw: np.random.Generator, n_blocks: int, shape: NetworkShape, is_coarsest: bool) -> np.ndarray:
    """(n_blocks, n_values): the smaller, the higher their frequency is."""
    n, n_axes = shape.n_hidden, shape.n_in
    height = n ** (n_axes / 2) / STEP / (2 if is_coarsest else 20)  # of a constant
    frequency = np.indices((n,) * n_axes).sum(0).flatten()
    size = (n_blocks, prod(shape.lengths) // n**n_axes, shape.n_out, n**n_axes)
    return (
        draw.laplace(scale=height / (1 + frequency) ** 2, size=size).astype(np.int32).reshape(n_blocks, prod(size[1:]))
    )
