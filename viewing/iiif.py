"""What a request of the IIIF Image API 3.0 asks for, and what a picture tells of itself: https://iiif.io/api/image/3.0.

Notation: windows and sizes are those of `utils.windows`, (top, bottom), (left, right) and (h, w); the order of the API
is x, y, w, h.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any

from utils.pyramid import level_size
from utils.windows import Window, intersection, size_of, whole

MOST_AREA = 2**24
"""Pixels of a picture that is sent."""

MOST_SIDE = 16383
"""Of its pixels along an axis: more than that WebP does not hold."""

TILE = 256
"""Pixels along each axis of a tile: those of a chunk of a fit."""

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
PROFILE = "http://iiif.io/api/image/3/level2.json"

CONTEXT, _PROTOCOL = "http://iiif.io/api/image/3/context.json", "http://iiif.io/api/image"
_QUALITIES = ("default", "color", "gray", "bitonal")
_OTHER_FORMATS = ("tif", "gif", "jp2", "pdf")  # which the API names
_WHOLE, _NUMBER = r"(\d{1,9})", r"(\d{0,9}(?:\d|\.\d{1,12}))"


class RequestError(Exception):
    """A request that cannot be served.

    Inputs
        status: of HTTP
        message: one line
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """
    window: in pixels of the whole picture
    size: to which it is scaled, before it is turned
    is_mirrored: from left to right, before it is turned
    turns: quarters of a turn, clockwise
    quality: color, gray or bitonal
    format: of `MEDIA_TYPES`
    path: the same request in its canonical form
    """

    window: Window
    size: tuple[int, int]
    is_mirrored: bool
    turns: int
    quality: str
    format: str
    path: str


def parse(region: str, size: str, rotation: str, last: str, of: tuple[int, int], n_channels: int) -> Request:
    """The four parts of a path after the identifier, of which the last is `quality.format`.

    Inputs
        of: (h, w) of the picture
        n_channels: of it
    Errors
        RequestError for what is not as the API has it, and for more than may be asked for
    """
    window = parse_region(region, of)
    scaled = parse_size(size, size_of(window))
    is_mirrored, turns = parse_rotation(rotation)
    quality, format = parse_last(last)
    own = "gray" if n_channels == 1 else "color"
    quality = own if quality in ("default", "color") else quality
    (top, bottom), (left, right) = window
    words = [
        "full" if window == whole(of) else f"{left},{top},{right - left},{bottom - top}",
        _size_word(scaled, size_of(window)),
        f"{'!' * is_mirrored}{90 * turns}",
        f"{'default' if quality == own else quality}.{format}",
    ]
    return Request(window, scaled, is_mirrored, turns, quality, format, "/".join(words))


def parse_region(text: str, of: tuple[int, int]) -> Window:
    """full, square, x,y,w,h or pct:x,y,w,h, as far as it lies in a picture of this size."""
    height, width = of
    if text == "full":
        return whole(of)
    if text == "square":
        side = min(of)
        top, left = (height - side) // 2, (width - side) // 2
        return (top, top + side), (left, left + side)
    if found := re.fullmatch(",".join([_WHOLE] * 4), text):
        x, y, w, h = map(int, found.groups())
        asked = (y, y + h), (x, x + w)
    elif found := re.fullmatch("pct:" + ",".join([_NUMBER] * 4), text):
        x, y, w, h = (float(number) / 100 for number in found.groups())
        asked = (round(y * height), round((y + h) * height)), (round(x * width), round((x + w) * width))
    else:
        raise RequestError(400, "the region must be full, square, x,y,w,h or pct:x,y,w,h")
    window = intersection(asked, whole(of))
    if window is None:
        raise RequestError(400, f"the region has no pixel of the picture, which is {width} x {height}")
    return window


def parse_size(text: str, of: tuple[int, int]) -> tuple[int, int]:
    """max, w, ,h pct:n w,h or !w,h of a region of this size; with ^ in front it may be enlarged.

    By the API, a !w,h that is larger means the region's own size, and ^max the largest that is served. Its validators
    want the first refused and no growth by the second, and so it is here.
    """
    may_grow, words = text.startswith("^"), text.removeprefix("^")
    if words == "max":
        return largest(of)
    size = _scaled(words, of)
    if not all(size):
        raise RequestError(400, "the size has no pixel")
    if not may_grow and (size[0] > of[0] or size[1] > of[1]):
        raise RequestError(400, f"the size is larger than the region, {of[1]} x {of[0]}; to enlarge it, write ^{words}")
    if words.startswith("!"):
        most = largest(of, may_grow)
        return size if size[0] <= most[0] and size[1] <= most[1] else most
    if size[0] * size[1] > MOST_AREA or max(size) > MOST_SIDE:
        limits = f"{MOST_SIDE} a side and {MOST_AREA:,} in all"
        raise RequestError(400, f"the size has more pixels than are served, {limits}; ask for a smaller one")
    return size


