"""The notebooks run from the first cell to the last, on the runs that the README's recipes leave, some as drafts."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from helpers import ROOT
from nbclient import NotebookClient

NOTEBOOKS = {"image_test.ipynb": "quickstart", "mesh_test.ipynb": "spot_128"}
ALL = [*NOTEBOOKS, "fit_test.ipynb"]
LARGEST = 3_000_000  # bytes


def readme_commands(run: str) -> list[list[str]]:
    """What the README gives to make a run: its programs, up to the one that trains."""
    if run == "quickstart":
        return [["train.py"]]
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        if f"reconstruct.py ckpts/{run} " in block and "train.py" in block:
            lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
            return [line[1:] for line in lines if line[:1] == ["python"] and line[1] != "reconstruct.py"]
    raise AssertionError(f"the README does not make {run}")


def execute(name: str, folder: Path) -> nbformat.NotebookNode:
    """A notebook after its execution in a folder."""
    notebook = nbformat.read(ROOT / name, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


@pytest.fixture
def folder(tmp_path) -> Path:
    """With the signals that ship with the project."""
    for name in ("images", "meshes"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum(bool({"image/jpeg", "image/png"} & output.get("data", {}).keys()) for output in outputs(notebook))


@pytest.mark.parametrize(("name", "run"), NOTEBOOKS.items())
def test_notebooks_of_a_run_report_its_quality(name, run, folder):
    for program, *arguments in readme_commands(run):
        if program == "train.py" and arguments:
            arguments += ["--quality", "draft"]
        subprocess.run([sys.executable, ROOT / program, *arguments], cwd=folder, check=True, capture_output=True)
    notebook = execute(name, folder)
    report = json.loads((folder / "ckpts" / run / "metrics.json").read_text())
    quality = f"IoU : {report['iou']:.6f}" if "iou" in report else f"PSNR : {report['psnr']:.4f} dB"
    assert quality in printed(notebook)
    assert pictures(notebook) >= 4
    assert "iou" not in report or any(
        "application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs(notebook)
    )


def test_the_notebook_that_fits_leaves_nothing_behind(folder):
    notebook = execute("fit_test.ipynb", folder)
    picture, volume = map(float, re.findall(r"PSNR : (\d+\.\d+) dB", printed(notebook)))
    assert 42 <= picture < 46
    assert 36 <= volume < 42
    assert re.search(r"IoU : 0\.99\d+", printed(notebook))
    assert "Warning" not in printed(notebook)
    assert pictures(notebook) >= 4
    assert {path.name for path in folder.iterdir()} == {"images", "meshes", "ipython"}


@pytest.mark.parametrize("name", ALL)
def test_notebooks_are_thin_and_committed_with_their_pictures(name):
    notebook = nbformat.read(ROOT / name, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) <= 10
    assert not any(re.search(r"\b(for|while|def)\b", cell.source) for cell in cells)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert pictures(notebook) >= 3
    assert (ROOT / name).stat().st_size < LARGEST
