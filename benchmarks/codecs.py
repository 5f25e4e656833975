"""Bytes of pictures by other codecs, at a PSNR that is asked for.

Notation: *pixels* are (h, w) of grey or (h, w, 3) of RGB, uint8.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np
import torch

from utils.metrics import psnr

LIBRARIES = ("libjpeg_turbo", "libwebp", "libjxl", "libavif")


@dataclass(frozen=True)
class Codec:
    """One that loses something, by a setting.

    settings: from the worst to the best that still loses something; with each, PSNR rises or stays
    encode: (pixels, setting) -> the bytes of a file
    decode: back to pixels
    greys: whether it takes grey; if not, it is given grey as three equal channels
    """

    name: str
    settings: Sequence[float]
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    greys: bool = True


def _jpeg(pixels: np.ndarray, quality: float) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, quality, subsampling="444", optimize=True)


def _jpeg_420(pixels: np.ndarray, quality: float) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, quality, subsampling="420", optimize=True)


def _webp(pixels: np.ndarray, quality: float) -> bytes:
    return imagecodecs.webp_encode(pixels, quality, lossless=False, method=6)


def _jxl(pixels: np.ndarray, distance: float) -> bytes:
    return imagecodecs.jpegxl_encode(pixels, distance=distance, effort=7)


def _avif(pixels: np.ndarray, quality: float) -> bytes:
    return imagecodecs.avif_encode(pixels, quality, speed=6, codec="aom", pixelformat="444")


CODECS = (
    Codec("JPEG", range(1, 101), _jpeg, imagecodecs.jpeg8_decode),
    Codec("WebP", range(101), _webp, imagecodecs.webp_decode, greys=False),
    Codec("JPEG XL", [max(25 * 2 ** (-i / 4), 0.01) for i in range(47)], _jxl, imagecodecs.jpegxl_decode),
    # of grey, imagecodecs ignores the quality; equal channels cost it less than one byte in three hundred
    Codec("AVIF", range(100), _avif, imagecodecs.avif_decode, greys=False),
)
JPEG_420 = Codec("JPEG 4:2:0", range(1, 101), _jpeg_420, imagecodecs.jpeg8_decode)


def versions() -> str:
    """Of the libraries behind the codecs, such as "libwebp 1.6.0, libjxl 0.11.2"."""
    found = imagecodecs.version(dict)
    return ", ".join(f"{name} {found[name].partition('/')[0]}" for name in LIBRARIES)


def png_bytes(pixels: np.ndarray) -> int:
    """Without loss, filters chosen row by row."""
    return len(imagecodecs.png_encode(pixels, level=9, filter=imagecodecs.PNG.FILTER.ALL))


def bytes_at(codec: Codec, pixels: np.ndarray, wanted: float) -> float | None:
    """Bytes of a picture at a PSNR of `wanted` dB, between the two settings next to it: their logarithms are
    interpolated linearly over dB. None where no setting is as good, or none as bad."""

    around = _around(codec, pixels, wanted)
    if around is None:
        return None
    (worse, fewer), (better, more) = (measure(codec, pixels, codec.settings[index]) for index in around)
    share = 0.0 if better == worse else (wanted - worse) / (better - worse)
    return math.exp((1 - share) * math.log(fewer) + share * math.log(more))


def setting_for(codec: Codec, pixels: np.ndarray, wanted: float) -> float:
    """The worst setting that is as good as `wanted` dB; the best one where none is."""
    around = _around(codec, pixels, wanted)
    return codec.settings[-1] if around is None else codec.settings[around[1]]


def _around(codec: Codec, pixels: np.ndarray, wanted: float) -> tuple[int, int] | None:
    """The places of the two settings next to a PSNR, the worse one first; None where it is out of reach."""

    @functools.cache
    def quality(index: int) -> float:
        return measure(codec, pixels, codec.settings[index])[0]

    low, high = 0, len(codec.settings) - 1
    if math.isinf(wanted) or not quality(low) <= wanted <= quality(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if quality(middle) <= wanted else (low, middle)
    return low, high


def measure(codec: Codec, pixels: np.ndarray, setting: float) -> tuple[float, int]:
    """PSNR in dB of the 8 bits that are decoded, and bytes."""
    grey = pixels.ndim == 2
    given = np.repeat(pixels[..., None], 3, axis=2) if grey and not codec.greys else pixels
    data = codec.encode(given, setting)
    decoded = codec.decode(data)
    if grey and decoded.ndim == 3:
        decoded = decoded[..., 0]
    return psnr(as_values(decoded), as_values(pixels)), len(data)


def as_values(pixels: np.ndarray) -> torch.Tensor:
    """(c, h, w) in [0, 1]"""
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).float() / 255


def as_pixels(values: torch.Tensor) -> np.ndarray:
    """Of (c, h, w) in [0, 1], c 1 or 3."""
    pixels = (255 * values).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
