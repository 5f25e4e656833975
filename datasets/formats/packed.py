"""Chunks of Zarr arrays, refused before they unpack to more than a chunk holds.

A few bytes can unpack to gigabytes, and Zarr's own codecs make room for whatever a chunk declares. With this module
loaded, Zarr reads chunks through `BoundedPipeline`.
"""

import asyncio
import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import imagecodecs
import zarr
from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.codecs._v2 import V2Codec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.core.metadata import ArrayV2Metadata
from zarr.registry import register_pipeline

_OVERHEAD = 2**16  # bytes, of checksums and the like
_WIDENING = {
    **dict.fromkeys(("bytes", "transpose", "shuffle", "bitround", "crc32c", "crc32", "adler32", "fletcher32"), 1),
    **dict.fromkeys(("delta", "fixedscaleoffset", "quantize", "astype", "packbits"), 8),
}
"""Bytes that a byte of a chunk may be, by what is done to chunks before they are compressed."""


def _count_by(start: Callable[[], Any]) -> Callable[[bytes, int], int]:
    """A function for `_COUNTS` that unpacks the streams of a chunk.

    Inputs
        start: makes what unpacks a stream
    """

    def count(data: bytes, most: int) -> int:
        n_bytes = 0
        while data and n_bytes <= most:
            stream = start()
            n_bytes += len(stream.decompress(data, most + 1 - n_bytes))
            data = stream.unused_data.lstrip(b"\0")
        return n_bytes

    return count


def _count_zstd(data: bytes, most: int) -> int:
    """As the header says (RFC 8878, 3.1.1.1); where it does not, by unpacking."""
    descriptor = data[4]
    is_single = descriptor >> 5 & 1
    length = (is_single, 2, 4, 8)[descriptor >> 6]
    if length == 0:
        return len(imagecodecs.zstd_decode(data, out=most))
    begin = 6 - is_single + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(data[begin : begin + length], "little") + (256 if length == 2 else 0)


_COUNTS: dict[str, Callable[[bytes, int], int]] = {
    "blosc": lambda data, _: int.from_bytes(data[4:8], "little"),
    "lz4": lambda data, _: int.from_bytes(data[:4], "little"),
    "zstd": _count_zstd,
    "gzip": _count_by(lambda: zlib.decompressobj(wbits=31)),
    "zlib": _count_by(zlib.decompressobj),
    "bz2": _count_by(bz2.BZ2Decompressor),
    "lzma": _count_by(lzma.LZMADecompressor),
}
"""By compressor: (data, most) -> how many bytes they unpack to, or any number above `most`; they may raise as well."""


def most_packed_bytes(array: zarr.Array) -> int:
    """Bytes of a file of an array, at most; ValueError for codecs that unpack without a bound."""
    metadata = array.metadata
    codecs = _codecs_of(metadata) if metadata.zarr_format == 2 else metadata.codecs
    _, widening = _compressor(codecs)
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            _compressor(codec.codecs)
    return _most(widening, array.shards or array.chunks, array.dtype.itemsize)


def _most(widening: int, shape: tuple[int, ...], itemsize: int) -> int:
    return widening * prod(shape) * itemsize + _OVERHEAD


def _codecs_of(array: ArrayV2Metadata | V2Codec) -> list[Any]:
    """What the chunks of an array of version 2 pass through."""
    return [*(array.filters or ()), *([array.compressor] if array.compressor else ())]


def _compressor(codecs: Iterable[Any]) -> tuple[str | None, int]:
    """The one compressor among the codecs of a chunk, and how many bytes a byte of the chunk may be before it."""
    found, widening = None, 1
    for codec in codecs:
        if isinstance(codec, ShardingCodec) or (found and isinstance(codec, Crc32cCodec)):
            continue
        name = getattr(codec, "codec_id", None) or codec.to_dict()["name"].removeprefix("numcodecs.")
        if found or name not in _WIDENING | _COUNTS:
            raise ValueError(f"codec {name}{f' after {found}' if found else ''} is not read")
        widening = max(widening, _WIDENING.get(name, 1))
        found = name if name in _COUNTS else None
    return found, widening


class BoundedPipeline(BatchedCodecPipeline):
    """Zarr's own way through the codecs of a chunk, which ends where a chunk unpacks to too much."""

    async def decode_batch(
        self, chunk_bytes_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]
    ) -> Iterable[NDBuffer | None]:
        chunks = list(chunk_bytes_and_specs)
        checks = (asyncio.to_thread(self._check, data, spec) for data, spec in chunks if data is not None)
        await asyncio.gather(*checks)
        return await super().decode_batch(chunks)

    def _check(self, chunk: Buffer, spec: ArraySpec) -> None:
        """ValueError for a chunk that unpacks to too much."""
        codecs = list(self)
        name, widening = _compressor(_codecs_of(codecs[0]) if isinstance(codecs[0], V2Codec) else codecs)
        if name is None:
            return
        data = chunk.to_bytes()[:-4] if isinstance(codecs[-1], Crc32cCodec) else chunk.to_bytes()
        most = _most(widening, spec.shape, spec.dtype.to_native_dtype().itemsize)
        if _COUNTS[name](data, most) > most:
            raise ValueError(f"a chunk of {len(chunk)} bytes unpacks to more than {most}")


register_pipeline(BoundedPipeline)
zarr.config.set({"codec_pipeline.path": f"{__name__}.{BoundedPipeline.__name__}"})
