"""Mesh files, read by trimesh, as one triangle mesh whose bodies face outward."""

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import trimesh
from trimesh.exchange.load import mesh_loaders

from datasets.bodies import turn_bodies
from datasets.repair import close_holes, collapse_duplicates, make_neighbours_agree, merge_vertices
from utils.errors import InputError, one_line
from utils.files import check_file

_SMALLEST, _LARGEST = 1e-100, 1e100  # of extents and coordinates: their cubes are still numbers
_OTHERS = ".ply, .obj, .stl, .off or .glb"


def load_mesh(path: str) -> trimesh.Trimesh:
    """Load any file that trimesh reads as one triangle mesh, in the file's own coordinates; scenes are joined.

    Identical vertices are merged, and of duplicate faces, in either orientation, one stays. Faces are flipped to agree
    with their neighbours, then bodies to face outward, except for cavities. A note on stderr says what was mended,
    and how many holes `voxelize` will close.

    Errors
        InputError for a file that is missing, cannot be read or holds no faces, for vertices that are not finite or far
        out of range, and for a mesh that is flat
    """
    vertices, faces = merge_vertices(_read(path))
    extents = _checked_extents(path, vertices)
    faces, n_dropped = collapse_duplicates(faces)
    if len(faces) == 0:  # all were lines or points
        raise _without_faces(path)
    faces, n_turned = make_neighbours_agree(faces)
    closed_vertices, closed = close_holes((vertices - vertices.min(axis=0)) / extents, faces)
    faces, n_bodies = turn_bodies(closed_vertices, closed, len(faces))
    _note(path, n_dropped, n_turned, n_bodies, n_holes=len(closed_vertices) - len(vertices))
    return trimesh.Trimesh(vertices, faces, process=False)


def _read(path: str) -> np.ndarray:
    """Corners (m, 3, 3) of all triangles of a file; InputError if it has none."""
    check_file(Path(path))
    kind = Path(path).suffix.lower()
    if kind[1:] not in {*mesh_loaders, *trimesh.available_formats()} and not path.lower().endswith(".tar.gz"):
        raise InputError(f"{path}: {f'{kind} files' if kind else 'files without a suffix'} are not read; use {_OTHERS}")
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy's, of what damaged files lead trimesh to compute
            mesh = trimesh.load_mesh(path, process=False)
        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    except ImportError as error:
        raise InputError(_without_package(path, kind, str(error))) from error
    except Exception as error:  # trimesh's readers raise whatever their parsers do
        raise _damaged(path, kind, one_line(error)[:200]) from error
    if len(faces) == 0:
        raise _without_faces(path)
    if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        raise _damaged(path, kind, f"vertices of shape {vertices.shape}, faces of shape {faces.shape}")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise _damaged(path, kind, "faces name vertices that it lacks")
    return vertices[faces]


def _without_faces(path: str) -> InputError:
    return InputError(f"{path} holds no faces; use a triangle mesh")


def _damaged(path: str, kind: str, reason: str) -> InputError:
    return InputError(f"{path} is damaged, or not a {kind} file ({reason}); export it again, as {_OTHERS}")


def _without_package(path: str, kind: str, error: str) -> str:
    """Why a file was not read where an import failed: that of its reader, or of what guesses how text is encoded."""
    package = re.search(r"pip install (\w+)|named '(\w+)'", error)
    if kind[1:] in trimesh.available_formats() or package is None:
        return f"{path} is damaged, or not a {kind} file; export it again, as {_OTHERS}"
    name = package[1] or package[2]
    return f"{path}: {kind} files need the package {name}; run pip install {name}, or convert the file to {_OTHERS}"


def _checked_extents(path: str, vertices: np.ndarray) -> np.ndarray:
    """(3,) of the bounding box of (n, 3) vertices; InputError if nothing can be computed with them."""
    if not np.isfinite(vertices).all():
        raise InputError(f"{path} has vertices that are not finite; repair it")
    largest = abs(vertices).max()
    if largest > _LARGEST:
        raise InputError(f"{path} has coordinates up to {largest:.1e}; use a unit that keeps them below {_LARGEST:.0e}")
    extents = np.ptp(vertices, axis=0)
    axis = "xyz"[int(extents.argmin())]
    if extents.min() == 0:
        raise InputError(f"{path} has no extent along {axis}; use a body")
    if extents.min() < _SMALLEST:
        raise InputError(
            f"{path} extends {extents.min():.1e} along {axis}; use a unit that makes it more than {_SMALLEST:.0e}"
        )
    return extents


def _note(path: str, n_dropped: int, n_turned: int, n_bodies: int, n_holes: int) -> None:
    """Say on stderr what was mended, if anything."""
    mended = [
        (n_dropped, "duplicate face", "duplicate faces", "dropped"),
        (n_turned, "face", "faces", "flipped to agree with the neighbours"),
        (n_bodies, "inside-out body", "inside-out bodies", "turned over"),
        (n_holes, "hole", "holes", "closed"),
    ]
    done = [f"{n} {one if n == 1 else several} {what}" for n, one, several, what in mended if n]
    if done:
        print(f"note: {path}: {', '.join(done)}", file=sys.stderr)
