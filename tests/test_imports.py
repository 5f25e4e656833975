"""The layers of the house, read off the import statements."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAINING = {"models/level_module.py", "datasets/datamodule.py"}  # the two that speak Lightning, besides train.py


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("utils", {"models", "datasets", "opt", "train", "pytorch_lightning", "cv2"}),
        ("models", {"datasets", "opt", "train", "pytorch_lightning", "cv2"}),
        ("datasets", {"models", "opt", "train", "pytorch_lightning"}),
    ],
)
def test_packages_import_only_what_lies_below_them(package, forbidden):
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        allowed = {"pytorch_lightning"} if str(path.relative_to(ROOT)) in TRAINING else set()
        assert not imported(path) & (forbidden - allowed), path


def test_only_train_imports_everything():
    for path in ROOT.glob("*.py"):
        if path.name != "train.py":
            assert "pytorch_lightning" not in imported(path), path
