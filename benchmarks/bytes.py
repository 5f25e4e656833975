"""Bytes that fits take on disk, beside picture codecs at as many dB, and beside the bits of grids.

    python -m benchmarks.bytes PICTURE ... [--losses 0.1 0.5] [--only_folder] [--out FILE] [-- OPTIONS of train.py]
    python -m benchmarks.bytes --meshes MESH ... [--N 128] [--losses 0.1 0.5] [--only_folder] [--out FILE] [-- OPTIONS]

Each picture is fitted by train.py, and its checkpoints are packed by pack.py, once for each loss in dB; it is fitted
again with --pack, which is the closed loop. Pictures of `ablation.PICTURES` have their sizes there. PSNR is that of
what is decoded, before it is rounded, against the picture as the fit read it. Codecs stand at the PSNR of the fit
packed with the first loss, or of its checkpoints with --only_folder; `-` is out of reach of a codec that loses.

Meshes are sampled on a grid of N^3 voxels of occupancy, one bit each, and fitted and packed likewise.

Seconds are in a second table, which goes beside FILE: pack.py is timed from the start of the interpreter on, decoding
with the reading of the file, median of three for which the folder and the packed file take turns.
"""

import lzma
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks import ablation
from benchmarks.codecs import CODECS, as_pixels, bytes_at, png_bytes, versions
from benchmarks.records import Printer, make_parser, parse_with_rest
from datasets.grids import grid_path
from datasets.occupancy import read_occupancy
from datasets.sources import read_picture
from models.miner import MINER
from utils.checkpoint import find_levels, level_path
from utils.metrics import Metric, iou, psnr

ROOT = Path(__file__).resolve().parent.parent
SIZES = {Path(name).name: size for name, size in ablation.PICTURES.items()}
REPEATS = 3
RATIOS = ("folder / packed", "folder / closed")

Row = list[float | None]


@dataclass(frozen=True)
class Kept:
    """What a fit is kept in: the quality that it decodes to (dB, or IoU), and bytes on disk."""

    quality: float
    n_bytes: int


@dataclass(frozen=True)
class Measured:
    """A fit in its checkpoints (`folder`), packed with each loss, and packed by train.py itself (`closed`).

    pack: seconds of the command pack.py, for each loss
    folder_decode, packed_decode: seconds until all is decoded, with the reading; of the first loss
    """

    folder: Kept
    packed: list[Kept]
    closed: list[Kept]
    pack: list[float]
    folder_decode: float
    packed_decode: float | None

    @property
    def ways(self) -> list[Kept]:
        return [self.folder, *self.packed, *self.closed]

    @property
    def compared(self) -> Kept:
        """At whose quality codecs stand."""
        return self.packed[0] if self.packed else self.folder

    @property
    def ratios(self) -> Row:
        """Of the bytes of the checkpoints to those of the first loss and of the closed loop, where it was packed."""
        return [self.folder.n_bytes / way.n_bytes for way in (*self.packed[:1], *self.closed)]


def measure(metric: Metric, signal: Tensor, arguments: list[str], losses: list[float], place: Path) -> Measured:
    """A fit to a signal, whose files are left in a place.

    Inputs
        signal: (c, *size) in [0, 1], as train.py reads it
        arguments: of train.py
        losses: in dB, one packed file each; if there are none, nothing is packed
    """

    def kept(path: Path, files: list[Path]) -> Kept:
        return Kept(metric(MINER.load(path).decode(), signal), sum(file.stat().st_size for file in files))

    run("train.py", [*arguments, "--exp_name", "fit"], place)
    folder = place / "ckpts" / "fit"
    files = [place / f"{loss:g}.miner" for loss in losses]
    seconds = [
        run("pack.py", ["ckpts/fit", "--out", file.name, "--loss_db", f"{loss:g}"], place)
        for file, loss in zip(files, losses, strict=True)
    ]
    own = []
    if losses:
        run("train.py", [*arguments, "--exp_name", "closed", "--pack"], place)
        own = [place / "ckpts" / "closed" / "closed.miner"]
    decoding = decode_seconds([folder, *files[:1]])
    return Measured(
        kept(folder, [level_path(folder, level) for level in find_levels(folder)]),
        [kept(file, [file]) for file in files],
        [kept(file, [file]) for file in own],
        seconds,
        decoding[0],
        decoding[1] if files else None,
    )


