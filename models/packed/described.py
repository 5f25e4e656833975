"""What the entropy coder is told of integers: a scale and a kind for each, in the order in which they are decoded."""

import numpy as np

from models.packed.integers import AMPLITUDE_BITS, Integers, Scales, lifts, quarters, tensor_sizes
from models.packed.rans import BITS, MAGNITUDE, SIGNED, SKIPPED
from models.packed.slow_coder import LARGEST_SCALE
from models.shape import NetworkShape

Described = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Values, scales and kinds, (n_blocks, n) each, for `encode_values`."""


def _blocks(values: np.ndarray, scale: np.ndarray | int, kind: int) -> Described:
    values = values.reshape(len(values), -1)
    scale = np.broadcast_to(np.asarray(scale, np.int32).reshape(-1, 1) if np.ndim(scale) == 1 else scale, values.shape)
    return values, scale, np.full(values.shape, kind, np.uint8)


def _together(parts: list[Described]) -> Described:
    values, scales, kinds = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return values, scales, kinds


def describe(shape: NetworkShape, scales: Scales, floors: tuple[int, ...], integers: np.ndarray) -> Described:
    """What the entropy coder is told of the blocks of a group."""
    if shape.kind != "mlp":
        parts, first = [], 0
        for size, base in zip(tensor_sizes(shape), scales.base, strict=True):
            parts += _own_scale(integers[:, first : first + size], base, scales.spread)
            first += size
        return _together(parts)
    of = Integers.of(integers, shape)
    parts = [_blocks(of.amplitude, AMPLITUDE_BITS, BITS), *_describe_last(of.last, scales)]
    parts += [_blocks(of.out[:, [channel]], scale, SIGNED) for channel, scale in enumerate(scales.out)]
    for layer in reversed(range(len(of.hidden))):
        energy = of.energy(layer)
        parts += _describe_hidden(
            of.hidden[layer],
            energy,
            lifts(energy, floors[layer]),
            scales.base[layer],
            scales.bias[layer],
            scales,
        )
    return _together(parts)


def _describe_last(last: np.ndarray, scales: Scales) -> list[Described]:
    """The scales of all channels but the first; unit by unit, how much the first falls, its sign, and the others."""
    n_blocks, n, _ = last.shape
    size = np.abs(last[:, :, 0]).astype(np.int64)
    most = np.maximum(size[:, :1], 1)
    falls = np.concatenate([size[:, :1], size[:, :-1] - size[:, 1:]], axis=1)
    fall = np.broadcast_to(scales.difference + quarters(most**2) - quarters(np.array([n**2])), size.shape).copy()
    fall[:, 0] = scales.first
    kinds = np.full(size.shape, MAGNITUDE)
    kinds[:, 1:][np.broadcast_to(size[:, :1] == 0, (n_blocks, n - 1))] = SKIPPED
    columns = [(falls, fall, kinds)]
    columns.append((last[:, :, 0] < 0, np.ones_like(size), np.where(size > 0, BITS, SKIPPED)))
    before = []
    for channel, base in enumerate(scales.chroma, 1):
        own = channel_scales(last[:, :, channel])
        before.append(_blocks(own[:, None] - base, scales.spread, SIGNED))
        columns.append((last[:, :, channel], np.broadcast_to(own[:, None], size.shape), np.full(size.shape, SIGNED)))
    values, scale, kind = (np.stack(part, axis=2).reshape(n_blocks, -1) for part in zip(*columns, strict=True))
    return [*before, (values, scale, kind)]


def channel_scales(values: np.ndarray) -> np.ndarray:
    """(n_blocks,) the scale of a channel's weights (n_blocks, n_units), `own_scales` of values that are not lifted."""
    return np.minimum(own_scales(values[:, None], np.zeros((len(values), 1), int)), LARGEST_SCALE)


def own_scales(values: np.ndarray, lift: np.ndarray) -> np.ndarray:
    """(n_blocks,) the scale of the values of each block, less what they are lifted by.

    Inputs
        values: (n_blocks, n_units, n)
        lift: (n_blocks, n_units)
    """
    weights = values / 2.0 ** (lift[:, :, None] / 4)
    mean = (weights**2).mean(axis=(1, 2)) if values.size else np.zeros(len(values))
    return np.clip(np.round(2 * np.log2(np.maximum(mean, 2.0**-60))), -120, 120).astype(np.int64)


def _own_scale(values: np.ndarray, base: int, spread: int) -> list[Described]:
    """A block's own scale, and its values (n_blocks, n) by it."""
    own = channel_scales(values)
    return [_blocks(own[:, None] - base, spread, SIGNED), _blocks(values, own, SIGNED)]


def _describe_hidden(
    values: np.ndarray, energy: np.ndarray, lift: np.ndarray, base: int, bias: int, scales: Scales
) -> list[Described]:
    own = np.minimum(own_scales(values[:, :, :-1], lift), LARGEST_SCALE - lift.max(axis=1) - max(0, bias))
    scale = np.broadcast_to((own[:, None] + lift)[:, :, None], values.shape).copy()
    scale[:, :, -1] += bias
    kind = np.full(values.shape, SIGNED)
    kind[:, :, -1] = MAGNITUDE
    kind[energy == 0] = SKIPPED
    n_blocks = len(values)
    whole = tuple(part.reshape(n_blocks, -1) for part in (values, scale, kind))
    return [_blocks(own[:, None] - base, scales.spread, SIGNED), whole]
