"""Fit a signal, level by level, coarse to fine: options -> source -> plan -> levels -> report."""

import signal
import time

_STARTED = time.perf_counter()
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import gc
import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import torch

from datasets.sources import Source
from datasets.store import Store, map_levels, read_levels, write_levels
from datasets.tasks import TASKS, Task
from models.ops import Backend, choose_backend
from opt import check_size, parse_options, per_axis, target_of
from training.launch import began, join, launch, place
from training.level import fit_levels
from training.part import Job
from training.plan import Plan, plan_run
from training.report import finish, print_finished
from training.run import Run, check_folder
from training.spec import specify_levels
from training.stop import Enough, StopSignals, resumable
from training.trainer import quiet_lightning
from utils.checkpoint import lock
from utils.errors import run_command, size_text
from utils.ranks import Ranks

_PYRAMIDS = Path("ckpts") / ".levels"


def main(ranks: Ranks, started: float) -> None:
    """
    Inputs
        started: `time.perf_counter()` when the run began
    """
    options = parse_options(sys.argv[1:])
    task, ckpts = TASKS[options.task], Path("ckpts") / options.exp_name
    if not options.dry_run:
        check_folder(ckpts, options)
    source = open_signal(options, task)
    n_local = options.devices if ranks.size == 1 else ranks.n_local
    device = place(ranks, options.accelerator, 1 if options.dry_run else n_local)
    if options.devices > 1 and ranks.size == 1 and not options.dry_run:
        launch(options.devices, started)

    specs = specify_levels(options, task.n_dims, source.n_channels)
    backend = choose_backend(options.backend, [spec.shape for spec in specs], device)
    plan = ranks.share(plan_run(source, specs, backend, device, n_local, options.max_memory, options.max_blocks))
    fits = plan.fits(1 if options.dry_run else n_local)
    if ranks.is_first:
        announce(backend, device, ranks)
        for line in (*(plan.level_lines() if options.dry_run else ()), plan.total_line(fits)):
            print(line)
    if options.dry_run:
        sys.exit(0 if fits else 1)
    if ranks.is_first:
        print_notes(plan, source, ranks, options)

    with lock(ckpts) if ranks.is_first else nullcontext(), StopSignals(ranks) as stop, resumable():
        check_folder(ckpts, options)
        store = open_levels(source, options.n_scales, plan, ranks)
        described = task.describe(source) | {"crc32": store.crc32}
        run = Run(ckpts, options, source.size, source.n_channels, described, ranks)
        del source  # which may hold a whole picture
        target = target_of(options, task)
        if report := run.finished(task.metric, target):
            if ranks.is_first:
                print_finished(ckpts, report, task.metric)
            return
        job = Job(
            specs=specs,
            metric=task.metric,
            backend=backend,
            device=device,
            ranks=ranks,
            stop=stop,
            enough=Enough(target, options.max_seconds and started + options.max_seconds, ranks),
            run=run,
            plan=plan,
            exp_name=options.exp_name,
            b_chunks=options.b_chunks,
            save_every=options.save_every,
            log_image=options.log_image,
        )
        resumed = run.is_begun
        report = fit_levels(job, store.levels)
        report["resumed"] = resumed  # the seconds are then those of the last part alone
        finish(job, store.levels[0], report, options.backend, started)


def open_signal(options: Namespace, task: Task) -> Source:
    """The file of the signal, at the size that is wanted."""
    size = per_axis(options.input_size, task.n_dims) if options.input_size else None
    source = task.open(options.path, size)
    check_size(options, source.size)
    return source


def open_levels(source: Source, n_scales: int, plan: Plan, ranks: Ranks) -> Store:
    """The signal and its coarser levels, in memory or in files that the first process writes."""
    if not plan.is_mapped:
        return read_levels(source, n_scales)
    if ranks.is_first:
        write_levels(source, n_scales, _PYRAMIDS)
    ranks.share()  # the files are there
    return map_levels(source, n_scales, _PYRAMIDS)


def announce(backend: Backend, device: torch.device, ranks: Ranks) -> None:
    """Say what will run where."""
    n_threads = torch.get_num_threads()
    where = f"cpu, {n_threads} {'threads' if n_threads > 1 else 'thread'}" if device.type == "cpu" else device.type
    print(f"backend: {backend.name} on {where}" + (f", {ranks.size} processes" if ranks.size > 1 else ""))


def print_notes(plan: Plan, source: Source, ranks: Ranks, options: Namespace) -> None:
    """Say what a user may not expect."""
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    if any(wanted > given for wanted, given in zip(source.size, source.file_size, strict=True)):
        given = size_text(source.file_size)
        print(f"note: {options.path} is {given} and is enlarged to {size_text(source.size)}", file=sys.stderr)
    if options.log_image and (ranks.size > 1 or max(plan.blocks) > plan.max_blocks):
        print("note: --log_image shows only the levels that one process trains at once", file=sys.stderr)


def cli(started: float | None = None) -> None:
    """
    Inputs
        started: `time.perf_counter()` when the run began; None for now
    """
    started = time.perf_counter() if started is None else started
    gc.freeze()  # what the imports have left need not be searched again and again
    torch.set_flush_denormal(True)  # before any parallel work, or some threads stay slow
    quiet_lightning()

    def run() -> None:
        with join() as ranks:
            main(ranks, began(started))

    run_command(run)


if __name__ == "__main__":
    cli(_STARTED)
