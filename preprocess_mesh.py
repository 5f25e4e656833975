"""Mesh -> occupancy grid, for train.py --task mesh."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import sys
from pathlib import Path

import numpy as np
from jsonargparse import Namespace

from datasets.occupancy import write_occupancy
from datasets.voxelize import load_mesh, voxelize
from opt import OneLineParser, add_flag
from utils.errors import InputError, run_command
from utils.frame import Frame
from utils.memory import available_memory


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="preprocess_mesh.py",
        description="Write occupancy/NAME_N.npy, the N^3 voxels of the mesh's bounding box, widened by 1.02.",
    )
    add = parser.add_argument
    add("--path", type=str, help="the mesh: any file that trimesh reads")
    add("--N", type=int, default=512, help="voxels along each axis")
    add("--M", type=int, default=1, help="samples a voxel, an odd cube (1, 27, 125, ...); more give a smoother surface")
    add("--T", type=int, default=1, help="repeats, odd, each along another axis; the majority decides. For open meshes")
    add_flag(parser, "overwrite", "replace an earlier file of the same name")
    return parser


def check_options(options: Namespace) -> None:
    """InputError for values out of range."""
    if options.path is None:
        raise InputError("--path is missing; name a mesh")
    if options.N < 1:
        raise InputError(f"--N {options.N}: must be at least 1")
    if options.M < 1 or round(options.M ** (1 / 3)) ** 3 != options.M or options.M % 2 == 0:
        raise InputError(f"--M {options.M}: must be an odd cube; use 1, 27, 125 or 343")
    if not 1 <= options.T <= 255 or options.T % 2 == 0:
        raise InputError(f"--T {options.T}: must be an odd number up to 255; use 1 or 3")
    n_voxels = options.N**3
    n_bytes = n_voxels // 4 + (2 * n_voxels if options.T > 1 else 0)  # the bits twice; votes, and those of a repeat
    free = available_memory()
    if free is not None and n_bytes > free:
        raise InputError(
            f"--N {options.N}: its voxels take {n_bytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free; "
            "use a smaller one"
        )


def main() -> None:
    options = make_parser().parse_args(sys.argv[1:])
    check_options(options)
    out = Path("occupancy") / f"{Path(options.path).stem}_{options.N}.npy"
    if out.exists() and not options.overwrite:
        raise InputError(f"{out} already exists; use --overwrite to replace it")
    mesh = load_mesh(options.path)
    frame = Frame.around(mesh.vertices)
    packed = voxelize(mesh, frame, options.N, options.M, options.T, progress=True)
    out.parent.mkdir(exist_ok=True)
    write_occupancy(out, packed, options.N, frame)
    inside = np.bitwise_count(packed).sum(dtype=np.int64) / options.N**3
    print(f"{out}: {options.N}x{options.N}x{options.N} voxels, {inside:.2%} inside")


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
