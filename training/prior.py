"""What the coefficients of a level are like: the colours along which they lie, how each is distributed, and how often
blocks are cut how finely. It is learned from some blocks of the level, evenly spread, and then fixed: blocks know of
each other by nothing else.
"""

from dataclasses import dataclass, replace
from math import log2

import numpy as np
import torch
from torch import Tensor

from models.cosines import axis_cosines
from models.packed.coefficients import BROADEST, NARROWEST, Coefficients, compiled, to_parts
from models.packed.contexts import N_ACTIVITIES, N_CONTEXTS, group_model
from models.packed.groups import bounds_for
from models.packed.slow_coder import PRECISION, TOTAL
from models.shape import NetworkShape
from packing.quantise import principal_axes

PRICE = 0.12
"""Of a bit, in squared steps: the steps with which files are smallest for what they show."""

SAMPLE = 2**20
"""Points of the blocks that it is learned from, at most."""

_SLACK = 0.15  # of a step, by which coefficients are rounded towards 0 before prices are known
_PASSES = 4
_ZERO = 0.55  # of a step, up to which coefficients are 0, in the tables


@dataclass(frozen=True)
class Spectra:
    """What the networks of some blocks would be without rounding.

    shapes: to choose from
    coefficients: for each shape (n_blocks, n_parts, c, n_coefficients) float32, in units of the signal
    rotation: of the channels, which has been applied
    energy: (n_blocks,) float64, sum of squares
    """

    shapes: tuple[NetworkShape, ...]
    coefficients: list[np.ndarray]
    rotation: tuple[tuple[float, ...], ...]
    energy: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """The networks of some blocks.

    group: (n_blocks,) int8, -1 for blocks that do without
    integers: (n_blocks, n_values) of those
    bits: (n_blocks,) that they take
    errors: (n_blocks,) squared, summed over points and channels, in units of the signal
    """

    group: np.ndarray
    integers: np.ndarray
    bits: np.ndarray
    errors: np.ndarray


def transformed(values: Tensor, shape: NetworkShape) -> Tensor:
    """The coefficients (n_blocks, n_cosines, c) float64 of values (n_blocks, n_points, c), by orthonormal cosines."""
    found = values.double().unflatten(1, shape.lengths)
    for axis, length in enumerate(shape.lengths, 1):
        places = (2 * torch.arange(length) + 1) / length - 1
        cosines = axis_cosines(places, length, shape.n_hidden).double()
        found = torch.tensordot(found, cosines, dims=([axis], [0])).movedim(-1, axis)
    return found.flatten(1, -2)


def rotation_of(values: Tensor, n_colours: int) -> tuple[tuple[float, ...], ...]:
    """The principal axes of the colours, beside the mean of each block, as rows, the longest first.

    Inputs
        values: (n_blocks, n_points, c)
        n_colours: channels, of the first ones, that are rotated; the others stay as they are
    """
    colours = values[..., :n_colours].double()
    colours = (colours - colours.mean(1, keepdim=True)).flatten(0, 1)
    whole = torch.eye(values.shape[2], dtype=torch.float64)
    whole[:n_colours, :n_colours] = principal_axes(colours.T @ colours)
    return tuple(map(tuple, whole.float().tolist()))


def spectra_of(values: Tensor, shapes: tuple[NetworkShape, ...], rotation: tuple[tuple[float, ...], ...]) -> Spectra:
    """
    Inputs
        values: (n_blocks, n_points, c) what the networks are to predict
    """
    rotated = values.double() @ torch.tensor(rotation, dtype=torch.float64).T
    parts = [to_parts(transformed(rotated, shape), shape).float().numpy() for shape in shapes]
    return Spectra(shapes, parts, rotation, values.double().square().sum((1, 2)).numpy())


def choose(spectra: Spectra, coding: Coefficients, needs_one: bool) -> Chosen:
    """The networks of some blocks, each of which lowers its error and the price of its bits the most.

    Inputs
        needs_one: no block can do without
    """
    unit, n_blocks = coding.step**2, len(spectra.energy)
    group, bits = np.full(n_blocks, -1, np.int8), np.zeros(n_blocks)
    integers, errors = np.zeros((n_blocks, coding.n_values), np.int32), spectra.energy / unit
    least = np.full(n_blocks, np.inf) if needs_one else errors.copy()
    for number in range(len(spectra.shapes)):
        mine, own_bits, own_errors, _ = _rounded(spectra, number, coding)
        own_bits += _bits_of_group(coding, number)
        cost = own_errors + PRICE * own_bits
        better = cost < least
        least[better], group[better] = cost[better], number
        bits[better], errors[better], integers[better] = own_bits[better], own_errors[better], mine[better]
    return Chosen(group, integers, bits, errors * unit)


