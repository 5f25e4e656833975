"""Checkpoints -> picture: the whole, a level, a crop, between the pixels, or the block decomposition."""

import sys
from pathlib import Path

import torch

from datasets.signals import check_picture_path, read_picture, write_picture
from models.miner import MINER, Window
from opt import OneLineParser, device_of
from utils.errors import InputError, run_command
from utils.figures import draw_blocks
from utils.metrics import psnr, ssim
from utils.pyramid import pyramid


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="reconstruct.py", description="Decode a fitted picture from its checkpoints.")
    add = parser.add_argument
    add("ckpts", type=str, help="folder of the run, ckpts/EXP_NAME")
    add("--out", type=str, help="picture to write: .png, .jpg or .tif")
    add("--level", type=int, help="level of the pyramid, 0 the finest (default: the finest that is there)")
    add(
        "--crop",
        type=int,
        nargs=4,
        metavar=("X", "Y", "W", "H"),
        help="decode only this window, in pixels of the level",
    )
    add(
        "--scale", type=int, default=1, help="samples a pixel along each axis: the networks are read between the pixels"
    )
    add(
        "--blocks",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="outline the blocks that have a network, one colour a level",
    )
    add("--original", type=str, help="the picture that was fitted: prints PSNR and SSIM")
    add(
        "--bits",
        type=int,
        choices=[8, 16],
        help="bits a channel of --out (default: those of the picture that was fitted)",
    )
    add("--no_alpha", type=bool, nargs="?", const=True, default=False, help="leave the alpha channel out")
    add("--b_chunks", type=int, default=16384, help="blocks evaluated at once, at most; less saves memory")
    add("--accelerator", choices=["cpu", "gpu", "mps"], default="cpu", help="where to decode")
    return parser


def main() -> None:
    options = make_parser().parse_args(sys.argv[1:])
    if options.out is None and options.original is None:
        raise InputError("nothing to do: --out writes a picture, --original compares with one")
    if options.original is not None and options.scale != 1:
        raise InputError(f"--scale {options.scale} has no original to compare with: --original works with --scale 1")
    if options.b_chunks < 1:
        raise InputError(f"--b_chunks {options.b_chunks}: at least 1 works")
    model = MINER.load(options.ckpts, device_of(options.accelerator))
    level = model.finest if options.level is None else options.level
    bits = options.bits or model.source["bits"]
    n_channels = 3 if options.blocks else 3 if options.no_alpha and model.n_channels == 4 else model.n_channels
    if options.out is not None:
        check_picture_path(Path(options.out), n_channels, bits)
    crop = None
    if options.crop is not None:
        left, top, width, height = options.crop
        crop = ((top, top + height), (left, left + width))

    picture = model.decode(level, crop, options.scale, options.b_chunks).cpu()
    if options.original is not None:
        compare(picture, original_level(options.original, model, level), crop)
    if options.out is not None:
        drawn = outlined(picture, model, level, crop, options.scale) if options.blocks else picture
        write_picture(options.out, drawn[:n_channels], bits)


def original_level(path: str, model: MINER, level: int) -> torch.Tensor:
    """A level (c, h, w) of the picture that was fitted, at the size it was fitted at."""
    values = read_picture(path, model.size).values
    if len(values) != model.n_channels:
        raise InputError(
            f"{path} has {len(values)} channels, the fit {model.n_channels}: is it the picture that was fitted?"
        )
    return pyramid(values, level + 1)[level]


def compare(picture: torch.Tensor, original: torch.Tensor, crop: Window | None) -> None:
    """Print PSNR and SSIM of a decoded level, or of a crop of it."""
    if crop is not None:
        original = original[:, *(slice(*along) for along in crop)]
    print(f"PSNR : {psnr(picture, original):.4f} dB")
    similarity = ssim(picture, original)
    print("SSIM : none, the picture is smaller than its window" if similarity is None else f"SSIM : {similarity:.4f}")


def outlined(picture: torch.Tensor, model: MINER, level: int, crop: Window | None, scale: int) -> torch.Tensor:
    """A decoded window with the block decomposition drawn over it, (3, h, w)."""
    return draw_blocks(
        picture,
        {index: part.active_grid.cpu() for index, part in model.levels.items()},
        model.levels[level].patch_size,
        corner=tuple(start * 2**level for start, _ in crop) if crop else (0, 0),
        pixel_size=2**level / scale,
    )


def cli() -> None:
    torch.set_flush_denormal(True)
    run_command(main)


if __name__ == "__main__":
    cli()
