"""From levels back to the signal: the only decoder, for validation, the command line and notebooks alike.

Notation: level 0 is the finest; a *window* is a (start, stop) pair along each axis, in pixels of its level.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from models.block_mlp import BlockNetwork, make_network
from models.encoding import encode, encoded_width
from models.ops import choose_backend, reference
from models.ops.reference import blocks_at_once
from utils.blocks import block_coords, gather_blocks, grid_shape, scatter_blocks_
from utils.checkpoint import find_levels, level_path, load_level
from utils.errors import InputError, one_line
from utils.frame import Frame
from utils.pyramid import level_size, source_window, upsample, upsample_whole
from utils.raster import Window, computed, whole

WINDOW_VALUES = 2**23
"""Values of a window of `decode_windows`, at most: 32 MiB as float32, some three of which are held at a time."""

_MOST_SCALES = 64


def is_inside(window: Window, size: tuple[int, ...]) -> bool:
    """Whether a window is not empty and leaves a level of this size nowhere."""
    return len(window) == len(size) and all(
        0 <= start < stop <= length for (start, stop), length in zip(window, size, strict=True)
    )


def cut_rows(start: int, stop: int, patch: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut rows start..stop-1 into consecutive ranges of at most `most`, at borders of blocks where it can be.

    Inputs
        patch: rows of a block
        most: at least 1
    Outputs
        (start, stop) of each; as few as can be of them share a block
    """
    while start < stop:
        border = (start // patch + max(1, most // patch)) * patch
        end = min(border, start + most, stop)
        yield start, end
        start = end


@dataclass(frozen=True)
class Level:
    """What one level adds to the next coarser one.

    size: of the level, without padding
    patch_size: pixels of a block along each axis
    frequencies: of the positional encoding, or None
    residual: the network predicts the difference to the upsampled coarser level, else the signal itself
    active: (n_grid,) bool, which blocks of the grid have a network
    network: the networks of the active blocks, in their order in the grid
    """

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    frequencies: tuple[float, ...] | None
    residual: bool
    active: Tensor
    network: BlockNetwork

    @property
    def active_grid(self) -> Tensor:
        """(*grid) bool"""
        return self.active.view(grid_shape(self.size, self.patch_size))

    @property
    def row_grid(self) -> Tensor:
        """(*grid) which row of the network each block has, -1 for none"""
        return torch.where(self.active, self.active.cumsum(0) - 1, -1).view(self.active_grid.shape)

    def summary(self) -> dict[str, Any]:
        """What it is made of, in plain data; the size is W H or W H D."""
        return {
            "size": list(self.size[::-1]),
            "blocks": self.active.numel(),
            "active_blocks": self.network.n_blocks,
            "parameters": self.network.n_parameters,
        }

    def check(self, size: tuple[int, ...], n_channels: int) -> None:
        """TypeError where the level is not one of this size and so many channels."""
        if self.size != size or len(self.patch_size) != len(size) or min(self.patch_size) < 1:
            raise TypeError(f"size {self.size} and patch {self.patch_size} where the level is {size}")
        n_grid = prod(grid_shape(size, self.patch_size))
        if len(self.active) != n_grid:
            raise TypeError(f"{len(self.active)} blocks for size {size} and patch {self.patch_size}")
        n_in = encoded_width(len(size), self.frequencies)
        if (self.network.shape["n_in"], self.network.shape["n_out"]) != (n_in, n_channels):
            raise TypeError(f"network {self.network.shape} for {n_in} inputs and {n_channels} channels")

    def record(self) -> dict[str, Any]:
        """Plain data, from which `from_record` rebuilds the level."""
        return {
            "size": list(self.size),
            "patch_size": list(self.patch_size),
            "frequencies": self.frequencies and list(self.frequencies),
            "residual": self.residual,
            "active": self.active.cpu(),
            "network_shape": self.network.shape,
            "network": {name: tensor.cpu() for name, tensor in self.network.state_dict().items()},
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Level":
        """TypeError, KeyError or the like for a record that does not fit together; it allocates nothing."""
        active, shape, tensors = record["active"], record["network_shape"], record["network"]
        if active.dtype != torch.bool or active.ndim != 1:
            raise TypeError(f"activity {active.dtype} {tuple(active.shape)}")
        if not isinstance(shape, dict) or shape["n_layers"] > len(tensors):
            raise TypeError(f"network {shape}")
        with torch.device("meta"):
            network = make_network(int(active.sum()), **shape)
        network.load_state_dict(tensors, assign=True)
        if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
            raise TypeError("parameters that are not float32")
        frequencies = record["frequencies"]
        if not (isinstance(record["residual"], bool) and isinstance(frequencies, list | None)):
            raise TypeError(f"residual {record['residual']}, frequencies {frequencies}")
        return cls(
            size=tuple(record["size"]),
            patch_size=tuple(record["patch_size"]),
            frequencies=frequencies and tuple(map(float, frequencies)),
            residual=record["residual"],
            active=active,
            network=network,
        )


def refine(
    level: Level,
    base: Tensor,
    window: Window,
    scale: int = 1,
    b_chunks: int = 16384,
    backend: ModuleType = reference,
) -> Tensor:
    """Add a level's networks to the upsampled coarser level, touching only the blocks that the window needs.

    Inputs
        base: (c, *[(stop - start) * scale]) the upsampled coarser level in the window; it is left as it is, and need
            not be on the device of the networks
        window: in pixels of this level
        scale: samples a pixel along each axis
        b_chunks: blocks evaluated at once, at most
        backend: that evaluates them
    Outputs
        (c, *[(stop - start) * scale]) in [0, 1]
    """
    device = base.device
    first = [start // patch for (start, _), patch in zip(window, level.patch_size, strict=True)]
    grid_window = tuple(
        slice(low, -(-stop // patch)) for low, (_, stop), patch in zip(first, window, level.patch_size, strict=True)
    )
    row_of_block = level.row_grid[grid_window].to(device)
    blocks = (row_of_block.flatten() >= 0).nonzero().squeeze(1)  # in the grid of the window
    rows = row_of_block.flatten()[blocks]

    fine_patch = tuple(patch * scale for patch in level.patch_size)
    canvas = base.new_zeros(len(base), *[n * patch for n, patch in zip(row_of_block.shape, fine_patch, strict=True)])
    inner = tuple(
        slice((start - low * patch) * scale, (stop - low * patch) * scale)
        for low, (start, stop), patch in zip(first, window, level.patch_size, strict=True)
    )
    canvas[:, *inner] = base
    networks_device = level.network.amplitude.device
    coords = encode(block_coords(level.patch_size, scale).to(networks_device), level.frequencies)
    for some in torch.arange(len(blocks), device=device).split(blocks_at_once(len(coords), b_chunks, networks_device)):
        values = backend.predict(level.network, rows[some].to(networks_device), coords).to(device)
        if level.residual:
            values = values + gather_blocks(canvas, fine_patch, blocks[some])
        scatter_blocks_(canvas, fine_patch, blocks[some], values.clamp_(0, 1))
    return canvas[:, *inner].contiguous()


def _checked_run(run: dict[str, Any]) -> dict[str, Any]:
    """What the levels of a run share; TypeError, KeyError or the like where it cannot be that."""
    whole_numbers = [run["n_scales"], run["n_channels"], *run["size"]]
    if not all(type(number) is int and number > 0 for number in whole_numbers) or run["n_scales"] > _MOST_SCALES:
        raise TypeError(f"{run['n_scales']} scales, {run['n_channels']} channels, size {run['size']}")
    if len(run["size"]) not in (2, 3):
        raise TypeError(f"size {run['size']}")
    if len(run["size"]) == 2 and run["source"]["bits"] not in (8, 16):
        raise TypeError(f"{run['source']['bits']} bits")
    if run["source"].get("frame"):
        Frame(**run["source"]["frame"])
    return run


class MINER:
    """A fitted signal: decodes any level, any crop of it, between the pixels too."""

    def __init__(
        self,
        levels: dict[int, Level],
        *,
        n_scales: int,
        n_channels: int,
        size: tuple[int, ...],
        source: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        backend: ModuleType = reference,
    ):
        """
        Inputs
            levels: the fitted ones, from the coarsest on without a gap
            n_scales: levels of the pyramid, fitted or not
            size: of level 0
            source: what the file that was fitted looked like: of a picture `bits`, those of a channel; of a volume
                `frame`, where its voxels lie
            options: of the command line that fitted it
            backend: that evaluates the networks
        """
        self.levels = levels
        self.n_scales = n_scales
        self.n_channels = n_channels
        self.size = size
        self.source = source or {}
        self.options = options or {}
        self.backend = backend

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu", backend: str = "auto") -> "MINER":
        """Read a run's checkpoints. Where fine levels are missing, the ones that are there can be decoded.

        Inputs
            device: where to decode
            backend: reference, fused, or auto: fused where it can serve
        Errors
            InputError for a folder without checkpoints, without its coarsest level, or with levels of different runs
        """
        folder = Path(folder)
        found = find_levels(folder)
        if not found:
            raise InputError(f"{folder} holds no checkpoints (l0.ckpt, l1.ckpt, ...)")
        run, levels = None, {}
        for index in found:
            path = level_path(folder, index)
            record = load_level(path)
            try:
                run = run or _checked_run(record["run"])
                if record["run"] != run or record["level"] != index:
                    raise InputError(f"l{found[0]}.ckpt and l{index}.ckpt in {folder} are of different runs")
                level = Level.from_record(record)
                level.check(level_size(tuple(run["size"]), index), run["n_channels"])
                levels[index] = replace(level, active=level.active.to(device), network=level.network.to(device))
                options = dict(record["options"])
            except InputError:
                raise
            except Exception as error:  # whatever a record that was tampered with leads to
                raise InputError(f"{path} does not fit together ({one_line(error)[:200]}): fit it again") from error
        missing = set(range(found[0], run["n_scales"])) - set(found)
        if missing:
            raise InputError(f"{folder} lacks l{max(missing)}.ckpt, which the finer levels build on")
        return cls(
            levels,
            n_scales=run["n_scales"],
            n_channels=run["n_channels"],
            size=tuple(run["size"]),
            source=run["source"],
            options=options,
            backend=choose_backend(backend, [level.network.shape for level in levels.values()], device),
        )

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Of every level."""
        return self.levels[self.n_scales - 1].patch_size

    @property
    def frame(self) -> Frame | None:
        """Where the voxels of level 0 lie in the space of the mesh, if that is known."""
        frame = self.source.get("frame")
        return Frame(**frame) if frame else None

    @property
    def active_grids(self) -> dict[int, Tensor]:
        """Of each level, which blocks of its grid have a network: (*grid) bool on the CPU."""
        return {index: level.active_grid.cpu() for index, level in self.levels.items()}

    @property
    def summary(self) -> list[dict[str, Any]]:
        """What each level is made of, the finest first."""
        return [{"level": index} | level.summary() for index, level in sorted(self.levels.items())]

    @property
    def finest(self) -> int:
        """The finest level that can be decoded: 0 for a finished run."""
        return min(self.levels)

    @property
    def n_parameters(self) -> int:
        return sum(level.network.n_parameters for level in self.levels.values())

    @torch.no_grad()
    def decode(self, level: int = 0, crop: Window | None = None, scale: int = 1, b_chunks: int = 16384) -> Tensor:
        """Decode a level, or a crop of it, touching only the blocks that the crop needs at each level.

        Between the pixels a level is its networks, sampled there, added to the spline interpolation of the next coarser
        level's pixels. Odd scales pass through the pixel centres exactly. A crop has the same bits as the same part of
        the whole.

        Inputs
            crop: (start, stop) along each axis, in pixels of the level; None for all of it
            scale: samples a pixel along each axis
            b_chunks: blocks evaluated at once, at most
        Outputs
            (c, *[(stop - start) * scale]) in [0, 1]
        Errors
            InputError for a level that is not there, a crop that is empty or leaves the signal, a scale below 1

        >>> model = MINER.load("ckpts/quickstart")
        >>> model.decode(level=1, crop=((0, 64), (128, 256))).shape
        torch.Size([1, 64, 128])
        """
        [(_, values)] = self.decode_windows(level, crop, scale, b_chunks, most=None)
        return values

    def decode_windows(
        self,
        level: int = 0,
        crop: Window | None = None,
        scale: int = 1,
        b_chunks: int = 16384,
        most: int | None = WINDOW_VALUES,
    ) -> Iterator[tuple[Window, Tensor]]:
        """What `decode` gives, in consecutive ranges of rows (of planes, for a volume), to the bit.

        The coarser levels go by in windows of their own, just ahead, so each block is evaluated once: the time is that
        of the whole, and memory follows the window. Where a row of blocks has more than `most` values, its blocks are
        evaluated once for each window that they reach into.

        Inputs
            level, crop, scale, b_chunks: as for `decode`
            most: values of a window; never less than a row of pixels. None gives all in one
        Outputs
            pairs of a window, in pixels of the level, and its values (c, *[(stop - start) * scale]) in [0, 1]
        Errors
            as `decode`, at once

        >>> model = MINER.load("ckpts/quickstart")
        >>> [window[0] for window, _ in model.decode_windows(most=2**19)]
        [(0, 512), (512, 1024)]
        """
        if level not in self.levels:
            raise InputError(f"level {level} is not there: levels {self.finest} to {self.n_scales - 1} are")
        size = self.levels[level].size
        crop = whole(size) if crop is None else tuple(crop)
        if not is_inside(crop, size):
            raise InputError(f"crop {crop} is not inside level {level}, which is {size}")
        if scale < 1:
            raise InputError(f"scale {scale} is less than 1")
        return self._windows(level, crop, scale, b_chunks, most)

    @torch.no_grad()
    def _windows(
        self, level: int, crop: Window, scale: int, b_chunks: int, most: int | None
    ) -> Iterator[tuple[Window, Tensor]]:
        """`decode_windows` of what it has checked."""
        (top, bottom), *across = crop
        device = self.levels[level].active.device
        wanted_across = [(start * scale, stop * scale) for start, stop in across]
        row_values = self.n_channels * scale * prod(stop - start for start, stop in wanted_across)
        ranges = [(top, bottom)]
        if most is not None:
            ranges = cut_rows(top, bottom, self.levels[level].patch_size[0], max(1, most // row_values))
        if level < self.n_scales - 1:
            factor, (coarse_height, *coarse_across) = 2 * scale, self.levels[level + 1].size
            origin = [source_window(*wanted, factor, n) for wanted, n in zip(wanted_across, coarse_across, strict=True)]
            reach = source_window(top * scale, bottom * scale, factor, coarse_height)
            block_row = (
                self.n_channels * self.levels[level + 1].patch_size[0] * prod(high - low for low, high in origin)
            )
            ahead_most = most and max(most // 2, min(most, block_row))
            ahead = self._windows(level + 1, (reach, *origin), 1, b_chunks, ahead_most)
            held_from, held = reach[0], None
        for start, stop in ranges:
            window, wanted = ((start, stop), *across), ((start * scale, stop * scale), *wanted_across)

            def evaluate(base: Tensor, window: Window = window) -> Tensor:
                return refine(self.levels[level], base, window, scale, b_chunks, self.backend)

            if level == self.n_scales - 1:
                shape = [stop - start for start, stop in wanted]
                yield window, evaluate(torch.zeros(self.n_channels, *shape, device=device))
                continue
            low, high = source_window(*wanted[0], factor, coarse_height)
            parts = [] if held is None else [held[:, low - held_from :]]
            while sum(part.shape[1] for part in parts) < high - low:
                parts.append(computed(next(ahead)[1]))
            held_from, held = low, torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            del parts
            corner = (low, *[start for start, _ in origin])
            yield (
                window,
                evaluate(upsample(held[:, : high - low], factor, wanted, corner, (coarse_height, *coarse_across))),
            )

    @torch.no_grad()
    def decode_pyramid(self, b_chunks: int = 16384) -> list[Tensor]:
        """Every level that is there, the finest first, as `pyramid` gives those of the signal."""
        coarsest = self.levels[self.n_scales - 1]
        base = torch.zeros(self.n_channels, *coarsest.size, device=coarsest.active.device)
        decoded = []
        for _, level in sorted(self.levels.items(), reverse=True):
            if decoded:
                base = upsample_whole(computed(decoded[-1]), level.size)
            decoded.append(refine(level, base, whole(level.size), b_chunks=b_chunks, backend=self.backend))
        return decoded[::-1]
