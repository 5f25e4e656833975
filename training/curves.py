"""Curves, pictures and results of a run, for TensorBoard."""

import itertools
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import hparams, image, scalar

from utils.bars import tqdm
from utils.errors import one_line
from utils.files import WriteError, aside, unwritable

ALL = "all levels"
"""Group of the charts over the epochs of the whole run; TensorBoard opens it, since it sorts before all others."""

_VERSION = "brain.Event:2"  # of TensorBoard's files
_PATTERN = "events.out.tfevents.*"
_numbers = itertools.count()


class Curves:
    """The event files of a run, directly in its folder: to TensorBoard it is one run, with one row of HPARAMS.

    A tag takes ascending steps only: what it has logged already is not logged again. Where files cannot be written or
    read, the rest is dropped with a note: a fit is worth more than its curves. (TensorBoard's own writer has a thread,
    in which an error is printed and may get lost.)

    Inputs
        folder: of the run, logs/EXP_NAME
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.steps: dict[str, int] = {}  # the last one of each tag
        self.writer: RecordWriter | None = None
        self.is_broken = False

    def of_level(self, level: int, n_before: int, step_of: Callable[[int], int], n_epochs_done: int) -> "LevelCurves":
        """Those of a level, or of a part of it.

        Inputs
            n_before: epochs of all coarser levels
            step_of: the epoch of the level that an epoch of the part counts as
            n_epochs_done: of the part; what an earlier process has logged beyond is dropped
        """
        curves = LevelCurves(self, level, n_before, step_of)
        if self.writer is None:
            self._try(lambda: self._go_on(lambda tag, step: curves.is_before(tag, step, n_epochs_done)))
        return curves

    def log(self, values: dict[str, float], step: int | None) -> None:
        """Curves' values at a step, by their tags."""
        self._write(Summary(value=[part for tag, number in values.items() for part in scalar(tag, number).value]), step)

    def log_picture(self, tag: str, picture: Tensor, step: int) -> None:
        """A picture (c, h, w) in [0, 1]."""
        self._write(image(tag, picture, dataformats="CHW"), step)

    def log_results(self, options: dict[str, Any], results: dict[str, float]) -> None:
        """The run's row in HPARAMS."""
        cells = {name: value if isinstance(value, int | float | str) else str(value) for name, value in options.items()}
        results = {f"result/{name}": value for name, value in results.items()}
        self.log(results, None)
        for summary in hparams(cells, results):
            self._write(summary, None)

    def close(self) -> None:
        if self.writer is not None:
            self._try(self.writer.close)
            self.writer = None

    def _write(self, summary: Summary, step: int | None) -> None:
        new = [value for value in summary.value if step is None or step > self.steps.get(value.tag, -1)]
        if new:
            self._try(lambda: self._write_event(Event(summary=Summary(value=new), step=step, wall_time=time.time())))
            self.steps |= {value.tag: step for value in new if step is not None}

    def _try(self, write: Callable[[], None]) -> None:
        if self.is_broken:
            return
        try:
            write()
        except (OSError, WriteError) as error:
            self.is_broken = True
            why = unwritable(error.filename or self.folder, error) if isinstance(error, OSError) else error
            _note(f"the curves in {self.folder} are incomplete: {why}")

    def _write_event(self, event: Event) -> None:
        if self.writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.writer = RecordWriter(self._new_path().open("wb"))
            self.writer.write(Event(file_version=_VERSION, wall_time=time.time()).SerializeToString())
        self.writer.write(event.SerializeToString())
        self.writer.flush()  # so that it is seen at once, and what a process that is killed has logged is there

    def _new_path(self) -> Path:
        """A name that sorts after those of earlier files, which TensorBoard reads first."""
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):04d}"
        return self.folder / _PATTERN.replace("*", name)

    def _go_on(self, is_kept: Callable[[str, int], bool]) -> None:
        """Put what is kept of earlier files into a new one.

        TensorBoard has no other way to take back what lies beyond a step that both of its loaders know and that tells
        the axes apart. One that is watching the folder takes the new file for the whole: the beginning of a session
        makes the Python loader forget what it has read, a step that is not larger than the last one the other loader.
        """
        paths = sorted(self.folder.glob(_PATTERN))
        if not paths:
            return
        with aside(self._new_path()) as file:
            session = SessionLog(status=SessionLog.START)
            for event in (Event(file_version=_VERSION), Event(file_version=_VERSION, session_log=session)):
                event.wall_time = time.time()
                RecordWriter(file).write(event.SerializeToString())
            for path in paths:
                self._copy(path, file, is_kept)
        for path in paths:
            _retire(path)

    def _copy(self, path: Path, file: BinaryIO, is_kept: Callable[[str, int], bool]) -> None:
        """Append what is kept of an event file to another."""
        try:
            for event, record in read_records(path):
                step, tags = event.step, [value.tag for value in event.summary.value]
                if tags and all(is_kept(tag, step) and step > self.steps.get(tag, -1) for tag in tags):
                    file.write(record)
                    self.steps |= dict.fromkeys(tags, step)
        except ValueError as error:
            _note(f"{path} cannot be read to its end ({error}): some curves of the run are lost")


