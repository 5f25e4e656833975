"""The kinds of signals: pictures (image), grids of a mesh (mesh), volumes of values (volume); what follows from each.

Opening files and measuring fits need libraries that load slowly, so these are imported when first needed: parsing
options also needs tasks, but not these libraries.
"""

import ast
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.ngff import describe, is_zarr
from utils.channels import MOST_CHANNELS
from utils.errors import InputError

if TYPE_CHECKING:
    from datasets.sources import Source
    from utils.metrics import Metric
    from utils.transfer import Reading


@dataclass(frozen=True)
class Task:
    """
    name: as --task gives it
    n_dims: axes of the signal
    signal: what it is called in messages
    size_order: of a size on the command line
    metric_name: of `utils.metrics`
    opener: module and function that open its files
    recorded: fields of its `Source` that checkpoints keep; where there are, `scaling`, `transfer`, `spectral` and
        `georeference` as well, and what its `about` has
    has_values: its files may hold values that need a transfer
    """

    name: str
    n_dims: int
    signal: str
    size_order: str
    metric_name: str
    opener: tuple[str, str]
    recorded: tuple[str, ...]
    has_values: bool = False

    @property
    def metric(self) -> "Metric":
        """By which a fit is measured."""
        return getattr(import_module("utils.metrics"), self.metric_name)

    def metric_of(self, source: "Source") -> "Metric":
        """By which the fit of a signal is measured."""
        return self.metric if self.metric_name != "psnr" else import_module("utils.metrics").psnr_of(source.spectral)

    def open(self, path: str | Path, size: tuple[int, ...] | None = None, reading: "Reading | None" = None) -> "Source":
        """Open a signal in a file.

        Inputs
            size: (h, w) or (d, h, w); None is the file's own
            reading: for a signal of values that need a transfer
        """
        module, function = self.opener
        return getattr(import_module(module), function)(path, size, *([reading] if reading and self.has_values else []))

    def describe(self, source: "Source") -> dict[str, Any]:
        """What checkpoints record about the file, as plain data."""
        values = {name: getattr(source, name) for name in self.recorded}
        described = {name: asdict(value) if name == "frame" and value else value for name, value in values.items()}
        if source.scaling is not None:
            described["scaling"] = source.scaling
        if source.transfer:
            described["transfer"] = source.transfer.record()
        if source.spectral:
            described["spectral"] = True
        if source.georeference:
            described["georeference"] = source.georeference.record()
        return described | source.about


COLOURS = (1, 3, 4)
"""Channels of a picture in an array that is not spectral."""

VALUES = ("occupancy", "distance")
"""What the grid of a mesh holds."""

MESH_SUFFIXES = frozenset((".ply", ".obj", ".stl", ".off", ".glb", ".gltf", ".dae", ".3mf", ".3dxml", ".step", ".stp"))
"""Of files that are taken for meshes; what else trimesh reads, preprocess_mesh.py turns into a grid."""

DETACHED_SUFFIXES = (".mhd", ".nhdr")
"""Of headers of MetaImage and NRRD whose values lie in other files."""

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".nrrd", *DETACHED_SUFFIXES)
"""Of files that hold volumes of values and nothing else."""

SLICE_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".jpg", ".jpeg"))
"""Of the pictures in a folder that are the slices of a volume."""

_MOST_HEADER, _BYTES_AT_ONCE = 2**16, 2**20

TASKS = {
    "image": Task("image", 2, "an image", "W H", "psnr", ("datasets.sources", "open_picture"), ("bits",), True),
    "mesh": Task("mesh", 3, "a volume", "W H D", "iou", ("datasets.occupancy", "open_occupancy"), ("frame",)),
    "volume": Task(
        *("volume", 3, "a volume of values", "W H D", "psnr", ("datasets.volumes", "open_volume"), ("bits", "affine")),
        has_values=True,
    ),
}


def task_of(n_dims: int, source: dict[str, Any]) -> Task:
    """The task of a fit.

    Inputs
        n_dims: axes of its signal
        source: what it records of the file
    """
    return TASKS["image" if n_dims == 2 else "volume" if "bits" in source else "mesh"]


def is_mesh(path: str) -> bool:
    """Whether a file is a mesh, by its suffix."""
    return Path(path).suffix.lower() in MESH_SUFFIXES


def task_of_file(path: str) -> str:
    """The name of the task that a file is for: by its suffix, and by what a .npy file or a folder holds."""
    if is_mesh(path):
        return "mesh"
    if Path(path).suffix.lower() == ".npy":
        return _task_of_array(Path(path))
    if is_zarr(Path(path)):
        return _task_of_zarr(Path(path))
    is_volume = path.lower().endswith(VOLUME_SUFFIXES) or len(slices_in(Path(path))) > 1
    return "volume" if is_volume else "image"


def slices_in(path: Path) -> list[Path]:
    """The pictures in a folder, in any order; none of what is no folder.

    Errors
        InputError for a folder that cannot be read
    """
    try:
        return [
            entry
            for entry in (path.iterdir() if path.is_dir() else ())
            if entry.suffix.lower() in SLICE_SUFFIXES and not entry.name.startswith(".")
        ]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _task_of_zarr(path: Path) -> str:
    """A Zarr is a volume if it names an axis z of several slices, or names none and is no picture by its shape."""
    try:
        described = describe(path)
    except InputError:
        return "image"  # which says what is wrong
    if described.axes or len(described.shape) != 3:
        return "volume" if described.has_depth or (not described.axes and len(described.shape) > 3) else "image"
    first, *_, last = described.shape
    is_picture = first <= MOST_CHANNELS or last in COLOURS or last <= MOST_CHANNELS
    return "image" if is_picture else "volume"


def _task_of_array(path: Path) -> str:
    """An array is a picture if it is (h, w) or (h, w, c), c of up to 64, with more than c and more than 4 rows and
    columns, and a volume if it is another of three or more; it is the grid of a mesh if it is of bits, of bytes 0
    and 1 unless c is 1, 3 or 4, or of what cannot be read."""
    try:
        with path.open("rb") as file:
            version = file.read(8)[6:7]
            n_bytes = int.from_bytes(file.read(2 if version == b"\1" else 4), "little")
            described = ast.literal_eval(file.read(min(n_bytes, _MOST_HEADER)).decode("latin1"))
            kind, shape = described["descr"], described["shape"]
            if not isinstance(kind, str) or kind[1] not in "uif" or len(shape) < 2:
                return "mesh"
            if len(shape) > 3:
                return "volume"
            is_picture = len(shape) == 2 or (shape[2] <= MOST_CHANNELS and min(shape[:2]) > max(shape[2], *COLOURS))
            if is_picture and (len(shape) == 2 or shape[2] in COLOURS):
                return "image"
            parts = iter(lambda: file.read(_BYTES_AT_ONCE), b"")
            if kind[1:] == "u1" and not any(part.strip(b"\0\1") for part in parts):
                return "mesh"
            return "image" if is_picture else "volume"
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, MemoryError, RecursionError):
        return "mesh"
