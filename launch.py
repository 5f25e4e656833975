"""Several processes for one run: how they start, and that none outlives the others.

The first process holds a socket to each of the others. The system closes the socket of a process that dies, whatever
keeps its interpreter busy: so a death shows at once, and a long computation is no death.
"""

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import NoReturn

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from utils.ranks import Ranks
from utils.stop import resuming_command

_PARENT = "MINER_PARENT"  # the number of the process that started this one
_ANSWER_WITHIN = 10  # seconds
_NEWS_WITHIN = 3


def is_first_process() -> bool:
    """Whether this process may speak before `Lifeline.launch`: by what launchers tell those that they start."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))


class Lifeline:
    """Ties the processes of a run together, from `launch` to `let_go`."""

    def __init__(self):
        self.ranks = Ranks()
        self.device: torch.device | None = None  # of this process, where there are several
        self.n_local = 1  # processes on this machine
        self.links: dict[int, socket.socket] = {}  # by rank
        self.children: list = []
        self.again = resuming_command()
        self.ending = threading.Lock()

    def launch(self, accelerator: str, devices: int) -> Ranks:
        """Start the other processes, or join them where torchrun or SLURM has.

        Inputs
            devices: processes on each machine; torchrun and SLURM know better
        """
        devices, n_nodes = _placement(devices)
        if devices * n_nodes == 1:
            return self.ranks
        parent = os.environ.get(_PARENT) or (os.getppid() if dist.is_torchelastic_launched() else None)
        if parent is not None:
            _in_background(self._watch_parent, int(parent))
        strategy = DDPStrategy(process_group_backend="gloo")
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=n_nodes, strategy=strategy)
        launcher = fabric.strategy.launcher
        if parent is None and not fabric.strategy.cluster_environment.creates_processes_externally:
            os.environ[_PARENT] = str(os.getpid())
            _in_background(self._watch_start, launcher)
        fabric.launch()
        self.device, self.n_local = fabric.device, devices
        # patient: others may wait for the first for hours, and the links tell who died
        group = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        self.ranks = Ranks(fabric.global_rank, devices * n_nodes, group)
        self.children = list(launcher.procs) if launcher is not None and hasattr(launcher, "procs") else []
        self._link()
        if self.children:
            launcher.procs[:] = []  # Lightning's own observer kills without a word
        return self.ranks

    def __enter__(self) -> "Lifeline":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """An error of one process ends all; where all come to the same end, they let go."""
        if self.ranks.size == 1:
            if isinstance(error, SystemExit) and isinstance(error.code, str) and not is_first_process():
                raise SystemExit(1)  # the first one says the same
        elif error is None or (isinstance(error, SystemExit) and not isinstance(error.code, str)):
            self.let_go()
        elif isinstance(error, SystemExit):
            self.fail(error.code)
        else:
            time.sleep(_NEWS_WITHIN)  # another's death may be behind it
            self.fail("".join(traceback.format_exception(kind, error, trace)).rstrip())

    def fail(self, line: str, status: int = 1) -> NoReturn:
        """End all processes; the line is said once, whoever fails."""
        if not self.ranks.is_first:
            with contextlib.suppress(OSError):
                self.links[0].sendall(line.encode()[:4000])
                time.sleep(_ANSWER_WITHIN)  # the first one ends this process
        self._end(line, status)

    def let_go(self) -> None:
        """All is done, or all stop together: no end is a death any more."""
        for link in self.links.values():
            with contextlib.suppress(OSError):
                link.sendall(b"done")
        for child in self.children:
            try:
                child.wait(_ANSWER_WITHIN)
            except subprocess.TimeoutExpired:
                child.kill()
        if self.ranks.size > 1:
            dist.destroy_process_group()

    def _link(self) -> None:
        if self.ranks.is_first:
            server = socket.create_server(("", 0), backlog=self.ranks.size)
            port, secret, self.again = self.ranks.share((server.getsockname()[1], os.urandom(16), self.again))
            while len(self.links) < self.ranks.size - 1:
                link, _ = server.accept()
                link.settimeout(_ANSWER_WITHIN)
                hello = link.recv(20, socket.MSG_WAITALL)
                if hello[:16] == secret:
                    self.links[int.from_bytes(hello[16:], "big")] = link
        else:
            port, secret, self.again = self.ranks.share()
            self.links[0] = socket.create_connection((os.environ["MASTER_ADDR"], port))
            self.links[0].sendall(secret + self.ranks.rank.to_bytes(4, "big"))
        for link in self.links.values():
            link.settimeout(None)
            _notice_lost_machine(link)
        self.ranks.share()
        _in_background(self._watch)

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        for rank, link in self.links.items():
            selector.register(link, selectors.EVENT_READ, rank)
        while selector.get_map():
            for key, _ in selector.select():
                try:
                    word = key.fileobj.recv(4096)
                except OSError:
                    word = b""
                if word == b"done":
                    selector.unregister(key.fileobj)
                elif word == b"end":
                    self._end(None)
                elif word:
                    self._end(word.decode())
                else:  # of several that see the first one die, number 1 speaks
                    self._end(self._died(key.data) if self.ranks.rank in (0, 1) else None)

    def _watch_start(self, launcher) -> None:
        """For the children that die before they are linked."""
        while not self.links:
            for rank, child in enumerate(list(launcher.procs), 1):
                status = child.poll()
                if status is not None and not self.links:
                    self.children = list(launcher.procs)
                    self._end(self._died(rank) if status < 0 else None)  # one that ends by itself has said why
            time.sleep(0.2)

    def _watch_parent(self, parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(1)  # the link knows better, where there is one
        is_speaker = not self.links and os.environ.get("LOCAL_RANK") == "1"
        self._end(self._died(0) if is_speaker else None)

    def _died(self, rank: int) -> str:
        return f"error: process {rank} died; what is done is saved, this goes on: {self.again}"

    def _end(self, line: str | None, status: int = 1) -> NoReturn:
        """The first thread that comes here ends all processes."""
        self.ending.acquire()
        if line:
            below_the_bar = "\n" if self.links else ""
            os.write(2, f"{below_the_bar}{line}\n".encode())
        if self.ranks.is_first:
            for link in self.links.values():
                with contextlib.suppress(OSError):
                    link.sendall(b"end")
        for child in self.children:
            child.kill()
        sys.stdout.flush()
        os._exit(status)


def _placement(devices: int) -> tuple[int, int]:
    """Processes on each machine, and machines: whoever launched the processes knows, else the option."""
    env = os.environ
    if dist.is_torchelastic_launched():
        return int(env["LOCAL_WORLD_SIZE"]), int(env["WORLD_SIZE"]) // int(env["LOCAL_WORLD_SIZE"])
    if "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(env.get("SLURM_NTASKS_PER_NODE", 1)), int(env.get("SLURM_NNODES", 1))
    return devices, 1


def _in_background(work: Callable[..., None], *arguments) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def _notice_lost_machine(link: socket.socket) -> None:
    """It closes nothing; ask after it, so that some ten seconds of silence end the link."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
