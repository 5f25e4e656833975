"""C sources that are compiled where they run: once on a machine, kept in the user's cache."""

import ctypes
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from utils.errors import KernelError, one_line
from utils.files import unwritable


def load_library(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """The library that a source is, compiled with these flags if this machine does not have it yet.

    Errors
        KernelError if the compiler (the package ziglang) is missing or fails, or its library cannot be kept or loaded
    """
    try:
        compiler = version("ziglang")
    except ImportError as error:
        raise KernelError("the package ziglang, which brings the compiler, is not installed") from error
    try:
        recipe = "\n".join([*_texts(source), *flags, compiler, _processor()])
        path = _cache() / f"{hashlib.sha256(recipe.encode()).hexdigest()[:32]}.so"
        if not path.exists():
            _say_compiling()
            compile_source(source, flags, path)
    except OSError as error:
        raise KernelError(unwritable(error.filename or "the kernel", error)) from error
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"{path} cannot be loaded ({one_line(error)})") from error


def _texts(source: Path) -> list[str]:
    """Of a source, and of the project's own that it includes."""
    text = source.read_text()
    included = re.findall(r'^#include "(.+)"$', text, re.MULTILINE)
    return [text, *(part for name in included for part in _texts(source.parent / name))]


@lru_cache
def _say_compiling() -> None:
    """Once, however many kernels there are."""
    print("compiling the kernels of these networks (once on this machine)", file=sys.stderr)


def compile_source(source: Path, flags: Sequence[str], path: Path) -> None:
    """Compile to a temporary name, then rename: two processes may do it at once."""
    zig_cache = {f"ZIG_{scope}_CACHE_DIR": str(path.parent / "zig") for scope in ("GLOBAL", "LOCAL")}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        aside = Path(folder) / "kernel.so"
        command = [sys.executable, "-m", "ziglang", "cc", *flags, "-o", str(aside), str(source)]
        result = subprocess.run(command, capture_output=True, text=True, env=os.environ | zig_cache)
        if result.returncode != 0:
            raise KernelError(f"the compiler failed: {_complaint(result.stderr)}")
        os.replace(aside, path)


def _complaint(printed: str) -> str:
    """The line in which a compiler, or Python in its place, says what is wrong."""
    lines = [one_line(line) for line in printed.splitlines() if line.strip()] or ["it does not say why"]
    return next((line for line in lines if "error:" in line), lines[-1])[:300]


def _cache() -> Path:
    """Where kernels are kept: the user's cache or, if that is not writable, a folder of this process."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "miner"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # the user may have no home
        pass
    return _own_folder()


@lru_cache
def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="miner-"))


@lru_cache
def _processor() -> str:
    """What the code compiled for this machine depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    kept = {line for line in lines if line.split("\t")[0] in ("flags", "Features", "model name", "CPU part")}
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *sorted(kept)])
