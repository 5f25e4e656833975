"""Every option of train.py, its default and its check."""

import json
import math
import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import yaml

from datasets.tasks import TASKS, Task
from utils.cli import (
    OneLineParser,
    add_backend_option,
    add_choice,
    add_flag,
    not_negative,
    option_type,
    positive,
    text,
    whole_number,
)
from utils.errors import InputError, one_line, size_text
from utils.files import check_file

_MOST_PIXELS = 2**20  # along an axis
_MOST_EPOCHS = 10**7  # each has a place in the curves
_MOST_CONFIG = 2**20  # bytes
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
    "seed": {"image": {}, "mesh": dict(patch_size=[16])},
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


class _TextLoader(yaml.BaseLoader):
    """Reads values as text, since options have types already, and null as None."""


_TextLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("(~|null|Null|NULL)?$"), ["~", "n", "N", ""])
_TextLoader.add_constructor("tag:yaml.org,2002:null", lambda *_: None)


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="train.py",
        description="Fit an image, or the occupancy of a mesh, with a Laplacian pyramid of tiny per-block MLPs. "
        "Without any option: configs/quickstart.yaml, a picture that ships with the project.",
    )
    add = parser.add_argument
    add("--config", type=text, help="YAML file of options; the command line overrides it")
    add_choice(
        parser,
        "--preset",
        PRESETS,
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


def _add_signal(parser: OneLineParser) -> None:
    add = parser.add_argument
    add_choice(parser, "--task", TASKS, default="image", help="what the signal is")
    add("--path", type=text, help="the picture or occupancy grid to fit")
    add(
        "--input_size",
        type=whole_number(1, _MOST_PIXELS),
        nargs="+",
        help="size to resize a picture to before fitting: W H, or one number for a square. For a volume, the size of "
        "its file: W H D, or one number for a cube (default: the file's own size)",
    )


def _add_pyramid(parser: OneLineParser) -> None:
    add = parser.add_argument
    add(
        "--n_scales",
        type=whole_number(1, 64),
        default=1,
        help="levels of the pyramid; 4 or 5 for pictures of 4 to 24 megapixels",
    )
    add_choice(
        parser,
        "--pyr",
        ["laplacian", "gaussian"],
        default="laplacian",
        help="what finer levels learn: the residual or the signal",
    )
    add(
        "--patch_size",
        type=whole_number(1, _MOST_PIXELS),
        nargs="+",
        default=[32, 32],
        help="pixels of a block: W H (W H D), or one number; smaller blocks suit finer detail; 16 for volumes",
    )


def _add_networks(parser: OneLineParser) -> None:
    add = parser.add_argument
    add_flag(parser, "--use_pe", "encode positions by sines and cosines; fits better, and with fewer layers")
    add("--n_freq", type=whole_number(1, 64), default=4, help="frequencies of the encoding; larger blocks need more")
    add_choice(
        parser,
        "--frequencies",
        ["octaves", "harmonics"],
        default="octaves",
        help="spacing of the encoding's frequencies: 1, 2, 4, ... or, better, 3, 6, 9, ... radians over half a block",
    )
    add_choice(
        parser,
        "--arch",
        ARCHITECTURES,
        default="gaussian",
        help="hidden activations: gaussian, with a sine or sigmoid output; centred, Gaussians minus 1/2, which learn "
        "faster; sine, with a linear output (SIREN); gabor, products with Gabor filters of the positions (a "
        "multiplicative filter network)",
    )
    add(
        "--omega",
        type=positive(),
        help="frequency of --arch sine (default: 150 for images, 30 for volumes), or scale of the initial frequencies "
        "of --arch gabor (10, 5), which fits pictures well with --lr 6e-2 --betas 0.8 0.99",
    )
    add_choice(
        parser,
        "--weight_sharing",
        ["none", "copy", "inherit"],
        default="none",
        help="what networks start from: none, random weights; copy, the weights of the coarser network at that place, "
        "halved for images; inherit, its features exactly (finer levels then have a wider encoding)",
    )
    add(
        "--n_layers",
        type=whole_number(2, 100),
        default=4,
        help="linear layers of a network; 3 are enough with --use_pe",
    )
    add("--n_hidden", type=whole_number(1, 4096), default=20, help="units of a hidden layer")
    add("--a", type=positive(), default=0.1, help="initial width of the activations")


def _add_training(parser: OneLineParser) -> None:
    add = parser.add_argument
    add(
        "--num_epochs",
        type=whole_number(1, _MOST_EPOCHS),
        nargs="+",
        default=[500],
        help="epochs of each level, coarsest first; the first value is repeated for coarser levels that are not listed",
    )
    add("--batch_size", type=whole_number(1), default=256, help="points of a block in a batch; all of a smaller patch")
    add(
        "--lr",
        type=positive(),
        default=3e-2,
        help="learning rate; it falls to a thirtieth along a cosine over each level",
    )
    add_choice(
        parser,
        "--optimizer",
        ["radam", "adam", "nradam"],
        default="radam",
        help="optimizer; nradam is RAdam with Nesterov's momentum",
    )
    add(
        "--betas",
        type=option_type(float, lambda beta: 0 <= beta < 1, "a number from 0 to below 1"),
        nargs="+",
        default=[0.9, 0.999],
        help="decay of the optimizer's two moments; 0.8 0.99 suits fits of a few hundred steps",
    )
    add(
        "--val_freq",
        type=whole_number(1, _MOST_EPOCHS),
        default=50,
        help="epochs between validations, after which converged blocks stop training",
    )
    add(
        "--loss_thr",
        type=not_negative(),
        default=1e-4,
        help="mean square error up to which a block needs no network, or no training: 1e-4 is 40 dB; 5e-3 for volumes",
    )
    add(
        "--stop_ratio",
        type=not_negative(),
        default=1.0,
        help="fraction of loss_thr at which a block stops training; below 1, networks go on improving",
    )
    add("--target_psnr", type=positive(1000), help="PSNR in dB at which a run ends, checked after every validation")
    add("--target_iou", type=positive(1), help="the same for a volume: its IoU")
    add(
        "--max_seconds",
        type=positive(1e9),
        help="time after which a run ends, at the next validation; finer levels are left without networks",
    )
    add(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        default=0,
        help="random seed of the initial weights and of the order of points",
    )


def _add_run(parser: OneLineParser) -> None:
    add = parser.add_argument
    add("--exp_name", type=text, default="exp", help="checkpoints go to ckpts/EXP_NAME, curves to logs/EXP_NAME")
    add_flag(parser, "--overwrite", "replace an earlier run of the same name")
    add_flag(
        parser,
        "--resume",
        "continue an interrupted run of the same name and options; it ends as if it had never stopped",
    )
    add_flag(parser, "--dry_run", "only print the most blocks, parameters and memory that the run can take")
    add(
        "--save_every",
        type=not_negative(1e9),
        default=300.0,
        help="seconds between saves within a level, in addition to every validation",
    )
    add_flag(parser, "--log_image", "show pictures of every validation in TensorBoard")
    add(
        "--b_chunks",
        type=whole_number(1),
        default=16384,
        help="blocks evaluated at once in validation and decoding; fewer save memory",
    )
    add_backend_option(parser)
    add_choice(
        parser,
        "--accelerator",
        ["auto", "cpu", "gpu", "mps"],
        default="auto",
        help="where to train; auto is a CUDA GPU, or else the CPU",
    )
    add(
        "--devices",
        type=whole_number(1, 1024),
        default=1,
        help="processes that share the blocks; each has a device of its own",
    )
    add(
        "--max_memory",
        type=positive(1e6),
        help="GiB of memory for each process; levels that do not fit are kept in mapped files (default: what is free)",
    )
    add(
        "--max_blocks",
        type=whole_number(1),
        help="blocks trained at once on each device; the others wait (default: as many as fit)",
    )


def parse_options(argv: list[str]) -> Namespace:
    """Options from a command line, checked; an empty one means the quickstart.

    What is given wins over the preset, the command line over a config. A batch that is not given has at most as many
    points as a patch.

    Errors
        InputError that names the option and its value
    """
    if not argv:
        argv = ["--config", str(QUICKSTART), "--path", os.path.relpath(ROOT / "images" / "pluto.png")]
    parser = make_parser()
    given = parser.parse_given(argv)
    if "config" in given:
        given = read_config(parser, given["config"]) | given
    defaults = parser.defaults()
    method = defaults | given
    options = Namespace(**defaults | PRESETS[method["preset"]][method["task"]] | given)
    check_options(options)
    patch_size = per_axis(options.patch_size, TASKS[options.task].n_dims)
    n_points = math.prod(patch_size)
    if options.batch_size > n_points and "batch_size" in given:
        patch = f"a patch of {size_text(patch_size)} has {n_points} points"
        raise InputError(f"--batch_size {options.batch_size}: {patch}; use at most that many")
    options.batch_size = min(options.batch_size, n_points)
    return options


def read_config(parser: OneLineParser, path: str) -> dict[str, Any]:
    """Options from a YAML file: `n_scales: 4` stands for `--n_scales 4`, and a single number does for a list."""
    check_file(Path(path), _MOST_CONFIG)
    try:
        config = yaml.load(Path(path).read_text(), _TextLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"--config {path} cannot be read ({one_line(error)})") from error
    if not isinstance(config, dict):
        raise InputError(f"--config {path} holds no options: write lines such as 'n_scales: 4'")
    known, argv = parser.defaults().keys() - {"config"}, []
    for name, value in config.items():
        if name not in known:
            raise InputError(f"--config {path}: {name} is not an option (see --help)")
        words = value if isinstance(value, list) else [value]
        if None in words:
            raise InputError(f"--config {path}: {name} has no value; give it one, or leave it out")
        if len(words) > 1 and not parser.takes_several(name):
            raise InputError(f"--config {path}: {name} takes one value, not {len(words)}")
        if not words or any(not isinstance(word, str) or word.startswith("--") for word in words):
            raise InputError(f"--config {path}: {name} must be a value, or a list of values")
        argv += [f"--{name}", *words] if len(words) > 1 else [f"--{name}={words[0]}"]
    try:
        return parser.parse_given(argv)
    except InputError as error:
        raise InputError(f"--config {path}: {error}") from error


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
    """InputError for values that do not go together, or with this machine."""
    task = TASKS[options.task]
    if options.path is None:
        raise InputError("--path is missing: it names what to fit (an empty command line fits a picture that ships)")
    if not re.fullmatch(r"\w[\w.+=-]{0,99}", options.exp_name):
        raise InputError(f"--exp_name {options.exp_name!r}: use up to 100 letters, digits and ._+=-")
    for name in ("input_size", "patch_size"):
        values = getattr(options, name)
        if values is not None and len(values) not in (1, task.n_dims):
            given = " ".join(map(str, values))
            raise InputError(f"--{name} {given}: {task.signal} takes {task.size_order}, or one number for all")
    if len(options.betas) != 2:
        raise InputError(f"--betas {' '.join(map(str, options.betas))}: must be two numbers from 0 to below 1")
    n_epochs, n_scales = len(options.num_epochs), options.n_scales
    if n_epochs > n_scales:
        given = " ".join(map(str, options.num_epochs))
        raise InputError(f"--num_epochs {given}: {n_epochs} values for --n_scales {n_scales}; give at most {n_scales}")
    for other in TASKS.values():
        if other is not task and (value := target_of(options, other)) is not None:
            raise InputError(f"--target_{other.metric_name} {value}: {task.signal} has --target_{task.metric_name}")
    if options.arch == "gabor" and options.use_pe:
        raise InputError("--arch gabor: it takes positions without an encoding; use --use_pe false")
    device_of(options.accelerator)


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
