"""shim"""

from dataclasses import dataclass

import numpy as np

from datasets.signals import read_header, read_occupancy, read_picture


@dataclass(frozen=True)
class Source:
    size: tuple
    n_channels: int
    bits: int
    frame: object
    file_size: tuple
    rows_at_once: int
    numbers: object

    def read(self, start, stop):
        return np.ascontiguousarray(self.numbers()[:, start:stop])


def open_picture(path, size=None):
    h = read_header(path, "image")
    cache = []
    p = read_picture(path, size)
    n = (p.values.numpy() * (2**p.bits - 1)).round().astype(np.uint8 if p.bits == 8 else np.uint16)
    return Source(tuple(n.shape[1:]), len(n), p.bits, None, p.file_size, 1, lambda: n)


def open_occupancy(path, size=None):
    v = read_occupancy(path, size)
    return Source(tuple(v.values.shape[1:]), 1, 1, v.frame, tuple(v.values.shape[1:]), 1, lambda: v.values.numpy())
