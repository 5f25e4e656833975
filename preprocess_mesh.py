"""Mesh -> grid of occupancy or distances, for train.py --task mesh."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import sys
from pathlib import Path

from datasets.tasks import VALUES
from utils.cli import MOST, OneLineParser, add_choice, add_flag, option_type, text, whole_number
from utils.errors import InputError, run_command
from utils.files import check_exists
from utils.imports import importing

_FOLDER = Path("occupancy")


def _is_odd_cube(number: int) -> bool:
    return 1 <= number <= MOST and round(number ** (1 / 3)) ** 3 == number and number % 2 == 1


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="preprocess_mesh.py",
        usage="--path FILE",
        description="Sample a mesh on a grid: occupancy/NAME_N.npy, or NAME_N_distance.npy, N^3 voxels of the mesh's "
        "bounding box, widened by 1.02. train.py does so by itself for a mesh that is given to it.",
    )
    group = parser.add_argument_group("options")
    add = group.add_argument
    add("--path", type=text, metavar="FILE", help="the mesh: any file that trimesh reads")
    add("--N", type=whole_number(1, 2**20), default=512, metavar="N", help="voxels along each axis")
    add_choice(
        group,
        "--values",
        VALUES,
        default=VALUES[0],
        help="occupancy, a bit a voxel; distance, a byte: how far the surface is, up to a voxel, for smooth surfaces",
    )
    add(
        "--M",
        type=option_type(int, _is_odd_cube, "an odd cube, such as 1, 27, 125 or 343"),
        default=1,
        metavar="M",
        help="samples a voxel, an odd cube (1, 27, 125, ...); more give a smoother surface",
    )
    add(
        "--T",
        type=option_type(
            int, lambda number: 1 <= number <= 255 and number % 2, "an odd number up to 255, such as 1 or 3"
        ),
        default=1,
        metavar="T",
        help="repeats, odd, each along another axis; the majority decides. For open meshes",
    )
    add_flag(group, "--overwrite", "replace an earlier file of the same name")
    parser.add_help_options()
    return parser


def main() -> None:
    options = make_parser().parse_args(sys.argv[1:])
    if options.path is None:
        raise InputError("--path is missing; name a mesh")
    if options.values == "distance" and options.M > 1:
        raise InputError(f"--M {options.M}: --values distance takes one sample a voxel; leave one of them out")
    check_exists(Path(options.path))
    with importing():  # trimesh and others load slowly: errors and the help do without
        from datasets.grids import grid_path, make_grid
    out = grid_path(_FOLDER, options.path, options.N, options.values)
    if out.exists() and not options.overwrite:
        raise InputError(f"{out} already exists; use --overwrite to replace it")
    print(make_grid(_FOLDER, options.path, options.N, options.values, options.M, options.T))


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
