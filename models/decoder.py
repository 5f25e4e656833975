"""Levels decoded window by window: each block is evaluated once, and memory follows the window.

Notation: level 0 is the finest; windows are those of `utils.windows`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod

import torch
from torch import Tensor

from models.level import Level, refine
from models.ops import Backend
from models.ops.batching import points_at_once
from utils.pyramid import SMOOTH, upsampling
from utils.raster import computed
from utils.resampling import BETWEEN, Taps, area_taps, resample
from utils.windows import Window, cut_rows, size_of

Windows = Iterator[tuple[Window, Tensor]]

_COPIES_OF_WINDOW = 6  # while it is upsampled, refined, and turned into what is written


@dataclass(frozen=True)
class Decoder:
    """
    levels: those of a fit, by index
    backend: evaluates the networks
    b_chunks: blocks evaluated at once, at most
    """

    levels: dict[int, Level]
    n_channels: int
    backend: Backend
    b_chunks: int = 16384

    @torch.no_grad()
    def windows(self, level: int, wanted: Window, scale: Fraction, between: str, most: int | None) -> Windows:
        """A window of a level, in consecutive ranges of rows.

        Inputs
            wanted: in samples, `scale` a pixel along each axis
            between: how samples between the pixels are made; `networks` wants a whole scale
            most: values of a range, which has at least one row; None for a single one
        Outputs
            pairs of a window, in samples, and its values (c, *[stop - start]) in [0, 1]
        """
        source = self._source(level, scale, between)
        if source is None:
            yield from self._refined(level, wanted, int(scale), most)
            return
        level, taps = source
        size = self.levels[level].size
        reach = taps.source_window(wanted, size)
        n_rows = most and self._resampled_rows(wanted, reach, taps, most)
        ranges = [wanted[0]] if n_rows is None else list(cut_rows(*wanted[0], 1, n_rows))
        ahead = self.windows(level, reach, Fraction(1), between, most and self._ahead_most(level, reach, most))
        reaches = [taps.source(*rows, size[0]) for rows in ranges]
        for rows, (low, _), pixels in zip(ranges, reaches, _gathered(ahead, reaches), strict=True):
            window = (rows, *wanted[1:])
            yield window, resample(pixels, taps, window, (low, *[start for start, _ in reach[1:]]), size)

    def bytes(self, level: int, wanted: Window, scale: Fraction, between: str, most: int) -> int:
        """Of memory that `windows` takes at most, beside networks that are in memory already; inputs are those."""
        n_values = 0
        while (source := self._source(level, scale, between)) is not None:
            level, taps = source
            reach = taps.source_window(wanted, self.levels[level].size)
            n_rows = self._resampled_rows(wanted, reach, taps, most)
            n_values = min(n_rows, wanted[0][1] - wanted[0][0]) * self._row_values(wanted)
            wanted, scale, most = reach, Fraction(1), self._ahead_most(level, reach, most)
        whole_scale, n_evaluated, n_read = int(scale), 0, 0
        for index in range(level, max(self.levels) + 1):
            row_values = self._row_values(wanted)
            n_rows = min(wanted[0][1] - wanted[0][0], max(1, most // row_values))
            n_values += n_rows * row_values
            n_read += self.levels[index].reading_bytes(_pixels(wanted, whole_scale), -(-n_rows // whole_scale))
            n_points = min(n_rows * row_values // self.n_channels, points_at_once(self.levels[index].device))
            for shape in self.levels[index].shapes:
                n_evaluated = max(n_evaluated, 2 * n_points * (shape.n_in + shape.n_hidden + shape.n_out))
            if index + 1 in self.levels:
                taps = upsampling(self.levels[index].fill, 2 * whole_scale)
                wanted = taps.source_window(wanted, self.levels[index + 1].size)
                most = self._ahead_most(index + 1, wanted, most)
            whole_scale = 1
        return 4 * (_COPIES_OF_WINDOW * n_values + n_evaluated) + n_read

    def _source(self, level: int, scale: Fraction, between: str) -> tuple[int, Taps] | None:
        """Of which level samples of this level are made, and how; None where its networks are evaluated at them."""
        if scale > 1:
            return None if between == "networks" else (level, BETWEEN[between](scale))
        while not self.levels[level].is_whole and level - 1 in self.levels and self.levels[level - 1].is_there:
            level, scale = level - 1, scale / 2
        coarser = [index for index, one in self.levels.items() if index > level and one.is_whole]
        for index in sorted(coarser, reverse=True):
            if scale * 2 ** (index - level + 1) <= 1:  # two pixels a sample: their errors average out
                return index, area_taps(scale * 2 ** (index - level))
        return None if scale == 1 else (level, area_taps(scale))

    def _resampled_rows(self, wanted: Window, reach: Window, taps: Taps, most: int) -> int:
        """Rows of samples to make at once: they and the pixels that they are made of have so many values."""
        of_pixels = ceil(self._row_values(reach) / taps.scale)
        return max(1, most // max(self._row_values(wanted), of_pixels))

    def _row_values(self, window: Window) -> int:
        return self.n_channels * prod(size_of(window[1:]))

    def _ahead_most(self, level: int, reach: Window, most: int) -> int:
        """Values of the ranges in which a window is decoded for a finer one, so that each block is evaluated once."""
        band = self.levels[level].patch_size[0] * self._row_values(reach)
        return max(most // 2, min(most, band))

    def _refined(self, level: int, wanted: Window, scale: int, most: int | None) -> Windows:
        """The networks of a level, evaluated at the samples of a window, on top of the coarser levels."""
        (top, bottom), *across = wanted
        here = self.levels[level]
        ranges = [(top, bottom)]
        if most is not None:
            ranges = list(cut_rows(top, bottom, here.patch_size[0] * scale, max(1, most // self._row_values(wanted))))
        for window, base, fill in self._bases(level, [(rows, *across) for rows in ranges], scale, most):
            yield (
                window,
                refine(here.within(_pixels(window, scale)), base, window, scale, self.b_chunks, self.backend, fill),
            )

    def _bases(
        self, level: int, windows: list[Window], scale: int, most: int | None
    ) -> Iterator[tuple[Window, Tensor, Tensor | None]]:
        """What the networks of a level add to in some windows, and what blocks without one show, if that is something
        else: the next coarser level, or 0 at the coarsest."""
        here = self.levels[level]
        if level + 1 not in self.levels:
            for window in windows:
                yield window, torch.zeros(self.n_channels, *size_of(window), device=here.device), None
            return
        size = self.levels[level + 1].size
        kinds = [upsampling(kind, 2 * scale) for kind in dict.fromkeys((SMOOTH, here.fill))]
        reaches = [kinds[-1].source_window(window, size) for window in windows]  # the sharper kernel reaches farther
        reach = ((reaches[0][0][0], reaches[-1][0][1]), *reaches[0][1:])
        ahead = self._refined(level + 1, reach, 1, most and self._ahead_most(level + 1, reach, most))
        rounded = ((window, computed(values)) for window, values in ahead)
        for window, of, pixels in zip(
            windows, reaches, _gathered(rounded, [rows for rows, *_ in reaches]), strict=True
        ):
            corner = tuple(start for start, _ in of)
            base, *fill = (resample(pixels, taps, window, corner, size) for taps in kinds)
            yield window, base, fill[0] if fill else None


def _pixels(window: Window, scale: int) -> Window:
    """Those that a window touches that is in samples, `scale` a pixel along each axis."""
    return tuple((start // scale, -(-stop // scale)) for start, stop in window)


def _gathered(windows: Windows, ranges: Iterable[tuple[int, int]]) -> Iterator[Tensor]:
    """Rows low..high-1 for each of ascending ranges, from windows that follow each other and begin with the first."""
    held_from, held = 0, None
    for low, high in ranges:
        parts = [] if held is None else [held[:, low - held_from :]]
        while sum(part.shape[1] for part in parts) < high - low:
            parts.append(next(windows)[1])
        held_from, held = low, torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        del parts
        yield held[:, : high - low]
