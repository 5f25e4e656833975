"""Meshes to occupancy by winding numbers: one ray a column, crossings counted with the orientation of their faces.

Notation: a *column* is the line of voxels with the same (x, y); positions are in voxels, so voxel k of a column lies
at z = k. The winding number of a point is the number of upward-facing faces above it less the downward-facing ones; a
point is inside where it is positive, so overlapping bodies are their union, and a cavity is outside if its faces look
into it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from utils.errors import InputError, one_line
from utils.files import check_file
from utils.frame import Frame

_VOXELS_AT_ONCE = 2**25
_CANDIDATES_AT_ONCE = 2**22
_RECASTS = 8


def load_mesh(path: str) -> trimesh.Trimesh:
    """Load any file that trimesh reads as one triangle mesh, in the file's own coordinates; scenes are joined.

    Identical vertices are merged, and faces that repeat one are dropped. Faces are turned to agree with their
    neighbours, and to look outwards on the whole.

    Errors
        InputError for a file that is missing or holds no faces, vertices that are not finite, a mesh that is flat
    """
    check_file(Path(path))
    try:
        mesh = trimesh.load_mesh(path, process=False)
    except Exception as error:  # trimesh's readers raise whatever their parsers do
        raise InputError(f"{path} is not a mesh that trimesh can read ({one_line(error)})") from error
    if isinstance(mesh, trimesh.Scene):
        mesh = mesh.to_mesh()
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise InputError(f"{path} holds no faces; use a triangle mesh")
    vertices = np.asarray(mesh.vertices)[mesh.faces.ravel()]
    if not np.isfinite(vertices).all():
        raise InputError(f"{path} has vertices that are not finite; repair it")
    flat = np.ptp(vertices, axis=0) == 0
    if flat.any():
        raise InputError(f"{path} has no extent along {'xyz'[int(flat.argmax())]}; use a body")

    vertices, index = np.unique(vertices, axis=0, return_inverse=True)
    faces = index.reshape(-1, 3)
    distinct = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    mesh = trimesh.Trimesh(vertices, faces[distinct], process=False)
    if not mesh.is_winding_consistent:
        trimesh.repair.fix_winding(mesh)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def close_holes(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add faces so that every edge is used as often in one direction as in the other.

    The edges left over form closed walks, whatever the mesh (a boundary has no boundary); each connected set of them
    becomes a cone whose tip is the mean of its vertices. Every ray then crosses in as often as it crosses out.

    Inputs
        vertices: (n, 3)
        faces: (m, 3)
    Outputs
        vertices and faces, the given ones first
    """
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forward = edges[:, 0] < edges[:, 1]
    pairs, place = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True)
    surplus = np.bincount(place.ravel(), np.where(forward, 1, -1), minlength=len(pairs)).astype(int)
    loose = np.where((surplus > 0)[:, None], pairs, pairs[:, ::-1]).repeat(abs(surplus), axis=0)
    if len(loose) == 0:
        return vertices, faces
    corners, loose_index = np.unique(loose, return_inverse=True)
    start, end = loose_index.reshape(-1, 2).T
    links = coo_matrix((np.ones(len(start)), (start, end)), shape=(len(corners),) * 2)
    _, hole = connected_components(links, directed=False)
    counts = np.bincount(hole)
    tips = np.stack([np.bincount(hole, vertices[corners, axis]) / counts for axis in range(3)], axis=1)
    caps = np.stack([loose[:, 1], loose[:, 0], len(vertices) + hole[start]], axis=1)
    return np.concatenate([vertices, tips]), np.concatenate([faces, caps])


