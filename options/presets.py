"""Methods: what each sets, and what follows from the kind of a signal, its size, and how good the fit is to be."""

import math
from typing import Any

from utils.limits import APART

N_VOXELS = 256
"""Along each axis of the grid that a mesh is sampled on."""

SEED: dict[str, Any] = dict(
    n_scales=1,
    pyr="laplacian",
    patch_size=[32, 32],
    use_pe=False,
    n_freq=4,
    frequencies="octaves",
    arch="gaussian",
    omega=None,
    weight_sharing="none",
    start="random",
    order="random",
    fill="spline",
    loss="plain",
    n_layers=4,
    n_hidden=[20],
    a=0.1,
    num_epochs=[500],
    batch_size=256,
    lr=3e-2,
    optimizer="radam",
    betas=[0.9, 0.999],
    val_freq=50,
    loss_thr=1e-4,
    stop_ratio=1.0,
)
"""Every option of a method, as MINER_pl has it."""

_PAPER = dict(
    arch="sine",
    n_layers=4,
    n_hidden=[9],
    weight_sharing="copy",
    optimizer="adam",
    lr=5e-4,
    loss_thr=2e-7,
)
_BY_EPOCHS = dict(batch_size=None, betas=None)  # `steps_for` each level
_CENTRED = _BY_EPOCHS | dict(
    arch="centred", use_pe=True, frequencies="harmonics", n_layers=3, a=0.8, order="even", optimizer="nradam"
)
_COMPACT = dict(arch="cosines", n_layers=1, n_scales=None, num_epochs=[1], batch_size=None, betas=None, pack=True)
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "seed": {"image": {}, "mesh": dict(patch_size=[16]), "volume": dict(patch_size=[16])},
    "paper": {"image": _PAPER, "mesh": _PAPER | dict(patch_size=[16]), "volume": _PAPER | dict(patch_size=[16])},
    "best": {
        "image": _CENTRED
        | dict(n_layers=2, n_freq=4, n_hidden=[8, 12, 15, 22, 30, 44, 60, 84, 120], lr=9e-2)
        | dict(start="ridge", fill="lanczos", loss="clipped", loss_thr=8e-5, stop_ratio=0.03),
        "mesh": _CENTRED
        | dict(patch_size=[16], n_freq=2)
        | dict(n_hidden=None, loss=None, loss_thr=None, stop_ratio=None),
        "volume": _CENTRED
        | dict(patch_size=[16], n_freq=2, n_hidden=[4, 6, 8, 12, 15, 22, 30, 44], lr=6e-2)
        | dict(fill="lanczos", loss="clipped", loss_thr=8e-5, stop_ratio=0.03),
    },
    "compact": {
        "image": _COMPACT | dict(patch_size=[32], n_hidden=[8, 16, 32]),
        "mesh": _COMPACT | dict(patch_size=[16], n_hidden=[4, 8, 16]),
        "volume": _COMPACT | dict(patch_size=[16], n_hidden=[4, 8, 16]),
    },
}
"""What methods set otherwise, by name and task; None follows from the signal: `steps_for`, `accuracy_for`."""

QUALITIES: dict[str, dict[str, dict[str, Any]]] = {
    "draft": {"image": dict(val_freq=10), "mesh": dict(val_freq=10), "volume": dict(val_freq=10)},
    "normal": {"image": {}, "mesh": {}, "volume": {}},
    "high": {"image": dict(loss_thr=8e-6), "mesh": {}, "volume": dict(loss_thr=8e-6)},
}
"""What the preset best sets otherwise, by quality and task; its epochs are below."""

ACCURACY: dict[str, dict[str, dict[str, Any]]] = {
    "occupancy": {
        "normal": dict(n_hidden=[8], loss="plain", loss_thr=5e-3, stop_ratio=0.1),
        "high": dict(n_hidden=[12], loss="plain", loss_thr=1e-3, stop_ratio=0.1),
    },
    "distance": {
        "normal": dict(n_hidden=[6], loss="clipped", loss_thr=7e-4, stop_ratio=0.005),
        "high": dict(n_hidden=[12], loss="clipped", loss_thr=2e-4, stop_ratio=0.005),
    },
}
"""What the preset best sets for the grids of meshes, by what they hold and quality; a draft as normal."""

_EPOCHS = {  # of the coarser levels, and of the finest
    "draft": {"image": (10, 20), "mesh": (10, 15), "volume": (10, 15)},
    "normal": {"image": (100, 100), "mesh": (50, 150), "volume": (50, 100)},
    "high": {"image": (300, 300), "mesh": (100, 300), "volume": (100, 300)},
}
LOSS_DB = 1.0
"""Decibels that the networks of --pack may lose by being rounded: with fewer bits each, or fewer parameters, a file of
this size would be further from the picture."""

RIDGE_EPOCHS = 20  # of a level, at most, where --start ridge gains
FEW_EPOCHS = 40
_BATCHES, _BATCHES_OF_PLAIN_VOLUMES, _BATCHES_OF_FEW_EPOCHS = 8, 4, 16
"""An epoch is of so many batches: in general, of volumes with the plain loss, and in levels of few epochs."""

