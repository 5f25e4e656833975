"""Which bodies of a mesh are inside out, by their volumes and by which body lies in which.

Notation: the *volume* of a body is signed: negative if its faces point inward.
"""

from collections.abc import Callable, Iterator
from math import ceil

import numpy as np
import trimesh

from datasets.repair import body_of_each
from datasets.voxelize import Triangles, cross, lattice_points

_POINTS, _FEW, _MANY = 2**19, 8, 256  # that tell where bodies lie: of all, and of each at least and at most
_MOSTLY = 0.9  # part of a body's surface that lies in another if the body does: thin walls may break through
_TOUCHING = 1e-9  # of the box of the mesh
_ROUNDING = 1e-14  # of the products of lengths that add up to a volume
_ASKEW = trimesh.transformations.rotation_matrix(1.0, (1.0, 2.0, 3.0))[:3, :3]  # no axis of a body stays vertical


def turn_bodies(vertices: np.ndarray, faces: np.ndarray, n_own: int) -> tuple[np.ndarray, int]:
    """Turn over the bodies that are inside out, unless they are cavities of other bodies.

    A body of negative volume is a cavity where it lies inside others. Elsewhere it is turned over together with
    all that lies in it: its cavities stay cavities, and the bodies in it stay bodies.

    Inputs
        vertices: (n, 3), of a bounding box about as long along each axis
        faces: (m, 3) of a closed mesh, whose neighbours agree
        n_own: how many of the faces, the first ones, are not caps of holes
    Outputs
        the first n_own faces; how many bodies were turned over
    """
    body = body_of_each(faces)
    volumes = _volumes(vertices[faces], body)
    if not (volumes < 0).any():
        return faces[:n_own], 0
    sizes = abs(volumes)
    vertices = vertices @ _ASKEW
    points, owner = _points_on(vertices[faces[:n_own]], body[:n_own])
    found = _around(points, owner, vertices, faces, body)
    holders, lies_in = _holders(owner, found, sizes), _in_larger(owner, found, sizes)
    wanted, signs = np.where(volumes < 0, -1, 1), np.zeros(len(volumes), int)
    turned, n_turned = np.zeros(len(volumes), bool), 0
    for one in np.argsort(-sizes, kind="stable").tolist():  # whatever a body lies in is larger
        turned[one] = turned[holders[one]] if one in holders else False
        signs[one] = -wanted[one] if turned[one] else wanted[one]
        if signs[one] < 0 and not lies_in(one, signs):
            turned[one], signs[one] = not turned[one], 1
            n_turned += 1
    return np.where(turned[body[:n_own]][:, None], faces[:n_own, ::-1], faces[:n_own]), n_turned


