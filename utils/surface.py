"""Surfaces of volumes: out of a field, and how near two of them are."""

import numpy as np
import trimesh
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from utils.errors import InputError
from utils.frame import Frame


def extract_surface(
    field: np.ndarray,
    frame: Frame | None,
    size: tuple[int, ...],
    crop: tuple[tuple[int, int], ...] | None = None,
    level: int = 0,
    scale: int = 1,
) -> trimesh.Trimesh:
    """The surface where the field is 1/2 (marching cubes), closed where it meets the box.

    Inputs
        field: (d, h, w) samples of a window of a level
        frame: of the whole volume; None leaves the surface in voxels of level 0
        size: (d, h, w) of level 0
        crop, level, scale: which window, None for all of it, of which level, and samples a pixel along each axis
    """
    padded = np.pad(field, 1)
    if not padded.min() < 0.5 < padded.max():
        raise InputError("the field has no surface: it is nowhere above 1/2")
    corners, faces, _, _ = marching_cubes(padded, 0.5)
    starts = np.array([start for start, _ in crop]) if crop else 0
    pixels = starts + (corners - 1 + 0.5) / scale - 0.5
    voxels = ((pixels + 0.5) * 2**level - 0.5)[:, ::-1]  # (x, y, z) of level 0
    surface = trimesh.Trimesh(frame.to_mesh(voxels, size[::-1]) if frame else voxels, faces, process=False)
    if surface.volume < 0:
        surface.invert()
    return surface


def sample_surface(mesh: trimesh.Trimesh, n_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points evenly spread over a surface and the normals of their faces, (n_points, 3) each; the same every time."""
    points, face = trimesh.sample.sample_surface(mesh, n_points, seed=0)
    return np.asarray(points), mesh.face_normals[face]


def surface_agreement(
    points: np.ndarray, normals: np.ndarray, other_points: np.ndarray, other_normals: np.ndarray
) -> tuple[float, float]:
    """How near two surfaces are, from points sampled on them.

    Inputs
        points, normals: (n, 3) on one surface, (m, 3) on the other
    Outputs
        Chamfer distance: mean of the two mean distances to the nearest point of the other, in the points' unit; and
        normal consistency: mean of |cosine| between the normals of nearest points, both ways, up to 1
    """
    there, nearest = cKDTree(other_points).query(points)
    back, nearest_back = cKDTree(points).query(other_points)
    cosines = [(normals * other_normals[nearest]).sum(1), (other_normals * normals[nearest_back]).sum(1)]
    return (there.mean() + back.mean()) / 2, float(np.mean([np.abs(cosine).mean() for cosine in cosines]))