def voxelize(
    mesh: trimesh.Trimesh, frame: Frame, n: int, n_samples: int = 1, n_repeats: int = 1, progress: bool = False
) -> np.ndarray:
    """Occupancy of the n^3 voxels of a frame.

    Inputs
        n_samples: of a voxel, an odd cube (1, 27, 125, ...), spread evenly over its volume; the majority decides
        n_repeats: odd, at most 255; each repeat casts rays along the next axis, and the majority decides
    Outputs
        (n, n, ceil(n / 8)) uint8, axes [z, y, x], x packed eight voxels a byte, the first in the highest bit
    """
    vertices, faces = close_holes(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    positions = frame.to_voxels(vertices, (n, n, n))
    per_axis = round(n_samples ** (1 / 3))
    votes = np.zeros((n, n, n) if n_repeats > 1 else 0, np.uint8)
    with tqdm(total=n_repeats * n, desc="voxels", unit="slices", disable=not progress, leave=False) as bar:
        for repeat in range(n_repeats):
            turned = np.roll(positions, repeat, axis=1)  # brings another axis to z
            inside = np.empty((n, n, -(-n // 8)), np.uint8)
            for rows, slab in _slabs(turned, faces, n, per_axis):
                inside[:, rows] = np.packbits(slab, axis=2)
                bar.update(rows.stop - rows.start)
            if n_repeats == 1:
                return inside
            whole = np.unpackbits(inside, axis=2, count=n)
            votes += np.moveaxis(whole, [0, 1, 2], [(axis + repeat) % 3 for axis in range(3)])
    return np.packbits(votes > n_repeats // 2, axis=2)


def _slabs(vertices: np.ndarray, faces: np.ndarray, n: int, per_axis: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Ranges of rows along y, and which of their voxels are inside: (z, rows, x) bool."""
    triangles = _Triangles.of(vertices, faces)
    offsets = (np.arange(per_axis) + 0.5) / per_axis - 0.5
    n_rows = max(1, _VOXELS_AT_ONCE // n**2)
    for first in range(0, n, n_rows):
        rows = slice(first, min(first + n_rows, n))
        count = np.zeros((n, rows.stop - rows.start, n), np.uint16)
        for x_offset in offsets:
            for y_offset in offsets:
                column, z, sign = _crossings_that_close(triangles, rows, n, x_offset, y_offset)
                for z_offset in offsets:
                    count += _winding(column, z - z_offset, sign, count.shape) > 0
        yield rows, 2 * count > per_axis**3


def _winding(column: np.ndarray, z: np.ndarray, sign: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Winding numbers (z, rows, x) from the crossings; since columns close, those below count with the other sign."""
    steps = np.zeros((shape[0], shape[1] * shape[2]), np.int16)
    first_above = np.ceil(z).clip(0, shape[0]).astype(np.int64)
    met = first_above < shape[0]
    np.add.at(steps, (first_above[met], column[met]), -sign[met])
    return np.cumsum(steps, axis=0, dtype=np.int16, out=steps).reshape(shape)


@dataclass(frozen=True)
class _Triangles:
    """
    corners: (m, 3, 3) positions of the corners
    low, high: (m, 3) ends of the edges opposite to the corners, as indices of corners, in an order that both faces of
        an edge agree on
    turned: (m, 3) the face runs along the edge from high to low
    """

    corners: np.ndarray
    low: np.ndarray
    high: np.ndarray
    turned: np.ndarray

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray) -> "_Triangles":
        begin, end = faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]
        turned = begin > end
        first, second = np.array([1, 2, 0]), np.array([2, 0, 1])
        return cls(vertices[faces], np.where(turned, second, first), np.where(turned, first, second), turned)

    def select(self, chosen: np.ndarray) -> "_Triangles":
        return _Triangles(self.corners[chosen], self.low[chosen], self.high[chosen], self.turned[chosen])


def _crossings_that_close(
    triangles: _Triangles, rows: slice, n: int, x_offset: float, y_offset: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crossings of the columns of some rows; a column that rounding left open is cast again, moved by a hair."""
    n_columns = (rows.stop - rows.start) * n
    column, z, sign = _crossings(triangles, rows, n, x_offset, y_offset)
    generator = np.random.default_rng(0)
    for _ in range(_RECASTS):
        is_open = np.bincount(column, sign, minlength=n_columns) != 0
        if not is_open.any():
            break
        x_hair, y_hair = generator.uniform(-1e-4, 1e-4, 2)
        others = _crossings(triangles, rows, n, x_offset + x_hair, y_offset + y_hair)
        keep, take = ~is_open[column], is_open[others[0]]
        column, z, sign = (
            np.concatenate([mine[keep], other[take]]) for mine, other in zip((column, z, sign), others, strict=True)
        )
    return column, z, sign


def _crossings(
    triangles: _Triangles, rows: slice, n: int, x_offset: float, y_offset: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the columns of some rows cross the mesh.

    Outputs
        (n_crossings,) each: index of the column in the rows; z; +1 for a face that looks up, -1 for one that
        looks down
    """
    low = np.ceil(triangles.corners[:, :, :2].min(axis=1) - (x_offset, y_offset)).astype(np.int64)
    high = np.floor(triangles.corners[:, :, :2].max(axis=1) - (x_offset, y_offset)).astype(np.int64)
    low = np.maximum(low, (0, rows.start))
    high = np.minimum(high, (n - 1, rows.stop - 1))
    spans = np.maximum(high - low + 1, 0)
    near = np.flatnonzero(spans.prod(axis=1))
    found = []
    ends = spans[near].prod(axis=1).cumsum()
    start = 0
    while start < len(near):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CANDIDATES_AT_ONCE, side="right")))
        chosen = near[start:stop]
        counts = spans[chosen].prod(axis=1)
        face = np.repeat(chosen, counts)
        within = np.arange(len(face)) - np.repeat(counts.cumsum() - counts, counts)
        x = low[face, 0] + within % spans[face, 0]
        y = low[face, 1] + within // spans[face, 0]
        z, sign = _cross(triangles.select(face), x + x_offset, y + y_offset)
        hit = sign != 0
        found.append(((y[hit] - rows.start) * n + x[hit], z[hit], sign[hit]))
        start = stop
    if not found:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int16)
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _cross(triangles: _Triangles, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the vertical line through each (x, y) crosses its triangle, and which way that looks (0: it does not).

    The side of an edge that a point lies on is computed the same way for both faces of the edge. A point on the edge
    counts as moved by (eps, eps^2), so it belongs to one face only, and at a corner to one of all (Edelsbrunner and
    Muecke, Simulation of Simplicity, ACM TOG 9, 1990).
    """
    each = np.arange(len(x))[:, None]
    a, b = triangles.corners[each, triangles.low], triangles.corners[each, triangles.high]  # (n, 3, 3) of the edges
    run, rise = b[..., 0] - a[..., 0], b[..., 1] - a[..., 1]
    area = run * (y[:, None] - a[..., 1]) - rise * (x[:, None] - a[..., 0])
    left = (area > 0) | ((area == 0) & ((rise < 0) | ((rise == 0) & (run > 0))))
    left ^= triangles.turned
    sign = left.all(axis=1).astype(np.int16) - (~left).all(axis=1)

    weight = np.where(triangles.turned, -area, area)
    total = weight.sum(axis=1)
    heights = triangles.corners[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (weight * heights).sum(axis=1) / total
    z = np.where(np.isfinite(z), z, heights.mean(axis=1))
    return z.clip(heights.min(axis=1), heights.max(axis=1)), sign
