"""Fit a signal, level by level, coarse to fine: options -> for each level data, module, Trainer.fit -> report."""

import time

_START = time.perf_counter()

import dataclasses
import functools
import gc
import json
import logging
import math
import platform
import shutil
import sys
import tempfile
import warnings
from contextlib import nullcontext
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor

from datasets.datamodule import LevelDataModule
from datasets.occupancy import open_occupancy
from datasets.sources import Source, open_picture
from datasets.store import map_levels, read_levels, store_bytes, value_bytes, write_levels
from datasets.targets import LevelTarget, Survey
from launch import Lifeline
from models.block_mlp import BlockNetwork, init_blocks_, make_network
from models.encoding import encode, encoded_width, frequencies, nested
from models.level_module import (
    BlockPruning,
    LevelImages,
    LevelModule,
    LevelProgressBar,
    OneOfMany,
    StateSaver,
    interleave,
    split_state,
)
from models.miner import MINER, Level, refine
from models.ops import choose_backend, reference
from models.ops.reference import blocks_at_once, points_at_once
from models.sharing import share_weights_
from opt import check_size, device_of, epochs_of_level, parse_options, per_axis, recorded_options
from run import JOINING, Run, check_folder
from utils.blocks import block_coords
from utils.checkpoint import level_path, load_level, load_part, lock, part_path, state_path, write_aside
from utils.errors import InputError, Interrupted, run_command, size_text
from utils.memory import Plan, available_memory, peak_memory, plan_memory, used_memory
from utils.metrics import Metric, Similarity, iou, psnr
from utils.pyramid import level_size
from utils.ranks import Ranks
from utils.raster import (
    COMPUTED,
    COMPUTED_UNIT,
    Raster,
    as_numbers,
    map_raster,
    new_raster,
    row_ranges,
    rows_at_once,
    whole,
)
from utils.stop import StopSignals

# A visit is some ten seconds of work at most, and on a CPU few enough blocks to stay in its cache: so many steps,
# so many points times epochs.
_VISIT_STEPS = 2048
_VISIT_POINTS = {"cpu": 2**24}
_VISIT_POINTS_ON_DEVICE = 2**30
_SSIM_PIXELS, _SSIM_BANDS = 2**23, 8
_SSIM_WINDOW = 2**21  # values decoded at once
_OUTPUTS = {"sine": "linear", "gabor": "gabor"}
_OMEGAS = {"sine": {"image": 150.0, "mesh": 30.0}, "gabor": {"image": 10.0, "mesh": 5.0}}
_CENTRE = 0.5
_PYRAMIDS = Path("ckpts") / ".levels"


@dataclasses.dataclass(frozen=True)
class Job:
    """What all levels of a run share.

    metric: by which the fit is judged
    backend, device: that train
    ranks: the processes that do
    plan: how levels are kept, and how many blocks a process trains at once
    enough: when to end before all epochs are done
    """

    options: Namespace
    metric: Metric
    backend: ModuleType
    device: torch.device
    ranks: Ranks
    stop: StopSignals
    run: Run
    plan: Plan
    enough: "Enough"


class Enough:
    """When a run ends early, by --target_psnr, --target_iou or --max_seconds; asked by all processes together.

    Blocks that have not been trained by then, those of finer levels too, stay what the coarser levels say.
    """

    def __init__(self, target: float | None, max_seconds: float | None, ranks: Ranks):
        self.target = math.inf if target is None else target
        self.deadline = math.inf if max_seconds is None else _START + max_seconds
        self.ranks = ranks
        self.why: str | None = None

    def __call__(self, level: int, quality: float) -> bool:
        """After a validation of a level: how good the whole is then."""
        if self.ranks.max(time.perf_counter() > self.deadline):
            self.why = f"--max_seconds is over in level {level}"
        elif level == 0 and quality >= self.target:
            self.why = "the target is reached"
        return self.why is not None


