"""The pyramid, and the one interpolation between its levels that training and decoding share.

Level j + 1 has size ceil(size of level j / 2). Both directions are aligned by half pixels: pixel i of level j + 1
covers pixels 2i and 2i + 1 of level j.
"""

from fractions import Fraction

from torch import Tensor

from utils.blocks import pad_to_blocks
from utils.resampling import Taps, lanczos_taps, resample, spline_taps
from utils.windows import whole


def level_size(size: tuple[int, ...], level: int) -> tuple[int, ...]:
    """ceil(size / 2^level)"""
    return tuple(-(-length // 2**level) for length in size)


def downsample(signal: Tensor) -> Tensor:
    """Halve (c, *size) of any type by area averaging, to float32; a last entry without a partner counts twice."""
    halves = pad_to_blocks(signal, (2,) * (signal.ndim - 1)).float()
    for axis in range(1, signal.ndim):
        even, odd = halves.unflatten(axis, (-1, 2)).unbind(axis + 1)
        halves = (even + odd).div_(2)
    return halves


def pyramid(signal: Tensor, n_scales: int) -> list[Tensor]:
    """Levels 0 (the signal itself) to n_scales - 1, each half as large as the one before."""
    levels = [signal]
    for _ in range(n_scales - 1):
        levels.append(downsample(levels[-1]))
    return levels


SMOOTH, SHARP = "spline", "lanczos"
FILLS = (SMOOTH, SHARP)
"""How a coarser level is upsampled where a block has no network. Networks add to the spline, which smooths: what is
below them is a fit with errors of its own, which a sharper kernel would pass on for them to undo. Where there is no
network, nothing undoes the smoothing."""


def upsampling(fill: str, factor: int) -> Taps:
    """What upsamples a coarser level, `factor` samples a pixel, by the name of `FILLS`."""
    return spline_taps(factor) if fill == SMOOTH else lanczos_taps(Fraction(factor))


def upsample_whole(coarse: Tensor, size: tuple[int, ...], fill: str = SMOOTH) -> Tensor:
    """A whole level (c, *coarse_size), upsampled to the size of the next finer one."""
    return resample(coarse, upsampling(fill, 2), whole(size), (0,) * len(size), tuple(coarse.shape[1:]))
