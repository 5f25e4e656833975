"""A soak: every write of every program fails once in turn, and what can be seen then is checked.

    python -m tests.soak.writes

A library that is preloaded (`faults.c`, compiled by ziglang) counts the calls that change files: opening for writing,
writing, taking room, renaming, deleting, flushing, closing. A first run of a program counts them; then each call fails
once, with an error that it may have on a disk. Besides, from every few calls on, the disk stays full, is read-only, or
the folder of the results is gone. Then a program must say in one line which file it was and why, without a traceback,
and the old files must be whole; or it goes on, with a note if anything is lost. The same command, with --resume where
there is one, must then end with the bytes of an undisturbed run. Linux only.
"""

import errno
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from shlex import split

import numpy as np

from benchmarks.records import Printer
from datasets.sources import read_picture
from datasets.writers import write_rows
from tests.soak.faults import Bench, Fault, Program
from tests.soak.forks import ROOT
from tests.soak.reports import Log, soak_parser

_LASTING_EVERY = 15  # calls
_OUTCOMES = ("refused", "survived", "broke")
_COLUMNS = ["program", "calls that write", "failed once in turn", "troubles that last", *_OUTCOMES]

_ERRORS = (  # that calls may have: those that make or rename, write, remove, flush, close
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO),
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    (errno.EROFS, errno.EACCES, errno.EIO),
    (errno.ENOSPC, errno.EDQUOT, errno.EIO),
    (errno.EDQUOT, errno.EIO),
)
_FULL = (errno.ENOSPC, errno.ENOSPC, 0, 0, 0)
_READ_ONLY = (errno.EROFS, errno.EROFS, errno.EROFS, 0, 0)


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
    """What was said, but for the progress."""
    return [line for line in re.split(r"[\r\n]+", said) if line.strip() and not re.match(r"level \d+: ", line)]


def faults_of(n_calls: int, generator: Random, program: Program) -> list[Fault]:
    """Each call fails once in turn; at some, a lasting trouble begins."""
    found = [Fault("once", at, tuple(map(generator.choice, _ERRORS))) for at in range(1, n_calls + 1)]
    for at in range(1, n_calls + 1, _LASTING_EVERY):
        found += [Fault("full", at, _FULL), Fault("read-only", at, _READ_ONLY)]
        found += [Fault("folder gone", at)] if program.victim else []
    return found


def is_told(line: str, hit: str, fault: Fault, program: Program) -> bool:
    """Whether a line of error names the file or folder that a call was about, or, of troubles that last, another that
    was hit after it."""
    if fault.how in ("full", "read-only") and re.search("cannot write (ckpts|logs|occupancy|out)", line):
        return True
    names = [name.removeprefix(".").removesuffix(".part") for name in hit.partition(" ")[2].split("/")]
    return any(len(name) > 2 and name in line for name in [*names, *program.results])


class Soak:
    """Tries one program after another."""

    def __init__(self, bench: Bench, log: Log, printer: Printer, generator: Random):
        self.bench = bench
        self.log = log
        self.printer = printer
        self.generator = generator

    def try_program(self, program: Program, most: int | None) -> int:
        """How many faults broke it.

        Inputs
            most: faults to try, a random choice; None for all
        """
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
        figures = [n_calls, n_once, len(faults) - n_once, *(counts[how] for how in _OUTCOMES)]
        self.printer.add(program.name, *(f"{figure:,}" for figure in figures))
        return counts["broke"]

    def try_fault(self, program: Program, fault: Fault, expected: dict[str, bytes]) -> str:
        """What became of a program with a fault."""
        folder = self.bench.place / "case"
        replace(folder, program.before)
        before = contents(folder, program.results)
        status, said = self.bench.run(program, folder, fault)
        hit, lines = self.bench.control.hit.decode(), lines_of(said)
        if status == 0 and fault.how == "folder gone" and not (folder / program.victim).exists():
            away(folder, program).rename(folder / program.victim)  # it went when all was written
        left, found = leftovers(folder), contents(folder, program.results)
        errors = [line for line in lines if line.startswith("error: ")]
        wrong = [
            f"also says {line!r}" for line in lines if not line.startswith(("error: ", "note: ", "compiling the "))
        ]
        if status == 0:
            wrong += ["errors"] * bool(errors) + [f"{name} differs" for name in differing(found, expected)]
        elif status != 1 or len(errors) != 1:
            wrong.append(f"status {status} with {len(errors)} lines of error")
        elif not is_told(errors[0], hit, fault, program):
            wrong.append("does not name the file")
        if fault.how != "folder gone" and not hit.startswith("unlink"):
            wrong += not_whole(found, before, expected)
        call, _, name = hit.partition(" ")
        has_failed = fault.how != "folder gone"  # that of the results, not of the curves
        is_lost = call in ("open", "write", "close") or (call == "mkdir" and not (folder / name).exists())
        is_of_curves = name.startswith("logs/") and has_failed and is_lost
        if status == 0 and is_of_curves and not any(line.startswith("note: the curves") for line in lines):
            wrong.append("curves are lost in silence")
        if status != 0:
            if fault.how == "folder gone":
                shutil.rmtree(away(folder, program), ignore_errors=True)
            again, said_again = self.bench.run(program, folder, None, program.resume)
            found = contents(folder, program.results)
            wrong += [f"then status {again}: {said_again[-500:]!r}"] * (again != 0)
            wrong += [f"{name} differs then" for name in differing(found, expected)]
            temporary = "tmp/" if fault.how == "read-only" else None  # where nothing can be deleted
            wrong += [f"{name} is left then" for name in leftovers(folder) if not name.startswith(temporary or "//")]
        outcome = "broke" if wrong else "refused" if status else "survived"
        told = " / ".join(lines)
        more = [*wrong, *([f"left: {', '.join(left)}"] if left else [])]
        self.log("\n    ".join([f"{outcome}: {program.name}: {fault.name} at {fault.at}, {hit}: {told}", *more]))
        return outcome


