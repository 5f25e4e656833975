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

from datasets.tasks import TASKS, Task
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

_LEAST = dict(
    n_scales=1,
    n_freq=1,
    n_layers=2,
    n_hidden=1,
    batch_size=1,
    val_freq=1,
    b_chunks=1,
    devices=1,
    max_blocks=1,
    seed=0,
)
_POSITIVE = ("lr", "a", "omega", "max_memory", "max_seconds", "target_psnr", "target_iou")
_NOT_NEGATIVE = ("loss_thr", "stop_ratio", "save_every")

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

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gaussian": dict(activation="gaussian"),
    "centred": dict(activation="gaussian", centre=0.5),
    "sine": dict(activation="sine", output="linear", omega={"image": 150.0, "mesh": 30.0}),
    "gabor": dict(kind="filters", activation="gabor", output="linear", omega={"image": 10.0, "mesh": 5.0}),
}
"""What --arch means for the shape of a network (`models.shape`); omega is the default for each task, and the output,
where none is given, a sine for residuals and a sigmoid for signals."""

ROOT = Path(__file__).resolve().parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


class OneLineParser(ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str, ex: Exception | None = None):
        message = re.sub(r'Parser key "(\w+)"( element \d+)?:', r"--\1:", one_line(message))
        message = re.sub(r"<class '(\w+)'>", r"\1", message)
        raise InputError(f"{message} (see --help)") from ex


def add_flag(parser: ArgumentParser, name: str, help: str) -> None:
    """An option that is off unless it is named; `--name false` turns it off again."""
    parser.add_argument(f"--{name}", type=bool, nargs="?", const=True, default=False, help=help)


def add_backend_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=["auto", "reference", "fused"],
        default="auto",
        help="how networks are computed: by fused kernels or plain torch (reference); auto is fused where possible",
    )


def make_parser() -> ArgumentParser:
    parser = OneLineParser(
        prog="train.py",
        description="Fit an image, or the occupancy of a mesh, with a Laplacian pyramid of tiny per-block MLPs. "
        "Without any option: configs/quickstart.yaml, a picture that ships with the project.",
    )
    add = parser.add_argument
    add("--config", type=str, help="YAML file of options; the command line overrides it")
    add(
        "--preset",
        choices=list(PRESETS),
        default="seed",
        help="a method, whose options apply unless they are given: seed is MINER_pl's, paper that of the MINER paper; "
        "best fits better and faster",
    )
    _add_signal(parser)
    _add_pyramid(parser)
    _add_networks(parser)
    _add_training(parser)
    _add_run(parser)
    return parser


