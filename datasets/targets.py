"""What one level has to learn: its signal and the upsampled reconstruction of the next coarser one, block by block."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from utils.blocks import gather_blocks, pad_to_blocks, true_points, view_blocks
from utils.metrics import n_colours


@dataclass(frozen=True)
class LevelTarget:
    """
    size: of the level, without padding
    patch_size: pixels of a block along each axis
    residual: the target is signal - base, else the signal itself
    signal: (c, *canvas) the level's signal, edge-replicated to whole blocks
    base: (c, *canvas) the upsampled coarser reconstruction, likewise; zero at the coarsest level
    active: (n_active,) ascending indices of the blocks that get a network
    amplitude: (n_active,) largest absolute target of each active block
    base_sse: (n_grid,) squared error of the base over the true pixels and colour channels of every block
    """

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    residual: bool
    signal: Tensor
    base: Tensor
    active: Tensor
    amplitude: Tensor
    base_sse: Tensor

    def gather(self, active_rows: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and base of some active blocks, each (n_blocks, n_points, c)."""
        blocks = self.active[active_rows]
        return gather_blocks(self.signal, self.patch_size, blocks), gather_blocks(self.base, self.patch_size, blocks)

    def points_major(self, active_rows: Tensor) -> Tensor:
        """Target of some active blocks, (n_points, n_blocks, c): a batch of positions is then one gather of rows."""
        signal, base = self.gather(active_rows)
        target = signal - base if self.residual else signal
        return rearrange(target, "block point c -> point block c").contiguous()

    def true_points(self, active_rows: Tensor) -> Tensor:
        """Which points of some active blocks are no padding: (n_blocks, n_points) bool."""
        return true_points(self.size, self.patch_size, self.active[active_rows])


def coarsest_target(signal: Tensor, patch_size: tuple[int, ...]) -> LevelTarget:
    """The coarsest level: every block is active and learns the signal itself.

    Inputs
        signal: (c, *size) in [0, 1]
    """
    return _make_target(signal, torch.zeros_like(signal), patch_size, loss_thr=None, residual=False)


def finer_target(
    signal: Tensor, base: Tensor, patch_size: tuple[int, ...], loss_thr: float, residual: bool
) -> LevelTarget:
    """A finer level: a block is active iff the mean square of its residual, signal - base, is above loss_thr.

    Inputs
        signal: (c, *size) in [0, 1]
        base: (c, *size) the upsampled reconstruction of the next coarser level
        loss_thr: mean square, in squared units of the signal
        residual: active blocks learn the residual (laplacian pyramid), else the signal (gaussian pyramid)
    """
    return _make_target(signal, base, patch_size, loss_thr, residual)


def _make_target(
    signal: Tensor, base: Tensor, patch_size: tuple[int, ...], loss_thr: float | None, residual: bool
) -> LevelTarget:
    size = tuple(signal.shape[1:])
    canvas, base_canvas = pad_to_blocks(signal, patch_size), pad_to_blocks(base, patch_size)
    n_dims = len(size)
    difference = (
        view_blocks(canvas - base_canvas, patch_size).flatten(n_dims).flatten(0, n_dims - 1)
    )  # (n_grid, values)
    mean_square = difference.square().mean(1)
    chosen = mean_square > loss_thr if loss_thr is not None else torch.ones_like(mean_square, dtype=torch.bool)
    active = chosen.nonzero().squeeze(1)

    error = (signal - base)[: n_colours(len(signal))].square()
    error = view_blocks(pad_to_blocks(error, patch_size, mode="constant"), patch_size).flatten(n_dims)
    return LevelTarget(
        size=size,
        patch_size=patch_size,
        residual=residual,
        signal=canvas,
        base=base_canvas,
        active=active,
        amplitude=difference[active].abs().amax(1),
        base_sse=error.sum(n_dims, dtype=torch.float64).flatten(),
    )