def _scaled(words: str, of: tuple[int, int]) -> tuple[int, int]:
    height, width = of
    if found := re.fullmatch(f"pct:{_NUMBER}", words):
        part = float(found[1]) / 100
        return round(height * part), round(width * part)
    if found := re.fullmatch(f"{_WHOLE},", words):
        return _along(height, int(found[1]), width), int(found[1])
    if found := re.fullmatch(f",{_WHOLE}", words):
        return int(found[1]), _along(width, int(found[1]), height)
    if found := re.fullmatch(f"(!?){_WHOLE},{_WHOLE}", words):
        w, h = int(found[2]), int(found[3])
        if not found[1]:
            return h, w
        return (_along(height, w, width), w) if w * height <= h * width else (h, _along(width, h, height))
    raise RequestError(400, "the size must be max, w, ,h pct:n w,h or !w,h, with ^ in front where it may be enlarged")


def _along(length: int, wanted: int, of: int) -> int:
    """A length where another one, `of`, becomes `wanted`, in proportion; at least a pixel of anything."""
    return max(round(length * wanted / of), min(wanted, 1))


def largest(of: tuple[int, int], may_grow: bool = False) -> tuple[int, int]:
    """In proportion the largest size that is served, which is at most the size itself unless it may grow."""
    scale = min(MOST_SIDE / max(of), sqrt(MOST_AREA / (of[0] * of[1])))
    scale = scale if may_grow else min(1, scale)
    return of if scale == 1 else tuple(max(1, int(length * scale)) for length in of)


def _size_word(size: tuple[int, int], of: tuple[int, int]) -> str:
    if size == largest(of):
        return "max"
    return f"{'^' if size[0] > of[0] or size[1] > of[1] else ''}{size[1]},{size[0]}"


def parse_rotation(text: str) -> tuple[bool, int]:
    """Whether to mirror, and quarters of a turn."""
    found = re.fullmatch(f"(!?){_NUMBER}", text)
    if not found or float(found[2]) > 360:
        raise RequestError(400, "the rotation must be 0, 90, 180 or 270, with ! in front to mirror first")
    if float(found[2]) % 90:
        raise RequestError(501, "pictures are turned by 0, 90, 180 or 270 degrees alone")
    return bool(found[1]), int(float(found[2])) // 90 % 4


def parse_last(text: str) -> tuple[str, str]:
    """Quality and format."""
    quality, _, format = text.partition(".")
    if quality not in _QUALITIES:
        raise RequestError(400, f"the quality must be one of {', '.join(_QUALITIES)}")
    if format not in MEDIA_TYPES:
        status = 501 if format in _OTHER_FORMATS else 400
        raise RequestError(status, f"the format must be one of {', '.join(MEDIA_TYPES)}")
    return quality, format


def scale_factors(of: tuple[int, int]) -> list[int]:
    """1, 2, 4, ... until a picture of this size fits into a tile."""
    factors = [1]
    while max(of) > TILE * factors[-1]:
        factors.append(2 * factors[-1])
    return factors


def tiles(of: tuple[int, int], factor: int) -> Iterator[Window]:
    """The windows that tiles show, row by row, with a pixel for so many along each axis."""
    step = TILE * factor
    for top in range(0, of[0], step):
        for left in range(0, of[1], step):
            yield (top, min(top + step, of[0])), (left, min(left + step, of[1]))


def tile_request(window: Window, factor: int, of: tuple[int, int]) -> Request:
    """What a viewer asks for where there are tiles alone."""
    (top, bottom), (left, right) = window
    height, width = (-(-length // factor) for length in size_of(window))
    region = "full" if window == whole(of) else f"{left},{top},{right - left},{bottom - top}"
    size = "max" if factor == 1 and window == whole(of) else f"{width},{height}"
    return Request(window, (height, width), False, 0, "color", "png", f"{region}/{size}/0/default.png")


def information(address: str, of: tuple[int, int]) -> dict[str, Any]:
    """What `info.json` says of a picture.

    Inputs
        address: of the picture, without a slash at its end
        of: its (h, w)
    """
    factors = scale_factors(of)
    sizes = [level_size(of, level) for level in reversed(range(len(factors)))]
    return described(address, of, "level2") | {
        "maxWidth": MOST_SIDE,
        "maxHeight": MOST_SIDE,
        "maxArea": MOST_AREA,
        "sizes": [{"width": w, "height": h} for h, w in sizes if h * w <= MOST_AREA and max(h, w) <= MOST_SIDE],
        "extraFormats": ["webp"],
        "extraQualities": ["color", "gray", "bitonal"],
        "extraFeatures": ["mirroring", "sizeUpscaling", "canonicalLinkHeader", "profileLinkHeader"],
    }


def described(address: str, of: tuple[int, int], profile: str) -> dict[str, Any]:
    """What `info.json` says at every level of compliance."""
    return {
        "@context": CONTEXT,
        "id": address,
        "type": "ImageService3",
        "protocol": _PROTOCOL,
        "profile": profile,
        "width": of[1],
        "height": of[0],
        "tiles": [{"width": TILE, "height": TILE, "scaleFactors": scale_factors(of)}],
        "preferredFormats": ["png"],  # to compare pixels, and no slower than others
    }
