"""A level of a fit: the blocks that have a network, their networks, and what they add to the next coarser level.

Notation: level 0 is the finest; windows are those of `utils.windows`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from math import isfinite, prod
from typing import Any

import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.block_networks import places
from models.encoding import encode, encoded_width
from models.networks import network_of
from models.ops import Backend, reference, serving
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
    residual: the networks predict the difference to the upsampled coarser level, else the signal itself
    group: (n_grid,) int8, to which group the network of each block of the grid belongs; -1 for blocks without one
    networks: of each group, at least one; they share a shape, and follow the order of their blocks in the grid
    fill: how the coarser level is upsampled where a block has no network, of `utils.pyramid.FILLS`
    is_whole: the level is a picture by itself; else some of its detail is left to the networks of finer levels
    """

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    frequencies: tuple[float, ...] | None
    residual: bool
    group: Tensor
    networks: tuple[BlockNetwork, ...]
    fill: str = SMOOTH
    is_whole: bool = True

    @property
    def shapes(self) -> tuple[NetworkShape, ...]:
        """Of the networks of each group."""
        return tuple(network.shape for network in self.networks)

    @property
    def blocks_by_group(self) -> list[int]:
        """Blocks whose networks are of each group."""
        return [network.n_blocks for network in self.networks]

    @property
    def device(self) -> torch.device:
        return self.group.device

    @property
    def is_there(self) -> bool:
        """Whether all of it can be read."""
        return True

    def within(self, window: Window) -> "Level":
        """The level, or one that has at least the networks of the blocks that a window touches, in pixels."""
        return self

    def reading_bytes(self, window: Window, n_rows: int) -> int:
        """Of memory that `within` takes at most, where a window, in pixels, is read n_rows rows at a time."""
        return 0

    @property
    def active_grid(self) -> Tensor:
        """(*grid) bool, which blocks have a network"""
        return (self.group >= 0).view(grid_shape(self.size, self.patch_size))

    @cached_property
    def network_grid(self) -> Tensor:
        """(*grid) index of the network of each block within its group, -1 for none"""
        return places(self.group).view(self.active_grid.shape)

    @property
    def n_parameters(self) -> int:
        return sum(network.n_parameters for network in self.networks)

    @property
    def units_grid(self) -> Tensor:
        """(*grid) units of a hidden layer of the network of each block, or of cosines the pixels of a part along each
        axis; 0 for none"""
        units = [0, *(shape.n_hidden for shape in self.shapes)]
        return torch.tensor(units, device=self.group.device)[self.group.long() + 1].view(self.active_grid.shape)

    def to(self, device: str | torch.device) -> "Level":
        """The level on a device; its networks are moved."""
        return replace(
            self, group=self.group.to(device), networks=tuple(network.to(device) for network in self.networks)
        )

    def summary(self) -> dict[str, Any]:
        """What it is made of, in plain data; the size is W H or W H D."""
        widths = (str(shape.n_hidden) for shape in self.shapes)
        by_units = dict(zip(widths, self.blocks_by_group, strict=True))
        return {
            "size": list(self.size[::-1]),
            "blocks": prod(grid_shape(self.size, self.patch_size)),
            "active_blocks": sum(by_units.values()),
            **({"blocks_by_units": by_units} if len(by_units) > 1 else {}),
            "parameters": self.n_parameters,
        }

    def check(self, size: tuple[int, ...], n_channels: int) -> None:
        """TypeError if the level does not have this size and number of channels, or cannot be evaluated."""
        self.check_form(size, n_channels)
        n_grid = prod(grid_shape(size, self.patch_size))
        if len(self.group) != n_grid:
            raise TypeError(f"{len(self.group)} blocks for size {size} and patch {self.patch_size}")
        for network in self.networks:
            check_numbers(network)

    def check_form(self, size: tuple[int, ...], n_channels: int) -> None:
        """The same of all but the networks of its blocks."""
        if self.size != size or len(self.patch_size) != len(size) or min(self.patch_size) < 1:
            raise TypeError(f"size {self.size} and patch {self.patch_size} where the level is {size}")
        n_in = encoded_width(len(size), self.frequencies)
        for shape in self.shapes:
            if (shape.n_in, shape.n_out) != (n_in, n_channels):
                raise TypeError(f"network {shape} for {n_in} inputs and {n_channels} channels")
            if shape.lengths and shape.lengths != tuple(self.patch_size):
                raise TypeError(f"cosines of blocks of {shape.lengths} in blocks of {self.patch_size}")
            if shape.lengths and self.frequencies is not None:
                raise TypeError("cosines of encoded positions")

    def record(self) -> dict[str, Any]:
        """Plain data, from which `from_record` rebuilds the level."""
        return {
            "size": list(self.size),
            "patch_size": list(self.patch_size),
            "frequencies": self.frequencies and list(self.frequencies),
            "residual": self.residual,
            **({} if self.fill == SMOOTH else {"fill": self.fill}),  # so that older records stay as they are
            **({} if self.is_whole else {"is_whole": False}),
            **self._record_of_networks(),
        }

    def _record_of_networks(self) -> dict[str, Any]:
        """A single group is spelled as levels were when there was no other."""
        shapes = [network.shape.record() for network in self.networks]
        tensors = [{name: tensor.cpu() for name, tensor in one.state_dict().items()} for one in self.networks]
        if len(self.networks) == 1:
            return {"active": (self.group >= 0).cpu(), "network_shape": shapes[0], "network": tensors[0]}
        return {"group": self.group.cpu(), "network_shapes": shapes, "networks": tensors}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Level":
        """TypeError, KeyError or the like for a record that is not consistent; allocates nothing."""
        if "group" in record:
            group, shapes, tensors = (record[name] for name in ("group", "network_shapes", "networks"))
            if not (isinstance(shapes, list) and isinstance(tensors, list)):
                raise TypeError("networks that are no list")
        else:
            active, shapes, tensors = record["active"], [record["network_shape"]], [record["network"]]
            if active.dtype != torch.bool:
                raise TypeError(f"activity {active.dtype}")
            group = active.to(torch.int8) - 1
        if not shapes or group.dtype != torch.int8 or group.ndim != 1 or ((group < -1) | (group >= len(shapes))).any():
            raise TypeError(f"groups {group.dtype} {tuple(group.shape)} of {len(shapes)}")
        networks = tuple(
            _network_from_record(int((group == number).sum()), *of_group)
            for number, of_group in enumerate(zip(shapes, tensors, strict=True))
        )
        return cls(**form_of(record), group=group, networks=networks)


