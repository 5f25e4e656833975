"""Where the pixels of a picture lie on a map, as GeoTIFF tells it (OGC 19-008r4), for windows of it at any size."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Self

_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2  # a key, and its value where the first pixel's centre is 0, 0, not its corner


@dataclass(frozen=True)
class Georeference:
    """
    pixel_scale: of a pixel along x, y and z, in the unit of the map
    tiepoints: pairs of a place in the raster and one on the map, x y z each
    transformation: from the raster to the map, a matrix of four rows
    keys, doubles, text: the coordinate system: the directory of its keys, and the numbers and text that it refers to
    nodata: the value of pixels that hold none, as GDAL writes it
    """

    pixel_scale: list[float] | None = None
    tiepoints: list[float] | None = None
    transformation: list[float] | None = None
    keys: list[int] | None = None
    doubles: list[float] | None = None
    text: str | None = None
    nodata: str | None = None

    def __post_init__(self) -> None:
        """TypeError or ValueError for what no GeoTIFF has."""
        for numbers, step in ((self.pixel_scale, 3), (self.tiepoints, 6), (self.transformation, 16), (self.doubles, 1)):
            if numbers and not (len(numbers) % step == 0 and all(isfinite(number) for number in numbers)):
                raise ValueError(f"{numbers} where {step} numbers belong")
        if not all(type(key) is int and 0 <= key < 2**16 for key in self.keys or ()):
            raise ValueError(f"keys {self.keys}")
        if not all((word or "").isascii() for word in (self.text, self.nodata)):
            raise ValueError(f"text {self.text!r}, no data {self.nodata!r}")

    def record(self) -> dict[str, Any]:
        """As plain data, without what is not there."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def window(self, corner: tuple[float, float], pixel_size: tuple[float, float]) -> Self:
        """Of a window of the picture, or of the same at another size.

        Inputs
            corner: (y, x) of the window, in pixels
            pixel_size: (y, x) pixels that a pixel of the window spans
        """
        shift = 0.5 if self._pixel_is_point else 0
        starts = [start + shift * (size - 1) for start, size in zip(corner, pixel_size, strict=True)][::-1]
        sizes = list(pixel_size)[::-1]
        moved = asdict(self)
        if self.pixel_scale:
            moved["pixel_scale"] = [
                *(a * b for a, b in zip(self.pixel_scale, sizes, strict=False)),
                self.pixel_scale[2],
            ]
        if self.tiepoints:
            moved["tiepoints"] = [
                (value - starts[place]) / sizes[place] if (place := index % 6) < 2 else value
                for index, value in enumerate(self.tiepoints)
            ]
        if self.transformation:
            rows = (self.transformation[start : start + 4] for start in range(0, 16, 4))
            moved["transformation"] = [value for row in rows for value in _moved_row(row, starts, sizes)]
        return type(self)(**moved)

    @property
    def _pixel_is_point(self) -> bool:
        """By the directory: after a head of four numbers, four for each key, the last of which may be its value."""
        keys = self.keys or []
        return any(keys[at] == _RASTER_TYPE and keys[at + 3] == _PIXEL_IS_POINT for at in range(4, len(keys) - 3, 4))


def _moved_row(row: Sequence[float], starts: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """A row of a transformation, applied to a raster that begins elsewhere and has other pixels: x and y of both."""
    x, y, z, constant = row
    return [x * sizes[0], y * sizes[1], z, constant + x * starts[0] + y * starts[1]]
