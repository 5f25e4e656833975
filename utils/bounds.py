"""Targets that are bounds: where a signal is 0 or 1, predictions may go beyond, since what is decoded is cut off there.

A bound lies beyond all other targets: a target plus `BOUND` is to be reached or exceeded, a target less `BOUND` to be
reached from above. A difference of two signals lies within [-1, 1], and so does what networks have to predict.
"""

import torch
from torch import Tensor

BOUND = 8.0


def with_bounds(target: Tensor, signal: Tensor) -> Tensor:
    """A target, with bounds where the signal that it stands for is 0 or 1; both have the same shape."""
    return torch.where(signal >= 1, target + BOUND, torch.where(signal <= 0, target - BOUND, target))


def without_bounds(target: Tensor) -> Tensor:
    """The target itself."""
    return target - BOUND * ((target > BOUND / 2).to(target) - (target < -BOUND / 2).to(target))


def misfit(prediction: Tensor, target: Tensor) -> Tensor:
    """Prediction less target; 0 beyond a bound."""
    error = prediction - target
    above, below = (error + BOUND).clamp(max=0), (error - BOUND).clamp(min=0)
    return torch.where(target > BOUND / 2, above, torch.where(target < -BOUND / 2, below, error))
