import pytest
import torch

from utils.pyramid import FILLS, downsample, level_size, pyramid, upsample_whole
from utils.resampling import resample, spline_taps


def test_downsampling_is_the_mean_of_each_pair_of_pairs():
    signal = torch.tensor([[[0.0, 1.0, 0.5], [1.0, 0.0, 0.5], [0.2, 0.4, 0.8]]])
    torch.testing.assert_close(downsample(signal), torch.tensor([[[0.5, 0.5], [0.3, 0.8]]]))


def test_downsampling_has_no_aliasing():
    """A checkerboard, the highest frequency there is, turns grey and not into a pattern."""
    checkerboard = (torch.arange(64)[:, None] + torch.arange(64) + 0.0).remainder(2)[None]
    assert (downsample(checkerboard) == 0.5).all()


@pytest.mark.parametrize("size", [(37, 50), (1, 9), (9, 10, 13)])
def test_levels_have_the_sizes_they_are_said_to_have(size):
    for level, signal in enumerate(pyramid(torch.rand(2, *size), 4)):
        assert signal.shape == (2, *level_size(size, level))


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_a_ramp_survives_down_and_up(factor):
    """Both ways are aligned by half pixels: away from the edges a linear signal is not shifted."""
    ramp = (torch.arange(40.0) + 0.5).expand(1, 40, 40) / 40
    coarse = downsample(ramp)
    fine = resample(coarse, spline_taps(factor), ((0, 20 * factor),) * 2, (0, 0), (20, 20))
    expected = (torch.arange(20.0 * factor) + 0.5) / (20 * factor)
    inner = slice(2 * factor, -2 * factor)
    torch.testing.assert_close(fine[0, factor, inner], expected[inner])


@pytest.mark.parametrize("fill", FILLS)
def test_upsampling_keeps_a_constant_and_the_range(fill):
    constant = torch.full((3, 5, 7), 0.3)
    torch.testing.assert_close(upsample_whole(constant, (9, 14), fill), torch.full((3, 9, 14), 0.3))
    noise = (torch.rand(1, 30, 30) > 0.5).float()
    fine = upsample_whole(noise, (60, 60), fill)
    assert fine.min() >= 0
    assert fine.max() <= 1


def test_upsampling_is_the_quadratic_b_spline():
    """An impulse turns into the spline itself, 3/4 - x^2 near its centre and (3/2 - |x|)^2 / 2 beyond."""
    impulse = torch.zeros(1, 9)
    impulse[0, 4] = 1
    fine = resample(impulse, spline_taps(5), ((0, 45),), (0,), (9,))[0]
    x = ((torch.arange(45.0) + 0.5) / 5 - 0.5 - 4).abs()
    spline = torch.where(x < 0.5, 3 / 4 - x**2, (1.5 - x).clamp(min=0) ** 2 / 2)
    torch.testing.assert_close(fine, spline, rtol=0, atol=1e-6)
