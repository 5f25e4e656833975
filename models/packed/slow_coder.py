"""coder.c in Python, for machines without a compiler: some seconds for a million values."""

from dataclasses import dataclass

import numpy as np

LOWEST, WIDEST = -8, 12
"""Scales of the narrowest and of the widest table."""

LEAST = 2**16
"""Of the coder's state."""

PRECISION = 14
TOTAL = 2**PRECISION
FARTHEST = 2**28
"""The largest magnitude that is read."""

LARGEST_SCALE = WIDEST + 64
"""That magnitudes are read at: at most 16 of their bits are apart."""

Tables = list[list[int]]


def quarters(n: int) -> int:
    """floor(2 log2 n), of n >= 1, so that it counts quarters of octaves of the root of n."""
    high = n.bit_length() - 1
    mantissa = n >> (high - 15) if high > 15 else n << (15 - high)
    return 2 * high + (mantissa >= 46341)


def table_of(scale: int) -> tuple[int, int]:
    """The table of a scale, and how many low bits of a magnitude are apart."""
    n_low = max(0, (scale - WIDEST + 3) // 4)
    return max(scale - 4 * n_low, LOWEST) - LOWEST, n_low


class Reader:
    """Values from the bytes of a chunk; ValueError where they end too early."""

    def __init__(self, data: bytes, tables: Tables):
        if len(data) < 4:
            raise ValueError("a chunk without a state")
        self.data, self.at, self.tables = data, 4, tables
        self.state = int.from_bytes(data[:4], "little")
        if self.state < LEAST:
            raise ValueError("a chunk with a strange state")

    def _refill(self) -> None:
        if self.state < LEAST:
            if self.at + 2 > len(self.data):
                raise ValueError("a chunk that ends too early")
            self.state = self.state << 16 | self.data[self.at] | self.data[self.at + 1] << 8
            self.at += 2

    def bits(self, n: int) -> int:
        value = self.state & ((1 << n) - 1)
        self.state >>= n
        self._refill()
        return value

    def symbol(self, starts: list[int]) -> int:
        slot, symbol = self.state & (TOTAL - 1), 0
        while slot >= starts[symbol + 1]:
            symbol += 1
        self.state = (starts[symbol + 1] - starts[symbol]) * (self.state >> PRECISION) + slot - starts[symbol]
        self._refill()
        return symbol

    def magnitude(self, scale: int) -> int:
        table, n_low = table_of(scale)
        return self.magnitude_from(self.tables[table], n_low)

    def magnitude_from(self, starts: list[int], n_low: int) -> int:
        """By the bounds of a table, and how many low bits are apart."""
        value = self.symbol(starts)
        if value == len(starts) - 2:
            n = self.bits(5)
            low = self.bits(min(n, 14))
            value += (1 << n) - 1 + (low | (self.bits(n - 14) << 14 if n > 14 else 0))
        if n_low > 16 or value << n_low > FARTHEST:
            raise ValueError("a value that is too large")
        return value << n_low | self.bits(n_low) if n_low else value

    def value(self, scale: int) -> int:
        return self.signed(self.magnitude(scale))

    def signed(self, magnitude: int) -> int:
        return -magnitude if magnitude and self.bits(1) else magnitude

    def end(self) -> None:
        """ValueError if something is left."""
        if self.state != LEAST or self.at != len(self.data):
            raise ValueError("a chunk with something behind its values")


@dataclass
class Model:
    """What is the same for all blocks of a level.

    Without layers, networks are coded tensor by tensor: `n_in` of them, with sizes in `hidden`, group by group, and
    scales in `base`.
    """

    n_layers: int
    n_in: int
    n_out: int
    has_amplitude: bool
    spread: int
    first: int
    difference: int
    starts: list[int]
    hidden: list[int]
    chroma: list[int]
    out: list[int]
    base: list[int]
    bias: list[int]
    floors: list[int]

    def packed(self) -> list[int]:
        """As coder.c reads it, and `unpack`."""
        numbers = [len(self.starts) - 1, self.n_layers, self.n_in, self.n_out, int(self.has_amplitude)]
        numbers += [self.spread, self.first, self.difference, *self.starts, *self.hidden]
        return [*numbers, *self.chroma, *self.out, *self.base, *self.bias, *self.floors]

    @classmethod
    def unpack(cls, packed: list[int]) -> "Model":
        n_groups, n_layers, n_in, n_out, has_amplitude, spread, first, difference, *rest = packed
        counts = [n_groups + 1, n_groups, n_out - 1, n_out, *[n_layers - 1] * 3]
        if n_layers == 0:
            counts = [n_groups + 1, n_groups * n_in, 0, 0, n_in, 0, 0]
        lists = []
        for count in counts:
            lists.append(rest[:count])
            rest = rest[count:]
        return cls(n_layers, n_in, n_out, bool(has_amplitude), spread, first, difference, *lists)


def _read_last(reader: Reader, model: Model, n: int) -> tuple[list[int], list[int]]:
    values, energy, most, before, scale = [], [], 0, 0, 0
    chroma = [base + reader.value(model.spread) for base in model.chroma]
    for unit in range(n):
        value = 0
        if unit == 0:
            value = most = reader.magnitude(model.first)
            scale = model.difference + quarters(most**2) - quarters(n**2) if most else 0
        elif most:
            value = before - reader.magnitude(scale)
            if value < 0:
                raise ValueError("units out of order")
        before = value
        row = [-value if value and reader.bits(1) else value]
        row += [reader.value(own) for own in chroma]
        values += row
        energy.append(sum(one**2 for one in row))
    return values + [reader.value(scale) for scale in model.out], energy


def _read_hidden(reader: Reader, model: Model, layer: int, n: int, energy: list[int]) -> tuple[list[int], list[int]]:
    n_in, base = n if layer else model.n_in, model.base[layer] + reader.value(model.spread)
    values, before = [], [0] * n_in
    for of_unit in energy:
        if not of_unit:
            values += [0] * (n_in + 1)
            continue
        scale = base + max(quarters(of_unit), model.floors[layer])
        row = [reader.value(scale) for _ in range(n_in)]
        before = [total + one**2 for total, one in zip(before, row, strict=True)]
        values += [*row, reader.magnitude(scale + model.bias[layer])]
    return values, before


def _read_plain(reader: Reader, model: Model, group: int) -> list[int]:
    values = []
    for size, base in zip(model.hidden[group * model.n_in : (group + 1) * model.n_in], model.base, strict=True):
        scale = base + reader.value(model.spread)
        values += [reader.value(scale) for _ in range(size)]
    return values


def decode_chunk(data: bytes, n_active: int, packed: list[int], tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """As `rans.decode_chunk`."""
    reader, model, values = Reader(data, tables), Model.unpack(packed), []
    groups = [reader.symbol(model.starts) for _ in range(n_active)]
    for group in groups:
        if model.n_layers == 0:
            values += _read_plain(reader, model, group)
            continue
        if model.has_amplitude:
            values.append(reader.bits(11))
        last, energy = _read_last(reader, model, model.hidden[group])
        values += last
        for layer in reversed(range(model.n_layers - 1)):
            hidden, energy = _read_hidden(reader, model, layer, model.hidden[group], energy)
            values += hidden
    reader.end()
    return np.array(groups, np.int32), np.array(values, np.int32)


class Writer:
    """The inverse of `Reader`: what is read first is written last."""

    def __init__(self, tables: Tables):
        self.words, self.state, self.tables = [], LEAST, tables

    def _emit(self) -> None:
        self.words.append(self.state & 0xFFFF)
        self.state >>= 16

    def bits(self, value: int, n: int) -> None:
        if n and self.state >> (32 - n):
            self._emit()
        self.state = self.state << n | value

    def symbol(self, start: int, stop: int) -> None:
        if self.state >= (stop - start) << (32 - PRECISION):
            self._emit()
        quotient, rest = divmod(self.state, stop - start)
        self.state = (quotient << PRECISION) + rest + start

    def magnitude(self, value: int, scale: int) -> None:
        table, n_low = table_of(scale)
        starts = self.tables[table]
        if n_low:
            self.bits(value & ((1 << n_low) - 1), n_low)
        value >>= n_low
        escape = len(starts) - 2
        if value >= escape:
            n = (value - escape + 1).bit_length() - 1
            low = value - escape + 1 - (1 << n)
            if n > 14:
                self.bits(low >> 14, n - 14)
            self.bits(low & (2**14 - 1), min(n, 14))
            self.bits(n, 5)
            value = escape
        self.symbol(*starts[value : value + 2])

    def bytes(self) -> bytes:
        return self.state.to_bytes(4, "little") + np.array(self.words[::-1], "<u2").tobytes()


def encode_values(
    values: np.ndarray, scales: np.ndarray, kinds: np.ndarray, starts: np.ndarray, tables: Tables
) -> bytes:
    """As `rans.encode_values`."""
    writer, bounds = Writer(tables), starts.tolist()
    for value, scale, kind in zip(values[::-1].tolist(), scales[::-1].tolist(), kinds[::-1].tolist(), strict=True):
        if kind == 0:
            if value:
                writer.bits(int(value < 0), 1)
            writer.magnitude(abs(value), scale)
        elif kind == 1:
            writer.magnitude(value, scale)
        elif kind == 2:
            writer.bits(value, scale)
        elif kind == 3:
            writer.symbol(*bounds[value : value + 2])
    return writer.bytes()
