"""Quantised chunks: the parameters of networks as integers, whose steps and scales follow from what is decoded before.

The widths of activations are folded into the weights. An MLP is coded from its output to its input: the step of the
weights that lead to a hidden unit is inverse to the weights that lead away from it, since an error is multiplied by
these. docs/format.md says exactly how.

Notation: the *rotated channels* of the last layer are its outputs times `rotation`; they are hardly correlated, and the
first holds most. Integers of a block are in the order in which they are decoded.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.networks import form_of_networks, network_of
from models.packed.described import describe
from models.packed.groups import check_bounds
from models.packed.integers import (
    AMPLITUDE_OF_ONE,
    AMPLITUDES,
    Integers,
    Scales,
    amplitude_of,
    lifts,
    parts_of,
    plain_tensors,
    tensor_sizes,
)
from models.packed.rans import SYMBOL, decode_chunk, encode_values
from models.packed.slow_coder import Model
from models.shape import NetworkShape

_MOST_UNITS, _FARTHEST_SCALE = 4096, 200
_FEW, _MOST_A_BYTE = 2**22, 2**9  # values of a chunk: so many may be there anyway, and that many more for each byte


@dataclass(frozen=True)
class Quantised:
    """The coding of a level's chunks.

    shapes: of the networks of each group
    steps: of the weights of each layer, from the input on, before they are divided by what follows from the next layer;
        of an MLP those of the last layer in units of the signal (before a sigmoid, of its argument). Of other networks,
        of each tensor
    floors: of each hidden layer, the least quarter of an octave that its step is divided by
    rotation: rows are the rotated channels
    starts: how frequent the groups are: bounds from 0 to 2^14
    """

    name: ClassVar[str] = "quantised"

    shapes: tuple[NetworkShape, ...]
    steps: tuple[float, ...]
    floors: tuple[int, ...]
    rotation: tuple[tuple[float, ...], ...]
    starts: tuple[int, ...]
    scales: Scales

    def record(self) -> dict[str, Any]:
        """Plain data for the header, without the shapes, which it has anyway."""
        return {
            "name": self.name,
            "steps": list(self.steps),
            "floors": list(self.floors),
            "rotation": [list(row) for row in self.rotation],
            "starts": list(self.starts),
            "scales": asdict(self.scales),
        }

    @classmethod
    def from_record(cls, shapes: Sequence[NetworkShape], record: dict[str, Any]) -> "Quantised":
        """TypeError, ValueError or KeyError for a record that is not consistent."""
        coding = cls(
            shapes=tuple(shapes),
            steps=tuple(map(float, record["steps"])),
            floors=tuple(record["floors"]),
            rotation=tuple(tuple(map(float, row)) for row in record["rotation"]),
            starts=tuple(record["starts"]),
            scales=Scales(**{one.name: record["scales"][one.name] for one in fields(Scales)}),
        )
        coding.check()
        return coding

    @property
    def is_mlp(self) -> bool:
        return self.shapes[0].kind == "mlp"

    @property
    def has_amplitude(self) -> bool:
        return self.is_mlp and self.shapes[0].output == "sine"

    def check(self) -> None:
        """ValueError or TypeError for what no networks are coded by."""
        first, scales = self.shapes[0], self.scales
        like = {(one.kind, one.n_in, one.n_out, one.n_layers, one.activation, one.output) for one in self.shapes}
        if len(like) != 1 or max(one.n_hidden for one in self.shapes) > _MOST_UNITS:
            raise ValueError("networks that are too different, or too large")
        n_hidden, n_rotated = (first.n_layers - 1, first.n_out) if self.is_mlp else (0, 0)
        n_steps = first.n_layers if self.is_mlp else len(tensor_sizes(first))
        lists = (self.steps, self.floors, self.rotation, scales.base, scales.bias, scales.chroma, scales.out)
        n_base = n_hidden or n_steps
        wanted = (n_steps, n_hidden, n_rotated, n_base, n_hidden, max(0, n_rotated - 1), n_rotated)
        if tuple(map(len, lists)) != wanted or any(len(row) != n_rotated for row in self.rotation):
            raise ValueError("a coding of another shape")
        numbers = [*self.steps, *(number for row in self.rotation for number in row)]
        if not all(isfinite(number) for number in numbers) or min(self.steps) <= 0:
            raise ValueError(f"steps {self.steps}")
        whole = [*self.floors, scales.spread, scales.first, scales.difference]
        whole += [*scales.base, *scales.bias, *scales.chroma, *scales.out]
        if not all(type(number) is int and abs(number) <= _FARTHEST_SCALE for number in whole):
            raise ValueError(f"scales {scales}")
        check_bounds(self.starts, len(self.shapes))

    @property
    def model(self) -> list[int]:
        """What the entropy coder wants to know."""
        shape, scales = self.shapes[0], self.scales
        sizes = [tensor_sizes(one) for one in self.shapes] if not self.is_mlp else []
        return Model(
            n_layers=shape.n_layers if self.is_mlp else 0,
            n_in=shape.n_in if self.is_mlp else len(sizes[0]),
            n_out=shape.n_out if self.is_mlp else 1,
            has_amplitude=self.has_amplitude,
            spread=scales.spread,
            first=scales.first,
            difference=scales.difference,
            starts=list(self.starts),
            hidden=[one.n_hidden for one in self.shapes] if self.is_mlp else [size for one in sizes for size in one],
            chroma=scales.chroma,
            out=scales.out,
            base=scales.base,
            bias=scales.bias,
            floors=list(self.floors),
        ).packed()

    def layer_steps(self, layer: int, energy: np.ndarray) -> np.ndarray:
        """(n_blocks, n_hidden) the steps of the weights that lead to the units of a hidden layer.

        Inputs
            energy: (n_blocks, n_hidden), as `Integers.energy`
        """
        return self.steps[layer] * 2.0 ** (-lifts(energy, self.floors[layer]) / 4)

    def n_values(self, shape: NetworkShape) -> int:
        """Integers of a block."""
        return sum(tensor_sizes(shape)) if not self.is_mlp else parts_of(shape, self.has_amplitude)[-1].stop

    def decode(self, data: bytes, n_active: int) -> tuple[Tensor, list[BlockNetwork]]:
        """The group of each active block of a chunk, and the networks of each group; ValueError if it is damaged."""
        counts = np.array([self.n_values(shape) for shape in self.shapes])
        if n_active * counts.max() > _FEW + _MOST_A_BYTE * len(data):
            raise ValueError("a chunk that is too short")
        groups, values = decode_chunk(data, n_active, self.model, int(counts.max()))
        starts = np.cumsum(counts[groups]) - counts[groups]
        networks = []
        for number, shape in enumerate(self.shapes):
            mine = starts[groups == number]
            networks.append(self.networks_of(values[mine[:, None] + np.arange(counts[number])], shape))
        return torch.from_numpy(groups.astype(np.int8)), networks

    def encode(self, group: Tensor, networks: Sequence[BlockNetwork]) -> bytes:
        """The inverse, of networks that `networks_of` has made."""
        group = group.numpy().astype(np.int32)
        integers = [self.integers_of(network) for network in networks]
        of_groups = zip(self.shapes, integers, strict=True)
        described = [
            describe(shape, self.scales, self.floors, some) if len(some) else None for shape, some in of_groups
        ]
        places, parts = [0] * len(integers), [[group], [np.zeros_like(group)], [np.full_like(group, SYMBOL)]]
        for number in group:
            for part, arrays in zip(parts, described[number], strict=True):
                part.append(arrays[places[number]])
            places[number] += 1
        values, scales, kinds = (np.concatenate(part) for part in parts)
        return encode_values(values, scales, kinds, np.array(self.starts))

    @np.errstate(over="ignore", invalid="ignore")  # whoever reads them checks that they are finite
    def networks_of(self, integers: np.ndarray, shape: NetworkShape) -> BlockNetwork:
        """The networks of a group from their integers, (n_blocks, n_values)."""
        if self.is_mlp:
            return _mlp_of(self, integers, shape)
        tensors, first, n_blocks = {}, 0, len(integers)
        for (name, size), step in zip(plain_tensors(form_of_networks(1, shape)), self.steps, strict=True):
            part = integers[:, first : first + size.numel()] * step
            tensors[name] = torch.from_numpy(part.astype(np.float32)).view(n_blocks, *size[1:])
            first += size.numel()
        return network_of(n_blocks, shape, tensors | {"amplitude": torch.ones(n_blocks, 1, 1)})

    def integers_of(self, network: BlockNetwork) -> np.ndarray:
        """The inverse of `networks_of`, of networks that it has made."""
        if self.is_mlp:
            return _integers_of_mlp(self, network)
        return self.rounded(network).numpy().astype(np.int32)

    def rounded(self, network: BlockNetwork) -> Tensor:
        """(n_blocks, n_values) of networks that are coded tensor by tensor, to whole numbers of steps; float64."""
        tensors = plain_tensors(network.state_dict())
        parts = [tensor.flatten(1).double() / step for (_, tensor), step in zip(tensors, self.steps, strict=True)]
        return torch.cat(parts, 1).round()


def _mlp_of(coding: Quantised, integers: np.ndarray, shape: NetworkShape) -> BlockNetwork:
    of, tensors, n_blocks = Integers.of(integers, shape), {}, len(integers)
    amplitude = np.ones((n_blocks, 1))
    if coding.has_amplitude:
        amplitude = amplitude_of(of.amplitude)
    rotation, last = np.array(coding.rotation), shape.n_layers - 1
    tensors["amplitude"] = amplitude[:, :, None]
    tensors[f"weight.{last}"] = of.last @ rotation * coding.steps[last] / amplitude[:, :, None]
    tensors[f"bias.{last}"] = (of.out @ rotation * coding.steps[last] / amplitude)[:, None]
    for layer, values in enumerate(of.hidden):
        steps = coding.layer_steps(layer, of.energy(layer))
        weights = (values * steps[:, :, None]).transpose(0, 2, 1)
        tensors[f"weight.{layer}"], tensors[f"bias.{layer}"] = weights[:, :-1], weights[:, -1:]
    made = {name: torch.from_numpy(values.astype(np.float32)) for name, values in tensors.items()}
    form = form_of_networks(n_blocks, shape)
    widths = {name: torch.ones(size) for name, size in form.items() if name.startswith("a.")}
    return network_of(n_blocks, shape, {name: (made | widths)[name].contiguous() for name in form})


def _integers_of_mlp(coding: Quantised, network: BlockNetwork) -> np.ndarray:
    tensors = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    amplitude, n_layers = tensors["amplitude"], network.shape.n_layers
    index = np.round(AMPLITUDES * np.log2(amplitude[:, 0])).astype(int) + AMPLITUDE_OF_ONE
    back = np.array(coding.rotation).T / coding.steps[-1]
    last = np.round(tensors[f"weight.{n_layers - 1}"] * amplitude @ back)
    out = np.round(tensors[f"bias.{n_layers - 1}"] * amplitude @ back)[:, 0]
    of = Integers(index[:, : int(coding.has_amplitude)], last, out, [np.zeros(0)] * (n_layers - 1))
    for layer in reversed(range(n_layers - 1)):
        values = np.concatenate([tensors[f"weight.{layer}"], tensors[f"bias.{layer}"]], 1).transpose(0, 2, 1)
        steps = coding.layer_steps(layer, of.energy(layer))
        of.hidden[layer] = np.round(values / steps[:, :, None])
    return of.joined()
