"""A soak: every write of every program fails once in turn, and what can be seen then is checked.

    python -m tests.soak.writes --seed 0 --log writes.txt

A library that is preloaded (`faults.c`, compiled by ziglang) counts the calls that change files: opening for writing,
writing, taking room, renaming, deleting, flushing, closing. A first run of a program counts them; then each call fails
once, with an error that it may have on a disk. Besides, from every few calls on, the disk stays full, is read-only, or
the folder of the results is gone. Then a program must say in one line which file it was and why, without a traceback,
and the old files must be whole; or it goes on, with a note if anything is lost. The same command, with --resume where
there is one, must then end with the bytes of an undisturbed run. Linux only.
"""

import argparse
import ctypes
import errno
import mmap
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.records import RESULTS, Table, hardware, write

ROOT = Path(__file__).resolve().parents[2]
_PROGRAMS = (
    "train",
    "reconstruct",
    "preprocess_mesh",
    "torch.utils.tensorboard",
    "kornia.metrics",
    "pyvips",
    "tifffile",
    "zarr",
)
_FORKS = multiprocessing.get_context("forkserver")
_LIMIT = 120  # seconds of a run
_LASTING_EVERY = 15  # calls
_COLUMNS = (
    "program",
    "calls that write",
    "failed once in turn",
    "troubles that last",
    "refused with a line",
    "survived",
    "broke",
)

_ERRORS = (  # that calls may have: those that make or rename, write, remove, flush, close
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO),
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    (errno.EROFS, errno.EACCES, errno.EIO),
    (errno.ENOSPC, errno.EDQUOT, errno.EIO),
    (errno.EDQUOT, errno.EIO),
)
_FULL = (errno.ENOSPC, errno.ENOSPC, 0, 0, 0)
_READ_ONLY = (errno.EROFS, errno.EROFS, errno.EROFS, 0, 0)


class Control(ctypes.Structure):
    """`struct control` of faults.c"""

    _fields_ = (
        *(
            ("count", ctypes.c_int64),
            ("at", ctypes.c_int64),
            ("errors", ctypes.c_int32 * 5),
            ("lasting", ctypes.c_int32),
        ),
        *(("root", ctypes.c_char * 1024), ("victim", ctypes.c_char * 1024), ("hit", ctypes.c_char * 1024)),
    )


