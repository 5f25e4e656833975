"""Optimizers of block networks: how they are made, how they follow their blocks, and the scalars of their steps for
kernels that take the steps themselves."""

import math

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer, RAdam


class NRAdam(RAdam):
    """RAdam with Nesterov's momentum: a step takes beta_1 m + (1 - beta_1) g, g the gradient, where RAdam takes m.

    Dozat, Incorporating Nesterov Momentum into Adam (ICLR workshop 2016), section 2.2, with a constant beta_1.
    """

    @torch.no_grad()
    def step(self) -> None:
        beta1, beta2 = self.defaults["betas"]
        for group in self.param_groups:
            [[rate, rectified, eps]] = step_rates(self, torch.tensor([group["lr"]], dtype=torch.float64), 1).tolist()
            for parameter in group["params"]:
                state, gradient = self.state[parameter], parameter.grad
                state["step"] += 1
                first = state["exp_avg"].lerp_(gradient, 1 - beta1)
                second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                adapted = rectified / (second.sqrt() + eps) if rectified else 1
                parameter.sub_(rate * first.lerp(gradient, lookahead(self)) * adapted)


OPTIMIZERS = {"radam": RAdam, "adam": Adam, "nradam": NRAdam}


def make_optimizer(
    network: nn.Module,
    lr: float,
    moments: list[list[Tensor]] | None = None,
    kind: str = "radam",
    betas: tuple[float, float] = (0.9, 0.999),
) -> Optimizer:
    """RAdam (Liu et al., ICLR 2020), Adam (Kingma and Ba, ICLR 2015) or `NRAdam`, whose moments exist from the start.

    Inputs
        kind: of `OPTIMIZERS`
        betas: decay of the two moments
        moments: the two of each parameter; None for zeros
    """
    optimizer = OPTIMIZERS[kind](network.parameters(), lr=lr, betas=betas)
    for index, parameter in enumerate(network.parameters()):
        first, second = moments[index] if moments else (torch.zeros_like(parameter), torch.zeros_like(parameter))
        if not first.shape == second.shape == parameter.shape:
            raise TypeError(f"moments {first.shape}, {second.shape} of a parameter {parameter.shape}")
        optimizer.state[parameter] = {"step": torch.tensor(0.0), "exp_avg": first, "exp_avg_sq": second}
    return optimizer


def step_rates(optimizer: Optimizer, lr: Tensor, n_batches: int) -> Tensor:
    """The factors of the moments in each step of some epochs, as torch has them: RAdam (Liu et al., ICLR 2020,
    algorithm 2), or Adam (Kingma and Ba, ICLR 2015, section 2).

    A step is  parameter -= rate_0 * m * rate_1 / (sqrt(v) + rate_2),  without the quotient where rate_1 is 0; m and v
    are the two moments after their update, for m see also `lookahead`.

    Inputs
        optimizer: knows the steps taken so far
        lr: (n_epochs,) learning rate of each epoch
        n_batches: steps an epoch
    Outputs
        (n_epochs * n_batches, 3) float32: the rate over the first bias correction; the root of the second bias
        correction, for RAdam times the rectification, which is 0 while the variance of the adaptive rate is not
        tractable (the first five steps); eps, for Adam times that root
    """
    (beta1, beta2), eps = optimizer.defaults["betas"], optimizer.defaults["eps"]
    done = steps_taken(optimizer)
    longest = 2 / (1 - beta2) - 1
    rates = []
    for epoch, rate in enumerate(lr.tolist()):
        for step in range(done + epoch * n_batches + 1, done + (epoch + 1) * n_batches + 1):
            correction = 1 - beta2**step
            root = math.sqrt(correction)
            if not isinstance(optimizer, RAdam):
                rates.append((rate / (1 - beta1**step), root, eps * root))
                continue
            length, rectified = longest - 2 * step * beta2**step / correction, 0.0
            if length > 5:
                ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                rectified = math.sqrt(ratio * correction)
            rates.append((rate / (1 - beta1**step), rectified, eps))
    return torch.tensor(rates)


def lookahead(optimizer: Optimizer) -> float:
    """The fraction of the way from the first moment to the gradient that a step takes: 1 - beta_1, or 0."""
    return 1 - optimizer.defaults["betas"][0] if isinstance(optimizer, NRAdam) else 0.0


def steps_taken(optimizer: Optimizer) -> int:
    return int(next(iter(optimizer.state.values()))["step"])


def moments_of(network: nn.Module, optimizer: Optimizer) -> list[list[Tensor]]:
    """The two moments of each parameter."""
    return [[optimizer.state[one][name] for name in ("exp_avg", "exp_avg_sq")] for one in network.parameters()]


def select_blocks(network: nn.Module, optimizer: Optimizer, index: Tensor | slice) -> tuple[nn.Module, Optimizer]:
    """The network and the optimizer of some blocks; parameters and moments follow their blocks.

    Equivalent to having had only these blocks from the start. A tensor of indices copies; a slice gives views, so that
    training the part trains those blocks of the whole. The step count is copied either way.

    Inputs
        network: has `select(index)`, and parameters with blocks in dimension 0
        index: which blocks
    """
    part = network.select(index)
    part_optimizer = type(optimizer)(part.parameters(), **optimizer.defaults)
    for old, new in zip(network.parameters(), part.parameters(), strict=True):
        part_optimizer.state[new] = {
            name: value[index] if value.shape == old.shape else value.clone()
            for name, value in optimizer.state[old].items()
        }
    return part, part_optimizer


def set_step(optimizer: Optimizer, step: int) -> None:
    """Set the step count, which all blocks share."""
    for state in optimizer.state.values():
        state["step"].fill_(step)
