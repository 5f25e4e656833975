"""The options of train.py: read, completed by a method and the size of the signal, checked, and recorded."""

import json
import math
import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from datasets.tasks import TASKS, Task, is_mesh, task_of_file
from options.compact import OF_METHOD, aims_of, check_compact, compact_options, without_other_aims
from options.presets import (
    LAMBDA,
    LOSS_DB,
    N_VOXELS,
    PRESETS,
    QUALITIES,
    SEED,
    accuracy_for,
    compact_levels_for,
    epochs_for,
    error_for,
    levels_for,
)
from options.table import make_parser
from utils.cli import value_text
from utils.errors import InputError, size_text

_LATER = ("start", "order", "fill", "loss")
"""Options younger than files: recorded where they differ from MINER_pl's, whose files stay as they are."""

_OF_VALUES = ("transfer", "nodata", "time", "channels")
"""Of signals other than plain pixels and grids of meshes: recorded where they are used."""

_RECORDED = (  # in this order, on which the bytes of checkpoints depend
    *("task", "path", "input_size", *(name for name in SEED if name not in _LATER)),
    *("target_psnr", "target_iou", "max_seconds", "seed"),
    *("exp_name", "log_image", "b_chunks", "backend", "accelerator"),
)
_NOT_IDENTIFYING = (
    *("path", "num_epochs", "target_psnr", "target_iou", "max_seconds"),
    *("exp_name", "log_image", "b_chunks", "backend", "accelerator"),
)

MOST_WIDTHS = 32
"""Numbers of units to choose from."""

ROOT = Path(__file__).resolve().parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def parse_options(argv: list[str]) -> Namespace:
    """Options from a command line, checked; an empty one means the quickstart.

    What is given wins over the method, the command line over a config. Without any setting of a method, the method is
    the best one; with some, MINER_pl's. What follows from the signal is None until `settle`.

    Errors
        InputError that names the option and its value
    """
    if not argv:
        argv = ["--config", str(QUICKSTART), "--path", os.path.relpath(ROOT / "images" / "pluto.png")]
    parser = make_parser()
    given = parser.parse_given(argv)
    if "config" in given:
        from options.config import read_config

        given = without_other_aims(read_config(parser, given["config"]), given) | given
    return complete(parser.defaults(), given)


def complete(defaults: dict[str, Any], given: dict[str, Any]) -> Namespace:
    """What is not given, by the method; see `parse_options`.

    Inputs
        defaults: of all options; None for those of a method
    """
    if given.get("path") is None:
        raise InputError("--path is missing: it names what to fit (an empty command line fits a picture that ships)")
    path = given["path"]
    task = given.get("task") or task_of_file(path)
    preset = given.get("preset") or ("seed" if SEED.keys() & given and "quality" not in given else "best")
    method = SEED | PRESETS[preset][task] | dict(task=task, preset=preset, exp_name="exp")
    if preset == "best":
        quality = given.get("quality", "normal")
        follows = dict(n_scales=None, num_epochs=None, exp_name=_name_of(path, given.get("N") or N_VOXELS))
        method |= QUALITIES[quality][task] | dict(quality=quality) | follows
    elif preset == "compact":
        method |= dict(exp_name=_name_of(path, given.get("N") or N_VOXELS)) | compact_options(given, task)
    if "quality" in given and preset != "best":
        raise InputError(f"--quality {given['quality']}: --preset {preset} has none; leave one of them out")
    if is_mesh(path):
        method |= dict(N=N_VOXELS, values="distance" if preset == "best" else "occupancy")
    options = Namespace(**defaults | method | given)
    options.adapts_loss_thr = preset == "best" and "loss_thr" not in given
    if options.n_hidden is not None:
        options.n_hidden = sorted(set(options.n_hidden))
        check_networks(options)
    if options.loss_db is None and options.pack and preset != "compact":
        options.loss_db = LOSS_DB
    check_compact(vars(options))
    check_options(options)
    if options.batch_size is not None:
        patch_size = per_axis(options.patch_size, TASKS[task].n_dims)
        n_points = math.prod(patch_size)
        if options.batch_size > n_points and "batch_size" in given:
            patch = f"a patch of {size_text(patch_size)} has {n_points} points"
            raise InputError(f"--batch_size {options.batch_size}: {patch}; use at most that many")
        options.batch_size = min(options.batch_size, n_points)
    return options