class LevelCurves:
    """The curves of a level: over its own epochs, in a group of charts of its own, and over those of the whole run, to
    which each level adds as many as it has."""

    def __init__(self, curves: Curves, level: int, n_before: int, step_of: Callable[[int], int]):
        self.curves = curves
        self.level = level
        self.group = f"level {level}"
        self.n_before = n_before
        self.step_of = step_of

    def log(self, epoch: int, values: dict[str, float]) -> None:
        """Values after so many epochs, by their names."""
        step = self.step_of(epoch)
        self.curves.log({f"{ALL}/{name}": value for name, value in values.items()}, self.n_before + step)
        self.curves.log({f"{self.group}/{name}": value for name, value in values.items()}, step)

    def log_picture(self, epoch: int, name: str, picture: Tensor) -> None:
        """A picture (c, h, w) in [0, 1] after so many epochs."""
        self.curves.log_picture(f"{self.group}/{name}", picture, self.step_of(epoch))

    def is_before(self, tag: str, step: int, epoch: int) -> bool:
        """Whether what a run has logged belongs to coarser levels, or to this one up to an epoch."""
        group, end = tag.partition("/")[0], self.step_of(epoch)
        if group == ALL:
            return step <= self.n_before + end
        level = re.fullmatch(r"level (\d+)", group)
        return level is not None and (int(level[1]) > self.level or (group == self.group and step <= end))


def read_records(path: Path) -> Iterator[tuple[Event, bytes]]:
    """The events of an event file, each with its bytes there; one that was not written to its end ends the file.

    The checksum of the data is taken on trust: TensorBoard's code for it reads 3 MB/s, and pictures are large.

    Errors
        ValueError where the file cannot be read, or is damaged
    """
    try:
        yield from _records(path)
    except (OSError, DecodeError, struct.error) as error:
        raise ValueError(getattr(error, "strerror", None) or one_line(error)) from error


def _records(path: Path) -> Iterator[tuple[Event, bytes]]:
    left = path.stat().st_size
    with path.open("rb") as file:
        while left >= 12:
            head = file.read(12)
            length, checksum = struct.unpack("<QI", head)
            if checksum != masked_crc32c(head[:8]):
                raise ValueError(f"at byte {file.tell() - 12:,}")
            left -= 16 + length
            if left < 0:
                return
            data = file.read(length + 4)
            yield Event.FromString(data[:length]), head + data


def _retire(path: Path) -> None:
    """Empty a file: TensorBoard may be reading it, and its Python loader stumbles over one that is gone. An empty one
    goes."""
    with suppress(OSError):
        if path.stat().st_size:
            os.truncate(path, 0)
            return
    path.unlink()


@lru_cache
def _note(text: str) -> None:
    """Print a note, once, beside the progress bar."""
    tqdm.write(f"note: {text}", file=sys.stderr)
