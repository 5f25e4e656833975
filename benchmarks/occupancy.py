"""Seconds and agreement of the voxeliser.

    python -m benchmarks.occupancy N MESH [MESH ...] [--out FILE]

Agreement is with generalised winding numbers above 1/2 (libigl) at a million random voxels, leaving out those within
one voxel of the surface.
"""

import time
from pathlib import Path

import igl
import numpy as np

from benchmarks.records import Printer, make_parser
from datasets.meshes import load_mesh
from datasets.voxelize import voxelize
from utils.frame import Frame

_SAMPLES = 1_000_000


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("n", type=int)
    parser.add_argument("meshes", type=Path, nargs="+", metavar="MESH")
    options = parser.parse_args()
    n = options.n
    columns = ["mesh", "faces", "watertight", "seconds", "agreement", "of voxels"]
    table = Printer(f"Occupancy of {n}^3 voxels against generalised winding numbers", columns, options.out)
    for path in options.meshes:
        mesh = load_mesh(path)
        frame = Frame.around(mesh.vertices)
        start = time.perf_counter()
        inside = np.unpackbits(voxelize(mesh, frame, n), axis=2, count=n)
        seconds = time.perf_counter() - start
        index = np.random.default_rng(0).integers(0, n, (_SAMPLES, 3))  # x, y, z
        points = frame.to_mesh(index, (n, n, n))
        vertices, faces = np.array(mesh.vertices), np.array(mesh.faces, dtype=np.int64)
        winding = igl.fast_winding_number(vertices, faces, points)
        distance = np.sqrt(igl.point_mesh_squared_distance(points, vertices, faces)[0])
        far = distance > frame.spacing((n, n, n)).max()
        wrong = int((inside[tuple(index[:, ::-1].T)] != (winding > 0.5))[far].sum())
        agreement = f"{100 * (1 - wrong / far.sum()):.4f}%"
        closed = "yes" if mesh.is_watertight else "no"
        table.add(path.name, f"{len(faces):,}", closed, f"{seconds:.2f}", agreement, f"{far.sum():,}")


if __name__ == "__main__":
    main()
