"""Windows of a level, and how a level is cut into windows that memory holds.

Notation: a *window* is a (start, stop) pair along each axis, in pixels of its level. A *row* is what lies at one place
along axis 0: a row of pixels, or a plane of a volume.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, prod

Window = tuple[tuple[int, int], ...]

_VALUES_AT_ONCE = 2**20  # more would leave the caches of a processor


def whole(size: tuple[int, ...]) -> Window:
    return tuple((0, length) for length in size)


def size_of(window: Window) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in window)


def slices(window: Window, origin: Window | None = None) -> tuple[slice, ...]:
    """A window as an index; of an array that begins where another window does, if one is given."""
    starts = [start for start, _ in origin] if origin else [0] * len(window)
    return tuple(slice(low - start, high - start) for (low, high), start in zip(window, starts, strict=True))


def in_samples(window: Window, scale: int | Fraction) -> Window:
    """The samples whose centres lie in a window in pixels, `scale` a pixel along each axis; there may be none."""
    return tuple(tuple(ceil(edge * scale - Fraction(1, 2)) for edge in along) for along in window)


def is_inside(window: Window, size: tuple[int, ...]) -> bool:
    """Whether a window is not empty and lies inside a level of this size."""
    return len(window) == len(size) and all(
        0 <= start < stop <= length for (start, stop), length in zip(window, size, strict=True)
    )


def intersection(window: Window, other: Window) -> Window | None:
    """What two windows share, or None."""
    pairs = zip(window, other, strict=True)
    shared = tuple((max(start, first), min(stop, last)) for (start, stop), (first, last) in pairs)
    return shared if all(start < stop for start, stop in shared) else None


def rows_at_once(n_channels: int, size: tuple[int, ...], step: int = 1) -> int:
    """Rows to process together: a multiple of `step`, with a bounded number of values."""
    return max(1, _VALUES_AT_ONCE // (n_channels * prod(size[1:]) * step)) * step


def row_ranges(n_channels: int, size: tuple[int, ...], step: int = 1) -> Iterator[tuple[int, int]]:
    """All rows, in consecutive ranges (start, stop)."""
    rows = rows_at_once(n_channels, size, step)
    return ((start, min(start + rows, size[0])) for start in range(0, size[0], rows))


def cut_rows(start: int, stop: int, patch: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut rows start..stop-1 into consecutive ranges of at most `most`, at borders of blocks where possible.

    Inputs
        patch: rows of a block
        most: at least 1
    Outputs
        (start, stop) of each; as few of them as possible share a block
    """
    while start < stop:
        border = (start // patch + max(1, most // patch)) * patch
        end = min(border, start + most, stop)
        yield start, end
        start = end
