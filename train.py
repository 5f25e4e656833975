"""Fit a signal, level by level, coarse to fine: options -> for each level data, module, Trainer.fit -> report."""

import time

_START = time.perf_counter()

import dataclasses
import json
import logging
import math
import platform
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from datasets.datamodule import LevelDataModule
from datasets.signals import read_header, read_occupancy, read_picture
from datasets.targets import LevelTarget, coarsest_target, finer_target
from models.block_mlp import BlockMLP, init_blocks_
from models.encoding import encode, encoded_width
from models.level_module import BlockPruning, LevelImages, LevelModule, LevelProgressBar, StateSaver
from models.miner import MINER, Level, refine, whole
from models.ops import choose_backend, reference
from models.ops.reference import blocks_at_once, points_at_once
from opt import (
    check_size,
    device_of,
    epochs_of_level,
    parse_options,
    per_axis,
    recorded_options,
)
from run import Run, check_folder
from utils.blocks import block_coords
from utils.checkpoint import (
    lock,
    save_state,
    state_path,
    write_aside,
)
from utils.errors import InputError, Interrupted, run_command, size_text
from utils.memory import available_memory, bound_memory, peak_memory, used_memory
from utils.metrics import Metric, iou, psnr
from utils.pyramid import level_size, pyramid, upsample_whole
from utils.stop import StopSignals

# A visit is some ten seconds of work at most, and on a CPU few enough blocks to stay in its cache: so many steps,
# so many points times epochs.
_VISIT_STEPS = 2048
_VISIT_POINTS = {"cpu": 2**24}
_VISIT_POINTS_ON_DEVICE = 2**30


def main() -> None:
    options = parse_options(sys.argv[1:])
    ckpts = Path("ckpts") / options.exp_name
    if not options.dry_run:
        check_folder(ckpts, options)
    size, n_channels = read_size(options)
    backend = announced_backend(n_channels, options)
    fits = print_bound(size, n_channels, backend, options)
    if options.dry_run:
        sys.exit(0 if fits else 1)
    signal, source = read_signal(options)
    ckpts.mkdir(parents=True, exist_ok=True)

    metric = psnr if options.task == "image" else iou
    with lock(ckpts), StopSignals() as stop:
        check_folder(ckpts, options)
        run = Run(ckpts, options, signal, source)
        if run.is_finished:
            report = json.loads((ckpts / "metrics.json").read_text())
            print(f"{ckpts} is finished: {report['parameters']:,} parameters")
            print(metric.line.format(math.inf if report[metric.name] is None else report[metric.name]))
            return
        resumed = bool(run.done or run.state)
        report = fit(signal, metric, backend, options, run, stop)
        report["resumed"] = resumed  # the seconds are then those of the last part alone
        finish(signal, metric, options, ckpts, report)


def read_size(options: Namespace) -> tuple[tuple[int, ...], int]:
    """Size and channels of the signal, from its file's header."""
    header = read_header(options.path, options.task)
    if options.input_size:
        size = per_axis(options.input_size, n_dims(options))
    elif header is None:
        raise InputError(f"{options.path} holds flat bits, which do not tell their size: add --input_size")
    else:
        size = header.size
    check_size(options, size)
    return size, header.n_channels if header else 1


def print_bound(size: tuple[int, ...], n_channels: int, backend: ModuleType, options: Namespace) -> bool:
    """Say what the run takes at most, a dry run for each level; returns whether this machine has the memory."""
    sizes = [level_size(size, level) for level in range(options.n_scales)]
    networks = [BlockMLP(1, **network_shape(n_channels, index, options)) for index in range(len(sizes))]
    device = device_of(options.accelerator)
    bound = bound_memory(
        sizes,
        n_channels,
        per_axis(options.patch_size, n_dims(options)),
        [network.n_parameters for network in networks],
        points_at_once(torch.device(device)) * max(map(activation_width, networks)) if backend is reference else 0,
        on_device=device != "cpu",
    )
    if options.dry_run:
        for level in reversed(range(options.n_scales)):
            blocks, parameters = bound.blocks[level], bound.parameters[level]
            print(f"level {level}: {size_text(sizes[level])}, {blocks:,} blocks, {parameters:,} parameters at most")
    free = available_memory()
    fits = free is None or bound.host - used_memory() <= free
    if device == "cuda":
        fits &= bound.device <= torch.cuda.mem_get_info()[0]
    amounts = [f"{bound.host / 2**20:,.0f} MiB of memory"]
    if bound.device:
        amounts.append(f"{bound.device / 2**20:,.0f} MiB on the device")
    verdict = "fits this machine" if fits else "may not fit this machine"
    print(
        f"at most {sum(bound.blocks):,} blocks, {sum(bound.parameters):,} parameters, {', '.join(amounts)}: {verdict}"
    )
    return fits