def main(lifeline: Lifeline) -> None:
    gc.freeze()  # what the imports have left need not be searched again and again
    options = parse_options(sys.argv[1:])
    ckpts = Path("ckpts") / options.exp_name
    if not options.dry_run:
        check_folder(ckpts, options)
    source = open_signal(options)
    ranks = Ranks() if options.dry_run else lifeline.launch(options.accelerator, options.devices)
    device = lifeline.device or torch.device(device_of(options.accelerator))
    backend = chosen_backend(source.n_channels, device, options)
    n_local = options.devices if options.dry_run else lifeline.n_local
    plan = ranks.share(make_plan(source, backend, device, n_local, options))
    if ranks.is_first:
        announce(backend, device, ranks)
        fits = print_plan(plan, source, n_local, options)
        if options.dry_run:
            sys.exit(0 if fits else 1)
        print_notes(plan, source, ranks, options)

    metric = psnr if options.task == "image" else iou
    ckpts.mkdir(parents=True, exist_ok=True)
    with lock(ckpts) if ranks.is_first else nullcontext(), StopSignals(ranks) as stop:
        check_folder(ckpts, options)
        if not plan.is_mapped:
            store = read_levels(source, options.n_scales)
        else:
            if ranks.is_first:
                write_levels(source, options.n_scales, _PYRAMIDS)
            ranks.share()  # the files are there
            store = map_levels(source, options.n_scales, _PYRAMIDS)
        run = Run(ckpts, options, source.size, source.n_channels, describe(source) | {"crc32": store.crc32}, ranks)
        del source  # which may hold a whole picture
        if run.is_finished:
            if ranks.is_first:
                report = json.loads((ckpts / "metrics.json").read_text())
                print(f"{ckpts} is finished: {report['parameters']:,} parameters")
                print(metric.line.format(math.inf if report[metric.name] is None else report[metric.name]))
            return
        target = options.target_psnr if metric is psnr else options.target_iou
        enough = Enough(target, options.max_seconds, ranks)
        job = Job(options, metric, backend, device, ranks, stop, run, plan, enough)
        resumed = run.is_begun
        report = fit(job, store.levels)
        report["resumed"] = resumed  # the seconds are then those of the last part alone
        finish(job, store.levels[0], report)


def open_signal(options: Namespace) -> Source:
    """The file of the signal, at the size that is wanted."""
    size = per_axis(options.input_size, n_dims(options)) if options.input_size else None
    source = (open_picture if options.task == "image" else open_occupancy)(options.path, size)
    check_size(options, source.size)
    return source


def print_notes(plan: Plan, source: Source, ranks: Ranks, options: Namespace) -> None:
    if any(wanted > given for wanted, given in zip(source.size, source.file_size, strict=True)):
        given = size_text(source.file_size)
        print(f"note: {options.path} is {given} and is enlarged to {size_text(source.size)}", file=sys.stderr)
    if options.log_image and (ranks.size > 1 or max(plan.blocks) > plan.max_blocks):
        print("note: --log_image shows the levels that one process trains at once", file=sys.stderr)


def describe(source: Source) -> dict[str, Any]:
    """What the file looked like, for the checkpoints."""
    if len(source.size) == 3:
        return {"frame": dataclasses.asdict(source.frame) if source.frame else None}
    return {"bits": source.bits}


