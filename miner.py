"""MINER from Python: fit a signal, and read it back.

from miner import fit

model = fit(picture)
model.decode()
"""

import time
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from models.miner import MINER
from opt import complete
from options.table import make_parser
from utils.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["MINER", "InputError", "fit"]

_REFUSED = ("config", "path", "dry_run", "devices")


def fit(signal: "str | PathLike | np.ndarray | Tensor", folder: str | Path | None = None, **options: Any) -> MINER:
    """Fit a signal, as train.py does.

    Inputs
        signal: a file that train.py takes; or an array of NumPy or torch: a picture (h, w), (h, w, c) or (c, h, w), c
            of 1 (grey), 3 (RGB), 4 (RGBA) or up to 64 (spectral), uint8, uint16 or floats in [0, 1], with `transfer` of
            any range; or, axes z, y, x, the occupancy (d, h, w) of a mesh, bool; or a volume of values, (c, d, h, w),
            (d, h, w, c), or with `task="volume"` (d, h, w), integers of up to 32 bits or floats
        folder: for what train.py leaves in ckpts/ and logs/; None keeps nothing
        options: of train.py by their names, numbers or lists of numbers: `quality="high"`, `num_epochs=[50, 200]`,
            `quiet=True`; their defaults are those of train.py
    Outputs
        the fit, on the CPU: `decode` reads it back
    Errors
        InputError, a ValueError, for bad input, with one line that says what to try
        KeyboardInterrupt
    """
    started = time.perf_counter()
    refused = [name for name in _REFUSED if name in options]
    if refused:
        raise InputError(f"{refused[0]} is an option of the command line only; leave it out")
    parser = make_parser()
    given = parser.parse_values(options) | {"path": str(signal) if isinstance(signal, str | PathLike) else "array"}
    values = None if isinstance(signal, str | PathLike) else signal
    if values is not None:
        if not hasattr(values, "ndim"):
            raise InputError(f"{type(values).__name__}: a signal is a file, or an array of NumPy or torch")
        is_grid = values.ndim == 3 and str(values.dtype).endswith("bool")
        given = {"task": "mesh" if is_grid else "image" if values.ndim < 4 else "volume"} | given
    settings = complete(parser.defaults(), given)
    from training.session import prepare, set_up, train  # Lightning loads slowly
    from training.stop import StopSignals
    from utils.checkpoint import lock
    from utils.ranks import Ranks

    set_up()
    with TemporaryDirectory() if folder is None else nullcontext(folder) as root:
        plan = prepare(settings, Ranks(), started, Path(root), values)
        with lock(plan.ckpts):
            train(plan, Ranks(), StopSignals(Ranks()))
        return MINER.load(plan.ckpts)