_LARGE = 2896  # pixels along an axis, of 8 megapixels: a larger picture has a level more for each doubling, and needs
_EPOCHS_OF_LARGE = 0.75  # as many of the finest level's epochs
_EPOCHS_OF_TRANSFERRED = 300  # of the coarser levels, at least: what a sky lacks there is seen at some exposure
_EPOCHS_OF_PACKED = {"image": 3, "mesh": 1, "volume": 1}  # times: what fits better may be rounded more
_COARSEST = {"image": 64, "mesh": 32, "volume": 32}  # pixels or voxels along an axis, at least: two blocks
_LARGEST = {"image": _LARGE, "mesh": 256, "volume": 256}  # along an axis, up to which there are so many levels:
_MOST_ALONE = {2: 2048, 3: 256}  # along an axis
_LEVELS = {"image": 4, "mesh": 3, "volume": 3}

_USUAL_SPREAD, _LEAST_SPREAD = 0.3, 1e-3  # standard deviation of plain pixels; less is mostly rounding to 16 bits

STARTS = ["random", "ridge"]
ORDERS = ["random", "even"]

LAMBDA = 3e-4
"""Squared error, summed over the channels of a signal in [0, 1], that a bit of the preset compact must save."""
LEAST_LAMBDA = 1e-10
"""With less, rounding to float32 would be the larger error."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gaussian": dict(activation="gaussian"),
    "centred": dict(activation="gaussian", centre=0.5),
    "sine": dict(activation="sine", output="linear", omega={"image": 150.0, "mesh": 30.0, "volume": 30.0}),
    "cosines": dict(kind="cosines", activation="cosine", output="linear"),
    "gabor": dict(
        kind="filters", activation="gabor", output="linear", omega={"image": 10.0, "mesh": 5.0, "volume": 5.0}
    ),
}
"""What --arch means for the shape of a network (`models.shape`); cosines are those of the preset compact; omega is the
default for each task, and the output, where none is given, a sine for residuals and a sigmoid for signals."""


def steps_for(task: str, loss: str, n_points: int, n_epochs: int) -> tuple[int, tuple[float, float]]:
    """--batch_size and --betas that suit a level: few epochs want smaller steps and a shorter memory of their sizes.

    Inputs
        n_points: of a block
        n_epochs: of the level
    """
    is_short = n_epochs <= FEW_EPOCHS
    n_batches = _BATCHES_OF_PLAIN_VOLUMES if (task, loss) == ("mesh", "plain") else _BATCHES
    if is_short:
        n_batches = _BATCHES_OF_FEW_EPOCHS
    batch_size = -(-n_points // n_batches)  # rounded up: a rest of a few points makes a wild step
    if is_short:
        return batch_size, (0.9, 0.95)
    return batch_size, (0.95 if task == "image" else 0.9, 0.99)


def error_for(error: float, spread: float) -> float:
    """--loss_thr or --lambda that suits values whose transfer leaves most of [0, 1] empty: the usual part of their
    variance.

    Inputs
        error: that suits plain pixels
        spread: standard deviation of the encoded values
    """
    part = min(1, max(_LEAST_SPREAD, spread) / _USUAL_SPREAD) ** 2
    return float(f"{error * part:.2g}")


def accuracy_for(values: str, quality: str) -> dict[str, Any]:
    """The options that suit a volume of occupancy or distance."""
    return ACCURACY[values].get(quality, ACCURACY[values]["normal"])


def compact_levels_for(size: tuple[int, ...]) -> int:
    """How many levels suit the preset compact: only every third is coded, and up to some megapixels none but the finest
    is worth its bits."""
    extent = math.prod(size) ** (1 / len(size))
    return 1 + APART * max(0, math.ceil(math.log2(extent / _MOST_ALONE[len(size)]) / APART - 1e-9))


def levels_for(task: str, size: tuple[int, ...]) -> int:
    """How many levels suit a signal of this size.

    Inputs
        size: (h, w) or (d, h, w)
    """
    extent = math.prod(size) ** (1 / len(size))
    beyond = max(0, math.ceil(math.log2(extent / _LARGEST[task]) - 1e-9))
    most = 1 + math.floor(math.log2(max(1, extent / _COARSEST[task])) + 1e-9)
    return max(1, min(most, _LEVELS[task] + beyond))


def epochs_for(
    task: str, quality: str, size: tuple[int, ...], n_scales: int, pack: bool = False, is_transferred: bool = False
) -> list[int]:
    """--num_epochs that suits a signal of this size.

    Inputs
        pack: whether the networks will be rounded
        is_transferred: whether its values went through a transfer
    """
    coarser, finest = (epochs * (_EPOCHS_OF_PACKED[task] if pack else 1) for epochs in _EPOCHS[quality][task])
    if task == "image" and is_transferred and coarser > FEW_EPOCHS:
        coarser = max(coarser, _EPOCHS_OF_TRANSFERRED)
    if task == "image" and math.prod(size) > _LARGE**2:
        finest = round(finest * _EPOCHS_OF_LARGE)
    return [coarser] * (n_scales - 1) + [finest]
