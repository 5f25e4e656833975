"""The kinds of networks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.block_mlp import BlockMLP
from models.block_network import BlockNetwork
from models.cosines import BlockCosines
from models.gabor import GaborMLP
from models.shape import NetworkShape

KINDS = {"mlp": BlockMLP, "filters": GaborMLP, "cosines": BlockCosines}


def make_network(n_blocks: int, shape: NetworkShape, a: float = 0.1) -> BlockNetwork:
    """Networks of a shape, of whichever kind.

    Inputs
        a: initial width of the activations that have one
    """
    network = KINDS[shape.kind](n_blocks, shape)
    for width in getattr(network, "a", []):
        width.data.fill_(a)
    return network


def form_of_networks(n_blocks: int, shape: NetworkShape) -> dict[str, torch.Size]:
    """The sizes of the tensors that networks of a shape are made of, by their names; takes no memory."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in make_network(n_blocks, shape).state_dict().items()}


def network_of(n_blocks: int, shape: NetworkShape, tensors: dict[str, Tensor]) -> BlockNetwork:
    """Networks of a shape that are made of these tensors, without a copy; RuntimeError where they do not fit."""
    with torch.device("meta"):
        network = make_network(n_blocks, shape)
    network.load_state_dict(tensors, assign=True)
    return network


def joined(networks: Sequence[BlockNetwork], order: Tensor) -> BlockNetwork:
    """Networks of one shape as one, a copy.

    Inputs
        networks: at least one
        order: (n_blocks,) which of the blocks of them all, one after the other, is the first, the second, ...
    """
    parts = [network.state_dict() for network in networks]
    tensors = {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}
    return network_of(len(order), networks[0].shape, tensors)
