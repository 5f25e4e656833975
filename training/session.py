"""A fit from its options to its report: signal -> plan -> levels -> report."""

import gc
import sys
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.arrays import array_source
from datasets.sources import Source
from datasets.store import Store, map_levels, read_levels, write_levels
from datasets.tasks import TASKS, Task, is_mesh
from models.ops import Backend, choose_backend
from models.packed.coefficients import compiled
from opt import method_line, parse_options, per_axis, settle, target_of
from training.display import Display
from training.job import Job
from training.launch import began, join, launch, place
from training.plan import Plan, plan_run
from training.report import finish, print_finished
from training.run import Run, check_folder
from training.spec import LevelSpec, specify_levels
from training.stop import Enough, StopSignals, resumable
from utils.channels import n_colours
from utils.checkpoint import lock
from utils.errors import InputError, KernelError, one_line, size_text
from utils.imports import uncollected
from utils.ranks import Ranks
from utils.transfer import Reading


@dataclass(frozen=True)
class Fit:
    """What is to be done.

    options: completed for the signal
    source: the signal
    specs: of its levels, the finest first
    backend, device: that train
    plan: of memory
    fits: whether this machine has so much
    root: folder of ckpts/ and logs/
    started: `time.perf_counter()` when the run began
    """

    options: Namespace
    source: Source
    specs: list[LevelSpec]
    backend: Backend
    device: torch.device
    plan: Plan
    fits: bool
    root: Path
    started: float

    @property
    def ckpts(self) -> Path:
        return self.root / "ckpts" / self.options.exp_name

    @property
    def task(self) -> Task:
        return TASKS[self.options.task]


def run(argv: list[str], started: float) -> None:
    """Fit what a command line of train.py says, in this process or as one of several.

    Inputs
        started: `time.perf_counter()` when the run began
    """
    gc.freeze()  # what the imports have left need not be searched again and again
    set_up()
    with join() as ranks:
        options, started = parse_options(argv), began(started)
        fit = prepare(options, ranks, started)
        if options.dry_run:
            sys.exit(0 if fit.fits else 1)
        with lock(fit.ckpts) if ranks.is_first else nullcontext(), StopSignals(ranks) as stop, resumable():
            train(fit, ranks, stop)


def set_up() -> None:
    """What all fits of this process share."""
    torch.set_flush_denormal(True)  # before any parallel work, or some threads stay slow


def prepare(
    options: Namespace, ranks: Ranks, started: float, root: Path = Path(), values: np.ndarray | Tensor | None = None
) -> Fit:
    """Open the signal and lay out its fit, and say so. Where the options ask for several processes, and this is the one
    that the user has started, they do the work, and SystemExit follows.

    Inputs
        root: folder of ckpts/, logs/ and occupancy/
        values: the signal, where it is in no file
    """
    task = TASKS[options.task]
    if options.preset == "compact":
        check_compiler()
    if not options.dry_run:
        check_folder(root / "ckpts" / options.exp_name, options)
    channels = options.channels and tuple(options.channels)
    reading = Reading(options.transfer, options.nodata, options.time, channels)
    if values is None:
        source = open_signal(options, task, reading, ranks, root)
    else:
        source = array_source(values, _size(options, task), reading, task.n_dims)
    spread = source.transfer and source.transfer.spread
    options = settle(options, source.size, "occupancy" if source.bits == 1 else "distance", spread)
    if source.transfer:
        options.transfer = source.transfer.kind
    if values is None and is_mesh(options.path):
        options.path = str(source.path)
    n_local = options.devices if ranks.size == 1 else ranks.n_local
    device = place(ranks, options.accelerator, 1 if options.dry_run else n_local)
    if options.devices > 1 and ranks.size == 1 and not options.dry_run:
        launch(options.devices, started)
    specs = specify_levels(options, task.n_dims, source.n_channels)
    backend = choose_backend(options.backend, [spec.shapes[0] for spec in specs], device)
    limits = options.max_memory, options.max_blocks, options.n_parameters
    plan = ranks.share(plan_run(source, specs, backend, device, n_local, *limits))
    fits = plan.fits(1 if options.dry_run else n_local)
    fit = Fit(options, source, specs, backend, device, plan, fits, root, started)
    if ranks.is_first:
        announce(fit, ranks)
    return fit


