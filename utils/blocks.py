"""The grid of blocks that tiles a level.

Notation: sizes are (h, w) or (d, h, w); a *canvas* (c, *size) is a signal whose size is a multiple of the patch; blocks
and the points of a block are numbered in C order. Nothing here knows what the values mean.
"""

from collections.abc import Iterator, Sequence

import torch
from einops import rearrange


def grid_shape(size: tuple[int, ...], patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks along each axis; the last one may be padded."""
    return tuple(-(-length // patch) for length, patch in zip(size, patch_size, strict=True))


def pad_to_blocks(signal: torch.Tensor, patch_size: tuple[int, ...]) -> torch.Tensor:
    """Replicate the far edges of (c, *size), of any type, up to a multiple of the patch."""
    for axis, (n_blocks, patch) in enumerate(zip(grid_shape(signal.shape[1:], patch_size), patch_size, strict=True), 1):
        length = signal.shape[axis]
        if n_blocks * patch > length:
            edge = signal.narrow(axis, length - 1, 1)
            signal = torch.cat([signal, *[edge] * (n_blocks * patch - length)], axis)
    return signal


def view_blocks(canvas: torch.Tensor, patch_size: tuple[int, ...]) -> torch.Tensor:
    """The canvas (c, *size) as (*grid, c, *patch_size), sharing its memory."""
    n_dims = len(patch_size)
    for axis in reversed(range(n_dims)):
        canvas = canvas.unflatten(1 + axis, (-1, patch_size[axis]))  # -> (c, gh, ph, gw, pw)
    grid_axes = [1 + 2 * axis for axis in range(n_dims)]
    return canvas.permute(*grid_axes, 0, *[axis + 1 for axis in grid_axes])


def gather_blocks(canvas: torch.Tensor, patch_size: tuple[int, ...], blocks: torch.Tensor) -> torch.Tensor:
    """Copy some blocks out of a canvas.

    Inputs
        canvas: (c, *size), size a multiple of the patch
        blocks: (n_blocks,) indices in the grid
    Outputs
        (n_blocks, n_points, c)
    """
    return read_view(view_blocks(canvas, patch_size), blocks)


def read_view(view: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Copy some blocks, (n_blocks, n_points, c), out of a view (*grid, c, *patch_size), or of a part of each block."""
    grid = view.shape[: view.ndim // 2]
    return rearrange(view[torch.unravel_index(blocks, grid)], "block c ... -> block (...) c")


def write_view_(view: torch.Tensor, blocks: torch.Tensor, values: torch.Tensor) -> None:
    """The inverse of read_view."""
    grid, patch_size = view.shape[: view.ndim // 2], view.shape[view.ndim // 2 + 1 :]
    view[torch.unravel_index(blocks, grid)] = rearrange(values, "block point c -> block c point").unflatten(
        2, patch_size
    )


def block_coords(
    patch_size: tuple[int, ...], scale: int = 1, box: tuple[tuple[int, int], ...] | None = None
) -> torch.Tensor:
    """Centres of the points of a block in its own coordinates, the same for every block.

    Point i of p lies at (2i + 1)/p - 1, so blocks tile the domain without gap or overlap.

    Inputs
        scale: sampling density, points a pixel along each axis
        box: (start, stop) along each axis, the points that are wanted; None for all
    Outputs
        (n_points, d) in (-1, 1), channels in the order of the axes
    """
    axes = []
    for axis, patch in enumerate(patch_size):
        n = patch * scale
        wanted = torch.arange(*(box[axis] if box else (0, n)), dtype=torch.float64)
        axes.append(((2 * wanted + 1) / n - 1).float())
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def true_points(size: tuple[int, ...], patch_size: tuple[int, ...], blocks: torch.Tensor) -> torch.Tensor:
    """Which points of some blocks lie inside the signal, not in its padding: (n_blocks, n_points) bool."""
    grid = grid_shape(size, patch_size)
    inside = torch.ones(len(blocks), *patch_size, dtype=torch.bool, device=blocks.device)
    places = torch.unravel_index(blocks, grid)
    for axis, (place, n_blocks, patch, length) in enumerate(zip(places, grid, patch_size, size, strict=True), 1):
        kept = length - (n_blocks - 1) * patch  # of the last block
        inside.narrow(axis, kept, patch - kept)[place == n_blocks - 1] = False
    return inside.flatten(1)


def runs(numbers: Sequence[int], at_once: int) -> Iterator[tuple[int, int]]:
    """Runs of consecutive numbers among ascending ones, each of at most `at_once`, as (first, last + 1)."""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1 or index - start == at_once:
            yield numbers[start], numbers[index - 1] + 1
            start = index
