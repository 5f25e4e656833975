"""What must be true of a run that was killed, and of one that has ended."""

import io
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.soak.forks import ROOT, Forks
from utils.checkpoint import find_levels, level_path, load_level, load_part, load_state, part_paths

_BARS = re.compile(r"level \d+: |reading the signal: ")
_NOTES = ("note: ", "compiling the kernel", "stopping at the end of the visit (press Ctrl-C again to stop at once)")
_OF_THE_MACHINE = ("seconds", "peak_memory_mib", "device", "versions", "resumed")


def left_running(folder: Path) -> set[int]:
    """The processes that work in a folder."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(place / "cwd") == str(folder):
                found.add(int(place.name))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def check_words(error: str, status: int, kill: Any, is_training: bool) -> list[str]:
    """What is wrong with what a program has said on stderr, and with its status.

    Inputs
        kill: what it was hit with, or None
        is_training: whether it was training by then; before, it may end in silence
    """
    lines = [line for line in re.split(r"[\r\n]+", error) if line.strip() and not _BARS.match(line)]
    lines = [line for line in lines if not line.startswith(_NOTES)]
    if kill is None and status != 0:
        return [f"status {status} without a kill", *lines]
    statuses = {0: (0, 0)}  # and how many lines, at least and at most
    if kill is not None:
        number, is_worker = int(kill.signals[0]), kill.whom == "a worker"
        if number == signal.SIGKILL:
            statuses |= {1: (1, 1)} if is_worker else {-number: (0, 0)}
        else:
            statuses |= {128 + number: (int(is_training), 1), -number: (0, 1)} | ({1: (1, 1)} if is_worker else {})
    if status not in statuses:
        return [f"status {status}"]
    least, most = statuses[status]
    if not (least <= len(lines) <= most and all(line.startswith("error: ") for line in lines)):
        return [f"{len(lines)} lines on stderr for status {status}"]
    return []


def check_files(forks: Forks, folder: Path) -> list[str]:
    """Every file of an unfinished run loads, and what is there decodes, or a line says what is missing."""
    ckpts = folder / "ckpts" / "run"
    try:
        for level in find_levels(ckpts):
            load_level(level_path(ckpts, level))
        for path in part_paths(ckpts):
            load_part(path)
        load_state(ckpts)
        for name, load in (("metrics.json", json.loads), ("options.yaml", yaml.safe_load)):
            if (ckpts / name).exists():
                load((ckpts / name).read_text())
    except Exception as error:
        return [f"does not load: {error!r}"]
    is_picture = not find_levels(ckpts) or len(load_level(level_path(ckpts, find_levels(ckpts)[0]))["run"]["size"]) == 2
    out = "back.png" if is_picture else "back.npy"
    status = forks.start([str(ROOT / "reconstruct.py"), "ckpts/run", "--out", out], folder).wait()
    said = (folder / "error.txt").read_text().strip()
    if status == 0 and all(line.startswith(_NOTES) for line in said.splitlines()):
        return []
    if status == 1 and re.fullmatch("error: .*", said) and not find_levels(ckpts):
        return []
    return [f"reconstruct.py: status {status}, {said!r}"]


def check_end(folder: Path, whole: Path, ends: str) -> list[str]:
    """What of a run that has ended is not as the undisturbed one left it.

    Inputs
        ends: as in `Fit`
    """
    wrong = []
    if names(folder) != names(whole):
        wrong.append(f"files {names(folder)}, not {names(whole)}")
    mine, theirs = (files(one, ends != "time") for one in (folder, whole))
    wrong += [f"{name} differs" for name in theirs if mine.get(name) != theirs[name]]
    mine, theirs = figures(folder), figures(whole)
    wrong += [
        f"{name}: {mine.get(name)}, not {theirs[name]}"
        for name in theirs
        if mine.get(name) != theirs[name] and not (name in ("bytes", "bits_per_pixel") and ends == "time")
    ]
    beside = folder / "ckpts" / ".levels"
    wrong += [f"{place} is not whole" for place in beside.glob("*/") if sorted(place.glob(".*"))]
    return wrong


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("ckpts/run/*"))


def files(folder: Path, with_options: bool) -> dict[str, bytes]:
    """The levels of a run by name; where runs differ in options that leave the networks as they are, without these."""
    paths = folder.glob("ckpts/run/l*.ckpt")
    if with_options:
        return {path.name: path.read_bytes() for path in paths}
    contents = {}
    for path in paths:
        record, data = load_level(path), io.BytesIO()
        torch.save({name: value for name, value in record.items() if name != "options"}, data)
        contents[path.name] = data.getvalue()
    return contents


def figures(folder: Path) -> dict[str, Any]:
    """metrics.json, but for what another machine or moment would change."""
    report = json.loads((folder / "ckpts/run/metrics.json").read_text())
    return {name: value for name, value in report.items() if name not in _OF_THE_MACHINE}
