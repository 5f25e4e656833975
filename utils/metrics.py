"""How good a reconstruction is."""

import math

import torch
from torch import Tensor

_SSIM_WINDOW = 11
_SSIM_ROWS = 512


def n_colours(n_channels: int) -> int:
    """Channels that PSNR and SSIM count: all but the alpha of an RGBA picture."""
    return 3 if n_channels == 4 else n_channels


def psnr_from_mse(mse: float) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1; infinite for a perfect fit."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


def psnr(prediction: Tensor, signal: Tensor) -> float:
    """PSNR in dB of (c, h, w) in [0, 1] over the colour channels, accumulated row by row in double precision."""
    colours = n_colours(len(signal))
    rows = zip(prediction[:colours].unbind(1), signal[:colours].unbind(1), strict=True)
    total = sum((row - true).square().sum(dtype=torch.float64).item() for row, true in rows)
    return psnr_from_mse(total / signal[:colours].numel())


def ssim(prediction: Tensor, signal: Tensor) -> float | None:
    """Mean structural similarity (Wang et al. 2004) over the colour channels, where the window of 11 lies inside.

    Inputs
        prediction, signal: (c, h, w) in [0, 1]
    Outputs
        a number up to 1, or None where the picture is smaller than the window
    """
    from kornia.metrics import ssim as ssim_map

    colours = n_colours(len(signal))
    height, width = signal.shape[1:]
    if min(height, width) < _SSIM_WINDOW:
        return None
    margin = _SSIM_WINDOW - 1
    total, count = 0.0, 0
    for top in range(0, height - margin, _SSIM_ROWS):  # strips, so that memory does not follow the picture
        strip = slice(top, min(top + _SSIM_ROWS + margin, height))
        values = ssim_map(
            prediction[None, :colours, strip], signal[None, :colours, strip], _SSIM_WINDOW, padding="valid"
        )
        total += values.sum(dtype=torch.float64).item()
        count += values.numel()
    return total / count