def finish(signal: Tensor, metric: Metric, options: Namespace, ckpts: Path, report: dict[str, Any]) -> None:
    """Judge the files of a run, loaded back, and say how it went."""
    model = MINER.load(ckpts, device_of(options.accelerator), options.backend)
    quality = metric(model.decode(b_chunks=options.b_chunks).cpu(), signal)
    report |= {metric.name: finite_or_none(quality), "parameters": model.n_parameters}
    report["seconds"]["total"] = time.perf_counter() - _START
    report |= surroundings(options.accelerator)
    n_blocks = sum(level["active_blocks"] for level in report["levels"])
    n_diverged = sum(level["diverged_blocks"] for level in report["levels"])
    if math.isnan(quality) or 2 * n_diverged > n_blocks:
        raise InputError(f"the fit diverged: a smaller --lr than {options.lr} works, or a larger --a than {options.a}")
    write_aside(ckpts / "metrics.json", json.dumps(report, indent=2).encode())
    results = {metric.name: quality, "parameters": model.n_parameters, "seconds": report["seconds"]["total"]}
    log_options(options, results)
    if n_diverged:
        print(f"note: {n_diverged} of {n_blocks} blocks diverged and were put back", file=sys.stderr)
    print(
        f"{ckpts}: {model.n_parameters:,} parameters, {report['seconds']['total']:.1f} s, "
        f"{report['peak_memory_mib']['host']:.0f} MiB"
    )
    print(metric.line.format(quality))


def read_signal(options: Namespace) -> tuple[Tensor, dict[str, Any]]:
    """The signal (c, *size), and what its file looked like, for the checkpoints."""
    if options.task == "mesh":
        size = per_axis(options.input_size, 3) if options.input_size else None
        volume = read_occupancy(options.path, size)
        return volume.values, {"frame": dataclasses.asdict(volume.frame) if volume.frame else None}
    size = per_axis(options.input_size, 2) if options.input_size else None
    picture = read_picture(options.path, size)
    if size is not None and (size[0] > picture.file_size[0] or size[1] > picture.file_size[1]):
        given = size_text(picture.file_size)
        print(f"note: {options.path} is {given} and is enlarged to {size_text(size)}", file=sys.stderr)
    return picture.values, {"bits": picture.bits}


def fit(
    signal: Tensor, metric: Metric, backend: ModuleType, options: Namespace, run: Run, stop: StopSignals
) -> dict[str, Any]:
    """Fit the levels that are not done yet, coarse to fine; each one's checkpoint is written as it is done."""
    signals = pyramid(signal, options.n_scales)
    device = device_of(options.accelerator)
    start, levels, reconstruction = time.perf_counter(), [], None
    for index in reversed(range(options.n_scales)):
        signal = signals.pop()
        base = torch.zeros(signal.shape) if reconstruction is None else upsample_whole(reconstruction, signal.shape[1:])
        if index in run.done:
            record = run.done[index]
            level = Level.from_record(record)
        else:
            patch_size = per_axis(options.patch_size, signal.ndim - 1)
            if reconstruction is None:
                target = coarsest_target(signal, patch_size, metric)
            else:
                residual = is_residual(options, index)
                target = finer_target(signal, base, patch_size, metric, options.loss_thr, residual)
            level = make_level(target, options, index)
            record = {"epochs": 0, "diverged": 0}
            if len(target.active):
                record = fit_level(level, target, base, metric, backend, options, index, run, stop)
            run.save_level(index, level, record)
            if stop():
                raise Interrupted
        level.network.to(device)
        reconstruction = refine(level, base, whole(level.size), b_chunks=options.b_chunks, backend=backend)
        levels.append(
            {"level": index}
            | level.summary()
            | {"epochs": record["epochs"], "diverged_blocks": record["diverged"]}
            | {metric.name: finite_or_none(metric(reconstruction, signal))}
        )
    return {"levels": levels[::-1], "seconds": {"fit": time.perf_counter() - start}}


def is_residual(options: Namespace, level: int) -> bool:
    return options.pyr == "laplacian" and level < options.n_scales - 1


def n_dims(options: Namespace) -> int:
    return 2 if options.task == "image" else 3


def network_shape(n_channels: int, level: int, options: Namespace) -> dict[str, Any]:
    return dict(
        n_in=encoded_width(n_dims(options), options.n_freq if options.use_pe else None),
        n_out=n_channels,
        n_layers=options.n_layers,
        n_hidden=options.n_hidden,
        output="sine" if is_residual(options, level) else "sigmoid",
    )


