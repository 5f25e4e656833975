"""Meshes as grids of occupancy or distances, kept in files: made once, and found again."""

import zlib
from pathlib import Path

import numpy as np

from datasets.distance import check_library, distance_slabs
from datasets.meshes import load_mesh
from datasets.occupancy import grid_source, origin_of, write_distances, write_occupancy
from datasets.sources import Source
from datasets.voxelize import closed_in_voxels, voxelize
from utils.errors import InputError
from utils.files import check_file
from utils.frame import Frame
from utils.memory import available_memory


def grid_path(folder: Path, path: str, n: int, values: str) -> Path:
    """Where the grid of a mesh with n voxels along each axis is kept.

    Inputs
        values: occupancy or distance
    """
    return folder / f"{Path(path).stem}_{n}{'_distance' if values == 'distance' else ''}.npy"


def kept_grid(folder: Path, path: str, n: int, values: str) -> Path | None:
    """The grid of a mesh, if it has been made; the inputs are those of `grid_path`.

    Errors
        InputError where another grid has its place
    """
    check_file(Path(path))
    out = grid_path(folder, path, n, values)
    if not out.exists():
        return None
    if origin_of(out) != _identity(path, values):
        raise InputError(f"{out} was made of another mesh than {path}; delete it, or name it with --path to fit it")
    return out


def planned_grid(path: str, n: int, values: str) -> Source:
    """The grid of a mesh that has not been made, to plan with: it cannot be read."""

    def read(start: int, stop: int) -> np.ndarray:
        raise InputError(f"the grid of {path} has not been made")

    return grid_source(Path(path), (n, n, n), None, 1, read, bits=8 if values == "distance" else 1)


def make_grid(
    folder: Path,
    path: str,
    n: int,
    values: str = "occupancy",
    n_samples: int = 1,
    n_repeats: int = 1,
    *,
    progress: bool = True,
) -> str:
    """Sample a mesh on a grid, and keep that in a folder.

    Inputs
        values: occupancy or distance
        n_samples, n_repeats, progress: as `voxelize` takes them
    Outputs
        a line that says what was made
    Errors
        InputError for a mesh that cannot be read, and for a grid that memory does not hold, or that is empty or full
    """
    if values == "distance":
        check_library()
    check_voxels(n, n_repeats)
    mesh = load_mesh(path)
    frame = Frame.around(mesh.vertices)
    packed = voxelize(mesh, frame, n, n_samples, n_repeats, progress)
    inside = np.bitwise_count(packed).sum(dtype=np.int64) / n**3
    if inside == 0:
        remedy = "a larger --N, preprocess_mesh.py --T 3, or a mesh that encloses a volume"
        raise InputError(f"--N {n}: no voxel is inside {path}; use {remedy}")
    if inside == 1:
        raise InputError(f"--N {n}: every voxel is inside {path}; use a larger --N")
    out = grid_path(folder, path, n, values)
    folder.mkdir(exist_ok=True)
    if values == "distance":
        slabs = distance_slabs(*closed_in_voxels(mesh, frame, n), packed, progress)
        write_distances(out, slabs, (n, n, n), frame, _identity(path, values))
    else:
        write_occupancy(out, packed, n, frame, _identity(path, values))
    return f"{folder.name}/{out.name}: {n}x{n}x{n} voxels, {inside:.2%} inside"


def check_voxels(n: int, n_repeats: int = 1) -> None:
    """InputError for a grid that memory does not hold."""
    n_voxels = n**3
    n_bytes = n_voxels // 4 + (2 * n_voxels if n_repeats > 1 else 0)  # the bits twice; votes, and those of a repeat
    free = available_memory()
    if free is not None and n_bytes > free:
        raise InputError(
            f"--N {n}: its voxels take {n_bytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free; "
            "use a smaller one"
        )


def _identity(path: str, values: str) -> str:
    """What tells the grid of a mesh file from others."""
    crc = 0
    with Path(path).open("rb") as file:
        while data := file.read(2**20):
            crc = zlib.crc32(data, crc)
    return f"{'distance to ' if values == 'distance' else ''}mesh of crc32 {crc:08x}"
