"""The pyramid, and the one interpolation between its levels that training and decoding share.

Level j + 1 has size ceil(size of level j / 2). Both directions are aligned by half pixels: pixel i of level j + 1
covers pixels 2i and 2i + 1 of level j.
"""

from collections.abc import Callable

from torch import Tensor

from utils.blocks import pad_to_blocks
from utils.resampling import resample, spline_taps
from utils.windows import Window, whole


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


def source_window(window: Window, factor: int, size: tuple[int, ...]) -> Window:
    """Which window of a coarse level, of this size, a window of `upsample` depends on."""
    return spline_taps(factor).source_window(window, size)


def upsample(pixels: Tensor, factor: int, window: Window, origin: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """`resample` a coarse level by the quadratic B-spline.

    That it smooths is intended: the pixels are a fit with errors of its own, which a sharper kernel would pass on to
    the finer level.
    """
    return resample(pixels, spline_taps(factor), window, origin, size)


def upsample_whole(coarse: Tensor, size: tuple[int, ...]) -> Tensor:
    """A whole level (c, *coarse_size), upsampled to the size of the next finer one."""
    return upsample(coarse, 2, whole(size), (0,) * len(size), tuple(coarse.shape[1:]))


def upsample_window(read: Callable[[Window], Tensor], size: tuple[int, ...], factor: int, crop: Window) -> Tensor:
    """Upsample as much of a coarse level as a crop needs.

    Inputs
        read: returns a window of the coarse level, (c, *window_size)
        size: of the whole coarse level
        crop: (start, stop) of the wanted samples along each axis, counted in upsampled samples
    """
    window = source_window(crop, factor, size)
    return upsample(read(window), factor, crop, tuple(start for start, _ in window), size)
