"""The coding without loss: parameters as they are, float32, compressed by zlib."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.networks import form_of_networks, network_of
from models.packed.inflate import inflated, inflated_start
from models.packed.layout import from_planes, to_planes
from models.shape import NetworkShape


class Float32:
    """
    Inputs
        shapes: of the networks of each group
    """

    name = "float32"

    def __init__(self, shapes: Sequence[NetworkShape]):
        self.shapes = shapes
        self._n_numbers = [sum(map(_count, form_of_networks(1, shape).values())) for shape in shapes]  # of a block

    def record(self) -> dict[str, Any]:
        return {"name": self.name}

    def encode(self, group: Tensor, networks: list[BlockNetwork]) -> bytes:
        tensors = [tensor.detach().reshape(-1) for network in networks for tensor in network.state_dict().values()]
        numbers = torch.cat(tensors).cpu().numpy()
        return zlib.compress(group.cpu().numpy().tobytes() + to_planes(numbers), 9)

    def decode(self, data: bytes, n_active: int) -> tuple[Tensor, list[BlockNetwork]]:
        first, _ = inflated_start(data, n_active)
        group = np.frombuffer(first, np.int8)
        if group.min() < 0 or group.max() >= len(self.shapes):
            raise ValueError(f"groups {group.min()} to {group.max()} of {len(self.shapes)}")
        counts = np.bincount(group, minlength=len(self.shapes)).tolist()
        total = sum(count * n_numbers for count, n_numbers in zip(counts, self._n_numbers, strict=True))
        numbers = torch.from_numpy(from_planes(inflated(data, n_active + 4 * total)[n_active:], "<f4"))
        networks = []
        for count, shape, n_numbers in zip(counts, self.shapes, self._n_numbers, strict=True):
            networks.append(_network(count, shape, numbers[: count * n_numbers]))
            numbers = numbers[count * n_numbers :]
        return torch.tensor(group), networks


def _network(n_blocks: int, shape: NetworkShape, numbers: Tensor) -> BlockNetwork:
    """Networks from all their numbers, in the order of their tensors."""
    form = form_of_networks(n_blocks, shape)
    parts = numbers.split(list(map(_count, form.values())))
    tensors = {name: part.view(size) for (name, size), part in zip(form.items(), parts, strict=True)}
    return network_of(n_blocks, shape, tensors)


def _count(size: torch.Size) -> int:
    return size.numel()
