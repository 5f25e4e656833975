"""Meshes as their makers leave them, made ready for counting crossings.

Notation: a *side* is the use of an edge by a face, from one vertex to the next. Two faces of an edge *agree* if they
run along it in opposite directions. A *sheet* is the faces that are connected by edges of two faces each. Faces are
(m, 3) indices of vertices, counterclockwise as seen from outside.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree


@dataclass(frozen=True)
class _Sides:
    """The sides of m faces: the k-th of a face leads from its vertex k to the next.

    edge: (3 m,) which edge, numbered by their vertices
    ends: (n_edges, 2) the vertices of the edges, the lower index first
    sign: (3 m,) +1 from the lower index to the higher, else -1
    """

    edge: np.ndarray
    ends: np.ndarray
    sign: np.ndarray

    @classmethod
    def of(cls, faces: np.ndarray) -> "_Sides":
        begin, end = faces.ravel().astype(np.int64), np.roll(faces, -1, axis=1).ravel().astype(np.int64)
        base = int(faces.max(initial=0)) + 1
        codes, edge = np.unique(np.minimum(begin, end) * base + np.maximum(begin, end), return_inverse=True)
        return cls(edge, np.stack(np.divmod(codes, base), axis=1), np.where(begin < end, 1, -1))

    @property
    def surplus(self) -> np.ndarray:
        """(n_edges,) sides along the edge less those against it."""
        return np.bincount(self.edge, self.sign, minlength=len(self.ends)).astype(int)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each edge of two faces, its two sides."""
        order = np.argsort(self.edge, kind="stable")
        counts = np.bincount(self.edge, minlength=len(self.ends))
        first = (counts.cumsum() - counts)[counts == 2]
        return order[first], order[first + 1]


def merge_vertices(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vertex for corners at the same place, in the order of x, y and z; faces without three vertices are dropped.

    Inputs
        corners: (m, 3, 3) of m triangles
    Outputs
        vertices (n, 3), faces
    """
    order, place = _group(corners.reshape(-1, 3))
    faces = place.reshape(-1, 3)
    return corners.reshape(-1, 3)[order], faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]


def _group(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each different row of (n, k) is first, in their order, and the number (n,) of each row among them.

    As np.unique over axis 0, which takes several times as long.
    """
    order = np.lexsort(rows.T[::-1])
    is_new = np.ones(len(rows), bool)
    is_new[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    number = np.empty(len(rows), np.int64)
    number[order] = is_new.cumsum() - 1
    return order[is_new], number


def collapse_duplicates(faces: np.ndarray) -> tuple[np.ndarray, int]:
    """Leave one face of those that have the same vertices, in the orientation of the most.

    Where both orientations are as frequent, the faces are either a surface with two sides, of which one stays, or a
    wall between bodies that touch, which goes. A connected set of them is a wall if more of its edges border on an even
    number of other faces than on an odd one.

    Outputs
        faces; how many were dropped
    """
    distinct, group = _group(np.sort(faces, axis=1))
    if len(distinct) == len(faces):
        return faces, 0
    a, b, c = faces.T
    sign = np.where((a < b) ^ (b < c) ^ (c < a), 1, -1)  # of the permutation that sorts them
    net = np.bincount(group, sign)
    wanted = np.flatnonzero((sign * net[group]) >= 0)
    kept = np.sort(wanted[np.unique(group[wanted], return_index=True)[1]])
    paired = net[group[kept]] == 0
    kept = kept[~_are_walls(faces[kept], paired)]
    return faces[kept], len(faces) - len(kept)


def _are_walls(faces: np.ndarray, paired: np.ndarray) -> np.ndarray:
    """(m,) bool: which of the faces that occur in both orientations are walls between bodies."""
    sides = _Sides.of(faces)
    face = np.arange(3 * len(faces)) // 3
    of_pair = paired[face]
    n_single = np.bincount(sides.edge[~of_pair], minlength=len(sides.ends))
    vote = np.where(n_single == 0, 0, np.where(n_single % 2 == 0, 1, -1))[sides.edge[of_pair]]
    links = (np.ones(of_pair.sum()), (face[of_pair], len(faces) + sides.edge[of_pair]))
    _, sheet = connected_components(coo_matrix(links, shape=(len(faces) + len(sides.ends),) * 2), directed=False)
    sheet = sheet[: len(faces)]
    votes = np.bincount(sheet[face[of_pair]], vote, minlength=sheet.max(initial=-1) + 1)
    return paired & (votes[sheet] > 0)


def make_neighbours_agree(faces: np.ndarray) -> tuple[np.ndarray, int]:
    """Turn as few faces of each sheet as make neighbours agree; on a sheet with one side only, most of them.

    Outputs
        faces; how many were turned
    """
    sides = _Sides.of(faces)
    one, other = sides.pairs()
    disagree = sides.sign[one] == sides.sign[other]
    if not disagree.any():
        return faces, 0
    # in the graph of faces as they are (f) and turned (m + f), what is connected agrees: along a tree, never both of f
    m = len(faces)
    tree = minimum_spanning_tree(csr_matrix((1.0 + disagree, (one // 3, other // 3)), shape=(m, m))).tocoo()
    shift = np.where(tree.data > 1, m, 0)
    begin = np.concatenate([tree.row, tree.row + m])
    end = np.concatenate([tree.col + shift, tree.col + m - shift])
    _, choice = connected_components(
        coo_matrix((np.ones(len(begin)), (begin, end)), shape=(2 * m,) * 2), directed=False
    )
    as_is, turned = choice[:m], choice[m:]
    n_kept = np.bincount(as_is, minlength=2 * m)
    turn = (n_kept[turned] > n_kept[as_is]) | ((n_kept[turned] == n_kept[as_is]) & (turned < as_is))
    return np.where(turn[:, None], faces[:, ::-1], faces), int(turn.sum())


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
    sides = _Sides.of(faces)
    surplus = sides.surplus
    loose = np.where((surplus > 0)[:, None], sides.ends, sides.ends[:, ::-1]).repeat(abs(surplus), axis=0)
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


def body_of_each(faces: np.ndarray) -> np.ndarray:
    """Which body each face of a closed mesh belongs to, (m,): sheets, joined where they are not closed without others.

    Bodies that touch along an edge or in a vertex stay apart.
    """
    sides = _Sides.of(faces)
    m, face = len(faces), np.arange(3 * len(faces)) // 3
    one, other = sides.pairs()
    _, sheet = connected_components(
        coo_matrix((np.ones(len(one)), (face[one], face[other])), shape=(m, m)), directed=False
    )
    several = np.bincount(sides.edge)[sides.edge] > 2
    edge, sheet_there = sides.edge[several], sheet[face[several]]
    codes, place = np.unique(edge * m + sheet_there, return_inverse=True)
    edge, sheet_there = np.divmod(codes[np.bincount(place, sides.sign[several], minlength=len(codes)) != 0], m)
    n_sheets = sheet.max(initial=-1) + 1
    shape = (n_sheets + len(sides.ends),) * 2
    links = coo_matrix((np.ones(len(edge)), (sheet_there, n_sheets + edge)), shape=shape)
    return np.unique(connected_components(links, directed=False)[1][sheet], return_inverse=True)[1]
