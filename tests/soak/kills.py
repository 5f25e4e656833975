"""A soak: fits that are killed at random moments, and resumed, end as if nothing had happened.

    python -m tests.soak.kills --n 300 --jobs 2

Random fits (`tests.soak.fits`) run once undisturbed. Then each is begun anew, killed, resumed by other processes, parts
and savings, killed again, and so on. After every kill all files there must load, and no process may be left. The files
and figures at the end must be those of the undisturbed run, bit for bit. The seed decides all but how fast the machine
is: a moment is a part of the time that the run takes.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from random import Random

from benchmarks.records import Printer
from tests.soak.checks import check_end, check_files, check_words, figures, left_running
from tests.soak.fits import Fit, draw_fits
from tests.soak.forks import ROOT, Forked, Forks
from tests.soak.reports import Log, soak_parser

_N_FITS = 18
_STARTING = 0.15  # part of the moments that lie before the program says what it will run
_END_WITHIN = 600  # seconds
_MOST_BROKEN = 3  # runs of a fit, before it is given up

Program = Forked | subprocess.Popen


@dataclass(frozen=True)
class Start:
    """How a run is handled from one kill to the next.

    options: of train.py, which leave the bytes as they are
    devices: processes
    is_forked: begins without the imports
    visit_points: of a visit; None for the usual ones
    """

    options: list[str]
    devices: int
    is_forked: bool
    visit_points: int | None


@dataclass(frozen=True)
class Kill:
    """
    name: of the signal, and to whom
    signals: one after another
    whom: main, a worker, or all
    moment: 0 to 1, of the time that the run takes
    """

    name: str
    signals: tuple[signal.Signals, ...]
    whom: str
    moment: float


@dataclass
class Job:
    """What one of the threads that share the fits works with, and what it has found.

    seconds: that starting takes, by processes and whether they are forked
    """

    forks: Forks
    environment: dict[str, str]
    folder: Path
    log: Log
    seconds: dict[tuple[int, bool], float] = field(default_factory=dict)


@dataclass
class Tally:
    kills: int = 0
    runs: int = 0
    same: int = 0
    broke: int = 0


def draw_start(generator: Random, fit: Fit, seconds: float, is_last: bool) -> Start:
    """Other processes, parts, memory and savings than before."""
    devices = generator.choice((1, 2, 2, 3)) if fit.is_shared else 1
    options = ["--devices", devices, "--save_every", generator.choice((0, 0, 0.3, 300))]
    if fit.ends == "target":  # which is looked at as the parts end: these must stay the same
        options += ["--max_blocks", 12 // devices]
    elif generator.random() < 0.5:
        options += ["--max_blocks", generator.choice((7, 11, 23))]
        options += ["--max_memory", "1e-5"] if generator.random() < 0.5 else []
    if fit.ends == "time" and not is_last and generator.random() < 0.5:
        options += ["--max_seconds", round(generator.uniform(0.3, 1) * seconds + (6 if devices > 1 else 0), 2)]
    visit_points = 2**14 if generator.random() < 0.5 else None
    return Start(list(map(str, options)), devices, generator.random() < 0.9, visit_points)


def draw_kill(generator: Random, start: Start) -> Kill:
    kill, term, interrupt = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
    kinds = [((kill,), "main", 12), ((term,), "main", 3), ((interrupt,), "main", 3), ((interrupt,) * 2, "main", 2)]
    if start.devices > 1:
        kinds += [((kill,), "a worker", 10), ((kill,), "all", 8), ((term,), "a worker", 2)]
    [(signals, whom, _)] = generator.choices(kinds, [weight for *_, weight in kinds])
    name = " ".join(one.name for one in signals) + ("" if start.devices == 1 else f" of {whom}")
    return Kill(name, signals, whom, generator.random())


def begin(job: Job, fit: Fit, start: Start, folder: Path, *more: str) -> Program:
    command = [str(ROOT / "train.py"), *fit.arguments, *start.options, *more]
    if start.is_forked:
        return job.forks.start(command, folder, visit_points=start.visit_points)
    with (folder / "out.txt").open("w") as out, (folder / "error.txt").open("w") as error:
        command = [sys.executable, *command]
        return subprocess.Popen(
            command, cwd=folder, env=job.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=error
        )


def ends_within(program: Program, seconds: float) -> bool:
    try:
        program.wait(max(0, seconds))
    except subprocess.TimeoutExpired:
        return False
    return True


def says(folder: Path) -> str:
    return (folder / "out.txt").read_text() if (folder / "out.txt").exists() else ""


def wait_for_moment(job: Job, program: Program, start: Start, moment: float, seconds: float, folder: Path) -> bool:
    """Wait until then; whether the program still runs.

    Inputs
        seconds: that the run takes once it has started
    """
    began, key = time.monotonic(), (start.devices, start.is_forked)
    if moment < _STARTING and key in job.seconds:
        return not ends_within(program, moment / _STARTING * job.seconds[key])
    while "backend:" not in says(folder):
        if ends_within(program, 0.01):
            return False
    job.seconds[key] = time.monotonic() - began
    return not ends_within(program, max(0, moment - _STARTING) / (1 - _STARTING) * seconds)


def strike(program: Program, kill: Kill, generator: Random, folder: Path) -> None:
    """Send the signals."""
    numbers = [program.pid]
    if kill.whom != "main":
        workers = []
        while not workers and not ends_within(program, 0.02):
            workers = sorted(left_running(folder) - {program.pid})
        numbers = [generator.choice(workers)] if workers and kill.whom == "a worker" else [program.pid, *workers]
    for one in kill.signals:
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(number, one)
        if len(kill.signals) > 1:
            time.sleep(generator.uniform(0, 0.1))


def end(program: Program, folder: Path) -> list[str]:
    """Wait for a program and all that it has started; what is wrong with how they ended."""
    wrong = [] if ends_within(program, _END_WITHIN) else [f"still runs after {_END_WITHIN} s"]
    until = time.monotonic() + _END_WITHIN
    while left_running(folder) and time.monotonic() < until and not wrong:
        time.sleep(0.02)
    if left := left_running(folder):
        wrong.append(f"left running: {sorted(left)}")
        for number in left:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        program.wait()
    return wrong


def undisturbed(job: Job, fit: Fit, folder: Path, *more: str) -> float:
    """Run a fit to its end, by one process; seconds it takes once it has started."""
    folder.mkdir()
    start = Start([], 1, True, None)
    program = begin(job, fit, start, folder, *more)
    assert wait_for_moment(job, program, start, _STARTING, 0, folder), (folder / "error.txt").read_text()
    began = time.monotonic()
    assert program.wait() == 0, (folder / "error.txt").read_text()
    return time.monotonic() - began


def soak(job: Job, number: int, fit: Fit, n_kills: int, generator: Random) -> Tally:
    """Kill runs of a fit so many times, and compare what they end as."""
    whole = job.folder / f"fit{number}"
    seconds = undisturbed(job, fit, whole)
    if fit.ends == "target":
        quality = figures(whole)["psnr" if fit.task == "image" else "iou"]
        target = quality - 0.5 if fit.task == "image" else quality * 0.995
        fit.arguments.extend([f"--target_{'psnr' if fit.task == 'image' else 'iou'}", f"{target:.4f}"])
        whole = job.folder / f"fit{number}target"
        seconds = undisturbed(job, fit, whole, "--max_blocks", "12")
    job.log(f"fit {number}: {fit.name}; {seconds:.2f} s\n    {' '.join(fit.arguments)}")
    tally = Tally()
    while tally.kills < n_kills and tally.broke < _MOST_BROKEN:
        folder = job.folder / f"fit{number}run{tally.runs}"
        folder.mkdir()
        wrong = disturbed(job, f"fit {number} run {tally.runs}", fit, folder, seconds, tally, n_kills, generator)
        wrong = wrong or check_end(folder, whole, fit.ends)
        tally.runs += 1
        tally.same += not wrong
        tally.broke += bool(wrong)
        job.log(f"fit {number} run {tally.runs - 1}: {'; '.join(wrong) if wrong else 'the same'}")
        if not wrong:
            shutil.rmtree(folder)
    return tally


def disturbed(
    job: Job, name: str, fit: Fit, folder: Path, seconds: float, tally: Tally, n_kills: int, generator: Random
) -> list[str]:
    """Begin, kill and resume a run until it has ended; what is wrong."""
    more: list[str] = []
    while True:
        is_last = tally.kills >= n_kills or (bool(more) and generator.random() < 0.25)
        start = draw_start(generator, fit, seconds, is_last)
        kill = draw_kill(generator, start)
        if is_last:
            kill = None
        left = seconds * (0.6 if more else 1)
        program = begin(job, fit, start, folder, *more)
        was_hit = kill is not None and wait_for_moment(job, program, start, kill.moment, left, folder)
        is_training = "level " in (folder / "error.txt").read_text() if was_hit else False
        if was_hit:
            strike(program, kill, generator, folder)
            tally.kills += 1
        wrong = end(program, folder)
        status, error = program.wait(), (folder / "error.txt").read_text()
        wrong += check_words(error, status, kill if was_hit else None, is_training)
        there = sorted(path.name for path in folder.glob("ckpts/run/*"))
        is_over = status == 0 and "ran out" not in error
        wrong += [] if is_over else check_files(job.forks, folder)
        when = "training" if is_training else "starting"
        event = f"{kill.name} at {kill.moment:.3f}, {when}" if was_hit else "left alone"
        how = ("" if start.is_forked else "imports, ") + " ".join(start.options)
        job.log(f"{name}: {how}: {event}: status {status}, {' '.join(there) or 'nothing'}: {'; '.join(wrong) or 'ok'}")
        if wrong:
            job.log(f"    {error!r}")
        if wrong or is_over:
            return wrong
        more = ["--resume"]


def main() -> None:
    parser = soak_parser(__doc__, "kills")
    parser.add_argument("--n", type=int, default=300, help="kills")
    parser.add_argument("--jobs", type=int, default=1, help="fits at the same time")
    parser.add_argument("--fits", type=int, nargs="+", metavar="NUMBER", help="only these")
    options = parser.parse_args()
    began = time.monotonic()
    folder, log = Path(tempfile.mkdtemp(prefix="soak-")), Log(options.log)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)}
    n_fits = min(_N_FITS, options.n)
    fits = draw_fits(Random(options.seed), n_fits, folder)
    shares = [options.n * (number + 1) // n_fits - options.n * number // n_fits for number in range(n_fits)]
    free: list[Job] = []
    for number in range(options.jobs):
        place = folder / f"job{number}"
        place.mkdir()
        free.append(Job(Forks(environment), environment, place, log))

    def work(number: int) -> tuple[Fit, Tally]:
        job = free.pop()
        try:
            return fits[number], soak(job, number, fits[number], shares[number], Random(f"{options.seed} {number}"))
        finally:
            free.append(job)

    chosen = sorted(options.fits or range(n_fits), key=lambda number: not fits[number].is_shared)  # the longest first
    with ThreadPoolExecutor(options.jobs) as threads:
        results = list(threads.map(work, chosen))
    for job in free:
        job.forks.close()
    minutes = (time.monotonic() - began) / 60
    columns = ["fit", "kills", "runs", "resumed to the same bytes", "broke"]
    printer = Printer("Fits that were killed at random moments and resumed", columns, options.out)
    total = Tally(*(sum(getattr(tally, one.name) for _, tally in results) for one in fields(Tally)))
    for name, tally in [*((fit_name(fit), tally) for fit, tally in results), ("all", total)]:
        printer.add(name, tally.kills, tally.runs, tally.same, tally.broke)
    print(f"{minutes:.0f} minutes")
    if total.broke:
        sys.exit(f"{total.broke} broke: see {options.log}; the files are in {folder}")
    shutil.rmtree(folder)


def fit_name(fit: Fit) -> str:
    return f"{fit.name}, 1 to 3 processes" if fit.is_shared else fit.name


if __name__ == "__main__":
    main()
