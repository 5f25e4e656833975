"""Checkpoints -> picture, volume or mesh: the whole, a level, a crop, between the pixels, or the blocks."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from datasets.signals import check_picture_path, read_occupancy, read_picture, write_picture
from models.miner import MINER, Window, is_inside, whole
from opt import OneLineParser, add_backend_option, device_of
from utils.checkpoint import write_aside
from utils.errors import InputError, run_command, size_text
from utils.figures import draw_blocks
from utils.frame import Frame
from utils.metrics import iou, psnr, ssim
from utils.pyramid import pyramid

if TYPE_CHECKING:
    import trimesh

_MESH_SUFFIXES = {".ply", ".obj", ".glb", ".stl"}
_SURFACE_POINTS = 100_000
_MOST_SCALE = 128


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="reconstruct.py", description="Decode a fit from its checkpoints.")
    add = parser.add_argument
    add("ckpts", type=str, help="folder of the run, ckpts/EXP_NAME")
    add("--out", type=str, help="a picture: .png, .jpg or .tif; a volume: .npy, or its mesh: .ply, .obj, .glb or .stl")
    add("--level", type=int, help="level of the pyramid, 0 the finest (default: the finest that is there)")
    add("--crop", type=int, nargs="+", help="decode only X Y W H (a volume: X Y Z W H D), in pixels of the level")
    add(
        "--scale", type=int, default=1, help="samples a pixel along each axis: the networks are read between the pixels"
    )
    add("--original", type=str, help="what was fitted, to compare with: the picture; the mesh, or its occupancy file")
    add("--b_chunks", type=int, default=16384, help="blocks evaluated at once, at most; less saves memory")
    add_backend_option(parser)
    add("--accelerator", choices=["cpu", "gpu", "mps"], default="cpu", help="where to decode")

    # pictures
    add("--blocks", type=bool, nargs="?", const=True, default=False, help="outline the blocks that have a network")
    add("--bits", type=int, choices=[8, 16], help="bits a channel of --out (default: those of the picture fitted)")
    add("--no_alpha", type=bool, nargs="?", const=True, default=False, help="leave the alpha channel out")

    # volumes
    add(
        "--field",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="write the field itself to .npy, not field > 1/2",
    )
    return parser


def main() -> None:
    options = make_parser().parse_args(sys.argv[1:])
    if options.out is None and options.original is None:
        raise InputError("nothing to do: --out writes a file, --original compares with one")
    if options.original is not None and options.scale != 1:
        raise InputError(f"--scale {options.scale} has no original to compare with: --original works with --scale 1")
    if None not in (options.original, options.out) and Path(options.out).resolve() == Path(options.original).resolve():
        raise InputError(f"--out {options.out} is the original itself: another name works")
    if options.b_chunks < 1:
        raise InputError(f"--b_chunks {options.b_chunks}: at least 1 works")
    if not 1 <= options.scale <= _MOST_SCALE:
        raise InputError(f"--scale {options.scale}: 1 to {_MOST_SCALE} works")
    model = MINER.load(options.ckpts, device_of(options.accelerator), options.backend)
    level = model.finest if options.level is None else options.level
    if options.level is None and level > 0:
        print(f"note: the fit is not finished, level {level} is the finest that is there", file=sys.stderr)
    if level not in model.levels:
        raise InputError(f"--level {level}: levels {model.finest} to {model.n_scales - 1} are there")
    crop = parse_crop(options.crop, model.levels[level].size)
    (reconstruct_picture if len(model.size) == 2 else reconstruct_volume)(model, level, crop, options)


def parse_crop(numbers: list[int] | None, size: tuple[int, ...]) -> Window:
    """X Y [Z] W H [D] as (start, stop) along the axes, the last of them x; the whole level for None."""
    if numbers is None:
        return whole(size)
    given, n_dims = " ".join(map(str, numbers)), len(size)
    order = "X Y W H" if n_dims == 2 else "X Y Z W H D"
    if len(numbers) != 2 * n_dims:
        raise InputError(f"--crop {given}: it takes {order}")
    starts, lengths = numbers[:n_dims][::-1], numbers[n_dims:][::-1]
    crop = tuple((start, start + length) for start, length in zip(starts, lengths, strict=True))
    if not is_inside(crop, size):
        raise InputError(f"--crop {given}: {order} is not inside the level, which is {size_text(size)}")
    return crop


def reconstruct_picture(model: MINER, level: int, crop: Window, options: Namespace) -> None:
    bits = options.bits or model.source["bits"]
    n_channels = 3 if options.blocks or (options.no_alpha and model.n_channels == 4) else model.n_channels
    if options.out is not None:
        check_picture_path(Path(options.out), n_channels, bits)
    original = None if options.original is None else original_level(options.original, model, level)
    picture = model.decode(level, crop, options.scale, options.b_chunks).cpu()
    if original is not None:
        original = original[:, *(slice(*along) for along in crop)]
        similarity = ssim(picture, original)
        print(psnr.line.format(psnr(picture, original)))
        print(
            "SSIM : none, the picture is smaller than its window" if similarity is None else f"SSIM : {similarity:.4f}"
        )
    if options.out is not None:
        if options.blocks:
            picture = draw_blocks(
                picture,
                model.active_grids,
                model.patch_size,
                corner=tuple(start * 2**level for start, _ in crop),
                pixel_size=2**level / options.scale,
            )
        write_picture(options.out, picture[:n_channels], bits)


def original_level(path: str, model: MINER, level: int) -> Tensor:
    """A level (c, h, w) of the picture that was fitted, at the size it was fitted at."""
    values = read_picture(path, model.size).values
    if len(values) != model.n_channels:
        raise InputError(f"{path} has {len(values)} channels, the fit {model.n_channels}: is it what was fitted?")
    return pyramid(values, level + 1)[level]


def reconstruct_volume(model: MINER, level: int, crop: Window, options: Namespace) -> None:
    from utils.surface import extract_surface  # pictures do without the libraries behind it

    suffix = Path(options.out).suffix.lower() if options.out is not None else None
    if suffix is not None and suffix not in _MESH_SUFFIXES | {".npy"}:
        raise InputError(
            f"{options.out}: suffix {suffix!r} is none of .npy, .ply, .obj, .glb, .stl, which hold a volume"
        )
    if options.blocks:
        raise InputError("--blocks draws on pictures, and this is a volume")
    if options.original is not None and (level != 0 or options.crop is not None):
        raise InputError("--original of a volume works without --level and --crop")
    field = model.decode(level, crop, options.scale, options.b_chunks)[0].cpu()
    with_mesh = options.original is not None and Path(options.original).suffix.lower() != ".npy"
    if suffix in _MESH_SUFFIXES or with_mesh:
        surface = extract_surface(field.numpy(), model.frame, model.size, crop, level, options.scale)
    if with_mesh:
        compare_with_mesh(options.original, field, surface, model.frame)
    elif options.original is not None:
        print(iou.line.format(iou(field[None], read_occupancy(options.original, model.size).values)))
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, (field if options.field else field > 0.5).numpy())
        write_aside(Path(options.out), buffer.getvalue())
    elif suffix is not None:
        data = surface.export(file_type=suffix[1:])
        write_aside(Path(options.out), data if isinstance(data, bytes) else data.encode())


def compare_with_mesh(path: str, field: Tensor, surface: "trimesh.Trimesh", frame: Frame | None) -> None:
    """Print the IoU with a mesh, and how near the surfaces are."""
    from datasets.voxelize import load_mesh, voxelize
    from utils.surface import sample_surface, surface_agreement

    size = tuple(field.shape)
    if frame is None or len(set(size)) != 1:
        raise InputError(f"{path}: the fit does not tell where its voxels lie, so it compares with a .npy file only")
    mesh = load_mesh(path)
    occupancy = np.unpackbits(voxelize(mesh, frame, size[0]), axis=2, count=size[0])
    print(iou.line.format(iou(field[None], torch.from_numpy(occupancy)[None])))
    samples = (sample_surface(body, _SURFACE_POINTS) for body in (surface, mesh))
    chamfer, consistency = surface_agreement(*next(samples), *next(samples))
    print(f"Chamfer distance : {chamfer:.6g} in the mesh's unit, {chamfer / mesh.scale:.3e} of its box's diagonal")
    print(f"Normal consistency : {consistency:.4f} ({_SURFACE_POINTS:,} points on each surface)")


def cli() -> None:
    torch.set_flush_denormal(True)
    run_command(main)


if __name__ == "__main__":
    cli()