def make_plan(source: Source, backend: ModuleType, device: torch.device, n_local: int, options: Namespace) -> Plan:
    """How the run is laid out, for each of the processes on this machine."""
    shapes = [network_shape(source.n_channels, level, options) for level in range(options.n_scales)]
    networks = [make_network(1, **shape) for shape in shapes]
    width = max(network.activation_width for network in networks) if backend is reference else 0
    free = available_memory() or 2**63
    return plan_memory(
        [level_size(source.size, level) for level in range(options.n_scales)],
        source.n_channels,
        per_axis(options.patch_size, n_dims(options)),
        [network.n_parameters for network in networks],
        signal_bytes=store_bytes(source, options.n_scales),
        value_bytes=value_bytes(source),
        activations=points_at_once(device) * width,
        budget=int(options.max_memory * 2**30 if options.max_memory else 0.8 * free / n_local),
        device_budget=int(0.8 * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None,
        max_blocks=options.max_blocks,
    )


def print_plan(plan: Plan, source: Source, n_local: int, options: Namespace) -> bool:
    """Say what the run takes at most, a dry run for each level; returns whether this machine has the memory."""
    if options.dry_run:
        for level in reversed(range(options.n_scales)):
            size = size_text(level_size(source.size, level))
            print(
                f"level {level}: {size}, {plan.blocks[level]:,} blocks, {plan.parameters[level]:,} parameters at most"
            )
    free = available_memory()
    fits = free is None or n_local * (plan.host - used_memory()) <= free
    if plan.device and torch.cuda.is_available():
        fits &= plan.device <= torch.cuda.mem_get_info()[0]
    amounts = [f"{n_local * plan.host / 2**20:,.0f} MiB of memory"]
    if plan.device:
        amounts.append(f"{plan.device / 2**20:,.0f} MiB on each device")
    if plan.files:
        amounts.append(f"{plan.files / 2**30:.1f} GiB of mapped files")
    verdict = "fits this machine" if fits else "may not fit this machine"
    print(f"at most {sum(plan.blocks):,} blocks, {sum(plan.parameters):,} parameters, {', '.join(amounts)}: {verdict}")
    return fits


def fit(job: Job, signals: list[Raster]) -> dict[str, Any]:
    """Fit the levels that are not done yet, coarse to fine; each one's checkpoint is written as it is done."""
    options, run = job.options, job.run
    start, levels, coarse, level = time.perf_counter(), [], None, None
    for index in reversed(range(options.n_scales)):
        patch_size = per_axis(options.patch_size, n_dims(options))
        target = LevelTarget(signals[index], coarse, patch_size, is_residual(options, index))
        if index not in run.done:
            fit_level(job, index, target, level)
            if job.stop():
                raise Interrupted
        record = load_level(level_path(run.ckpts, index))
        level = Level.from_record(record)
        levels.append({"level": index} | level.summary())
        levels[-1] |= {
            "epochs": record["epochs"],
            "points_trained": record["block_epochs"] * prod(target.patch_size),
            "diverged_blocks": record["diverged"],
        }
        if index > 0:
            level.network.to(job.device)
            coarse, quality = reconstruct(job, index, level, target)
            levels[-1][job.metric.name] = finite_or_none(quality)
    return {"levels": levels[::-1], "seconds": {"fit": time.perf_counter() - start}}


def fit_level(job: Job, index: int, target: LevelTarget, coarser: Level | None) -> None:
    """Train the networks of a level, a part of its blocks after the other, and write its checkpoint.

    Inputs
        coarser: the next coarser level, whose networks may be shared
    """
    run, ranks = job.run, job.ranks
    survey = survey_level(job, target)
    active = survey.active.nonzero().squeeze(1)
    sums = survey.base_sums.double()
    parts, run.parts = [load_part(path) for path in run.parts], []
    for part in parts:
        sums[active[slice(*part["rows"])]] = part["sums"].double()
    first = parts[-1]["rows"][1] if parts else 0
    while first < len(active) and not job.enough.why:
        rows = range(first, min(first + job.plan.max_blocks * ranks.size, len(active)))
        if run.state is not None:
            rows = rows_of_state(run, first, len(active))
        blocks = active[rows.start : rows.stop]
        other_sums = sums.sum(0) - sums[blocks].sum(0)
        part = fit_part(job, index, target, coarser, survey, blocks, rows, other_sums, len(parts))
        first = rows.stop
        if ranks.is_first:
            parts.append(part)
            sums[blocks] = part["sums"].double()
            if len(rows) < len(active):
                run.save_part(index, rows, part)
                parts[-1] = load_part(part_path(run.ckpts, rows.start))
        if first < len(active) and job.stop():
            raise Interrupted
    survey.active[active[first:]] = False
    if ranks.is_first:
        with tempfile.TemporaryDirectory(dir=run.ckpts, prefix=JOINING) as folder:
            network = join_networks(parts, network_shape(target.signal.n_channels, index, job.options), Path(folder))
            level = make_level(target, index, survey.active, network, job.options)
            outcome = {
                "epochs": max((part["epochs"] for part in parts), default=0),
                "block_epochs": sum(part["block_epochs"] for part in parts),
                "diverged": sum(part["diverged"] for part in parts),
            }
            run.save_level(index, level, outcome)
    ranks.share()  # the checkpoint is there


def rows_of_state(run: Run, first: int, n_active: int) -> range:
    """Which active blocks are in the part that was begun."""
    start, stop = run.state["rows"]
    if not (start == first and start < stop <= n_active):
        path = state_path(run.ckpts)
        raise InputError(f"{path} does not fit together: without it, --resume goes on from the last finished part")
    return range(start, stop)


def survey_level(job: Job, target: LevelTarget) -> Survey:
    """Of all blocks; each process looks at its share of the layers."""
    mine = target.survey(job.metric, job.options.loss_thr, job.ranks.share_of(target.grid[0]))
    surveys = job.ranks.exchange(mine)
    names = [field.name for field in dataclasses.fields(Survey)]
    return Survey(*(torch.cat([getattr(survey, name) for survey in surveys]) for name in names))


def fit_part(
    job: Job,
    index: int,
    target: LevelTarget,
    coarser: Level | None,
    survey: Survey,
    blocks: Tensor,
    rows: range,
    other_sums: Tensor,
    n_before: int,
) -> dict[str, Any] | None:
    """Train the networks of some blocks of a level, each process its share of them.

    Inputs
        blocks: (n_blocks,) ascending indices in the grid
        rows: their numbers among the active blocks of the level
        other_sums: (2,) the metric's sums for all other blocks
        n_before: parts of the level that come before
    Outputs
        in the first process: network, a dict of tensors; sums, (n_blocks, 2) the metric's; epochs that they took;
        block_epochs, these summed over the blocks; diverged, how many blocks were put back; in the others None
    """
    options, run, ranks = job.options, job.run, job.ranks
    mine = blocks[ranks.rank :: ranks.size]
    n_epochs = epochs_of_level(options.num_epochs, index)
    network = make_network(len(mine), options.a, **network_shape(target.signal.n_channels, index, options))
    init_blocks_(network, mine, options.seed, index)
    network.amplitude.view(-1).copy_(survey.amplitude[mine])
    level = make_level(target, index, survey.active, network, options)
    if coarser is not None and options.weight_sharing != "none":
        share_weights_(level, mine, coarser, options.weight_sharing)
    coords = encode(block_coords(target.patch_size), level.frequencies)
    module = LevelModule(
        network,
        coords,
        residual=target.residual,
        backend=job.backend,
        metric=job.metric,
        block_sums=survey.base_sums[mine],
        other_sums=other_sums,
        ranks=ranks,
        seed=options.seed,
        level=index,
        n_epochs=n_epochs,
        val_freq=options.val_freq,
        lr=options.lr,
        optimizer=options.optimizer,
        betas=tuple(options.betas),
        batch_size=options.batch_size,
        first_step=n_before * n_epochs,
        is_enough=functools.partial(job.enough, index),
    )
    if run.state is not None:
        try:
            module.load_state(split_state(run.state["state"], ranks.rank, ranks.size))
        except Exception as error:  # whatever a record that was tampered with leads to
            path = state_path(run.ckpts)
            raise InputError(f"{path} does not fit together: without it, --resume fits level {index} anew") from error
        run.state = None
    images = None
    if options.log_image and len(mine) == int(survey.active.sum()):
        images = LevelImages(index, level, mine, target.base, options.b_chunks)
    if ranks.max(not module.is_done):
        train(job, index, target, module, blocks, rows, images)
        gc.collect()  # a trainer, its data and what it has trained refer to each other in circles
    pieces = ranks.gather(
        {
            "network": {name: tensor.cpu() for name, tensor in module.network.state_dict().items()},
            "sums": module.block_sums.cpu(),
            "block_epochs": module.block_epochs,
            "diverged": module.n_diverged,
        }
    )
    if pieces is None:
        return None
    return {
        "network": {name: interleave([piece["network"][name] for piece in pieces]) for name in pieces[0]["network"]},
        "sums": interleave([piece["sums"] for piece in pieces]),
        "epochs": module.n_epochs_done,
        "block_epochs": sum(piece["block_epochs"] for piece in pieces),
        "diverged": sum(piece["diverged"] for piece in pieces),
    }


def train(
    job: Job,
    index: int,
    target: LevelTarget,
    module: LevelModule,
    blocks: Tensor,
    rows: range,
    images: LevelImages | None,
) -> None:
    """Lightning's part of `fit_part`."""
    options, ranks, device = job.options, job.ranks, job.device
    callbacks = [
        BlockPruning(options.loss_thr * options.stop_ratio),
        EarlyStopping("val/n_training_blocks", patience=sys.maxsize, stopping_threshold=0.5),
        StateSaver(lambda state: job.run.save_state(index, rows, state), options.save_every, job.stop),
    ]
    logger = False
    if ranks.is_first:
        callbacks.append(LevelProgressBar(index))
        done = module.first_step + module.n_epochs_done
        if done == 0:
            shutil.rmtree(Path("logs") / options.exp_name / f"l{index}", ignore_errors=True)
        logger = TensorBoardLogger("logs", name=options.exp_name, version=f"l{index}", purge_step=done + 1)
        if images is not None:
            callbacks.append(images)
    trainer = pl.Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        strategy=OneOfMany(device, ranks.rank),
        plugins=[LightningEnvironment()],  # whatever launched this process
        max_epochs=-(-(module.n_epochs - module.n_epochs_done) // options.val_freq),
        logger=logger,
        callbacks=callbacks,
        enable_progress_bar=ranks.is_first,
        reload_dataloaders_every_n_epochs=1,  # which blocks train changes
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    n_points, share = prod(target.patch_size), ranks.share_of(len(blocks))
    mine = target.gather(blocks[share.start : share.stop])  # consecutive ones need the least of the coarser level
    data = LevelDataModule(
        mine.deal(ranks, len(blocks)).to(device),
        ranks,
        visit_epochs=max(1, _VISIT_STEPS // -(-n_points // options.batch_size)),
        visit_points=_VISIT_POINTS.get(device.type, _VISIT_POINTS_ON_DEVICE),
        visit_blocks=max(1, points_at_once(device) // options.batch_size),
        check_blocks=blocks_at_once(n_points, options.b_chunks, device),
    )
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit as end:  # what Lightning makes of an interrupt
        raise Interrupted if job.stop.received else KeyboardInterrupt from end


def join_networks(parts: list[dict[str, Any]], shape: dict[str, Any], folder: Path) -> BlockNetwork:
    """The networks of a level from those of its parts: of several, in files of a folder, since memory may be short."""
    network = make_network(0, **shape)
    if len(parts) == 1:
        tensors = parts[0]["network"]
    elif parts:
        tensors = {
            name: join_rows([part["network"][name] for part in parts], folder / name) for name in network.state_dict()
        }
    else:
        return network
    with torch.device("meta"):
        network = make_network(len(tensors["amplitude"]), **shape)
    network.load_state_dict(tensors, assign=True)
    return network


def join_rows(parts: list[Tensor], path: Path) -> Tensor:
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    rows = torch.from_numpy(np.lib.format.open_memmap(path, "w+", np.float32, shape))
    return torch.cat(parts, out=rows)


def reconstruct(job: Job, index: int, level: Level, target: LevelTarget) -> tuple[Raster, float]:
    """A level as it is decoded, which the next finer one builds on, and how good it is."""
    ranks, signal, totals = job.ranks, target.signal, torch.zeros(2, dtype=torch.float64)
    path = job.run.ckpts / f".l{index}.npy" if job.plan.is_mapped else None
    raster, patch = None, level.patch_size[0]
    if path is None or ranks.is_first:
        raster = new_raster(signal.n_channels, signal.size, COMPUTED, COMPUTED_UNIT, path)
    for start, stop in row_ranges(signal.n_channels, signal.size, patch):
        layers, pieces = ranks.share_of(-(-(stop - start) // patch)), []
        if layers:
            rows = (start + layers.start * patch, min(start + layers.stop * patch, stop))
            window = (rows, *whole(signal.size[1:]))
            values = refine(level, target.base(window), window, b_chunks=job.options.b_chunks, backend=job.backend)
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


def finish(job: Job, signal: Raster, report: dict[str, Any]) -> None:
    """Judge the files of a run, loaded back, and say how it went."""
    options, ckpts, metric = job.options, job.run.ckpts, job.metric
    model = MINER.load(ckpts, job.device, options.backend)
    height, patch = signal.size[0], model.patch_size[0]
    layers = job.ranks.share_of(-(-height // patch))  # of blocks, that this process decodes
    totals = torch.zeros(2, dtype=torch.float64)
    if layers:
        crop = ((layers.start * patch, min(layers.stop * patch, height)), *whole(signal.size[1:]))
        rows = rows_at_once(signal.n_channels, signal.size, patch)
        most = rows * signal.n_channels * prod(signal.size[1:])
        for window, values in model.decode_windows(0, crop, b_chunks=options.b_chunks, most=most):
            totals += metric.totals(values.cpu(), signal.read(window))
    quality = metric.value(*sum(job.ranks.exchange(totals)).tolist())
    n_blocks = sum(level["active_blocks"] for level in report["levels"])
    n_diverged = sum(level["diverged_blocks"] for level in report["levels"])
    if math.isnan(quality) or 2 * n_diverged > n_blocks:
        raise InputError(f"the fit diverged: a smaller --lr than {options.lr} works, or a larger --a than {options.a}")
    if not job.ranks.is_first:
        return
    report["levels"][0][metric.name] = finite_or_none(quality)
    n_pixels, n_bytes = prod(signal.size), sum(level_path(ckpts, level).stat().st_size for level in model.levels)
    report |= {
        metric.name: finite_or_none(quality),
        **({"ssim": mean_similarity(model, signal, options.b_chunks)} if metric is psnr else {}),
        "parameters": model.n_parameters,
        "parameters_per_pixel": model.n_parameters / n_pixels,
        "bytes_per_pixel": n_bytes / n_pixels,
        "points_trained": sum(level["points_trained"] for level in report["levels"]),
    }
    report["seconds"]["total"] = time.perf_counter() - _START
    report |= surroundings(job.device)
    write_aside(ckpts / "metrics.json", json.dumps(report, indent=2).encode())
    results = {metric.name: quality, "parameters": model.n_parameters, "seconds": report["seconds"]["total"]}
    log_options(options, results)
    if job.enough.why:
        print(f"note: {job.enough.why}", file=sys.stderr)
    if n_diverged:
        print(f"note: {n_diverged} of {n_blocks} blocks diverged and were put back", file=sys.stderr)
    print(
        f"{ckpts}: {model.n_parameters:,} parameters, {report['seconds']['total']:.1f} s, "
        f"{report['peak_memory_mib']['host']:.0f} MiB"
    )
    print(metric.line.format(quality))


def mean_similarity(model: MINER, signal: Raster, b_chunks: int) -> float | None:
    """SSIM of a picture; of a large one in a few bands, evenly spread over its height, since it takes long."""
    height, width = signal.size
    rows, bands = max(32, _SSIM_PIXELS // (_SSIM_BANDS * width)), [(0, height)]
    if rows * _SSIM_BANDS < height:
        starts = (band * (height - rows) // (_SSIM_BANDS - 1) for band in range(_SSIM_BANDS))
        bands = [(start, start + rows) for start in starts]
    values = []
    for band in bands:
        similarity = Similarity()
        for window, decoded in model.decode_windows(0, (band, (0, width)), 1, b_chunks, _SSIM_WINDOW):
            similarity.add(decoded.cpu(), signal.read(window))
        values.append(similarity.value)
    return None if None in values else sum(values) / len(values)


def is_residual(options: Namespace, level: int) -> bool:
    return options.pyr == "laplacian" and level < options.n_scales - 1


def n_dims(options: Namespace) -> int:
    return 2 if options.task == "image" else 3


def make_level(target: LevelTarget, index: int, active: Tensor, network: BlockNetwork, options: Namespace) -> Level:
    encoding = encoding_of(index, options)
    return Level(target.signal.size, target.patch_size, encoding, target.residual, active, network)


def encoding_of(level: int, options: Namespace) -> tuple[float, ...] | None:
    """The frequencies of a level's encoding."""
    if not options.use_pe:
        return None
    own = frequencies(options.n_freq, options.frequencies)
    return nested(own, options.n_scales - 1 - level) if options.weight_sharing == "inherit" else own


def network_shape(n_channels: int, level: int, options: Namespace) -> dict[str, Any]:
    shape = dict(
        n_in=encoded_width(n_dims(options), encoding_of(level, options)),
        n_out=n_channels,
        n_layers=options.n_layers,
        n_hidden=options.n_hidden,
    )
    if options.arch in _OUTPUTS:
        omega = options.omega or _OMEGAS[options.arch][options.task]
        return shape | dict(output=_OUTPUTS[options.arch], omega=omega)
    return shape | dict(
        output="sine" if is_residual(options, level) else "sigmoid",
        centre=_CENTRE if options.arch == "centred" else 0.0,
    )


def chosen_backend(n_channels: int, device: torch.device, options: Namespace) -> ModuleType:
    """The backend for all levels."""
    shapes = [network_shape(n_channels, level, options) for level in range(options.n_scales)]
    return choose_backend(options.backend, shapes, device)


def announce(backend: ModuleType, device: torch.device, ranks: Ranks) -> None:
    name = backend.__name__.rpartition(".")[2].partition("_")[0]
    n_threads = torch.get_num_threads()
    place = f"cpu, {n_threads} {'threads' if n_threads > 1 else 'thread'}" if device.type == "cpu" else device.type
    print(f"backend: {name} on {place}" + (f", {ranks.size} processes" if ranks.size > 1 else ""))


def log_options(options: Namespace, results: dict[str, float]) -> None:
    """A row of TensorBoard's table of hyperparameters, so that runs compare."""
    logger = TensorBoardLogger("logs", name=options.exp_name, version="")
    aside = {"accelerator", "b_chunks", "exp_name", "log_image"}  # the table names the run anyway
    row = {name: value for name, value in recorded_options(options).items() if value is not None and name not in aside}
    logger.log_hyperparams(row, {f"final/{name}": value for name, value in results.items()})
    logger.finalize("success")


def finite_or_none(value: float) -> float | None:
    """JSON has no word for the infinite PSNR of a perfect fit."""
    return value if math.isfinite(value) else None


def surroundings(device: torch.device) -> dict[str, Any]:
    """Where a run took place and what it took; sizes in MiB."""
    memory = {"host": peak_memory() / 2**20}
    name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        memory["device"] = torch.cuda.max_memory_allocated(device) / 2**20
    elif device.type == "mps":
        name = f"{platform.processor()} GPU"
    return {
        "device": name,
        "peak_memory_mib": memory,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch_lightning": pl.__version__,
        },
    }


def cli() -> None:
    torch.set_flush_denormal(True)  # before any parallel work, or some threads stay slow
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
    with Lifeline() as lifeline:
        run_command(lambda: main(lifeline))


if __name__ == "__main__":
    cli()
