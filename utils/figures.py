"""Pictures of what a fit does where."""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.blocks import grid_shape

# Okabe and Ito's palette, told apart by colour-blind readers too; one colour a level, the finest first.
LEVEL_COLOURS = torch.tensor(
    [
        [213, 94, 0],
        [0, 114, 178],
        [0, 158, 115],
        [240, 228, 66],
        [204, 121, 167],
        [86, 180, 233],
        [230, 159, 0],
    ]
).div(255)


def thumbnail(picture: Tensor, longest: int = 1024) -> Tensor:
    """Shrink (c, h, w) by area averaging until no side is longer than `longest`."""
    shrink = max(picture.shape[1:]) / longest
    if shrink <= 1:
        return picture
    return F.interpolate(picture[None], size=[max(1, round(n / shrink)) for n in picture.shape[1:]], mode="area")[0]


def highlight_blocks(picture: Tensor, patch_size: tuple[int, ...], blocks: Tensor, dim: float = 0.3) -> Tensor:
    """Dim a picture (c, *size) everywhere but in some blocks, given by their indices (n_blocks,) in its grid."""
    size = picture.shape[1:]
    brightness = torch.full(grid_shape(size, patch_size), dim)
    brightness.view(-1)[blocks] = 1
    for axis, (length, patch) in enumerate(zip(size, patch_size, strict=True)):
        brightness = brightness.index_select(axis, torch.arange(length) // patch)
    return picture * brightness.to(picture.device)


def draw_blocks(
    picture: Tensor,
    active: dict[int, Tensor],
    patch_size: tuple[int, int],
    corner: tuple[int, int] = (0, 0),
    pixel_size: float = 1,
) -> Tensor:
    """Outline the blocks that have a network, one colour a level, coarser levels over finer ones.

    The block decomposition of MINER (Saragadam et al., ECCV 2022), Fig. 4.

    Inputs
        picture: (c, h, w) in [0, 1], a window of the signal
        active: for each level its grid (gh, gw) of bools
        patch_size: (h, w) pixels of a block, of its level
        corner: (y, x) of the window, in pixels of level 0
        pixel_size: pixels of level 0 that a pixel of the picture spans
    Outputs
        (3, h, w) in [0, 1]
    """
    drawn = (picture[:3] if len(picture) >= 3 else picture[:1].expand(3, -1, -1)).clone()
    for level, grid in sorted(active.items()):
        block_size = tuple(patch * 2**level for patch in patch_size)
        lines = _block_lines(picture.shape[1:], grid, block_size, corner, pixel_size)
        drawn[:, lines] = LEVEL_COLOURS[level % len(LEVEL_COLOURS)].to(drawn)[:, None]
    return drawn


def _block_lines(
    size: tuple[int, int], grid: Tensor, block_size: tuple[int, int], corner: tuple[int, int], pixel_size: float
) -> Tensor:
    """Where (h, w) the first or last pixels of a block that is set in the grid (gh, gw) lie; block_size of level 0."""
    width = max(1, max(size) // 1024)
    lines = torch.zeros(size, dtype=torch.bool)
    places, starts = [], []
    for axis in range(2):
        centre = corner[axis] + (torch.arange(size[axis]).double() + 0.5) * pixel_size
        place = (centre / block_size[axis]).long().clamp(max=grid.shape[axis] - 1)
        places.append(place)
        starts.append((centre - place * block_size[axis]) / pixel_size < width)
    chosen = grid[places[0]][:, places[1]]
    for axis in range(2):
        before = grid.roll(1, dims=axis)
        before.select(axis, 0).fill_(False)
        at_start = chosen | before[places[0]][:, places[1]]
        lines |= at_start & starts[axis].unsqueeze(1 - axis)
        far_edge = chosen.narrow(axis, max(0, size[axis] - width), min(width, size[axis]))
        lines.narrow(axis, max(0, size[axis] - width), min(width, size[axis])).logical_or_(far_edge)
    return lines
