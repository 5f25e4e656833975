"""What one level has to learn: its signal and the upsampled reconstruction of the next coarser one, block by block.

Notation: a *layer* is the blocks at one place along axis 0; what a range of layers needs is read together, so that a
level need not be in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from utils.blocks import gather_blocks, grid_shape, pad_to_blocks, runs, true_points
from utils.metrics import Metric
from utils.pyramid import upsample_window
from utils.ranks import Ranks
from utils.raster import Raster, Window, as_values, rows_at_once, whole

_BLOCKS_AT_ONCE = 1024


@dataclass(frozen=True)
class LevelTarget:
    """
    signal: of the level
    coarse: the reconstruction of the next coarser level; None at the coarsest
    patch_size: pixels of a block along each axis
    residual: the target is signal - base, else the signal itself
    """

    signal: Raster
    coarse: Raster | None
    patch_size: tuple[int, ...]
    residual: bool

    @property
    def grid(self) -> tuple[int, ...]:
        return grid_shape(self.signal.size, self.patch_size)

    def base(self, window: Window) -> Tensor:
        """The upsampled coarser reconstruction in a window, (c, *[stop - start]); zero at the coarsest level."""
        if self.coarse is None:
            return torch.zeros(self.signal.n_channels, *[stop - start for start, stop in window])
        return upsample_window(self.coarse.read, self.coarse.size, 2, window)

    def survey(self, metric: Metric, loss_thr: float, layers: range) -> "Survey":
        """Which blocks of some layers get a network: those whose mean square of signal - base is above loss_thr.

        Inputs
            metric: that `base_sums` is of
            loss_thr: in squared units of the signal; at the coarsest level every block gets a network
        """
        per_layer = prod(self.grid[1:])
        first, n_blocks = layers.start * per_layer, len(layers) * per_layer
        # in place: small results between large intermediate ones would keep these from going back to the system
        mean_square, amplitude, base_sums = torch.empty(n_blocks), torch.empty(n_blocks), torch.empty(n_blocks, 2)
        for blocks, signal, base in self._layers(layers):
            for some in torch.arange(len(blocks)).split(_BLOCKS_AT_ONCE):
                base_blocks = gather_blocks(base, self.patch_size, some)
                signal_blocks = as_values(gather_blocks(signal, self.patch_size, some), self.signal.unit)
                difference = (signal_blocks - base_blocks).flatten(1)
                rows = slice(blocks[some[0]] - first, blocks[some[-1]] - first + 1)
                mean_square[rows] = difference.square().mean(1)
                amplitude[rows] = difference.abs().amax(1)
                true = true_points(self.signal.size, self.patch_size, some + blocks[0])
                base_sums[rows] = metric.sums(base_blocks, signal_blocks, true)
        threshold = -1 if self.coarse is None else loss_thr
        return Survey(~(mean_square <= threshold), amplitude, base_sums)  # what is not a number is not fitted

    def gather(self, blocks: Tensor) -> "BlockTarget":
        """The target of some blocks, copied.

        Inputs
            blocks: (n_blocks,) ascending indices in the grid
        """
        shape = (len(blocks), prod(self.patch_size), self.signal.n_channels)
        signal = torch.empty(shape, dtype=self.signal.numbers.dtype)
        base = torch.empty(shape)
        places = torch.div(blocks, prod(self.grid[1:]), rounding_mode="floor")
        first = 0
        for some, signal_canvas, base_canvas in self._layers(places.unique().tolist()):
            last = first + int((blocks[first:] <= some[-1]).sum())
            within = blocks[first:last] - some[0]
            signal[first:last] = gather_blocks(signal_canvas, self.patch_size, within)
            base[first:last] = gather_blocks(base_canvas, self.patch_size, within)
            first = last
        return BlockTarget(self, blocks, signal, base)

    def _layers(self, layers: range | list[int]) -> Iterator[tuple[range, Tensor, Tensor]]:
        """Some layers, a few at a time: their blocks, and the canvases (c, *size) of their signal, as it is kept, and
        base."""
        patch, rest = self.patch_size[0], whole(self.signal.size[1:])
        per_layer = prod(self.grid[1:])
        at_once = rows_at_once(self.signal.n_channels, self.signal.size, patch) // patch
        for first, last in runs(layers, at_once):
            window = ((first * patch, min(last * patch, self.signal.size[0])), *rest)
            yield (
                range(first * per_layer, last * per_layer),
                pad_to_blocks(self.signal.part(window), self.patch_size),
                pad_to_blocks(self.base(window), self.patch_size),
            )


@dataclass(frozen=True)
class Survey:
    """Of a range of blocks

    active: (n_blocks,) bool, which get a network
    amplitude: (n_blocks,) largest absolute value of signal - base
    base_sums: (n_blocks, 2) the metric's sums of the base over the true points
    """

    active: Tensor
    amplitude: Tensor
    base_sums: Tensor


@dataclass(frozen=True)
class BlockTarget:
    """The target of some blocks, in memory.

    level: whose blocks they are
    blocks: (n_blocks,) ascending indices in the grid
    signal: (n_blocks, n_points, c) as it is kept, float32 on a device
    base: (n_blocks, n_points, c) float32
    """

    level: LevelTarget
    blocks: Tensor
    signal: Tensor
    base: Tensor

    def deal(self, ranks: Ranks, n_blocks: int) -> "BlockTarget":
        """Each process's share of so many blocks (`Ranks.share_of`) dealt out one by one."""
        dealt = (ranks.deal(rows, n_blocks) for rows in (self.blocks, self.signal, self.base))
        return BlockTarget(self.level, *dealt)

    def to(self, device: torch.device) -> "BlockTarget":
        if device.type == "cpu":
            return self
        signal = self.signal.float()  # few operations on a device know 16-bit whole numbers
        return replace(self, blocks=self.blocks.to(device), signal=signal.to(device), base=self.base.to(device))

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and base of some of the blocks, (n_rows, n_points, c) each."""
        return as_values(self.signal[rows], self.level.signal.unit), self.base[rows]

    def wanted(self, rows: Tensor) -> Tensor:
        """What the networks of some of the blocks have to predict, (n_rows, n_points, c)."""
        signal, base = self.gather(rows)
        return signal - base if self.level.residual else signal

    def true_points(self, rows: Tensor) -> Tensor:
        """Which of their points are no padding: (n_rows, n_points) bool."""
        return true_points(self.level.signal.size, self.level.patch_size, self.blocks[rows])