def learn(spectra: Spectra, price: float, needs_one: bool) -> Coefficients:
    """How the networks of a level are coded, from some of its blocks.

    Inputs
        price: squared error, summed over points and channels, that a bit must save
        needs_one: no block can do without a network
    """
    n_groups, coding = len(spectra.shapes), unlearned(spectra.shapes, price, spectra.rotation)
    counts = sum(_rounded(spectra, number, coding, is_first=True)[3] for number in range(n_groups))
    coding = replace(coding, scales=_scales(counts))
    for _ in range(_PASSES):
        group = choose(spectra, coding, needs_one).group
        each = [np.flatnonzero(group == number) for number in range(n_groups)]
        counts = sum(_rounded(spectra, number, coding, some)[3] for number, some in enumerate(each))
        coding = replace(coding, scales=_scales(counts), starts=bounds_for(np.array(list(map(len, each)))))
    return coding


def unlearned(shapes: tuple[NetworkShape, ...], price: float, rotation: tuple[tuple[float, ...], ...]) -> Coefficients:
    """A coding of networks of which nothing is known but the price of a bit and the axes of the colours."""
    starts = tuple(TOTAL * number // len(shapes) for number in range(len(shapes) + 1))
    return Coefficients(shapes, (price / PRICE) ** 0.5, rotation, starts, (0,) * N_CONTEXTS)


def _rounded(
    spectra: Spectra,
    number: int,
    coding: Coefficients,
    some: np.ndarray | None = None,
    is_first: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Networks of a group: integers (n_blocks, n_values), the bits of each block, its squared error in steps, and the
    counts of each context, as coefficients.c gives them.

    Inputs
        some: indices of the blocks; None for all
        is_first: scales are not known yet
    """
    shape, wanted = spectra.shapes[number], spectra.coefficients[number]
    wanted = np.ascontiguousarray(wanted if some is None else wanted[some])
    n_blocks, scales = len(wanted), np.array(coding.scales, np.int32)
    integers = np.zeros((n_blocks, coding.n_values), np.int32)
    bits, errors, counts = np.zeros(n_blocks), np.zeros(n_blocks), np.zeros((N_CONTEXTS, 3), np.int64)
    compiled().choose(
        *(wanted.ctypes.data, 1 / coding.step, n_blocks, shape.n_out, group_model(shape).ctypes.data),
        *(None if is_first else scales.ctypes.data, PRICE, _SLACK),
        *(array.ctypes.data for array in (integers, bits, errors, counts)),
    )
    return integers, bits, errors, counts


def _bits_of_group(coding: Coefficients, number: int) -> float:
    start, stop = coding.starts[number : number + 2]
    return PRECISION - log2(stop - start)


def _scales(counts: np.ndarray) -> tuple[int, ...]:
    """The likeliest scale of each context; of one that was not seen, that of the nearest activity that was.

    Inputs
        counts: (N_CONTEXTS, 3) values, those that are not 0, and the sum of what they exceed 1
    """
    scales = np.arange(NARROWEST, BROADEST + 4 * 16 + 1)
    widths = 2.0 ** (scales / 4)
    n, beyond, excess = (column.astype(float)[:, None] for column in counts.T)
    zero, stop = np.log(-np.expm1(-_ZERO / widths)), np.log(-np.expm1(-1 / widths))
    likelihood = (n - beyond) * zero + beyond * (stop - _ZERO / widths) - excess / widths
    best = scales[likelihood.argmax(1)].reshape(-1, N_ACTIVITIES)
    seen = (counts[:, 0] > 0).reshape(best.shape)
    for row, is_seen in zip(best, seen, strict=True):
        known = np.flatnonzero(is_seen)
        row[:] = row[known[np.abs(np.arange(len(row))[:, None] - known).argmin(1)]] if len(known) else 0
    return tuple(best.flatten().tolist())
