"""Surgery on networks of blocks and their optimizers. Which blocks go, and when, is told elsewhere."""

from torch import Tensor, nn
from torch.optim import Optimizer


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
