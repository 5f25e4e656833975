"""A level of a fit: the blocks that have a network, their networks, and what they add to the next coarser level.

Notation: level 0 is the finest; windows are those of `utils.windows`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import Any

import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.encoding import encode, encoded_width
from models.networks import make_network
from models.ops import Backend, reference
from models.ops.batching import blocks_at_once, points_at_once
from models.shape import NetworkShape
from utils.blocks import block_coords, grid_shape, read_view, view_blocks, write_view_
from utils.pyramid import FILLS, SMOOTH
from utils.windows import Window, intersection, size_of, slices


@dataclass(frozen=True)
class Level:
    """What one level adds to the next coarser one.

    size: of the level, without padding
    patch_size: pixels of a block along each axis
    frequencies: of the positional encoding, or None
    residual: the network predicts the difference to the upsampled coarser level, else the signal itself
    active: (n_grid,) bool, which blocks of the grid have a network
    network: the networks of the active blocks, in their order in the grid
    fill: how the coarser level is upsampled where a block has no network, of `utils.pyramid.FILLS`
    """

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    frequencies: tuple[float, ...] | None
    residual: bool
    active: Tensor
    network: BlockNetwork
    fill: str = SMOOTH

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
            **({} if self.fill == SMOOTH else {"fill": self.fill}),  # so that older records stay as they are
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
        fill = record.get("fill", SMOOTH)
        if fill not in FILLS:
            raise TypeError(f"fill {fill}")
        return cls(
            size=tuple(record["size"]),
            patch_size=tuple(record["patch_size"]),
            frequencies=frequencies and tuple(map(float, frequencies)),
            residual=record["residual"],
            active=active,
            network=network,
            fill=fill,
        )


def refine(
    level: Level,
    base: Tensor,
    window: Window,
    scale: int = 1,
    b_chunks: int = 16384,
    backend: Backend = reference,
    fill: Tensor | None = None,
) -> Tensor:
    """Add a level's networks to the upsampled coarser level, evaluating them in the window alone.

    Inputs
        base: (c, *[stop - start]) the upsampled coarser level in the window; not changed, and not necessarily on the
            device of the networks
        window: in samples of this level, `scale` a pixel along each axis
        b_chunks: blocks evaluated at once, at most
        backend: that evaluates them
        fill: as base, what blocks without a network show; None for the base
    Outputs
        (c, *[stop - start]) in [0, 1]
    """
    device, networks_device = base.device, level.network.amplitude.device
    out, networks = (base if fill is None else fill).clone(), level.network_grid
    fine_patch = tuple(patch * scale for patch in level.patch_size)
    pieces = []
    for of_grid, of_block, of_window in _pieces(window, fine_patch):
        index = networks[slices(of_grid)].flatten()
        blocks = (index >= 0).nonzero().squeeze(1)  # in the grid of the piece
        if len(blocks):
            views = [view_blocks(values[:, *slices(of_window)], size_of(of_block)) for values in (base, out)]
            pieces.append((of_block, index, blocks, *views))
    for box in _boxes(fine_patch, points_at_once(networks_device)):
        touched = [(shared, piece) for piece in pieces if (shared := intersection(box, piece[0]))]
        if not touched:
            continue
        # the whole box is encoded, since the product in it rounds by its shape
        coords = encode(block_coords(level.patch_size, scale, box).to(networks_device), level.frequencies)
        coords = coords.view(*size_of(box), -1)
        for shared, (of_block, index, blocks, base_view, view) in touched:
            base_part, part = (whole[..., *slices(shared, of_block)] for whole in (base_view, view))
            wanted = coords[slices(shared, box)].flatten(0, -2)
            for some in blocks.split(blocks_at_once(len(wanted), b_chunks, networks_device)):
                values = backend.predict(level.network, index[some].to(networks_device), wanted).to(device)
                some = some.to(device)
                if level.residual:
                    values = values + read_view(base_part, some)
                write_view_(part, some, values.clamp_(0, 1))
    return out


def _pieces(window: Window, patch: tuple[int, ...]) -> Iterator[tuple[Window, Window, Window]]:
    """Cut a window into pieces that are made of the same part of each of their blocks.

    Inputs
        window: in samples
        patch: samples of a block along each axis
    Outputs
        windows of each piece: in the grid of blocks, in the samples of each of its blocks, in those of the window
    """
    along = (_pieces_along(start, stop, length) for (start, stop), length in zip(window, patch, strict=True))
    return (tuple(zip(*piece, strict=True)) for piece in product(*along))


def _pieces_along(start: int, stop: int, patch: int) -> list[tuple[tuple[int, int], ...]]:
    """The first block where it is not whole, the whole ones, and the last one where it is not whole."""
    inner = -(-start // patch) * patch, stop // patch * patch
    cuts = sorted({start, *(cut for cut in inner if start < cut < stop), stop})
    pieces = []
    for low, high in pairwise(cuts):
        first, last = low // patch, -(-high // patch)
        of_block = (0, patch) if last - first > 1 else (low - first * patch, high - first * patch)
        pieces.append(((first, last), of_block, (low - start, high - start)))
    return pieces


def _boxes(size: tuple[int, ...], n_points: int) -> Iterator[Window]:
    """Cut the samples of a block into boxes of at most so many points, or of one."""
    cuts = []
    for length in reversed(size):
        step = max(1, min(length, n_points))
        n_points //= step
        cuts.insert(0, [(low, min(low + step, length)) for low in range(0, length, step)])
    return product(*cuts)
