"""Several processes for one run: torch's elastic agent starts them and watches over them, as torchrun does.

The process that the user starts becomes the agent. It passes signals on, and when one process dies it ends the others.
The same program joins the processes that torchrun or srun has started.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
import torch.distributed as dist

from training.stop import resuming_command
from utils.devices import device_of
from utils.errors import InputError
from utils.launchers import is_launched, slurm_step
from utils.ranks import PeerLost, Ranks

_AGENT = "MINER_AGENT"  # number of the agent, when it began and its folder, for the processes that it has started
_SAVE_WITHIN = 300  # seconds that processes have to save in after a signal, before they are killed
_MEET_WITHIN = timedelta(minutes=10)
_NEWS_WITHIN = 3  # seconds until whoever starts the processes has ended them after a failure of another one
_PATIENCE = timedelta(days=7)  # others may wait for the first process for hours; whoever died, its connections close
_LOST = 75  # exit status of a process that ends because another one is gone


def launch(n_processes: int, started: float) -> None:
    """Run this command line in several processes on this machine, until all have ended; then end likewise.

    Inputs
        started: `time.perf_counter()` when the run began

    Errors
        SystemExit with the status of the processes; with a line of error where one was killed
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # the processes speak for themselves
    sys.unraisablehook = lambda _: None  # torch's threads may fail to join each other at the end
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SAVE_WITHIN))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // n_processes)))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as logs:  # what happened then is what to tell
        agent = _Agent(os.getpid(), started, Path(logs))
        os.environ[_AGENT] = f"{agent.number} {agent.started} {agent.folder}"
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=n_processes,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            run_id="miner",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=0.1,
        )
        try:
            elastic_launch(config, sys.executable)(*sys.argv)
        except SignalException as stop:
            if not agent.finished.exists():
                sys.exit(128 + stop.sigval)
        except ChildFailedError as failed:
            rank, failure = failed.get_first_failure()
            if failure.exitcode > 0 and failure.exitcode != _LOST:  # it has said why
                sys.exit(failure.exitcode)
            how = "lost its peers" if failure.exitcode > 0 else f"died ({signal.Signals(-failure.exitcode).name})"
            print(file=sys.stderr)  # below its progress bar
            sys.exit(f"error: process {rank} {how}; progress saved; resume with: {resuming_command()}")
    sys.exit(0)


def began(started: float) -> float:
    """When the run began: in a process that the agent has started, when that was; else `started`."""
    agent = _agent()
    return started if agent is None else agent.started


class _Agent(NamedTuple):
    """The process that has started those of a run; its folder is there as long as it is."""

    number: int
    started: float
    folder: Path

    @property
    def finished(self) -> Path:
        """A file that is there once the run is finished."""
        return self.folder / "finished"


def _agent() -> _Agent | None:
    """The agent that has started this process; None where another launcher has."""
    if _AGENT not in os.environ:
        return None
    number, started, folder = os.environ[_AGENT].split(" ", 2)
    return _Agent(int(number), float(started), Path(folder))


@contextmanager
def join() -> Iterator[Ranks]:
    """The processes of this run: this one alone, or those that an agent or srun has started.

    While entered, the failure of one process ends all of them, and it is reported once.
    """
    if not is_launched():
        yield Ranks()
        return
    agent = _agent()
    parent = os.getppid() if agent is None else agent.number
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if dist.is_torchelastic_launched():
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        ranks, address = Ranks(*(int(os.environ[name]) for name in names)), "env://"
    else:
        size, n_nodes = slurm_step("NUM_TASKS"), slurm_step("NUM_NODES", 1)
        ranks = Ranks(int(os.environ["SLURM_PROCID"]), size, int(os.environ["SLURM_LOCALID"]), ceil(size / n_nodes))
        address = f"tcp://{_slurm_address()}"
    with _failing_together(ranks):
        dist.init_process_group("gloo", address, _MEET_WITHIN, ranks.size, ranks.rank)
        ranks.group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield ranks
        if agent is not None:
            _finish(agent, ranks)
        dist.destroy_process_group()


def _finish(agent: _Agent, ranks: Ranks) -> None:
    """The run is finished: a signal to stop comes too late, for this process and for the agent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if ranks.is_first:
        with suppress(OSError):
            agent.finished.touch()


def place(ranks: Ranks, accelerator: str, n_local: int) -> torch.device:
    """The device of this process, of n_local on this machine.

    Errors
        InputError where there are fewer devices than processes
    """
    kind = device_of(accelerator)
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, n_local)
    if n_local > there:
        raise InputError(f"--devices {n_local}: --accelerator {accelerator} finds {there} here; use at most that many")
    return torch.device(kind, ranks.local_rank) if kind == "cuda" else torch.device(kind)


@contextmanager
def _failing_together(ranks: Ranks) -> Iterator[None]:
    """What ends one process ends all, and one of them says why.

    Where another process failed, this one's own failure is only a consequence: it waits in silence for its end. Where
    all fail alike, the first one says so.
    """
    try:
        yield
    except KeyboardInterrupt:
        if ranks.is_first:
            raise
        _leave(128 + signal.SIGINT)
    except Exception as error:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if isinstance(error, PeerLost):
            if ranks.is_first and _agent() is None:
                print(
                    f"error: another process died; progress saved; resume with: {resuming_command()}", file=sys.stderr
                )
            time.sleep(_NEWS_WITHIN)
            _leave(_LOST)
        if not ranks.is_first:
            time.sleep(_NEWS_WITHIN)
        raise


def _leave(status: int) -> NoReturn:
    """End this process without another word."""
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, which then cannot end it."""
    while os.getppid() == parent:
        time.sleep(1)
    _leave(_LOST)


def _slurm_address() -> str:
    """Where the tasks of a step meet: on its first node, at a port of its own."""
    from training.lightning import SLURMEnvironment  # which loads slowly

    node = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
    number = int(os.environ["SLURM_JOB_ID"]) * 16 + int(os.environ["SLURM_STEP_ID"])
    return f"{node}:{15000 + number % 15000}"
