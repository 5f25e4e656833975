"""The scalars of a step of Adam and RAdam, for kernels that take the step themselves."""

import math

import torch
from torch import Tensor


def step_rates(optimizer: torch.optim.Optimizer, lr: Tensor, n_batches: int) -> Tensor:
    """What multiplies the moments in each step of some epochs, as torch takes it: RAdam (Liu et al., ICLR 2020,
    algorithm 2), or Adam (Kingma and Ba, ICLR 2015, section 2).

    A step is  parameter -= rate_0 * m,  where rate_1 is not 0 times  rate_1 / (sqrt(v) + rate_2),  m and v the two
    moments after their update.

    Inputs
        optimizer: tells the steps taken so far
        lr: (n_epochs,) learning rate of each epoch
        n_batches: steps an epoch
    Outputs
        (n_epochs * n_batches, 3) float32: the rate over the first bias correction; the root of the second bias
        correction, of RAdam times the rectification, which is 0 while the variance of the adaptive rate is not
        tractable (the first five steps); eps, of Adam times that root
    """
    (beta1, beta2), eps = optimizer.defaults["betas"], optimizer.defaults["eps"]
    done = steps_taken(optimizer)
    longest = 2 / (1 - beta2) - 1
    rates = []
    for epoch, rate in enumerate(lr.tolist()):
        for step in range(done + epoch * n_batches + 1, done + (epoch + 1) * n_batches + 1):
            correction = 1 - beta2**step
            root = math.sqrt(correction)
            if not isinstance(optimizer, torch.optim.RAdam):
                rates.append((rate / (1 - beta1**step), root, eps * root))
                continue
            length, rectified = longest - 2 * step * beta2**step / correction, 0.0
            if length > 5:
                ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                rectified = math.sqrt(ratio * correction)
            rates.append((rate / (1 - beta1**step), rectified, eps))
    return torch.tensor(rates)


def steps_taken(optimizer: torch.optim.Optimizer) -> int:
    return int(next(iter(optimizer.state.values()))["step"])
