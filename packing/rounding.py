"""The parameters of MLPs as integers, rounded one after another: each takes back the errors of those before it.

The error that a change of the parameters makes is, nearly, quadratic: its matrix is J'J, of the Jacobian J of a block's
values at its points. Rounding in order, with the errors so far fed back by the factors of that matrix, is LDLQ (Chee,
Cai, Kuleshov and De Sa, QuIP, NeurIPS 2023), as adaptive rounding in the order of decoding, since the step of a weight
follows from what was decoded before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from models.block_mlp import BlockMLP
from models.packed.integers import AMPLITUDE_BITS, AMPLITUDE_OF_ONE, AMPLITUDES, Integers, amplitude_of
from models.packed.quantised import Quantised
from models.shape import NetworkShape

MOST = 2**20
"""Of an integer: the float32 that is decoded has more digits than that, and so tells it."""

DAMPING = 0.01  # of the diagonal: what is hardly seen at the points must not move far
_AT_ONCE = 2**25  # elements of Jacobians, and of the matrices that are made of them
_MATRICES = 6  # that are there at once
_COPIES = 2  # of the Jacobians, while they are made
_COLUMNS = 64  # rounded before the errors of all of them are fed back
_GROUP = 512  # parameters of a block of many points that take back each other's errors
_MOST_PARAMETERS = 8192  # of a block: the matrices of larger networks would take too long, and they are just rounded


@dataclass(frozen=True)
class Folded:
    """MLPs without widths of activations, with rotated channels. Hidden units have biases of at least 0; those before
    the output are in the order of their weights in the first channel.

    layers: of each linear layer (n_blocks, n_in + 1, n_out), the biases last; the last one in units of the signal
    amplitude: (n_blocks, 1, 1) as it is coded, 1 where there is none
    index: (n_blocks,) of the amplitude
    """

    layers: list[Tensor]
    amplitude: Tensor
    index: np.ndarray

    def select(self, blocks: slice) -> "Folded":
        return Folded([layer[blocks] for layer in self.layers], self.amplitude[blocks], self.index[blocks])


def fold(network: BlockMLP, rotation: Tensor) -> Folded:
    """
    Inputs
        rotation: (n_out, n_out), its rows the rotated channels
    """
    shape = network.shape
    layers = [torch.cat([weight, bias], 1) for weight, bias in zip(network.weight, network.bias, strict=True)]
    amplitude = torch.ones_like(network.amplitude)
    index = np.zeros(network.n_blocks, np.int64)
    if shape.activation == "gaussian":
        layers[:-1] = [layer / a for layer, a in zip(layers[:-1], network.a, strict=False)]
    if shape.output == "sine":
        exact = network.amplitude.double().clamp(min=2.0**-30)
        index = (AMPLITUDES * exact.log2()).round().long() + AMPLITUDE_OF_ONE
        index = index.clamp(0, 2**AMPLITUDE_BITS - 1)
        amplitude = torch.from_numpy(amplitude_of(index.numpy())).float()
        index = index.view(-1).numpy()
        layers[-1] = layers[-1] * network.a[-1] * network.amplitude
    layers[-1] = layers[-1] @ rotation.T
    for number in range(shape.n_layers - 1):
        signs = 1 - 2 * (layers[number][:, -1:] < 0).float()
        layers[number] = layers[number] * signs
        if shape.activation == "sine":
            following = layers[number + 1]
            layers[number + 1] = torch.cat([following[:, :-1] * signs.transpose(1, 2), following[:, -1:]], 1)
    order = layers[-1][:, :-1, 0].abs().argsort(1, descending=True)
    layers[-2] = layers[-2].gather(2, order[:, None].expand(-1, layers[-2].shape[1], -1))
    last = layers[-1][:, :-1].gather(1, order[:, :, None].expand(-1, -1, layers[-1].shape[2]))
    layers[-1] = torch.cat([last, layers[-1][:, -1:]], 1)
    return Folded(layers, amplitude, index)


def gains(layers: list[Tensor]) -> list[Tensor]:
    """Of the units of each hidden layer, (n_blocks, n_hidden): how much leads from them to the output."""
    found, after = [], torch.ones_like(layers[-1][:, 0])
    for layer in layers[:0:-1]:
        after = (layer[:, :-1] * after[:, None]).norm(dim=2)
        found.insert(0, after)
    return found


def jacobian(folded: Folded, network: BlockMLP, rotation: Tensor, coords: Tensor) -> Tensor:
    """(n_blocks, n_points * n_out, n_parameters), in the order of `flat`.

    Inputs
        coords: (n_points, n_in) encoded
    """
    shape, n_blocks = network.shape, len(folded.amplitude)
    inputs, slopes = [_with_ones(coords.expand(n_blocks, -1, -1))], []
    for layer in folded.layers[:-1]:
        values, slope = _activated(inputs[-1] @ layer, network)
        slopes.append(slope)
        inputs.append(_with_ones(values))
    out = inputs[-1] @ folded.layers[-1] @ rotation
    if shape.output == "sigmoid":
        slope = torch.sigmoid(out) * torch.sigmoid(-out)
    else:
        slope = torch.cos(out / folded.amplitude) if shape.output == "sine" else torch.ones_like(out)
    of_biases = back = slope[..., None] * rotation.T  # (n_blocks, n_points, n_out, rotated)
    columns = [(inputs[-1][:, :, None, :-1, None] * back[:, :, :, None]).flatten(3)]
    for number in reversed(range(len(slopes))):
        back = (back @ folded.layers[number + 1][:, None, :-1].transpose(2, 3)) * slopes[number][:, :, None]
        columns.append((back[..., None] * inputs[number][:, :, None, None]).flatten(3))
    columns.append(of_biases)
    return torch.cat(columns, 3).flatten(1, 2)


def curvature(
    folded: Folded, network: BlockMLP, rotation: Tensor, coords: Tensor, group: int | None = None
) -> list[Tensor]:
    """The parts of J'J of `jacobian` on its diagonal, each (n_blocks, n, n) of so many parameters; all of it, if None.

    That of one hidden layer whose outputs are its products is made of products of the channels' common factors, and a
    sine is nearly one: that takes a third of the time of three channels by themselves.
    """
    if group is not None or not _is_shared(network):
        of_values = jacobian(folded, network, rotation, coords)
        parts = of_values.split(group or of_values.shape[2], 2)
        return [part.transpose(1, 2) @ part for part in parts]
    hidden, last = folded.layers
    n_blocks, n, n_out = len(hidden), hidden.shape[2], last.shape[2]
    inputs = _with_ones(coords)
    values, slopes = _activated(inputs @ hidden, network)
    values = _with_ones(values)
    changes = (slopes[..., None] * inputs[:, None]).flatten(2)
    away = last[:, :-1].repeat_interleave(inputs.shape[1], 1)  # (n_blocks, n_weights, n_out) from the unit of a weight
    of_last = values.transpose(1, 2) @ values
    of_last = (of_last[:, :, None, :, None] * torch.eye(n_out)[:, None]).reshape(n_blocks, -1, (n + 1) * n_out)
    between = ((values.transpose(1, 2) @ changes)[:, :, None] * away.transpose(1, 2)[:, None]).flatten(1, 2)
    of_hidden = (changes.transpose(1, 2) @ changes) * (away @ away.transpose(1, 2))
    first, end = slice(0, n * n_out), slice(-n_out, None)
    rows = [
        torch.cat([of_last[:, first, first], between[:, first], of_last[:, first, end]], 2),
        torch.cat([between[:, first].transpose(1, 2), of_hidden, between[:, end].transpose(1, 2)], 2),
        torch.cat([of_last[:, end, first], between[:, end], of_last[:, end, end]], 2),
    ]
    return [torch.cat(rows, 1)]


def _is_shared(network: BlockMLP) -> bool:
    """Whether the channels' Jacobians have a factor in common."""
    return network.shape.n_layers == 2 and network.shape.output != "sigmoid"


