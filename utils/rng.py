"""Counter-based random numbers: each depends on its key and its place alone, so any range can be drawn on its own.

The generator is Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by
(seed, level); the upper words of its counter select the stream. Only its raw words are used: NumPy guarantees those,
but not its distributions.
"""

import numpy as np
import torch

_WEIGHTS, _ORDER = 0, 1
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
