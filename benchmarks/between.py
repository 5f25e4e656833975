"""Between the pixels: a fit enlarged by 4, beside the picture of that size.

    python -m benchmarks.between IMAGES [--only NAME ...] [--out FILE] [-- OPTIONS]

IMAGES is a folder. Each picture is halved twice by areas, fitted by the plain command or with OPTIONS of train.py, and
enlarged by all that reads between pixels: PSNR against the picture itself. Beside it the same of the halved picture,
without a fit, by Keys' cubic convolution (a = -1/2) and by Lanczos' kernel. *Seam*: the mean square step of the error
across the borders of blocks, over that elsewhere, where the error is against the halved picture, enlarged by Lanczos'
kernel; 1 is none. A crop of 80x80 pixels is enlarged by 8.
"""

from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.end_to_end import milliseconds
from benchmarks.records import Printer, make_parser, parse_with_rest
from datasets.sources import read_picture
from miner import fit
from models.miner import READINGS
from options.table import make_parser as make_options
from utils.metrics import psnr
from utils.pyramid import pyramid
from utils.resampling import lanczos_taps, resample
from utils.windows import whole

PICTURES = [
    *("forest_6016x4016.jpg", "pluto_gray_4408x4344.jpg", "city_singapore_3840x2160.jpg", "mars_hirise_4096x2160.jpg"),
    *("pier_sunset_5470x3646.jpg", "earth_shadedrelief_10800x5400.jpg", "small/skimage_retina.jpg"),
    *("small/skimage_astronaut.png", "small/skimage_rocket.jpg", "small/skimage_chelsea.png"),
]
TIMES, ZOOM, SIDE = 4, 8, 80


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="pictures whose names begin so")
    options, rest = parse_with_rest(parser)
    given = make_options().parse_given(rest)
    columns = ["picture", "fitted at", "parameters", "its pixels", *READINGS, "no fit: Keys", "Lanczos"]
    columns += [f"seam, {reading}" for reading in READINGS] + [f"x8, {reading}, ms" for reading in READINGS]
    table = Printer("A fit enlarged by 4: PSNR in dB against the larger picture", columns, options.out)
    for name in PICTURES:
        if options.only is None or any(Path(name).name.startswith(begin) for begin in options.only):
            table.add(Path(name).stem, *compare(options.images / name, given))


def compare(path: Path, given: dict) -> list[str]:
    """The cells of a picture, but for its name."""
    large = read_picture(path).values
    large = large[:, : large.shape[1] // TIMES * TIMES, : large.shape[2] // TIMES * TIMES]
    small = pyramid(large, TIMES.bit_length())[-1]
    model = fit(small, quiet=True, **given)
    height, width = model.size
    crop = tuple((length // 2, min(length // 2 + SIDE, length)) for length in model.size)
    enlarged = {reading: model.decode(scale=TIMES, between=reading) for reading in READINGS}
    keys = interpolate(small[None], scale_factor=TIMES, mode="bicubic", antialias=True).clamp(0, 1)[0]  # a = -1/2
    lanczos = resample(small, lanczos_taps(Fraction(TIMES)), whole(large.shape[1:]), (0, 0), (height, width))
    pairs = [(model.decode(), small), *((picture, large) for picture in (*enlarged.values(), keys, lanczos))]
    zooms = [partial(model.decode, crop=crop, scale=ZOOM, between=reading) for reading in READINGS]
    return [
        f"{width}x{height}",
        f"{model.n_parameters:,}",
        *(f"{psnr(*pair):.2f}" for pair in pairs),
        *(f"{seam(picture - lanczos, model.patch_size):.1f}" for picture in enlarged.values()),
        *(f"{milliseconds(zoom):.0f}" for zoom in zooms),
    ]


def seam(error: Tensor, patch_size: tuple[int, ...]) -> float:
    """Of an error (c, h, w), enlarged."""
    across, elsewhere = [], []
    for axis, patch in enumerate(patch_size, 1):
        steps = error.diff(dim=axis).square()
        is_border = torch.arange(1, error.shape[axis]) % (patch * TIMES) == 0
        across.append(steps.movedim(axis, 0)[is_border].flatten())
        elsewhere.append(steps.movedim(axis, 0)[~is_border].flatten())
    return (torch.cat(across).mean() / torch.cat(elsewhere).mean()).item()


if __name__ == "__main__":
    main()
