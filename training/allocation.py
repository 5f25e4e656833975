"""Which networks the blocks of a run get, where there are several to choose from."""

from math import prod

import torch
from torch import Tensor

from datasets.targets import LevelTarget
from models.networks import make_network
from training.job import Job
from training.spec import LevelSpec
from utils.allocation import COSINES, LevelCosts, allocate, count_parameters, price_for
from utils.errors import InputError
from utils.raster import Raster


def group_blocks(job: Job, signals: list[Raster]) -> list[Tensor | None]:
    """For each level (n_grid,) int8, the group of each block's network, -1 for none; None where there is one group, or
    blocks are judged one by one.

    A parameter has to lower the error by as much as a pixel whose mean square error is loss_thr has; and by more, where
    there would be more parameters than the plan allows.

    Inputs
        signals: of every level, the finest first
    """
    finest = job.specs[0]
    if len(finest.shapes) == 1 or finest.is_compact:
        return [None] * len(job.specs)
    coarser = [*signals[1:], None]
    costs = [level_costs(job, *of_level) for of_level in zip(job.specs, signals, coarser, strict=True)]
    price = finest.loss_thr * signals[0].n_channels if job.n_parameters is None else 0.0
    choices, most = allocate(costs, price), job.plan.most_parameters
    if count_parameters(costs, choices) > most:
        choices = allocate(costs, price_for(costs, most))
    least = count_parameters(costs, choices)
    if job.n_parameters is not None and least > most:
        raise InputError(f"--n_parameters {most:,}: the coarsest level alone takes {least:,}; allow as many")
    return choices


def level_costs(job: Job, spec: LevelSpec, signal: Raster, coarser: Raster | None) -> LevelCosts:
    """Of a level, whose signal and next coarser signal these are; each process looks at its share of the bands."""
    target = LevelTarget(signal, coarser, spec.patch_size, spec.residual, spec.fill)
    parameters = torch.tensor([make_network(1, shape).n_parameters for shape in spec.shapes])
    mine = target.detail((COSINES * parameters).long(), job.ranks.share_of(target.grid[0]))
    left, missed = (torch.cat(parts) for parts in zip(*job.ranks.exchange(mine), strict=True))
    return LevelCosts(target.grid, prod(spec.patch_size) * signal.n_channels, parameters, left, missed)