def away(folder: Path, program: Program) -> Path:
    """Where the folder of the results goes."""
    return Path(f"{folder / program.victim}.away")


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


FIT = split(
    "train.py --path picture.png --n_scales 3 --patch_size 16 --batch_size 64 --preset best --num_epochs 4 "
    "--val_freq 2 --accelerator cpu --exp_name run --save_every 0"
)
VOLUME_FIT = split(
    "train.py --task mesh --path ball.npy --preset best --patch_size 8 --batch_size 256 --num_epochs 30 "
    "--accelerator cpu --exp_name ball"
)
MESH = split("preprocess_mesh.py --path spot.obj --N 16")
DECODE = [
    *(["reconstruct.py", "ckpts/run", "--out", f"out.{suffix}"] for suffix in ("png", "jpg", "tif", "zarr")),
    *(["reconstruct.py", "ckpts/ball", "--out", f"out.{suffix}"] for suffix in ("npy", "ply", "obj", "glb", "stl")),
]
_OF_FIT = ("ckpts/run/l*.ckpt", "ckpts/run/options.yaml", "ckpts/run/metrics.json")


def make_folders(bench: Bench) -> tuple[Path, Path, Path, Path]:
    """Folders in which programs start: with signals only; with another fit; one that ran out of time; with old files of
    all that is written."""
    empty, old, begun, full = (bench.place / name for name in ("empty", "old", "begun", "full"))
    empty.mkdir()
    write_rows(empty / "picture.png", [read_picture(ROOT / "images/astronaut.png", (40, 50)).values], 3, (40, 50), 8)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 16)] * 3)
    np.save(empty / "ball.npy", x**2 + y**2 + z**2 < 0.5)
    shutil.copy(ROOT / "meshes/spot.obj", empty / "spot.obj")
    crops = {"ckpts/run": ["--level", "1"], "ckpts/ball": split("--crop 0 0 0 16 16 8")}
    others = [[*one, *crops[one[1]]] for one in DECODE]
    for folder, commands in (
        (old, [[*FIT, "--lr", "0.01", "--seed", "1"]]),
        (begun, [[*FIT, "--max_seconds", "0.001"]]),
        (full, [FIT, VOLUME_FIT, MESH, *others]),
    ):
        replace(folder, empty)
        for command in commands:
            status, said = bench.run(Program("", command, (), empty), folder, None)
            assert status == 0, said
    return empty, old, begun, full


def programs(bench: Bench) -> list[Program]:
    """What is tried."""
    empty, old, begun, full = make_folders(bench)
    resume, parts = ("--resume",), split("--max_blocks 6 --max_memory 1e-6 --log_image")
    return [
        Program("train.py", FIT, _OF_FIT, empty, resume, "ckpts/run"),
        Program("train.py, in parts, mapped", [*FIT, *parts], _OF_FIT, empty, resume, "ckpts"),
        Program("train.py --resume", [*FIT, "--resume"], _OF_FIT, begun),
        Program("train.py --overwrite", [*FIT, "--overwrite"], _OF_FIT, old, resume, "ckpts/run"),
        Program("train.py --devices 2", [*FIT, "--devices", "2", "--log_image"], _OF_FIT, empty, resume, n_processes=2),
        Program("preprocess_mesh.py", [*MESH, "--overwrite", "--M", "27"], ("occupancy/*",), full),
        *(Program(f"reconstruct.py, {one[3][3:]}", one, (one[3], f"{one[3]}/**/*"), full) for one in DECODE),
    ]


def main() -> None:
    parser = soak_parser(__doc__, "writes")
    parser.add_argument("--only", default="", help="programs whose names this regular expression matches")
    parser.add_argument("--most", type=int, help="faults of a program, at most: a random choice (default: all)")
    parser.add_argument(
        "--most_apart", type=int, default=6, help="the same for programs of several processes, which are slow"
    )
    options = parser.parse_args()
    n_broken = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        bench = Bench(Path(place).resolve())
        printer = Printer("Writes that fail", _COLUMNS, options.out)
        soak = Soak(bench, Log(options.log), printer, Random(options.seed))
        for program in programs(bench):
            if re.search(options.only, program.name):
                n_broken += soak.try_program(program, options.most if program.n_processes == 1 else options.most_apart)
        bench.forks.close()
    sys.exit(f"{n_broken} broke" if n_broken else 0)


if __name__ == "__main__":
    main()
