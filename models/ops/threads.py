"""Blocks shared out among threads, for kernels that let go of Python's lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache

import torch

_PIECES_PER_THREAD = 4  # so that threads finish together
_PIECE = 32  # blocks, at most


def share_out(call: Callable[[int, int], int], n_blocks: int) -> None:
    """Call it with ranges first..last-1 of the blocks, from as many threads as torch uses; MemoryError where one says
    that it has failed."""
    n_threads = torch.get_num_threads()
    step = max(1, min(_PIECE, n_blocks // (n_threads * _PIECES_PER_THREAD)))
    ranges = ((start, min(start + step, n_blocks)) for start in range(0, n_blocks, step))
    pieces = [_threads(n_threads).submit(call, *piece) for piece in ranges]
    try:
        failed = any(piece.result() for piece in pieces)
    finally:  # an interrupt must not free what threads still write to
        for piece in pieces:
            piece.cancel()
        wait(pieces)
    if failed:
        raise MemoryError("no memory for a tile of points")


@lru_cache(maxsize=1)
def _threads(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="blocks")
