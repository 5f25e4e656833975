"""What runs of many kinds promise to take of memory, and what they take: promised must lie between used and twice that.

python -m tests.soak.memory [--only NAME ...] [--folder FOLDER] [--out FILE]

Used is the largest sum of the memory of all processes of a run, looked at many times a second, with the libraries that
they share counted once, and without the pages of mapped signals and checkpoints, which the system takes back when it
needs them. The signals are made of the pictures and the mesh that ship.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.mosaic import mosaic
from benchmarks.records import Printer, make_parser
from datasets.writers import write_rows
from tests.soak.forks import ROOT

_LOOK_EVERY = 1  # seconds from one look at the libraries to the next: they change little, and looking stops a process
PICTURES = [str(ROOT / "images" / name) for name in ("pluto.png", "astronaut.png")]
BEST = "--preset best --n_scales 4 --num_epochs 2 --val_freq 1 --loss_thr 1e-5"
VOLUME = "--task mesh --preset best --n_scales 3 --num_epochs 2 --val_freq 1 --loss_thr 1e-9"
PLAIN = "--n_scales 3 --use_pe --n_layers 3 --num_epochs 2 --val_freq 1 --loss_thr 1e-5"

RUNS = {
    "PNG, the quickstart": "train.py --config {root}/configs/quickstart.yaml --path {pluto.png}",
    "PNG, 6144x4096": f"train.py --path {{6144x4096.png}} {BEST}",
    "PNG, 16 bits, 1536x1024, reference": f"train.py --path {{1536x1024_16.png}} {PLAIN} --backend reference",
    "JPEG, 14000x14000, resized to 500": f"train.py --path {{14000x14000.jpg}} {PLAIN} --input_size 500",
    "JPEG, 4096x3072, two processes": f"train.py --path {{4096x3072.jpg}} {BEST} --devices 2",
    "TIFF, tiled, 16 bits, 6144x4096": f"train.py --path {{6144x4096_16.tif}} {BEST}",
    "TIFF, tiled, 6144x4096, resized to 2000x1333": f"train.py --path {{6144x4096.tif}} {BEST} --input_size 2000 1333",
    "Zarr, 12288x8192, levels in files": f"train.py --path {{12288x8192.zarr}} {BEST} --max_memory 0.5",
    "occupancy, 256x256x256": f"train.py --path {{spot_256.npy}} {VOLUME}",
    "occupancy, 128x128x128, reference, two processes": f"train.py --path {{spot_128.npy}} {VOLUME} "
    "--backend reference --devices 2",
    "picture, 1024x32, at --scale 64": "reconstruct.py {fit pluto.png} --crop 0 400 1024 32 --scale 64 --out a.tif",
    "volume, 128x128x128, at --scale 4": "reconstruct.py {fit spot_128.npy} --scale 4 --out a.npy",
}
"""Commands by name; a signal, or the checkpoints of its fit, stands in braces."""


def make(name: str, folder: Path) -> Path:
    """A file of a signal, or the checkpoints of its fit; made once."""
    path = folder / name.removeprefix("fit ")
    if name == "root":
        return ROOT
    if name == "pluto.png":
        path = ROOT / "images" / name
    elif name.startswith("spot") and not path.exists():
        n = name.removeprefix("spot_").removesuffix(".npy")
        call(folder, "preprocess_mesh.py", "--N", n, "--path", ROOT / "meshes" / "spot.obj")
        (folder / "occupancy" / name).rename(path)
    elif not name.startswith("fit") and not path.exists():
        width, height = map(int, re.findall(r"\d+", name)[:2])
        bits = 16 if "_16." in name else 8
        write_rows(path, mosaic(width, height, PICTURES), 3, (height, width), bits)
    if name.startswith("fit"):
        task = VOLUME if path.suffix == ".npy" else BEST
        fit = folder / "ckpts" / path.stem
        if not (fit / "metrics.json").exists():
            signal = make(path.name, folder)
            call(folder, "train.py", *task.split(), "--path", signal, "--exp_name", path.stem, "--overwrite")
        return fit
    return path


def call(cwd: Path, program: str, *arguments: object) -> None:
    subprocess.run([sys.executable, ROOT / program, *map(str, arguments)], cwd=cwd, check=True)


def measure(command: list[str], cwd: Path) -> tuple[str, int]:
    """Run a command.

    Outputs
        what it printed, and the bytes of memory that its processes took at most
    """
    most, libraries, looked = 0, 0, 0.0
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None:
        running = family(process.pid)
        if time.monotonic() > looked + _LOOK_EVERY:
            libraries, looked = max(map(library_bytes, running)), time.monotonic()
        most = max(most, sum(map(own_bytes, running)) + libraries)
        time.sleep(0.01)
    printed = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {printed}")
    return printed, most


def family(ancestor: int) -> list[int]:
    """A process and all that come from it."""
    parents = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it may have ended
            parents[int(number)] = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    found = [ancestor]
    for process in found:  # which grows
        found += [child for child, parent in parents.items() if parent == process]
    return found


def own_bytes(process: int) -> int:
    """Resident memory of a process that no file backs."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) * 1024


def library_bytes(process: int) -> int:
    """Resident memory of the files that a process maps, but for signals and checkpoints."""
    try:
        lines = Path(f"/proc/{process}/smaps").read_text().splitlines()
    except OSError:
        return 0
    total, resident, counts = 0, 0, True
    for line in lines:
        first, *words = line.split()
        if first == "Rss:":
            resident = int(words[0])
        elif first == "Anonymous:":
            total += (resident - int(words[0])) * counts
        elif not first.endswith(":"):
            counts = not line.endswith((".npy", ".tif", ".ckpt"))
    return total * 1024


def promise(printed: str) -> int:
    """Bytes that a dry run names for all processes."""
    *_, amount = re.findall(r"([\d,]+) MiB (?:of memory|for all)", printed)
    return int(amount.replace(",", "")) * 2**20


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), metavar="NAME")
    parser.add_argument("--folder", type=Path, help="where the signals are made and kept (default: a temporary folder)")
    options = parser.parse_args()
    columns = ["run", "promised, MiB", "used, MiB", "promised / used"]
    with TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(exist_ok=True)
        commands = {}
        for name in options.only:
            command = re.sub(r"{([^}]+)}", lambda found: str(make(found[1], folder)), RUNS[name])
            program, *arguments = shlex.split(command)
            commands[name] = [sys.executable, str(ROOT / program), *arguments]
        printer, broken = Printer("Memory of whole runs", columns, options.out), 0
        for name, command in commands.items():
            fits = ["--overwrite"] if "train.py" in command[1] else []
            dry = subprocess.run([*command, "--dry_run"], cwd=folder, capture_output=True, text=True)
            promised, (_, used) = promise(dry.stdout), measure([*command, *fits], folder)
            printer.add(name, f"{promised / 2**20:,.0f}", f"{used / 2**20:,.0f}", f"{promised / used:.2f}")
            broken += not used <= promised <= 2 * used
    sys.exit(f"{broken} of {len(commands)} promises broken" if broken else 0)


if __name__ == "__main__":
    main()
