"""The pyramid, and the one interpolation that training and decoding share.

Level j + 1 has size ceil(size of level j / 2). Both directions are aligned by half pixels: pixel i of level j + 1
covers pixels 2i and 2i + 1 of level j.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from utils.blocks import pad_to_blocks
from utils.windows import Window, whole


def level_size(size: tuple[int, ...], level: int) -> tuple[int, ...]:
    """ceil(size / 2^level)"""
    return tuple(-(-length // 2**level) for length in size)


def downsample(signal: Tensor) -> Tensor:
    """Halve (c, *size) of any type by area averaging, to float32; a last entry without a partner counts twice."""
    halves = pad_to_blocks(signal, (2,) * (signal.ndim - 1))
    for axis in range(1, signal.ndim):
        halves = halves.unflatten(axis, (-1, 2)).mean(axis + 1, dtype=torch.float32)
    return halves


def pyramid(signal: Tensor, n_scales: int) -> list[Tensor]:
    """Levels 0 (the signal itself) to n_scales - 1, each half as large as the one before."""
    levels = [signal]
    for _ in range(n_scales - 1):
        levels.append(downsample(levels[-1]))
    return levels


def source_window(start: int, stop: int, factor: int, size: int) -> tuple[int, int]:
    """The range of coarse samples, of `size` along an axis, that upsampled samples start..stop-1 depend on."""
    taps, _ = _spline_taps(torch.tensor([start, stop - 1]), factor, size)
    return int(taps.min()), int(taps.max()) + 1


def upsample(window: Tensor, factor: int, crop: Window, origin: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """Quadratic B-spline interpolation, `factor` samples for each coarse one, aligned by half pixels, edges replicated.

    The spline smooths: it passes near the samples, not through them, and stays in their range. That is intended:
    the samples are a fit with errors of its own, which a sharper kernel would pass on to the finer level.

    Positions are reduced in integers, so a sample has the same bits in whichever window it is computed.

    Inputs
        window: (c, *window_size) the coarse samples that `source_window` names for the crop
        crop: (start, stop) of the wanted samples along each axis, counted in upsampled samples
        origin: coarse index of the window's first sample along each axis
        size: coarse size of the whole signal
    Outputs
        (c, *[stop - start]) in [0, 1], as the samples are
    """
    for axis, (start, stop) in enumerate(crop):
        taps, weights = _spline_taps(torch.arange(start, stop), factor, size[axis])
        taps = (taps - origin[axis]).to(window.device)
        weights = weights.to(window).view(len(weights), -1, *[1] * (window.ndim - axis - 2))
        total = _select(window, axis + 1, taps[0]).mul_(weights[0])
        for tap, weight in zip(taps[1:], weights[1:], strict=True):
            total.addcmul_(_select(window, axis + 1, tap), weight)
        window = total
    return window.clamp_(0, 1)  # only rounding can leave the range


def _select(values: Tensor, axis: int, index: Tensor) -> Tensor:
    """`index_select`, but along the last axis `gather`, which is several times as fast there."""
    if axis == values.ndim - 1:
        return values.gather(axis, index.expand(*values.shape[:-1], -1))
    return values.index_select(axis, index)


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
    window = tuple(source_window(start, stop, factor, length) for (start, stop), length in zip(crop, size, strict=True))
    return upsample(read(window), factor, crop, tuple(start for start, _ in window), size)


def _spline_taps(index: Tensor, factor: int, size: int) -> tuple[Tensor, Tensor]:
    """The coarse samples that each upsampled one is made of, and their weights.

    An upsampled sample lies at (index + 1/2)/factor - 1/2, in coarse samples; the kernel is the uniform quadratic
    B-spline (de Boor, A Practical Guide to Splines, ch. IX).

    Inputs
        index: (n,)
    Outputs
        (3, n) coarse indices, (3, n) weights in double precision
    """
    numerator = 2 * index + 1 - factor  # of the position, over 2 * factor
    nearest = torch.div(numerator + factor, 2 * factor, rounding_mode="floor")
    t = (numerator - 2 * factor * nearest).double() / (2 * factor)  # in [-1/2, 1/2)
    taps = torch.stack([nearest - 1, nearest, nearest + 1]).clamp(0, size - 1)
    return taps, torch.stack([(1 / 2 - t) ** 2 / 2, 3 / 4 - t**2, (1 / 2 + t) ** 2 / 2])
