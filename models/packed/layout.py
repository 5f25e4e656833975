"""The bytes before the chunks: preface, header and index, as docs/format.md describes them. All numbers are little
endian."""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from models.packed.inflate import inflated, inflated_whole
from utils.errors import InputError

MAGIC = b"\x89MINER\r\n"
MAJOR, MINOR = 1, 0
_PREFACE, _CHECKSUM = struct.Struct("<8sHHIIII"), struct.Struct("<I")
PREFACE_BYTES = _PREFACE.size + _CHECKSUM.size
_MOST_HEADER = 2**26  # bytes of its text
OVERVIEW = 2**32 - 1
"""What stands for the number of the level in the checksums of the overview's tiles."""


@dataclass(frozen=True)
class Preface:
    """Bytes of the header and of the index, and their CRC-32s."""

    header_bytes: int
    index_bytes: int
    header_checksum: int
    index_checksum: int

    @property
    def end(self) -> int:
        """Where the index ends, and the overview begins."""
        return PREFACE_BYTES + self.header_bytes + self.index_bytes


def beginning(header: dict[str, Any], index: bytes) -> bytes:
    """Preface, header and index."""
    text = zlib.compress(json.dumps(header, allow_nan=False, separators=(",", ":")).encode(), 9)
    lengths, checksums = (len(text), len(index)), (zlib.crc32(text), zlib.crc32(index))
    preface = _PREFACE.pack(MAGIC, MAJOR, MINOR, *lengths, *checksums)
    return preface + _CHECKSUM.pack(zlib.crc32(preface)) + text + index


def read_preface(data: bytes, name: str) -> Preface:
    """The inverse, of the first bytes of a file; InputError, which names it, for those of another."""
    if not data.startswith(MAGIC):
        raise InputError(f"{name} is not a .miner file; name one that pack.py wrote, or the folder of a run")
    if len(data) < PREFACE_BYTES:
        raise InputError(f"{name} is cut short; get it again")
    _, major, _, *rest = _PREFACE.unpack(data[: _PREFACE.size])
    if _CHECKSUM.unpack(data[_PREFACE.size : PREFACE_BYTES])[0] != zlib.crc32(data[: _PREFACE.size]):
        raise damaged(name, "its first bytes are not as they were written")
    if major != MAJOR:
        raise InputError(f"{name} has format version {major}; this program reads version {MAJOR}: update it")
    return Preface(*rest)


def read_header(data: bytes) -> dict[str, Any]:
    """ValueError for what is not compressed JSON, or holds numbers that are none."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} in the header")

    header = json.loads(inflated_whole(data, _MOST_HEADER).decode(), parse_constant=refuse)
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    return header


def damaged(name: str, reason: str) -> InputError:
    return InputError(f"{name} is damaged ({reason}); get it again")


def checksum(data: bytes, level: int, number: int) -> int:
    """The CRC-32 of a chunk, after the numbers of its level and of itself: so that no other will do in its place."""
    return zlib.crc32(data, zlib.crc32(struct.pack("<II", level, number)))


@dataclass(frozen=True)
class Index:
    """
    active: of each level, the coarsest first, (n_grid,) bool, which blocks have a network
    lengths: (n,) uint32 bytes of the chunks of all levels, then of the overview's tiles
    checksums: (n,) uint32, likewise
    """

    active: Sequence[np.ndarray]
    lengths: np.ndarray
    checksums: np.ndarray


def pack_index(index: Index) -> bytes:
    bitmaps = b"".join(np.packbits(active).tobytes() for active in index.active)
    return zlib.compress(bitmaps + to_planes(index.lengths) + to_planes(index.checksums), 9)


def unpack_index(data: bytes, n_blocks: Sequence[int], n: int) -> Index:
    """
    Inputs
        n_blocks: of the grid of each level, the coarsest first
        n: chunks of all levels, and tiles of the overview
    Errors
        ValueError for data that is not as long as that
    """
    n_bytes = [-(-number // 8) for number in n_blocks]
    raw = inflated(data, sum(n_bytes) + 8 * n)
    ends = np.cumsum([0, *n_bytes]).tolist()
    bitmaps = [np.frombuffer(raw[start:stop], np.uint8) for start, stop in pairwise(ends)]
    active = [np.unpackbits(bits, count=count).view(bool) for bits, count in zip(bitmaps, n_blocks, strict=True)]
    middle = ends[-1] + 4 * n
    return Index(active, from_planes(raw[ends[-1] : middle], "<u4"), from_planes(raw[middle:], "<u4"))


def to_planes(numbers: np.ndarray) -> bytes:
    """Numbers of 4 bytes as byte planes: the lowest byte of each, then the second of each, and so on."""
    little = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1, 4).T.tobytes()


def from_planes(data: bytes, dtype: str) -> np.ndarray:
    """The inverse, a new array."""
    planes = np.frombuffer(data, np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(-1)
