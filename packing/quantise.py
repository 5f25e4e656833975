"""How a level's networks are quantised: with steps by sensitivity, so that all parameters add the same error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, log2

import numpy as np
import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.encoding import encode
from models.level import Level
from models.packed.described import channel_scales, own_scales
from models.packed.groups import bounds_for
from models.packed.integers import Integers, Scales, lifts, plain_tensors, quarters, tensor_sizes
from models.packed.quantised import Quantised
from models.packed.slow_coder import LARGEST_SCALE
from packing.rounding import MOST, fold, is_thinned, round_networks, rounding_bytes, sensitivities, thinned
from utils.blocks import block_coords

_LARGEST_STEP = 0.1  # of the argument of an activation: beyond, errors are no longer proportional to it
_SAMPLE = 4  # blocks of a group by which a level is judged
_LEAST_SEEN = 1e-20  # squared error that a parameter makes by its square: those of networks that predict nothing make 0
_FARTHEST_FLOOR, _LEAST_ERROR, _LARGEST_ERROR, _MOST_RAISES = 120, 1e-7, 1e6, 20
_TRIES = 2
_SHARE = 30  # of a parameter's squared error, so much is left where the others take it back, and it is uniform


@dataclass(frozen=True)
class Quantiser:
    """What is found of a level before its networks are quantised.

    coords: (n_points, n_in) encoded
    seen: of these, as in `round_networks`
    sample: some networks of each group
    steps: of each layer or tensor, for an error of 1
    rotation: of `Quantised`
    """

    level: Level
    coords: Tensor
    seen: Tensor | None
    sample: list[BlockNetwork]
    steps: tuple[float, ...]
    rotation: tuple[tuple[float, ...], ...]

    @classmethod
    @torch.no_grad()
    def of(cls, level: Level) -> "Quantiser":
        coords = encode(block_coords(level.patch_size), level.frequencies)
        seen = thinned(level.patch_size) if is_thinned(level.patch_size, level.shapes) else None
        sample = [network.select(_spread(network.n_blocks, _SAMPLE)) for network in level.networks]
        if level.networks[0].shape.kind != "mlp":
            largest = max(sample, key=lambda network: network.n_blocks)
            return cls(level, coords, seen, sample, _plain_steps(largest, coords), ())
        rotation = _rotation(level.networks)
        weights = torch.tensor([float(network.n_parameters) for network in level.networks])
        each = torch.stack([sensitivities(network, rotation, coords) for network in sample])
        mean = ((each * weights[:, None]).sum(0) / weights.sum()).clamp(min=_LEAST_SEEN)
        return cls(level, coords, seen, sample, tuple(mean.rsqrt().tolist()), tuple(map(tuple, rotation.tolist())))

    @torch.no_grad()
    def quantised(self, error: float, done: Callable[[int], object] = lambda _: None) -> tuple[Level, Quantised]:
        """The level with quantised parameters, and their coding.

        Inputs
            error: root of the mean squared error that the rounding of a single parameter is to make, by itself
            done: is told how many blocks have been rounded, again and again
        """
        coding, integers = self._rounded(error, done)
        coding = replace(coding, scales=(_scales_of_mlps if coding.is_mlp else _plain_scales)(coding, integers))
        of_groups = zip(integers, coding.shapes, strict=True)
        networks = tuple(coding.networks_of(of_group, shape) for of_group, shape in of_groups)
        return replace(self.level, networks=networks), coding

    def _rounded(self, error: float, done: Callable[[int], object]) -> tuple[Quantised, list[np.ndarray]]:
        """A coding and the integers of each group; with a larger error where these would be too large."""
        error = max(error, _LEAST_ERROR)  # which float32 makes anyway
        for _ in range(_MOST_RAISES):
            coding = self._coding(error)
            integers = [_integers(coding, network, self.coords, self.seen, done) for network in self.level.networks]
            if all(np.abs(some).max(initial=0) < MOST for some in integers):
                break
            error *= 8
        return coding, integers

    @torch.no_grad()
    def error_for(self, allowed: float) -> float:
        """The error of a single parameter with which some of the blocks together have the error that is allowed.

        Inputs
            allowed: mean squared error over the level, with the blocks that have no network
        """
        shares = [network.n_blocks / len(self.level.group) for network in self.level.networks]
        error = (allowed / max(self.level.n_parameters / len(self.level.group), 1e-9) * _SHARE) ** 0.5
        for _ in range(_TRIES):
            coding, made = self._coding(error), 0.0
            for network, share in zip(self.sample, shares, strict=True):
                if network.n_blocks:
                    rounded = coding.networks_of(_integers(coding, network, self.coords, self.seen), network.shape)
                    made += share * float((network(self.coords) - rounded(self.coords)).square().mean())
            error = max(_LEAST_ERROR, min(error * (allowed / max(made, 1e-30)) ** 0.5, _LARGEST_ERROR))
        return error

    def _coding(self, error: float) -> Quantised:
        """Without the scales, which follow from the integers."""
        shapes = tuple(network.shape for network in self.level.networks)
        steps, floors = [error * step for step in self.steps], ()
        if shapes[0].kind == "mlp":
            steps[:-1] = [step / after for step, after in pairwise(steps)]
            floors = tuple(
                max(-_FARTHEST_FLOOR, min(ceil(4 * log2(step / _LARGEST_STEP)), _FARTHEST_FLOOR)) for step in steps[:-1]
            )
        starts = bounds_for(np.array([network.n_blocks for network in self.level.networks]))
        return Quantised(shapes, tuple(steps), floors, self.rotation, starts, Scales(0, []))


def memory_to_round(level: Level) -> int:
    """Bytes that rounding the networks of a level takes at most, beside networks and integers."""
    networks = [network for network in level.networks if network.n_blocks]
    if not networks or networks[0].shape.kind != "mlp":
        return 0
    n_parameters = max(network.n_parameters // network.n_blocks for network in networks)
    return rounding_bytes(n_parameters, level.patch_size, networks[0].shape.n_out, level.shapes)


def fraction_for(loss_db: float) -> float:
    """Of the error of a fit, what may be added to it for a loss of so many decibels."""
    return 10 ** (loss_db / 10) - 1


def _integers(
    coding: Quantised,
    network: BlockNetwork,
    coords: Tensor,
    seen: Tensor | None,
    done: Callable[[int], object] = lambda _: None,
) -> np.ndarray:
    """(n_blocks, n_values) of networks of one group."""
    if coding.is_mlp:
        return round_networks(network, coding, coords, seen, done)
    return coding.rounded(network).clamp(-MOST, MOST).numpy().astype(np.int32)


def _spread(n: int, most: int) -> Tensor:
    """At most so many of n, evenly spread."""
    return torch.linspace(0, n - 1, min(n, most)).round().long()


def _rotation(networks: Sequence[BlockNetwork]) -> Tensor:
    """The principal axes of the last layers' weights, as rows, the longest first."""
    n_out = networks[0].shape.n_out
    eye = torch.eye(n_out)
    total = torch.zeros(n_out, n_out, dtype=torch.float64)
    for network in networks:
        last = fold(network, eye).layers[-1][:, :-1].flatten(0, 1).double()
        total += last.T @ last
    return principal_axes(total).float()


