"""Seconds and agreement of the voxeliser: python -m benchmarks.occupancy N MESH [MESH ...]

Agreement is with generalised winding numbers above 1/2 (libigl), at a million random voxels, those within one voxel of
the surface apart.
"""

import sys
import time
from pathlib import Path

import igl
import numpy as np

from datasets.voxelize import load_mesh, voxelize
from utils.frame import Frame

_SAMPLES = 1_000_000


def main() -> None:
    n = int(sys.argv[1])
    for path in sys.argv[2:]:
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
        print(
            f"{Path(path).name}: {len(faces)} faces, watertight {mesh.is_watertight}, {seconds:.2f} s, "
            f"{100 * (1 - wrong / far.sum()):.4f}% of {far.sum()} agree",
            flush=True,
        )


if __name__ == "__main__":
    main()
