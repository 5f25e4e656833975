import math
from itertools import pairwise

import pytest
import torch

from utils.metrics import Similarity, psnr, ssim


def test_psnr_of_a_known_error():
    signal = torch.rand(3, 40, 30) * 0.5
    assert psnr(signal + 0.1, signal) == pytest.approx(20, abs=1e-4)
    assert psnr(signal, signal) == math.inf


def test_alpha_does_not_count():
    signal = torch.rand(4, 40, 30) * 0.5
    worse = signal + 0.01
    worse[3] = 0.9
    assert psnr(worse, signal) == pytest.approx(40, abs=1e-3)
    worse[:3] = signal[:3]
    assert ssim(worse, signal) == pytest.approx(1)


def test_ssim_is_the_mean_over_all_windows_however_it_is_cut_into_strips():
    from kornia.metrics import ssim as kornia_ssim

    generator = torch.Generator().manual_seed(0)
    signal = torch.rand(1, 1100, 40, generator=generator)
    noisy = (signal + 0.1 * torch.randn(signal.shape, generator=generator)).clamp(0, 1)
    whole = kornia_ssim(noisy[None], signal[None], 11, padding="valid").mean().item()
    assert ssim(noisy, signal) == pytest.approx(whole, abs=1e-6)
    assert ssim(signal[:, :10], signal[:, :10]) is None


def test_quality_adds_up_over_rows():
    signal, noisy = torch.rand(3, 90, 40), torch.rand(3, 90, 40)
    cuts = [0, 1, 5, 6, 40, 84, 90]
    errors, similarity = torch.zeros(2, dtype=torch.float64), Similarity()
    for top, bottom in pairwise(cuts):
        errors += psnr.totals(noisy[:, top:bottom], signal[:, top:bottom])
        similarity.add(noisy[:, top:bottom], signal[:, top:bottom])
    assert psnr.value(*errors.tolist()) == pytest.approx(psnr(noisy, signal), abs=1e-9)
    assert similarity.value == pytest.approx(ssim(noisy, signal), abs=1e-6)
