"""The kinds of networks."""

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