def _name_of(path: str, n: int) -> str:
    """A name for a run, from its file's; that of a mesh has the voxels along each axis."""
    stem = Path(path).stem.removesuffix(".nii")  # of .nii.gz
    stem = f"{stem}_{n}" if is_mesh(path) else stem
    return re.sub(r"[^\w.+=-]", "_", stem).lstrip(".+=-")[:100] or "exp"


def settle(
    options: Namespace, size: tuple[int, ...], values: str = "occupancy", spread: float | None = None
) -> Namespace:
    """The options with what follows from the signal.

    Inputs
        size: (h, w) or (d, h, w)
        values: what a volume holds, occupancy or distance
        spread: standard deviation of values that went through a transfer
    Errors
        InputError for options that do not go with it
    """
    options = Namespace(**vars(options))
    if options.n_scales is None and options.preset == "compact":
        options.n_scales = compact_levels_for(size)
    elif options.n_scales is None:
        options.n_scales = max(levels_for(options.task, size), len(options.num_epochs or []))
    if options.num_epochs is None:
        named = options.task, options.quality, size, options.n_scales
        options.num_epochs = epochs_for(*named, options.pack, spread is not None)
    if options.preset == "best" and options.task == "mesh":
        for name, value in accuracy_for(values, options.quality).items():
            if getattr(options, name) is None:
                setattr(options, name, value)
    if options.preset == "compact" and not aims_of(vars(options)):
        vars(options)["lambda"] = LAMBDA if spread is None else error_for(LAMBDA, spread)
    if options.adapts_loss_thr and spread is not None:
        options.loss_thr = error_for(options.loss_thr, spread)
    check_epochs(options)
    check_networks(options)
    check_size(options, size)
    return options


def method_line(options: Namespace) -> str:
    """What was chosen for a signal, and how to choose otherwise."""
    if options.preset == "compact":
        aim = next(f"{name} {value:g}" for name, value in aims_of(vars(options)).items())
        levels = f"{options.n_scales} level{'s' if options.n_scales > 1 else ''}"
        return f"method: compact, {levels}, {aim} (--lambda, --target_psnr or --target_bpp change it)"
    if options.preset != "best":
        of_seed = ", MINER_pl's" if options.preset == "seed" else ""
        return f"method: {options.preset}{of_seed} (--preset best fits better)"
    n_levels = f"{options.n_scales} level{'s' if options.n_scales > 1 else ''}"
    return (
        f"method: best, quality {options.quality}, {n_levels} of {value_text(options.num_epochs)} epochs "
        "(--quality, --n_scales and --num_epochs change it)"
    )


def recorded_options(options: Namespace) -> dict[str, Any]:
    """What to remember of a run: all options but those that tell how to treat its files and this machine."""
    kept = {name: getattr(options, name) for name in _RECORDED}
    if len(options.n_hidden) == 1:
        [kept["n_hidden"]] = options.n_hidden  # a number, as it was when there was no choice
    kept |= {name: value for name in _LATER if (value := getattr(options, name)) != SEED[name]}
    if options.n_parameters is not None:
        kept["n_parameters"] = options.n_parameters
    kept |= {name: value for name in _OF_VALUES if (value := getattr(options, name))}
    if options.preset == "compact":
        kept = {name: value for name, value in kept.items() if name not in SEED or name in (*OF_METHOD, "num_epochs")}
        kept |= {"preset": "compact", "pack": True, "lambda": vars(options)["lambda"], "target_psnr": None}
    elif options.pack:
        kept |= dict(pack=True, loss_db=options.loss_db)
    return json.loads(json.dumps(kept))  # new objects: pickled bytes depend on which strings are one and the same


def identifying_options(options: Namespace) -> dict[str, Any]:
    """Those that change the result: a run goes on with these only. The epochs are compared level by level."""
    return {name: value for name, value in recorded_options(options).items() if name not in _NOT_IDENTIFYING}