@dataclass(frozen=True)
class Program:
    """
    name: in the table
    command: its module, and its arguments
    results: patterns of the files whose bytes count
    before: files that are there when it starts
    resume: what is added to the command to go on
    victim: folder that may vanish
    n_processes: more than one run in processes of their own
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
    """Which call fails and how, as in `Control`."""

    how: str
    at: int
    errors: tuple[int, ...] = (0,) * 5

    @property
    def name(self) -> str:
        return self.how + (f" ({', '.join(errno.errorcode[one] for one in self.errors)})" if self.how == "once" else "")


class Bench:
    """Runs programs in a folder, with and without faults."""

    def __init__(self, place: Path):
        self.place = place
        library, control = place / "faults.so", place / "control"
        source = Path(__file__).with_name("faults.c")
        command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-o", library, source]
        subprocess.run(command, check=True)
        control.write_bytes(bytes(ctypes.sizeof(Control)))
        with control.open("r+b") as file:
            self.control = Control.from_buffer(mmap.mmap(file.fileno(), 0))
        os.environ |= {"LD_PRELOAD": str(library), "FAULTS": str(control), "OMP_NUM_THREADS": "1"}
        _FORKS.set_forkserver_preload(list(_PROGRAMS))

    def run(self, program: Program, folder: Path, fault: Fault | None, more: tuple[str, ...] = ()) -> tuple[int, str]:
        """Exit status, and what it says on stderr."""
        ctypes.memset(ctypes.byref(self.control), 0, ctypes.sizeof(Control))
        if fault is not None:
            self.control.at, self.control.lasting = fault.at, fault.how != "once"
            self.control.errors[:] = fault.errors
            self.control.victim = str(folder / program.victim).encode() if fault.how == "folder gone" else b""
        (folder / "tmp").mkdir(exist_ok=True)
        self.control.root = f"{folder}/".encode()
        said = self.place / "said.txt"
        arguments = (folder, said, [*program.command, *more])
        if program.n_processes == 1:
            process = _FORKS.Process(target=become, args=arguments)
            process.start()
            process.join(_LIMIT)
            if process.exitcode is None:
                process.kill()
                process.join()
            status = process.exitcode
        else:
            status = apart(*arguments)
        self.control.root = b""
        return status, said.read_text(errors="replace")


def become(folder: Path, said: Path, command: list[str]) -> None:
    """In a fork: become a program in a folder."""
    os.chdir(folder)
    for number, name in enumerate((os.devnull, os.devnull, said)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if number == 2 else 0), 0o600), number)
    os.environ["TMPDIR"] = str(folder / "tmp")
    tempfile.tempdir = None
    sys.argv = [f"{command[0]}.py", *command[1:]]
    sys.modules[command[0]].cli()


def apart(folder: Path, said: Path, command: list[str]) -> int:
    """The same in a new interpreter."""
    with said.open("w") as file:
        arguments = [sys.executable, ROOT / f"{command[0]}.py", *command[1:]]
        environment = os.environ | {"TMPDIR": str(folder / "tmp")}
        try:
            return subprocess.run(
                arguments, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=file, timeout=_LIMIT
            ).returncode
        except subprocess.TimeoutExpired:
            return -9


def contents(folder: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    """Files by their names in a folder; the bytes of metrics.json, which tells times, do not count."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): b"" if path.name == "metrics.json" else path.read_bytes() for path in paths}


def leftovers(folder: Path) -> list[str]:
    """What a program should not leave."""
    names = [
        path
        for pattern in ("**/.*.part", "**/.*.old", "**/.joining-*", "**/.l*.npy", "tmp/*")
        for path in folder.glob(pattern)
    ]
    halves = [path for path in folder.glob("ckpts/.levels/*/") if not (path / "levels.json").exists()]
    return sorted(str(path.relative_to(folder)) for path in [*names, *halves])


def lines_of(said: str) -> list[str]:
    """What was said, but for progress bars."""
    return [line for line in re.split(r"[\r\n]+", said) if line.strip() and not re.match(r".*\d+%\|", line)]


def faults_of(n_calls: int, generator: Random, program: Program) -> list[Fault]:
    """Each call fails once in turn; at some, a lasting trouble begins."""
    found = [Fault("once", at, tuple(map(generator.choice, _ERRORS))) for at in range(1, n_calls + 1)]
    for at in range(1, n_calls + 1, _LASTING_EVERY):
        found += [Fault("full", at, _FULL), Fault("read-only", at, _READ_ONLY)]
        found += [Fault("folder gone", at)] if program.victim else []
    return found


def is_told(line: str, hit: str, program: Program) -> bool:
    """Whether a line of error names the file or folder that a call was about."""
    names = [name.removeprefix(".").removesuffix(".part") for name in hit.partition(" ")[2].split("/")]
    return any(len(name) > 2 and name in line for name in [*names, *program.results])


