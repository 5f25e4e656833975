"""A part of a level: some of its blocks, which are trained together, each process its share of them."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from datasets.targets import LevelTarget, Survey
from models.block_network import init_blocks_
from models.encoding import encode
from models.level import Level
from models.networks import make_network
from models.sharing import share_weights_
from models.starts import widen_
from training.callbacks import LevelImages, PartProgress, StateSaver
from training.job import Job
from training.module import LevelModule
from training.pruning import BlockPruning
from training.run import Run
from training.spec import LevelSpec
from training.state import PartState, interleave
from training.trainer import train
from utils.blocks import block_coords
from utils.checkpoint import state_path
from utils.errors import InputError
from utils.memory import release_memory
from utils.ranks import Ranks


@dataclass(frozen=True)
class Part:
    """
    span: the part's blocks, as numbers among the active blocks of the level
    blocks: (n_blocks,) their ascending indices in the grid
    other_sums: (2,) the metric's sums for all other blocks of the level
    n_active: active blocks of the level
    """

    span: range
    blocks: Tensor = field(repr=False)
    other_sums: Tensor
    n_active: int

    def level_epoch(self, epoch: float, n_epochs: int) -> float:
        """The epoch of the level that an epoch of this part counts as: of the epochs of all blocks together, those of
        the parts before it and so many of its own are done."""
        return (self.span.start * n_epochs + len(self.span) * epoch) / self.n_active


def fit_part(
    job: Job, spec: LevelSpec, target: LevelTarget, coarser: Level | None, survey: Survey, part: Part
) -> dict[str, Any] | None:
    """Train the networks of a part.

    Inputs
        coarser: the next coarser level, whose networks may be shared
        survey: of the level
    Outputs
        in the first process: network, a dict of tensors; sums, (n_blocks, 2) the metric's; silent, (n_blocks,) which
        blocks predict nothing; epochs that they took; block_epochs, these summed over the blocks; diverged, how many
        blocks did; complete, whether nothing is left to train. None in the others
    """
    release_memory()
    ranks = job.ranks
    mine = part.blocks[ranks.rank :: ranks.size]
    level = _untrained(spec, target, coarser, survey, mine)
    module = LevelModule(
        level.network,
        encode(block_coords(spec.patch_size), spec.frequencies),
        spec,
        backend=job.backend,
        metric=job.metric,
        block_sums=survey.base_sums[mine],
        other_sums=part.other_sums,
        ranks=ranks,
        enough=job.enough,
    )
    _go_on(job.run, module)
    if ranks.max(not module.is_done):
        _train(job, target, level, mine, module, part)
    return _gather(ranks, module)


def _untrained(spec: LevelSpec, target: LevelTarget, coarser: Level | None, survey: Survey, blocks: Tensor) -> Level:
    """The level with the networks of some of its blocks as they are before training."""
    network = make_network(len(blocks), spec.shape, spec.a)
    init_blocks_(network, blocks, spec.seed, spec.index)
    if spec.starts_fitted:
        widen_(network, spec.frequencies)
    network.amplitude.view(-1).copy_(survey.amplitude[blocks])
    level = spec.level(target.signal.size, survey.active, network)
    if coarser is not None and spec.weight_sharing != "none":
        share_weights_(level, blocks, coarser, spec.weight_sharing)
    return level


def _go_on(run: Run, module: LevelModule) -> None:
    """Take over the state in which an earlier process was stopped, if there is one; InputError where it cannot be."""
    if run.state is None:
        return
    try:
        module.load_state(PartState(**run.state["state"]).split(module.ranks.rank, module.ranks.size))
    except Exception as error:  # whatever a record that was tampered with leads to
        path = state_path(run.ckpts)
        raise InputError(
            f"{path} is not consistent: delete it, and --resume fits level {module.spec.index} again"
        ) from error
    run.state = None


def _train(job: Job, target: LevelTarget, level: Level, mine: Tensor, module: LevelModule, part: Part) -> None:
    spec, ranks = module.spec, job.ranks
    callbacks = [
        BlockPruning(),
        StateSaver(lambda state: job.run.save_state(spec.index, part.span, state), job.save_every, job.stop),
    ]
    if ranks.is_first:
        n_before = sum(coarser.n_epochs for coarser in job.specs[spec.index + 1 :])
        module.curves = job.curves.of_level(
            spec.index, n_before, lambda epoch: int(part.level_epoch(epoch, spec.n_epochs)), module.n_epochs_done
        )
        callbacks.append(PartProgress(job.display, part))
        if job.log_image and len(mine) == int(level.active.sum()):
            callbacks.append(LevelImages(level, mine, target, job.b_chunks))
    share = ranks.share_of(len(part.blocks))  # consecutive ones need the least of the coarser level
    gathered = target.gather(part.blocks[share.start : share.stop])
    train(module, gathered.deal(ranks, len(part.blocks)), callbacks, job.device, ranks, job.b_chunks)


def _gather(ranks: Ranks, module: LevelModule) -> dict[str, Any] | None:
    """What `fit_part` returns."""
    pieces = ranks.gather(
        {
            "network": {name: tensor.cpu() for name, tensor in module.network.state_dict().items()},
            "sums": module.block_sums.cpu(),
            "silent": module.silent.cpu(),
            "block_epochs": module.block_epochs,
            "diverged": module.n_diverged,
        }
    )
    if pieces is None:
        return None
    return {
        "network": {name: interleave([piece["network"][name] for piece in pieces]) for name in pieces[0]["network"]},
        **{name: interleave([piece[name] for piece in pieces]) for name in ("sums", "silent")},
        "epochs": module.n_epochs_done,
        **{name: sum(piece[name] for piece in pieces) for name in ("block_epochs", "diverged")},
        "complete": not module.ends_early or module.n_epochs_done >= module.spec.n_epochs or module.n_training == 0,
    }
