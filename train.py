"""Fit a signal, level by level, coarse to fine: options -> for each level data, module, Trainer.fit -> report."""

import time

_START = time.perf_counter()

import dataclasses
import json
import logging
import math
import platform
import resource
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
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from datasets.datamodule import LevelDataModule
from datasets.signals import read_occupancy, read_picture
from datasets.targets import LevelTarget, coarsest_target, finer_target
from models.block_mlp import BlockMLP, init_blocks_
from models.encoding import encode, encoded_width
from models.level_module import BlockPruning, LevelImages, LevelModule, LevelProgressBar
from models.miner import MINER, Level, refine, whole
from models.ops import choose_backend
from models.ops.reference import blocks_at_once
from opt import check_size, device_of, dump_options, epochs_of_level, parse_options, per_axis, recorded_options
from utils.blocks import block_coords
from utils.checkpoint import find_levels, level_path, save_level, write_aside
from utils.errors import InputError, run_command, size_text
from utils.metrics import Metric, iou, psnr
from utils.pyramid import pyramid, upsample_whole

# A visit is some ten seconds of work at most, and on a CPU few enough blocks to stay in its cache: so many steps,
# so many points times epochs.
_VISIT_STEPS = 2048
_VISIT_POINTS = {"cpu": 2**24}
_VISIT_POINTS_ON_DEVICE = 2**30


def main() -> None:
    options = parse_options(sys.argv[1:])
    ckpts = Path("ckpts") / options.exp_name
    if find_levels(ckpts) and not options.overwrite:
        raise InputError(
            f"{ckpts} already holds a fit: --overwrite replaces it, another --exp_name keeps it"
            + ("" if sys.argv[1:] else " (python train.py --config configs/quickstart.yaml --overwrite)")
        )
    signal, source = read_signal(options)
    check_size(options, tuple(signal.shape[1:]))
    ckpts.mkdir(parents=True, exist_ok=True)

    shutil.rmtree(Path("logs") / options.exp_name, ignore_errors=True)

    metric = psnr if options.task == "image" else iou
    report = fit(signal, source, metric, options, ckpts)
    model = MINER.load(ckpts, device_of(options.accelerator), options.backend)
    quality = metric(model.decode(b_chunks=options.b_chunks).cpu(), signal)
    report |= {metric.name: finite_or_none(quality), "parameters": model.n_parameters}
    report["seconds"]["total"] = time.perf_counter() - _START
    report |= surroundings(options.accelerator)
    if math.isnan(quality):
        raise InputError(f"the fit diverged: a smaller --lr than {options.lr} works, or a larger --a than {options.a}")
    write_aside(ckpts / "metrics.json", json.dumps(report, indent=2).encode())
    results = {metric.name: quality, "parameters": model.n_parameters, "seconds": report["seconds"]["total"]}
    log_options(options, results)
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


def fit(signal: Tensor, source: dict[str, Any], metric: Metric, options: Namespace, ckpts: Path) -> dict[str, Any]:
    """Fit all levels, coarse to fine; each one's checkpoint is written as it is done."""
    signals = pyramid(signal, options.n_scales)
    backend, device = announced_backend(len(signal), options), device_of(options.accelerator)
    run = {
        "n_scales": options.n_scales,
        "n_channels": len(signal),
        "size": list(signal.shape[1:]),
        "source": source,
        "options": recorded_options(options),
    }
    start, levels, reconstruction = time.perf_counter(), [], None
    for index in reversed(range(options.n_scales)):
        signal = signals.pop()
        size = tuple(signal.shape[1:])
        patch_size = per_axis(options.patch_size, len(size))
        if reconstruction is None:
            base, target = torch.zeros(signal.shape), coarsest_target(signal, patch_size, metric)
        else:
            base = upsample_whole(reconstruction, size)
            residual = options.pyr == "laplacian"
            target = finer_target(signal, base, patch_size, metric, options.loss_thr, residual)
        level = make_level(target, options, index)
        n_epochs = fit_level(level, target, base, metric, backend, options, index) if len(target.active) else 0
        if index == options.n_scales - 1:  # not before there is something to put in their place
            remove_run(ckpts)
            write_aside(ckpts / "options.yaml", dump_options(options).encode())
        save_level(level_path(ckpts, index), {"level": index, "run": run} | level.record())
        level.network.to(device)
        reconstruction = refine(level, base, whole(level.size), b_chunks=options.b_chunks, backend=backend)
        levels.append(
            {"level": index}
            | level.summary()
            | {"epochs": n_epochs, metric.name: finite_or_none(metric(reconstruction, signal))}
        )
    return {"levels": levels[::-1], "seconds": {"fit": time.perf_counter() - start}}


def network_shape(n_dims: int, n_channels: int, residual: bool, options: Namespace) -> dict[str, Any]:
    return dict(
        n_in=encoded_width(n_dims, options.n_freq if options.use_pe else None),
        n_out=n_channels,
        n_layers=options.n_layers,
        n_hidden=options.n_hidden,
        output="sine" if residual else "sigmoid",
    )


def announced_backend(n_channels: int, options: Namespace) -> ModuleType:
    """The backend for all levels; says which it is."""
    n_dims = 2 if options.task == "image" else 3
    residuals = {False, options.n_scales > 1 and options.pyr == "laplacian"}
    shapes = [network_shape(n_dims, n_channels, residual, options) for residual in residuals]
    device = device_of(options.accelerator)
    backend = choose_backend(options.backend, shapes, device)
    name = backend.__name__.rpartition(".")[2].partition("_")[0]
    place = f"cpu, {torch.get_num_threads()} threads" if device == "cpu" else device
    print(f"backend: {name} on {place}")
    return backend


def make_level(target: LevelTarget, options: Namespace, index: int) -> Level:
    """A level with freshly drawn networks for its active blocks."""
    n_freq = options.n_freq if options.use_pe else None
    shape = network_shape(len(target.patch_size), len(target.signal), target.residual, options)
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
) -> int:
    """Train a level's network in place; returns the epochs it took."""
    coords = encode(block_coords(level.patch_size), level.n_freq)
    n_epochs = epochs_of_level(options, index)
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
    callbacks = [
        BlockPruning(options.loss_thr),
        EarlyStopping("val/n_training_blocks", patience=sys.maxsize, stopping_threshold=0.5),
        LevelProgressBar(index),
    ]
    if options.log_image:
        callbacks.append(LevelImages(index, level, base, options.b_chunks))
    logger = TensorBoardLogger("logs", name=options.exp_name, version=f"l{index}")
    trainer = pl.Trainer(
        accelerator=options.accelerator,
        devices=1,
        max_epochs=-(-n_epochs // options.val_freq),
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
        check_blocks=blocks_at_once(len(coords), options.b_chunks, device),
    )
    try:
        trainer.fit(module, datamodule=data)
    except SIGTERMException:
        raise
    except SystemExit as end:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from end
    return module.n_epochs_done


def remove_run(ckpts: Path) -> None:
    """Take an earlier run's files out of its folder."""
    for level in find_levels(ckpts):
        level_path(ckpts, level).unlink()
    (ckpts / "metrics.json").unlink(missing_ok=True)


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
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    memory = {"host": host}
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
    try:
        run_command(main)
    except SIGTERMException:
        print("error: terminated", file=sys.stderr)
        sys.exit(143)


if __name__ == "__main__":
    cli()
