"""Levels that are fitted for few bits: each block gets the network of cosines that lowers its error and the price of
its bits the most. What is found is coded at once, so memory follows a row of chunks."""

from dataclasses import dataclass, replace
from math import exp, log, log10, prod

import numpy as np
import torch
from torch import Tensor

from datasets.targets import BlockTarget, LevelTarget
from models.packed.chunks import ChunkGrid
from models.packed.coefficients import Coefficients, encode_chunk
from models.packed.held import held_level
from options.presets import LEAST_LAMBDA
from packing.write import CHUNK_BLOCKS
from training.job import Job
from training.prior import SAMPLE, Spectra, choose, learn, rotation_of, spectra_of, unlearned
from training.spec import LevelSpec
from utils.errors import InputError, Interrupted
from utils.limits import APART
from utils.pyramid import upsampling
from utils.raster import Raster
from utils.resampling import resample_window
from utils.windows import Window

_PRICES = (LEAST_LAMBDA, 1.0)
_HALVINGS = 11
_JUDGED = SAMPLE // 2  # points of the blocks by which a price is judged
_BYTES_OF_FILE, _BYTES_OF_LEVEL, _BYTES_OF_CHUNK = 550, 400, 10  # beside what networks take, nearly


@dataclass(frozen=True)
class _Coded:
    """The networks of a chunk.

    number: of the chunk
    group: (n_blocks,) int8 of its blocks in C order, -1 for those without a network
    data: what is written of them
    n_parameters: that are not 0
    """

    number: int
    group: np.ndarray
    data: bytes
    n_parameters: int


def fit_compact_level(job: Job, spec: LevelSpec, target: LevelTarget) -> None:
    """Fit a level and write its checkpoint."""
    grid = ChunkGrid(target.grid, CHUNK_BLOCKS[len(target.grid)])
    group = np.full(prod(target.grid), -1, np.int8)
    chunks, n_parameters = [b""] * prod(grid.shape), 0
    coding = unlearned(spec.shapes, spec.price, _plain(target.signal.n_channels))
    if spec.is_whole:
        coding = job.ranks.share(_learned(job, spec, target) if job.ranks.is_first else None)
        with job.display.rows(f"level {spec.index}", grid.shape[0]) as done:
            for row in range(0, grid.shape[0], job.ranks.size):
                here = row + job.ranks.rank
                mine = _coded_row(spec, target, coding, grid, here) if here < grid.shape[0] else []
                for coded in (one for some in job.ranks.exchange(mine) for one in some):
                    group[_blocks(grid, coded.number)] = coded.group
                    chunks[coded.number], n_parameters = coded.data, n_parameters + coded.n_parameters
                done(min(job.ranks.size, grid.shape[0] - row))
                if job.stop():
                    raise Interrupted
    if job.ranks.is_first:
        form = spec.form(target.signal.size)
        level = held_level(form, coding.shapes, coding, spec.index, group, grid, chunks, n_parameters)
        outcome = {"epochs": 1, "block_epochs": prod(target.grid), "diverged": 0}
        job.run.save_level(spec.index, level, outcome, False)
    job.ranks.share()  # the checkpoint is there


def _learned(job: Job, spec: LevelSpec, target: LevelTarget) -> Coefficients:
    spectra = _sampled(spec, target, SAMPLE, target.signal.n_channels, job.n_colours)
    return learn(spectra, spec.price, target.coarse is None)


def _plain(n_channels: int) -> tuple[tuple[float, ...], ...]:
    """The rotation that leaves channels as they are."""
    return tuple(tuple(map(float, row)) for row in np.eye(n_channels))


def _sampled(spec: LevelSpec, target: LevelTarget, n_points: int, n_channels: int, n_colours: int) -> Spectra:
    """What networks are to predict in evenly spread blocks, of so many points at most, in the first channels."""
    gathered = target.gather(_spread(target, n_points))
    values = gathered.wanted(torch.arange(len(gathered.blocks)))[..., :n_channels]
    shapes = tuple(replace(shape, n_out=n_channels) for shape in spec.shapes)
    return spectra_of(values, shapes, rotation_of(values, n_colours))


