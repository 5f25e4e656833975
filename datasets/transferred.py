"""Pictures of values other than plain pixels, taken to 16 bits by a transfer that suits them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.formats import Pixels
from utils.errors import InputError
from utils.transfer import MU, Reading, Survey, Transfer, survey
from utils.windows import row_ranges, rows_at_once

_FEW = 32  # times the log-average, up to which the highest value leaves a linear transfer room


def transferred(path: Path, pixels: Pixels, reading: Reading) -> tuple[Pixels, Transfer | None]:
    """A picture as 16-bit pixels, and how its values were taken there; plain pixels as they are, unless those of 16
    bits are asked for in their own range.

    Errors
        InputError for values that are not finite, unless `reading` allows them, and for what plain pixels do not need
    """
    if pixels.dtype is None and not _has_own_range(pixels, reading.transfer):
        check_plain(path, pixels.bits, reading)
        return pixels, None
    parts = (values for strip in _strips(pixels) for values in _parts(strip))
    transfer, notes = transfer_of(path, parts, reading, lambda found: suitable_kind(found, pixels.is_light))

    def window(rows: slice, columns: slice) -> np.ndarray:
        values = pixels.window(rows, columns)
        numbers = np.empty(values.shape, np.uint16)
        for part, of_part in zip(_parts(values), _parts(numbers), strict=True):
            of_part[:] = transfer.numbers(part)
        return numbers

    def window_bytes(n_rows: int, n_columns: int) -> int:
        numbers = 2 * n_rows * n_columns * pixels.n_channels
        return pixels.window_bytes(n_rows, n_columns) + numbers + _ENCODING

    return replace(pixels, window=window, window_bytes=window_bytes, dtype=None, notes=pixels.notes + notes), transfer


def _has_own_range(pixels: Pixels, transfer: str | Transfer | None) -> bool:
    """Whether a transfer over the values of 16-bit pixels is wanted."""
    dtype = transfer.dtype if isinstance(transfer, Transfer) else transfer and "uint16"
    return pixels.bits == 16 and dtype == "uint16"


_ENCODING = 2**26  # bytes, while some rows are encoded


def _strips(pixels: Pixels) -> Iterator[np.ndarray]:
    """All of a picture, (n_rows, w, c) at a time."""
    for start, stop in row_ranges(pixels.n_channels, pixels.size, pixels.chunk[0]):
        yield pixels.window(slice(start, stop), slice(0, pixels.size[1]))


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of a window, as many at once as are cheap to encode."""
    n_rows = rows_at_once(values.shape[2], values.shape[:2])
    return (values[top : top + n_rows] for top in range(0, len(values), n_rows))


def transfer_of(
    path: Path, parts: Iterable[np.ndarray], reading: Reading, suits: Callable[[Survey], str]
) -> tuple[Transfer, tuple[str, ...]]:
    """How the values of a file lie in [0, 1], and notes.

    Inputs
        parts: of all values, which are looked at unless the transfer is known
        suits: the kind, where `reading` leaves it open
    Errors
        InputError if some values are not finite, unless they may be
    """
    if isinstance(reading.transfer, Transfer):
        return reading.transfer, ()
    found = survey(parts)
    notes = _check_finite(path, found, reading.nodata)
    transfer = Transfer.over(reading.transfer or suits(found), found.low, found.high, value_type(found.dtype))
    return replace(transfer, spread=float(transfer.encode(found.sample).std(dtype=np.float64))), notes


def check_plain(path: Path, bits: int, reading: Reading) -> None:
    """InputError for what plain values, of 8 or 16 bits, do not need."""
    if isinstance(reading.transfer, str) or reading.nodata:
        option = "--nodata" if reading.nodata else f"--transfer {reading.transfer}"
        raise InputError(f"{option}: {path} holds {bits} bits a channel, which need none; leave it out")


def value_type(dtype: np.dtype) -> str:
    """That a transfer gives back: of float64, single precision."""
    return "float32" if dtype == np.float64 else dtype.name


def suitable_kind(found: Survey, is_light: bool) -> str:
    """The curve that leaves most values room.

    Intensities of light, and other floating point numbers of such a range, are mostly far below their highest. Log is
    the usual curve; but below a part 1 / MU of the highest it is a straight line: where the log-average lies there, pq.
    """
    has_range = found.low >= 0 and 0 < found.log_mean * _FEW < found.high
    if not (is_light or has_range):
        return "linear"
    return "pq" if 0 < found.log_mean * MU < found.high else "log"


def _check_finite(path: Path, found: Survey, nodata: bool) -> tuple[str, ...]:
    """A note on the values that are not finite and are taken for the lowest one; InputError unless they may be."""
    if not found.n_lost:
        return ()
    named = ((found.n_nan, "NaN"), (found.n_infinite, "infinite"))
    counts = ", ".join(f"{count:,} {name}" for count, name in named if count)
    what = f"{path} holds values that are not finite ({counts})"
    if not nodata:
        raise InputError(f"{what}; add --nodata, which takes them for the lowest one")
    return (f"{what}; they are taken for the lowest one, {found.low:g}",)
