from fractions import Fraction

import pytest
import torch

from utils.resampling import area_taps, lanczos_taps, resample, sharp_taps, spline_taps
from utils.windows import in_samples, slices, whole

KINDS = [
    *((spline_taps(factor), factor) for factor in (2, 4, 6, 10)),
    *((kind(Fraction(scale)), scale) for kind in (lanczos_taps, sharp_taps) for scale in ("2", "3/2", "8", "137/100")),
    *((area_taps(Fraction(scale)), scale) for scale in ("1", "3/5", "1/2", "1/7", "137/1000")),
]


def of_whole(pixels: torch.Tensor, taps, scale) -> torch.Tensor:
    size = tuple(pixels.shape[1:])
    return resample(pixels, taps, in_samples(whole(size), Fraction(scale)), (0,) * len(size), size)


@pytest.mark.parametrize(("taps", "scale"), KINDS, ids=str)
def test_a_window_has_the_bits_of_the_whole(taps, scale):
    size = (23, 31)
    pixels = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    expected = of_whole(pixels, taps, scale)
    (_, height), (_, width) = in_samples(whole(size), Fraction(scale))
    places = [(0, 1), (height // 3, height // 3 + 1), (height // 2, height), (height - 1, height), (0, height)]
    for rows in places:
        for columns in [(0, 1), (width // 3, width // 3 + 2), (width // 2, width), (0, width)]:
            reach = taps.source_window((rows, columns), size)
            part = pixels[:, *slices(reach)]
            found = resample(part, taps, (rows, columns), tuple(start for start, _ in reach), size)
            assert torch.equal(found, expected[:, slice(*rows), slice(*columns)])


@pytest.mark.parametrize("scale", [3, 5, 9])
def test_lanczos_passes_through_the_pixels_exactly_at_odd_scales(scale):
    pixels = torch.rand(2, 9, 12)
    pixels[:, 3:5] = 0.0
    dense = of_whole(pixels, lanczos_taps(Fraction(scale)), scale)
    assert torch.equal(dense[:, scale // 2 :: scale, scale // 2 :: scale], pixels)


def test_odd_scales_of_the_spline_pass_through_what_it_is_at_the_centres():
    pixels = torch.rand(1, 8, 8)
    plain, dense = (of_whole(pixels, spline_taps(factor), factor) for factor in (2, 6))
    assert torch.equal(dense[:, 1::3, 1::3], plain)


@pytest.mark.parametrize("kind", [lanczos_taps, sharp_taps])
def test_a_smooth_signal_is_interpolated(kind):
    """A wave of 12 pixels, well below what pixels can hold: its samples are where they should be, to 1%."""

    def wave(places: torch.Tensor) -> torch.Tensor:
        return 0.5 + 0.4 * torch.sin(2 * torch.pi * places / 12 + 0.3)

    for scale in (Fraction(4), Fraction(3, 2)):
        pixels = wave(torch.arange(60.0)).expand(1, 60, 60)
        dense = of_whole(pixels, kind(scale), scale)
        places = (torch.arange(dense.shape[2]) + 0.5) / float(scale) - 0.5
        inner = slice(8 * 4, -8 * 4)
        torch.testing.assert_close(dense[0, 40, inner], wave(places)[inner], rtol=0, atol=0.01)


def test_the_sharp_spline_takes_pixels_for_means_over_areas():
    """Of a bright line, its samples are brighter than those of the interpolation, and their mean is the pixel's."""
    pixels = torch.full((1, 40, 40), 0.2)
    pixels[..., 20] = 0.6
    sharp, smooth = (of_whole(pixels, kind(Fraction(8)), 8)[0, 160] for kind in (sharp_taps, lanczos_taps))
    assert sharp.max() > smooth.max() + 0.02
    torch.testing.assert_close(sharp[20 * 8 : 21 * 8].mean(), torch.tensor(0.6), rtol=0, atol=0.02)
    assert sharp.mean() == pytest.approx(pixels[0, 20].mean().item(), abs=1e-5)


def test_an_area_is_averaged():
    pixels = torch.tensor([[0.0, 0.3, 0.6, 0.9, 0.2]])
    of_two_thirds = torch.tensor([[0.1, 0.5, 2 / 3]])  # a pixel and half of the next, and so on
    torch.testing.assert_close(of_whole(pixels, area_taps(Fraction(2, 3)), "2/3"), of_two_thirds)
    random = torch.rand(1, 12, 18)
    torch.testing.assert_close(
        of_whole(random, area_taps(Fraction(1, 6)), "1/6"), torch.nn.functional.avg_pool2d(random, 6)
    )


def test_a_constant_stays_what_it_is_up_to_the_edges():
    for taps, scale in KINDS:
        found = of_whole(torch.full((1, 7, 3), 0.3), taps, scale)
        torch.testing.assert_close(found, torch.full_like(found, 0.3))