def _spread(target: LevelTarget, n_points: int) -> Tensor:
    """Indices in the grid of the blocks of a sample."""
    n_grid = prod(target.grid)
    n = min(n_grid, max(1, n_points // prod(target.patch_size)))
    return torch.linspace(0, n_grid - 1, n).round().long().unique()


def _inside(target: LevelTarget, n_points: int) -> np.ndarray:
    """Which blocks of a sample do not reach beyond the signal; if all do, all of them."""
    places = np.unravel_index(_spread(target, n_points).numpy(), target.grid)
    along = zip(places, target.patch_size, target.signal.size, strict=True)
    inside = np.all([(place + 1) * patch <= length for place, patch, length in along], axis=0)
    return inside if inside.any() else ~inside


def _coded_row(spec: LevelSpec, target: LevelTarget, coding: Coefficients, grid: ChunkGrid, row: int) -> list[_Coded]:
    """The chunks of a row of them, along axis 0."""
    per_row = prod(grid.shape[1:])
    (first, last), *_ = grid.blocks(row * per_row)
    per_band = prod(grid.grid[1:])
    blocks = torch.arange(first * per_band, last * per_band)
    gathered = target.gather(blocks)
    return [
        _coded(gathered, number, _blocks(grid, number), coding, target.coarse is None)
        for number in range(row * per_row, (row + 1) * per_row)
    ]


def _coded(gathered: BlockTarget, number: int, blocks: np.ndarray, coding: Coefficients, needs_one: bool) -> _Coded:
    values = gathered.wanted(torch.from_numpy(blocks) - gathered.blocks[0])
    chosen = choose(spectra_of(values, coding.shapes, coding.rotation), coding, needs_one)
    has_network = chosen.group >= 0
    integers = chosen.integers[has_network]
    data = encode_chunk(chosen.group[has_network], integers, coding) if has_network.any() else b""
    return _Coded(number, chosen.group, data, int(np.count_nonzero(integers)))


def _blocks(grid: ChunkGrid, number: int) -> np.ndarray:
    """Indices in the grid of the blocks of a chunk, in C order."""
    return grid.active_blocks(number, np.ones(grid.grid, bool))


def find_price(
    specs: list[LevelSpec],
    signals: list[Raster],
    n_colours: int,
    target_psnr: float | None,
    target_bpp: float | None,
) -> float:
    """The price at which the file has a PSNR, or so many bits a pixel, nearly: judged by some blocks of each level,
    which are fitted as if coarser levels were without error. Where even the worst is better than that PSNR, or the best
    takes fewer bits, it is the price of that.

    Inputs
        signals: of every level, the finest first
    Errors
        InputError for what no price gives
    """
    whole = [spec for spec in specs if spec.is_whole]
    n_judged = signals[0].n_channels if target_psnr is None else n_colours
    targets = [_exact_target(spec, signals, is_coarsest=spec is whole[-1]) for spec in whole]
    samples = [_sampled(*pair, _JUDGED, n_judged, n_colours) for pair in zip(whole, targets, strict=True)]
    inside, n_pixels = _inside(targets[0], _JUDGED), prod(signals[0].size)

    def measured(price: float) -> float:
        """PSNR of the finest level, or bits a pixel of all."""
        n_bytes = _BYTES_OF_FILE
        for spec, target, spectra in zip(whole, targets, samples, strict=True):
            needs_one = spec is whole[-1]
            chosen = choose(spectra, learn(spectra, price, needs_one), needs_one)
            if target_psnr is not None:
                error = chosen.errors[inside].mean() / (prod(spec.patch_size) * n_judged)
                return -10 * log10(max(error, 1e-20))
            n_chunks = prod(ChunkGrid(target.grid, CHUNK_BLOCKS[len(target.grid)]).shape)
            n_bytes += _BYTES_OF_LEVEL + _BYTES_OF_CHUNK * n_chunks + chosen.bits.mean() * prod(target.grid) / 8
        return 8 * n_bytes / n_pixels

    low, high = map(log, _PRICES)
    if target_psnr is not None and (best := measured(exp(low))) < target_psnr:
        raise InputError(f"--target_psnr {target_psnr:g}: this signal can have {best:.2f} at most; use less")
    if target_bpp is not None and (least := measured(exp(high))) > target_bpp:
        raise InputError(f"--target_bpp {target_bpp:g}: the file of this signal takes {least:.3g} at least; use more")
    aim = target_psnr if target_bpp is None else target_bpp
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if measured(exp(middle)) < aim:
            high = middle
        else:
            low = middle
    return exp((low + high) / 2)


def _exact_target(spec: LevelSpec, signals: list[Raster], is_coarsest: bool) -> LevelTarget:
    """Of a level, above the next coarser signal that is coded, as it is."""
    coarse = None
    if not is_coarsest:
        coarse = signals[spec.index + APART]
        for signal in reversed(signals[spec.index + 1 : spec.index + APART]):
            coarse = _Upsampled(coarse, signal.size, spec.fill)
    return LevelTarget(signals[spec.index], coarse, spec.patch_size, spec.residual, spec.fill)


@dataclass(frozen=True)
class _Upsampled:
    """A coarser level at the size of the next finer one, computed where it is read."""

    coarse: "Raster | _Upsampled"
    size: tuple[int, ...]
    fill: str

    def read(self, window: Window) -> Tensor:
        return resample_window(self.coarse.read, self.coarse.size, upsampling(self.fill, 2), window)
