"""The files of a run: a checkpoint for each level; for the level in training, its finished parts and where it stands.
Plain data in, plain data out.

They are zip archives of uncompressed entries, each with its CRC-32.
"""

import re
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from utils.errors import InputError, one_line
from utils.files import Outlet, aside, check_file, unwritable

_LEVEL, _PART, _STATE = "miner level", "miner part", "miner state"
_VERSIONS = {_LEVEL: 3, _PART: 4, _STATE: 4}
_LARGE = 2**28


def level_path(folder: Path, level: int) -> Path:
    return folder / f"l{level}.ckpt"


def find_levels(folder: Path) -> list[int]:
    """The levels that have a checkpoint in a folder, finest first."""
    names = (re.fullmatch(r"l(\d+)\.ckpt", path.name) for path in folder.glob("l*.ckpt"))
    return sorted(int(name[1]) for name in names if name)


def checkpoint_bytes(folder: Path) -> int:
    """Of the levels in a folder, on the disk."""
    return sum(level_path(folder, level).stat().st_size for level in find_levels(folder))


def state_path(folder: Path) -> Path:
    return folder / "state.ckpt"


def lock(folder: Path) -> FileLock:
    """Make a folder, and hold it for as long as the lock is held; the system releases it if the process dies.

    Errors
        InputError if another process holds it, or if it cannot be written
    """
    held = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{folder} is being fitted by another process; choose another --exp_name") from error
    except OSError as error:
        raise unwritable(folder, error) from error
    return held


def save_level(path: Path, record: dict[str, Any], others: Collection[Path] = ()) -> None:
    """Write one level. Equal records give equal bytes.

    Inputs
        others: files that it replaces as well
    """
    _save(_LEVEL, path, record, others)


def load_level(path: Path) -> dict[str, Any]:
    """Read one level, memory-mapped if it is large; InputError, naming the file, if it is not one."""
    return _load(_LEVEL, path)


def save_state(folder: Path, record: dict[str, Any]) -> None:
    """Write where a run stands inside a level."""
    _save(_STATE, state_path(folder), record)


def load_state(folder: Path) -> dict[str, Any] | None:
    """Where a run stands inside a level, or None if no level is under way; InputError if the file is damaged."""
    path = state_path(folder)
    return _load(_STATE, path) if path.exists() else None


def part_paths(folder: Path) -> list[Path]:
    """The finished parts of the level in training, in the order of their blocks."""
    return sorted(folder.glob("part*.ckpt"))


def part_path(folder: Path, first: int) -> Path:
    return folder / f"part{first:012d}.ckpt"


def save_part(folder: Path, first: int, record: dict[str, Any]) -> None:
    """Write a finished part of a level; `first` active blocks of the level come before it."""
    _save(_PART, part_path(folder, first), record)


def load_part(path: Path) -> dict[str, Any]:
    """Read a part, memory-mapped, since others follow it; InputError if the file is damaged."""
    return _load(_PART, path, map_from=0)


def _save(kind: str, path: Path, record: dict[str, Any], others: Collection[Path] = ()) -> None:
    with aside(path, others) as file:  # given a path, torch would write its name into the file
        outlet = Outlet(file)  # and what a file raises, torch replaces by an error of its own
        torch.save({"format": kind, "version": _VERSIONS[kind], **record}, outlet)
        outlet.flush()


def _load(kind: str, path: Path, map_from: int = _LARGE) -> dict[str, Any]:
    """
    Inputs
        map_from: bytes of a file, above which it is mapped
    """
    check_file(path)
    try:
        _check_archive(path)
        # were a mapped file shortened, this process would be killed: map only where memory matters
        is_mapped = path.stat().st_size > map_from
        with warnings.catch_warnings(action="ignore"):  # torch's, of strange pickles
            record = torch.load(path, map_location="cpu", mmap=is_mapped, weights_only=True)
        _check_tensors(record)
    except FileNotFoundError as error:
        raise InputError(f"{path} is gone; --resume fits it again") from error
    except Exception as error:  # whatever a damaged archive or pickle raises
        raise InputError(f"{path} is damaged, or not a checkpoint; fit it again") from error
    if not isinstance(record, dict) or str(record.get("format")) != kind:
        raise InputError(f"{path} is not a checkpoint of a {kind.removeprefix('miner ')}; fit it again")
    version = one_line(record.get("version"))[:20]
    if version != str(_VERSIONS[kind]):
        raise InputError(f"{path} has format version {version}; this program reads version {_VERSIONS[kind]}")
    return record


def _check_archive(path: Path) -> None:
    """BadZipFile if an entry unpacks to more than the file holds, or a byte is not as it was written."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise zipfile.BadZipFile("compressed entries")
        if sum(entry.file_size for entry in entries) > path.stat().st_size or archive.testzip() is not None:
            raise zipfile.BadZipFile("sizes or checksums")


def _check_tensors(value: Any) -> None:
    """ValueError if a tensor is larger than its part of the file."""
    if isinstance(value, torch.Tensor):
        if not value.is_contiguous() or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError("a tensor larger than its storage")
    elif isinstance(value, dict):
        for part in value.values():
            _check_tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_tensors(part)


def packed_path(folder: Path) -> Path:
    """Where the file of a packed run is."""
    return folder / f"{folder.name}.miner"
