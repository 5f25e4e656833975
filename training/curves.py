"""Curves, pictures and tables of a run, for TensorBoard."""

import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import hparams, image, scalar
from tqdm.auto import tqdm

from utils.files import unwritable

_VERSION = "brain.Event:2"  # of TensorBoard's files
_numbers = itertools.count()


class Curves(Logger):
    """An event file in a folder, made when there is something to write. Where it cannot be written, the rest is dropped
    with a note: a fit is worth more than its curves.

    TensorBoard's own writer has a thread, in which an error is printed and may get lost.

    Inputs
        from_step: what earlier files of the folder hold from this step on is void
    """

    def __init__(self, folder: Path, from_step: int | None = None):
        super().__init__()
        self.folder = folder
        self.from_step = from_step
        self.writer: RecordWriter | None = None
        self.is_broken = False

    @property
    def name(self) -> str:
        return str(self.folder)

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._write([scalar(tag, value) for tag, value in metrics.items()], step)

    def log_hyperparams(self, parameters: dict[str, Any], metrics: dict[str, float]) -> None:
        """A row of TensorBoard's table of hyperparameters."""
        cells = {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in parameters.items()
        }
        self.log_metrics(metrics)
        self._write(hparams(cells, metrics), None)

    def log_picture(self, tag: str, picture: Tensor, step: int) -> None:
        """A picture (c, h, w) in [0, 1]."""
        self._write([image(tag, picture, dataformats="CHW")], step)

    def finalize(self, status: str) -> None:
        if self.writer is not None:
            self._try(self.writer.close)
            self.writer = None

    def _write(self, summaries: Iterable[Summary], step: int | None) -> None:
        self._try(lambda: self._write_events([Event(summary=summary, step=step) for summary in summaries]))

    def _try(self, write: Callable[[], None]) -> None:
        if self.is_broken:
            return
        try:
            write()
        except OSError as error:
            self.is_broken = True
            _note(f"the curves in {self.folder} are incomplete: {unwritable(error.filename or self.folder, error)}")

    def _write_events(self, events: list[Event]) -> None:
        if self.writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
            self.writer = RecordWriter((self.folder / name).open("wb"))
            events = [*self._first_events(), *events]
        for event in events:
            event.wall_time = time.time()
            self.writer.write(event.SerializeToString())
        self.writer.flush()  # so that it is seen at once, and what a process that is killed has logged is there

    def _first_events(self) -> list[Event]:
        first = [Event(file_version=_VERSION)]
        if self.from_step is not None:
            session = SessionLog(status=SessionLog.START)
            first += [
                Event(step=self.from_step, file_version=_VERSION),
                Event(step=self.from_step, session_log=session),
            ]
        return first


@lru_cache
def _note(text: str) -> None:
    """Print a note, once: the parts of a level have curves each."""
    tqdm.write(f"note: {text}", file=sys.stderr)  # beside the progress bar
