"""The kinds of signals, pictures (image) and occupancy grids (mesh), and what follows from the kind.

Opening files and measuring fits need libraries that load slowly, so these are imported when first needed: parsing
options also needs tasks, but not these libraries.
"""

from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.sources import Source
    from utils.metrics import Metric


@dataclass(frozen=True)
class Task:
    """
    name: as --task gives it
    n_dims: axes of the signal
    signal: what it is called in messages
    size_order: of a size on the command line
    metric_name: of `utils.metrics`
    opener: module and function that open its files
    recorded: fields of its `Source` that checkpoints keep
    """

    name: str
    n_dims: int
    signal: str
    size_order: str
    metric_name: str
    opener: tuple[str, str]
    recorded: tuple[str, ...]

    @property
    def metric(self) -> "Metric":
        """By which a fit is measured."""
        return getattr(import_module("utils.metrics"), self.metric_name)

    def open(self, path: str | Path, size: tuple[int, ...] | None = None) -> "Source":
        """Open a signal in a file at a size (h, w) or (d, h, w); None is the file's own."""
        module, function = self.opener
        return getattr(import_module(module), function)(path, size)

    def describe(self, source: "Source") -> dict[str, Any]:
        """What checkpoints record about the file, as plain data."""
        values = {name: getattr(source, name) for name in self.recorded}
        return {name: asdict(value) if name == "frame" and value else value for name, value in values.items()}


VALUES = ("occupancy", "distance")
"""What the grid of a mesh holds."""

MESH_SUFFIXES = frozenset((".ply", ".obj", ".stl", ".off", ".glb", ".gltf", ".dae", ".3mf", ".3dxml", ".step", ".stp"))
"""Of files that are taken for meshes; what else trimesh reads, preprocess_mesh.py turns into a grid."""

TASKS = {
    "image": Task("image", 2, "an image", "W H", "psnr", ("datasets.sources", "open_picture"), ("bits",)),
    "mesh": Task("mesh", 3, "a volume", "W H D", "iou", ("datasets.occupancy", "open_occupancy"), ("frame",)),
}


def task_of(n_dims: int) -> Task:
    """The task whose signals have `n_dims` axes."""
    return next(task for task in TASKS.values() if task.n_dims == n_dims)


def is_mesh(path: str) -> bool:
    """Whether a file is a mesh, by its suffix."""
    return Path(path).suffix.lower() in MESH_SUFFIXES


def task_of_file(path: str) -> str:
    """The name of the task that a file is for, by its suffix."""
    return "mesh" if is_mesh(path) or Path(path).suffix.lower() == ".npy" else "image"