def _add_signal(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--task", choices=list(TASKS), default="image", help="what the signal is")
    add("--path", type=str, help="the picture or occupancy grid to fit")
    add(
        "--input_size",
        type=int,
        nargs="+",
        help="size to resize a picture to before fitting: W H, or one number for a square. For a volume, the size of "
        "its file: W H D, or one number for a cube (default: the file's own size)",
    )


def _add_pyramid(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--n_scales", type=int, default=1, help="levels of the pyramid; 4 or 5 for pictures of 4 to 24 megapixels")
    add(
        "--pyr",
        choices=["laplacian", "gaussian"],
        default="laplacian",
        help="what finer levels learn: the residual or the signal",
    )
    add(
        "--patch_size",
        type=int,
        nargs="+",
        default=[32, 32],
        help="pixels of a block: W H (W H D), or one number; smaller blocks suit finer detail",
    )


def _add_networks(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add_flag(parser, "use_pe", "encode positions by sines and cosines; fits better, and with fewer layers")
    add("--n_freq", type=int, default=4, help="frequencies of the encoding; larger blocks need more")
    add(
        "--frequencies",
        choices=["octaves", "harmonics"],
        default="octaves",
        help="spacing of the encoding's frequencies: 1, 2, 4, ... or, better, 3, 6, 9, ... radians over half a block",
    )
    add(
        "--arch",
        choices=list(ARCHITECTURES),
        default="gaussian",
        help="hidden activations: gaussian, with a sine or sigmoid output; centred, Gaussians minus 1/2, which learn "
        "faster; sine, with a linear output (SIREN); gabor, products with Gabor filters of the positions (a "
        "multiplicative filter network)",
    )
    add(
        "--omega",
        type=float,
        help="frequency of --arch sine (default: 150 for images, 30 for volumes), or scale of the initial frequencies "
        "of --arch gabor (10, 5), which fits pictures well with --lr 6e-2 --betas 0.8 0.99",
    )
    add(
        "--weight_sharing",
        choices=["none", "copy", "inherit"],
        default="none",
        help="what networks start from: none, random weights; copy, the weights of the coarser network at that place, "
        "halved for images; inherit, its features exactly (finer levels then have a wider encoding)",
    )
    add("--n_layers", type=int, default=4, help="linear layers of a network; 3 are enough with --use_pe")
    add("--n_hidden", type=int, default=20, help="units of a hidden layer")
    add("--a", type=float, default=0.1, help="initial width of the activations")


def _add_training(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--num_epochs",
        type=int,
        nargs="+",
        default=[500],
        help="epochs of each level, coarsest first; the first value is repeated for coarser levels that are not listed",
    )
    add("--batch_size", type=int, default=256, help="points of a block in a batch, at most as many as a patch has")
    add("--lr", type=float, default=3e-2, help="learning rate; it falls to a thirtieth along a cosine over each level")
    add(
        "--optimizer",
        choices=["radam", "adam", "nradam"],
        default="radam",
        help="optimizer; nradam is RAdam with Nesterov's momentum",
    )
    add(
        "--betas",
        type=float,
        nargs="+",
        default=[0.9, 0.999],
        help="decay of the optimizer's two moments; 0.8 0.99 suits fits of a few hundred steps",
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
        help="fraction of loss_thr at which a block stops training; below 1, networks go on improving",
    )
    add("--target_psnr", type=float, help="PSNR in dB at which a run ends, checked after every validation")
    add("--target_iou", type=float, help="the same for a volume: its IoU")
    add(
        "--max_seconds",
        type=float,
        help="time after which a run ends, at the next validation; finer levels are left without networks",
    )
    add("--seed", type=int, default=0, help="random seed of the initial weights and of the order of points")


def _add_run(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--exp_name", type=str, default="exp", help="checkpoints go to ckpts/EXP_NAME, curves to logs/EXP_NAME")
    add_flag(parser, "overwrite", "replace an earlier run of the same name")
    add_flag(
        parser, "resume", "continue an interrupted run of the same name and options; it ends as if it had never stopped"
    )
    add_flag(parser, "dry_run", "only print the most blocks, parameters and memory that the run can take")
    add(
        "--save_every",
        type=float,
        default=300,
        help="seconds between saves within a level, in addition to every validation",
    )
    add_flag(parser, "log_image", "show pictures of every validation in TensorBoard")
    add(
        "--b_chunks",
        type=int,
        default=16384,
        help="blocks evaluated at once in validation and decoding; fewer save memory",
    )
    add_backend_option(parser)
    add(
        "--accelerator",
        choices=["auto", "cpu", "gpu", "mps"],
        default="auto",
        help="where to train; auto is a CUDA GPU, or else the CPU",
    )
    add("--devices", type=int, default=1, help="processes that share the blocks; each has a device of its own")
    add(
        "--max_memory",
        type=float,
        help="GiB of memory for each process; levels that do not fit are kept in mapped files (default: what is free)",
    )
    add(
        "--max_blocks",
        type=int,
        help="blocks trained at once on each device; the others wait (default: as many as fit)",
    )


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
        raise InputError(f"--config {path} holds no options: write lines such as 'n_scales: 4'")
    known = vars(make_parser().get_defaults()).keys() - {"config"}
    for name, value in config.items():
        if name not in known:
            raise InputError(f"--config {path}: {name} is not an option (see --help)")
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
    """InputError for values that no signal can be fitted with."""
    if options.path is None:
        raise InputError("--path is missing: it names what to fit (an empty command line fits a picture that ships)")
    if not re.fullmatch(r"\w[\w.+=-]{0,99}", options.exp_name):
        raise InputError(f"--exp_name {options.exp_name!r}: use up to 100 letters, digits and ._+=-")
    task = TASKS[options.task]
    _check_numbers(options)
    _check_sizes(options, task)
    _check_epochs(options)
    for other in TASKS.values():
        if other is not task and (value := target_of(options, other)) is not None:
            raise InputError(f"--target_{other.metric_name} {value}: {task.signal} has --target_{task.metric_name}")
    if options.arch == "gabor" and options.use_pe:
        raise InputError("--arch gabor: it takes positions without an encoding; use --use_pe false")
    device_of(options.accelerator)


def _check_numbers(options: Namespace) -> None:
    for name, least in _LEAST.items():
        if getattr(options, name) is not None and getattr(options, name) < least:
            raise InputError(f"--{name} {getattr(options, name)}: must be at least {least}")
    for name in _POSITIVE:
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} {value}: must be a positive number")
    for name in _NOT_NEGATIVE:
        value = getattr(options, name)
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"--{name} {value}: must be zero or a positive number")
    if options.seed >= 2**63:
        raise InputError(f"--seed {options.seed}: must be less than 2^63")
    if len(options.betas) != 2 or not all(0 <= beta < 1 for beta in options.betas):
        raise InputError(f"--betas {' '.join(map(str, options.betas))}: must be two numbers from 0 to below 1")


def _check_sizes(options: Namespace, task: Task) -> None:
    for name in ("input_size", "patch_size"):
        values = getattr(options, name)
        if values is None:
            continue
        given = " ".join(map(str, values)) or "without a number"
        if len(values) not in (1, task.n_dims):
            raise InputError(f"--{name} {given}: {task.signal} takes {task.size_order}, or one number for all")
        if not 1 <= min(values) <= max(values) <= _MOST_PIXELS:
            raise InputError(f"--{name} {given}: sizes must be between 1 and {_MOST_PIXELS}")
    patch_size = per_axis(options.patch_size, task.n_dims)
    n_points = math.prod(patch_size)
    if options.batch_size > n_points:
        patch = f"a patch of {size_text(patch_size)} has {n_points} points"
        raise InputError(f"--batch_size {options.batch_size}: {patch}; use at most that many")


def _check_epochs(options: Namespace) -> None:
    given, n_scales = " ".join(map(str, options.num_epochs)), options.n_scales
    if min(options.num_epochs, default=0) < 1:
        raise InputError(f"--num_epochs {given}: every level needs at least 1")
    if len(options.num_epochs) > n_scales:
        n_given = len(options.num_epochs)
        raise InputError(f"--num_epochs {given}: {n_given} values for --n_scales {n_scales}; give at most {n_scales}")


def target_of(options: Namespace, task: Task) -> float | None:
    """The quality, by the metric of a task, at which a run may end early."""
    return getattr(options, f"target_{task.metric_name}")


def device_of(accelerator: str) -> str:
    """Torch's name of an accelerator; InputError where this machine has none of the kind.

    `auto` is a GPU of NVIDIA's or the CPU: an Apple GPU has no fused kernel, and is slower than its CPU.
    """
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("--accelerator gpu: torch finds no GPU here; use cpu")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise InputError("--accelerator mps: torch finds no Apple GPU here; use cpu")
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
