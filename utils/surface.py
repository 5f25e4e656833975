"""Surfaces: extracted from a field, and how near two of them are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise

import numpy as np
import trimesh
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from utils.errors import InputError
from utils.frame import Frame
from utils.windows import Window, in_samples

_OFF = np.float32(2**-11)  # with it, float32 keeps vertices distinct in planes of up to 8192 samples a side


def extract_surface(
    slabs: Iterable[np.ndarray],
    frame: Frame | None,
    size: tuple[int, ...],
    crop: Window | None = None,
    level: int = 0,
    scale: int | Fraction = 1,
) -> trimesh.Trimesh:
    """The surface where a field is 1/2 (marching cubes), closed where it meets the box.

    Its vertices lie between samples, where the field, taken as linear from one to the next, is 1/2.
    It is extracted plane by plane and joined exactly, so it does not depend on how the field is cut into slabs. Memory
    holds the surface, a slab and some ten planes.

    Inputs
        slabs: (n_planes, h, w) each, consecutive along the first axis: samples of a window of a level
        frame: of the whole volume; None leaves the surface in voxels of level 0
        size: (d, h, w) of level 0
        crop, level, scale: the window, None for all, of which level, and samples a pixel along each axis
    Errors
        InputError if the field is nowhere above 1/2
    """
    corners, faces = _march(plane for slab in slabs for plane in slab)
    if not len(faces):
        raise InputError("the field has no surface: it is nowhere above 1/2; try another crop, or fit longer")
    starts = np.array([start for start, _ in in_samples(crop, scale)]) if crop else 0
    pixels = (starts + corners + 0.5) / float(scale) - 0.5
    voxels = ((pixels + 0.5) * 2**level - 0.5)[:, ::-1]  # (x, y, z) of level 0
    return trimesh.Trimesh(frame.to_mesh(voxels, size[::-1]) if frame else voxels, faces, process=False)


def _march(planes: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Marching cubes over planes (h, w), with zeros all around.

    Outputs
        (n_vertices, 3) z, y, x in samples; (n_faces, 3)
    """
    vertices, faces, n_vertices = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    seam, seam_index = np.zeros(0, np.uint64), np.zeros(0, np.int64)  # the vertices on the lower plane
    for z, pair in enumerate(map(np.stack, pairwise(_framed(planes))), -1):
        if not pair.max() > 0.5:
            continue
        corners, triangles, _, _ = marching_cubes(pair, 0.5)
        place = np.ascontiguousarray(corners[:, 1:]).view(np.uint64)[:, 0]  # both float32 coordinates as one integer
        on_lower, on_upper = corners[:, 0] == 0, corners[:, 0] == 1
        index = n_vertices - 1 + np.cumsum(~on_lower)
        index[on_lower] = seam_index[np.searchsorted(seam, place[on_lower])]
        order = np.argsort(place[on_upper])
        seam, seam_index = place[on_upper][order], index[on_upper][order]
        vertices.append(corners[~on_lower] + np.array([z, -1.0, -1.0]))
        faces.append(index[triangles])
        n_vertices += len(vertices[-1])
    return np.concatenate(vertices), np.concatenate(faces)


def _framed(planes: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Planes with a border of zeros, and one of zeros before and after them.

    Values near 1/2 are moved off it, by less than the precision of a fit, so that no vertex lies on a sample: there it
    would coincide with others.
    """
    framed = (np.pad(plane, 1) for plane in planes)
    first = next(framed)
    outside = np.zeros_like(first)
    for plane in chain([outside, first], framed, [outside]):
        yield np.where(plane > 0.5, np.maximum(plane, 0.5 + _OFF), np.fmin(plane, 0.5 - _OFF))


@dataclass(frozen=True)
class Agreement:
    """How near two surfaces are; distances are parts of the diagonal.

    diagonal: of the second surface's bounding box, in the unit of its vertices
    chamfer: mean of the two mean distances from points sampled on one to the nearest of those sampled on the other
    forth: mean and 95th percentile of the distances from points sampled on the first to the second surface itself, as
        Metro measures them (Cignoni, Rocchini and Scopigno, Computer Graphics Forum 1998)
    back: the same from points of the second to the first
    consistency: mean of |cosine| between the normal of a point's face and that of the face of the other surface that is
        nearest to the point, both ways, up to 1 (normal consistency: Mescheder et al., Occupancy Networks, CVPR 2019)
    """

    diagonal: float
    chamfer: float
    forth: tuple[float, float]
    back: tuple[float, float]
    consistency: float


def surface_agreement(one: trimesh.Trimesh, other: trimesh.Trimesh, n_points: int) -> Agreement:
    """How near two surfaces are, from points sampled evenly on each; the same every time.

    A surface beside itself, `surface_agreement(mesh, mesh, n_points)`, gives the floors: what equal surfaces come to.
    Normals are those of faces, not smoothed, so steps count. Memory follows the faces, some 200 bytes each.

    Inputs
        one, other: meshes, in the same coordinates
        n_points: on each
    Errors
        InputError for a mesh without faces

    >>> mesh = trimesh.load_mesh("meshes/spot.obj")
    >>> found = surface_agreement(MINER.load("ckpts/spot_128").surface(), mesh, n_points=100_000)
    >>> found.forth[0] * found.diagonal  # mean distance from the fit to the mesh, in the mesh's unit
    0.000175...
    """
    for mesh in (one, other):
        if not len(mesh.faces):
            raise InputError("a mesh without faces has no surface; use a triangle mesh")
    centre, diagonal = other.bounds.mean(axis=0), float(np.linalg.norm(other.extents))
    one, other = (
        trimesh.Trimesh((mesh.vertices - centre) / diagonal, mesh.faces, process=False) for mesh in (one, other)
    )  # products of lengths neither vanish nor overflow
    points, normals = sample_surface(one, n_points, seed=0)
    others, other_normals = sample_surface(other, n_points, seed=1)
    forth, nearest = distances_to_surface(points, other)
    back, nearest_back = distances_to_surface(others, one)
    cosines = (normals * face_normals(other)[nearest]).sum(1), (other_normals * face_normals(one)[nearest_back]).sum(1)
    return Agreement(
        diagonal=diagonal,
        chamfer=float(cKDTree(others).query(points)[0].mean() + cKDTree(points).query(others)[0].mean()) / 2,
        forth=_mean_and_high(forth),
        back=_mean_and_high(back),
        consistency=float(np.mean([np.abs(cosine).mean() for cosine in cosines])),
    )


def sample_surface(mesh: trimesh.Trimesh, n_points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly over a surface and the normals of their faces, (n_points, 3) each."""
    points, face = trimesh.sample.sample_surface(mesh, n_points, seed=seed)
    return np.asarray(points), face_normals(mesh)[face]


def distances_to_surface(points: np.ndarray, mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """How far points are from a surface, exactly.

    Inputs
        points: (n, 3)
        mesh: of a size near 1, since products of four lengths are taken
    Outputs
        (n,) distances in the points' unit; (n,) the nearest face, any of those that are equally near
    """
    import igl  # slow to load, and needed by few

    squares, face, _ = igl.point_mesh_squared_distance(
        np.array(points), np.array(mesh.vertices), np.array(mesh.faces, np.int64)
    )
    return np.sqrt(squares), face


def face_normals(mesh: trimesh.Trimesh) -> np.ndarray:
    """(n_faces, 3) of unit length, however small the faces are; zeros for faces without an area."""
    return trimesh.util.unitize(mesh.triangles_cross, threshold=0)


def _mean_and_high(distances: np.ndarray) -> tuple[float, float]:
    return float(distances.mean()), float(np.percentile(distances, 95))
