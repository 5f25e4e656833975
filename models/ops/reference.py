"""The definition of a visit: bmm, autograd and torch's RAdam."""

import torch
from torch import Tensor

from models.block_mlp import BlockMLP

_LOSS_EPS = 1e-8
_LOSS_SCALE = 1024  # a constant: a scale that follows the number of blocks would let blocks see each other


def fit_points(
    network: BlockMLP,
    optimizer: torch.optim.RAdam,
    coords: Tensor,
    target: Tensor,
    order: Tensor,
    batch_size: int,
    lr: Tensor,
) -> Tensor:
    """Train every block of a network for some epochs, in place.

    A batch is the same positions in every block; the last one of an epoch may be short. Minimised is
    sum_b L_b / (stopgrad(L_b) + 1e-8) / 1024, L_b the mean square error of block b over the batch and the channels:
    each block is scaled by its own loss, and sees no other.

    Inputs
        network: n_blocks MLPs
        optimizer: holds the network's parameters and their moments
        coords: (n_points, n_in) encoded coordinates
        target: (n_points, n_blocks, c) what to predict, points first, so that a batch is one gather of rows
        order: (n_epochs, n_points) the permutation of the points that each epoch follows
        batch_size: points a batch
        lr: (n_epochs,) learning rate of each epoch, on the CPU
    Outputs
        (n_epochs, n_blocks) mean of L_b over the points of each epoch
    """
    losses = target.new_zeros(len(order), network.n_blocks)
    for points, rate, loss in zip(order, lr.tolist(), losses, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for batch in points.split(batch_size):
            error = network(coords[batch]) - target[batch].transpose(0, 1)  # (n_blocks, n_batch, c)
            block_loss = error.square().mean(dim=(1, 2))
            optimizer.zero_grad()
            (block_loss / (block_loss.detach() + _LOSS_EPS)).sum().div(_LOSS_SCALE).backward()
            optimizer.step()
            loss += block_loss.detach() * (len(batch) / len(points))
    return losses
