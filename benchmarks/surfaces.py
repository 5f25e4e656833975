"""Surfaces of grids and of their fits, beside the mesh that was fitted.

    python -m benchmarks.surfaces N MESH [MESH ...] [--values occupancy distance] [--out FILE] [-- OPTIONS]

Each mesh is sampled on a grid of N^3 voxels, of occupancy and of distances, and each grid is fitted by train.py with
OPTIONS. The surface where the grid itself is 1/2 is what a perfect fit would have. *Normals* are normal consistency,
*p2s* the mean distance from points of one surface to the other, averaged both ways, in thousandths of the diagonal of
the mesh's box (docs/usage.md tells more). IoU is that of the voxels inside. Seconds are those of the fit alone.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import trimesh

from benchmarks.records import Printer, make_parser, parse_with_rest
from datasets.grids import grid_path
from datasets.meshes import load_mesh
from datasets.occupancy import open_occupancy
from datasets.tasks import VALUES
from decoding.volume import SURFACE_POINTS, with_holes_closed
from models.miner import MINER
from utils.surface import extract_surface, surface_agreement
from utils.windows import row_ranges

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("n", type=int)
    parser.add_argument("meshes", type=Path, nargs="+", metavar="MESH")
    parser.add_argument("--values", nargs="+", choices=VALUES, default=list(VALUES))
    options, rest = parse_with_rest(parser)
    columns = ["mesh", "values", "grid: normals", "p2s", "fit: normals", "p2s", "IoU", "parameters", "seconds"]
    title = "Surfaces of grids and of their fits, p2s in thousandths of the diagonal"
    table = Printer(title, columns, options.out)
    for path in options.meshes:
        mesh = with_holes_closed(load_mesh(str(path)))
        for values in options.values:
            with tempfile.TemporaryDirectory() as folder:
                cells = measure(mesh, path.resolve(), options.n, values, rest, Path(folder))
            table.add(f"{path.stem}, {options.n}^3", values, *cells)


def measure(
    mesh: trimesh.Trimesh, path: Path, n: int, values: str, options: list[str], folder: Path
) -> tuple[str, ...]:
    """The cells of a grid of some values and of its fit, which are left in a folder."""
    sampling = [] if values == "occupancy" else ["--values", values]
    run("preprocess_mesh.py", ["--path", str(path), "--N", str(n), *sampling], folder)
    grid = grid_path(Path("occupancy"), str(path), n, values)
    run("train.py", ["--path", str(grid), "--exp_name", "fit", *options], folder)
    report = json.loads((folder / "ckpts/fit/metrics.json").read_text())
    surfaces = surface_of_grid(folder / grid), MINER.load(folder / "ckpts/fit").surface()
    found = [cell for surface in surfaces for cell in agreement(surface, mesh)]
    return *found, f"{report['iou']:.5f}", f"{report['parameters']:,}", f"{report['seconds']['fit']:.1f}"


def run(program: str, arguments: list[str], folder: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / program, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)}: {done.stderr[-500:]}")


def surface_of_grid(path: Path) -> trimesh.Trimesh:
    source = open_occupancy(path)
    parts = row_ranges(1, source.size, source.rows_at_once)
    slabs = (source.read(start, stop)[0].astype("float32") / (2**source.bits - 1) for start, stop in parts)
    return extract_surface(slabs, source.frame, source.size)


def agreement(surface: trimesh.Trimesh, mesh: trimesh.Trimesh) -> tuple[str, str]:
    """Normal consistency; distance to the surface."""
    found = surface_agreement(surface, mesh, SURFACE_POINTS)
    return f"{found.consistency:.4f}", f"{500 * (found.forth[0] + found.back[0]):.3f}"


if __name__ == "__main__":
    main()
