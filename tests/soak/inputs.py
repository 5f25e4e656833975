"""Hostile files and options for all three programs, each case in a process of its own.

    python -m tests.soak.inputs --n 20000 --jobs 2

A case must end within its time and memory, either well or with status 1 and one line of error, leave what it was
given as it was, and print nothing but its own lines. The log has a line for each.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # threads do not outlive a fork

import hashlib
import multiprocessing
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

import decoding.volume
import preprocess_mesh
import reconstruct
import train
from benchmarks.records import Printer
from datasets.store import read_levels
from datasets.tasks import TASKS
from opt import make_parser
from tests.soak import samples
from tests.soak.damage import VALUES, damage_bytes, damage_png, damage_text, damage_zip
from tests.soak.reports import soak_parser
from utils.errors import run_command

for _name in ("jpeg", "other", "png", "tiff", "zarr"):  # once, not in every case
    import_module(f"datasets.formats.{_name}")
for _name in ("datasets.voxelize", "utils.surface", "imagecodecs._png", "imagecodecs._imcd", "imagecodecs._jpeg8"):
    import_module(_name)

decoding.volume.SURFACE_POINTS = 1000  # 10 s a mesh, and nothing hostile about them

_SECONDS, _CPU_SECONDS = 60, 20
_MEMORY = 3 * 2**30
_OURS = re.compile(r"note: |error: |compiling the kernel|level \d+: |$")
_BAR = re.compile(r"\d+%\||\d+it \[|it/s\]")
_LEFT_OVER = re.compile(r"\.(part|old|tmp|joining-.*)$")


@dataclass(frozen=True)
class Group:
    """A kind of input: a row of the summary.

    weight: how often it is tried
    samples: what the names of its files begin or end with
    damages: made to them
    """

    weight: int
    samples: tuple[str, ...]
    damages: tuple[Callable[[Random, bytes], bytes], ...]


GROUPS = {
    "PNG": Group(6, (".png",), (damage_bytes, damage_png, damage_png)),
    "JPEG": Group(6, (".jpg",), (damage_bytes,)),
    "TIFF": Group(6, (".tif",), (damage_bytes,)),
    "Zarr": Group(4, (".zarr",), (damage_text, damage_bytes)),
    "Zarr in .zip": Group(4, (".zip",), (damage_bytes, damage_zip)),
    "WebP": Group(3, (".webp",), (damage_bytes,)),
    "GIF": Group(3, (".gif",), (damage_bytes,)),
    "BMP, PPM": Group(3, (".bmp", ".ppm"), (damage_bytes,)),
    "JPEG 2000, AVIF": Group(3, (".jp2", ".avif"), (damage_bytes,)),
    "occupancy": Group(6, (".npy",), (damage_bytes,)),
    "meshes": Group(8, (".obj", ".ply", ".stl", ".glb"), (damage_bytes, damage_text)),
    "checkpoints": Group(6, ("ckpts/fit/l", "ckpts/volume/l"), (damage_bytes, damage_zip)),
    "interrupted runs": Group(1, ("ckpts/stopped/",), (damage_bytes, damage_zip, damage_text)),
    "configurations": Group(4, ("options.yaml",), (damage_text,)),
    "options": Group(12, (), ()),
}
_PICTURES = list(GROUPS)[:9]
PARSERS = {
    "train.py": make_parser(),
    "reconstruct.py": reconstruct.make_parser(),
    "preprocess_mesh.py": preprocess_mesh.make_parser(),
}
_USUAL = {
    "train.py": ["--path", "picture.png", "--dry_run", "--backend", "reference"],
    "reconstruct.py": ["ckpts/fit", "--out", "out.png", "--backend", "reference"],
    "preprocess_mesh.py": ["--path", "sphere.obj", "--N", "8"],
}
_SMALL = ("--patch_size", "4", "--batch_size", "16")
_NOT_VARIED = {"help", "dry_run"}


@dataclass(frozen=True)
class Case:
    """
    group: of `GROUPS`
    damage: what was done to which file
    arguments: of the command line, the program first; or "read" and what `TASKS[...].open` takes
    """

    group: str
    damage: str
    arguments: tuple


def make_case(random: Random, originals: Path) -> Case:
    """Lay out a case in the current folder."""
    group = random.choices(list(GROUPS), [one.weight for one in GROUPS.values()])[0]
    if group == "options":
        return _make_options(random, originals)
    kind = GROUPS[group]
    names = sorted(str(path.relative_to(originals)) for path in _samples(originals))
    name = random.choice([one for one in names if one.endswith(kind.samples) or one.startswith(kind.samples)])
    _copy(originals, name if not name.startswith("ckpts/") else str(Path(name).parent))
    damaged = Path(name)
    if damaged.is_dir():
        damaged = random.choice(sorted(path for path in damaged.rglob("*") if path.is_file()))
    damage = random.choice(kind.damages)
    if damage is damage_zip and damaged.suffix not in (".zip", ".ckpt"):
        damage = damage_bytes
    damaged.write_bytes(damage(random, damaged.read_bytes()))
    return Case(group, f"{damaged} {damage.__name__}", _arguments(random, originals, group, name))


def _samples(originals: Path) -> list[Path]:
    """Files and Zarr folders."""
    runs = [path for path in originals.glob("ckpts/*/*") if path.name != ".lock"]
    return runs + [path for path in originals.iterdir() if path.name not in ("ckpts", "logs")]


def _copy(originals: Path, name: str) -> None:
    if not Path(name).exists():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (originals / name).is_dir() else shutil.copyfile)(originals / name, name)


def _arguments(random: Random, originals: Path, group: str, name: str) -> tuple:
    """How a damaged sample is read."""
    if group == "interrupted runs":
        _copy(originals, "picture.png")
        return "train.py", *samples.STOPPED_FIT, "--exp_name", "stopped", "--resume"
    if group == "configurations":
        _copy(originals, "picture.png")
        return "train.py", "--config", name, "--dry_run"
    if group == "checkpoints":
        out = random.choice(["png", "tif", "jpg"] if "fit" in name else ["npy", "ply"])
        return "reconstruct.py", str(Path(name).parent), "--out", f"out.{out}", "--backend", "reference"
    is_picture = group in _PICTURES
    if random.random() < 0.2:
        run = "ckpts/fit" if is_picture else "ckpts/volume"
        _copy(originals, run)
        return "reconstruct.py", run, "--original", name, "--backend", "reference"
    if group == "meshes":
        return "preprocess_mesh.py", "--path", name, "--N", "8", "--T", random.choice("13")
    task, size = ("image", None) if is_picture else ("mesh", (12, 12, 12) if name == "flat.npy" else None)
    if random.random() < 0.2:
        given = ["--input_size", *map(str, size)] if size else []
        return "train.py", "--task", task, *_SMALL, "--path", name, *given, "--dry_run"
    if is_picture:
        size = random.choice([None, None, (7, 9), (30, 40)])
    return "read", task, name, size


def _make_options(random: Random, originals: Path) -> Case:
    """Values for one to three options of a program."""
    for name in ("picture.png", "sphere.obj", "ckpts/fit"):
        _copy(originals, name)
    os.mkfifo("fifo")
    Path("loop").symlink_to("loop")
    Path("folder").mkdir()
    program = random.choice(list(PARSERS))
    arguments = list(_USUAL[program])
    options = [action for action in PARSERS[program]._actions if action.dest not in _NOT_VARIED]
    for action in random.sample(options, random.choice([1, 1, 2, 3])):
        values = random.choices(VALUES, k=1 if action.nargs is None else random.choice([0, 1, 2, 3, 7]))
        if action.dest == "out":  # what it names is replaced
            values = [value for value in values if "/" not in value and value not in ("~", "fifo", "loop")] or ["x"]
        if not action.option_strings:
            arguments[0] = values[0]
        else:
            arguments += [action.option_strings[0], *values]
    return Case("options", "", (program, *arguments))


def run_case(case: Case) -> int:
    """Run a case in this process; the status it would end with."""
    program, *arguments = case.arguments
    sys.argv = [program, *arguments]
    programs = {"train.py": train.cli, "reconstruct.py": reconstruct.cli, "preprocess_mesh.py": preprocess_mesh.cli}
    try:
        programs.get(program, lambda: run_command(lambda: _read(*arguments)))()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _read(task: str, path: str, size: tuple[int, ...] | None) -> None:
    """Read a signal and make its levels, as training does."""
    read_levels(TASKS[task].open(path, size), 2)


def _in_child(case: Case, output: Path) -> None:
    """Run a case in a process of its own, within its limits, in the current folder; it does not return."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    signal.alarm(_SECONDS)
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    status = run_case(case)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _contents(folder: Path) -> dict[str, str]:
    """A checksum of each file, by name."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fault_of(case: Case, status: int, out: str, error: str, before: dict[str, str], after: dict[str, str]) -> str:
    """What is wrong with how a case ended, or nothing.

    Inputs
        status: as `os.waitstatus_to_exitcode` gives it
        before, after: the files in its folder
    """
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    shown = [line.rpartition("\r")[2].strip() for line in error.split("\n")]
    lines = [line for line in shown if not _BAR.search(line)]
    strange = next((line for line in lines if not _OURS.match(line)), None)
    if "Traceback" in error or strange is not None:
        return f"printed {strange!r}"
    n_errors = sum(line.startswith("error: ") for line in lines)
    may_not_fit = "may not fit this machine" in out
    if n_errors != (status != 0 and not may_not_fit):
        return f"status {status} with {n_errors} lines of error"
    lost = [name for name, checksum in before.items() if after.get(name) != checksum]
    if lost and case.group != "interrupted runs":
        return f"changed {lost[0]!r}"
    left = [
        name
        for name in after.keys() - before.keys()
        if _LEFT_OVER.search(name) or (status and "resume" not in str(case))
    ]
    left = [name for name in left if not name.endswith(".lock")]
    return f"left {left[0]!r}" if left else ""


def try_case(seed: int, index: int, originals: Path, folder: Path, shown: bool = False) -> tuple[Case, int, str, str]:
    """Make and run a case in an empty folder.

    Outputs
        the case, its status, its last line of error, and what is wrong or nothing
    """
    place, output = folder / "case", folder / "output"
    shutil.rmtree(folder, ignore_errors=True)
    place.mkdir(parents=True)
    output.mkdir()
    os.chdir(place)
    case = make_case(Random(f"{seed} {index}"), originals)
    before = _contents(place)
    child = os.fork()
    if child == 0:
        _in_child(case, output)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, error = ((output / name).read_text(errors="replace") for name in ("out", "err"))
    if shown:
        print(case, status, out, error, sep="\n")
    fault = fault_of(case, status, out, error, before, _contents(place))
    return case, status, error.strip().rpartition("\n")[2], fault


def work(seed: int, indices: range, originals: Path, folder: Path, log: Path) -> None:
    """Try cases one after the other, a line of the log for each."""
    with log.open("w", errors="backslashreplace") as file:
        for index in indices:
            started = time.perf_counter()
            case, status, error, fault = try_case(seed, index, originals, folder)
            verdict = f"BROKE: {fault}" if fault else "refused" if status else "accepted"
            seconds = time.perf_counter() - started
            how = f"{seconds:.2f}", case.damage, repr(case.arguments)[:300], error[:300]
            print(index, case.group, verdict, *how, sep="\t", file=file, flush=True)


def summarize(log: Path, out: Path | None) -> int:
    """Print cases by group and verdict; how many broke."""
    fields = [line.split("\t") for line in log.read_text().splitlines()]
    counts = Counter((line[1], line[2].partition(":")[0]) for line in fields)
    printer = Printer("Hostile inputs", ["input", "tried", "refused in one line", "accepted", "broke"], out)
    for group in GROUPS:
        n = [counts[group, verdict] for verdict in ("refused", "accepted", "BROKE")]
        printer.add(group, *(f"{one:,}" for one in (sum(n), *n)))
    return sum(counts[group, "BROKE"] for group in GROUPS)


def main() -> None:
    parser = soak_parser(__doc__, "inputs")
    parser.add_argument("--n", type=int, default=20_000, help="cases")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--case", type=int, help="run this one alone, and show what it prints")
    options = parser.parse_args()
    log, started = options.log.resolve(), time.perf_counter()
    fork = multiprocessing.get_context("fork").Process
    with tempfile.TemporaryDirectory(prefix="inputs-") as name:
        folder = Path(name)
        originals = folder / "originals"
        originals.mkdir()
        making = fork(target=samples.make, args=[originals])
        making.start()
        making.join()
        if making.exitcode != 0:
            sys.exit("the samples could not be made")
        if options.case is not None:
            print(try_case(options.seed, options.case, originals, folder / "0", shown=True)[-1])
            return
        parts = [log.with_name(f"{log.name}.{job}") for job in range(options.jobs)]
        workers = [
            fork(
                target=work,
                args=[options.seed, range(job, options.n, options.jobs), originals, folder / f"{job}", part],
            )
            for job, part in enumerate(parts)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    lines = [line for part in parts for line in part.read_text().splitlines(keepends=True)]
    log.write_text("".join(sorted(lines, key=lambda line: int(line.partition("\t")[0]))))
    for part in parts:
        part.unlink()
    n_broken = summarize(log, options.out)
    times = os.times()
    seconds = times.children_user + times.children_system
    print(f"{options.n:,} cases in {time.perf_counter() - started:,.0f} s, {seconds:,.0f} s of CPU: {log}")
    sys.exit(f"{n_broken} broke" if n_broken else 0)


if __name__ == "__main__":
    main()
