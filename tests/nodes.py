"""Node.js, for tests of the page's modules."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_LONGEST = 120  # seconds of a module, after which it hangs

MODULES = Path(__file__).resolve().parent / "viewer"


def node() -> str:
    """Node's path: the machine's, or that of the package playwright; skips the test where there is neither."""
    if found := shutil.which("node"):
        return found
    try:
        import playwright
    except ImportError:
        pytest.skip("neither Node.js nor the package playwright, which brings it, is installed")
    return str(Path(playwright.__file__).parent / "driver" / "node")


def run_module(name: str, *arguments: object, given: Any = None) -> str:
    """What a module of tests/viewer prints; `given` is its standard input, as JSON."""
    command = [node(), str(MODULES / name), *map(str, arguments)]
    result = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=_LONGEST)
    assert result.returncode == 0, result.stderr
    return result.stdout
