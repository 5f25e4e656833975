"""The levels of a run, coarse to fine: each is fitted a part at a time, saved, and decoded for the next one."""

import dataclasses
import math
import tempfile
import time
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.targets import LevelTarget, Survey
from models.block_network import BlockNetwork
from models.level import Level, refine
from models.networks import make_network, network_of
from models.ops import prepare_all
from models.packed.held import level_of
from models.shape import NetworkShape
from training.allocation import group_blocks
from training.compact import fit_compact_level
from training.job import Job
from training.part import Part, fit_part
from training.rounding import rounded
from training.run import JOINING, Run, span_of
from training.spec import LevelSpec
from utils.arrays import map_new_array
from utils.checkpoint import find_levels, level_path, load_level, load_part, part_path, state_path
from utils.errors import InputError, Interrupted, one_line
from utils.raster import COMPUTED, COMPUTED_UNIT, Raster, as_numbers, map_raster, new_raster
from utils.windows import row_ranges, whole


def fit_levels(job: Job, signals: list[Raster]) -> dict[str, Any]:
    """Fit the levels that are not done yet; each one's checkpoint is written as it is done.

    Inputs
        signals: every level of the signal, the finest first
    Outputs
        levels, what became of each, and seconds, for the report
    """
    start, reports, coarse, level = time.perf_counter(), [], None, None
    groups = group_blocks(job, signals)
    for spec in reversed(job.specs):
        target = LevelTarget(signals[spec.index], coarse, spec.patch_size, spec.residual, spec.fill, spec.is_clipped)
        if spec.index not in job.run.done:
            if spec.is_compact:
                fit_compact_level(job, spec, target)
            else:
                fit_level(job, spec, target, groups[spec.index], level, reports)
            if job.stop():
                raise Interrupted
        level, report = read_level(job, spec, target)
        reports.append(report)
        if spec.index > 0:
            for network in level.networks:
                network.to(job.device)
            coarse, quality = reconstruct(job, level, target, spec.index)
            if spec.is_whole:
                reports[-1][job.metric.name] = quality if math.isfinite(quality) else None
    return {"levels": reports[::-1], "seconds": {"fit": time.perf_counter() - start}}


def read_level(job: Job, spec: LevelSpec, target: LevelTarget) -> tuple[Level, dict[str, Any]]:
    """A level from its checkpoint, and the report of it; InputError for a checkpoint that was tampered with."""
    path = level_path(job.run.ckpts, spec.index)
    record = load_level(path)
    try:
        level = level_of(record, str(path))
        level.check(target.signal.size, target.signal.n_channels)
        return level, {
            "level": spec.index,
            **level.summary(),
            "epochs": record["epochs"],
            "points_trained": record["block_epochs"] * prod(target.patch_size),
            "diverged_blocks": record["diverged"],
        }
    except Exception as error:  # whatever such a record leads to
        raise InputError(
            f"{path} is not consistent ({one_line(error)[:200]}); fit it again, with --overwrite"
        ) from error


def fit_level(
    job: Job,
    spec: LevelSpec,
    target: LevelTarget,
    group: Tensor | None,
    coarser: Level | None,
    before: list[dict[str, Any]],
) -> None:
    """Train the networks of a level, one part of its blocks after another, and write its checkpoint.

    Inputs
        group: (n_grid,) int8, the group of the network of each block, -1 for none; None where all are of one group, and
            whether a block has one follows from its error without it
        coarser: the next coarser level, whose networks may be shared
        before: the report of each coarser level
    Errors
        InputError where most blocks so far have diverged; no checkpoint is then written
    """
    run, ranks = job.run, job.ranks
    survey = survey_level(job, spec, target)
    if group is None:
        group = survey.active.to(torch.int8) - 1
    active = (group >= 0).nonzero().squeeze(1)
    prepare_all(job.backend, [spec.shapes[number] for number in group[active].unique().tolist()])
    sums = survey.base_sums.double()
    parts, first = finished_parts(run, spec, group[active]), 0
    for part in parts:
        span = span_of(part)
        sums[active[span.start : span.stop]] = part["sums"].double()
        first = span.stop
    complete = not job.enough.why  # and the coarser levels are
    with job.display.level(spec, len(active)):
        while first < len(active) and not job.enough.why:
            span = range(first, min(first + job.plan.max_blocks * ranks.size, len(active)))
            if run.state is not None:
                span = span_of_state(run, first, len(active))
            blocks = active[span.start : span.stop]
            other_sums = sums.sum(0) - sums[blocks].sum(0)
            part = Part(span, blocks, group[blocks], other_sums, len(active))
            outcome = fit_part(job, spec, target, coarser, survey, part)
            first = span.stop
            if ranks.is_first:
                parts.append(outcome)
                complete = outcome["complete"]
                sums[blocks] = outcome["sums"].double()
                if len(span) < len(active) and complete:
                    run.save_part(spec.index, span, outcome)
                    parts[-1] = load_part(part_path(run.ckpts, span.start))
            if first < len(active) and job.stop():
                raise Interrupted
    complete = complete and first == len(active)
    group[active[first:]] = -1
    refuse_divergence(job, before, len(active), ranks.share(sum(part["diverged"] for part in parts)))
    if ranks.is_first:
        write_level(job, spec, target, group, parts, complete, sums)
    ranks.share()  # the checkpoint is there


