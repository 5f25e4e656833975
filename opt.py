"""Every option of train.py, its default and its check."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace

from utils.errors import InputError, one_line, size_text

_LISTS = ("input_size", "patch_size", "num_epochs")
_MOST_PIXELS = 2**20  # along an axis
_HANDLING = (
    *("config", "preset", "overwrite", "resume", "save_every", "dry_run"),
    *("devices", "max_memory", "max_blocks"),
)
_NOT_IDENTIFYING = (
    *("path", "num_epochs", "target_psnr", "target_iou", "max_seconds"),
    *("exp_name", "log_image", "b_chunks", "backend", "accelerator"),
)

_PAPER = dict(
    arch="sine",
    n_layers=4,
    n_hidden=9,
    weight_sharing="copy",
    optimizer="adam",
    lr=5e-4,
    loss_thr=2e-7,
)
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "seed": {"image": {}, "mesh": {}},
    "paper": {"image": _PAPER, "mesh": _PAPER | dict(patch_size=[16])},
    "best": {
        "image": dict(
            arch="centred",
            use_pe=True,
            frequencies="harmonics",
            n_freq=6,
            n_layers=3,
            n_hidden=18,
            a=0.8,
            optimizer="nradam",
            betas=[0.9, 0.99],
            lr=6e-2,
            batch_size=128,
            stop_ratio=0.25,
        ),
        "mesh": dict(
            patch_size=[16],
            arch="centred",
            use_pe=True,
            frequencies="harmonics",
            n_freq=2,
            n_layers=3,
            n_hidden=8,
            a=0.8,
            optimizer="nradam",
            betas=[0.9, 0.99],
            batch_size=1024,
            loss_thr=5e-3,
            stop_ratio=0.1,
        ),
    },
}
"""Options of a method, by name and task; those that are given win."""

ROOT = Path(__file__).resolve().parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


class OneLineParser(ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str, ex: Exception | None = None):
        message = re.sub(r'Parser key "(\w+)"( element \d+)?:', r"--\1:", one_line(message))
        message = re.sub(r"<class '(\w+)'>", r"\1", message)
        raise InputError(f"{message} (see --help)") from ex


def add_backend_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=["auto", "reference", "fused"],
        default="auto",
        help="how networks are computed: fused kernels, or plain torch; auto is fused where that can serve",
    )


def make_parser() -> ArgumentParser:
    parser = OneLineParser(
        prog="train.py",
        description="Fit an image, or the occupancy of a mesh, with a Laplacian pyramid of tiny per-block MLPs. "
        "Without any option: configs/quickstart.yaml, a picture that ships with the project.",
    )
    add = parser.add_argument
    add("--config", type=str, help="YAML file of options; those on the command line win")
    add(
        "--preset",
        choices=list(PRESETS),
        default="seed",
        help="options of a method, where they are not given: seed; paper, those of the MINER paper; or best, which "
        "fits better, and faster",
    )

    # the signal
    add("--task", choices=["image", "mesh"], default="image", help="what the signal is")
    add("--path", type=str, help="the picture, or the occupancy grid, to fit")
    add(
        "--input_size",
        type=int,
        nargs="+",
        help="size to fit at: W H, or one number for a square; a picture is resized to it. For a volume W H D, or one "
        "number for a cube: the size of its file (default: the file's own size)",
    )

    # the pyramid and its blocks
    add("--n_scales", type=int, default=1, help="levels of the pyramid; 4 or 5 suit pictures of 4 to 24 megapixels")
    add("--pyr", choices=["laplacian", "gaussian"], default="laplacian", help="finer levels learn residual or signal")
    add(
        "--patch_size",
        type=int,
        nargs="+",
        default=[32, 32],
        help="pixels of a block: W H (W H D), or one number; smaller ones suit signals with more detail",
    )

    # the networks
    add(
        "--use_pe",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="encode positions; fits better with fewer layers",
    )
    add("--n_freq", type=int, default=4, help="frequencies of the encoding; larger blocks want more")
    add(
        "--frequencies",
        choices=["octaves", "harmonics"],
        default="octaves",
        help="those of the encoding: 1, 2, 4, ... or, better, 3, 6, 9, ... over half a block",
    )
    add(
        "--arch",
        choices=["gaussian", "centred", "sine", "gabor"],
        default="gaussian",
        help="hidden activations: Gaussians, with a sine or sigmoid at the end; these less a half, which learn faster; "
        "sines, with nothing at the end (SIREN); or none, but products with Gabor filters of the positions (a "
        "multiplicative filter network)",
    )
    add(
        "--omega",
        type=float,
        help="frequency of --arch sine (default: 150 for images, 30 for volumes), or scale of the initial ones of "
        "--arch gabor (10, 5), for which --lr 6e-2 --betas 0.8 0.99 suits pictures",
    )
    add(
        "--weight_sharing",
        choices=["none", "copy", "inherit"],
        default="none",
        help="what networks start from: nothing; the next coarser network there, halved for images; or its features, "
        "exactly (the encoding of each finer level is then wider)",
    )
    add("--n_layers", type=int, default=4, help="linear layers of a network; 3 with --use_pe")
    add("--n_hidden", type=int, default=20, help="hidden units of a layer")
    add("--a", type=float, default=0.1, help="initial width of the activations")

    # training
    add(
        "--num_epochs",
        type=int,
        nargs="+",
        default=[500],
        help="epochs of each level, coarsest first; a shorter list repeats its first value for the coarser levels",
    )
    add("--batch_size", type=int, default=256, help="points of a block in a batch; at most those of a patch")
    add("--lr", type=float, default=3e-2, help="learning rate, falls to a thirtieth by a cosine over each level")
    add(
        "--optimizer",
        choices=["radam", "adam", "nradam"],
        default="radam",
        help="what takes the steps; nradam is RAdam with Nesterov's momentum",
    )
    add(
        "--betas",
        type=float,
        nargs="+",
        default=[0.9, 0.999],
        help="decay of the optimizer's two moments; 0.8 0.99 suits fits of some hundred steps",
    )
    add(
        "--val_freq",
        type=int,
        default=50,
        help="epochs between validations, after which converged blocks stop training",
    )
    add(
        "--loss_thr",
        type=float,
        default=1e-4,
        help="mean square error up to which a block needs no network, or no training: 1e-4 is 40 dB; 5e-3 for volumes",
    )
    add(
        "--stop_ratio",
        type=float,
        default=1.0,
        help="part of loss_thr at which a block stops training: below 1, networks that are there get better",
    )
    add("--target_psnr", type=float, help="dB of a picture at which a run ends; looked at after every validation")
    add("--target_iou", type=float, help="likewise of a volume")
    add("--max_seconds", type=float, help="after which a run ends, at the next validation; finer levels stay empty")
    add("--seed", type=int, default=0, help="of the initial weights and of the order of points")

    # the run
    add("--exp_name", type=str, default="exp", help="checkpoints go to ckpts/EXP_NAME, curves to logs/EXP_NAME")
    add("--overwrite", type=bool, nargs="?", const=True, default=False, help="replace an earlier run of the same name")
    add(
        "--resume",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="go on with an interrupted run of the same name and options; it ends as if it had not been interrupted",
    )
    add(
        "--dry_run",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="only print how many blocks, parameters and how much memory the run takes at most",
    )
    add("--save_every", type=float, default=300, help="seconds between savings of a level, besides every validation")
    add(
        "--log_image",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="pictures of every validation in TensorBoard",
    )
    add(
        "--b_chunks",
        type=int,
        default=16384,
        help="blocks evaluated at once in validation and decoding; less saves memory",
    )
    add_backend_option(parser)
    add("--accelerator", choices=["auto", "cpu", "gpu", "mps"], default="auto", help="where to train")
    add("--devices", type=int, default=1, help="processes that share out the blocks; each takes a device of its own")
    add(
        "--max_memory",
        type=float,
        help="GiB of memory for each process; what does not fit lies in files (default: what is free)",
    )
    add(
        "--max_blocks",
        type=int,
        help="blocks trained at once on each device; what does not fit waits (default: as many as fit)",
    )
    return parser


def parse_options(argv: list[str]) -> Namespace:
    """Options from a command line, checked; an empty one means the quickstart.

    Errors
        InputError that names the option and its value
    """
    if not argv:
        argv = ["--config", str(QUICKSTART), "--path", os.path.relpath(ROOT / "images" / "pluto.png")]
    parser = make_parser()
    given = vars(parser.parse_args(argv, defaults=False))
    path = given.pop("config", None)
    config = {} if path is None else read_config(path)
    given = config | {name: value for name, value in given.items() if value is not None}
    options = parser.parse_object(given)
    options = parser.parse_object(PRESETS[options.preset][options.task] | given)
    check_options(options)
    return options


def read_config(path: str) -> dict[str, Any]:
    """Options from a YAML file; a single number does for a list."""
    try:
        config = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--config {path} cannot be read ({one_line(error)})") from error
    if not isinstance(config, dict):
        raise InputError(f"--config {path} holds no options: lines like 'n_scales: 4' work")
    known = vars(make_parser().get_defaults()).keys() - {"config"}
    for name, value in config.items():
        if name not in known:
            raise InputError(f"--config {path}: {name} is no option (see --help)")
        if value is None:
            raise InputError(f"--config {path}: {name} has no value")
        if name in _LISTS and isinstance(value, int):
            config[name] = [value]
    return config


def recorded_options(options: Namespace) -> dict[str, Any]:
    """What to remember of a run: all options but those that tell how to treat its files and this machine."""
    kept = {name: value for name, value in vars(options).items() if name not in _HANDLING}
    return json.loads(json.dumps(kept))  # new objects: pickled bytes depend on which strings are one and the same


def identifying_options(options: Namespace) -> dict[str, Any]:
    """Those that change the result: a run goes on with these only. The epochs are compared level by level."""
    return {name: value for name, value in recorded_options(options).items() if name not in _NOT_IDENTIFYING}


def dump_options(recorded: dict[str, Any]) -> str:
    """The recorded options of a run as YAML that --config takes."""
    kept = {name: value for name, value in recorded.items() if value is not None}
    return yaml.safe_dump(kept, sort_keys=False, default_flow_style=None)


def check_options(options: Namespace) -> None:
    """InputError for values that cannot work whatever the signal is."""
    if options.path is None:
        raise InputError("--path is missing: it names what to fit (an empty command line fits a picture that ships)")
    n_dims, signal, order = (2, "an image", "W H") if options.task == "image" else (3, "a volume", "W H D")
    for name in ("input_size", "patch_size"):
        values = getattr(options, name)
        if values is None:
            continue
        given = " ".join(map(str, values)) or "without a number"
        if len(values) not in (1, n_dims):
            raise InputError(f"--{name} {given}: {signal} takes {order}, or one number for all")
        if not 1 <= min(values) <= max(values) <= _MOST_PIXELS:
            raise InputError(f"--{name} {given}: sizes from 1 to {_MOST_PIXELS} work")
    least = {
        "n_scales": 1,
        "n_freq": 1,
        "n_layers": 2,
        "n_hidden": 1,
        "batch_size": 1,
        "val_freq": 1,
        "b_chunks": 1,
        "devices": 1,
        "max_blocks": 1,
        "seed": 0,
    }
    for name, minimum in least.items():
        if getattr(options, name) is not None and getattr(options, name) < minimum:
            raise InputError(f"--{name} {getattr(options, name)}: at least {minimum} works")
    for name in ("lr", "a", "omega", "max_memory", "max_seconds", "target_psnr", "target_iou"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} {value}: a positive number works")
    for name in ("loss_thr", "stop_ratio", "save_every"):
        value = getattr(options, name)
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"--{name} {value}: zero or a positive number works")
    unmeant = "target_iou" if options.task == "image" else "target_psnr"
    if getattr(options, unmeant) is not None:
        meant = "--target_psnr" if options.task == "image" else "--target_iou"
        raise InputError(f"--{unmeant} {getattr(options, unmeant)}: {signal} has {meant}")
    if options.seed >= 2**63:
        raise InputError(f"--seed {options.seed}: less than 2^63 works")
    if len(options.betas) != 2 or not all(0 <= beta < 1 for beta in options.betas):
        raise InputError(f"--betas {' '.join(map(str, options.betas))}: two numbers from 0 to below 1 work")
    epochs = " ".join(map(str, options.num_epochs))
    if min(options.num_epochs, default=0) < 1:
        raise InputError(f"--num_epochs {epochs}: each level takes at least 1")
    if len(options.num_epochs) > options.n_scales:
        raise InputError(
            f"--num_epochs {epochs}: {len(options.num_epochs)} values for --n_scales {options.n_scales}, "
            f"at most {options.n_scales} work"
        )
    patch_size = per_axis(options.patch_size, n_dims)
    n_points = math.prod(patch_size)
    if options.batch_size > n_points:
        patch = f"a patch of {size_text(patch_size)} has {n_points} points"
        raise InputError(f"--batch_size {options.batch_size}: {patch}, at most that works")
    if options.arch == "gabor" and options.use_pe:
        raise InputError("--arch gabor: it takes positions as they are; --use_pe false works")
    device_of(options.accelerator)
    if not re.fullmatch(r"\w[\w.+=-]{0,99}", options.exp_name):
        raise InputError(f"--exp_name {options.exp_name!r}: up to 100 letters, digits and ._+=- work")


def device_of(accelerator: str) -> str:
    """Torch's name of an accelerator, of the best one for auto; InputError where this machine has none of the kind."""
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("--accelerator gpu: torch sees no GPU here; cpu works")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise InputError("--accelerator mps: torch sees no Apple GPU here; cpu works")
    return {"gpu": "cuda"}.get(accelerator, accelerator)


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
