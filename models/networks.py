"""The kinds of networks."""

import torch
from torch import Tensor

from models.block_mlp import BlockMLP
from models.block_network import BlockNetwork
from models.gabor import GaborMLP
from models.shape import NetworkShape

KINDS = {"mlp": BlockMLP, "filters": GaborMLP}


def make_network(n_blocks: int, shape: NetworkShape, a: float = 0.1) -> BlockNetwork:
    """Networks of a shape, of whichever kind.

    Inputs
        a: initial width of the activations that have one
    """
    network = KINDS[shape.kind](n_blocks, shape)
    for width in getattr(network, "a", []):
        width.data.fill_(a)
    return network


def network_of(n_blocks: int, shape: NetworkShape, tensors: dict[str, Tensor]) -> BlockNetwork:
    """Networks of a shape that are made of these tensors, without a copy; RuntimeError where they do not fit."""
    with torch.device("meta"):
        network = make_network(n_blocks, shape)
    network.load_state_dict(tensors, assign=True)
    return network
