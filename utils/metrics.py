"""How good a reconstruction is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from utils.channels import n_colours
from utils.transfer import Transfer, mu_law

_SSIM_WINDOW = 11
_SSIM_CHANNELS = 4  # at once
_SSIM_ROWS, _SSIM_VALUES = 32, 2**19  # of a strip: at least so many rows, and more as long as it has no more values


@dataclass(frozen=True)
class Metric:
    """A measure of quality that adds up over blocks: two sums for each block, and a value of their totals.

    name: in curves and reports
    line: how a run prints it
    brief: how its progress shows it
    sums: (reconstruction (n_blocks, n_points, c), signal likewise, true points (n_blocks, n_points)) -> (n_blocks, 2)
    value: of the two totals
    """

    name: str
    line: str
    brief: str
    sums: Callable[[Tensor, Tensor, Tensor], Tensor]
    value: Callable[[float, float], float]

    def __call__(self, reconstruction: Tensor, signal: Tensor) -> float:
        """Of a whole signal (c, *size) in [0, 1]."""
        return self.value(*self.totals(reconstruction, signal).tolist())

    def totals(self, reconstruction: Tensor, signal: Tensor) -> Tensor:
        """(2,) in double precision, of a window of a signal, (c, *size) in [0, 1]; they add up over windows."""
        rows, true_rows = (rearrange(x, "c row ... -> row (...) c") for x in (reconstruction, signal.float()))
        sums = self.sums(rows, true_rows, torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device))
        return sums.cpu().sum(0, dtype=torch.float64)


def _squared_error(reconstruction: Tensor, signal: Tensor, true: Tensor, spectral: bool = False) -> Tensor:
    return _squared_error_of(slice(n_colours(signal.shape[2], spectral)), reconstruction, signal, true)


def _squared_error_of(counted: slice, reconstruction: Tensor, signal: Tensor, true: Tensor) -> Tensor:
    channels = (reconstruction - signal)[..., counted].square_().unbind(2)
    error = sum(channels[1:], channels[0]) * true  # torch's sum is slow over a few values next to each other
    return torch.stack([error.sum(1), true.sum(1) * len(channels)], dim=1)


def _overlap(reconstruction: Tensor, signal: Tensor, true: Tensor) -> Tensor:
    inside, truly = reconstruction[..., 0] > 0.5, signal[..., 0] > 0.5
    return torch.stack([(inside & truly & true).sum(1), ((inside | truly) & true).sum(1)], dim=1).float()


def _psnr(squared_error: float, count: float) -> float:
    return math.inf if squared_error == 0 else -10 * math.log10(squared_error / count)


psnr = Metric("psnr", "PSNR : {:.4f} dB", "PSNR {:.2f} dB", _squared_error, _psnr)
"""Peak signal-to-noise ratio in dB for a peak of 1, over the colour channels; infinite for a perfect fit."""

_spectral_psnr = replace(psnr, sums=partial(_squared_error, spectral=True))


def psnr_of(spectral: bool) -> Metric:
    """PSNR over the colour channels or, where they are spectral, over all of them."""
    return _spectral_psnr if spectral else psnr


def psnr_of_channel(channel: int) -> Metric:
    """PSNR over one channel."""
    return replace(psnr, sums=partial(_squared_error_of, slice(channel, channel + 1)))


def mu_law_psnr(transfer: Transfer, spectral: bool = False) -> Metric:
    """PSNR of the values that a transfer gives, by the mu-law: divided by the highest, at least 0 (Kalantari and
    Ramamoorthi 2017)."""

    def by_mu_law(encoded: Tensor) -> Tensor:
        values = transfer.decode(encoded.cpu().numpy()).astype(np.float64)
        return torch.from_numpy(mu_law(np.maximum(values, 0) / transfer.high))

    def sums(reconstruction: Tensor, signal: Tensor, true: Tensor) -> Tensor:
        return psnr_of(spectral).sums(by_mu_law(reconstruction), by_mu_law(signal), true.cpu())

    return Metric("mu_law_psnr", "mu-law PSNR : {:.4f} dB", "mu-law PSNR {:.2f} dB", sums, _psnr)


def picture_metrics(transfer: Transfer | None, spectral: bool = False) -> tuple[Metric, ...]:
    """By which a picture is compared: PSNR as it is fitted and, of light, by the mu-law."""
    by_mu_law = (mu_law_psnr(transfer, spectral),) if transfer and transfer.is_light else ()
    return psnr_of(spectral), *by_mu_law


iou = Metric(
    "iou",
    "IoU : {:.6f}",
    "IoU {:.5f}",
    _overlap,
    lambda intersection, union: intersection / union if union else 1.0,
)
"""Intersection over union of what is above 1/2; 1 where both are empty."""


class Similarity:
    """Mean structural similarity (Wang et al. 2004) of two pictures that come in consecutive rows: over the colour
    channels or, where they are spectral, over all of them, wherever the window of 11 pixels lies inside."""

    def __init__(self, spectral: bool = False) -> None:
        self._spectral = spectral
        self._last: tuple[Tensor, Tensor] | None = None  # rows that later windows still cover
        self._total, self._count = 0.0, 0

    def add(self, prediction: Tensor, signal: Tensor) -> None:
        """The next rows of both, (c, n_rows, w) in [0, 1]."""
        from kornia.metrics import ssim as ssim_map

        colours = n_colours(len(signal), self._spectral)
        rows = max(_SSIM_ROWS, _SSIM_VALUES // (min(colours, _SSIM_CHANNELS) * signal.shape[2]))
        for pair in zip(prediction[:colours].split(rows, dim=1), signal[:colours].split(rows, dim=1), strict=True):
            if self._last is not None:
                pair = tuple(torch.cat([before, after], dim=1) for before, after in zip(self._last, pair, strict=True))
            if min(pair[0].shape[1:]) >= _SSIM_WINDOW:
                for some in zip(*(part[None].split(_SSIM_CHANNELS, dim=1) for part in pair), strict=True):
                    values = ssim_map(*some, _SSIM_WINDOW, padding="valid")
                    self._total += values.sum(dtype=torch.float64).item()
                    self._count += values.numel()
            self._last = tuple(part[:, -(_SSIM_WINDOW - 1) :].clone() for part in pair)

    @property
    def value(self) -> float | None:
        """A number up to 1, or None if the picture is smaller than the window."""
        return self._total / self._count if self._count else None

    @property
    def line(self) -> str:
        """How a comparison prints it."""
        none = "none, the picture is smaller than its window"
        return f"SSIM : {none if self.value is None else f'{self.value:.4f}'}"


class SliceSimilarity(Similarity):
    """The mean of `Similarity` over the slices of two volumes along z, which come in consecutive slices."""

    def add(self, prediction: Tensor, signal: Tensor) -> None:
        """The next slices of both, (c, n, h, w) in [0, 1]."""
        for pair in zip(prediction.unbind(1), signal.unbind(1), strict=True):
            super().add(*pair)
            self._last = None


def ssim(prediction: Tensor, signal: Tensor) -> float | None:
    """`Similarity` of two whole pictures, (c, h, w) in [0, 1]."""
    similarity = Similarity()
    similarity.add(prediction, signal)
    return similarity.value
