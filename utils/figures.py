"""What a fit does where, as pictures (c, h, w) in [0, 1] or as coordinates."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.frame import Frame
from utils.pyramid import upsample_whole

# Okabe and Ito's palette, which colour-blind readers can distinguish; one colour a level, the finest first.
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


def colours(picture: Tensor) -> Tensor:
    """The channels of (c, ...) that stand for all: the first three, or the first alone."""
    return picture[:3] if len(picture) >= 3 else picture[:1]


def thumbnail(picture: Tensor, longest: int = 1024) -> Tensor:
    """Shrink (c, h, w) by area averaging until no side is longer than `longest`."""
    shrink = max(picture.shape[1:]) / longest
    if shrink <= 1:
        return picture
    return F.interpolate(picture[None], size=[max(1, round(n / shrink)) for n in picture.shape[1:]], mode="area")[0]


def highlight_blocks(
    picture: Tensor, size: tuple[int, int], patch_size: tuple[int, int], grid: Tensor, dim: float = 0.3
) -> Tensor:
    """Dim a picture outside some blocks.

    Inputs
        picture: (c, h, w) of a level, possibly shrunken
        size: (h, w) of the level
        patch_size: (h, w) pixels of a block
        grid: (gh, gw) bool, which blocks
    """
    brightness = torch.where(grid, 1.0, dim)
    for axis in range(2):
        shown = picture.shape[1 + axis]
        centres = (torch.arange(shown).double() + 0.5) * (size[axis] / shown)
        brightness = brightness.index_select(axis, (centres / patch_size[axis]).long())
    return picture * brightness.to(picture.device)


def error_map(reconstruction: Tensor, signal: Tensor, gain: float = 10) -> Tensor:
    """The absolute error of every pixel and channel, magnified, in [0, 1]; shapes alike."""
    return ((reconstruction - signal).abs() * gain).clamp(0, 1)


def signed(values: Tensor, span: float) -> Tensor:
    """Signed values as brightness: grey is 0, black is -span or less, white is span or more."""
    return (0.5 + values / (2 * max(span, 1e-6))).clamp(0, 1)


def level_strip(reconstructions: list[Tensor], signals: list[Tensor]) -> dict[str, Tensor]:
    """Three pictures a level, the coarsest first: its reconstruction, its residual, its prediction.

    The last two share a scale, four times the root mean square of the residual; larger values are clipped. At the
    coarsest level the residual is the signal.

    Inputs
        reconstructions, signals: (c, h, w) of every level, the finest first
    Outputs
        (c, h, w) in [0, 1], by their titles
    """
    panels, base = {}, torch.zeros_like(reconstructions[-1])
    for level, (reconstruction, signal) in reversed(list(enumerate(zip(reconstructions, signals, strict=True)))):
        height, width = signal.shape[1:]
        if level < len(signals) - 1:
            base = upsample_whole(reconstructions[level + 1], (height, width))
        residual = signal - base
        span = min(4 * residual.square().mean().sqrt().item(), 1)
        panels[f"level {level}: reconstruction, {width}x{height}"] = reconstruction
        panels[f"level {level}: residual, ±{span:.2g}"] = signed(residual, span)
        panels[f"level {level}: prediction, ±{span:.2g}"] = signed(reconstruction - base, span)
    return panels


def points_up(source: dict[str, Any], axis: str) -> bool:
    """Whether an axis of a volume, y or z, points up in its slices: in the grid of a mesh, and in a body, where y is
    the front and z the head. A body is known by millimetres."""
    affine, row = source.get("affine"), "xyz".index(axis)
    return "frame" in source or (bool(affine) and "unit" not in source and affine[row][row] > 0)


def slice_picture(volume: Tensor, axis: int, index: int, is_up: bool = True) -> Tensor:
    """A slice of (c, d, h, w) as a picture in which the first of its two axes points up, or down, and the other to the
    right."""
    picture = volume.select(axis + 1, index)
    return picture.flip(1) if is_up else picture


def value_slices(values: Tensor, original: Tensor, source: dict[str, Any], gain: float = 10) -> dict[str, Tensor]:
    """Across each axis, the middle slice of the original, of the fit, and of their error, magnified.

    Black and white are percentiles 1 and 99 of the original; of bytes, 0 and 255. The error is a part of that range.

    Inputs
        values, original: (c, d, h, w) in [0, 1]
        source: of the file that was fitted, as MINER has it: which axes point up, and whether it holds bytes
    Outputs
        (1, h, w) or (3, h, w) slices across z, y and x, by their titles
    """
    values, original = colours(values), colours(original)
    low, high = (0, 1) if source.get("bits") == 8 else np.quantile(original.numpy(), (0.01, 0.99)).tolist()
    if low == high:
        low, high = 0, 1
    panels = {}
    for axis, (name, rows) in enumerate({"z": "y", "y": "z", "x": "z"}.items()):
        index = original.shape[1 + axis] // 2
        truth, fitted = (
            (slice_picture(part, axis, index, points_up(source, rows)) - low) / (high - low)
            for part in (original, values)
        )
        panels[f"{name} = {index}: original"] = truth.clamp(0, 1)
        panels[f"{name} = {index}: fit"] = fitted.clamp(0, 1)
        panels[f"{name} = {index}: error x {gain:g}"] = error_map(fitted, truth, gain)
    return panels


def error_slices(field: Tensor, occupancy: Tensor) -> dict[str, Tensor]:
    """Across each axis, the slice with the most voxels on the wrong side of 1/2.

    Grey is correctly inside, white correctly outside, LEVEL_COLOURS[0] wrongly inside, LEVEL_COLOURS[1] wrongly
    outside.

    Inputs
        field, occupancy: (1, d, h, w)
    Outputs
        (3, h, w) slices across z, y and x, by their titles
    """
    inside, truly = field > 0.5, occupancy > 0.5
    wrong = inside ^ truly
    panels = {}
    for axis, name in enumerate("zyx"):
        across = [other for other in range(4) if other != axis + 1]
        index = int(wrong.sum(dim=across).argmax())
        here, there, error = (slice_picture(part, axis, index)[0] for part in (inside, truly, wrong))
        picture = torch.where(here, 0.7, 1.0).repeat(3, 1, 1)
        picture[:, error & here] = LEVEL_COLOURS[0][:, None]
        picture[:, error & there] = LEVEL_COLOURS[1][:, None]
        panels[f"{name} = {index}: {int(error.sum())} of {error.numel():,} voxels are wrong"] = picture
    return panels


def block_boxes(
    active: dict[int, Tensor], patch_size: tuple[int, ...], size: tuple[int, ...], frame: Frame | None
) -> dict[int, np.ndarray]:
    """The edges of the blocks of a volume that have a network, each once, level by level.

    Inputs
        active: for each level its grid (gd, gh, gw) of bools
        patch_size: (d, h, w) voxels of a block, of its level
        size: (d, h, w) of level 0
        frame: of the volume; None leaves the edges in voxels of level 0
    Outputs
        (n_edges, 2, 3) ends of the edges, x y z
    """
    boxes = {}
    for level, grid in active.items():
        blocks = grid.nonzero()
        starts, axes = [], []
        for axis in range(3):
            for corner in torch.cartesian_prod(*[torch.arange(1 if other == axis else 2) for other in range(3)]):
                starts.append(blocks + corner)
                axes.append(torch.full((len(blocks), 1), axis))
        edges = torch.cat([torch.cat(starts), torch.cat(axes)], dim=1).unique(dim=0)
        start, along = edges[:, :3], F.one_hot(edges[:, 3], 3)
        corners = torch.stack([start, start + along], dim=1) * torch.tensor(patch_size) * 2**level
        voxels = corners.minimum(torch.tensor(size)).double().numpy()[..., ::-1] - 0.5
        boxes[level] = frame.to_mesh(voxels, size[::-1]) if frame else voxels
    return boxes


def draw_blocks(
    picture: Tensor,
    active: dict[int, Tensor],
    patch_size: tuple[int, int],
    corner: tuple[int, int] = (0, 0),
    pixel_size: float = 1,
    top: int = 0,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Outline the blocks that have a network, one colour a level, finer levels over coarser ones.

    The colour around a place is that of the finest level with a network there: the block decomposition of MINER
    (Saragadam et al., ECCV 2022), Fig. 4.

    Inputs
        picture: (c, n_rows, w) in [0, 1], a window of the signal, or some rows of the window
        active: for each level its grid (gh, gw) of bools
        patch_size: (h, w) pixels of a block, of its level
        corner: (y, x) of the window, in pixels of level 0
        pixel_size: pixels of level 0 that a pixel of the picture spans
        top: row of the window at which the picture begins
        size: (h, w) pixels of the window; None if the picture is all of it
    Outputs
        (3, n_rows, w) in [0, 1]
    """
    drawn = colours(picture).expand(3, -1, -1).clone()
    rows = (top, top + picture.shape[1])
    for level, grid in sorted(active.items(), reverse=True):
        block_size = tuple(patch * 2**level for patch in patch_size)
        lines = _block_lines(rows, size or picture.shape[1:], grid, block_size, corner, pixel_size)
        drawn[:, lines] = LEVEL_COLOURS[level % len(LEVEL_COLOURS)].to(drawn)[:, None]
    return drawn


