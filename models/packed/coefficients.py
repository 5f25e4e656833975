"""Networks of cosines whose coefficients are whole numbers of steps."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from math import isfinite, prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.networks import network_of
from models.packed.contexts import N_CONTEXTS, group_model, n_parts_of
from models.packed.groups import check_bounds
from models.packed.slow_coder import TOTAL
from models.packed.slow_coefficients import BROADEST, NARROWEST, decode_coefficients
from models.shape import NetworkShape
from utils.compiler import load_library
from utils.errors import KernelError

_SPREADS = (
    (4294319902, 483),
    (4292341693, 6163),
    (4286445224, 52418),
    (4272031750, 317125),
    (4242236523, 1440801),
    (4188774636, 5145013),
    (4103650747, 15004422),
    (3981108382, 36905875),
    (3819071355, 78665070),
    (3619619976, 148652826),
    (3388491525, 253857248),
    (3133927343, 398132550),
    (2865296878, 581260615),
    (2591854073, 799036310),
    (2321826706, 1044178424),
    (2061891250, 1307656790),
    (1816986729, 1580030169),
    (1590375719, 1852521207),
    (1383855085, 2117713904),
    (1198035171, 2369882518),
    (1032629868, 2605029347),
    (886722532, 2820730047),
    (758990523, 3015876649),
    (647883229, 3190386796),
    (551755765, 3344923893),
)
"""Of each table, 2^32 times how frequent 0 is, and how much rarer each magnitude from 2 on is than the one before."""

_MOST_MAGNITUDES, _RAREST = 15, 2**17
_FARTHEST_SCALE = BROADEST + 64
_FEW, _MOST_A_BYTE = 2**16, 2**15  # values of a chunk, beyond what its bytes can hold: most take next to nothing
_MOST = 2**26  # values of a chunk: 64 of the largest blocks, of 64 channels


@dataclass(frozen=True)
class Coefficients:
    """
    shapes: of the networks of each group, which differ in `n_hidden` alone
    step: of all coefficients, in units of the signal
    rotation: rows are the rotated channels; orthonormal
    starts: how frequent the groups are: bounds from 0 to 2^14
    scales: of the contexts: class of channels by band by activity
    """

    name: ClassVar[str] = "coefficients"

    shapes: tuple[NetworkShape, ...]
    step: float
    rotation: tuple[tuple[float, ...], ...]
    starts: tuple[int, ...]
    scales: tuple[int, ...]

    def __post_init__(self) -> None:
        """ValueError for what no networks are coded by."""
        first = self.shapes[0]
        like = {(one.kind, one.n_in, one.n_out, one.lengths) for one in self.shapes}
        if first.kind != "cosines" or len(like) != 1:
            raise ValueError("networks that are too different, or not of cosines")
        if len(self.rotation) != first.n_out or any(len(row) != first.n_out for row in self.rotation):
            raise ValueError("a rotation of other channels")
        numbers = [self.step, *(number for row in self.rotation for number in row)]
        if not all(isfinite(number) for number in numbers) or self.step <= 0:
            raise ValueError(f"a step of {self.step}")
        if len(self.scales) != N_CONTEXTS or not all(
            type(scale) is int and NARROWEST <= scale <= _FARTHEST_SCALE for scale in self.scales
        ):
            raise ValueError("scales that are none")
        check_bounds(self.starts, len(self.shapes))

    def record(self) -> dict[str, Any]:
        """Plain data for the header, without the shapes, which it has anyway."""
        rotation = [list(row) for row in self.rotation]
        return dict(
            name=self.name, step=self.step, rotation=rotation, starts=list(self.starts), scales=list(self.scales)
        )

    @classmethod
    def from_record(cls, shapes: Sequence[NetworkShape], record: dict[str, Any]) -> "Coefficients":
        """TypeError, ValueError or KeyError for a record that is not consistent."""
        rotation = tuple(tuple(map(float, row)) for row in record["rotation"])
        return cls(tuple(shapes), float(record["step"]), rotation, tuple(record["starts"]), tuple(record["scales"]))

    @property
    def n_values(self) -> int:
        """Integers of a block."""
        return prod(self.shapes[0].lengths) * self.shapes[0].n_out

    @cached_property
    def model(self) -> np.ndarray:
        """As coefficients.c takes it."""
        numbers = np.array([len(self.shapes), self.shapes[0].n_out, *self.starts, *self.scales], np.int32)
        return np.concatenate([numbers, *map(group_model, self.shapes)])

    def decode(self, data: bytes, n_active: int) -> tuple[Tensor, list[BlockNetwork]]:
        """The group of each active block of a chunk, and the networks of each group; ValueError if it is damaged."""
        if n_active * self.n_values > min(_MOST, _FEW + _MOST_A_BYTE * len(data)):
            raise ValueError("a chunk that is too short")
        groups, values = decode_chunk(data, n_active, self)
        networks = [self.networks_of(values[groups == number], shape) for number, shape in enumerate(self.shapes)]
        return torch.from_numpy(groups.astype(np.int8)), networks

    def encode(self, group: Tensor, networks: Sequence[BlockNetwork]) -> bytes:
        """The inverse, of networks that `networks_of` has made."""
        groups = group.numpy().astype(np.int32)
        values = np.empty((len(groups), self.n_values), np.int32)
        for number, network in enumerate(networks):
            values[groups == number] = self.integers_of(network)
        return encode_chunk(groups, values, self)

    def networks_of(self, integers: np.ndarray, shape: NetworkShape) -> BlockNetwork:
        """The networks of a group from their integers, (n_blocks, n_values)."""
        rotated = torch.from_numpy(from_parts(integers, shape)).double()
        weight = rotated @ (torch.tensor(self.rotation, dtype=torch.float64) * self.step)
        return network_of(
            len(integers), shape, {"weight.0": weight.float(), "amplitude": torch.ones(len(integers), 1, 1)}
        )

    def integers_of(self, network: BlockNetwork) -> np.ndarray:
        """The inverse of `networks_of`, of networks that it has made."""
        rotated = network.weight[0].detach().double() @ torch.tensor(self.rotation, dtype=torch.float64).T
        return to_parts(rotated / self.step, network.shape).round().int().numpy().reshape(-1, self.n_values)


def to_parts(weight: Tensor, shape: NetworkShape) -> Tensor:
    """(n_blocks, n_cosines, n_out), as cosines lie -> (n_blocks, n_parts, n_out, n_coefficients), as they are coded."""
    n_axes, n = shape.n_in, shape.n_hidden
    cut = weight.view(len(weight), *(size for length in shape.lengths for size in (length // n, n)), shape.n_out)
    parts, within = ([1 + 2 * axis + of for axis in range(n_axes)] for of in (0, 1))
    moved = cut.permute(0, *parts, 1 + 2 * n_axes, *within)
    return moved.reshape(len(weight), n_parts_of(shape), shape.n_out, n**n_axes).contiguous()


def from_parts(integers: np.ndarray, shape: NetworkShape) -> np.ndarray:
    """The inverse, of (n_blocks, n_values)."""
    n_axes, n = shape.n_in, shape.n_hidden
    grid = [length // n for length in shape.lengths]
    cut = integers.reshape(len(integers), *grid, shape.n_out, *[n] * n_axes)
    order = [number for axis in range(n_axes) for number in (1 + axis, 2 + n_axes + axis)]
    moved = cut.transpose(0, *order, 1 + n_axes)
    return np.ascontiguousarray(moved.reshape(len(integers), prod(shape.lengths), shape.n_out))


def bounds_of(zero: int, ratio: int) -> list[int]:
    """The bounds of the magnitudes 0, 1, ... and of the escape, of 2^14."""
    weights, left = [], 2**32 - zero
    while len(weights) + 1 < _MOST_MAGNITUDES and (weight := left * (2**32 - ratio) >> 32) >= _RAREST:
        weights.append(weight)
        left -= weight
    spare = TOTAL - len(weights) - 2
    counts = [1 + (weight * spare >> 32) for weight in (*weights, left)]
    return [0, *accumulate([TOTAL - sum(counts), *counts])]


@lru_cache
def spreads() -> list[list[int]]:
    """`bounds_of` each scale from NARROWEST to BROADEST."""
    assert len(_SPREADS) == BROADEST - NARROWEST + 1
    return [bounds_of(*one) for one in _SPREADS]


@lru_cache
def compiled() -> ctypes.CDLL:
    """coefficients.c; KernelError or OSError where it cannot be compiled."""
    library = load_library(Path(__file__).with_suffix(".c"), ("-O3", "-shared", "-fPIC"))
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.decode_coefficients.argtypes = [ctypes.c_char_p, size, number, *[pointer] * 3]
    library.encode_coefficients.argtypes = [pointer, pointer, number, pointer, pointer, size]
    library.decode_coefficients.restype = library.encode_coefficients.restype = size
    reals = [ctypes.c_float] * 2
    library.choose.argtypes = [pointer, ctypes.c_float, size, number, pointer, pointer, *reals, *[pointer] * 4]
    bounds = np.array([number for table in spreads() for number in (len(table) - 2, *table)], np.int32)
    library.set_spreads(ctypes.c_void_p(bounds.ctypes.data))
    library.set_bits()
    return library


def decode_chunk(data: bytes, n_active: int, coding: Coefficients) -> tuple[np.ndarray, np.ndarray]:
    """The group of each active block, (n_active,) int32, and the integers, (n_active, n_values) int32; ValueError for
    data that is not a chunk of such blocks."""
    groups, values = np.zeros(n_active, np.int32), np.empty((n_active, coding.n_values), np.int32)
    try:
        library = compiled()
    except (KernelError, OSError):
        return decode_coefficients(data, n_active, coding.shapes, list(coding.starts), coding.scales, spreads())
    model = coding.model
    pointers = [array.ctypes.data for array in (model, groups, values)]
    if library.decode_coefficients(data, len(data), n_active, *pointers) < 0:
        raise ValueError("a chunk that does not decode")
    return groups, values


def encode_chunk(groups: np.ndarray, values: np.ndarray, coding: Coefficients) -> bytes:
    """The inverse; KernelError or OSError where the coder cannot be compiled."""
    groups, values = (np.ascontiguousarray(array, np.int32) for array in (groups, values))
    buffer, model = np.empty(64 + 8 * values.size, np.uint8), coding.model
    pointers = [array.ctypes.data for array in (groups, values)]
    begin = compiled().encode_coefficients(*pointers, len(groups), model.ctypes.data, buffer.ctypes.data, len(buffer))
    assert begin >= 0
    return buffer[begin:].tobytes()
