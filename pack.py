"""Checkpoints of a fit -> one file."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import sys

from utils.cli import OneLineParser, not_negative, text
from utils.errors import run_command
from utils.imports import importing


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="pack.py",
        usage="ckpts/NAME --out NAME.miner",
        description="Make one small file of a finished fit. Any part of it can be read on its own, over a network too.",
    )
    add = parser.add_argument_group("options").add_argument
    add("ckpts", type=text, metavar="ckpts/NAME", help="folder of the run")
    add("--out", type=text, metavar="FILE", help="the file to write (default: NAME.miner)")
    add(
        "--loss_db",
        type=not_negative(),
        default=0.1,
        metavar="DB",
        help="of PSNR that it may cost, of a volume's field; 0 keeps every bit of the networks",
    )
    parser.add_help_options()
    return parser


def main() -> None:
    options = make_parser().parse_args(sys.argv[1:])
    with importing():  # torch and others load slowly: errors and the help do without
        from packing.session import run
    run(options)


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
