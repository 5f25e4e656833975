"""Bytes of fits of the preset compact, beside picture codecs at as many dB.

    python -m benchmarks.rates PICTURE ... [--lambdas 3e-3 1e-3 3e-4 1e-4] [--out FILE]

Each picture is fitted by train.py once for each lambda. PSNR, SSIM and MS-SSIM are those of the 8 bits that its file
decodes to. Codecs stand at that PSNR, and ratios are bytes of the fit by theirs: below 1 the fit is smaller; `-` is out
of reach of a codec. JPEG's colours have the full resolution or, at 4:2:0, half of it. Pictures of `ablation.PICTURES`
have their sizes there. Under each lambda is the mean over the pictures, of columns that all of them have. With
--seconds, fitting and decoding are timed instead, from the start of the interpreter and with the reading of the file,
medians of three.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from benchmarks.bytes import SIZES, bits, cells, mean, run
from benchmarks.codecs import CODECS, JPEG_420, as_pixels, as_values, bytes_at, setting_for, versions
from benchmarks.records import Printer, make_parser
from datasets.sources import read_picture
from models.miner import MINER
from utils.metrics import psnr, ssim

LAMBDAS = (3e-3, 1e-3, 3e-4, 1e-4)
JPEG = CODECS[0]
OTHERS = (JPEG, JPEG_420, *CODECS[1:])
REPEATS = 3

Row = list[float | None]


@dataclass(frozen=True)
class Likeness:
    """Of a picture of 8 bits a channel and another."""

    psnr: float
    ssim: float
    ms_ssim: float


def likeness(values: Tensor, original: Tensor) -> Likeness:
    """
    Inputs
        values, original: (c, h, w) in [0, 1]
    """
    pair = values[None], original[None]
    multiscale = multiscale_structural_similarity_index_measure(*pair, data_range=1.0)
    return Likeness(psnr(values, original), ssim(values, original), float(multiscale))


@dataclass(frozen=True)
class Fitted:
    """The file of a fit.

    seconds: of the command
    """

    file: Path
    seconds: float


def fit(path: Path, price: float, place: Path) -> Fitted:
    """Fit a picture, in a folder."""
    size = SIZES.get(path.name)
    arguments = ["--path", str(path.resolve()), "--preset", "compact", "--lambda", f"{price:g}", "--exp_name", "fit"]
    arguments += ["--overwrite", *(["--input_size", *map(str, size)] if size else [])]
    seconds = run("train.py", arguments, place)
    return Fitted(place / "ckpts" / "fit" / "fit.miner", seconds)


def measure(path: Path, price: float) -> Row:
    """A row of `COLUMNS`."""
    size = SIZES.get(path.name)
    original = read_picture(path, size and size[::-1]).values
    with tempfile.TemporaryDirectory() as place:
        file = fit(path, price, Path(place)).file
        n_bytes, model = file.stat().st_size, MINER.load(file)
        values, n_parameters = as_values(as_pixels(model.decode())), model.n_parameters
    pixels, ours = as_pixels(original), likeness(values, original)
    sizes = [bytes_at(codec, pixels, ours.psnr) for codec in OTHERS]
    row: Row = [bits(n_bytes, original[0].numel()), ours.psnr, ours.ssim, ours.ms_ssim]
    row += [None if size is None else n_bytes / size for size in sizes]
    jpeg = likeness(as_values(JPEG.decode(JPEG.encode(pixels, setting_for(JPEG, pixels, ours.psnr)))), original)
    return [*row, ours.ssim - jpeg.ssim, ours.ms_ssim - jpeg.ms_ssim, n_parameters]


def measure_seconds(path: Path, price: float) -> Row:
    """A row of `SECONDS`."""
    fitting, decoding = [], []
    with tempfile.TemporaryDirectory() as place:
        for _ in range(REPEATS):
            fitted = fit(path, price, Path(place))
            begin = time.perf_counter()
            values = MINER.load(fitted.file).decode()
            decoding.append(time.perf_counter() - begin)
            fitting.append(fitted.seconds)
    decoded = statistics.median(decoding)
    return [statistics.median(fitting), 1000 * decoded, values[0].numel() / 1e6 / decoded]


COLUMNS = {"bits a pixel": ".3f", "PSNR, dB": ".2f", "SSIM": ".4f", "MS-SSIM": ".4f"}
COLUMNS |= {f"of {codec.name}": ".2f" for codec in OTHERS}
COLUMNS |= {"SSIM above JPEG's": "+.4f", "MS-SSIM above JPEG's": "+.4f", "parameters": ",.0f"}
SECONDS = {"fit, s": ".1f", "decode, ms": ".0f", "decode, megapixels/s": ".1f"}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    parser.add_argument("--lambdas", type=float, nargs="+", default=LAMBDAS, metavar="X")
    parser.add_argument("--seconds", action="store_true", help="time fitting and decoding")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    columns, measured = (SECONDS, measure_seconds) if options.seconds else (COLUMNS, measure)
    title = "Seconds of fits for few bits" if options.seconds else "Fits for few bits, and codecs"
    note = f"median of {REPEATS}" if options.seconds else versions()
    table = Printer(title, ["lambda", "picture", *columns], options.out, note)
    for price in options.lambdas:
        rows = []
        for path in options.pictures:
            rows.append(measured(path, price))
            table.add(f"{price:g}", path.stem, *cells(rows[-1], columns.values()))
        if len(rows) > 1:
            table.add(f"{price:g}", "mean", *(f"**{cell}**" for cell in cells(mean(rows), columns.values())))


if __name__ == "__main__":
    main()
