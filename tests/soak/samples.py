"""Small valid files of every kind that the programs read, from which hostile ones are made."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import tifffile
import trimesh
import zarr

import train
from datasets.occupancy import write_distances, write_occupancy
from utils import checkpoint
from utils.frame import Frame

_SIZE = (18, 24)
FIT = [
    *("--input_size", "24", "18", "--patch_size", "8", "8", "--batch_size", "16", "--n_scales", "2", "--n_hidden", "6"),
    *("--num_epochs", "4", "--val_freq", "2", "--accelerator", "cpu", "--backend", "reference", "--save_every", "0"),
    *("--max_blocks", "2", "--path", "picture.png"),
]
"""Options of the pictures' fits, in a folder of samples."""

STOPPED_FIT = [*FIT, "--num_epochs", "4", "12"]

VOLUME_FIT = [
    *("--task", "mesh", "--patch_size", "4", "--batch_size", "16", "--n_hidden", "6", "--num_epochs", "2"),
    *("--path", "packed.npy", "--accelerator", "cpu", "--backend", "reference"),
]


def make(folder: Path) -> None:
    """Write all of them into an empty folder."""
    os.chdir(folder)
    y, x = np.mgrid[: _SIZE[0], : _SIZE[1]]
    rgb = np.stack([10 * x, 14 * y, (x + y) * 6], axis=2).astype(np.uint8)
    rgb[4:9, 5:12] ^= 255
    _make_pictures(rgb)
    _make_volumes()
    for name, options in {"fit": FIT, "volume": VOLUME_FIT}.items():
        _train([*options, "--exp_name", name])
    _interrupt([*STOPPED_FIT, "--exp_name", "stopped"])


def _make_pictures(rgb: np.ndarray) -> None:
    picture, exif = PIL.Image.fromarray(rgb), PIL.Image.Exif()
    exif[0x0112] = 6
    picture.save("picture.png")
    picture.save("turned.png", exif=exif)
    picture.convert("P").save("palette.png", transparency=3)
    picture.convert("L").save("grey.png", transparency=0)
    cv2.imwrite("deep.png", rgb.astype(np.uint16) * 257)
    picture.save("plain.jpg", exif=exif)
    picture.save("progressive.jpg", progressive=True, subsampling=0)
    picture.convert("L").save("grey.jpg")
    picture.convert("CMYK").save("print.jpg")
    tifffile.imwrite("tiles.tif", rgb, tile=(16, 16), compression="zlib", photometric="rgb")
    tifffile.imwrite("strips.tif", rgb, rowsperstrip=5, compression="lzw", predictor=True, photometric="rgb")
    tifffile.imwrite("jpeg.tif", rgb, tile=(16, 16), compression="jpeg", photometric="rgb")
    tifffile.imwrite("pages.tif", np.stack([rgb] * 3), photometric="rgb")
    tifffile.imwrite("deep.tif", rgb.astype(np.uint16), photometric="rgb", byteorder=">")
    for suffix in ("bmp", "ppm", "jp2", "avif"):
        picture.save(f"other.{suffix}")
    for suffix in ("webp", "gif"):
        picture.save(f"still.{suffix}")
        picture.save(f"moving.{suffix}", save_all=True, append_images=[picture.rotate(180)])
    for zarr_format in (2, 3):
        zarr.create_array(f"v{zarr_format}.zarr", data=rgb, chunks=(16, 16, 3), zarr_format=zarr_format)
        with zarr.storage.ZipStore(f"v{zarr_format}.zip", mode="w") as store:
            zarr.create_array(store, data=rgb, chunks=(16, 16, 3), zarr_format=zarr_format)
    group = zarr.create_group("group.zarr", attributes={"ome": {"multiscales": [{"datasets": [{"path": "s0"}]}]}})
    group.create_array("s0", data=rgb.transpose(2, 0, 1)[None], chunks=(1, 1, 16, 16))


def _make_volumes() -> None:
    z, y, x = np.mgrid[:12, :12, :12]
    ball = (z - 5.5) ** 2 + (y - 5.5) ** 2 + (x - 5.5) ** 2 < 20
    np.save("bools.npy", ball)
    np.save("flat.npy", np.packbits(ball.transpose(1, 2, 0)))
    frame = Frame((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    write_occupancy(Path("packed.npy"), np.packbits(ball, axis=2), 12, frame)
    write_distances(Path("distances.npy"), [np.where(ball, 200, 50).astype(np.uint8)], ball.shape, frame)
    sphere = trimesh.creation.icosphere(subdivisions=1)
    for suffix in ("obj", "ply", "stl", "glb"):
        sphere.export(f"sphere.{suffix}")
    sphere.export("text.ply", encoding="ascii")


def _train(arguments: list[str]) -> None:
    sys.argv = ["train.py", *arguments]
    train.cli()


def _interrupt(arguments: list[str]) -> None:
    """A run that was stopped within its last level, after a part of it was finished."""
    save, kinds = checkpoint._save, []

    def saved(kind: str, path: Path, *others: Any) -> None:
        save(kind, path, *others)
        kinds.append(kind)
        if "l1.ckpt" in os.listdir(path.parent) and kinds[-2:] == [checkpoint._PART, checkpoint._STATE]:
            os.kill(os.getpid(), signal.SIGTERM)

    checkpoint._save = saved
    try:
        _train(arguments)
    except SystemExit:
        pass
    finally:
        checkpoint._save = save
