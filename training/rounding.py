"""Networks that are rounded as they are fitted, so that finer levels build on what will be decoded."""

import torch
from torch import Tensor

from datasets.targets import LevelTarget
from models.block_networks import BlockNetworks
from models.encoding import encode
from models.level import Level
from models.ops import reference
from models.packed.quantised import Quantised
from packing.quantise import Quantiser, fraction_for
from training.spec import LevelSpec
from utils.blocks import block_coords
from utils.metrics import Metric, psnr

_SAMPLE = 256  # blocks that tell the error of a level whose metric is another


def rounded(
    level: Level, target: LevelTarget, metric: Metric, sums: Tensor, spec: LevelSpec
) -> tuple[Level, Quantised]:
    """A level with networks of few bits, and their coding.

    What rounding adds to the error of the blocks that have a network is a fraction of that error. Finer levels have
    more parameters by far, and have to undo it: for them, each level's fraction is half of the next finer one's.

    Inputs
        sums: (n_grid, 2) the metric's, of the level as it is fitted
    """
    active = level.group >= 0
    if metric.name == psnr.name:
        squared, count = sums[active].sum(0).tolist()
        error = squared / max(count, 1)
    else:
        error = sampled_error(level, target)
    share = float(active.double().mean())
    allowed = error * share * fraction_for(spec.loss_db) * 2.0**-spec.index
    quantiser = Quantiser.of(level)
    return quantiser.quantised(quantiser.error_for(max(allowed, 1e-12)))


@torch.no_grad()
def sampled_error(level: Level, target: LevelTarget) -> float:
    """Mean squared error of a level, from some of its blocks that have a network."""
    active = (level.group >= 0).nonzero().squeeze(1)
    some = torch.linspace(0, len(active) - 1, min(len(active), _SAMPLE)).long().unique()
    signal, base = target.gather(active[some]).gather(torch.arange(len(some)))
    coords = encode(block_coords(level.patch_size), level.frequencies)
    values = BlockNetworks(level.group[active], level.networks).predict(reference, some, coords)
    values = values + base if level.residual else values
    return float((values.clamp(0, 1) - signal).square().mean())
