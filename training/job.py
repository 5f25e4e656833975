"""A run as its parts see it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from models.ops import Backend
from training.display import Display
from training.plan import Plan
from training.run import Run
from training.spec import LevelSpec
from training.stop import Enough, StopSignals
from utils.metrics import Metric
from utils.ranks import Ranks

if TYPE_CHECKING:
    from training.curves import Curves


@dataclass(frozen=True)
class Job:
    """What all levels of a run share.

    specs: of each level, the finest first
    metric: judges the fit
    backend, device: that train
    ranks: the processes that do
    stop, enough: when to end before all epochs are done
    run: the files
    plan: how levels are kept, and how many blocks a process trains at once
    curves: for TensorBoard; None in all processes but the first
    display: of the progress
    n_colours: channels of the signal that count as colours (`utils.channels`)
    n_parameters, b_chunks, save_every, log_image, quiet: the options
    """

    specs: list[LevelSpec]
    metric: Metric
    backend: Backend
    device: torch.device
    ranks: Ranks
    stop: StopSignals
    enough: Enough
    run: Run
    plan: Plan
    curves: "Curves | None"
    display: Display
    n_colours: int
    n_parameters: int | None
    b_chunks: int
    save_every: float
    log_image: bool
    quiet: bool
