"""A run: what it is, and how much of it is in its folder already."""

import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import Tensor

from models.miner import Level
from opt import dump_options, epochs_of_level, identifying_options, recorded_options
from utils.checkpoint import find_levels, level_path, load_level, load_state, save_level, state_path, write_aside
from utils.errors import InputError


def check_folder(ckpts: Path, options: Namespace) -> None:
    """InputError where an earlier run is in the way."""
    unfinished = state_path(ckpts).exists() or not (ckpts / "metrics.json").exists()
    if (find_levels(ckpts) or state_path(ckpts).exists()) and not (options.overwrite or options.resume):
        raise InputError(
            f"{ckpts} already holds {'an unfinished fit: --resume goes on with it' if unfinished else 'a fit'}"
            f"{',' if unfinished else ':'} --overwrite replaces it, another --exp_name keeps it"
            + ("" if sys.argv[1:] else " (python train.py --config configs/quickstart.yaml --overwrite)")
        )


class Run:
    """What a run is, and how much of it is in its folder already.

    identity: what its files share: the signal, and the options that change the result
    done: its levels that are complete, with their records
    state: where it stands inside the next level, or None
    """

    def __init__(self, ckpts: Path, options: Namespace, signal: Tensor, source: dict[str, Any]):
        self.ckpts = ckpts
        self.options = recorded_options(options)
        self.identity = {
            "n_scales": options.n_scales,
            "n_channels": len(signal),
            "size": list(signal.shape[1:]),
            "source": source | {"crc32": zlib.crc32(signal.numpy())},
            "options": identifying_options(options),
        }
        self.done: dict[int, dict[str, Any]] = {}
        self.state: dict[str, Any] | None = None
        if options.resume:
            self._find(options)
        elif state_path(ckpts).exists():
            state_path(ckpts).unlink()
        if not self.done and self.state is None:
            shutil.rmtree(Path("logs") / options.exp_name, ignore_errors=True)

    @property
    def is_finished(self) -> bool:
        return len(self.done) == self.identity["n_scales"] and (self.ckpts / "metrics.json").exists()

    def _find(self, options: Namespace) -> None:
        records = {level: load_level(level_path(self.ckpts, level)) for level in find_levels(self.ckpts)}
        state = load_state(self.ckpts)
        begun_anew = state is not None and state["run"] == self.identity and state["level"] == options.n_scales - 1
        others = [record["run"] for record in [*records.values(), *([state] if state else [])]]
        strange = [name for other in others for name in different_options(self.identity, other)]
        if strange and not begun_anew:
            if options.overwrite:
                return
            raise InputError(
                f"--resume: {self.ckpts} was fitted with another {', '.join(dict.fromkeys(strange))}; "
                "the same works, or --overwrite, or another --exp_name"
            )
        self.done = {} if begun_anew else records
        self.state = state if state and state["level"] not in self.done else None
        for level, record in [*self.done.items(), *([(state["level"], state)] if self.state else [])]:
            before, now = (
                epochs_of_level(record["options"]["num_epochs"], level),
                epochs_of_level(options.num_epochs, level),
            )
            if level == 0 and now > before:  # with its own schedule, so from its beginning
                self.done.pop(0, None)
                self.state = None
            elif now != before:
                raise InputError(
                    f"--resume: level {level} of {self.ckpts} has {before} epochs, --num_epochs asks for {now}; "
                    "the same works, and at the finest level more"
                )

    def header(self, level: int) -> dict[str, Any]:
        return {"level": level, "run": self.identity, "options": self.options}

    def save_level(self, index: int, level: Level, outcome: dict[str, int]) -> None:
        """Its checkpoint; the files of an earlier run go when there is the first to put in their place."""
        if index == self.identity["n_scales"] - 1:
            remove_run(self.ckpts)
            write_aside(self.ckpts / "options.yaml", dump_options(self.options).encode())
        (self.ckpts / "metrics.json").unlink(missing_ok=True)
        save_level(level_path(self.ckpts, index), self.header(index) | outcome | level.record())
        state_path(self.ckpts).unlink(missing_ok=True)


def different_options(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What two runs do not share, in words."""
    if mine == other:
        return []
    theirs, options = other["options"], mine["options"]
    names = [f"--{name}" for name in options if options[name] != theirs.get(name)]
    return names or ["signal (its file holds something else)"]


def remove_run(ckpts: Path) -> None:
    """Take an earlier run's files out of its folder."""
    for level in find_levels(ckpts):
        level_path(ckpts, level).unlink()
    (ckpts / "metrics.json").unlink(missing_ok=True)
