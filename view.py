"""Look at a fit in a browser."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import sys

from utils.cli import OneLineParser, Options, add_flag, not_negative, text, whole_number
from utils.errors import run_command
from utils.imports import importing


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="view.py",
        usage="ckpts/NAME",
        description="Look at a fit in a browser: zoom from the whole to the pixel, decoded as you go. Ctrl-C ends it.",
    )
    _add_what(parser.add_argument_group("what to look at"))
    _add_how(parser.add_argument_group("how"))
    parser.add_help_options()
    return parser


def _add_what(add_to: Options) -> None:
    add = add_to.add_argument
    add("ckpts", type=text, metavar="ckpts/NAME", help="folder of the run, or a file of pack.py")
    add(
        "--original",
        type=text,
        metavar="FILE",
        help="what was fitted, to compare with: a picture (default: the one that the run names, if it is there)",
    )
    add(
        "--loss_db",
        type=not_negative(),
        metavar="DB",
        help="of PSNR that packing a folder may cost (default: 0, which keeps every bit; to export 0.1)",
    )


def _add_how(add_to: Options) -> None:
    add = add_to.add_argument
    add("--port", type=whole_number(0, 65535), default=8000, metavar="N", help="of this machine; 0 is any that is free")
    add_flag(add_to, "--no_browser", "only print the address")
    add(
        "--export",
        type=text,
        metavar="FOLDER",
        help="write a site for any web host instead; or one page, x.html, that opens from a disk",
    )


def main() -> None:
    options = make_parser().parse_args(sys.argv[1:])
    with importing():  # torch and others load slowly: errors and the help do without
        from viewing.session import run
    run(options)


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
