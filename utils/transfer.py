"""How the values of a file lie in [0, 1], where everything is fitted: a range, and a curve over it.

Notation: *relative* values are (v - low) / (high - low) of values v; *encoded* ones are the curve's, of relative ones.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from math import exp, isfinite, log1p
from typing import Any

import numpy as np

from utils.errors import InputError

MU = 5000
_M1, _M2, _C1, _C2, _C3 = 2610 / 2**14, 2523 / 2**5, 3424 / 2**12, 2413 / 2**7, 2392 / 2**7  # of ST 2084
_PEAK = 2**16 - 1
_SAMPLE, _THINNING = 2**18, 11  # values of a survey; a prime, so that columns and channels keep their turn

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32")
"""Of values that a transfer gives back."""


def mu_law(relative: np.ndarray) -> np.ndarray:
    """The logarithmic curve by which HDR is compared (Kalantari and Ramamoorthi 2017, eq. 1), of values in [0, 1]."""
    return np.log1p(MU * relative) / log1p(MU)


def _from_mu_law(encoded: np.ndarray) -> np.ndarray:
    return np.expm1(encoded * log1p(MU)) / MU


def _pq(relative: np.ndarray) -> np.ndarray:
    """The perceptual quantizer of SMPTE ST 2084, whose peak of 10,000 cd/m^2 is `high` here."""
    powers = relative**_M1
    return ((_C1 + _C2 * powers) / (1 + _C3 * powers)) ** _M2


def _from_pq(encoded: np.ndarray) -> np.ndarray:
    powers = encoded ** (1 / _M2)
    return (np.maximum(powers - _C1, 0) / (_C2 - _C3 * powers)) ** (1 / _M1)


def _same(values: np.ndarray) -> np.ndarray:
    return values


_Curve = Callable[[np.ndarray], np.ndarray]
_CURVES: dict[str, tuple[_Curve, _Curve]] = {
    "linear": (_same, _same),
    "log": (mu_law, _from_mu_law),
    "pq": (_pq, _from_pq),
}
KINDS = tuple(_CURVES)


@dataclass(frozen=True)
class Transfer:
    """
    kind: of the curve: linear, log (the mu-law) or pq
    low, high: values that are 0 and 1
    dtype: of the values in the file, one of `DTYPES`
    spread: standard deviation of the encoded values, if the file has been surveyed; not recorded
    """

    kind: str
    low: float
    high: float
    dtype: str
    spread: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """TypeError or ValueError for what can be no transfer: records may have been tampered with."""
        if self.kind not in KINDS or self.dtype not in DTYPES:
            raise ValueError(f"a transfer {self.kind!r} of {self.dtype!r} values")
        numbers = (self.low, self.high)
        if not all(type(number) in (int, float) for number in numbers):
            raise TypeError(f"a transfer from {self.low!r} to {self.high!r}")
        if not all(map(isfinite, (*numbers, float(self.high) - float(self.low)))) or not self.low < self.high:
            raise ValueError(f"a transfer from {self.low!r} to {self.high!r}")

    @classmethod
    def over(cls, kind: str, low: float, high: float, dtype: str) -> "Transfer":
        """Over the values of a file, from the lowest to the highest; these may be equal.

        Log and pq are curves of intensities, which begin at zero.
        """
        low = low if kind == "linear" else min(low, 0.0)
        return cls(kind, low, high if low < high else low + max(1.0, abs(low)), dtype)

    @property
    def is_light(self) -> bool:
        """Whether the values may be intensities of light."""
        return self.kind != "linear" or (self.low >= 0 and self.dtype.startswith("float"))

    def record(self) -> dict[str, Any]:
        """As plain data, for checkpoints and headers: what `Transfer(**record)` takes."""
        return {name: value for name, value in asdict(self).items() if name != "spread"}

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Values of any type -> float32 in [0, 1]; those that are not finite are `low`."""
        values = np.asarray(values, np.float64)
        values = np.where(np.isfinite(values), values, self.low)
        relative = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        return _CURVES[self.kind][0](relative).astype(np.float32)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Numbers in [0, 1] -> values of `dtype`; integers are rounded."""
        encoded = np.clip(np.asarray(encoded, np.float64), 0, 1)
        values = self.low + _CURVES[self.kind][1](encoded) * (self.high - self.low)
        dtype = np.dtype(self.dtype)
        limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        values = np.rint(values) if dtype.kind in "iu" else values
        return np.clip(values, limits.min, limits.max).astype(dtype)

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """Encoded values in 16 bits, as a `Source` gives them: uint16."""
        return np.rint(self.encode(values) * _PEAK).astype(np.uint16)


@dataclass(frozen=True)
class Reading:
    """How a file is to be read whose values are no plain pixels, or that holds more than one volume.

    transfer: the kind of one over its own values; one that is known already; or None for what suits
    nodata: values that are not finite are taken for the lowest one, in place of an error
    time: of a volume over time, which one, from 1 on; `all` takes times for channels
    channels: of a volume, from 1 on; None for all
    """

    transfer: str | Transfer | None = None
    nodata: bool = False
    time: int | str | None = None
    channels: tuple[int, ...] | None = None


AS_SUITS = Reading()


@dataclass(frozen=True)
class Survey:
    """What one pass over values finds.

    low, high: of the finite ones
    log_mean: geometric mean of the positive ones, the log-average of Reinhard et al. 2002; 0 if there are none, or of
        integers
    n_nan, n_infinite: how many are not finite
    dtype: of all
    sample: some of the finite ones, evenly spread, at most `_SAMPLE`
    """

    low: float
    high: float
    log_mean: float
    n_nan: int
    n_infinite: int
    dtype: np.dtype
    sample: np.ndarray

    @property
    def n_lost(self) -> int:
        return self.n_nan + self.n_infinite


def survey(parts: Iterable[np.ndarray]) -> Survey:
    """Of values that come in parts, of any shapes; InputError if none of them is finite."""
    low, high, n_nan, n_infinite, dtype = np.inf, -np.inf, 0, 0, None
    logs, n_positive = 0.0, 0
    sample, n_apart = np.zeros(0), 1
    for part in parts:
        finite = np.isfinite(part)
        kept, dtype = part[finite], part.dtype
        sample = np.append(sample, kept[::n_apart])
        while sample.size > _SAMPLE:
            sample, n_apart = sample[::_THINNING], n_apart * _THINNING
        if kept.size:
            low, high = min(low, float(kept.min())), max(high, float(kept.max()))
        if dtype.kind == "f":
            positive = kept[kept > 0]
            logs, n_positive = logs + float(np.log(positive, dtype=np.float64).sum()), n_positive + positive.size
        nans = int(np.count_nonzero(np.isnan(part)))
        n_nan, n_infinite = n_nan + nans, n_infinite + part.size - kept.size - nans
    if low > high:
        raise InputError("none of its values is a finite number; use another file")
    return Survey(low, high, exp(logs / n_positive) if n_positive else 0.0, n_nan, n_infinite, dtype, sample)
