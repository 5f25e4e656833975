"""From levels back to the signal: one decoder for validation, the command line and notebooks.

Notation: level 0 is the finest; windows are those of `utils.windows`.
"""

import copy
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.decoder import Decoder
from models.level import Level, refine
from models.ops import Backend, choose_backend, reference
from models.packed.file import read_packed
from models.packed.ranges import is_url
from models.run import read_folder
from utils.errors import InputError, size_text
from utils.frame import Frame
from utils.georeference import Georeference
from utils.pyramid import SMOOTH, upsample_whole
from utils.raster import computed
from utils.resampling import BETWEEN
from utils.transfer import Transfer
from utils.windows import Window, in_samples, is_inside, size_of, whole

if TYPE_CHECKING:
    import trimesh

WINDOW_VALUES = 2**23
"""Values of a window of `decode_windows`, at most: 32 MiB as float32."""

READINGS = (*BETWEEN, "networks")
"""What reads between the pixels."""


def as_scale(scale: float | Fraction) -> Fraction:
    """Exactly as it is written, in decimals; InputError if it is not above 0."""
    try:
        exact = scale if isinstance(scale, Fraction) else Fraction(str(scale))
    except ValueError:  # nan, inf
        exact = Fraction(0)
    if exact <= 0:
        raise InputError(f"scale {scale}: must be above 0")
    return exact


def _is_file(where: str | Path) -> bool:
    """Whether it names a file, here or in a network, and not the folder of a run."""
    path = Path(where)
    return is_url(where) or (not path.is_dir() and (path.exists() or path.suffix == ".miner"))


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
            source: of the file that was fitted: for a picture `bits`, of a channel, and where they apply `spectral` and
                `georeference`; for the grid of a mesh `frame`, where its voxels lie; for a volume of values `bits` and
                `affine`, where its voxels lie; `transfer`, how its values lie in [0, 1], if it needs one
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
    def load(cls, where: str | Path, device: str | torch.device = "cpu", backend: str = "auto") -> "MINER":
        """Read a fit: the folder of a run, whose finest levels may be missing, or the file that pack.py makes of it.

        Of a file, networks are read as they are needed, and only then: those of a crop, at each level.

        Inputs
            where: a folder, a file, or the address of a file, such as https://...
            device: where to decode
            backend: reference, fused, or auto: fused where possible
        Errors
            InputError for a folder without checkpoints, without its coarsest level, or with levels of different runs;
            for a file that is damaged or cut short before its coarsest level ends, here or when its networks are read
        """
        run = read_packed(where) if _is_file(where) else read_folder(Path(where))
        shapes = (shape for level in run.levels.values() for shape in level.shapes)
        return cls(
            {index: level.to(device) for index, level in run.levels.items()},
            n_scales=run.n_scales,
            n_channels=run.n_channels,
            size=run.size,
            source=run.source,
            options=run.options,
            backend=choose_backend(backend, shapes, device),
        )

    def with_levels(self, levels: dict[int, Level]) -> "MINER":
        """The same fit with other networks."""
        other = copy.copy(self)
        other.levels = levels
        return other

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
    def transfer(self) -> Transfer | None:
        """From what is decoded to the values of the file, and back; None for plain pixels and grids of meshes."""
        transfer = self.source.get("transfer")
        return Transfer(**transfer) if transfer else None

    @property
    def spectral(self) -> bool:
        """Whether channels are measurements: of four, the last is then no alpha."""
        return bool(self.source.get("spectral"))

    @property
    def georeference(self) -> Georeference | None:
        """Where the pixels of level 0 lie on a map, or None if that is not known."""
        georeference = self.source.get("georeference")
        return Georeference(**georeference) if georeference else None

    @property
    def active_grids(self) -> dict[int, Tensor]:
        """By level, which blocks of its grid have a network: (*grid) bool on the CPU."""
        return {index: level.active_grid.cpu() for index, level in self.levels.items()}

    def units(self, level: int = 0) -> Tensor:
        """(*grid) units of a hidden layer of the network of each block of a level, 0 for none; on the CPU. Of
        networks of cosines, pixels of a part of a block along each axis."""
        return self.levels[level].units_grid.cpu()

    @property
    def units_in_words(self) -> str:
        """What `units` counts."""
        has_cosines = any(shape.kind == "cosines" for level in self.levels.values() for shape in level.shapes)
        return "pixels of a part, along each axis" if has_cosines else "units of a hidden layer"

    @property
    def summary(self) -> list[dict[str, Any]]:
        """What each level is made of, the finest first."""
        return [{"level": index} | level.summary() for index, level in sorted(self.levels.items())]

    @property
    def finest(self) -> int:
        """The finest level that can be decoded: 0 for a finished run, whose file is not cut short."""
        return min(index for index, level in self.levels.items() if level.is_there)

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
        """Bytes of memory that `decode_windows` takes at most, beside networks that are in memory already; inputs are
        those."""
        crop, scale = whole(self.levels[level].size) if crop is None else crop, as_scale(scale)
        return self._decoder().bytes(level, in_samples(crop, scale), scale, between, most)

    def _decoder(self, b_chunks: int = 16384) -> Decoder:
        return Decoder(self.levels, self.n_channels, self.backend, b_chunks)

    @torch.no_grad()
    def decode_pyramid(self, b_chunks: int = 16384) -> list[Tensor]:
        """Every fitted level as the next finer one builds on it, the finest first: one that is not whole has not the
        detail that it leaves to finer levels, which `decode` shows."""
        coarsest = self.levels[self.n_scales - 1]
        base, fill = torch.zeros(self.n_channels, *coarsest.size, device=coarsest.device), None
        decoded = []
        for index in range(self.n_scales - 1, self.finest - 1, -1):
            level = self.levels[index]
            if decoded:
                coarse = computed(decoded[-1])
                base = upsample_whole(coarse, level.size)
                fill = None if level.fill == SMOOTH else upsample_whole(coarse, level.size, level.fill)
            decoded.append(refine(level, base, whole(level.size), 1, b_chunks, self.backend, fill))
        return decoded[::-1]
