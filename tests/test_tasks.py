"""Image or mesh: what follows from it."""

import subprocess
import sys

import numpy as np
from helpers import ASTRONAUT, ROOT

from datasets.occupancy import write_occupancy
from datasets.tasks import TASKS, task_of
from utils.frame import Frame
from utils.metrics import iou, psnr

FRAME = Frame((0.0, 1.0, 2.0), (1.0, 2.0, 3.0))


def test_a_task_opens_judges_and_describes_its_signals(tmp_path):
    image, mesh, volume = TASKS.values()
    assert [(task.name, task.n_dims, task.metric) for task in TASKS.values()] == [
        ("image", 2, psnr),
        ("mesh", 3, iou),
        ("volume", 3, psnr),
    ]
    records = ((2, {"bits": 8}), (2, {}), (3, {"frame": None}), (3, {}), (3, {"bits": 8, "affine": None}))
    assert [task_of(*record) for record in records] == [image, image, mesh, mesh, volume]
    picture = image.open(ASTRONAUT, (75, 100))
    assert picture.size == (75, 100)
    assert image.describe(picture) == {"bits": 8}
    write_occupancy(tmp_path / "x.npy", np.zeros((3, 4, 1), np.uint8), 5, FRAME)
    grid = mesh.open(tmp_path / "x.npy", None)
    assert grid.size == (3, 4, 5)
    assert mesh.describe(grid) == {"frame": {"centre": (0.0, 1.0, 2.0), "half_extents": (1.0, 2.0, 3.0)}}
    np.save(tmp_path / "bools.npy", np.zeros((3, 4, 5), bool))
    assert mesh.describe(mesh.open(tmp_path / "bools.npy", None)) == {"frame": None}
    np.save(tmp_path / "bytes.npy", np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    assert volume.describe(volume.open(tmp_path / "bytes.npy", None)) == {"bits": 8, "affine": None}


def test_options_can_be_parsed_by_tasks_before_anything_loads():
    slow = "import sys, datasets.tasks; print({'torch', 'numpy', 'cv2', 'zarr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", slow], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
