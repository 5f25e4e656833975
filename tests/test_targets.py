import pytest
import torch

from datasets.targets import coarsest_target, finer_target
from utils.metrics import iou, psnr


def test_a_block_is_active_iff_its_mean_square_residual_is_above_the_threshold():
    base = torch.full((3, 20, 30), 0.5)
    signal = base.clone()
    signal[:, 0:8, 8:16] += 0.011  # block 1: mean square 1.21e-4
    signal[:, 8:16, 0:8] += 0.009  # block 4: 0.81e-4
    signal[2, 16:, 24:] -= 0.2  # block 11, four rows of its eight, replicated to all of them
    target = finer_target(signal, base, (8, 8), psnr, loss_thr=1e-4, residual=True)
    assert target.active.tolist() == [1, 11]
    torch.testing.assert_close(target.amplitude, torch.tensor([0.011, 0.2]))


def test_targets_are_what_the_base_lacks():
    signal, base = torch.rand(3, 20, 30), torch.rand(3, 20, 30)
    laplacian = finer_target(signal, base, (8, 8), psnr, loss_thr=0.0, residual=True)
    gaussian = finer_target(signal, base, (8, 8), psnr, loss_thr=0.0, residual=False)
    rows = torch.tensor([0, 5])
    blocks_signal, blocks_base = laplacian.gather(rows)
    assert blocks_signal.shape == (2, 64, 3)
    assert torch.equal(laplacian.wanted(rows), blocks_signal - blocks_base)
    assert torch.equal(gaussian.wanted(rows), blocks_signal)
    assert torch.equal(blocks_signal[1, 9], signal[:, 8 + 1, 8 + 1]), "row 5 of a grid of 4 columns is block (1, 1)"


def test_the_coarsest_level_gives_every_block_a_network():
    target = coarsest_target(torch.zeros(1, 20, 30), (8, 8), psnr)
    assert target.active.tolist() == list(range(12))
    assert not target.residual


def test_the_error_of_the_base_counts_true_pixels_and_colours_only():
    signal, base = torch.rand(4, 20, 30), torch.rand(4, 20, 30)
    target = finer_target(signal, base, (8, 8), psnr, loss_thr=1e-4, residual=True)
    squared_error, count = target.base_sums.sum(0).tolist()
    assert squared_error == pytest.approx((signal - base)[:3].square().sum().item(), rel=1e-5)
    assert count == 3 * 20 * 30


def test_a_level_that_is_fitted_already_has_no_active_block():
    signal = torch.rand(3, 20, 30)
    target = finer_target(signal, signal + 0.005, (8, 8), psnr, loss_thr=1e-4, residual=True)
    assert len(target.active) == len(target.amplitude) == 0


def test_a_volume_stays_bytes_and_its_blocks_are_floats():
    grid = (torch.rand(1, 9, 10, 11) > 0.5).byte()
    base = torch.rand(1, 9, 10, 11)
    target = finer_target(grid, base, (4, 4, 4), iou, loss_thr=5e-3, residual=True)
    assert target.signal.dtype == torch.uint8
    signal, _ = target.gather(torch.tensor([0]))
    assert torch.equal(signal[0, :, 0], grid[0, :4, :4, :4].flatten().float())
    inside, union = target.base_sums.sum(0).tolist()
    assert inside == ((base > 0.5) & (grid == 1)).sum()
    assert union == ((base > 0.5) | (grid == 1)).sum()


def test_a_base_that_is_no_number_is_active():
    base = torch.full((1, 8, 8), torch.nan)
    assert len(finer_target(torch.zeros(1, 8, 8), base, (8, 8), psnr, loss_thr=1e-4, residual=True).active) == 1
