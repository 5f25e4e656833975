"""A part of a level: some of its blocks, which are trained together, each process its share of them."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from datasets.targets import LevelTarget, Survey
from models.block_network import init_blocks_
from models.block_networks import BlockNetworks
from models.encoding import encode
from models.level import Level
from models.sharing import share_weights_
from models.starts import widen_
from training.callbacks import LevelImages, PartProgress, StateSaver
from training.job import Job
from training.module import LevelModule
from training.pruning import BlockPruning
from training.run import Run
from training.spec import LevelSpec
from training.state import PartState, interleaving, join_groups
from training.trainer import train
from utils.blocks import block_coords
from utils.checkpoint import state_path
from utils.errors import InputError
from utils.figures import points_up
from utils.memory import release_memory
from utils.ranks import Ranks


@dataclass(frozen=True)
class Part:
    """
    span: the part's blocks, as numbers among the active blocks of the level
    blocks: (n_blocks,) their ascending indices in the grid
    group: (n_blocks,) int8, the group of the network of each
    other_sums: (2,) the metric's sums for all other blocks of the level
    n_active: active blocks of the level
    """

    span: range
    blocks: Tensor = field(repr=False)
    group: Tensor = field(repr=False)
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
        in the first process: networks, the tensors of each group; group, (n_blocks,) that of each block; sums,
        (n_blocks, 2) the metric's; silent, (n_blocks,) which blocks predict nothing; epochs that they took;
        block_epochs, these summed over the blocks; diverged, how many blocks did; complete, whether nothing is left to
        train. None in the others
    """
    release_memory()
    ranks = job.ranks
    mine, group = (values[ranks.rank :: ranks.size] for values in (part.blocks, part.group))
    networks = _untrained(spec, target, coarser, survey, mine, group)
    module = LevelModule(
        networks,
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
        _train(job, target, mine, module, part)
    return _gather(ranks, module)


def _untrained(
    spec: LevelSpec, target: LevelTarget, coarser: Level | None, survey: Survey, blocks: Tensor, group: Tensor
) -> BlockNetworks:
    """The networks of some blocks as they are before training."""
    networks = BlockNetworks.make(group, spec.shapes, spec.a)
    for network, _, where in networks.of_groups():
        init_blocks_(network, blocks[where], spec.seed, spec.index)
        if spec.starts_fitted:
            widen_(network, spec.frequencies)
    networks.set_amplitude_(survey.amplitude[blocks])
    if coarser is not None and spec.weight_sharing != "none":
        share_weights_(_level_of(spec, target, blocks, networks), blocks, coarser, spec.weight_sharing)
    return networks


def _level_of(spec: LevelSpec, target: LevelTarget, blocks: Tensor, networks: BlockNetworks) -> Level:
    """The level, if these blocks alone have networks."""
    group = torch.full((prod(target.grid),), -1, dtype=torch.int8)
    group[blocks] = networks.group
    return spec.level(target.signal.size, group, tuple(networks.groups))


def _go_on(run: Run, module: LevelModule) -> None:
    """Take over the state in which an earlier process was stopped, if there is one; InputError where it cannot be."""
    if run.state is None:
        return
    try:
        module.load_state(PartState.from_record(run.state["state"]).split(module.ranks.rank, module.ranks.size))
    except Exception as error:  # whatever a record that was tampered with leads to
        path = state_path(run.ckpts)
        raise InputError(
            f"{path} is not consistent: delete it, and --resume fits level {module.spec.index} again"
        ) from error
    run.state = None


def _train(job: Job, target: LevelTarget, mine: Tensor, module: LevelModule, part: Part) -> None:
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
        if job.log_image and len(mine) == part.n_active:
            level = _level_of(spec, target, mine, module.networks)
            is_up = points_up(job.run.identity["source"], "y")
            callbacks.append(LevelImages(level, mine, target, job.b_chunks, is_up))
    share = ranks.share_of(len(part.blocks))  # consecutive ones need the least of the coarser level
    gathered = target.gather(part.blocks[share.start : share.stop])
    train(module, gathered.deal(ranks, len(part.blocks)), callbacks, job.device, ranks, job.b_chunks)


def _gather(ranks: Ranks, module: LevelModule) -> dict[str, Any] | None:
    """What `fit_part` returns."""
    pieces = ranks.gather(
        {
            "networks": [{name: tensor.cpu() for name, tensor in one.items()} for one in module.networks.tensors()],
            "group": module.networks.group.cpu(),
            "sums": module.block_sums.cpu(),
            "silent": module.silent.cpu(),
            "block_epochs": module.block_epochs,
            "diverged": module.n_diverged,
        }
    )
    if pieces is None:
        return None
    order = interleaving([len(piece["group"]) for piece in pieces])
    group = torch.cat([piece["group"] for piece in pieces])
    return {
        "networks": join_groups([piece["networks"] for piece in pieces], group, order),
        "group": group[order],
        **{name: torch.cat([piece[name] for piece in pieces])[order] for name in ("sums", "silent")},
        "epochs": module.n_epochs_done,
        **{name: sum(piece[name] for piece in pieces) for name in ("block_epochs", "diverged")},
        "complete": not module.ends_early or module.n_epochs_done >= module.spec.n_epochs or module.n_training == 0,
    }
