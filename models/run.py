"""What is kept of a fit, whichever way: its levels, and what they share; and the folder of a run, read."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.level import Level
from models.packed.held import level_of
from utils.checkpoint import find_levels, level_path, load_level
from utils.errors import InputError, one_line
from utils.frame import Frame
from utils.georeference import Georeference
from utils.pyramid import level_size
from utils.transfer import Transfer

_MOST_SCALES = 64


@dataclass(frozen=True)
class Run:
    """
    levels: by index, from the coarsest on without a gap
    n_scales: levels of the pyramid, fitted or not
    size: of level 0
    source: of the file that was fitted
    options: of the command line that fitted it
    """

    levels: dict[int, Level]
    n_scales: int
    n_channels: int
    size: tuple[int, ...]
    source: dict[str, Any]
    options: dict[str, Any]


def checked_run(run: dict[str, Any]) -> dict[str, Any]:
    """What the levels of a run share; TypeError, KeyError or the like if it is not consistent."""
    whole_numbers = [run["n_scales"], run["n_channels"], *run["size"]]
    if not all(type(number) is int and number > 0 for number in whole_numbers) or run["n_scales"] > _MOST_SCALES:
        raise TypeError(f"{run['n_scales']} scales, {run['n_channels']} channels, size {run['size']}")
    if len(run["size"]) not in (2, 3):
        raise TypeError(f"size {run['size']}")
    source = run["source"]
    if (len(run["size"]) == 2 or "bits" in source) and source["bits"] not in (8, 16):
        raise TypeError(f"{source['bits']} bits")
    if source.get("frame"):
        Frame(**source["frame"])
    if source.get("georeference"):
        Georeference(**source["georeference"])
    if "transfer" in source:
        Transfer(**source["transfer"])
    _check_about(source)
    for name, shape in (("affine", (4, 4)), ("scaling", (2,))):
        numbers = np.array(source.get(name) or np.zeros(shape), dtype=float)
        if numbers.shape != shape or not np.isfinite(numbers).all():
            raise TypeError(f"{name} {source[name]}")
    return run


def _check_about(source: dict[str, Any]) -> None:
    """TypeError unless what a volume of values may tell of its file is as `datasets.sources.Source.about` has it."""
    time, channels = source.get("time", 1), source.get("channels", [1])
    is_time = time == "all" or (type(time) is int and time > 0)
    if not is_time or not channels or not all(type(channel) is int and channel > 0 for channel in channels):
        raise TypeError(f"time {time}, channels {channels}")
    unit, axes = source.get("unit", "m"), source.get("axes", "CZYX")
    if not re.fullmatch(r"\w{1,32}", unit) or sorted(axes) != sorted("CZYX"):
        raise TypeError(f"unit {unit}, axes {axes}")


def read_folder(folder: Path) -> Run:
    """Read a run's checkpoints; its finest levels may be missing.

    Errors
        InputError for a folder without checkpoints, without its coarsest level, or with levels of different runs
    """
    found = find_levels(folder)
    if not found:
        raise InputError(f"{folder} holds no checkpoints (l0.ckpt, ...); use the folder of a run, ckpts/EXP_NAME")
    run, levels = None, {}
    for index in found:
        path = level_path(folder, index)
        record = load_level(path)
        try:
            run = run or checked_run(record["run"])
            if record["run"] != run or record["level"] != index:
                names = f"l{found[0]}.ckpt and l{index}.ckpt"
                raise InputError(f"{names} in {folder} are of different runs; fit it again")
            levels[index] = level_of(record, str(path))
            levels[index].check(level_size(tuple(run["size"]), index), run["n_channels"])
            options = dict(record["options"])
        except InputError:
            raise
        except Exception as error:  # whatever a record that was tampered with raises
            raise InputError(f"{path} is not consistent ({one_line(error)[:200]}); fit it again") from error
    missing = set(range(found[0], run["n_scales"])) - set(found)
    if missing:
        raise InputError(f"{folder} lacks l{max(missing)}.ckpt, which the finer levels build on; fit it again")
    return Run(levels, run["n_scales"], run["n_channels"], tuple(run["size"]), run["source"], options)
