"""Other samples of a signal: between its pixels, or areas of them; and in windows, with the bits of the whole.

Sample i lies at (i + 1/2) / scale - 1/2, in pixels, so pixels and samples are aligned by their edges. An axis is
resampled at a time, and what lies beyond an edge is the pixel at the edge.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import torch
from torch import Tensor

from utils.windows import Window

_APERTURE = 0.85
_SPLINE_RADIUS = 8  # beyond it, less than 1/1000 of a pixel counts


@dataclass(frozen=True)
class Taps:
    """Which pixels a sample is made of.

    scale: samples a pixel; n of its numerator take up as many pixels as its denominator, and then weights repeat
    count: pixels of a sample, the same for all
    first: the first pixel of a sample, which may lie beyond an edge
    weights: (count,) of the pixels of a sample
    """

    scale: Fraction
    count: int
    first: Callable[[int], int]
    weights: Callable[[int], Sequence[float]]

    def source(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """The range of pixels, of `size` along an axis, that samples start..stop-1 depend on."""
        first, last = self.first(start), self.first(stop - 1) + self.count - 1
        return min(max(first, 0), size - 1), max(min(last, size - 1), 0) + 1

    def source_window(self, window: Window, size: tuple[int, ...]) -> Window:
        """`source` along each axis."""
        return tuple(self.source(*along, length) for along, length in zip(window, size, strict=True))


def resample(pixels: Tensor, taps: Taps, window: Window, origin: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """Samples of a signal in a window; a sample has the same bits in whichever window it is computed.

    Inputs
        pixels: (c, *) those that `Taps.source_window` names for the window
        window: of the wanted samples, counted in samples
        origin: index of the first of the pixels along each axis
        size: of the whole signal, in pixels
    Outputs
        (c, *[stop - start]) in [0, 1], as the pixels are
    """
    for axis, (along, first, length) in enumerate(zip(window, origin, size, strict=True), 1):
        pixels = _resample_along(pixels, axis, taps, along, first, length)
    return pixels.clamp_(0, 1)


def resample_window(read: Callable[[Window], Tensor], size: tuple[int, ...], taps: Taps, window: Window) -> Tensor:
    """`resample`, of as many pixels as the window needs.

    Inputs
        read: returns a window of the pixels, (c, *window_size)
        size: of all of them
    """
    reach = taps.source_window(window, size)
    return resample(read(reach), taps, window, tuple(start for start, _ in reach), size)


def _resample_along(pixels: Tensor, axis: int, taps: Taps, window: tuple[int, int], origin: int, size: int) -> Tensor:
    """`resample` along one axis, by slices: every so many samples have the same weights."""
    start, stop = window
    period, step = taps.scale.numerator, taps.scale.denominator
    first, last = taps.first(start), taps.first(stop - 1) + taps.count - 1
    if first < 0 or last >= size:
        places = torch.arange(first, last + 1, device=pixels.device).clamp_(0, size - 1) - origin
        pixels = pixels.index_select(axis, places)
    else:
        pixels = pixels.narrow(axis, first - origin, last + 1 - first)
    out = pixels.new_empty(*pixels.shape[:axis], stop - start, *pixels.shape[axis + 1 :])
    inner = axis == pixels.ndim - 1
    for begin in range(start, min(start + period, stop)):
        wanted = out[(*[slice(None)] * axis, slice(begin - start, None, period))]
        nearest, reach = taps.first(begin) - first, (wanted.shape[axis] - 1) * step + 1
        total = (
            torch.empty(wanted.shape, device=out.device) if inner else wanted
        )  # products of values with gaps are slow
        for index, weight in enumerate(taps.weights(begin)):
            part = pixels.narrow(axis, nearest + index, reach)[(*[slice(None)] * axis, slice(None, None, step))]
            if index:
                total.add_(part, alpha=weight)
            else:
                torch.mul(part, weight, out=total)
        if inner:
            wanted.copy_(total)
    return out


@cache
def spline_taps(factor: int) -> Taps:
    """The uniform quadratic B-spline (de Boor, A Practical Guide to Splines, ch. IX): it smooths, so it passes near the
    pixels and not through them, and stays in their range."""

    def weights(sample: int) -> tuple[float, ...]:
        t = (2 * (sample % factor) + 1 - factor) / (2 * factor)  # from the nearest pixel, in [-1/2, 1/2)
        return (1 / 2 - t) ** 2 / 2, 3 / 4 - t**2, (1 / 2 + t) ** 2 / 2

    return Taps(Fraction(factor), 3, lambda sample: sample // factor - 1, weights)


def area_taps(scale: Fraction) -> Taps:
    """Averages over the area that a sample covers, for a scale of at most 1."""
    n, d = scale.as_integer_ratio()  # a sample covers d/n pixels
    count = -(-d // n) + 1

    def weights(sample: int) -> list[float]:
        low, high = sample * d, (sample + 1) * d  # in pixels, times n
        pixels = range(low // n, low // n + count)
        return [max(0, min(high, (pixel + 1) * n) - max(low, pixel * n)) / d for pixel in pixels]

    return Taps(scale, count, lambda sample: sample * d // n, weights)


def lanczos_taps(scale: Fraction) -> Taps:
    """Lanczos' kernel of radius 3, sinc(x) sinc(x/3): it passes through the pixels (Duchon, Lanczos Filtering in One
    and Two Dimensions, Journal of Applied Meteorology 18, 1979)."""
    return _kernel_taps(scale, 3, lambda x: _sinc(x) * _sinc(x / 3) if abs(x) < 3 else 0.0)


def sharp_taps(scale: Fraction) -> Taps:
    """The cubic spline whose mean around a pixel's centre is the pixel: a pixel is a mean over an area, not a point.

    Over the whole of each pixel this is the histospline (Unser, Splines: A Perfect Fit for Signal and Image Processing,
    IEEE Signal Processing Magazine 16(6), 1999); over 0.85 of it, it rings less and is nearer to larger pictures.
    """
    filtered, middle = _prefilter()

    def kernel(x: float) -> float:
        near = range(max(0, math.ceil(x - 2) + middle), min(len(filtered), math.floor(x + 2) + middle + 1))
        return sum(filtered[index] * float(_cubic(x - (index - middle))) for index in near)

    return _kernel_taps(scale, _SPLINE_RADIUS, kernel)


def _kernel_taps(scale: Fraction, radius: int, kernel: Callable[[float], float]) -> Taps:
    """Of a kernel of the distance in pixels, which is 0 from a radius on."""
    n, d = scale.as_integer_ratio()

    def nearest(sample: int) -> tuple[int, float]:
        """The pixel at or before a sample, and how far before."""
        pixel, rest = divmod((2 * sample + 1) * d - n, 2 * n)
        return pixel, rest / (2 * n)

    def weights(sample: int) -> list[float]:
        _, t = nearest(sample)
        values = [kernel(t - k) for k in range(1 - radius, radius + 1)]
        total = math.fsum(values)
        return [value / total for value in values]

    return Taps(scale, 2 * radius, lambda sample: nearest(sample)[0] + 1 - radius, weights)


def _sinc(x: float) -> float:
    if x == int(x):
        return float(x == 0)  # exactly, so that pixels come through as they are
    return math.sin(math.pi * x) / (math.pi * x)


def _cubic(x: np.ndarray | float) -> np.ndarray:
    """The cubic B-spline."""
    x = np.abs(x)
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.maximum(2 - x, 0) ** 3 / 6)


@cache
def _prefilter() -> tuple[list[float], int]:
    """The coefficients of the spline of `sharp_taps` for a pixel of 1 among zeros, and which of them is the pixel's."""
    at = np.arange(-2 * _SPLINE_RADIUS, 2 * _SPLINE_RADIUS + 1)
    within = _APERTURE * ((np.arange(1000) + 0.5) / 1000 - 0.5)
    means = {step: _cubic(step + within).mean() for step in range(-3, 4)}
    matrix = [[means.get(i - j, 0.0) for j in at] for i in at]
    middle = len(at) // 2
    return np.linalg.inv(matrix)[middle].tolist(), middle


BETWEEN = {"lanczos": lanczos_taps, "sharp": sharp_taps}
"""What reads between pixels, by name: scale -> `Taps`."""
