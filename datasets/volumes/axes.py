"""The axes of an array that holds a volume, and what of it is read.

Notation: an axis is a letter: Z, Y and X of space, C of channels, T of times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.tasks import COLOURS
from utils.channels import MOST_CHANNELS
from utils.errors import InputError
from utils.transfer import Reading

Index = tuple[int | slice, ...]
"""An entry or a range of each axis."""


def array_axes(path: Path, shape: tuple[int, ...], has_times: bool = False) -> str:
    """Of an array whose file does not name its axes: (d, h, w), or four axes of which the first or the last are the
    channels': that of 1, 3 or 4 entries, the last one if both are, else the shorter one; after the times, if there are.

    Errors
        InputError for a shape without such axes
    """
    n_times = has_times and len(shape) > 3
    letters = "T" * n_times + "ZYX"
    if len(shape) == len(letters):
        return letters
    if len(shape) == len(letters) + 1:
        first, last = shape[n_times], shape[-1]
        is_last = last in COLOURS or (first not in COLOURS and last <= first)
        return "T" * n_times + ("ZYXC" if is_last else "CZYX")
    raise InputError(
        f"{path} holds an array of shape {shape}; a volume is (d, h, w), (c, d, h, w) or (d, h, w, c), with --time "
        "after an axis of times"
    )


@dataclass(frozen=True)
class Choice:
    """What of an array is read as a volume.

    axes: a letter each; an axis of any other letter has one entry
    size: (d, h, w)
    channels: from 0
    time: from 0
    """

    axes: str
    size: tuple[int, int, int]
    channels: tuple[int, ...]
    time: int = 0

    @property
    def layout(self) -> str:
        """The order of the axes that are read."""
        return "".join(axis for axis in self.axes if axis in "CZYX")

    def slices(self, read: Callable[[Index], np.ndarray], start: int, stop: int) -> np.ndarray:
        """(c, stop - start, h, w)

        Inputs
            read: of the array, which may return a view
        """
        first, last = min(self.channels), max(self.channels)
        places = {"Z": slice(start, stop), "Y": slice(None), "X": slice(None), "C": slice(first, last + 1)}
        values = read(tuple(places.get(axis, self.time if axis == "T" else 0) for axis in self.axes))
        if "C" not in self.axes:
            return values.transpose([self.layout.index(axis) for axis in "ZYX"])[None]
        values = values.transpose([self.layout.index(axis) for axis in "CZYX"])
        chosen = [channel - first for channel in self.channels]
        return values if chosen == list(range(len(values))) else values[chosen]


def choose(path: Path, axes: str, shape: tuple[int, ...], reading: Reading) -> Choice:
    """What a reading chooses of an array.

    Errors
        InputError where it has to choose and does not, or chooses what is not there
    """
    lengths = dict(zip(axes, shape, strict=True))
    time, n_times, has_channels = reading.time, lengths.get("T", 1), lengths.get("C", 1) > 1
    if time is not None and "T" not in axes:
        raise InputError(f"--time {time}: {path} has no axis of times; leave it out")
    if time is None and n_times > 1:
        more = "" if has_channels or n_times > MOST_CHANNELS else ", or take all for channels by --time all"
        raise InputError(f"{path} has {n_times} times; choose one from 1 to {n_times} by --time{more}")
    if time == "all":
        if has_channels:
            raise InputError(f"--time all: {path} has channels as well; choose one time, 1 to {n_times}")
        axes = axes.replace("C", "-").replace("T", "C")
        lengths = dict(zip(axes, shape, strict=True))
    elif time is not None and time > n_times:
        raise InputError(f"--time {time}: {path} has times 1 to {n_times}; use one of them")
    channels = _channels(path, lengths.get("C", 1), reading.channels)
    return Choice(axes, tuple(lengths[axis] for axis in "ZYX"), channels, time - 1 if isinstance(time, int) else 0)


def _channels(path: Path, n_channels: int, chosen: tuple[int, ...] | None) -> tuple[int, ...]:
    """From 0; InputError for those that are not there, and for more than can be fitted."""
    if chosen and max(chosen) > n_channels:
        given = " ".join(map(str, chosen))
        raise InputError(f"--channels {given}: {path} has channels 1 to {n_channels}; use some of them")
    if max(n_channels if chosen is None else len(chosen), 1) > MOST_CHANNELS:
        raise InputError(f"{path} has {n_channels} channels; choose at most {MOST_CHANNELS} of them by --channels")
    return tuple(range(n_channels)) if chosen is None else tuple(channel - 1 for channel in chosen)


def about(choice: Choice, reading: Reading) -> dict[str, Any]:
    """What is recorded of a choice, as plain data; nothing of a volume of one value a voxel."""
    found: dict[str, Any] = {"axes": choice.layout} if len(choice.channels) > 1 else {}
    if reading.time is not None:
        found["time"] = reading.time
    if reading.channels is not None:
        found["channels"] = list(reading.channels)
    return found
