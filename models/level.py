"""A level of a fit: the blocks that have a network, their networks, and what they add to the next coarser level.

Notation: level 0 is the finest; windows are those of `utils.windows`.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.encoding import encode, encoded_width
from models.networks import make_network
from models.ops import Backend, reference
from models.ops.batching import blocks_at_once
from models.shape import NetworkShape
from utils.blocks import block_coords, gather_blocks, grid_shape, scatter_blocks_
from utils.windows import Window


@dataclass(frozen=True)
class Level:
    """What one level adds to the next coarser one.

    size: of the level, without padding
    patch_size: pixels of a block along each axis
    frequencies: of the positional encoding, or None
    residual: the network predicts the difference to the upsampled coarser level, else the signal itself
    active: (n_grid,) bool, which blocks of the grid have a network
    network: the networks of the active blocks, in their order in the grid
    """

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    frequencies: tuple[float, ...] | None
    residual: bool
    active: Tensor
    network: BlockNetwork

    @property
    def active_grid(self) -> Tensor:
        """(*grid) bool"""
        return self.active.view(grid_shape(self.size, self.patch_size))

    @property
    def network_grid(self) -> Tensor:
        """(*grid) index of the network of each block, -1 for none"""
        return torch.where(self.active, self.active.cumsum(0) - 1, -1).view(self.active_grid.shape)

    def summary(self) -> dict[str, Any]:
        """What it is made of, in plain data; the size is W H or W H D."""
        return {
            "size": list(self.size[::-1]),
            "blocks": self.active.numel(),
            "active_blocks": self.network.n_blocks,
            "parameters": self.network.n_parameters,
        }

    def check(self, size: tuple[int, ...], n_channels: int) -> None:
        """TypeError if the level does not have this size and number of channels, or cannot be evaluated."""
        if self.size != size or len(self.patch_size) != len(size) or min(self.patch_size) < 1:
            raise TypeError(f"size {self.size} and patch {self.patch_size} where the level is {size}")
        n_grid = prod(grid_shape(size, self.patch_size))
        if len(self.active) != n_grid:
            raise TypeError(f"{len(self.active)} blocks for size {size} and patch {self.patch_size}")
        n_in = encoded_width(len(size), self.frequencies)
        if (self.network.shape.n_in, self.network.shape.n_out) != (n_in, n_channels):
            raise TypeError(f"network {self.network.shape} for {n_in} inputs and {n_channels} channels")
        filled = (tensor for tensor in self.network.state_dict().values() if tensor.numel())
        if not all(bound.isfinite() for tensor in filled for bound in tensor.aminmax()):  # which takes no memory
            raise TypeError("parameters that are not finite numbers")

    def record(self) -> dict[str, Any]:
        """Plain data, from which `from_record` rebuilds the level."""
        return {
            "size": list(self.size),
            "patch_size": list(self.patch_size),
            "frequencies": self.frequencies and list(self.frequencies),
            "residual": self.residual,
            "active": self.active.cpu(),
            "network_shape": self.network.shape.record(),
            "network": {name: tensor.cpu() for name, tensor in self.network.state_dict().items()},
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Level":
        """TypeError, KeyError or the like for a record that is not consistent; allocates nothing."""
        active, tensors = record["active"], record["network"]
        shape = NetworkShape.from_record(record["network_shape"])
        if active.dtype != torch.bool or active.ndim != 1:
            raise TypeError(f"activity {active.dtype} {tuple(active.shape)}")
        if shape.n_layers > len(tensors):
            raise TypeError(f"{len(tensors)} tensors of a network of {shape.n_layers} layers")
        with torch.device("meta"):
            network = make_network(int(active.sum()), shape)
        network.load_state_dict(tensors, assign=True)
        if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
            raise TypeError("parameters that are not float32")
        frequencies = record["frequencies"]
        if not (isinstance(record["residual"], bool) and isinstance(frequencies, list | None)):
            raise TypeError(f"residual {record['residual']}, frequencies {frequencies}")
        return cls(
            size=tuple(record["size"]),
            patch_size=tuple(record["patch_size"]),
            frequencies=frequencies and tuple(map(float, frequencies)),
            residual=record["residual"],
            active=active,
            network=network,
        )


def refine(
    level: Level,
    base: Tensor,
    window: Window,
    scale: int = 1,
    b_chunks: int = 16384,
    backend: Backend = reference,
) -> Tensor:
    """Add a level's networks to the upsampled coarser level, touching only the blocks that the window needs.

    Inputs
        base: (c, *[(stop - start) * scale]) the upsampled coarser level in the window; not changed, and not
            necessarily on the device of the networks
        window: in pixels of this level
        scale: samples a pixel along each axis
        b_chunks: blocks evaluated at once, at most
        backend: that evaluates them
    Outputs
        (c, *[(stop - start) * scale]) in [0, 1]
    """
    device = base.device
    first = [start // patch for (start, _), patch in zip(window, level.patch_size, strict=True)]
    grid_window = tuple(
        slice(low, -(-stop // patch)) for low, (_, stop), patch in zip(first, window, level.patch_size, strict=True)
    )
    networks = level.network_grid[grid_window].to(device)
    blocks = (networks.flatten() >= 0).nonzero().squeeze(1)  # in the grid of the window
    index = networks.flatten()[blocks]

    fine_patch = tuple(patch * scale for patch in level.patch_size)
    canvas = base.new_zeros(len(base), *[n * patch for n, patch in zip(networks.shape, fine_patch, strict=True)])
    inner = tuple(
        slice((start - low * patch) * scale, (stop - low * patch) * scale)
        for low, (start, stop), patch in zip(first, window, level.patch_size, strict=True)
    )
    canvas[:, *inner] = base
    networks_device = level.network.amplitude.device
    coords = encode(block_coords(level.patch_size, scale).to(networks_device), level.frequencies)
    for some in torch.arange(len(blocks), device=device).split(blocks_at_once(len(coords), b_chunks, networks_device)):
        values = backend.predict(level.network, index[some].to(networks_device), coords).to(device)
        if level.residual:
            values = values + gather_blocks(canvas, fine_patch, blocks[some])
        scatter_blocks_(canvas, fine_patch, blocks[some], values.clamp_(0, 1))
    return canvas[:, *inner].contiguous()
