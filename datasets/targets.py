"""What one level has to learn: its signal and the upsampled reconstruction of the next coarser one, block by block.

Notation: a *band* is the blocks at one place along axis 0; what a range of bands needs is read together, so that a
level need not be in memory. The *base* is the reconstruction of the next coarser level, upsampled.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from utils.allocation import cosine_errors
from utils.blocks import gather_blocks, grid_shape, pad_to_blocks, runs, true_points
from utils.bounds import with_bounds
from utils.metrics import Metric
from utils.pyramid import SMOOTH, upsampling
from utils.ranks import Ranks
from utils.raster import Raster, as_values
from utils.resampling import resample_window
from utils.windows import Window, rows_at_once, size_of, whole

_VALUES_AT_ONCE = 2**18  # of blocks that are judged together: few enough for the cache


@dataclass(frozen=True)
class LevelTarget:
    """
    signal: of the level
    coarse: the reconstruction of the next coarser level; None at the coarsest
    patch_size: pixels of a block along each axis
    residual: the target is signal - base, else the signal itself
    fill: how blocks without a network show the coarser level, of `utils.pyramid.FILLS`
    is_clipped: where the signal is 0 or 1, the target is a bound (`utils.bounds`)
    """

    signal: Raster
    coarse: Raster | None
    patch_size: tuple[int, ...]
    residual: bool
    fill: str = SMOOTH
    is_clipped: bool = False

    @property
    def grid(self) -> tuple[int, ...]:
        return grid_shape(self.signal.size, self.patch_size)

    def base(self, window: Window) -> Tensor:
        """The upsampled coarser reconstruction in a window, (c, *[stop - start]); zero at the coarsest level."""
        return self._upsampled(window, SMOOTH)

    def filled(self, window: Window) -> Tensor | None:
        """The same, as blocks without a network show it; None where that is the base."""
        return None if self.coarse is None or self.fill == SMOOTH else self._upsampled(window, self.fill)

    def _upsampled(self, window: Window, fill: str) -> Tensor:
        if self.coarse is None:
            return torch.zeros(self.signal.n_channels, *size_of(window))
        return resample_window(self.coarse.read, self.coarse.size, upsampling(fill, 2), window)

    def wanted(self, signal: Tensor, base: Tensor) -> Tensor:
        """What networks have to predict where the signal and the base are these."""
        target = signal - base if self.residual else signal
        return with_bounds(target, signal) if self.is_clipped else target

    def survey(self, metric: Metric, loss_thr: float, bands: range) -> "Survey":
        """Which blocks of some bands get a network: those whose mean square error would be above loss_thr without one.

        Inputs
            metric: whose sums `base_sums` are
            loss_thr: in squared units of the signal; at the coarsest level every block gets a network
        """
        n_blocks = len(bands) * prod(self.grid[1:])
        # filled in place: small results between large temporary ones would keep the memory of these from the system
        mean_square, amplitude, base_sums = torch.empty(n_blocks), torch.empty(n_blocks), torch.empty(n_blocks, 2)
        for place, blocks, signal, shown in self._judged(bands, (SMOOTH, self.fill)):
            base, fill = shown[SMOOTH], shown[self.fill]
            mean_square[place] = (signal - fill).flatten(1).square().mean(1)
            amplitude[place] = (signal - base).flatten(1).abs().amax(1)
            base_sums[place] = metric.sums(fill, signal, true_points(self.signal.size, self.patch_size, blocks))
        threshold = -1 if self.coarse is None else loss_thr
        return Survey(~(mean_square <= threshold), amplitude, base_sums)  # so that NaN counts as above it

    def detail(self, counts: Tensor, bands: range) -> tuple[Tensor, Tensor]:
        """How hard the blocks of some bands are: what their largest cosines leave, and what showing the base leaves.

        Inputs
            counts: (k,) numbers of cosines
        Outputs
            (n_blocks, k) and (n_blocks,) mean square errors
        """
        n_blocks = len(bands) * prod(self.grid[1:])
        left, missed = torch.empty(n_blocks, len(counts)), torch.empty(n_blocks)
        for place, _, signal, shown in self._judged(bands, (self.fill,)):
            left[place] = cosine_errors(signal, self.patch_size, counts)
            missed[place] = (signal - shown[self.fill]).double().flatten(1).square().mean(1).float()
        return left, missed

    def _judged(
        self, bands: range, fills: tuple[str, ...]
    ) -> Iterator[tuple[slice, Tensor, Tensor, dict[str, Tensor]]]:
        """The blocks of some bands, a few at a time: their place among these, their indices in the grid, and
        (n_blocks, n_points, c) their signal, and the coarser level as each of these fills shows it."""
        first = bands.start * prod(self.grid[1:])
        at_once = max(1, _VALUES_AT_ONCE // (prod(self.patch_size) * self.signal.n_channels))
        for blocks, window in self._bands(bands):
            signal = self._canvas(self.signal.part(window))
            canvases = {fill: self._canvas(self._upsampled(window, fill)) for fill in dict.fromkeys(fills)}
            for some in torch.arange(len(blocks)).split(at_once):
                shown = {fill: gather_blocks(canvas, self.patch_size, some) for fill, canvas in canvases.items()}
                signal_blocks = as_values(gather_blocks(signal, self.patch_size, some), self.signal.unit)
                place = slice(blocks[some[0]] - first, blocks[some[-1]] - first + 1)
                yield place, some + blocks[0], signal_blocks, shown

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
        for some, window in self._bands(places.unique().tolist()):
            last = first + int((blocks[first:] <= some[-1]).sum())
            within = blocks[first:last] - some[0]
            signal[first:last] = gather_blocks(self._canvas(self.signal.part(window)), self.patch_size, within)
            base[first:last] = gather_blocks(self._canvas(self.base(window)), self.patch_size, within)
            first = last
        return BlockTarget(self, blocks, signal, base)

    def _canvas(self, values: Tensor) -> Tensor:
        """Values (c, *size) of a window, padded to whole blocks."""
        return pad_to_blocks(values, self.patch_size)

    def _bands(self, bands: range | list[int]) -> Iterator[tuple[range, Window]]:
        """Some bands, a few at a time: their blocks, and where they lie."""
        patch, rest = self.patch_size[0], whole(self.signal.size[1:])
        per_band = prod(self.grid[1:])
        at_once = rows_at_once(self.signal.n_channels, self.signal.size, patch) // patch
        for first, last in runs(bands, at_once):
            window = ((first * patch, min(last * patch, self.signal.size[0])), *rest)
            yield range(first * per_band, last * per_band), window


@dataclass(frozen=True)
class Survey:
    """What is known of a range of blocks before they are fitted.

    active: (n_blocks,) bool, which get a network
    amplitude: (n_blocks,) largest absolute value of signal - base
    base_sums: (n_blocks, 2) the metric's sums over the true points, without a network
    """

    active: Tensor
    amplitude: Tensor
    base_sums: Tensor


@dataclass(frozen=True)
class BlockTarget:
    """The target of some blocks, in memory.

    level: to which the blocks belong
    blocks: (n_blocks,) ascending indices in the grid
    signal: (n_blocks, n_points, c) as stored, or float32 on a GPU
    base: (n_blocks, n_points, c) float32
    """

    level: LevelTarget
    blocks: Tensor
    signal: Tensor
    base: Tensor

    def deal(self, ranks: Ranks, n_blocks: int) -> "BlockTarget":
        """The blocks dealt out one by one, where each process held its share of `n_blocks` (`Ranks.deal`)."""
        dealt = (ranks.deal(entries, n_blocks) for entries in (self.blocks, self.signal, self.base))
        return BlockTarget(self.level, *dealt)

    def to(self, device: torch.device) -> "BlockTarget":
        if device.type == "cpu":
            return self
        signal = self.signal.float()  # GPUs have few operations on 16-bit integers
        return replace(self, blocks=self.blocks.to(device), signal=signal.to(device), base=self.base.to(device))

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and base of some of the blocks, (n_index, n_points, c) each."""
        return as_values(self.signal[index], self.level.signal.unit), self.base[index]

    def wanted(self, index: Tensor) -> Tensor:
        """What the networks of some of the blocks have to predict, (n_index, n_points, c)."""
        signal, base = self.gather(index)
        return self.level.wanted(signal, base)

    def true_points(self, index: Tensor) -> Tensor:
        """Which of their points are not padding: (n_index, n_points) bool."""
        return true_points(self.level.signal.size, self.level.patch_size, self.blocks[index])
