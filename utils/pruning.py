"""Surgery on networks of blocks and their optimizers. Which blocks go, and when, is told elsewhere."""

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer, RAdam

OPTIMIZERS = {"radam": RAdam, "adam": Adam}


def make_optimizer(
    network: nn.Module,
    lr: float,
    moments: list[list[Tensor]] | None = None,
    kind: str = "radam",
    betas: tuple[float, float] = (0.9, 0.999),
) -> Optimizer:
    """RAdam (Liu et al., ICLR 2020) or Adam (Kingma and Ba, ICLR 2015) whose moments exist from the start.

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


def select_blocks(network: nn.Module, optimizer: Optimizer, rows: Tensor | slice) -> tuple[nn.Module, Optimizer]:
    """The network and the optimizer of some blocks; parameters and moments follow their blocks.

    Equivalent to having had only these blocks from the start. A tensor of indices copies; a slice gives views, so that
    training the part trains those rows of the whole. The step count is copied either way.

    Inputs
        network: has `select(rows)`, and parameters with blocks in dimension 0
        rows: which blocks
    """
    part = network.select(rows)
    part_optimizer = type(optimizer)(part.parameters(), **optimizer.defaults)
    for old, new in zip(network.parameters(), part.parameters(), strict=True):
        part_optimizer.state[new] = {
            name: value[rows] if value.shape == old.shape else value.clone()
            for name, value in optimizer.state[old].items()
        }
    return part, part_optimizer


def set_step(optimizer: Optimizer, step: int) -> None:
    """Set the step count, which all blocks share."""
    for state in optimizer.state.values():
        state["step"].fill_(step)