def principal_axes(scatter: Tensor) -> Tensor:
    """The axes of a scatter matrix (n, n) as rows, the longest first, each with a sum that is not negative."""
    rows = torch.linalg.eigh(scatter).eigenvectors.T.flip(0)
    return rows * torch.where(rows.sum(1, keepdim=True) < 0, -1.0, 1.0)


def _scale_of(values: np.ndarray) -> int:
    """Quarters of octaves of the root of the mean square."""
    mean = float((values.astype(np.float64) ** 2).mean()) if values.size else 0.0
    return int(np.clip(round(2 * log2(max(mean, 2.0**-20))), -40, LARGEST_SCALE))


def _scales_of_mlps(coding: Quantised, integers: list[np.ndarray]) -> Scales:
    """What suits the integers of a sample, those of each group."""
    of = [Integers.of(some, shape) for some, shape in zip(integers, coding.shapes, strict=True) if len(some)]
    size = [np.abs(one.last[:, :, 0]).astype(np.int64) for one in of]
    rise = [np.maximum(one[:, :1], 1) ** 2 for one in size]
    lift = [quarters(most) - quarters(np.array([one.shape[1] ** 2])) for one, most in zip(size, rise, strict=True)]
    falls = [(one[:, :-1] - one[:, 1:]) / 2.0 ** (up / 4) for one, up in zip(size, lift, strict=True)]
    largest = LARGEST_SCALE - max(int(up.max()) for up in lift)
    base, bias, chroma, apart = [], [], [], []
    for channel in range(1, len(coding.rotation)):
        own = np.concatenate([channel_scales(one.last[:, :, channel]) for one in of])
        chroma.append(int(np.round(np.median(own))))
        apart.append(own - chroma[-1])
    for layer, floor in enumerate(coding.floors):
        lift = [lifts(one.energy(layer), floor) for one in of]
        own = [own_scales(one.hidden[layer][:, :, :-1], up) for one, up in zip(of, lift, strict=True)]
        base.append(int(np.round(np.median(np.concatenate(own)))))
        apart.append(np.concatenate(own) - base[-1])
        biases = [
            (one.hidden[layer][:, :, -1] / 2.0 ** ((up + mine[:, None]) / 4))[one.hidden[layer][:, :, :-1].any((1, 2))]
            for one, up, mine in zip(of, lift, own, strict=True)
        ]
        bias.append(_scale_of(np.concatenate([part.ravel() for part in biases])))
    n_out = len(coding.rotation)
    return Scales(
        spread=_scale_of(np.concatenate(apart)),
        base=base,
        bias=bias,
        first=_scale_of(np.concatenate([one[:, 0] for one in size])),
        difference=min(_scale_of(np.concatenate([fall.ravel() for fall in falls])), largest),
        chroma=chroma,
        out=[_scale_of(np.concatenate([one.out[:, k] for one in of])) for k in range(n_out)],
    )


def _plain_steps(network: BlockNetwork, coords: Tensor) -> tuple[float, ...]:
    """Of each tensor, for an error of 1, from what small random changes of it do to the values."""
    before, steps = network(coords), []
    generator = torch.Generator().manual_seed(0)
    for _, tensor in plain_tensors(network.state_dict()):
        size = 1e-3 * float(tensor.square().mean().sqrt()) + 1e-6
        change = size * torch.randint(0, 2, tensor.shape, generator=generator).mul(2).sub(1)
        kept = tensor.clone()
        tensor += change
        made = float((network(coords) - before).square().mean()) / tensor[0].numel()
        tensor.copy_(kept)
        steps.append(size / max(made**0.5, 1e-12))
    return tuple(steps)


def _plain_scales(coding: Quantised, integers: list[np.ndarray]) -> Scales:
    stops = [np.cumsum(tensor_sizes(shape))[:-1] for shape in coding.shapes]
    parts = [np.split(some, ends, axis=1) for some, ends in zip(integers, stops, strict=True) if len(some)]
    base, apart = [], []
    for of_groups in zip(*parts, strict=True):
        own = np.concatenate([channel_scales(values) for values in of_groups])
        base.append(int(np.round(np.median(own))))
        apart.append(own - base[-1])
    return Scales(_scale_of(np.concatenate(apart)), base)
