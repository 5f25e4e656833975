"""A run: what it is, and how much of it is in its folder already."""

import json
import math
import shutil
import sys
from argparse import Namespace
from collections.abc import Collection
from pathlib import Path
from typing import Any

from models.level import Level
from opt import epochs_of_level, identifying_options, recorded_options
from options.config import dump_options
from training.state import PartState
from utils.checkpoint import (
    find_levels,
    level_path,
    load_level,
    load_part,
    load_state,
    packed_path,
    part_path,
    part_paths,
    save_level,
    save_part,
    save_state,
    state_path,
)
from utils.errors import InputError
from utils.files import check_file, write_aside
from utils.metrics import Metric
from utils.ranks import Ranks

JOINING = ".joining-"
"""Beginning of the names of folders in which the parts of a level are put together."""


def check_folder(ckpts: Path, options: Namespace) -> None:
    """InputError where an earlier run is in the way."""
    if options.overwrite or options.resume or not (find_levels(ckpts) or state_path(ckpts).exists()):
        return
    held = "a fit: " if is_complete(ckpts) else "an unfinished fit: --resume continues it, "
    raise InputError(
        f"{ckpts} already holds {held}--overwrite replaces it, another --exp_name keeps it"
        + ("" if sys.argv[1:] else " (python train.py --config configs/quickstart.yaml --overwrite)")
    )


def is_complete(ckpts: Path) -> bool:
    """Whether the run in a folder has ended, and not early."""
    if state_path(ckpts).exists() or not (ckpts / "metrics.json").exists():
        return False
    try:
        return not is_incomplete(load_level(level_path(ckpts, 0)))
    except InputError:  # it is damaged or missing
        return False


class Run:
    """What a run is, and how much of it is in its folder already. All processes read it, only the first writes.

    ckpts, logs: its folders, of checkpoints and of curves
    identity: what its files share: the signal, and the options that change the result
    done: its levels that are complete
    parts: files of the finished parts of the next level
    state: where training stands inside the part after these, as its record, or None
    ended_early: its checkpoints are all there, but not all epochs are done
    """

    def __init__(
        self,
        ckpts: Path,
        options: Namespace,
        size: tuple[int, ...],
        n_channels: int,
        source: dict[str, Any],
        ranks: Ranks,
        logs: Path,
    ):
        self.ckpts = ckpts
        self.logs = logs
        self.options = recorded_options(options)
        self.identity = {
            "n_scales": options.n_scales,
            "n_channels": n_channels,
            "size": list(size),
            "source": source,
            "options": identifying_options(options),
        }
        self.done: set[int] = set()
        self.parts: list[Path] = []
        self.state: dict[str, Any] | None = None
        self.ended_early = False
        if options.resume:
            try:
                self._find(options)
            except InputError:
                raise
            except Exception as error:  # whatever a record that was tampered with leads to
                raise InputError(f"{ckpts} is not consistent: --overwrite begins again") from error
        ranks.share()  # all have read
        if ranks.is_first:
            self._tidy()

    @property
    def is_begun(self) -> bool:
        return bool(self.done or self.parts or self.state)

    def finished(self, metric: Metric, target: float | None) -> dict[str, Any] | None:
        """The report of a run that has nothing left to do, or None.

        Inputs
            target: quality at which the run may end early
        """
        path = self.ckpts / "metrics.json"
        is_done = len(self.done) == self.identity["n_scales"]
        may_be_good = self.ended_early and target is not None
        if not path.exists() or not (is_done or may_be_good):
            return None
        report = read_report(path, metric)
        quality = math.inf if report[metric.name] is None else report[metric.name]
        return report if is_done or quality >= target else None

    def _find(self, options: Namespace) -> None:
        """What an earlier run has left to go on from.

        Errors
            InputError where it was fitted with other options, or to another signal
        """
        found = {level: load_level(level_path(self.ckpts, level)) for level in find_levels(self.ckpts)}
        parts = {path: load_part(path) for path in part_paths(self.ckpts)}
        state = load_state(self.ckpts)
        inside = [*parts.values(), *([state] if state else [])]
        begun_anew = any(
            record["run"] == self.identity and record["level"] == options.n_scales - 1 for record in inside
        )
        records = [*found.values(), *inside]
        if not all(isinstance(record["run"], dict) for record in records):
            raise TypeError("a record without a run")
        strange = [name for record in records for name in different_options(self.identity, record["run"])]
        if strange and not begun_anew:
            if options.overwrite:
                return
            raise InputError(
                f"--resume: {self.ckpts} was fitted with another {', '.join(dict.fromkeys(strange))}: "
                "use the same, or --overwrite, or another --exp_name"
            )
        levels = {}
        for level in reversed(range(options.n_scales)):
            if begun_anew or level not in found or is_incomplete(found[level]):
                break  # what is finer builds on it
            levels[level] = found[level]
        self.ended_early = not begun_anew and 0 in found and is_incomplete(found[0])
        inside = [record for record in inside if record["run"] == self.identity and record["level"] not in levels]
        for record in [*levels.values(), *inside]:
            level = record["level"]
            before = epochs_of_level(record["options"]["num_epochs"], level)
            now = epochs_of_level(options.num_epochs, level)
            if level == 0 and now > before:  # with its own schedule, so from its beginning
                levels.pop(0, None)
                inside = []
            elif now != before and options.overwrite:
                self.ended_early = False
                return
            elif now != before:
                raise InputError(
                    f"--resume: level {level} of {self.ckpts} has {before} epochs, but --num_epochs asks for {now}: "
                    "only the finest level may be given more"
                )
        self.done = set(levels)
        self.parts, end = [], 0
        for path, record in parts.items():
            if any(record is one for one in inside):
                span = span_of(record)
                if span.start != end:
                    raise InputError(f"{path}: the part before it is missing; delete it, and --resume fits it again")
                self.parts.append(path)
                end = span.stop
        # a run may be killed after a part is saved, and before its state is removed
        is_of_part = state is not None and part_path(self.ckpts, span_of(state).start) in self.parts
        self.state = state if any(state is one for one in inside) and not is_of_part else None

    def _tidy(self) -> None:
        """Remove what nothing goes on from."""
        if self.state is None:
            state_path(self.ckpts).unlink(missing_ok=True)
        remove_parts(self.ckpts, keep=self.parts)
        remove_leftovers(self.ckpts)
        if not self.is_begun:
            shutil.rmtree(self.logs, ignore_errors=True)

    def header(self, level: int) -> dict[str, Any]:
        return {"level": level, "run": self.identity, "options": self.options}

    def save_state(self, level: int, span: range, state: PartState) -> None:
        """Where training stands in a part of a level, which is the active blocks number `span` of it."""
        inside = {"span": [span.start, span.stop], "state": state.record()}
        save_state(self.ckpts, self.header(level) | inside)

    def save_part(self, level: int, span: range, part: dict[str, Any]) -> None:
        save_part(self.ckpts, span.start, self.header(level) | {"span": [span.start, span.stop]} | part)
        state_path(self.ckpts).unlink(missing_ok=True)

    def save_level(self, index: int, level: Level, outcome: dict[str, Any], incomplete: bool) -> None:
        """Write a level's checkpoint; the files of an earlier run go once there is something to replace them.

        Inputs
            incomplete: the run ended early; what it can go on from stays
        """
        is_coarsest = index == self.identity["n_scales"] - 1
        note = {"incomplete": True} if incomplete else {}
        others = files_of_run(self.ckpts) if is_coarsest else [self.ckpts / "metrics.json"]
        save_level(level_path(self.ckpts, index), self.header(index) | outcome | note | level.record(), others)
        if not incomplete:
            self.drop_progress()
        if is_coarsest:
            self._save_options()

    def save_report(self, report: dict[str, Any]) -> None:
        """Write metrics.json, with which a run is complete."""
        self._save_options()  # which may have failed in the process that saved the coarsest level
        write_aside(self.ckpts / "metrics.json", json.dumps(report, indent=2).encode())

    def _save_options(self) -> None:
        write_aside(self.ckpts / "options.yaml", dump_options(self.options).encode())

    def drop_progress(self) -> None:
        """Remove what is kept of a level while it is trained."""
        state_path(self.ckpts).unlink(missing_ok=True)
        remove_parts(self.ckpts)


