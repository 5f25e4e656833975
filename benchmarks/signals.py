"""Bytes of fits of signals other than pictures of 8 bits, beside what compresses their values without loss.

    python -m benchmarks.signals FILE ... [--resized] [--out FILE]

Each file is fitted three times: by the plain command; with --pack; and with --preset compact, at the PSNR of --pack.
PSNR is that of the encoded values; of signals of high dynamic range, the mu-law PSNR stands beside it. Raw values are
compressed by gzip, by xz and, in chunks of 64 along each axis, by Zarr with Blosc's zstd and its shuffle of bits.

With --resized a volume is compared with what is left of it at the bytes of its compact fit: it is downsampled by area,
the coarse values kept by xz, and brought back by cubic splines.
"""

import gzip
import json
import lzma
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch
import zarr
from zarr.codecs import BloscCodec

from benchmarks.bytes import run
from benchmarks.records import Printer, make_parser
from datasets.tasks import TASKS, task_of_file
from models.miner import MINER
from utils.metrics import psnr
from utils.resampling import area_taps, resample
from utils.windows import in_samples, whole

_PARTS = 40  # of the voxels along an axis

COLUMNS = ["signal", "values", "gzip", "xz", "Blosc", "PSNR, dB", "mu-law", "parameters", "seconds"]
COLUMNS += ["--pack: dB", "bytes", "compact: dB", "bytes", "seconds"]


def fitted(path: Path, place: Path, name: str, *options: str) -> dict:
    """The report of a fit."""
    run("train.py", ["--path", str(path.resolve()), "--exp_name", name, *options], place)
    return json.loads((place / "ckpts" / name / "metrics.json").read_text())


def compressed(values: np.ndarray) -> list[int]:
    """Bytes by gzip, xz and Blosc."""
    raw = values.tobytes()
    with tempfile.TemporaryDirectory() as place:
        chunks = tuple(min(64, length) for length in values.shape)
        codec = BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle")
        zarr.create_array(Path(place) / "a.zarr", data=values, chunks=chunks, compressors=[codec])
        blosc = sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())
    return [len(gzip.compress(raw, 9)), len(lzma.compress(raw, preset=9)), blosc]


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The values of a file, and as they are fitted, in [0, 1]; both (c, *size)."""
    source = TASKS[task_of_file(str(path))].open(path)
    numbers = source.read(0, source.size[0])
    encoded = numbers / (2**source.bits - 1)
    return numbers if source.transfer is None else source.transfer.decode(encoded), encoded.astype(np.float32)


def measure(path: Path) -> list[str]:
    """A row of `COLUMNS`."""
    values, _ = read(path)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plain, packed = fitted(path, place, "plain"), fitted(path, place, "packed", "--pack")
        small = fitted(path, place, "small", "--preset", "compact", "--target_psnr", f"{packed['psnr']:.2f}")
    mu_law = f"{plain['mu_law_psnr']:.2f}" if "mu_law_psnr" in plain else "-"
    cells = [path.name, f"{values.nbytes:,}", *(f"{size:,}" for size in compressed(values))]
    cells += [f"{plain['psnr']:.2f}", mu_law, f"{plain['parameters']:,}", f"{plain['seconds']['total']:.1f}"]
    for report in (packed, small):
        cells += [f"{report['psnr']:.2f}", f"{report['bytes']['packed']:,}"]
    return [*cells, f"{small['seconds']['total']:.1f}"]


def resized(path: Path) -> list[str]:
    """A volume fitted for few bits, and one of as many voxels as take at most as many bytes."""
    signal = torch.from_numpy(read(path)[1])
    with tempfile.TemporaryDirectory() as folder:
        report = fitted(path, Path(folder), "small", "--preset", "compact")
        decoded = MINER.load(Path(folder) / "ckpts" / "small" / "small.miner").decode()
    n_bytes, sizes = report["bytes"]["packed"], whole(signal.shape[1:])
    for parts in range(_PARTS - 1, 0, -1):
        scale = Fraction(parts, _PARTS)
        coarse = resample(signal, area_taps(scale), in_samples(sizes, scale), (0, 0, 0), tuple(signal.shape[1:]))[0]
        steps = (255 * coarse).round().byte().numpy()
        if len(lzma.compress(steps.tobytes(), preset=9)) <= n_bytes:
            break
    places = np.meshgrid(*((np.arange(n) + 0.5) * float(scale) - 0.5 for n in signal.shape[1:]), indexing="ij")
    back = scipy.ndimage.map_coordinates(steps / 255, places, order=3, mode="nearest").clip(0, 1)
    fewer, lost = "x".join(map(str, steps.shape[::-1])), psnr(torch.from_numpy(back).float()[None], signal)
    return [path.name, f"{n_bytes:,}", f"{psnr(decoded, signal):.2f}", fewer, f"{lost:.2f}"]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--resized", action="store_true", help="compare with volumes of fewer voxels")
    options = parser.parse_args()
    title, columns = "Fits of other signals, and their values compressed", COLUMNS
    if options.resized:
        title, columns = "Volumes of fewer voxels", ["volume", "bytes", "fit, dB", "fewer voxels", "these, dB"]
    table = Printer(title, columns, options.out)
    for path in options.files:
        table.add(*(resized(path) if options.resized else measure(path)))


if __name__ == "__main__":
    main()