class Soak:
    """One program after another: what was tried, and what broke."""

    def __init__(self, bench: Bench, log: Path, generator: Random):
        self.bench = bench
        self.log = log.open("w", buffering=1)
        self.generator = generator
        self.rows: list[list[str]] = []
        self.n_broken = 0

    def try_program(self, program: Program, most: int | None) -> None:
        whole = self.bench.place / "whole"
        replace(whole, program.before)
        status, said = self.bench.run(program, whole, None)
        expected, n_calls = contents(whole, program.results), self.bench.control.count
        assert status == 0, (program.name, status, said)
        faults = faults_of(n_calls, self.generator, program)
        if most is not None and len(faults) > most:
            faults = sorted(self.generator.sample(faults, most), key=faults.index)
        counts = Counter(self.try_fault(program, fault, expected) for fault in faults)
        n_once = sum(fault.how == "once" for fault in faults)
        figures = [n_calls, n_once, len(faults) - n_once, *(counts[how] for how in ("refused", "survived", "broke"))]
        self.n_broken += counts["broke"]
        self.rows.append([program.name, *(f"{figure:,}" for figure in figures)])
        print(*self.rows[-1], sep=" | ", flush=True)

    def try_fault(self, program: Program, fault: Fault, expected: dict[str, bytes]) -> str:
        """What became of a program with a fault."""
        folder = self.bench.place / "case"
        replace(folder, program.before)
        before = contents(folder, program.results)
        status, said = self.bench.run(program, folder, fault)
        hit, lines = self.bench.control.hit.decode(), lines_of(said)
        left, found = leftovers(folder), contents(folder, program.results)
        errors = [line for line in lines if line.startswith("error: ")]
        wrong = [
            f"also says {line!r}" for line in lines if not line.startswith(("error: ", "note: ", "compiling the "))
        ]
        if status == 0:
            wrong += ["errors"] * bool(errors) + [f"{name} differs" for name in differing(found, expected)]
        elif status != 1 or len(errors) != 1:
            wrong.append(f"status {status} with {len(errors)} lines of error")
        elif not is_told(errors[0], hit, program):
            wrong.append("does not name the file")
        if fault.how != "folder gone" and not hit.startswith("unlink"):
            wrong += not_whole(found, before, expected)
        is_of_curves = re.match("(open|write|close|mkdir) logs/", hit)
        if status == 0 and is_of_curves and not any(line.startswith("note: the curves") for line in lines):
            wrong.append("curves are lost in silence")
        if status != 0:
            if fault.how == "folder gone" and (away := Path(f"{folder / program.victim}.away")).exists():
                shutil.rmtree(away)
            again, said_again = self.bench.run(program, folder, None, program.resume)
            found = contents(folder, program.results)
            wrong += [f"then status {again}: {said_again[-500:]!r}"] * (again != 0)
            wrong += [f"{name} differs then" for name in differing(found, expected)]
            wrong += [f"{name} is left then" for name in leftovers(folder)]
        outcome = "broke" if wrong else "refused" if status else "survived"
        told = " / ".join(lines)
        self.log.write(f"{outcome}: {program.name}: {fault.name} at {fault.at}, {hit}: {told}\n")
        for line in wrong:
            self.log.write(f"    {line}\n")
        if left:
            self.log.write(f"    left: {', '.join(left)}\n")
        return outcome


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def not_whole(found: dict[str, bytes], before: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """What is wrong with the files of a program that has failed: the old ones stay until there are new ones."""
    names = before.keys() | (expected.keys() & found.keys())
    wrong = [name for name in names & found.keys() if found[name] not in (before.get(name), expected.get(name))]
    is_begun = any(found.get(name, before.get(name)) != before.get(name) for name in expected)
    missing = [] if is_begun else before.keys() - found.keys()
    return [*(f"{name} is neither old nor new" for name in wrong), *(f"{name} is gone" for name in missing)]


def replace(folder: Path, by: Path) -> None:
    """A folder as another one is."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(by, folder)


FIT = (
    *(
        "train",
        "--path",
        "picture.png",
        "--n_scales",
        "3",
        "--patch_size",
        "16",
        "--batch_size",
        "64",
        "--preset",
        "best",
    ),
    *("--num_epochs", "4", "--val_freq", "2", "--accelerator", "cpu", "--exp_name", "run", "--save_every", "0"),
)
_OF_FIT = ("ckpts/run/l*.ckpt", "ckpts/run/options.yaml", "ckpts/run/metrics.json")


def programs(bench: Bench) -> list[Program]:
    """What is tried; the folders in which they start are made."""
    import torch

    from datasets.sources import read_picture
    from datasets.writers import write_rows

    empty, old, begun, full = (bench.place / name for name in ("empty", "old", "begun", "full"))
    empty.mkdir()
    write_rows(empty / "picture.png", [read_picture(ROOT / "images/astronaut.png", (40, 50)).values], 3, (40, 50), 8)
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 3, indexing="ij")
    ball = (x**2 + y**2 + z**2 < 0.5).numpy()
    import numpy as np

    np.save(empty / "ball.npy", ball)
    shutil.copy(ROOT / "meshes/spot.obj", empty / "spot.obj")
    fit = list(FIT)
    made = []

    def make(folder: Path, start: Path, *commands: list[str]) -> None:
        replace(folder, start)
        for command in commands:
            status, said = bench.run(Program("", command, (), start), folder, None)
            assert status == 0, said

    make(old, empty, [*fit, "--lr", "0.01", "--seed", "1"])
    make(begun, empty, [*fit, "--max_seconds", "0.001"])
    volume = [
        "train",
        "--task",
        "mesh",
        "--path",
        "ball.npy",
        "--preset",
        "best",
        "--patch_size",
        "8",
        "--batch_size",
        "256",
    ]
    volume += ["--num_epochs", "30", "--accelerator", "cpu", "--exp_name", "ball"]
    mesh = ["preprocess_mesh", "--path", "spot.obj", "--N", "16"]
    outputs = (
        [f"out.{end}" for end in ("png", "jpg", "tif", "zarr")],
        [f"out.{end}" for end in ("npy", "ply", "obj", "glb", "stl")],
    )
    decode = [
        ["reconstruct", f"ckpts/{run}", "--out", out]
        for run, some in zip(("run", "ball"), outputs, strict=True)
        for out in some
    ]
    make(
        full,
        empty,
        fit,
        volume,
        mesh,
        *(
            ([*one, "--crop", "0", "0", "0", "16", "16", "8"] if one[1] == "ckpts/ball" else [*one, "--level", "1"])
            for one in decode
        ),
    )
    parts = ("--max_blocks", "6", "--max_memory", "1e-6", "--log_image")
    resume = ("--resume",)
    made += [
        Program("train.py", fit, _OF_FIT, empty, resume, "ckpts/run"),
        Program("train.py, in parts, mapped", [*fit, *parts], _OF_FIT, empty, resume, "ckpts"),
        Program("train.py --resume", [*fit, "--resume"], _OF_FIT, begun),
        Program("train.py --overwrite", [*fit, "--overwrite"], _OF_FIT, old, resume, "ckpts/run"),
        Program("train.py --devices 2", [*fit, "--devices", "2", "--log_image"], _OF_FIT, empty, resume, n_processes=2),
        Program("preprocess_mesh.py", [*mesh, "--overwrite", "--M", "27"], ("occupancy/*",), full),
        *(Program(f"reconstruct.py, {one[3][3:]}", one, (one[3], f"{one[3]}/**/*"), full) for one in decode),
    ]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True, help="a line for every fault goes to this file")
    parser.add_argument("--only", help="programs whose names this regular expression matches")
    parser.add_argument("--most", type=int, help="faults of a program, at most: a random choice (default: all)")
    parser.add_argument(
        "--most_apart", type=int, default=6, help="the same for programs of several processes, which are slow"
    )
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/results/soak_writes.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        bench = Bench(Path(place).resolve())
        soak = Soak(bench, options.log, Random(options.seed))
        for program in programs(bench):
            if options.only is None or re.search(options.only, program.name):
                soak.try_program(program, options.most if program.n_processes == 1 else options.most_apart)
    if options.record:
        command = f"python -m tests.soak.writes --seed {options.seed} --log writes.txt"
        table = Table("Writes that fail", list(_COLUMNS), soak.rows, command=command, hardware=hardware())
        write(RESULTS / "soak_writes.json", table)
    print(f"{soak.n_broken} broke" if soak.n_broken else "nothing broke")
    sys.exit(bool(soak.n_broken))


if __name__ == "__main__":
    main()