def span_of(record: dict[str, Any]) -> range:
    """Which active blocks of its level a part is, by the record of the part or of a state inside it.

    Errors
        TypeError or ValueError for a record that does not say
    """
    start, stop = record["span"]
    if not (type(start) is type(stop) is int and 0 <= start < stop):
        raise ValueError(f"span {start} to {stop}")
    return range(start, stop)


def read_report(path: Path, metric: Metric) -> dict[str, Any]:
    """A metrics.json; InputError for one that is damaged."""
    try:
        check_file(path)
        report = json.loads(path.read_text())
        quality = report[metric.name]
        if quality is not None and not math.isfinite(quality):
            raise ValueError(f"{metric.name} {quality}")
        report["parameters"] + 0  # TypeError for anything but a number
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise InputError(f"{path} is damaged: delete it, and --resume writes it again") from error
    return report


def is_incomplete(record: dict[str, Any]) -> bool:
    """Whether a level's checkpoint is of a run that ended before all epochs were done."""
    return record.get("incomplete", False)


def different_options(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What two runs do not share, in words."""
    if mine == other:
        return []
    theirs, options = other["options"], mine["options"]
    names = [f"--{name}" for name in options | theirs if options.get(name) != theirs.get(name)]
    return names or ["signal (its file holds something else)"]


def remove_leftovers(ckpts: Path) -> None:
    """What a process that was killed has left half done."""
    for pattern in (".*.part", ".*.old", ".l*.npy"):
        for path in ckpts.glob(pattern):
            path.unlink()
    for folder in ckpts.glob(f"{JOINING}*"):
        shutil.rmtree(folder)


def remove_parts(ckpts: Path, keep: Collection[Path] = ()) -> None:
    """The last one first: wherever this ends, those that are left follow each other from the first on."""
    for path in reversed(part_paths(ckpts)):
        if path not in keep:
            path.unlink()


def files_of_run(ckpts: Path) -> list[Path]:
    """What a run leaves in its folder."""
    levels = [level_path(ckpts, level) for level in find_levels(ckpts)]
    return [*levels, packed_path(ckpts), ckpts / "metrics.json", ckpts / "options.yaml"]
