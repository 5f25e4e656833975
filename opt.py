"""Every option of train.py, its default and its check."""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from utils.errors import InputError, one_line

ROOT = Path(__file__).resolve().parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


class OneLineParser(ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str, ex: Exception | None = None):
        message = re.sub(r'Parser key "(\w+)":', r"--\1:", one_line(message))
        message = re.sub(r"<class '(\w+)'>", r"\1", message)
        raise InputError(f"{message} (see --help)") from ex


def make_parser() -> ArgumentParser:
    parser = OneLineParser(
        prog="train.py",
        description="Fit an image with a Laplacian pyramid of tiny per-block MLPs. Without any option: "
        "configs/quickstart.yaml, a picture that ships with the project.",
    )
    add = parser.add_argument
    add("--config", action=ActionConfigFile, help="YAML file of options; those on the command line win")

    # the signal
    add("--task", choices=["image", "mesh"], default="image", help="what the signal is")
    add("--path", type=str, help="the picture to fit")
    add(
        "--input_size",
        type=int,
        nargs="+",
        help="size to fit at: W H, or one number for a square; the picture is resized to it (default: its own size)",
    )

    # the pyramid and its blocks
    add("--n_scales", type=int, default=1, help="levels of the pyramid; 4 or 5 suit pictures of 4 to 24 megapixels")
    add("--pyr", choices=["laplacian", "gaussian"], default="laplacian", help="finer levels learn residual or signal")
    add(
        "--patch_size",
        type=int,
        nargs="+",
        default=[32, 32],
        help="pixels of a block: W H, or one number; smaller ones suit signals with more detail",
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
        "--val_freq",
        type=int,
        default=50,
        help="epochs between validations, after which converged blocks stop training",
    )
    add("--loss_thr", type=float, default=1e-4, help="mean square error at which a block has converged: 1e-4 is 40 dB")
    add("--seed", type=int, default=0, help="of the initial weights and of the order of points")

    # the run
    add("--exp_name", type=str, default="exp", help="checkpoints go to ckpts/EXP_NAME, curves to logs/EXP_NAME")
    add("--overwrite", type=bool, nargs="?", const=True, default=False, help="replace an earlier run of the same name")
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
    add("--accelerator", choices=["auto", "cpu", "gpu", "mps"], default="auto", help="where to train")
    return parser


def parse_options(argv: list[str]) -> Namespace:
    """Options from a command line, checked; an empty one means the quickstart.

    Errors
        InputError that names the option and its value
    """
    if not argv:
        argv = ["--config", str(QUICKSTART), "--path", str(ROOT / "images" / "pluto.png")]
    options = make_parser().parse_args(_config_first(argv))
    check_options(options)
    return options


def _config_first(argv: list[str]) -> list[str]:
    """Move --config to the front, so that the rest of the command line overrides it wherever it stands."""
    first, rest = [], []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--config":
            first += [argument, *[value for value in [next(arguments, None)] if value is not None]]
        elif argument.startswith("--config="):
            first.append(argument)
        else:
            rest.append(argument)
    return first + rest


def recorded_options(options: Namespace) -> dict[str, Any]:
    """What to remember of a run: all options but --config and --overwrite, which are no part of its result."""
    kept = {name: value for name, value in vars(options).items() if name not in ("config", "overwrite")}
    return json.loads(json.dumps(kept))  # new objects: pickled bytes depend on which strings are one and the same


def dump_options(options: Namespace) -> str:
    """The options of a run as YAML that --config takes."""
    return make_parser().dump(Namespace(**recorded_options(options)), skip_unset=True, skip_validation=True)


def check_options(options: Namespace) -> None:
    """InputError for values that cannot work whatever the signal is."""
    if options.path is None:
        raise InputError("--path is missing: it names the picture to fit (an empty command line fits a shipped one)")
    if options.task == "mesh":
        raise InputError("--task mesh is not supported yet: --task image works")
    for name in ("input_size", "patch_size"):
        values = getattr(options, name)
        if values is None:
            continue
        given = " ".join(map(str, values))
        if len(values) not in (1, 2):
            raise InputError(f"--{name} {given}: an image takes W H, or one number for a square")
        if min(values) < 1:
            raise InputError(f"--{name} {given}: sizes are at least 1")
    least = {
        "n_scales": 1,
        "n_freq": 1,
        "n_layers": 2,
        "n_hidden": 1,
        "batch_size": 1,
        "val_freq": 1,
        "b_chunks": 1,
        "seed": 0,
    }
    for name, minimum in least.items():
        if getattr(options, name) < minimum:
            raise InputError(f"--{name} {getattr(options, name)}: at least {minimum} works")
    for name in ("lr", "a"):
        value = getattr(options, name)
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} {value}: a positive number works")
    if not (math.isfinite(options.loss_thr) and options.loss_thr >= 0):
        raise InputError(f"--loss_thr {options.loss_thr}: zero or a positive number works")
    epochs = " ".join(map(str, options.num_epochs))
    if min(options.num_epochs) < 1:
        raise InputError(f"--num_epochs {epochs}: each level takes at least 1")
    if len(options.num_epochs) > options.n_scales:
        raise InputError(
            f"--num_epochs {epochs}: {len(options.num_epochs)} values for --n_scales {options.n_scales}, "
            f"at most {options.n_scales} work"
        )
    n_points = math.prod(per_axis(options.patch_size))
    if options.batch_size > n_points:
        patch = "x".join(map(str, per_axis(options.patch_size)[::-1]))
        raise InputError(
            f"--batch_size {options.batch_size}: a patch of {patch} has {n_points} points, at most that works"
        )
    device_of(options.accelerator)
    if not re.fullmatch(r"\w[\w.+=-]*", options.exp_name):
        raise InputError(f"--exp_name {options.exp_name!r}: a plain name of letters, digits and ._+=- works")


def device_of(accelerator: str) -> str:
    """Torch's name of an accelerator; InputError where this machine has none of the kind."""
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("--accelerator gpu: torch sees no GPU here; auto or cpu works")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise InputError("--accelerator mps: torch sees no Apple GPU here; auto or cpu works")
    return {"gpu": "cuda"}.get(accelerator, accelerator)


def check_size(options: Namespace, size: tuple[int, ...]) -> None:
    """InputError for options that do not go with the size of the signal."""
    most = max(1, math.ceil(math.log2(max(size))) + 1)
    if options.n_scales > most:
        shape = "x".join(map(str, size[::-1]))
        raise InputError(f"--n_scales {options.n_scales}: a signal of {shape} has at most {most} levels")


def per_axis(values: list[int], n_dims: int = 2) -> tuple[int, ...]:
    """Sizes along the axes (h, w), from W H or one number."""
    return tuple(values * n_dims if len(values) == 1 else values[::-1])


def epochs_of_level(options: Namespace, level: int) -> int:
    """--num_epochs is aligned at the finest level, 0, and repeats its first value for the coarser ones."""
    epochs = options.num_epochs
    return epochs[max(0, len(epochs) - 1 - level)]
