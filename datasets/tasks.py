"""What kind of signal a fit is of: a picture (image) or an occupancy grid (mesh)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # options are parsed by tasks, before anything that loads slowly is needed
    from datasets.sources import Source
    from utils.metrics import Metric


@dataclass(frozen=True)
class Task:
    """
    name: as --task gives it
    n_dims: axes of the signal
    signal: what it is called in messages
    size_order: of the numbers of a size on the command line
    open: (path, size (h, w) or (d, h, w), or None for the file's own) -> the signal in a file
    describe: what checkpoints record about the file
    """

    name: str
    n_dims: int
    signal: str
    size_order: str
    open: Callable[[str | Path, tuple[int, ...] | None], "Source"] = field(repr=False)
    describe: Callable[["Source"], dict[str, Any]] = field(repr=False)
    _metric: Callable[[], "Metric"] = field(repr=False)

    @property
    def metric(self) -> "Metric":
        """By which a fit is judged."""
        return self._metric()


def _open_picture(path: str | Path, size: tuple[int, int] | None) -> "Source":
    from datasets.sources import open_picture

    return open_picture(path, size)


def _open_occupancy(path: str | Path, size: tuple[int, int, int] | None) -> "Source":
    from datasets.occupancy import open_occupancy

    return open_occupancy(path, size)


def _describe_picture(source: "Source") -> dict[str, Any]:
    return {"bits": source.bits}


def _describe_volume(source: "Source") -> dict[str, Any]:
    return {"frame": asdict(source.frame) if source.frame else None}


def _psnr() -> "Metric":
    from utils.metrics import psnr

    return psnr


def _iou() -> "Metric":
    from utils.metrics import iou

    return iou


TASKS = {
    "image": Task(
        "image",
        n_dims=2,
        signal="an image",
        size_order="W H",
        open=_open_picture,
        describe=_describe_picture,
        _metric=_psnr,
    ),
    "mesh": Task(
        "mesh",
        n_dims=3,
        signal="a volume",
        size_order="W H D",
        open=_open_occupancy,
        describe=_describe_volume,
        _metric=_iou,
    ),
}


def task_of(n_dims: int) -> Task:
    """The task whose signals have so many axes."""
    return next(task for task in TASKS.values() if task.n_dims == n_dims)
