import pytest
import torch

from datasets.targets import LevelTarget
from utils.metrics import iou, psnr
from utils.pyramid import upsample_whole
from utils.raster import COMPUTED, COMPUTED_UNIT, Raster, as_numbers


def raster(values: torch.Tensor) -> Raster:
    return Raster(as_numbers(values, COMPUTED_UNIT).to(COMPUTED), COMPUTED_UNIT)


def level(signal: torch.Tensor, coarse: torch.Tensor | None, patch_size=(8, 8), residual=True) -> LevelTarget:
    return LevelTarget(raster(signal), None if coarse is None else raster(coarse), patch_size, residual)


def flat(value: float) -> torch.Tensor:
    return torch.full((3, 10, 15), value)


def everything(target: LevelTarget) -> range:
    return range(target.grid[0])


def test_a_block_is_active_iff_its_mean_square_residual_is_above_the_threshold():
    signal = torch.full((3, 20, 30), 0.5)
    signal[:, 0:8, 8:16] += 0.011  # block 1: mean square 1.21e-4
    signal[:, 8:16, 0:8] += 0.009  # block 4: 0.81e-4
    signal[2, 16:, 24:] -= 0.2  # block 11, four rows of its eight, replicated to all of them
    target = level(signal, flat(0.5))
    survey = target.survey(psnr, 1e-4, everything(target))
    assert survey.active.nonzero().flatten().tolist() == [1, 11]
    torch.testing.assert_close(survey.amplitude[survey.active], torch.tensor([0.011, 0.2]), atol=2 / 2**15, rtol=0)


def test_what_blocks_would_show_without_a_network_decides_who_gets_one():
    """Level 0 is exactly what Lanczos' kernel makes of level 1: no block needs a network, but those of the spline do;
    networks have to predict what the spline lacks."""
    coarse = torch.rand(3, 12, 12)
    kept = raster(coarse).read(((0, 12), (0, 12)))
    signal = raster(upsample_whole(kept, (24, 24), "lanczos"))
    sharp, smooth = (LevelTarget(signal, raster(coarse), (8, 8), True, fill) for fill in ("lanczos", "spline"))
    survey = sharp.survey(psnr, 1e-6, everything(sharp))
    assert not survey.active.any()
    assert smooth.survey(psnr, 1e-6, everything(smooth)).active.all()
    assert psnr.value(*survey.base_sums.double().sum(0).tolist()) > 90
    assert torch.equal(sharp.gather(torch.tensor([4])).base, smooth.gather(torch.tensor([4])).base)


def test_targets_are_what_the_upsampled_coarser_level_lacks():
    signal, coarse = torch.rand(3, 20, 30), torch.rand(3, 10, 15)
    laplacian, gaussian = level(signal, coarse), level(signal, coarse, residual=False)
    base = upsample_whole(laplacian.coarse.read(((0, 10), (0, 15))), (20, 30))
    blocks = laplacian.gather(torch.tensor([0, 5, 6]))
    signal_blocks, base_blocks = blocks.gather(torch.tensor([1]))
    assert signal_blocks.shape == (1, 64, 3)
    kept = laplacian.signal.read(((0, 20), (0, 30)))
    assert torch.equal(signal_blocks[0, 9], kept[:, 8 + 1, 8 + 1]), "block 5 of a grid of 4 columns is (1, 1)"
    assert torch.equal(base_blocks[0, 9], base[:, 8 + 1, 8 + 1])
    assert torch.equal(blocks.wanted(torch.tensor([1])), signal_blocks - base_blocks)
    assert torch.equal(gaussian.gather(torch.tensor([5])).wanted(torch.tensor([0])), signal_blocks)


def test_what_is_kept_is_half_a_step_from_the_signal_at_most():
    signal = torch.rand(3, 20, 30)
    window = ((3, 17), (5, 30))
    assert (raster(signal).read(window) - signal[:, 3:17, 5:30]).abs().max() <= 0.5001 / 2**15


@pytest.mark.parametrize("values_at_once", [1, 700, 2**22])
def test_bands_by_bands_equal_all_at_once(monkeypatch, values_at_once):
    signal, coarse = torch.rand(3, 60, 37), torch.rand(3, 30, 19)
    target = level(signal, coarse, (5, 8))
    expected = target.survey(psnr, 0.05, everything(target))
    some = expected.active.nonzero().squeeze(1)[::3]
    wanted = target.gather(some)
    monkeypatch.setattr("utils.windows._VALUES_AT_ONCE", values_at_once)
    shares = [target.survey(psnr, 0.05, bands) for bands in (range(0, 5), range(5, 5), range(5, 12))]
    for name in ("active", "amplitude", "base_sums"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(expected, name))
    assert torch.equal(target.gather(some).signal, wanted.signal)
    assert torch.equal(target.gather(some).base, wanted.base)
    assert torch.equal(wanted.true_points(torch.arange(len(some))).sum(1) == 40, (some % 5 < 4))


def test_the_coarsest_level_gives_every_block_a_network():
    target = level(torch.zeros(1, 20, 30), None, residual=False)
    survey = target.survey(psnr, 1e-4, everything(target))
    assert survey.active.tolist() == [True] * 12
    blocks = target.gather(torch.arange(12))
    assert (blocks.base == 0).all()


def test_the_error_of_the_base_counts_true_pixels_and_colours_only():
    signal, coarse = torch.rand(4, 20, 30), torch.rand(4, 10, 15)
    target = level(signal, coarse)
    squared_error, count = target.survey(psnr, 1e-4, everything(target)).base_sums.sum(0).tolist()
    expected = (target.signal.read(((0, 20), (0, 30))) - target.base(((0, 20), (0, 30))))[:3].square().sum()
    assert squared_error == pytest.approx(expected.item(), rel=1e-5)
    assert count == 3 * 20 * 30


def test_a_level_that_is_fitted_already_has_no_active_block():
    target = level(torch.full((3, 20, 30), 0.505), flat(0.5))
    survey = target.survey(psnr, 1e-4, everything(target))
    assert not survey.active.any()
    assert len(target.gather(survey.active.nonzero().squeeze(1)).signal) == 0


def test_a_volume_stays_bytes_and_its_blocks_are_floats():
    grid, coarse = (torch.rand(1, 9, 10, 11) > 0.5).byte(), torch.rand(1, 5, 5, 6)
    target = LevelTarget(Raster(grid, 1), raster(coarse), (4, 4, 4), True)
    blocks = target.gather(torch.tensor([0]))
    assert blocks.signal.dtype == torch.uint8
    signal, _ = blocks.gather(torch.tensor([0]))
    assert torch.equal(signal[0, :, 0], grid[0, :4, :4, :4].flatten().float())
    inside, union = target.survey(iou, 5e-3, everything(target)).base_sums.sum(0).tolist()
    base = target.base(((0, 9), (0, 10), (0, 11)))
    assert inside == ((base > 0.5) & (grid == 1)).sum()
    assert union == ((base > 0.5) | (grid == 1)).sum()
