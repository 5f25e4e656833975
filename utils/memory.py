"""How much memory there is, and how much this process takes."""

import ctypes
import gc
import resource
import shutil
import sys
from pathlib import Path

from utils.errors import InputError, size_text

_SYSTEM = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_CONTAINERS = (  # limit, usage, statistics, and the name there of file pages that the system can reclaim
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available_memory() -> int | None:
    """Bytes that this process may still take: what the system and its container have left; None if neither says."""
    amounts = [_number_in(_SYSTEM, "MemAvailable:", 1024)]
    for limit_name, usage_name, stat_name, reclaimable in _CONTAINERS:
        limit, usage = (_number_in(_CGROUPS / name) for name in (limit_name, usage_name))
        if limit is not None and usage is not None:
            amounts.append(max(0, limit - usage + (_number_in(_CGROUPS / stat_name, reclaimable) or 0)))
    return min((amount for amount in amounts if amount is not None), default=None)


def _number_in(path: Path, name: str | None = None, unit: int = 1) -> int | None:
    """The number in a file of the system, or after a name in it; None if either is missing."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return None
    words = next((line[1:] for line in lines if line[:1] == [name]), []) if name else lines[0]
    return int(words[0]) * unit if words and words[0].isdigit() else None


def check_memory(path: Path, size: tuple[int, ...], n_bytes: int) -> None:
    """InputError if reading a file would take more memory than there is.

    Inputs
        size: (h, w) or (d, h, w), as its header says
        n_bytes: of memory that reading it takes
    """
    free = available_memory()
    if free is not None and n_bytes > free:
        raise InputError(
            f"{path} is {size_text(size)}: reading it takes {n_bytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
            "free; use a smaller one, or a part of it"
        )


def check_room(path: Path, size: tuple[int, ...], n_bytes: int) -> None:
    """InputError if neither memory nor the disk here could hold a signal, before all of it is read.

    Inputs
        size: (h, w) or (d, h, w), as its header says
        n_bytes: of all its values
    """
    free = max(available_memory() or 0, shutil.disk_usage(Path()).free)
    if n_bytes > free:
        raise InputError(
            f"{path} is {size_text(size)}: its levels take {n_bytes / 2**30:.1f} GiB and more, and "
            f"{free / 2**30:.1f} GiB are free; use a smaller one, or a part of it"
        )


def used_memory() -> int:
    """Resident memory of this process, in bytes; 0 if the system does not say."""
    return _own("VmRSS") or 0


def shared_memory() -> int:
    """As much of it as other processes that run the same program share, such as its libraries."""
    return _own("RssFile") or 0


def release_memory() -> None:
    """Give memory that is not used any more back to the system, which the allocator would keep for later."""
    gc.collect()  # a trainer, its data and what it has trained refer to each other in circles
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _own("VmHWM") or largest  # the latter may include what the parent process took


def _own(name: str) -> int | None:
    return _number_in(Path("/proc/self/status"), f"{name}:", 1024)