def _activated(x: Tensor, network: BlockMLP) -> tuple[Tensor, Tensor]:
    """What hidden units give for folded sums, and its derivative."""
    if network.shape.activation == "gaussian":
        values = torch.exp(-(x**2) / 2)
        return values - network.shape.centre, -x * values
    return torch.sin(network.shape.omega * x), network.shape.omega * torch.cos(network.shape.omega * x)


def _with_ones(values: Tensor) -> Tensor:
    return torch.cat([values, torch.ones_like(values[..., :1])], -1)


def flat(layers: list[Tensor]) -> Tensor:
    """(n_blocks, n_parameters): the last layer's weights, each hidden layer's from the last on, unit by unit with its
    bias, and the output's biases."""
    hidden = [layer.transpose(1, 2).flatten(1) for layer in layers[-2::-1]]
    return torch.cat([layers[-1][:, :-1].flatten(1), *hidden, layers[-1][:, -1]], 1)


def parameters_of_block(folded: Folded) -> int:
    return sum(layer[0].numel() for layer in folded.layers)


def is_thinned(patch_size: tuple[int, ...], shapes: Sequence[NetworkShape]) -> bool:
    """Whether some points of a block tell the curvature: of volumes whose networks have several widths, some of them
    wide, where all of them would take minutes."""
    return len(patch_size) == 3 and len(shapes) > 1