def form_of(record: dict[str, Any]) -> dict[str, Any]:
    """What a record says about a level, besides its networks: fields of `Level`; TypeError or the like for a record
    that is not consistent."""
    sizes = {name: tuple(record[name]) for name in ("size", "patch_size")}
    if not all(type(length) is int for lengths in sizes.values() for length in lengths):
        raise TypeError(f"size {record['size']}, patch {record['patch_size']}")
    frequencies = record["frequencies"]
    if not (isinstance(record["residual"], bool) and isinstance(frequencies, list | None)):
        raise TypeError(f"residual {record['residual']}, frequencies {frequencies}")
    frequencies = frequencies and tuple(map(float, frequencies))
    if not all(map(isfinite, frequencies or ())):
        raise TypeError(f"frequencies {frequencies}")
    fill = record.get("fill", SMOOTH)
    if fill not in FILLS:
        raise TypeError(f"fill {fill}")
    is_whole = record.get("is_whole", True)
    if not isinstance(is_whole, bool):
        raise TypeError(f"is_whole {is_whole}")
    return sizes | dict(frequencies=frequencies, residual=record["residual"], fill=fill, is_whole=is_whole)


def check_numbers(network: BlockNetwork) -> None:
    """TypeError if a parameter of some block is no finite number."""
    filled = (tensor for tensor in network.state_dict().values() if tensor.numel())
    if not all(bound.isfinite() for tensor in filled for bound in tensor.aminmax()):  # which takes no memory
        raise TypeError("parameters that are not finite numbers")


def _network_from_record(n_blocks: int, record: dict[str, Any], tensors: dict[str, Tensor]) -> BlockNetwork:
    """The networks of a group; TypeError or the like for a record that is not consistent."""
    shape = NetworkShape.from_record(record)
    if shape.n_layers > len(tensors):
        raise TypeError(f"{len(tensors)} tensors of a network of {shape.n_layers} layers")
    network = network_of(n_blocks, shape, tensors)
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise TypeError("parameters that are not float32")
    return network


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
    device, networks_device = base.device, level.networks[0].amplitude.device
    out, networks = (base if fill is None else fill).clone(), level.network_grid
    groups = level.group.view(networks.shape)
    fine_patch = tuple(patch * scale for patch in level.patch_size)
    pieces = []
    for of_grid, of_block, of_window in _pieces(window, fine_patch):
        index, group = (grid[slices(of_grid)].flatten() for grid in (networks, groups))
        for number, network in enumerate(level.networks):
            blocks = (group == number).nonzero().squeeze(1)  # in the grid of the piece
            if len(blocks):
                views = [view_blocks(values[:, *slices(of_window)], size_of(of_block)) for values in (base, out)]
                pieces.append((of_block, network, index, blocks, *views))
    for box in _boxes(fine_patch, points_at_once(networks_device)):
        touched = [(shared, piece) for piece in pieces if (shared := intersection(box, piece[0]))]
        if not touched:
            continue
        # the whole box is encoded, since the product in it rounds by its shape
        coords = encode(block_coords(level.patch_size, scale, box).to(networks_device), level.frequencies)
        coords = coords.view(*size_of(box), -1)
        for shared, (of_block, network, index, blocks, base_view, view) in touched:
            base_part, part = (whole[..., *slices(shared, of_block)] for whole in (base_view, view))
            wanted = coords[slices(shared, box)].flatten(0, -2)
            for some in blocks.split(blocks_at_once(len(wanted), b_chunks, networks_device)):
                values = (
                    serving(backend, network.shape).predict(network, index[some].to(networks_device), wanted).to(device)
                )
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
