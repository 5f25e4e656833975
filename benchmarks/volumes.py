"""What each choice is worth for volumes of values, with as many parameters.

    python -m benchmarks.volumes PART DATA RESULTS [--only VARIANT ...] [--out FILE]

PART is tuned, crops of 96^3 on which the settings were found, or held_out: a crop of the same head from elsewhere,
128^3 of the same animal around its crop, with much that is empty, and another draw of the turbulence. DATA is a folder
with ch2.nii.gz and iguana_ct.nii.gz, which NiiVue ships; RESULTS a file of one line of JSON a fit, from which a study
that was stopped goes on. Every variant is compared with the first one, volume by volume, with --n_parameters of each
part of the voxels.
"""

import statistics
import tempfile
from math import prod
from pathlib import Path

import numpy as np

from benchmarks.ablation import Options, Results
from benchmarks.records import Printer, make_parser
from datasets.volumes import open_volume
from options.presets import PRESETS

SHARES = (0.05, 0.15, 0.4)
"""Parameters a voxel."""

BEST: Options = dict(preset="best", task="volume")
BEST |= {name: PRESETS["best"]["volume"][name] for name in ("n_hidden", "fill", "lr")}
FROM_8 = BEST | dict(n_hidden=[n for n in BEST["n_hidden"] if n >= 8])
SPLINE = BEST | dict(fill="spline", lr=3e-2)
PLAIN = FROM_8 | dict(fill="spline", lr=3e-2)
WIDER = [60, 84, 120]
VARIANTS: dict[str, Options] = {
    "best": BEST,
    "lr 3e-2": BEST | dict(lr=3e-2),
    "lr 9e-2": BEST | dict(lr=9e-2),
    "filled by the spline": BEST | dict(fill="spline"),
    "units from 3": BEST | dict(n_hidden=[3, *BEST["n_hidden"]]),
    "units from 8": FROM_8,
    "3 frequencies": BEST | dict(n_freq=3),
    "filled by the spline, lr 3e-2": SPLINE,
    "the same, 2 layers": SPLINE | dict(n_layers=2),
    "the same, random order": SPLINE | dict(order="random"),
    "the same, blocks stop at 8e-6": SPLINE | dict(stop_ratio=0.1),
    "the same, twice the epochs": SPLINE | dict(num_epochs=[100, 100, 200]),
    "the same, patches of 20": SPLINE | dict(patch_size=20, n_hidden=[*BEST["n_hidden"], *WIDER]),
    "the same, 1 frequency, units from 3": SPLINE | dict(n_freq=1, n_hidden=[3, *BEST["n_hidden"]]),
    "the same, units from 8": PLAIN,
    "the same, units from 8, patches of 24": PLAIN | dict(patch_size=24, n_hidden=[*PLAIN["n_hidden"], *WIDER]),
}
REPORTED = ("best", "filled by the spline, lr 3e-2", "the same, units from 8")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("part", choices=("tuned", "held_out"))
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="these rows alone, besides the first")
    options = parser.parse_args()
    wanted = options.only or (VARIANTS if options.part == "tuned" else REPORTED)
    columns = [
        "variant",
        *(f"{what}, {share:g} a voxel" for share in SHARES for what in ("PSNR, dB", "gain")),
        "points",
    ]
    table = Printer(f"What each choice is worth: volumes, {options.part.replace('_', ' ')}", columns, options.out)
    with tempfile.TemporaryDirectory() as place:
        results, base = Results(options.results, Path(place)), None
        files = volumes(options.part, options.data, Path(place))
        for name, variant in VARIANTS.items():
            if base is None or name in wanted:
                fits = [
                    [results.fit(variant | budget(path, share), path.stem, dict(path=str(path)), 0) for path in files]
                    for share in SHARES
                ]
                base = base or fits
                table.add(name, *cells(fits, base))


def budget(path: Path, share: float) -> Options:
    return dict(n_parameters=round(share * prod(np.load(path, mmap_mode="r").shape)))


def cells(fits: list[list[dict[str, float]]], base: list[list[dict[str, float]]]) -> list[str]:
    """Of a row: quality and gain of each share, then the points trained beside the first variant's."""
    found, ratios = [], []
    for mine, theirs in zip(fits, base, strict=True):
        gains = [one["quality"] - other["quality"] for one, other in zip(mine, theirs, strict=True)]
        quality = statistics.mean(one["quality"] for one in mine)
        found += [f"{quality:.2f}", f"{statistics.mean(gains):+.2f} ({min(gains):+.2f} .. {max(gains):+.2f})"]
        ratios += [one["points_trained"] / other["points_trained"] for one, other in zip(mine, theirs, strict=True)]
    return [*found, f"{statistics.geometric_mean(ratios):.2f}"]


def turbulence(n: int, seed: int) -> np.ndarray:
    """(n, n, n) float32, a random field with the spectrum of Kolmogorov's, smooth below five voxels."""
    spectrum = np.fft.rfftn(np.random.default_rng(seed).standard_normal((n, n, n)))
    along = np.fft.fftfreq(n, 1 / n) ** 2
    k = np.sqrt(along[:, None, None] + along[:, None] + along[: n // 2 + 1])
    k[0, 0, 0] = 1
    damped = k ** (-11 / 6) * np.exp(-((5 * k / n) ** 2))
    damped[0, 0, 0] = 0
    values = np.fft.irfftn(spectrum * damped, (n, n, n), (0, 1, 2))
    return (values / values.std()).astype(np.float32)


def volumes(part: str, data: Path, place: Path) -> list[Path]:
    """Files of the volumes of a part, written to a folder."""
    sources = [open_volume(data / f"{name}.nii.gz") for name in ("ch2", "iguana_ct")]
    head, iguana = (source.read(0, source.size[0])[0] for source in sources)
    if part == "tuned":
        found = {"ch2": head[40:136, 60:156, 40:136], "iguana": iguana[25:121, 80:176, 57:153]}
    else:
        found = {"ch2_2": head[80:176, 20:116, 80:176], "iguana_2": iguana[25:153, 64:192, 41:169]}
    found["turbulence" if part == "tuned" else "turbulence_2"] = turbulence(96, int(part != "tuned"))
    for name, values in found.items():
        np.save(place / f"{name}.npy", values)
    return [place / f"{name}.npy" for name in found]


if __name__ == "__main__":
    main()
