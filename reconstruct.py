"""Checkpoints -> picture, volume or mesh: any level or crop of it, between the pixels too, and its blocks."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datasets.tasks import task_of
from datasets.writers import check_picture_path, held_bytes, open_array, write_rows
from models.miner import MINER, WINDOW_VALUES
from opt import device_of
from utils.cli import OneLineParser, add_backend_option, add_choice, add_flag, text, whole_number
from utils.errors import InputError, run_command, size_text
from utils.figures import draw_blocks
from utils.files import check_replaceable, write_aside
from utils.memory import available_memory, used_memory
from utils.metrics import Similarity, iou, psnr
from utils.pyramid import pyramid
from utils.windows import Window, cut_rows, in_samples, is_inside, size_of, whole

if TYPE_CHECKING:
    import trimesh

_MESH_SUFFIXES = {".ply", ".obj", ".glb", ".stl"}
_SURFACE_POINTS = 100_000
_MOST_SCALE = 128
_FARTHEST = 1e6  # that a mesh to compare with reaches, where the fit reaches 1: voxels are counted in integers
_MARGIN = 2**27  # bytes that threads take, and libraries that are loaded later


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="reconstruct.py", description="Decode a fit from its checkpoints.")
    add = parser.add_argument
    add("ckpts", type=text, help="folder of the run, ckpts/EXP_NAME")
    add(
        "--out",
        type=text,
        help="a picture: .png, .jpg, .tif, .zarr; a volume: .npy, or its mesh: .ply, .obj, .glb, .stl",
    )
    add(
        "--level",
        type=whole_number(0, 63),
        help="level of the pyramid, 0 is the finest (default: the finest of the fit)",
    )
    add(
        "--crop",
        type=whole_number(0),
        nargs="+",
        help="decode only X Y W H (a volume: X Y Z W H D), in pixels of the level",
    )
    add(
        "--scale",
        type=whole_number(1, _MOST_SCALE),
        default=1,
        help="samples a pixel along each axis; above 1, also between the pixels",
    )
    add("--original", type=text, help="what was fitted, to compare with: the picture; the mesh, or its occupancy file")
    add("--b_chunks", type=whole_number(1), default=16384, help="blocks evaluated at once, at most; fewer save memory")
    add_flag(parser, "--dry_run", "only print how much memory decoding can take")
    add_backend_option(parser)
    add_choice(parser, "--accelerator", ["cpu", "gpu", "mps"], default="cpu", help="where to decode")

    # pictures
    add_flag(parser, "--blocks", "outline the blocks that have a network")
    add_choice(
        parser, "--bits", [8, 16], read=int, help="bits a channel of --out (default: those of the fitted picture)"
    )
    add_flag(parser, "--no_alpha", "leave the alpha channel out")

    # volumes
    add_flag(parser, "--field", "write the field itself to .npy, not field > 1/2")
    return parser


def main() -> None:
    options = make_parser().parse_args(sys.argv[1:])
    if options.out is None and options.original is None:
        raise InputError("nothing to do; use --out to write a file, --original to compare with one")
    if options.original is not None and options.scale != 1:
        raise InputError(f"--scale {options.scale}: has no original to compare with; use --scale 1")
    if None not in (options.original, options.out) and Path(options.out).resolve() == Path(options.original).resolve():
        raise InputError(f"--out {options.out}: is the original itself; choose another name")
    model = MINER.load(options.ckpts, device_of(options.accelerator), options.backend)
    level = model.finest if options.level is None else options.level
    if options.level is None and level > 0:
        print(f"note: the fit is not finished; level {level} is its finest so far", file=sys.stderr)
    if level not in model.levels:
        raise InputError(f"--level {level}: the fit has levels {model.finest} to {model.n_scales - 1}; use one of them")
    crop = parse_crop(options.crop, model.levels[level].size)
    if options.dry_run:
        sys.exit(0 if print_promise(model, level, crop, options) else 1)
    (reconstruct_picture if len(model.size) == 2 else reconstruct_volume)(model, level, crop, options)


def print_promise(model: MINER, level: int, crop: Window, options: Namespace) -> bool:
    """Print how much memory decoding takes at most, except for a surface that is extracted; return whether it fits."""
    size = size_of(in_samples(crop, options.scale))
    held = 0 if options.out is None else held_bytes(Path(options.out), model.n_channels, size)
    more = _MARGIN + held + model.decoding_bytes(level, crop, options.scale)
    free = available_memory()
    fits = free is None or more <= free
    total, verdict = (used_memory() + more) / 2**20, "fits" if fits else "may not fit"
    print(f"{size_text(size)} samples, at most {total:,.0f} MiB of memory: {verdict} this machine")
    return fits


def parse_crop(numbers: list[int] | None, size: tuple[int, ...]) -> Window:
    """X Y [Z] W H [D] as (start, stop) along the axes, the last of them x; the whole level for None."""
    if numbers is None:
        return whole(size)
    given, n_dims = " ".join(map(str, numbers)), len(size)
    order = f"{' '.join('XYZ'[:n_dims])} {task_of(n_dims).size_order}"
    if len(numbers) != 2 * n_dims:
        raise InputError(f"--crop {given}: must be {order}")
    starts, lengths = numbers[:n_dims][::-1], numbers[n_dims:][::-1]
    crop = tuple((start, start + length) for start, length in zip(starts, lengths, strict=True))
    if not is_inside(crop, size):
        raise InputError(f"--crop {given}: {order} must lie inside the level, which is {size_text(size)}")
    return crop


def reconstruct_picture(model: MINER, level: int, crop: Window, options: Namespace) -> None:
    bits = options.bits or model.source["bits"]
    n_channels = 3 if options.blocks or (options.no_alpha and model.n_channels == 4) else model.n_channels
    size = size_of(in_samples(crop, options.scale))
    if options.out is not None:
        check_picture_path(Path(options.out), n_channels, size, bits)
    original = None if options.original is None else original_rows(options.original, model)
    errors, similarity = torch.zeros(2, dtype=torch.float64), Similarity()

    def rows() -> Iterator[Tensor]:
        for window, decoded in model.decode_windows(level, crop, options.scale, options.b_chunks):
            values = decoded.cpu()
            if original is not None:
                truth = level_window(original, model.size, level, window)
                errors.add_(psnr.totals(values, truth))
                similarity.add(values, truth)
            if options.blocks:
                values = draw_blocks(
                    values,
                    model.active_grids,
                    model.patch_size,
                    corner=tuple(start * 2**level for start, _ in crop),
                    pixel_size=2**level / options.scale,
                    top=window[0][0] - crop[0][0] * options.scale,
                    size=size,
                )
            yield values[:n_channels]

    if options.out is None:
        exhaust(rows())
    else:
        write_rows(options.out, rows(), n_channels, size, bits)
    if original is not None:
        print(psnr.line.format(psnr.value(*errors.tolist())))
        none = "none, the picture is smaller than its window"
        print(f"SSIM : {none if similarity.value is None else f'{similarity.value:.4f}'}")


def exhaust(iterator: Iterator) -> None:
    deque(iterator, maxlen=0)


def original_rows(path: str, model: MINER) -> Callable[[int, int], Tensor]:
    """What was fitted, at the size of the fit: (start, stop) -> its rows (c, stop - start, *rest) in [0, 1]."""
    source = task_of(len(model.size)).open(path, model.size)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    if source.n_channels != model.n_channels:
        channels = f"{source.n_channels}-channel, and the fit {model.n_channels}-channel"
        raise InputError(f"--original {path}: is {channels}; use what was fitted")
    peak = 2**source.bits - 1
    return lambda start, stop: torch.from_numpy(source.read(start, stop).astype(np.float32)).div_(peak)


def level_window(rows: Callable[[int, int], Tensor], size: tuple[int, ...], level: int, window: Window) -> Tensor:
    """A window (c, n_rows, w) of a level of a picture, from the rows of level 0, which has size (h, w)."""
    (top, bottom), across = window
    parts = []
    for start, stop in cut_rows(top, bottom, 1, max(1, WINDOW_VALUES // (2**level * size[1]))):
        reach = rows(start * 2**level, min(stop * 2**level, size[0]))
        parts.append(pyramid(reach, level + 1)[level][:, :, slice(*across)])
    return torch.cat(parts, dim=1)


def reconstruct_volume(model: MINER, level: int, crop: Window, options: Namespace) -> None:
    from utils.surface import extract_surface  # pictures do without the libraries behind it

    suffix = Path(options.out).suffix.lower() if options.out is not None else None
    if suffix is not None and suffix not in _MESH_SUFFIXES | {".npy"}:
        raise InputError(f"--out {options.out}: {suffix!r} cannot hold a volume; use .npy, .ply, .obj, .glb or .stl")
    if suffix is not None:
        check_replaceable(Path(options.out))
    if options.blocks:
        raise InputError("--blocks: outlines blocks of pictures, and this is a volume; leave it out")
    if options.original is not None and (level != 0 or options.crop is not None):
        raise InputError("--original: compares the whole of a volume; leave --level and --crop out")
    mesh, original = None, None
    if options.original is not None and Path(options.original).suffix.lower() != ".npy":
        mesh, original = original_mesh(options.original, model)
    elif options.original is not None:
        original = original_rows(options.original, model)
    overlap = torch.zeros(2, dtype=torch.float64)

    def slabs(write: Callable[[np.ndarray], None] | None) -> Iterator[np.ndarray]:
        for window, decoded in model.decode_windows(level, crop, options.scale, options.b_chunks):
            field = decoded.cpu()
            if original is not None:
                overlap.add_(iou.totals(field, original(*window[0])))
            if write is not None:
                write((field if options.field else field > 0.5)[0].numpy())
            yield field[0].numpy()

    size = size_of(in_samples(crop, options.scale))
    dtype = np.dtype(np.float32 if options.field else np.bool_)
    with open_array(Path(options.out), size, dtype) if suffix == ".npy" else nullcontext() as write:
        if suffix in _MESH_SUFFIXES or mesh is not None:
            surface = extract_surface(slabs(write), model.frame, model.size, crop, level, options.scale)
        else:
            exhaust(slabs(write))
    if original is not None:
        print(iou.line.format(iou.value(*overlap.tolist())))
    if mesh is not None:
        compare_surfaces(surface, mesh)
    if suffix in _MESH_SUFFIXES:
        data = surface.export(file_type=suffix[1:])
        write_aside(Path(options.out), data if isinstance(data, bytes) else data.encode())


def original_mesh(path: str, model: MINER) -> tuple["trimesh.Trimesh", Callable[[int, int], Tensor]]:
    """The mesh that was fitted, and its occupancy: (start, stop) -> planes (1, stop - start, h, w), 0 or 1."""
    from datasets.meshes import load_mesh
    from datasets.voxelize import voxelize

    if model.frame is None or len(set(model.size)) != 1:
        raise InputError(f"--original {path}: the fit does not say where its voxels lie; use its grid, a .npy file")
    mesh = load_mesh(path)
    reach = abs((mesh.bounds - model.frame.centre) / model.frame.half_extents).max()
    if not reach < _FARTHEST:
        raise InputError(f"--original {path}: reaches {reach:.1e} times as far as the fit; use what was fitted")
    packed = voxelize(mesh, model.frame, model.size[0])

    def planes(start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.unpackbits(packed[start:stop], axis=2, count=model.size[2]))[None]

    return mesh, planes


def compare_surfaces(surface: "trimesh.Trimesh", mesh: "trimesh.Trimesh") -> None:
    """Print how near the surface of a fit is to the mesh that was fitted."""
    from utils.surface import sample_surface, surface_agreement

    samples = (sample_surface(body, _SURFACE_POINTS) for body in (surface, mesh))
    chamfer, consistency = surface_agreement(*next(samples), *next(samples))
    print(f"Chamfer distance : {chamfer:.6g} in the mesh's unit, {chamfer / mesh.scale:.3e} of its box's diagonal")
    print(f"Normal consistency : {consistency:.4f} ({_SURFACE_POINTS:,} points on each surface)")


def cli() -> None:
    torch.set_flush_denormal(True)
    run_command(main)


if __name__ == "__main__":
    cli()
