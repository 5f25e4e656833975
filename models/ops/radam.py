"""The scalars of a step of RAdam, for kernels that take the step themselves."""

import math

import torch
from torch import Tensor


def step_rates(optimizer: torch.optim.RAdam, lr: Tensor, n_batches: int) -> Tensor:
    """What multiplies the moments in each step of some epochs (Liu et al., ICLR 2020, algorithm 2), as torch takes it.

    A step is  parameter -= rate_0 * m,  or where rate_1 is not 0  parameter -= rate_0 * rate_1 * m / (sqrt(v) + eps),
    m and v the two moments after their update.

    Inputs
        optimizer: tells the steps taken so far
        lr: (n_epochs,) learning rate of each epoch
        n_batches: steps an epoch
    Outputs
        (n_epochs * n_batches, 2) float32: the rate over the first bias correction; the rectification times the root of
        the second bias correction, 0 while the variance of the adaptive rate is not tractable (the first five steps)
    """
    beta1, beta2 = optimizer.defaults["betas"]
    done = steps_taken(optimizer)
    longest = 2 / (1 - beta2) - 1
    rates = []
    for epoch, rate in enumerate(lr.tolist()):
        for step in range(done + epoch * n_batches + 1, done + (epoch + 1) * n_batches + 1):
            correction = 1 - beta2**step
            length = longest - 2 * step * beta2**step / correction
            rectified = 0.0
            if length > 5:
                ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                rectified = math.sqrt(ratio * correction)
            rates.append((rate / (1 - beta1**step), rectified))
    return torch.tensor(rates)


def steps_taken(optimizer: torch.optim.RAdam) -> int:
    return int(next(iter(optimizer.state.values()))["step"])
