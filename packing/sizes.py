"""How sizes on a disk are told."""

from math import prod


def size_line(n_bytes: int, size: tuple[int, ...]) -> str:
    """
    Inputs
        size: of the signal that they hold
    """
    point = "pixel" if len(size) == 2 else "voxel"
    return f"{n_bytes:,} bytes, {figure(8 * n_bytes / prod(size))} bits a {point}"


def figure(value: float) -> str:
    """A number with two digits, or more in front of its point."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
