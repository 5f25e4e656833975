"""Programs whose writes fail: a library that is preloaded (`faults.c`) counts the calls that change files, and lets
some of them fail. Linux only.
"""

import ctypes
import errno
import mmap
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.soak.forks import ROOT, Forks

_LIMIT = 120  # seconds of a run


class Control(ctypes.Structure):
    """`struct control` of faults.c"""

    _fields_ = (
        *(("count", ctypes.c_int64), ("at", ctypes.c_int64)),
        *(("errors", ctypes.c_int32 * 5), ("lasting", ctypes.c_int32)),
        *((name, ctypes.c_char * 1024) for name in ("root", "victim", "hit")),
    )


@dataclass(frozen=True)
class Program:
    """
    name: in the table
    command: its file, and its arguments
    results: patterns of the files whose bytes count
    before: files that are there when it starts
    resume: what is added to the command to go on
    victim: folder that may vanish
    n_processes: if several, it runs in a new interpreter, not in a fork
    """

    name: str
    command: list[str]
    results: tuple[str, ...]
    before: Path
    resume: tuple[str, ...] = ()
    victim: str = ""
    n_processes: int = 1


@dataclass(frozen=True)
class Fault:
    """A call that fails.

    how: once; or from that call on the disk is full, is read-only, or the folder is gone
    at: number of the call, from 1 on
    errors: by the kind of call (`enum kind` of faults.c), its errno; 0 where such a call does not fail
    """

    how: str
    at: int
    errors: tuple[int, ...] = (0,) * 5

    @property
    def name(self) -> str:
        return self.how + (f" ({', '.join(errno.errorcode[one] for one in self.errors)})" if self.how == "once" else "")


class Bench:
    """Runs programs in a folder, with and without faults.

    Inputs
        place: an empty folder, for its own files
    """

    def __init__(self, place: Path):
        self.place = place
        library, control = place / "faults.so", place / "control"
        source = Path(__file__).with_name("faults.c")
        command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-o", library, source]
        subprocess.run(command, check=True)
        control.write_bytes(bytes(ctypes.sizeof(Control)))
        with control.open("r+b") as file:
            self.control = Control.from_buffer(mmap.mmap(file.fileno(), 0))
        self.environment = os.environ | {
            **{"LD_PRELOAD": str(library), "FAULTS": str(control), "OMP_NUM_THREADS": "1"},
            "TMPDIR": "tmp",  # of the folder that a program runs in
            "TORCHINDUCTOR_CACHE_DIR": str(place / "inductor"),  # which would lie there otherwise
        }
        self.forks = Forks(self.environment)

    def run(self, program: Program, folder: Path, fault: Fault | None, more: tuple[str, ...] = ()) -> tuple[int, str]:
        """Exit status, and what it says on stderr."""
        ctypes.memset(ctypes.byref(self.control), 0, ctypes.sizeof(Control))
        if fault is not None:
            self.control.at, self.control.lasting = fault.at, fault.how != "once"
            self.control.errors[:] = fault.errors
            self.control.victim = str(folder / program.victim).encode() if fault.how == "folder gone" else b""
        (folder / "tmp").mkdir(exist_ok=True)
        self.control.root = f"{folder}/".encode()
        command = [str(ROOT / program.command[0]), *program.command[1:], *more]
        process = (self._begin if program.n_processes > 1 else self.forks.start)(command, folder, self.place)
        try:
            status = process.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            status = process.wait()
        self.control.root = b""
        return status, (self.place / "error.txt").read_text(errors="replace")

    def _begin(self, command: list[str], folder: Path, said: Path) -> subprocess.Popen:
        """Run a program in a new interpreter, as `Forks.start` does in a fork."""
        with (said / "error.txt").open("w") as error:
            command = [sys.executable, *command]
            return subprocess.Popen(command, cwd=folder, env=self.environment, stdout=subprocess.DEVNULL, stderr=error)
