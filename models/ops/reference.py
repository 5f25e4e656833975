"""The definition of training and of evaluation: bmm, autograd and torch's optimizers."""

import torch
from torch import Tensor, nn

from models.block_network import BlockNetwork
from models.ops.batching import points_at_once
from models.shape import NetworkShape
from utils.bounds import misfit

name = "reference"

LOSS_EPS = 1e-8
RIDGE = 0.3
"""Of the last layer's first fit: the part of its features' mean variance that is added to each."""

LEAST = 0.02
"""And how far from 0 and 1 a signal is kept there: a sigmoid reaches neither."""

STILL = 1e-12
"""And the mean variance up to which features count as constant."""

LOSS_SCALE = 1024  # a constant: a scale that follows the number of blocks would let blocks see each other


def prepare(shape: NetworkShape) -> None:
    """Nothing is needed, for any network."""


def fit_points(
    network: BlockNetwork,
    optimizer: torch.optim.Optimizer,
    coords: Tensor,
    target: Tensor,
    order: Tensor,
    batch_size: int,
    lr: Tensor,
) -> Tensor:
    """Train every block of a network for some epochs, in place.

    A batch is the same positions in every block; the last one of an epoch may be short. The loss is
    sum_b L_b / (stopgrad(L_b) + 1e-8) / 1024, L_b the mean square error of block b over the batch and the channels:
    each block is scaled by its own loss, and sees no other.

    Inputs
        network: of n_blocks blocks
        optimizer: holds the network's parameters and their moments
        coords: (n_points, n_in) encoded coordinates
        target: (n_blocks, n_points, c) what to predict, some of it as bounds (`utils.bounds`)
        order: (n_epochs, n_points) the permutation of the points that each epoch follows
        batch_size: points a batch
        lr: (n_epochs,) learning rate of each epoch, on the CPU
    Outputs
        (n_epochs, n_blocks) mean of L_b over the points of each epoch
    """
    target = target.transpose(0, 1).contiguous()  # points first: a batch is then one gather
    losses = target.new_zeros(len(order), network.n_blocks)
    for points, rate, loss in zip(order, lr.tolist(), losses, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for batch in points.split(batch_size):
            wanted = target[batch].transpose(0, 1).contiguous()  # sums round by how values lie
            error = misfit(network(coords[batch]), wanted)  # (n_blocks, n_batch, c)
            block_loss = error.square().mean(dim=(1, 2))
            optimizer.zero_grad()
            (block_loss / (block_loss.detach() + LOSS_EPS)).sum().div(LOSS_SCALE).backward()
            optimizer.step()
            loss += block_loss.detach() * (len(batch) / len(points))
    return losses


@torch.no_grad()
def fit_last_layer(network: BlockNetwork, coords: Tensor, target: Tensor) -> None:
    """Set the last layer of every block, in place, to what fits a target best with the other layers as they are.

    It is a ridge regression of what the last activation should be given on the last hidden units; a sine counts as its
    tangent at 0. The bias is not penalised.

    Inputs
        coords: (n_points, n_in) encoded coordinates of at most POINTS points
        target: (n_blocks, n_points, c) what to predict
    """
    at_once = max(2, points_at_once(coords.device) // (2 * len(coords)))  # in double precision
    for start in range(0, len(target), at_once):
        blocks = slice(start, start + at_once)
        _fit_last_layer(network.select(blocks), coords, target[blocks])


def _fit_last_layer(network: BlockNetwork, coords: Tensor, target: Tensor) -> None:
    features = _in_double(network.features(coords))
    within = target.clamp(LEAST, 1 - LEAST) if network.shape.output == "sigmoid" else target
    wanted = _in_double(network.before_output(within))
    mean, mean_wanted = features.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    features, wanted = features - mean, wanted - mean_wanted
    gram = features.mT @ features
    diagonal = gram.diagonal(dim1=1, dim2=2)  # a view
    mean_variance = diagonal.mean(1, keepdim=True)
    diagonal += RIDGE * mean_variance
    lives = (mean_variance > STILL * len(coords))[..., None]  # else the features are constant, or no numbers
    weight = torch.linalg.solve(torch.where(lives, gram, torch.eye(gram.shape[1]).to(gram)), features.mT @ wanted)
    network.weight[-1].copy_(torch.where(lives, weight, _in_double(network.weight[-1])))
    network.bias[-1].copy_(torch.where(lives, mean_wanted - mean @ weight, _in_double(network.bias[-1])))


def _in_double(values: Tensor) -> Tensor:
    """On the CPU where the device has no double precision."""
    return (values.cpu() if values.device.type == "mps" else values).double()


@torch.no_grad()
def predict(network: BlockNetwork, index: Tensor | slice, coords: Tensor) -> Tensor:
    """Evaluate some blocks, each with the same bits whichever others are evaluated with it.

    A product of one matrix, or of matrices of odd alignment, may be computed by another kernel than the same product in
    a batch: so at least two blocks are computed, and points in multiples of 16.

    Inputs
        index: which blocks
        coords: (n_points, n_in) encoded coordinates
    Outputs
        (n_index, n_points, n_out)
    """
    part = network.select(index)
    n_blocks, n_points = part.n_blocks, len(coords)
    if n_blocks == 1:
        part = part.select(torch.tensor([0, 0], device=coords.device))
    coords = nn.functional.pad(coords, (0, 0, 0, -n_points % 16))
    pieces = coords.split(points_at_once(coords.device))  # a densely sampled block may not fit into memory
    return torch.cat([part(piece) for piece in pieces], dim=1)[:n_blocks, :n_points]
