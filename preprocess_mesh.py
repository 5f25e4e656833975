"""Mesh -> occupancy grid, for train.py --task mesh."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from datasets.meshes import load_mesh
from datasets.occupancy import write_occupancy
from datasets.voxelize import voxelize
from utils.cli import MOST, OneLineParser, add_flag, option_type, text, whole_number
from utils.errors import InputError, run_command
from utils.frame import Frame
from utils.memory import available_memory


def _is_odd_cube(number: int) -> bool:
    return 1 <= number <= MOST and round(number ** (1 / 3)) ** 3 == number and number % 2 == 1


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="preprocess_mesh.py",
        description="Write occupancy/NAME_N.npy, the N^3 voxels of the mesh's bounding box, widened by 1.02.",
    )
    add = parser.add_argument
    add("--path", type=text, help="the mesh: any file that trimesh reads")
    add("--N", type=whole_number(1, 2**20), default=512, help="voxels along each axis")
    add(
        "--M",
        type=option_type(int, _is_odd_cube, "an odd cube, such as 1, 27, 125 or 343"),
        default=1,
        help="samples a voxel, an odd cube (1, 27, 125, ...); more give a smoother surface",
    )
    add(
        "--T",
        type=option_type(
            int, lambda number: 1 <= number <= 255 and number % 2, "an odd number up to 255, such as 1 or 3"
        ),
        default=1,
        help="repeats, odd, each along another axis; the majority decides. For open meshes",
    )
    add_flag(parser, "--overwrite", "replace an earlier file of the same name")
    return parser


def check_options(options: Namespace) -> None:
    """InputError for a mesh that is not named, or a grid that memory does not hold."""
    if options.path is None:
        raise InputError("--path is missing; name a mesh")
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
    inside = np.bitwise_count(packed).sum(dtype=np.int64) / options.N**3
    if inside == 0:
        remedy = "a larger --N, --T 3, or a mesh that encloses a volume"
        raise InputError(f"--N {options.N}: no voxel is inside {options.path}; use {remedy}")
    if inside == 1:
        raise InputError(f"--N {options.N}: every voxel is inside {options.path}; use a larger --N")
    out.parent.mkdir(exist_ok=True)
    write_occupancy(out, packed, options.N, frame)
    print(f"{out}: {options.N}x{options.N}x{options.N} voxels, {inside:.2%} inside")


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
