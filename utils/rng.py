"""Counter-based random numbers: each depends on its key and its place alone, so any range can be drawn on its own.

The generator is Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by
(seed, level); the upper words of its counter select the stream. Only its raw words are used: NumPy guarantees those,
but not its distributions.
"""

from functools import lru_cache
from math import prod

import numpy as np
import torch

_WEIGHTS, _ORDER, _EVEN_ORDER = 0, 1, 2
_FLOATS_PER_COUNT = 8  # a counter yields four 64-bit words
_BLOCKS_AT_ONCE = 4096


def _words(seed: int, level: int, stream: int, substream: int, start: int, n_counts: int) -> np.ndarray:
    generator = np.random.Philox(key=[seed, level], counter=[start, 0, substream, stream])
    return generator.random_raw(4 * n_counts)


def block_uniform(seed: int, level: int, blocks: torch.Tensor, n_values: int) -> torch.Tensor:
    """Uniform values in [-1, 1) for each block, which depend on (seed, level, index of the block) alone.

    Inputs
        blocks: (n_blocks,) ascending indices in the level's grid
        n_values: values a block
    Outputs
        (n_blocks, n_values) float32
    """
    counts_per_block = -(-n_values // _FLOATS_PER_COUNT)
    wanted = blocks.numpy()
    values = np.empty((len(wanted), n_values), dtype=np.float32)
    first = 0
    while first < len(wanted):
        start = wanted[first]
        last = np.searchsorted(wanted, start + _BLOCKS_AT_ONCE)
        n_drawn = int(wanted[last - 1] - start) + 1
        words = _words(seed, level, _WEIGHTS, 0, int(start) * counts_per_block, n_drawn * counts_per_block)
        drawn = words.astype("<u8", copy=False).view("<u4").reshape(n_drawn, -1)[wanted[first:last] - start, :n_values]
        values[first:last] = (drawn >> 8).astype(np.float32) * np.float32(2**-23) - 1
        first = last
    return torch.from_numpy(values)


def point_order(seed: int, level: int, epochs: range, n_points: int) -> torch.Tensor:
    """The order in which each epoch visits the points of a block, a function of (seed, level, epoch) alone.

    Outputs
        (n_epochs, n_points) int64, a permutation for each epoch
    """
    n_counts = -(-n_points // 4)
    words = np.stack([_words(seed, level, _ORDER, epoch, 0, n_counts)[:n_points] for epoch in epochs])
    return torch.from_numpy(words.argsort(axis=1, kind="stable"))


def even_order(seed: int, level: int, epochs: range, size: tuple[int, ...]) -> torch.Tensor:
    """As `point_order`, but any run of points is spread evenly over the block, and over each of its axes.

    It is that of Sobol's sequence, scrambled anew for each epoch (Owen, Randomly permuted (t,m,s)-nets and
    (t,s)-sequences, 1995). Of blocks of 32x32, the points 64 k to 64 k + 63 have one in each cell of 4x4 pixels, one in
    each of 2x8, of 1x16, and so on. Blocks of other sides have the order of what lies inside the next powers of two.

    Inputs
        size: of a block, along two axes or three
    Outputs
        (n_epochs, n_points) int64, a permutation for each epoch
    """
    places, n_bits = _sobol(size)
    n_words = -(-sum(2**bits for bits in n_bits) // 4)
    words = np.stack([_words(seed, level, _EVEN_ORDER, epoch, 0, n_words) for epoch in epochs])
    flips = (words >> np.uint64(63)).astype(np.int64)  # a bit for each node of the trees of halves, one tree an axis
    index = np.zeros((len(words), len(places)), dtype=np.int64)
    is_inside = np.ones_like(index, dtype=bool)
    for along, bits, extent in zip(places.T, n_bits, size, strict=True):
        scrambled = np.zeros_like(index)
        for depth in range(bits):
            node = 2**depth + (along >> (bits - depth))
            scrambled = scrambled * 2 + ((along >> (bits - 1 - depth)) & 1 ^ flips[:, node])
        flips = flips[:, 2**bits :]
        is_inside &= scrambled < extent
        index = index * extent + scrambled
    return torch.from_numpy(index[is_inside].reshape(len(words), prod(size)))


@lru_cache
def _sobol(size: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Sobol's sequence in the smallest box of powers of two around a block, each place where it comes first.

    The direction numbers are those of Joe and Kuo (2008).

    Outputs
        (n_places, n_dims) int64 places in the box
        the bits of each axis
    """
    n_bits = tuple((extent - 1).bit_length() for extent in size)
    n_all = sum(n_bits) + (len(size) > 2)  # along three axes, some places come again before all have come
    ones, pascal, third = [1] * n_all, [1], [1, 3]
    while len(pascal) < n_all:
        pascal.append(2 * pascal[-1] ^ pascal[-1])
    while len(third) < n_all:
        third.append(4 * third[-2] ^ 2 * third[-1] ^ third[-2])
    sequence = np.arange(2**n_all)
    places = np.zeros((len(sequence), len(size)), dtype=np.int64)
    for axis, (bits, numbers) in enumerate(zip(n_bits, (ones, pascal, third), strict=False)):
        for bit in range(n_all):
            direction = numbers[bit] << bits >> (bit + 1)  # a fraction of 2^bit+1 parts, in whole pixels
            places[:, axis] ^= ((sequence >> bit) & 1) * direction
    _, first = np.unique(places, axis=0, return_index=True)
    return places[np.sort(first)], n_bits