def check_options(options: Namespace) -> None:
    """InputError for values that do not go together, or with this machine."""
    task = TASKS[options.task]
    if not re.fullmatch(r"\w[\w.+=-]{0,99}", options.exp_name):
        raise InputError(f"--exp_name {options.exp_name!r}: use up to 100 letters, digits and ._+=-")
    for name in ("input_size", "patch_size"):
        values = getattr(options, name)
        if values is not None and len(values) not in (1, task.n_dims):
            raise InputError(
                f"--{name} {value_text(values)}: {task.signal} takes {task.size_order}, or one number for all"
            )
    if options.betas is not None and len(options.betas) != 2:
        raise InputError(f"--betas {value_text(options.betas)}: must be two numbers from 0 to below 1")
    check_epochs(options)
    if is_mesh(options.path) and options.task != "mesh":
        raise InputError(f"--task {options.task}: {options.path} is a mesh; leave it out")
    for other in TASKS.values():
        if other.metric_name != task.metric_name and (value := target_of(options, other)) is not None:
            raise InputError(f"--target_{other.metric_name} {value}: {task.signal} has --target_{task.metric_name}")
    if options.arch == "gabor" and options.use_pe:
        raise InputError("--arch gabor: it takes positions without an encoding; use --use_pe false")
    if options.loss_db is not None and not options.pack:
        raise InputError(f"--loss_db {options.loss_db:g}: is for --pack, which is not given; add it, or leave this out")
    if options.N is not None and not is_mesh(options.path):
        raise InputError(f"--N {options.N}: {options.path} is no mesh, and has a size of its own; leave it out")
    if options.values is not None and not is_mesh(options.path):
        raise InputError(f"--values {options.values}: {options.path} is no mesh, and tells what it holds; leave it out")
    for name, value in (("transfer", options.transfer), ("nodata", options.nodata or None)):
        if value is not None and not task.has_values:
            words = f"--{name}" if value is True else f"--{name} {value}"
            raise InputError(f"{words}: is for floating point values, and this is {task.signal}; leave it out")
    for name in ("time", "channels"):
        if (value := getattr(options, name)) is not None and options.task != "volume":
            raise InputError(
                f"--{name} {value_text(value)}: chooses of a volume of values, and this is {task.signal}; leave it out"
            )
    if options.input_size and is_mesh(options.path):
        size = value_text(options.input_size)
        raise InputError(f"--input_size {size}: a mesh is sampled at --N voxels along each axis; use that")


def check_networks(options: Namespace) -> None:
    """InputError for a choice of networks that cannot be made."""
    widths, most = value_text(options.n_hidden), options.n_parameters
    if len(options.n_hidden) == 1:
        if most is not None:
            raise InputError(f"--n_parameters {most}: wants several --n_hidden to choose from; {widths} is no choice")
        return
    if len(options.n_hidden) > MOST_WIDTHS:
        raise InputError(f"--n_hidden: {len(options.n_hidden)} numbers of units; use at most {MOST_WIDTHS}")
    if options.weight_sharing != "none":
        raise InputError(
            f"--weight_sharing {options.weight_sharing}: networks of several widths ({widths}) cannot start from each "
            "other; use one --n_hidden"
        )


def check_epochs(options: Namespace) -> None:
    """InputError for more numbers of epochs than there are levels."""
    if options.n_scales is None or options.num_epochs is None:
        return
    n_epochs, n_scales = len(options.num_epochs), options.n_scales
    if n_epochs > n_scales:
        epochs = value_text(options.num_epochs)
        raise InputError(f"--num_epochs {epochs}: {n_epochs} values for --n_scales {n_scales}; give at most {n_scales}")


def target_of(options: Namespace, task: Task) -> float | None:
    """The quality, by the metric of a task, at which a run may end early."""
    return getattr(options, f"target_{task.metric_name}")


def check_size(options: Namespace, size: tuple[int, ...]) -> None:
    """InputError for options that do not go with the size of the signal."""
    most = max(1, math.ceil(math.log2(max(size))) + 1)
    if options.n_scales > most:
        raise InputError(f"--n_scales {options.n_scales}: a signal of {size_text(size)} has at most {most} levels")


def per_axis(values: list[int], n_dims: int) -> tuple[int, ...]:
    """Sizes along the axes (h, w) or (d, h, w), from W H, W H D or one number."""
    return tuple(values * n_dims if len(values) == 1 else values[::-1])


def epochs_of_level(num_epochs: list[int], level: int) -> int:
    """--num_epochs is aligned at the finest level, 0, and repeats its first value for the coarser ones."""
    return num_epochs[max(0, len(num_epochs) - 1 - level)]
