"""The integers of quantised networks: which there are, and how steps follow from them."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from models.networks import form_of_networks
from models.shape import NetworkShape

AMPLITUDE_BITS, AMPLITUDES, AMPLITUDE_OF_ONE = 11, 32, 1024
"""The amplitude of a block is 2^((i - 1024) / 32), of an integer i of 11 bits."""


@dataclass(frozen=True)
class Scales:
    """How the integers of a level are distributed: standard deviations, in quarters of octaves.

    spread: of a block's own scale, about that of the level
    base: of the weights of each hidden layer, or of each tensor
    bias: of the biases of each hidden layer, more than its weights'
    first: of the largest weight of the last layer, in the first channel
    difference: of the differences between these, more than the largest one over the number of units
    chroma: of the weights in each other channel
    out: of the bias of each channel
    """

    spread: int
    base: list[int]
    bias: list[int] = field(default_factory=list)
    first: int = 0
    difference: int = 0
    chroma: list[int] = field(default_factory=list)
    out: list[int] = field(default_factory=list)


def amplitude_of(index: np.ndarray) -> np.ndarray:
    """What integers of AMPLITUDE_BITS stand for, in float64."""
    return 2.0 ** ((index - AMPLITUDE_OF_ONE) / AMPLITUDES)


def plain_tensors(tensors: dict[str, Any]) -> list[tuple[str, Any]]:
    """Those, or their sizes, that are coded of a network that is coded tensor by tensor."""
    return [(name, tensor) for name, tensor in tensors.items() if name != "amplitude"]


def tensor_sizes(shape: NetworkShape) -> list[int]:
    """Elements a block of each tensor of a network that is coded tensor by tensor."""
    return [size.numel() for _, size in plain_tensors(form_of_networks(1, shape))]


def parts_of(shape: NetworkShape, has_amplitude: bool) -> list[slice]:
    """Where the integers of an MLP are: its amplitude, last layer, output's biases, hidden layers from the last on."""
    sizes = [int(has_amplitude), shape.n_hidden * shape.n_out, shape.n_out]
    sizes += [(shape.n_hidden + 1) * shape.n_hidden] * (shape.n_layers - 2) + [(shape.n_in + 1) * shape.n_hidden]
    stops = np.cumsum(sizes).tolist()
    return [slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


@dataclass(frozen=True)
class Integers:
    """Those of the MLPs of a group.

    amplitude: (n_blocks,) or, where there is none, (n_blocks, 0)
    last: (n_blocks, n_hidden, n_out) in rotated channels
    out: (n_blocks, n_out) biases of these
    hidden: of each hidden layer, from the input on, (n_blocks, n_hidden, n_in + 1): weights, then bias, of each unit
    """

    amplitude: np.ndarray
    last: np.ndarray
    out: np.ndarray
    hidden: list[np.ndarray]

    @classmethod
    def of(cls, integers: np.ndarray, shape: NetworkShape) -> "Integers":
        amplitude, last, out, *hidden = (integers[:, part] for part in parts_of(shape, shape.output == "sine"))
        n_blocks = len(integers)
        layers = [layer.reshape(n_blocks, shape.n_hidden, layer.shape[1] // shape.n_hidden) for layer in hidden]
        return cls(amplitude, last.reshape(n_blocks, shape.n_hidden, shape.n_out), out, layers[::-1])

    def joined(self) -> np.ndarray:
        """(n_blocks, n_values)"""
        parts = [self.amplitude, self.last, self.out, *self.hidden[::-1]]
        flat = [part.reshape(len(part), prod(part.shape[1:])) for part in parts]
        return np.concatenate(flat, axis=1).astype(np.int32)

    def energy(self, layer: int) -> np.ndarray:
        """(n_blocks, n_hidden) of each unit of a hidden layer: the sum of the squares of what leads away from it."""
        if layer == len(self.hidden) - 1:
            return (self.last.astype(np.int64) ** 2).sum(2)
        return (self.hidden[layer + 1][:, :, :-1].astype(np.int64) ** 2).sum(1)


def quarters(n: np.ndarray) -> np.ndarray:
    """floor(2 log2 n), of integers n >= 1: quarters of octaves of their roots."""
    n = n.astype(np.int64)
    high = np.frexp(n.astype(np.float64))[1].astype(np.int64) - 1
    high -= (np.int64(1) << high) > n  # where a number was rounded up
    mantissa = np.where(high > 15, n >> np.maximum(high - 15, 0), n << np.maximum(15 - high, 0))
    return 2 * high + (mantissa >= 46341)


def lifts(energy: np.ndarray, floor: int) -> np.ndarray:
    """Quarters of octaves by which the steps of hidden units are divided, from what leads away from them."""
    return np.maximum(np.where(energy > 0, quarters(np.maximum(energy, 1)), 0), floor)
