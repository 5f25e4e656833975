import torch

from utils.bounds import misfit, with_bounds, without_bounds


def test_the_misfit_is_that_of_what_is_decoded():
    """Beyond 0 and 1, where the signal is 0 or 1, nothing is amiss; a signal between them is to be met exactly."""
    signal = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.25, 1.0])
    base = torch.tensor([0.5, 0.5, 0.75, 0.75, 0.5, 1.0])
    prediction = torch.tensor([-0.75, -0.25, 0.5, 0.125, -0.5, 0.0])
    target = with_bounds(signal - base, signal)
    expected = torch.tensor([0.0, 0.25, 0.0, -0.125, -0.25, 0.0])
    torch.testing.assert_close(misfit(prediction, target), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(without_bounds(target), signal - base, rtol=0, atol=1e-6)


def test_targets_without_bounds_are_met_as_they_are():
    prediction, target = torch.rand(3, 50, 2) * 2 - 1, torch.rand(3, 50, 2) * 2 - 1
    assert torch.equal(misfit(prediction, target), prediction - target)
    assert torch.equal(without_bounds(target), target)


def test_what_is_gained_beyond_a_bound_has_no_gradient():
    target = with_bounds(torch.tensor([0.5, -0.5, 0.5]), torch.tensor([1.0, 0.0, 0.7]))
    prediction = torch.tensor([0.75, -0.75, 0.75], requires_grad=True)
    misfit(prediction, target).square().sum().backward()
    assert prediction.grad.tolist() == [0.0, 0.0, 0.5]