def thinned(patch_size: tuple[int, ...]) -> Tensor:
    """Points of a block that are even along every axis or odd along every axis, evenly spread: in 3-D a quarter."""
    odd = torch.stack(torch.meshgrid(*(torch.arange(patch) % 2 for patch in patch_size), indexing="ij"), -1)
    return (odd == odd[..., :1]).all(-1).flatten().nonzero().squeeze(1)


def rounding_bytes(
    n_parameters: int, patch_size: tuple[int, ...], n_channels: int, shapes: Sequence[NetworkShape]
) -> int:
    """Of memory that `round_networks` takes at most, beside networks and integers.

    Inputs
        n_parameters: of a block, at most
        shapes: of its level
    """
    if is_thinned(patch_size, shapes):
        elements = _elements(n_parameters, len(thinned(patch_size)) * n_channels, _GROUP)
    else:
        elements = _elements(min(n_parameters, _MOST_PARAMETERS), prod(patch_size) * n_channels, None)
    return 4 * _COPIES * max(_AT_ONCE, elements)


def _elements(n_parameters: int, n_rows: int, group: int | None) -> int:
    """Of the Jacobian of a block, and of the matrices that are made of it.

    Inputs
        n_rows: points times channels
        group: parameters of a part of the curvature
    """
    return n_parameters * (n_rows + _MATRICES * min(n_parameters, group or n_parameters))