def activation_width(network: BlockMLP) -> int:
    """Values that a point takes on its way through a network."""
    return sum(weight.shape[1] for weight in network.weight) + network.shape["n_out"]


def announced_backend(n_channels: int, options: Namespace) -> ModuleType:
    """The backend for all levels; says which it is."""
    shapes = [network_shape(n_channels, level, options) for level in {0, options.n_scales - 1}]
    device = device_of(options.accelerator)
    backend = choose_backend(options.backend, shapes, device)
    name = backend.__name__.rpartition(".")[2].partition("_")[0]
    place = f"cpu, {torch.get_num_threads()} threads" if device == "cpu" else device
    print(f"backend: {name} on {place}")
    return backend


def make_level(target: LevelTarget, options: Namespace, index: int) -> Level:
    """A level with freshly drawn networks for its active blocks."""
    n_freq = options.n_freq if options.use_pe else None
    shape = network_shape(len(target.signal), index, options)
    network = BlockMLP(len(target.active), a=options.a, **shape)
    init_blocks_(network, target.active, options.seed, index)
    network.amplitude.view(-1).copy_(target.amplitude)
    active = torch.zeros(len(target.base_sums), dtype=torch.bool)
    active[target.active] = True
    return Level(target.size, target.patch_size, n_freq, target.residual, active, network)


def fit_level(
    level: Level,
    target: LevelTarget,
    base: Tensor,
    metric: Metric,
    backend: ModuleType,
    options: Namespace,
    index: int,
    run: Run,
    stop: StopSignals,
) -> dict[str, int]:
    """Train a level's network in place; returns the epochs it took, and how many blocks diverged."""
    coords = encode(block_coords(level.patch_size), level.n_freq)
    n_epochs = epochs_of_level(options.num_epochs, index)
    module = LevelModule(
        level.network,
        coords,
        target.active,
        residual=level.residual,
        backend=backend,
        metric=metric,
        block_sums=target.base_sums,
        seed=options.seed,
        level=index,
        n_epochs=n_epochs,
        lr=options.lr,
        batch_size=options.batch_size,
    )
    if run.state is not None:
        try:
            module.load_state(run.state["state"])
        except Exception as error:  # whatever a record that was tampered with leads to
            path = state_path(run.ckpts)
            raise InputError(f"{path} does not fit together: without it, --resume fits level {index} anew") from error
        run.state = None
    if module.is_done:
        return module.outcome()
    callbacks = [
        BlockPruning(options.loss_thr),
        EarlyStopping("val/n_training_blocks", patience=sys.maxsize, stopping_threshold=0.5),
        LevelProgressBar(index),
        StateSaver(lambda state: save_state(run.ckpts, run.header(index) | {"state": state}), options.save_every, stop),
    ]
    if options.log_image:
        callbacks.append(LevelImages(index, level, base, options.b_chunks))
    if module.n_epochs_done == 0:
        shutil.rmtree(Path("logs") / options.exp_name / f"l{index}", ignore_errors=True)
    logger = TensorBoardLogger("logs", name=options.exp_name, version=f"l{index}", purge_step=module.n_epochs_done + 1)
    trainer = pl.Trainer(
        accelerator=options.accelerator,
        devices=1,
        max_epochs=-(-(n_epochs - module.n_epochs_done) // options.val_freq),
        logger=logger,
        callbacks=callbacks,
        reload_dataloaders_every_n_epochs=1,  # which blocks train changes
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    device = trainer.strategy.root_device
    data = LevelDataModule(
        target.to(device),
        n_epochs=n_epochs,
        val_freq=options.val_freq,
        visit_epochs=max(1, _VISIT_STEPS // -(-len(coords) // options.batch_size)),
        visit_points=_VISIT_POINTS.get(device.type, _VISIT_POINTS_ON_DEVICE),
        visit_blocks=max(1, points_at_once(device) // options.batch_size),
        check_blocks=blocks_at_once(len(coords), options.b_chunks, device),
    )
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit as end:  # what Lightning makes of an interrupt
        raise Interrupted if stop() else KeyboardInterrupt from end
    return module.outcome()


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


def surroundings(accelerator: str) -> dict[str, Any]:
    """Where a run took place and what it took; sizes in MiB."""
    memory = {"host": peak_memory() / 2**20}
    device = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        memory["device"] = torch.cuda.max_memory_allocated() / 2**20
    elif accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        device = f"{platform.processor()} GPU"
    return {
        "device": device,
        "peak_memory_mib": memory,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch_lightning": pl.__version__,
        },
    }


def cli() -> None:
    torch.set_flush_denormal(True)  # before any parallel work, or some threads stay slow
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    run_command(main)


if __name__ == "__main__":
    cli()
