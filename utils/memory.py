"""How much memory there is."""

from pathlib import Path

from utils.errors import InputError, size_text

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available_memory() -> int | None:
    """Bytes that this process may still take, or None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    for limit in _LIMITS:
        try:
            free = min(free or 2**63, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return free


def check_memory(path: Path, size: tuple[int, ...], n_bytes: int) -> None:
    """InputError where reading a file would take more memory than there is.

    Inputs
        size: (h, w) or (d, h, w) that its header promises
        n_bytes: that reading it takes
    """
    free = available_memory()
    if free is not None and n_bytes > free:
        raise InputError(
            f"{path} is {size_text(size)}: reading it takes {n_bytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
            "free: a smaller one, or a part of it, works"
        )
