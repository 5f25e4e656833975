"""What one level has to learn: its signal and the upsampled reconstruction of the next coarser one, block by block."""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from utils.blocks import gather_blocks, grid_shape, pad_to_blocks, true_points
from utils.metrics import Metric

_BLOCKS_AT_ONCE = 1024


@dataclass(frozen=True)
class LevelTarget:
    """
    size: of the level, without padding
    patch_size: pixels of a block along each axis
    residual: the target is signal - base, else the signal itself
    signal: (c, *canvas) the level's signal, edge-replicated to whole blocks; bytes where it is 0 or 1
    base: (c, *canvas) the upsampled coarser reconstruction, likewise; zero at the coarsest level
    active: (n_active,) ascending indices of the blocks that get a network
    amplitude: (n_active,) largest absolute target of each active block
    base_sums: (n_grid, 2) the metric's sums of the base over the true points of every block
    """

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    residual: bool
    signal: Tensor
    base: Tensor
    active: Tensor
    amplitude: Tensor
    base_sums: Tensor

    def to(self, device: torch.device) -> "LevelTarget":
        """With signal, base and active blocks on a device, where blocks are then gathered."""
        moved = {name: getattr(self, name).to(device) for name in ("signal", "base", "active")}
        return replace(self, **moved)

    def gather(self, active_rows: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and base of some active blocks, each (n_blocks, n_points, c)."""
        return _gather(self.signal, self.base, self.patch_size, self.active[active_rows])

    def wanted(self, active_rows: Tensor) -> Tensor:
        """What the networks of some active blocks have to predict, (n_blocks, n_points, c)."""
        signal, base = self.gather(active_rows)
        return signal - base if self.residual else signal

    def true_points(self, active_rows: Tensor) -> Tensor:
        """Which points of some active blocks are no padding: (n_blocks, n_points) bool."""
        return true_points(self.size, self.patch_size, self.active[active_rows])


def coarsest_target(signal: Tensor, patch_size: tuple[int, ...], metric: Metric) -> LevelTarget:
    """The coarsest level: every block is active and learns the signal itself.

    Inputs
        signal: (c, *size) in [0, 1]
        metric: that `base_sums` is of
    """
    base = torch.zeros_like(signal, dtype=torch.float32)
    return finer_target(signal, base, patch_size, metric, loss_thr=-1, residual=False)


def finer_target(
    signal: Tensor, base: Tensor, patch_size: tuple[int, ...], metric: Metric, loss_thr: float, residual: bool
) -> LevelTarget:
    """A finer level: a block is active iff the mean square of its residual, signal - base, is above loss_thr.

    Inputs
        signal: (c, *size) in [0, 1]
        base: (c, *size) the upsampled reconstruction of the next coarser level
        metric: that `base_sums` is of
        loss_thr: mean square, in squared units of the signal
        residual: active blocks learn the residual (laplacian pyramid), else the signal (gaussian pyramid)
    """
    size = tuple(signal.shape[1:])
    signal, base = pad_to_blocks(signal, patch_size), pad_to_blocks(base, patch_size)
    mean_square, largest, sums = [], [], []
    for blocks in torch.arange(prod(grid_shape(size, patch_size))).split(_BLOCKS_AT_ONCE):
        signal_blocks, base_blocks = _gather(signal, base, patch_size, blocks)
        difference = (signal_blocks - base_blocks).flatten(1)
        mean_square.append(difference.square().mean(1))
        largest.append(difference.abs().amax(1))
        sums.append(metric.sums(base_blocks, signal_blocks, true_points(size, patch_size, blocks)))
    active = (~(torch.cat(mean_square) <= loss_thr)).nonzero().squeeze(1)  # what is not a number is not fitted
    return LevelTarget(size, patch_size, residual, signal, base, active, torch.cat(largest)[active], torch.cat(sums))


def _gather(signal: Tensor, base: Tensor, patch_size: tuple[int, ...], blocks: Tensor) -> tuple[Tensor, Tensor]:
    """A volume stays bytes until here: only the blocks at hand are floats."""
    return gather_blocks(signal, patch_size, blocks).float(), gather_blocks(base, patch_size, blocks)
