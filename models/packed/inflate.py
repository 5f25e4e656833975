"""Compressed data, unpacked without taking more memory than is known to be enough."""

import zlib

_MOST_RATIO = 1032  # of deflate


def inflated(data: bytes, length: int) -> bytes:
    """Unpack data of zlib's; ValueError unless it is sound, and unpacks to this many bytes exactly."""
    start, is_all = inflated_start(data, length)
    if not is_all:
        raise ValueError(f"{len(data)} compressed bytes are not those of {length}")
    return start


def inflated_whole(data: bytes, most: int) -> bytes:
    """Unpack data of zlib's; ValueError unless it is sound, and unpacks to at most so many bytes."""
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(data, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not stream.eof or stream.unused_data:
        raise ValueError(f"{len(data)} compressed bytes that do not end within {most}")
    return whole


def inflated_start(data: bytes, length: int) -> tuple[bytes, bool]:
    """The first bytes of data of zlib's, and whether they are all; ValueError for fewer than are asked for."""
    if length > _MOST_RATIO * len(data):
        raise ValueError(f"{len(data)} compressed bytes cannot hold {length}")
    stream = zlib.decompressobj()
    try:
        start = stream.decompress(data, length + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(start) < length:
        raise ValueError(f"{len(data)} compressed bytes hold {len(start)} of {length}")
    return start[:length], len(start) == length and stream.eof and not stream.unused_data
