"""Checkpoint files, one a level: plain data in, plain data out."""

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils.errors import InputError

_FORMAT, _VERSION = "miner level", 1


def level_path(folder: Path, level: int) -> Path:
    return folder / f"l{level}.ckpt"


def find_levels(folder: Path) -> list[int]:
    """The levels that have a checkpoint in a folder, finest first."""
    names = (re.fullmatch(r"l(\d+)\.ckpt", path.name) for path in folder.glob("l*.ckpt"))
    return sorted(int(name[1]) for name in names if name)


def write_aside(path: Path, data: bytes) -> None:
    """Write a file so that it is complete when it appears, and an old one stays whole until then."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def save_level(path: Path, record: dict[str, Any]) -> None:
    """Write one level. Equal records give equal bytes: torch.save would write the name of a file into it."""
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "version": _VERSION, **record}, buffer)
    write_aside(path, buffer.getvalue())


def load_level(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read one level; InputError, naming the file, for anything that is none."""
    data = io.BytesIO(path.read_bytes())
    try:
        if zipfile.ZipFile(data).testzip() is not None:  # checks every byte, which torch.load does not
            raise zipfile.BadZipFile
        data.seek(0)
        record = torch.load(data, map_location=device, weights_only=True)
    except Exception as error:  # whatever a damaged archive or pickle leads to
        raise InputError(f"{path} is damaged, or no checkpoint: fit it again") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise InputError(f"{path} is no checkpoint of a level")
    if record.get("version") != _VERSION:
        raise InputError(f"{path} has format version {record.get('version')}; this program reads version {_VERSION}")
    return record
