"""The options of the preset compact: which it has, and what follows from them."""

from math import gcd, prod
from typing import Any

from options.presets import PRESETS, SEED
from utils.cli import value_text
from utils.errors import InputError
from utils.limits import APART, MOST_COSINES

OF_METHOD = ("n_scales", "patch_size", "n_hidden")
"""Options of a method that it has."""

_AIMS = ("target_psnr", "target_bpp", "lambda")
_OWN = ("lambda", "target_bpp")
_OF_OTHERS = (
    "quality",
    "n_parameters",
    "target_iou",
    "max_seconds",
    "loss_db",
    "log_image",
    "max_blocks",
    "save_every",
    *(SEED.keys() - {*OF_METHOD}),
)


def aims_of(given: dict[str, Any]) -> dict[str, float]:
    """How good or how small the file is to be, by the name of what says so."""
    return {name: given[name] for name in _AIMS if given.get(name) is not None}


def without_other_aims(config: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A config, without its aim where the command line gives one."""
    return {name: value for name, value in config.items() if name not in _AIMS or not aims_of(given)}


def compact_options(given: dict[str, Any], task: str) -> dict[str, Any]:
    """What it sets besides, where that follows from what is given.

    Errors
        InputError for what does not go with it
    """
    own = PRESETS["compact"][task]
    for name in sorted(_OF_OTHERS):
        value = given.get(name)
        if value is not None and value is not False and value != own.get(name):
            raise InputError(f"--{name} {value_text(given[name])}: --preset compact has none; leave it out")
    aims = aims_of(given)
    if len(aims) > 1:
        words = " and ".join(f"--{name} {value:g}" for name, value in aims.items())
        raise InputError(f"{words}: each says how small the file is to be; use one of them")
    follows: dict[str, Any] = {}
    if "patch_size" in given and "n_hidden" not in given:
        parts = [n for n in own["n_hidden"] if _is_cut(given["patch_size"], n)]
        follows["n_hidden"] = parts or [gcd(*given["patch_size"])]
    return follows


def check_compact(options: dict[str, Any]) -> None:
    """InputError for blocks that are not cut into parts, or for options that only this preset has."""
    if options["preset"] == "compact":
        if not options["pack"]:
            raise InputError("--pack off: --preset compact always leaves a packed file; leave it out")
        if options["n_scales"] is not None and options["n_scales"] % APART != 1:
            raise InputError(
                f"--n_scales {options['n_scales']}: --preset compact gives networks to every third level, the coarsest "
                "among them; use 1, 4 or 7"
            )
        _check_size(options["patch_size"], 2 if options["task"] == "image" else 3)
        for n in options["n_hidden"]:
            if not _is_cut(options["patch_size"], n):
                patch = value_text(options["patch_size"])
                raise InputError(f"--n_hidden {n}: must divide --patch_size {patch}; blocks are cut into such parts")
        return
    for name in _OWN:
        if options[name] is not None:
            raise InputError(f"--{name} {options[name]:g}: is for --preset compact; add that, or leave this out")


def _check_size(patch_size: list[int], n_axes: int) -> None:
    if prod(patch_size) ** (n_axes // len(patch_size)) > MOST_COSINES:
        patch = value_text(patch_size)
        raise InputError(
            f"--patch_size {patch}: a block has at most {MOST_COSINES:,} pixels here; choose a smaller one"
        )


def _is_cut(patch_size: list[int], n: int) -> bool:
    """Whether parts of n pixels along each axis make up blocks of this size."""
    return not any(length % n for length in patch_size)