def run(program: str, arguments: list[str], place: Path) -> float:
    """Seconds of a command of this project in a folder."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, ROOT / program, *arguments], cwd=place, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)}: {done.stderr[-500:]}")
    return time.perf_counter() - begin


def decode_seconds(paths: list[Path]) -> list[float]:
    """Of reading each and decoding all of it; medians of repeats that take turns."""
    found: list[list[float]] = [[] for _ in paths]
    for _ in range(REPEATS):
        for path, seconds in zip(paths, found, strict=True):
            begin = time.perf_counter()
            MINER.load(path).decode()
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds) for seconds in found]


def measure_picture(path: Path, losses: list[float], rest: list[str]) -> tuple[str, Row, Measured]:
    """Its name, and a row of `picture_columns`."""
    size = SIZES.get(path.name)
    picture = read_picture(path, size and size[::-1])
    if picture.bits != 8 or len(picture.values) not in (1, 3):
        raise SystemExit(f"{path}: codecs are compared on pictures of 8 bits, grey or RGB")
    arguments = ["--path", str(path.resolve()), *(["--input_size", *map(str, size)] if size else []), *rest]
    with tempfile.TemporaryDirectory() as place:
        found = measure(psnr, picture.values, arguments, losses, Path(place))
    height, width = picture.values.shape[1:]
    pixels, wanted = as_pixels(picture.values), found.compared.quality
    others = [png_bytes(pixels), *(bytes_at(codec, pixels, wanted) for codec in CODECS)]
    row: Row = [value for way in found.ways for value in (way.quality, bits(way.n_bytes, height * width))]
    row += [None if n_bytes is None else bits(n_bytes, height * width) for n_bytes in others]
    return f"{path.stem}, {width}x{height}", row + found.ratios, found


def picture_columns(losses: list[float]) -> dict[str, str]:
    """Of the table of pictures: names, and how their figures are written."""
    columns = {}
    for way in ["folder", *(f"packed at {loss:g}" for loss in losses), *(["closed loop"] if losses else [])]:
        columns |= {f"{way}: dB": ".2f", f"{way}: bits": ".2f"}
    columns |= dict.fromkeys(["PNG", *(codec.name for codec in CODECS)], ".2f")
    return columns | (dict.fromkeys(RATIOS, ".1f") if losses else {})


def measure_mesh(path: Path, n: int, losses: list[float], rest: list[str]) -> tuple[str, Row, Measured]:
    """Its name, and a row of `mesh_columns`."""
    with tempfile.TemporaryDirectory() as place:
        run("preprocess_mesh.py", ["--path", str(path.resolve()), "--N", str(n)], Path(place))
        grid = grid_path(Path("occupancy"), str(path), n, "occupancy")
        voxels = read_occupancy(place / grid).values
        found = measure(iou, voxels, ["--path", str(grid), *rest], losses, Path(place))
    packed = np.packbits(voxels.numpy()).tobytes()
    row: Row = [value for way in found.ways for value in (way.quality, way.n_bytes)]
    row += [len(packed), len(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME))]
    return f"{path.stem}, {n}^3", row + found.ratios, found


def mesh_columns(losses: list[float]) -> dict[str, str]:
    """Of the table of meshes: names, and how their figures are written."""
    columns = {}
    for way in ["folder", *(f"packed at {loss:g}" for loss in losses), *(["closed loop"] if losses else [])]:
        columns |= {f"{way}: IoU": ".5f", f"{way}: bytes": ",.0f"}
    columns |= {"voxels' bits, bytes": ",.0f", "as xz": ",.0f"}
    return columns | (dict.fromkeys(RATIOS, ".1f") if losses else {})


def second_columns(losses: list[float]) -> dict[str, str]:
    """Of the table of seconds: names, and how their figures are written."""
    if not losses:
        return {"folder, ms": ".0f"}
    return {f"pack.py at {loss:g}, s": ".2f" for loss in losses} | {"folder, ms": ".0f", "packed, ms": ".0f"}


def second_row(found: Measured) -> Row:
    """Seconds of pack.py; milliseconds of reading and decoding."""
    decoding = [found.folder_decode, found.packed_decode]
    return [*found.pack, *(seconds * 1000 for seconds in decoding if seconds is not None)]


def bits(n_bytes: float, n_pixels: int) -> float:
    """A pixel."""
    return 8 * n_bytes / n_pixels


def cells(row: Row, forms: Iterable[str]) -> list[str]:
    return ["-" if value is None else format(value, form) for value, form in zip(row, forms, strict=True)]


def mean(rows: list[Row]) -> Row:
    """Of each column; None where a row has none, as a mean over other signals cannot be compared."""
    return [None if None in column else statistics.mean(column) for column in zip(*rows, strict=True)]


def with_mean(rows: dict[str, Row], columns: dict[str, str]) -> list[list[str]]:
    """The row under all others."""
    if len(rows) < 2:
        return []
    return [["mean", *(f"**{cell}**" for cell in cells(mean(list(rows.values())), columns.values()))]]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("pictures", type=Path, nargs="*", metavar="PICTURE")
    parser.add_argument("--meshes", type=Path, nargs="+", default=[], metavar="MESH")
    parser.add_argument("--N", type=int, default=128, help="voxels along each axis of a mesh's grid")
    parser.add_argument("--losses", type=float, nargs="+", default=[0.1, 0.5], help="dB that packing may cost")
    parser.add_argument("--only_folder", action="store_true", help="measure the checkpoints alone: pack nothing")
    options, rest = parse_with_rest(parser)
    if bool(options.pictures) == bool(options.meshes):
        parser.error("name either pictures or --meshes")
    losses = [] if options.only_folder else options.losses
    if options.pictures:
        title, first, columns = "Bits a pixel of fits, and of codecs at as many dB", "picture", picture_columns(losses)
        signals = (measure_picture(path, losses, rest) for path in options.pictures)
    else:
        title, first, columns = "Bytes of fits, and of the voxels at a bit each", "mesh", mesh_columns(losses)
        signals = (measure_mesh(path, options.N, losses, rest) for path in options.meshes)
    table = Printer(title, [first, *columns], options.out, versions() if options.pictures else "")
    rows, seconds = {}, {}
    for name, row, found in signals:
        rows[name], seconds[name] = row, second_row(found)
        table.add(name, *cells(row, columns.values()))
    for row in with_mean(rows, columns):
        table.add(*row)
    print()
    out = options.out and options.out.with_stem(f"{options.out.stem}_seconds")
    columns = second_columns(losses)
    table = Printer("Packing, and reading and decoding all", ["signal", *columns], out, f"median of {REPEATS}")
    for name, row in seconds.items():
        table.add(name, *cells(row, columns.values()))


if __name__ == "__main__":
    main()
