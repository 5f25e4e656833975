"""From levels back to the signal: one decoder for validation, the command line and notebooks.

Notation: level 0 is the finest; windows are those of `utils.windows`.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.decoder import Decoder
from models.level import Level, refine
from models.ops import Backend, choose_backend, reference
from utils.checkpoint import find_levels, level_path, load_level
from utils.errors import InputError, one_line, size_text
from utils.frame import Frame
from utils.pyramid import SMOOTH, level_size, upsample_whole
from utils.raster import computed
from utils.resampling import BETWEEN
from utils.windows import Window, in_samples, is_inside, size_of, whole

if TYPE_CHECKING:
    import trimesh

WINDOW_VALUES = 2**23
"""Values of a window of `decode_windows`, at most: 32 MiB as float32."""

READINGS = (*BETWEEN, "networks")
"""What reads between the pixels."""

_MOST_SCALES = 64


def as_scale(scale: float | Fraction) -> Fraction:
    """Exactly as it is written, in decimals; InputError if it is not above 0."""
    try:
        exact = scale if isinstance(scale, Fraction) else Fraction(str(scale))
    except ValueError:  # nan, inf
        exact = Fraction(0)
    if exact <= 0:
        raise InputError(f"scale {scale}: must be above 0")
    return exact


def _checked_run(run: dict[str, Any]) -> dict[str, Any]:
    """What the levels of a run share; TypeError, KeyError or the like if it is not consistent."""
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
        backend: Backend = reference,
    ):
        """
        Inputs
            levels: the fitted ones by index, from the coarsest on without a gap
            n_scales: levels of the pyramid, fitted or not
            size: of level 0
            source: of the file that was fitted: for a picture `bits`, of a channel; for a volume `frame`, where its
                voxels lie
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
        """Read a run's checkpoints. If its finest levels are missing, the others can be decoded.

        Inputs
            device: where to decode
            backend: reference, fused, or auto: fused where possible
        Errors
            InputError for a folder without checkpoints, without its coarsest level, or with levels of different runs
        """
        folder = Path(folder)
        found = find_levels(folder)
        if not found:
            raise InputError(f"{folder} holds no checkpoints (l0.ckpt, ...); use the folder of a run, ckpts/EXP_NAME")
        run, levels = None, {}
        for index in found:
            path = level_path(folder, index)
            record = load_level(path)
            try:
                run = run or _checked_run(record["run"])
                if record["run"] != run or record["level"] != index:
                    names = f"l{found[0]}.ckpt and l{index}.ckpt"
                    raise InputError(f"{names} in {folder} are of different runs; fit it again")
                level = Level.from_record(record)
                level.check(level_size(tuple(run["size"]), index), run["n_channels"])
                levels[index] = level.to(device)
                options = dict(record["options"])
            except InputError:
                raise
            except Exception as error:  # whatever a record that was tampered with raises
                raise InputError(f"{path} is not consistent ({one_line(error)[:200]}); fit it again") from error
        missing = set(range(found[0], run["n_scales"])) - set(found)
        if missing:
            raise InputError(f"{folder} lacks l{max(missing)}.ckpt, which the finer levels build on; fit it again")
        return cls(
            levels,
            n_scales=run["n_scales"],
            n_channels=run["n_channels"],
            size=tuple(run["size"]),
            source=run["source"],
            options=options,
            backend=choose_backend(backend, (one.shape for level in levels.values() for one in level.networks), device),
        )

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Pixels of a block along each axis, the same at every level."""
        return self.levels[self.n_scales - 1].patch_size

    @property
    def frame(self) -> Frame | None:
        """Where the voxels of level 0 lie in the space of the mesh, or None if that is not known."""
        frame = self.source.get("frame")
        return Frame(**frame) if frame else None

    @property
    def active_grids(self) -> dict[int, Tensor]:
        """By level, which blocks of its grid have a network: (*grid) bool on the CPU."""
        return {index: level.active_grid.cpu() for index, level in self.levels.items()}

    def units(self, level: int = 0) -> Tensor:
        """(*grid) units of a hidden layer of the network of each block of a level, 0 for none; on the CPU."""
        return self.levels[level].units_grid.cpu()

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
        return sum(level.n_parameters for level in self.levels.values())

    @torch.no_grad()
    def decode(
        self,
        level: int = 0,
        crop: Window | None = None,
        scale: float | Fraction = 1,
        b_chunks: int = 16384,
        between: str = "lanczos",
    ) -> Tensor:
        """Decode a level, or a crop of it, touching only the blocks that the crop needs at each level.

        Sample i lies at (i + 1/2) / scale - 1/2, in pixels; those of a crop are those whose centres lie in it. Between
        the pixels, they are interpolated. Below a scale of 1 a sample is the mean over its area, of the coarsest level
        that has two pixels for it. A crop equals that part of the whole, bit for bit.

        Inputs
            crop: (start, stop) along each axis, in pixels of the level; None for all of it
            scale: samples a pixel along each axis
            b_chunks: blocks evaluated at once, at most
            between: what reads between the pixels. `lanczos` interpolates by Lanczos' kernel of radius 3, so odd scales
                pass through the pixels exactly; `sharp` by a spline that takes pixels for means over areas; `networks`
                evaluates the networks there, at whole scales, though they were trained at the pixels alone
        Outputs
            (c, *n_samples), [stop - start] * scale along each axis, in [0, 1]
        Errors
            InputError for a level that is not there, a crop that is empty, has no sample or leaves the signal, a scale
            that is not above 0, and what `between` does not know

        >>> model = MINER.load("ckpts/quickstart")
        >>> model.decode(level=1, crop=((0, 64), (128, 256))).shape
        torch.Size([1, 64, 128])
        """
        [(_, values)] = self.decode_windows(level, crop, scale, b_chunks, most=None, between=between)
        return values

    def decode_windows(
        self,
        level: int = 0,
        crop: Window | None = None,
        scale: float | Fraction = 1,
        b_chunks: int = 16384,
        most: int | None = WINDOW_VALUES,
        between: str = "lanczos",
    ) -> Iterator[tuple[Window, Tensor]]:
        """What `decode` returns, bit for bit, in consecutive ranges of rows of samples (of planes, for a volume).

        The coarser levels are decoded in windows of their own, just ahead, so each block is evaluated once: the time is
        that of the whole, and memory follows the window.

        Inputs
            level, crop, scale, b_chunks, between: as for `decode`
            most: values of a window, which has at least one row; None for a single window
        Outputs
            pairs of a window, in samples (pixels of the level times the scale), and its values (c, *[stop - start])
            in [0, 1]
        Errors
            as for `decode`, before the first window

        >>> model = MINER.load("ckpts/quickstart")
        >>> [window[0] for window, _ in model.decode_windows(most=2**19)]
        [(0, 512), (512, 1024)]
        """
        if level not in self.levels:
            raise InputError(f"level {level}: the fit has levels {self.finest} to {self.n_scales - 1}; use one of them")
        size, scale = self.levels[level].size, as_scale(scale)
        crop = whole(size) if crop is None else tuple(crop)
        if not is_inside(crop, size):
            raise InputError(f"crop {crop}: must lie inside level {level}, which is {size}")
        if between not in READINGS:
            raise InputError(f"between {between!r}: must be one of {', '.join(READINGS)}")
        if between == "networks" and scale > 1 and scale.denominator > 1:
            raise InputError(f"scale {float(scale):g}: networks are evaluated at whole scales; interpolate, by lanczos")
        if between == "networks" and scale > 1 and not self.levels[level].is_whole:
            raise InputError(f"level {level}: leaves detail to the networks of finer levels; interpolate, by lanczos")
        wanted = in_samples(crop, scale)
        if not all(start < stop for start, stop in wanted):
            raise InputError(
                f"scale {float(scale):g}: leaves no sample of {size_text(size_of(crop))} pixels; use a larger one"
            )
        return self._decoder(b_chunks).windows(level, wanted, scale, between, most)

    def surface(
        self, level: int = 0, crop: Window | None = None, scale: float | Fraction = 1, between: str = "lanczos"
    ) -> "trimesh.Trimesh":
        """The surface of a volume, where the field is 1/2, closed where it meets the box.

        It is in the mesh's own coordinates or, where the fit does not know them, in voxels of level 0.

        Inputs
            level, crop, scale, between: as for `decode`
        Errors
            as for `decode`; InputError for a picture, and if the field is nowhere above 1/2
        """
        from utils.surface import extract_surface  # pictures do without the libraries behind it

        if len(self.size) != 3:
            raise InputError("the fit is a picture, which has no surface; use decode")
        windows = self.decode_windows(level, crop, scale, between=between)
        slabs = (values[0].cpu().numpy() for _, values in windows)
        return extract_surface(slabs, self.frame, self.size, crop, level, as_scale(scale))

    def decoding_bytes(
        self,
        level: int = 0,
        crop: Window | None = None,
        scale: float | Fraction = 1,
        between: str = "lanczos",
        most: int = WINDOW_VALUES,
    ) -> int:
        """Bytes of memory that `decode_windows` takes at most, beside the networks; inputs are those."""
        crop, scale = whole(self.levels[level].size) if crop is None else crop, as_scale(scale)
        return self._decoder().bytes(level, in_samples(crop, scale), scale, between, most)

    def _decoder(self, b_chunks: int = 16384) -> Decoder:
        return Decoder(self.levels, self.n_channels, self.backend, b_chunks)

    @torch.no_grad()
    def decode_pyramid(self, b_chunks: int = 16384) -> list[Tensor]:
        """Every fitted level as the next finer one builds on it, the finest first: one that is not whole has not the
        detail that it leaves to finer levels, which `decode` shows."""
        coarsest = self.levels[self.n_scales - 1]
        base, fill = torch.zeros(self.n_channels, *coarsest.size, device=coarsest.group.device), None
        decoded = []
        for _, level in sorted(self.levels.items(), reverse=True):
            if decoded:
                coarse = computed(decoded[-1])
                base = upsample_whole(coarse, level.size)
                fill = None if level.fill == SMOOTH else upsample_whole(coarse, level.size, level.fill)
            decoded.append(refine(level, base, whole(level.size), 1, b_chunks, self.backend, fill))
        return decoded[::-1]
