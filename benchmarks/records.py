"""Tables of figures with what is needed to judge and repeat them, one JSON file each; the pages show these files."""

import argparse
import json
import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"

_PLACES = ("--out", "--log", "--folder", "--plot")  # options

_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON"}  # widest first


@dataclass
class Table:
    """Figures, and where they come from.

    title: what they show, in a few words
    columns: a name each
    rows: of as many cells; a cell is text as a page shows it, in Markdown
    command: what measured them, as a user types it, or empty
    source: who says so, where no command of this project does, or empty
    hardware: the processor and how many cores of it were used
    versions: of Python and torch, where they matter
    date: on which they were measured, or read from their source
    note: more to know, in a sentence, or empty
    """

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    command: str = ""
    source: str = ""
    hardware: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    date: str = field(default_factory=lambda: date.today().isoformat())
    note: str = ""


def read(path: Path) -> Table:
    return Table(**json.loads(path.read_text()))


def write(path: Path, table: Table) -> None:
    """One line a field and one line a row, so that a change of a figure is a change of its line."""
    record = {name: value for name, value in asdict(table).items() if value and name != "rows"}
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}," for name, value in record.items()]
    rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in table.rows)
    path.write_text("\n".join(["{", *lines, '  "rows": [', rows, "  ]", "}", ""]))


def as_markdown(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


class Printer:
    """Prints the rows of a table as they are found, and keeps them in a file where one is named.

    Inputs
        command: as a user types it, where that is not the command that runs
    """

    def __init__(self, title: str, columns: list[str], out: Path | None, note: str = "", command: str = ""):
        versions = {"python": platform.python_version(), "torch": torch.__version__.partition("+")[0]}
        command = command or command_line()
        self.table = Table(title, columns, command=command, hardware=hardware(), versions=versions, note=note)
        self.out = out
        print(", ".join([self.table.hardware, f"torch {versions['torch']}", *([note] if note else [])]) + "\n")
        print(f"{as_markdown(columns)}\n{'|---' * len(columns)}|", flush=True)

    def add(self, *cells: object) -> None:
        row = [str(cell) for cell in cells]
        assert len(row) == len(self.table.columns)
        self.table.rows.append(row)
        print(as_markdown(row), flush=True)
        if self.out is not None:  # after every row: a benchmark that is stopped keeps what it has
            write(self.out, self.table)


def make_parser(doc: str) -> argparse.ArgumentParser:
    """With the option that all benchmarks share."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the table in this file of JSON")
    return parser


def parse_with_rest(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """A benchmark's own options, and those of train.py that follow `--`."""
    own, rest = sys.argv[1:], []
    if "--" in own:
        cut = own.index("--")
        own, rest = own[:cut], own[cut + 1 :]
    return parser.parse_args(own), rest


def command_line() -> str:
    """The command that runs, without the options that say where its files go."""
    words, kept = iter(sys.argv[1:]), []
    for word in words:
        name, separator, _ = word.partition("=")
        if name not in _PLACES:
            kept.append(word)
        elif not separator:
            next(words, None)  # the option's value
    return shlex.join(["python", "-m", sys.modules["__main__"].__spec__.name, *kept])


def hardware() -> str:
    """The processor, such as "AMD EPYC (family 25 model 1, AVX2), 2 cores", and the GPU where torch sees one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{processor()}, {cores} {'core' if cores == 1 else 'cores'}"
    return f"{found}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else found


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Its name, with what tells generations apart that share a name: family, model and the widest vectors."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = facts.get("flags", facts.get("Features", "")).split()
    details = [f"family {facts['cpu family']} model {facts['model']}"] if "cpu family" in facts else []
    details += [name for flag, name in _VECTORS.items() if flag in flags][:1]
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(details)})" if details else name