def batches(network: BlockMLP, folded: Folded, coords: Tensor, group: int | None = None) -> Iterator[slice]:
    """Blocks whose Jacobians are held at once."""
    n_rows = len(coords) * (1 if group is None and _is_shared(network) else network.shape.n_out)
    step = max(1, _AT_ONCE // _elements(parameters_of_block(folded), n_rows, group))
    return (slice(first, first + step) for first in range(0, network.n_blocks, step))


def sensitivities(network: BlockMLP, rotation: Tensor, coords: Tensor) -> Tensor:
    """(n_layers,) the mean over a layer's weights of the squared error that a change of one makes, by its square, where
    weights change by one over the gain of the unit that they lead to."""
    folded, totals, n_blocks = fold(network, rotation), torch.zeros(len(network.weight), dtype=torch.float64), 0
    coords = coords[:: max(1, parameters_of_block(folded) * len(coords) * network.shape.n_out // _AT_ONCE)]
    for blocks in batches(network, folded, coords):
        some = folded.select(blocks)
        diagonal = jacobian(some, network, rotation, coords).square().mean(1)
        sizes = [some.layers[-1][0, :-1].numel(), *(layer[0].numel() for layer in some.layers[-2::-1])]
        parts = diagonal[:, : sum(sizes)].split(sizes, dim=1)
        totals[-1] += parts[0].mean(1).sum()
        for number, gain in enumerate(gains(some.layers)):
            part = parts[len(parts) - 1 - number].unflatten(1, (gain.shape[1], -1)).mean(2)
            totals[number] += (part / gain.square().clamp(min=1e-20)).median(1).values.sum()
        n_blocks += len(some.amplitude)
    return totals / max(1, n_blocks)


def round_networks(
    network: BlockMLP,
    coding: Quantised,
    coords: Tensor,
    seen: Tensor | None,
    done: Callable[[int], object] = lambda _: None,
) -> np.ndarray:
    """The integers of MLPs of one shape, (n_blocks, n_values).

    Inputs
        coords: (n_points, n_in) encoded, at which the error is to be small
        seen: of these, by which errors are fed back, and then only within groups of parameters; None for all
        done: is told how many blocks have been rounded, again and again
    """
    rotation = torch.tensor(coding.rotation)
    folded, parts = fold(network, rotation), [np.zeros((0, coding.n_values(network.shape)), np.int32)]
    at, group = (coords, None) if seen is None else (coords[seen], _GROUP)
    for blocks in batches(network, folded, at, group):
        some, within = network.select(blocks), folded.select(blocks)
        rounded = _round(some, within, coding, None)
        if group is not None or parameters_of_block(folded) <= _MOST_PARAMETERS:
            fed_back = _round(some, within, coding, curvature(within, network, rotation, at, group))
            # what is taken back is so to first order: where that misleads, it must not be worse than without
            values = some(coords)
            errors, without = (
                (coding.networks_of(integers, some.shape)(coords) - values).square().mean((1, 2)).numpy()
                for integers in (fed_back, rounded)
            )
            rounded = np.where((errors < without)[:, None], fed_back, rounded)
        parts.append(rounded)
        done(len(rounded))
    return np.concatenate(parts)


def _round(network: BlockMLP, folded: Folded, coding: Quantised, curved: list[Tensor] | None) -> np.ndarray:
    """
    Inputs
        curved: `curvature` of the networks, or None for parameters that are rounded each by itself
    """
    rounding, n_blocks = Rounding(flat(folded.layers), curved), len(folded.amplitude)
    shape = network.shape
    last = rounding.next(shape.n_hidden * shape.n_out, np.array([[coding.steps[-1]]]))
    last = last.reshape(n_blocks, shape.n_hidden, shape.n_out)
    amplitude = folded.index[:, None] if coding.has_amplitude else np.zeros((n_blocks, 0), int)
    of = Integers(amplitude, last, np.zeros(0), [np.zeros(0)] * (shape.n_layers - 1))
    for number in reversed(range(shape.n_layers - 1)):
        n_in, energy = folded.layers[number].shape[1], of.energy(number)
        steps = coding.layer_steps(number, energy)
        is_bias = np.arange(shape.n_hidden * n_in) % n_in == n_in - 1
        of_layer = rounding.next(len(is_bias), steps.repeat(n_in, 1), is_bias, (energy > 0).repeat(n_in, 1))
        of.hidden[number] = of_layer.reshape(n_blocks, shape.n_hidden, n_in)
    out = rounding.next(shape.n_out, np.array([[coding.steps[-1]]]))
    order = np.argsort(-np.abs(last[:, :, 0]), axis=1, kind="stable")[:, :, None]
    of.hidden[-1] = np.take_along_axis(of.hidden[-1], order, 1)
    return replace(of, last=np.take_along_axis(last, order, 1), out=out).joined()


class Rounding:
    """Parameters of some blocks, rounded in their order.

    Inputs
        values: (n_blocks, n_parameters)
        curved: parts of the curvature, all but the last of one size, or None for parameters that are rounded each by
            itself
    """

    def __init__(self, values: Tensor, curved: list[Tensor] | None):
        self.values, self.errors, self.first = values.numpy(), np.zeros(values.shape, np.float32), 0
        self.factors = None if curved is None else [self._factor(part).numpy() for part in curved]

    @staticmethod
    def _factor(matrix: Tensor) -> Tensor:
        """The upper triangle U, with a diagonal of 1, of J'J = U D U'; the diagonal of J'J is damped."""
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal += DAMPING * diagonal + 1e-6 * diagonal.mean(1, keepdim=True) + 1e-20
        factor = torch.linalg.cholesky(matrix.flip(1, 2)).flip(1, 2)  # Cholesky's own order is the other one
        return factor / factor.diagonal(dim1=1, dim2=2)[:, None]

    def next(
        self, n: int, steps: np.ndarray, is_bias: np.ndarray | None = None, is_alive: np.ndarray | None = None
    ) -> np.ndarray:
        """(n_blocks, n) integers of the next parameters.

        Inputs
            steps: (n_blocks, n), or (1, 1)
            is_bias: (n,) bool, which must not be below 0
            is_alive: (n_blocks, n) bool; the others are 0 whatever they were, and their errors do not count
        """
        here = slice(self.first, self.first + n)
        self.first += n
        values = self.values[:, here]
        steps = np.broadcast_to(steps.astype(np.float32), values.shape)
        least = np.where(False if is_bias is None else is_bias, 0, -MOST) * np.ones(n)
        counts = np.ones(values.shape, np.float32) if is_alive is None else is_alive.astype(np.float32)
        if self.factors is None:
            return (np.rint(values / steps).clip(least, MOST) * counts).astype(np.int32)
        integers, group = np.empty(values.shape, np.float32), self.factors[0].shape[1]
        low = 0
        while low < n:
            number_of_group, within = divmod(here.start + low, group)
            factor, first = self.factors[number_of_group], group * number_of_group
            columns = slice(low, min(low + _COLUMNS, n, low + group - within))
            start, stop = within, within + columns.stop - low
            before = self.errors[:, None, first : first + start] @ factor[:, :start, start:stop]
            wanted = values[:, columns] + before[:, 0]
            for column, place in zip(range(low, columns.stop), range(start, stop), strict=True):
                number = np.rint(wanted[:, column - low] / steps[:, column]).clip(least[column], MOST)
                number *= counts[:, column]
                error = (values[:, column] - number * steps[:, column]) * counts[:, column]
                wanted[:, column - low + 1 :] += error[:, None] * factor[:, place, place + 1 : stop]
                integers[:, column], self.errors[:, first + place] = number, error
            low = columns.stop
        return integers.astype(np.int32)