def span_of_state(run: Run, first: int, n_active: int) -> range:
    """Which active blocks are in the part that was begun."""
    span = span_of(run.state)
    if span.start != first or span.stop > n_active:
        path = state_path(run.ckpts)
        raise InputError(f"{path} is not consistent: delete it, and --resume continues after the last finished part")
    return span


def finished_parts(run: Run, spec: LevelSpec, group: Tensor) -> list[dict[str, Any]]:
    """The parts of a level that are done, as `fit_part` has returned them.

    Inputs
        group: (n_active,) int8, the group of each active block
    Errors
        InputError for a file that holds something else
    """
    paths, run.parts = run.parts, []
    parts = [load_part(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        try:
            span = span_of(part)
            n_blocks = len(span)
            if "network" in part:  # written when there was only one group
                part |= {"networks": [part.pop("network")], "group": torch.zeros(n_blocks, dtype=torch.int8)}
            for number, (shape, tensors) in enumerate(zip(spec.shapes, part["networks"], strict=True)):
                network_of(int((part["group"] == number).sum()), shape, tensors)
            sizes = tuple(part["sums"].shape), tuple(part["silent"].shape), part["silent"].dtype
            if not torch.equal(part["group"], group[span.start : span.stop]):
                raise ValueError("blocks of other groups")
            if span.stop > len(group) or sizes != ((n_blocks, 2), (n_blocks,), torch.bool):
                raise ValueError(f"{n_blocks} of {len(group)} blocks, {sizes}")
            if not all(type(part[name]) is int for name in ("epochs", "block_epochs", "diverged")):
                raise TypeError("counts that are not whole numbers")
        except Exception as error:  # whatever a record that was tampered with leads to
            raise InputError(
                f"{path} is not consistent: delete it and the parts after it, and --resume fits them again"
            ) from error
    return parts


def survey_level(job: Job, spec: LevelSpec, target: LevelTarget) -> Survey:
    """Of all blocks; each process looks at its share of the bands."""
    mine = target.survey(job.metric, spec.loss_thr, job.ranks.share_of(target.grid[0]))
    surveys = job.ranks.exchange(mine)
    names = [field.name for field in dataclasses.fields(Survey)]
    return Survey(*(torch.cat([getattr(survey, name) for survey in surveys]) for name in names))


def refuse_divergence(job: Job, before: list[dict[str, Any]], n_active: int, n_diverged: int) -> None:
    """InputError where most networks of a level and the coarser ones have diverged."""
    n_blocks = n_active + sum(report["active_blocks"] for report in before)
    n_diverged += sum(report["diverged_blocks"] for report in before)
    if 2 * n_diverged > n_blocks:
        if job.ranks.is_first:
            job.run.drop_progress()
        spec, kept = job.specs[0], find_levels(job.run.ckpts)
        raise InputError(
            f"the fit diverged: {n_diverged:,} of {n_blocks:,} blocks. Try a smaller --lr than {spec.lr}, or a larger "
            f"--a than {spec.a}{', with --overwrite' if kept else ''}"
        )


def write_level(
    job: Job,
    spec: LevelSpec,
    target: LevelTarget,
    group: Tensor,
    parts: list[dict[str, Any]],
    complete: bool,
    sums: Tensor,
) -> None:
    """Join the parts of a level and write its checkpoint.

    Inputs
        group: (n_grid,) int8, the group of each block that has been trained, -1 for the others
        complete: nothing is left to train
        sums: (n_grid, 2) the metric's, of the level as it is fitted
    """
    run = job.run
    # what cannot be deleted then is left to the next run: the first error is the one to tell
    with tempfile.TemporaryDirectory(dir=run.ckpts, prefix=JOINING, ignore_cleanup_errors=True) as folder:
        networks = [join_networks(parts, *of_group, Path(folder)) for of_group in enumerate(spec.shapes)]
        if target.coarse is not None and not spec.residual and parts:
            group, networks = without_silent(group, networks, torch.cat([part["silent"] for part in parts]))
        # a group without blocks has nothing to say, but one group is always there
        kept = [number for number, network in enumerate(networks) if network.n_blocks] or [0]
        numbers = torch.full((len(networks) + 1,), -1, dtype=torch.int8)
        numbers[kept] = torch.arange(len(kept), dtype=torch.int8)
        level = spec.level(target.signal.size, numbers[group.long()], tuple(networks[number] for number in kept))
        outcome = {
            "epochs": max((part["epochs"] for part in parts), default=0),
            "block_epochs": sum(part["block_epochs"] for part in parts),
            "diverged": sum(part["diverged"] for part in parts),
        }
        if spec.loss_db and level.n_parameters:
            level, coding = rounded(level, target, job.metric, sums, spec)
            outcome |= {"coding": coding.record()}
        run.save_level(spec.index, level, outcome, not complete)


def without_silent(group: Tensor, networks: list[BlockNetwork], silent: Tensor) -> tuple[Tensor, list[BlockNetwork]]:
    """A level without the networks that predict nothing, which is no residual here, but grey in place of the base.

    Inputs
        silent: (n_active,) bool, which networks these are, in the order of their blocks
    """
    speaks, of_active = ~silent, group[group >= 0]
    networks = [
        network.select(speaks[of_active == number].nonzero().squeeze(1)) for number, network in enumerate(networks)
    ]
    group = group.clone()
    group[(group >= 0).nonzero().squeeze(1)[silent]] = -1
    return group, networks


def join_networks(parts: list[dict[str, Any]], number: int, shape: NetworkShape, folder: Path) -> BlockNetwork:
    """The networks of a group from those of the parts: of several, in files of a folder, since memory may be short."""
    tensors = [part["networks"][number] for part in parts]
    n_blocks = sum(len(of_part["amplitude"]) for of_part in tensors)
    if n_blocks == 0:
        return make_network(0, shape)
    if len(parts) == 1:
        return network_of(n_blocks, shape, tensors[0])
    joined = {name: _join([of_part[name] for of_part in tensors], folder / f"{number}.{name}") for name in tensors[0]}
    return network_of(n_blocks, shape, joined)


def _join(tensors: list[Tensor], path: Path) -> Tensor:
    """Tensors one after another along dimension 0, in a file."""
    shape = (sum(map(len, tensors)), *tensors[0].shape[1:])
    return torch.cat(tensors, out=torch.from_numpy(map_new_array(path, np.float32, shape)))


def reconstruct(job: Job, level: Level, target: LevelTarget, index: int) -> tuple[Raster, float]:
    """A level as it is decoded, which the next finer one builds on, and its quality; each process decodes its share."""
    ranks, signal, totals = job.ranks, target.signal, torch.zeros(2, dtype=torch.float64)
    path = job.run.ckpts / f".l{index}.npy" if job.plan.is_mapped else None
    raster, patch = None, level.patch_size[0]
    if path is None or ranks.is_first:
        raster = new_raster(signal.n_channels, signal.size, COMPUTED, COMPUTED_UNIT, path)
    for start, stop in row_ranges(signal.n_channels, signal.size, patch):
        bands, pieces = ranks.share_of(-(-(stop - start) // patch)), []
        if bands:
            rows = (start + bands.start * patch, min(start + bands.stop * patch, stop))
            window = (rows, *whole(signal.size[1:]))
            values = refine(
                level.within(window),
                target.base(window),
                window,
                1,
                job.b_chunks,
                job.backend,
                fill=target.filled(window),
            )
            totals += job.metric.totals(values, signal.read(window))
            pieces.append((window, as_numbers(values, COMPUTED_UNIT).to(COMPUTED).numpy()))
        for some in (ranks.exchange if path is None else ranks.gather)(pieces) or []:
            for window, numbers in some:
                raster.part(window).copy_(torch.from_numpy(numbers))
    quality = job.metric.value(*sum(ranks.exchange(totals)).tolist())
    if path is not None:
        if not ranks.is_first:
            raster = map_raster(path, COMPUTED_UNIT)
        ranks.share()  # all have it open
        if ranks.is_first:
            path.unlink()  # nothing is left of it when the last one closes it
    return raster, quality
