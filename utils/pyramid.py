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


def source_window(start: int, stop: int, factor: int, size: int) -> tuple[int, int]:
    """The range of coarse samples, of `size` along an axis, that upsampled samples start..stop-1 depend on."""
    return max(0, start // factor - 1), min(size, (stop - 1) // factor + 2)


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
    for axis, (along, first, length) in enumerate(zip(crop, origin, size, strict=True), 1):
        window = _upsample_along(window, axis, factor, along, first, length)
    return window.clamp_(0, 1)  # only rounding can leave the range


def _upsample_along(window: Tensor, axis: int, factor: int, crop: tuple[int, int], origin: int, size: int) -> Tensor:
    """`upsample` along one axis, by slices: every `factor`-th sample has the same weights."""
    start, stop = crop
    first, last = start // factor - 1, (stop - 1) // factor + 1  # of the coarse samples, one beyond an edge included
    low, high = max(first, 0), min(last, size - 1)
    reaches = [(low, high), *[(low, low)] * (first < low), *[(high, high)] * (last > high)]
    parts = [window.narrow(axis, reach[0] - origin, reach[1] - reach[0] + 1) for reach in sorted(reaches)]
    window = torch.cat(parts, axis) if len(parts) > 1 else parts[0]
    out = window.new_empty(*window.shape[:axis], stop - start, *window.shape[axis + 1 :])
    inner = axis == window.ndim - 1
    for begin in range(start, min(start + factor, stop)):
        nearest, phase = begin // factor - first, begin % factor
        wanted = out[(*[slice(None)] * axis, slice(begin - start, None, factor))]
        before, here, after = (window.narrow(axis, nearest + step, wanted.shape[axis]) for step in (-1, 0, 1))
        left, middle, right = _spline_weights(phase, factor)
        total = torch.empty_like(before) if inner else wanted  # with gaps between values, each product would be slow
        torch.mul(before, left, out=total).add_(here, alpha=middle).add_(after, alpha=right)
        if inner:
            wanted.copy_(total)
    return out


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


def _spline_weights(phase: int, factor: int) -> tuple[float, float, float]:
    """Of the coarse samples before, at and after an upsampled sample of index `phase` modulo `factor`.

    The sample lies at (index + 1/2)/factor - 1/2, in coarse samples, so nearest to number index // factor; the kernel
    is the uniform quadratic B-spline (de Boor, A Practical Guide to Splines, ch. IX).
    """
    t = (2 * phase + 1 - factor) / (2 * factor)  # in [-1/2, 1/2)
    return (1 / 2 - t) ** 2 / 2, 3 / 4 - t**2, (1 / 2 + t) ** 2 / 2
