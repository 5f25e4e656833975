"""Meshes to occupancy by winding numbers: one ray a column, crossings counted with the orientation of their faces.

Notation: a *column* is the line of voxels with the same (x, y); positions are in voxels, so voxel k of a column lies
at z = k. The winding number of a point is the number of upward-facing faces above it less the downward-facing ones; a
point is inside where it is positive, so overlapping bodies are their union, and a cavity is outside if its faces look
into it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import trimesh

from datasets.repair import close_holes
from utils.bars import tqdm
from utils.frame import Frame

_VOXELS_AT_ONCE = 2**25
_CANDIDATES_AT_ONCE = 2**22
_RECASTS = 8


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
    positions, faces = closed_in_voxels(mesh, frame, n)
    per_axis = round(n_samples ** (1 / 3))
    votes = np.zeros((n, n, n) if n_repeats > 1 else 0, np.uint8)
    hidden = None if progress else True  # None: unless a terminal shows it
    with tqdm(total=n_repeats * n, desc="voxels", unit="slices", disable=hidden, leave=False) as bar:
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


def closed_in_voxels(mesh: trimesh.Trimesh, frame: Frame, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with its holes closed: positions (m, 3) of its vertices in the n^3 voxels of a frame, and faces."""
    vertices, faces = close_holes(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    return frame.to_voxels(vertices, (n, n, n)), faces


def winding_of_rows(triangles: "Triangles", rows: slice, n: int) -> np.ndarray:
    """Winding numbers (n, rows, n) int16 of the voxels of some rows, axes [z, y, x]."""
    column, z, sign = _crossings_that_close(triangles, rows, n, 0.0, 0.0)
    return _winding(column, z, sign, (n, rows.stop - rows.start, n))


def _slabs(vertices: np.ndarray, faces: np.ndarray, n: int, per_axis: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Ranges of rows along y, and which of their voxels are inside: (z, rows, x) bool."""
    triangles = Triangles.of(vertices, faces)
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
class Triangles:
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
    def of(cls, vertices: np.ndarray, faces: np.ndarray) -> "Triangles":
        begin, end = faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]
        turned = begin > end
        first, second = np.array([1, 2, 0]), np.array([2, 0, 1])
        return cls(vertices[faces], np.where(turned, second, first), np.where(turned, first, second), turned)

    def select(self, chosen: np.ndarray) -> "Triangles":
        return Triangles(self.corners[chosen], self.low[chosen], self.high[chosen], self.turned[chosen])


def _crossings_that_close(
    triangles: Triangles, rows: slice, n: int, x_offset: float, y_offset: float
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
    triangles: Triangles, rows: slice, n: int, x_offset: float, y_offset: float
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
    found = []
    for face, x, y in lattice_points(low, high):
        z, sign = cross(triangles.select(face), x + x_offset, y + y_offset)
        hit = sign != 0
        found.append(((y[hit] - rows.start) * n + x[hit], z[hit], sign[hit]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int16)
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def lattice_points(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The points of boxes on a lattice, many at a time.

    Inputs
        low, high: (m, d) first and last point of each box along each axis; it is empty where a last one is below a
            first one
    Outputs
        (n_points,) each: index of the box; its points along each axis
    """
    spans = np.maximum(high - low + 1, 0)
    near = np.flatnonzero(spans.prod(axis=1))
    ends = spans[near].prod(axis=1).cumsum()
    start = 0
    while start < len(near):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CANDIDATES_AT_ONCE, side="right")))
        chosen = near[start:stop]
        counts = spans[chosen].prod(axis=1)
        index = np.repeat(chosen, counts)
        within = np.arange(len(index)) - np.repeat(counts.cumsum() - counts, counts)
        places = []
        for axis in range(low.shape[1]):
            within, place = np.divmod(within, spans[index, axis])
            places.append(low[index, axis] + place)
        yield index, *places
        start = stop


def cross(triangles: Triangles, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
