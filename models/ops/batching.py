"""How much is evaluated at once, so that memory stays small."""

import torch

_POINTS = {"cpu": 2**18}
_POINTS_ON_DEVICE = 2**24


def points_at_once(device: torch.device) -> int:
    """Points, over all blocks, that are evaluated together, at most."""
    return _POINTS.get(device.type, _POINTS_ON_DEVICE)


def blocks_at_once(n_points: int, b_chunks: int, device: torch.device) -> int:
    """Blocks of n_points points that are evaluated together: at most b_chunks."""
    return max(1, min(b_chunks, points_at_once(device) // n_points))
