"""The floors of the house, read off the import statements: docs/design.md tells why they lie so."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers import ROOT

FLOORS = {  # what each may import, besides itself and libraries
    "utils": set(),
    "models": {"utils"},
    "datasets": {"utils"},
    "options": {"datasets.tasks", "utils"},
    "opt": {"options", "datasets.tasks", "utils"},
    "training": {"packing", "opt", "options", "models", "datasets", "utils"},
    "decoding": {"models", "datasets", "utils"},
    "packing": {"models", "datasets", "utils"},
    "viewing": {"packing", "decoding", "models", "datasets", "utils"},
    "preprocess_mesh": {"datasets", "utils"},
    "reconstruct": {"decoding", "utils"},
    "pack": {"packing", "utils"},
    "view": {"viewing", "utils"},
    "train": {"opt", "training", "utils"},
    "miner": {"opt", "options", "training", "models", "utils"},
}
LIBRARIES = {
    "pytorch_lightning": {"training"},
    "lightning_fabric": {"training"},
    "cv2": {"datasets"},
    "starlette": {"viewing"},
    "uvicorn": {"viewing"},
}  # and their homes
LONGEST, LONGEST_FUNCTION = 400, 60  # lines
APART = {"models/ops/fused_cuda_kernels.py"}  # kernels


def files() -> dict[str, Path]:
    """The project's modules by their dotted names."""
    paths = [
        path for floor in FLOORS for path in (*(ROOT / floor).rglob("*.py"), ROOT / f"{floor}.py") if path.exists()
    ]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: Path) -> set[str]:
    """Dotted names, but for what only type checkers see."""
    names = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_package_and_program_is_a_floor():
    beside = {"benchmarks", "docs", "tests"}
    there = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/*.py")}
    assert there - beside == set(FLOORS)


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_only_what_lies_below_it(floor):
    others = set(FLOORS) - {floor}
    for name, path in files().items():
        if name.split(".")[0] == floor:
            ours = {one for one in imported(path) if one.split(".")[0] in others}
            strange = {one for one in ours if not any(f"{one}.".startswith(f"{below}.") for below in FLOORS[floor])}
            assert not strange, path


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_to_its_floor_alone(library):
    knowing = {
        name.split(".")[0] for name, path in files().items() if library in {one.split(".")[0] for one in imported(path)}
    }
    assert knowing == LIBRARIES[library]


def test_lightning_is_not_loaded_before_the_signal_is_read():
    code = "import sys, training.session; sys.exit('pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_file_needs_itself():
    names = files()
    graph = {name: {one for one in imported(path) if one in names and one != name} for name, path in names.items()}
    assert set(TopologicalSorter(graph).static_order()) >= set(names), "a circle would raise"


def test_files_and_functions_are_read_at_one_sitting():
    for path in files().values():
        if str(path.relative_to(ROOT)) in APART:
            continue
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{path}: {node.name}"