def _block_lines(
    rows: tuple[int, int],
    size: tuple[int, int],
    grid: Tensor,
    block_size: tuple[int, int],
    corner: tuple[int, int],
    pixel_size: float,
) -> Tensor:
    """Which pixels (n_rows, w) outline the blocks that are set in the grid (gh, gw): in a range of rows of a window of
    size (h, w); block_size is in pixels of level 0."""
    width = max(1, min(max(size) // 512, int(min(block_size) / pixel_size / 12)))
    places, starts, ends = [], [], []
    for axis, (start, stop) in enumerate((rows, (0, size[1]))):
        pixel = torch.arange(start, stop)
        centre = corner[axis] + (pixel.double() + 0.5) * pixel_size
        place = (centre / block_size[axis]).long().clamp(max=grid.shape[axis] - 1)
        places.append(place)
        starts.append((centre - place * block_size[axis]) / pixel_size < width)
        ends.append(pixel >= size[axis] - width)
    chosen = grid[places[0]][:, places[1]]
    lines = torch.zeros_like(chosen)
    for axis in range(2):
        before = grid.roll(1, dims=axis)
        before.select(axis, 0).fill_(False)
        at_start = chosen | before[places[0]][:, places[1]]
        lines |= at_start & starts[axis].unsqueeze(1 - axis) | chosen & ends[axis].unsqueeze(1 - axis)
    return lines
