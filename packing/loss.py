"""How coarsely a fit is quantised: as coarsely as what it may lose allows, measured on what it decodes to."""

from collections.abc import Callable
from dataclasses import dataclass

from models.miner import MINER
from models.packed.quantised import Quantised
from packing.quantise import Quantiser, memory_to_round
from utils.bars import tqdm
from utils.errors import InputError
from utils.memory import available_memory
from utils.metrics import psnr_of

_TRIES = 6
_COPIES = 4  # of all networks: those of the best try, of another one, and what these are made of
_HARDLY = 0.9  # of the error before: what is no less has not followed the steps
_MARGIN, _FAR = 0.9, 4  # then smaller steps are taken, or none where what is allowed is so many times less
_NEAR, _AIM = 0.9, 0.96  # of the error that is allowed: so much is near enough, and so much is aimed at


@dataclass(frozen=True)
class Packed:
    """
    model: the fit with quantised parameters
    codings: of its levels that have networks
    added: mean squared difference to the fit
    """

    model: MINER
    codings: dict[int, Quantised]
    added: float


def pack_within(model: MINER, allowed: float, tried: Callable[[float], None] = lambda _: None) -> Packed:
    """
    Inputs
        allowed: mean squared difference to the fit, over the channels that PSNR counts
        tried: is told the difference of each try
    Errors
        InputError where none is small enough, or memory lacks
    """
    check_rounding(model)
    quantisers = {index: Quantiser.of(level) for index, level in model.levels.items() if level.n_parameters}
    finest = min(quantisers, default=None)
    if finest is None:
        return Packed(model, {}, 0.0)
    error = quantisers[finest].error_for(_AIM * allowed * 4.0**-finest) * 2.0**finest
    best = before = None
    for _ in range(_TRIES):
        packed = _pack(model, quantisers, error)
        tried(packed.added)
        if packed.added <= allowed and (best is None or packed.added > best.added):
            best = packed
        if _NEAR * allowed <= packed.added <= allowed:
            return packed
        if packed.added > allowed and before is not None and packed.added > _HARDLY * before:
            if packed.added > _FAR * allowed:
                break
            error *= _MARGIN
        before = packed.added
        error *= (_AIM * allowed / packed.added) ** 0.5 if packed.added else 4
    if best is None:
        raise InputError("no steps are small enough for a loss as small as that; use --loss_db 0")
    return best


def check_rounding(model: MINER) -> None:
    """InputError if rounding the networks of a fit would take more memory than there is."""
    most = max((memory_to_round(level) for level in model.levels.values()), default=0)
    n_bytes = most + _COPIES * 4 * sum(level.n_parameters for level in model.levels.values())
    free = available_memory()
    if free is not None and n_bytes > free:
        amounts = f"{n_bytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        raise InputError(f"rounding the networks takes {amounts}; use --loss_db 0, which keeps every bit of them")


def _pack(model: MINER, quantisers: dict[int, Quantiser], error: float) -> Packed:
    """A fit with parameters that each make an error of this root mean square in the finest level, about: a parameter of
    a coarser one shows in four times as many pixels, level by level."""
    n_blocks = sum(sum(quantiser.level.blocks_by_group) for quantiser in quantisers.values())
    with tqdm(total=n_blocks, desc="rounding", unit=" blocks", leave=False, disable=None) as bar:
        found = {index: quantiser.quantised(error * 2.0**-index, bar.update) for index, quantiser in quantisers.items()}
    levels = model.levels | {index: level for index, (level, _) in found.items()}
    packed = model.with_levels(levels)
    codings = {index: coding for index, (_, coding) in found.items()}
    return Packed(packed, codings, difference(model, packed))


def difference(one: MINER, other: MINER) -> float:
    """Mean squared difference of what two fits decode to, over the channels that PSNR counts."""
    metric = psnr_of(one.spectral)
    pairs = zip(one.decode_windows(), other.decode_windows(), strict=True)
    squared, count = sum(metric.totals(values, others) for (_, values), (_, others) in pairs).tolist()
    return squared / count
