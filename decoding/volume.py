"""Volumes and meshes from their fits."""

from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datasets.formats.npy import open_array
from decoding.originals import original_rows
from models.miner import MINER
from utils.errors import InputError
from utils.files import check_replaceable, write_aside
from utils.metrics import iou
from utils.windows import Window, in_samples, size_of

if TYPE_CHECKING:
    import trimesh

_MESH_SUFFIXES = {".ply", ".obj", ".glb", ".stl"}
SURFACE_POINTS = 100_000
_FARTHEST = 1e6  # that a mesh to compare with reaches, where the fit reaches 1: voxels are counted in integers


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
        for window, decoded in model.decode_windows(
            level, crop, options.scale, options.b_chunks, between=options.between
        ):
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
            deque(slabs(write), maxlen=0)
    if original is not None:
        print(iou.line.format(iou.value(*overlap.tolist())))
    if mesh is not None:
        compare_surfaces(surface, mesh)
    if suffix in _MESH_SUFFIXES:
        data = surface.export(file_type=suffix[1:])
        write_aside(Path(options.out), data if isinstance(data, bytes) else data.encode())


def original_mesh(path: str, model: MINER) -> tuple["trimesh.Trimesh", Callable[[int, int], Tensor]]:
    """What was fitted: the mesh with its holes closed, and (start, stop) -> its occupancy (1, stop - start, h, w)."""
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

    return with_holes_closed(mesh), planes


def with_holes_closed(mesh: "trimesh.Trimesh") -> "trimesh.Trimesh":
    """A mesh and the caps that close its holes: the surface that is fitted."""
    import trimesh

    from datasets.repair import close_holes

    return trimesh.Trimesh(*close_holes(np.asarray(mesh.vertices), np.asarray(mesh.faces)), process=False)


def compare_surfaces(surface: "trimesh.Trimesh", mesh: "trimesh.Trimesh") -> None:
    """Print how near the surface of a fit is to the mesh that was fitted, and how near that mesh is to itself."""
    from utils.surface import surface_agreement

    found, floor = (surface_agreement(one, mesh, SURFACE_POINTS) for one in (surface, mesh))
    rows = [("Fit to mesh", found.forth, floor.forth), ("Mesh to fit", found.back, floor.back)]
    line = "{} : {} in the mesh's unit, {:.3e} of its box's diagonal, floor {:.3e}"
    print(line.format("Chamfer distance", f"{found.chamfer * floor.diagonal:.6g}", found.chamfer, floor.chamfer))
    for way, values, floors in rows:
        for part, value, lowest in zip(("mean", "95th percentile"), values, floors, strict=True):
            name, here = f"{way}, {part}", f"{value * floor.diagonal:.6g}"
            print(line.format(f"{name:28}", f"{here:11}", value, round(lowest, 12)))  # what is left is rounding
    print(
        f"Normal consistency : {found.consistency:.4f}, floor {floor.consistency:.4f} "
        f"({SURFACE_POINTS:,} points on each surface)"
    )
