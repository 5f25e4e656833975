"""Decode a fit from its checkpoints, or from the file that pack.py makes of them."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import sys
from argparse import Namespace
from fractions import Fraction
from pathlib import Path

from utils.cli import OneLineParser, Options, add_backend_option, add_choice, add_flag, option_type, text, whole_number
from utils.errors import InputError, run_command
from utils.imports import importing

_MOST_SCALE = 128


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="reconstruct.py",
        usage="ckpts/NAME --out FILE",
        description="Read a fit back from its checkpoints or its file: any level or crop, between the pixels too.",
        rare=("b_chunks", "backend", "accelerator", "no_alpha", "channels", "field"),
    )
    _add_what(parser.add_argument_group("what to read"))
    _add_out(parser.add_argument_group("what to write"))
    _add_how(parser.add_argument_group("how"))
    parser.add_help_options()
    return parser


def _add_what(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "ckpts",
        type=text,
        metavar="ckpts/NAME",
        help="folder of the run; or a file of pack.py, or its address, https://...",
    )
    add(
        "--level",
        type=whole_number(0, 63),
        metavar="N",
        help="level of the pyramid, 0 is the finest (default: the finest of the fit)",
    )
    add(
        "--crop",
        type=whole_number(0),
        nargs="+",
        metavar="X Y W H",
        help="only this window, in pixels of the level (a volume: X Y Z W H D)",
    )
    add(
        "--scale",
        type=option_type(
            lambda word: Fraction(str(float(word))),
            lambda scale: 0 < scale <= _MOST_SCALE,
            f"a number above 0, at most {_MOST_SCALE}",
        ),
        default=Fraction(1),
        metavar="S",
        help="samples a pixel along each axis, such as 4 or 1.5: between the pixels or, below 1, means over areas",
    )
    add_choice(
        add_to,
        "--between",
        ["lanczos", "sharp", "networks"],
        default="lanczos",
        help="how to read between the pixels: interpolate smoothly, or sharper, or evaluate the networks there",
    )


def _add_out(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "--out",
        type=text,
        metavar="FILE",
        help="a picture: .png, .jpg, .tif, .zarr, .npy, .exr, .hdr; a volume: .npy, .nii, .nii.gz, .tif; a mesh: .ply, "
        ".obj, .glb, .stl, or its grid: .npy",
    )
    add(
        "--original",
        type=text,
        metavar="FILE",
        help="what was fitted, to compare with: the picture; the volume; the mesh, or its grid",
    )
    add_flag(add_to, "--blocks", "outline the blocks that have a network")
    add_choice(
        add_to,
        "--bits",
        [8, 16],
        read=int,
        help="write a channel, or a voxel, as an integer of so many bits (default: as in the file)",
    )
    add_flag(add_to, "--no_alpha", "leave a picture's alpha channel out")
    add(
        "--channels",
        type=whole_number(1),
        nargs="+",
        metavar="N",
        help="write these channels, from 1 on; of a picture one is grey, three are RGB, such as 4 3 2 of a satellite's",
    )
    add_flag(
        add_to,
        "--field",
        "of a volume, write what was fitted, in [0, 1]: in place of the values, or of a mesh's field > 1/2",
    )


def _add_how(add_to: Options) -> None:
    add_flag(add_to, "--dry_run", "only print how much memory decoding can take")
    add_to.add_argument(
        "--b_chunks",
        type=whole_number(1),
        default=16384,
        metavar="N",
        help="blocks evaluated at once, at most; fewer save memory",
    )
    add_backend_option(add_to)
    add_choice(add_to, "--accelerator", ["cpu", "gpu", "mps"], default="cpu", help="where to decode")


def parse_options(argv: list[str]) -> Namespace:
    """InputError for options that cannot be, or that do not go together."""
    options = make_parser().parse_args(argv)
    if options.out is None and options.original is None:
        raise InputError("nothing to do; use --out to write a file, --original to compare with one")
    if options.original is not None and options.scale != 1:
        raise InputError(f"--scale {float(options.scale):g}: has no original to compare with; use --scale 1")
    if options.between == "networks" and options.scale > 1 and options.scale.denominator > 1:
        raise InputError(
            f"--scale {float(options.scale):g}: --between networks takes whole ones; use --between lanczos"
        )
    if None not in (options.original, options.out) and Path(options.out).resolve() == Path(options.original).resolve():
        raise InputError(f"--out {options.out}: is the original itself; choose another name")
    return options


def main() -> None:
    options = parse_options(sys.argv[1:])
    with importing():  # torch and others load slowly: errors and the help do without
        from decoding.session import run
    run(options)


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