def _volumes(corners: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Volumes of closed bodies from the corners (m, 3, 3) of their faces, zero where they are due to rounding."""
    counts = np.bincount(body)
    middle = np.stack([np.bincount(body, corners[:, 0, axis]) / counts for axis in range(3)], axis=1)
    corners = corners - middle[body][:, None]
    a, b, c = corners.swapaxes(0, 1)
    volumes = np.bincount(body, (a * np.cross(b, c)).sum(axis=1) / 6)
    noise = _ROUNDING * np.bincount(body, np.linalg.norm(corners, axis=2).prod(axis=1))
    return np.where(abs(volumes) > noise, volumes, 0.0)


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(n_found,) each: index of a point; a body, not its own, that it lies in or touches; whether it touches that"""


def _holders(owner: np.ndarray, found: Found, sizes: np.ndarray) -> dict[int, int]:
    """Of each body that lies in others, the smallest of these.

    Inputs
        owner: (n_points,) of each point, the body on whose surface it lies
        sizes: (n_bodies,) volumes without their signs
    """
    n = len(sizes)
    point, other, touches = found
    pairs, place = np.unique(owner[point] * n + other, return_inverse=True)
    n_inside = np.bincount(place, ~touches, minlength=len(pairs))
    held, holder = np.divmod(pairs, n)
    n_clear = np.bincount(owner, minlength=n)[held] - np.bincount(place, touches, minlength=len(pairs))
    lies = np.flatnonzero((n_inside > 0) & (n_inside >= _MOSTLY * n_clear) & (sizes[held] < sizes[holder]))
    lies = lies[np.argsort(-sizes[holder[lies]], kind="stable")]
    return dict(zip(held[lies].tolist(), holder[lies].tolist(), strict=True))


def _in_larger(owner: np.ndarray, found: Found, sizes: np.ndarray) -> Callable[[int, np.ndarray], bool]:
    """(body, signs of the bodies) -> whether it lies in larger bodies, one or several, and not in a cavity of theirs.

    The inputs are those of `_holders`.
    """
    point, other, touches = found
    chosen = np.flatnonzero(sizes[other] > sizes[owner[point]])
    chosen = chosen[np.argsort(owner[point[chosen]], kind="stable")]
    point, other, touches = point[chosen], other[chosen], touches[chosen]
    first = np.searchsorted(owner[point], np.arange(len(sizes) + 1))
    n_points = np.bincount(owner, minlength=len(sizes))

    def lies_in(one: int, signs: np.ndarray) -> bool:
        mine = slice(first[one], first[one + 1])
        _, place = np.unique(point[mine], return_inverse=True)
        around = np.where(touches[mine], 0, signs[other[mine]])
        is_inside, is_in_body = np.bincount(place, around) > 0, np.bincount(place, around > 0) > 0
        doubtful = (np.bincount(place, touches[mine]) > 0) & ~is_in_body
        n_clear = n_points[one] - doubtful.sum()
        # cavities may overlap: it is enough that a part of this one does not lie in another
        return bool(is_in_body.sum() >= _MOSTLY * n_clear and is_inside.sum() > (1 - _MOSTLY) * n_clear)

    return lies_in


def _points_on(corners: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middles of some faces of each body, spread evenly over its list of faces: (n_points, 3), and the body of each."""
    order = np.argsort(body, kind="stable")
    counts = np.bincount(body)
    wanted = np.minimum(counts, np.clip(_POINTS // max(len(counts), 1), _FEW, _MANY))
    owner = np.repeat(np.arange(len(counts)), wanted)
    within = np.arange(len(owner)) - np.repeat(wanted.cumsum() - wanted, wanted)
    chosen = order[(counts.cumsum() - counts)[owner] + within * counts[owner] // wanted[owner]]
    return corners[chosen].mean(axis=1), owner


def _around(points: np.ndarray, owner: np.ndarray, vertices: np.ndarray, faces: np.ndarray, body: np.ndarray) -> Found:
    """Which bodies, other than the point's own, each point lies in or touches."""
    n = int(body.max()) + 1
    above, touched = [np.zeros((2, 0), np.int64)], [np.zeros(0, np.int64)]
    for face, point in _above_each_other(vertices[faces], points):
        apart = body[face] != owner[point]
        face, point = face[apart], point[apart]
        z, sign = cross(Triangles.of(vertices, faces[face]), *points[point, :2].T)
        height = z - points[point, 2]
        code = point * n + body[face]
        touched.append(code[(sign != 0) & (abs(height) <= _TOUCHING)])
        crosses = (sign != 0) & (height > _TOUCHING)
        above.append(np.stack([code[crosses], sign[crosses]]))
    crossed, sign = np.concatenate(above, axis=1)
    codes, place = np.unique(crossed, return_inverse=True)
    codes = codes[np.bincount(place, sign, minlength=len(codes)) != 0]
    touched = np.unique(np.concatenate(touched))
    codes = np.concatenate([np.setdiff1d(codes, touched, assume_unique=True), touched])
    return codes // n, codes % n, np.arange(len(codes)) >= len(codes) - len(touched)


def _above_each_other(corners: np.ndarray, points: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Triangles and points whose vertical lines may cross them: (n_pairs,) indices of each, many pairs at a time."""
    n_cells = ceil(len(points) ** 0.5)
    lines = np.quantile(points[:, :2], np.arange(1, n_cells) / n_cells, axis=0)  # as many points between each two

    def cells(places: np.ndarray) -> np.ndarray:
        return np.stack([np.searchsorted(lines[:, axis], places[:, axis]) for axis in range(2)], axis=1)

    cell = cells(points) @ (1, n_cells)
    order = np.argsort(cell, kind="stable")
    counts = np.bincount(cell, minlength=n_cells**2)
    starts = counts.cumsum() - counts
    low, high = corners[..., :2].min(axis=1), corners[..., :2].max(axis=1)
    for face, x, y in lattice_points(cells(low), cells(high)):
        cell = x + n_cells * y
        within = np.arange(counts[cell].sum()) - np.repeat(counts[cell].cumsum() - counts[cell], counts[cell])
        point = order[np.repeat(starts[cell], counts[cell]) + within]
        face = np.repeat(face, counts[cell])
        near = ((low[face] <= points[point, :2]) & (points[point, :2] <= high[face])).all(axis=1)
        yield face[near], point[near]