def train(fit: Fit, ranks: Ranks, stop: StopSignals) -> None:
    """Fit the signal, level by level, and report."""
    options, task, source = fit.options, fit.task, fit.source
    check_folder(fit.ckpts, options)
    with ThreadPoolExecutor(1) as loader:
        loader.submit(load_training)  # takes as long as reading the signal
        store = open_levels(fit, ranks)
    source.close()
    if options.preset == "compact" and vars(options)["lambda"] is None:
        vars(options)["lambda"] = ranks.share(price_for(fit, store) if ranks.is_first else None)
        fit = replace(fit, specs=[replace(spec, price=vars(options)["lambda"]) for spec in fit.specs])
    metric, described = task.metric_of(source), task.describe(source) | {"crc32": store.crc32}
    logs = fit.root / "logs" / options.exp_name
    run = Run(fit.ckpts, options, source.size, source.n_channels, described, ranks, logs)
    target = None if options.preset == "compact" else target_of(options, task)
    if report := run.finished(metric, target):
        if ranks.is_first and not options.quiet:
            print_finished(fit.ckpts, report, metric)
        return
    from training.curves import Curves
    from training.level import fit_levels

    enough = Enough(target, options.max_seconds and fit.started + options.max_seconds, ranks)
    job = Job(
        specs=fit.specs,
        metric=metric,
        backend=fit.backend,
        device=fit.device,
        ranks=ranks,
        stop=stop,
        enough=enough,
        run=run,
        plan=fit.plan,
        curves=Curves(logs) if ranks.is_first else None,
        display=Display(fit.specs, fit.plan.blocks, metric, enough.deadline, options.quiet or not ranks.is_first),
        n_colours=n_colours(source.n_channels, source.spectral),
        n_parameters=options.n_parameters,
        b_chunks=options.b_chunks,
        save_every=options.save_every,
        log_image=options.log_image,
        quiet=options.quiet,
    )
    resumed = run.is_begun  # the seconds are then those of the last part alone
    report = fit_levels(job, store.levels) | {"resumed": resumed}
    finish(job, store.levels[0], report, options.backend, fit.started)


def check_compiler() -> None:
    """InputError where the weights of networks of cosines cannot be chosen."""
    try:
        compiled()
    except (KernelError, OSError) as error:
        raise InputError(f"--preset compact: {one_line(error)}; use --preset best, or another machine") from error


def price_for(fit: Fit, store: Store) -> float:
    """--lambda that gives what is aimed at, nearly."""
    from training.compact import find_price

    options = fit.options
    coloured = n_colours(fit.source.n_channels, fit.source.spectral)
    return find_price(fit.specs, store.levels, coloured, options.target_psnr, options.target_bpp)


def load_training() -> None:
    """Import what loads slowly, Lightning and TensorBoard; whatever goes wrong shows when it is imported again."""
    with uncollected():
        import_module("training.level")
        import_module("training.curves")
        if gc.get_freeze_count():
            gc.freeze()  # as `run` has done with what came before


def open_signal(options: Namespace, task: Task, reading: Reading, ranks: Ranks, root: Path) -> Source:
    """The file of the signal, at the size that is wanted; a mesh is sampled on a grid first."""
    if not is_mesh(options.path):
        return open_values(options, task, reading, ranks)
    from datasets.grids import grid_path, kept_grid, make_grid, planned_grid  # trimesh and others load slowly

    folder = root / "occupancy"
    path = kept_grid(folder, options.path, options.N, options.values)
    if path is None and options.dry_run:
        return planned_grid(options.path, options.N, options.values)
    if path is None and ranks.is_first:
        made = make_grid(folder, options.path, options.N, options.values, progress=not options.quiet)
        if not options.quiet:
            print(made)
    ranks.share()  # the grid is there
    return task.open(grid_path(folder, options.path, options.N, options.values))


def open_values(options: Namespace, task: Task, reading: Reading, ranks: Ranks) -> Source:
    """The file of a signal that is no mesh; the first process alone looks through it for the transfer."""
    size = _size(options, task)
    source = task.open(options.path, size, reading) if ranks.is_first else None
    transfer = ranks.share(source and source.transfer)
    return source or task.open(options.path, size, replace(reading, transfer=transfer) if transfer else reading)


def _size(options: Namespace, task: Task) -> tuple[int, ...] | None:
    """That the signal is wanted at, (h, w) or (d, h, w)."""
    return per_axis(options.input_size, task.n_dims) if options.input_size else None


def open_levels(fit: Fit, ranks: Ranks) -> Store:
    """The signal and its coarser levels, in memory or in files that the first process writes."""
    source, n_scales = fit.source, fit.options.n_scales
    if not fit.plan.is_mapped:
        return read_levels(source, n_scales)
    folder = fit.root / "ckpts" / ".levels"
    if ranks.is_first:
        write_levels(source, n_scales, folder, progress=not fit.options.quiet)
    ranks.share()  # the files are there
    return map_levels(source, n_scales, folder)


def announce(fit: Fit, ranks: Ranks) -> None:
    """Say what will run where, and what a user may not expect."""
    options, plan, device = fit.options, fit.plan, fit.device
    for note in () if options.dry_run else notes(fit, ranks):
        print(f"note: {note}", file=sys.stderr)
    if options.quiet:
        return
    n_threads = torch.get_num_threads()
    where = f"cpu, {n_threads} {'threads' if n_threads > 1 else 'thread'}" if device.type == "cpu" else device.type
    print(method_line(options))
    print(f"backend: {fit.backend.name} on {where}" + (f", {ranks.size} processes" if ranks.size > 1 else ""))
    for line in (*(plan.level_lines() if options.dry_run else ()), plan.total_line(fit.fits)):
        print(line)


def notes(fit: Fit, ranks: Ranks) -> Iterator[str]:
    """What a user may not expect."""
    options, plan, source = fit.options, fit.plan, fit.source
    yield from source.notes
    if any(wanted > given for wanted, given in zip(source.size, source.file_size, strict=True)):
        yield f"{options.path} is {size_text(source.file_size)} and is enlarged to {size_text(source.size)}"
    if options.log_image and (ranks.size > 1 or max(plan.blocks) > plan.max_blocks):
        yield "--log_image shows only the levels that one process trains at once"
