"""Meshes to truncated signed distances, slab by slab, at the voxels of a grid whose occupancy is known.

Notation: positions are in voxels, so voxel k of an axis lies at k, and distances are in voxels too, whatever their
extents in the mesh's unit. A *slab* is consecutive slices, a *piece* a triangle of at most some voxels.
"""

from collections.abc import Iterator

import numpy as np

from datasets.voxelize import Triangles, lattice_points, winding_of_rows
from utils.bars import tqdm
from utils.errors import InputError

PEAK = 255
"""The value of a voxel that lies at least one voxel inside; 0 is as far outside."""

_VOXELS_AT_ONCE = 2**24
_QUERIES_AT_ONCE = 2**20
_LONGEST = 3  # of the edges of a piece, in voxels


def check_library() -> None:
    """InputError without the library that measures distances."""
    try:
        import igl  # noqa: F401
    except ImportError as error:
        remedy = "run pip install libigl, or use --values occupancy"
        raise InputError(f"--values distance: needs the package libigl ({error}); {remedy}") from error


def distance_slabs(
    vertices: np.ndarray, faces: np.ndarray, packed: np.ndarray, progress: bool = False
) -> Iterator[np.ndarray]:
    """clip(1/2 + d/2, 0, 1) in steps of 1/255, d the distance in voxels to the surface, positive inside.

    Whatever the rounding, values above 1/2 are those of voxels that are occupied. Where bodies overlap, the surface is
    that of their union. Outside of it d is exact. Inside, what of a body reaches into another counts for some voxels
    behind the seam, and all of it where they overlap by less than a voxel.

    Inputs
        vertices: (m, 3) positions x, y, z, of a closed mesh
        faces: (k, 3)
        packed: (n, n, ceil(n / 8)) occupancy of the voxels, as `voxelize` gives it
        progress: show a bar on a terminal
    Outputs
        (n_slices, n, n) uint8 each, axes [z, y, x], all n slices in their order
    """
    n = len(packed)
    turned = Triangles.of(np.roll(vertices, 2, axis=1), faces)  # columns along x, rows along z
    heights = vertices[:, 2][faces]
    low, high = heights.min(axis=1), heights.max(axis=1)
    n_slices = max(1, _VOXELS_AT_ONCE // n**2)
    hidden = None if progress else True  # None: unless a terminal shows it
    with tqdm(total=n, desc="distances", unit="slices", disable=hidden, leave=False) as bar:
        for first in range(0, n, n_slices):
            slab = range(first, min(first + n_slices, n))
            near = (high > slab.start - 1) & (low < slab.stop)
            pieces = _cut(vertices[faces[near]], slab.start - 1, slab.stop)
            around = range(max(slab.start - _LONGEST - 2, 0), min(slab.stop + _LONGEST + 2, n))
            winding = winding_of_rows(turned, slice(around.start, around.stop), n).transpose(1, 2, 0)
            pieces, places = _near_the_surface(pieces, winding, around, slab, n)
            yield _values(pieces, places, np.unpackbits(packed[first : slab.stop], axis=2, count=n), first)
            bar.update(len(slab))


def _cut(corners: np.ndarray, low: float, high: float) -> np.ndarray:
    """Triangles (m, 3, 3) into pieces; of these, those that reach between two heights."""
    done = [np.zeros((0, 3, 3))]
    while len(corners):
        z = corners[:, :, 2]
        corners = corners[(z.max(axis=1) > low) & (z.min(axis=1) < high)]
        squares = ((corners - np.roll(corners, -1, axis=1)) ** 2).sum(axis=2)
        is_long = squares.max(axis=1) > _LONGEST**2
        done.append(corners[~is_long])
        longest = squares[is_long].argmax(axis=1)[:, None]
        each = np.arange(len(longest))[:, None]
        a, b, c = corners[is_long][each, (longest + np.arange(3)) % 3].swapaxes(0, 1)
        middle = (a + b) / 2
        corners = np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])
    return np.concatenate(done)


def _near_the_surface(
    pieces: np.ndarray, winding: np.ndarray, around: range, slab: range, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out pieces inside other bodies, and find the voxels that may be less than a voxel from the others.

    A piece counts as inside if all voxels that it may be near to are, and the winding number of some is 2 or more; in
    a gap that is too narrow for voxels it is 1. The same holds for what lies in bodies that are inside out.

    Inputs
        winding: (n_around, n, n) winding numbers of the slices `around` the slab, n to a side
    Outputs
        pieces, and the places of the voxels in the slab, as if it were flat, ascending
    """
    origin = np.array([0, 0, around.start])
    low = np.ceil(pieces.min(axis=1) - 1).astype(np.int64) - origin
    high = np.floor(pieces.max(axis=1) + 1).astype(np.int64) - origin
    is_surface = np.zeros(len(pieces), bool)
    near = np.zeros(winding.shape, bool)
    for index, x, y, z in lattice_points(low.clip(0), high.clip(max=(n - 1, n - 1, len(around) - 1))):
        begins = np.flatnonzero(np.diff(index, prepend=-1))
        numbers = winding[z, y, x]
        least, most = np.minimum.reduceat(numbers, begins), np.maximum.reduceat(numbers, begins)
        is_surface[index[begins]] = ~((least >= 1) & (most >= 2) | (most <= 0) & (least <= -1))
        kept = is_surface[index]
        near[z[kept], y[kept], x[kept]] = True
    return pieces[is_surface], np.flatnonzero(near[slab.start - around.start : slab.stop - around.start])


def _values(pieces: np.ndarray, places: np.ndarray, inside: np.ndarray, first: int) -> np.ndarray:
    """The values (n_slices, n, n) of a slab.

    Inputs
        pieces: (m, 3, 3) of the surface
        places: of the voxels in the slab, as if it were flat, that may be less than a voxel from these
        inside: (n_slices, n, n) 0 and 1
        first: slice of the slab
    """
    import igl

    values = inside * np.uint8(PEAK)
    if not len(places):
        return values
    ends, triples = pieces.reshape(-1, 3), np.arange(3 * len(pieces)).reshape(-1, 3)
    tree = igl.AABB()
    tree.init(ends, triples)
    flat, half = values.reshape(-1), PEAK // 2
    for some in np.array_split(places, -(-len(places) // _QUERIES_AT_ONCE)):
        z, y, x = np.unravel_index(some, inside.shape)
        points = np.stack([x, y, z + first], axis=1).astype(np.float64)
        distance = np.sqrt(tree.squared_distance(ends, triples, points)[0]).clip(max=1)
        steps = np.rint(distance * (PEAK / 2) - 0.5).astype(np.uint8)
        flat[some] = np.where(flat[some] > half, half + 1 + steps, half - steps)
    return values
