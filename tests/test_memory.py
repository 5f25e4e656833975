"""A picture that memory does not hold is read, fitted and written by windows."""

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import ASTRONAUT, ROOT

from training.plan import Demand, Plan, plan_memory

SIZE = (6144, 8192)
# Of what a process may write to. A fit by windows takes less than 740 MiB of it, one with its levels in memory more; a
# reconstruction some 740. One thread, since stacks and arenas of threads vary.
FITTING, DECODING = 740 * 2**20, 800 * 2**20


def tiles():
    """A grey disc of some thousand pixels on a slope; most of it needs no network at the fine levels."""
    for top in range(0, SIZE[0], 512):
        for left in range(0, SIZE[1], 512):
            y, x = np.mgrid[top : top + 512, left : left + 512]
            slope = 60 + 100 * (y + x) / sum(SIZE)
            disc = 40 * (np.hypot(y - 5000, x - 6000) < 700)
            yield np.stack([slope, slope + disc, slope - disc], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.tif"
    tifffile.imwrite(
        path, tiles(), shape=(*SIZE, 3), dtype=np.uint8, tile=(512, 512), photometric="rgb", compression="zlib"
    )
    return path


def limited(limit: int, program: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / program, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )


FIT = [
    *("--n_scales", 6, "--patch_size", 64, "--use_pe", "--n_layers", 3, "--num_epochs", 2),
    *("--val_freq", 1, "--loss_thr", 1e-3, "--accelerator", "cpu"),
]


def test_a_picture_larger_than_memory_is_fitted_and_written(large, tmp_path):
    whole = limited(FITTING, "train.py", "--path", large, *FIT, "--max_memory", 100, cwd=tmp_path)
    assert whole.returncode == 1, "the limit must be one that the levels in memory break"
    assert "out of memory" in whole.stderr
    fitted = limited(FITTING, "train.py", "--path", large, *FIT, "--max_memory", 0.2, "--overwrite", cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    arguments = ["ckpts/exp", "--level", 1, "--out", "back.tif", "--original", large]
    written = limited(DECODING, "reconstruct.py", *arguments, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    report = json.loads((tmp_path / "ckpts/exp/metrics.json").read_text())
    reached = float(written.stdout.splitlines()[0].split()[2])
    assert reached == pytest.approx(report["levels"][1]["psnr"], abs=1e-3)
    with tifffile.TiffFile(tmp_path / "back.tif") as file:
        assert file.pages[0].shape == (SIZE[0] // 2, SIZE[1] // 2, 3)


def test_parts_and_mapping_follow_the_budget():
    demand = Demand(
        sizes=[(4096, 4096), (2048, 2048)],
        n_channels=3,
        patch_size=(32, 32),
        per_block=[826, 826],
        most_parameters=826 * (16384 + 4096),
        store_bytes=3 * 4096**2 * 3 // 2,
        decode_bytes=0,
        value_bytes=1,
        history_bytes=0,
    )
    common = dict(device_budget=None, max_blocks=None)
    large = plan_memory(demand, budget=2**34, **common)
    small = plan_memory(demand, budget=2**28, **common)
    assert not large.is_mapped
    assert small.is_mapped
    assert large.blocks == [16384, 4096]
    assert small.max_blocks < large.max_blocks == 16384, "no more points than 16 million at once"
    assert small.host < large.host
    of_smaller = plan_memory(replace(demand, most_parameters=10**6), budget=2**34, **common)
    assert of_smaller.host < large.host
    assert of_smaller.parameters == [10**6, 10**6]
    assert of_smaller.most_parameters == 10**6
    on_device = plan_memory(demand, budget=2**34, **common | {"device_budget": 2**28})
    assert 0 < on_device.device < 2**29
    assert on_device.max_blocks < 16384


def test_processes_share_what_is_mapped_and_no_more(monkeypatch):
    plan = Plan([(8, 8)], [1], [9], 9, False, 0, 1, n_local=100, host=600, shared=200, launcher=150, device=0)
    assert plan.all == 200 + 100 * 400 + 150
    monkeypatch.setattr("training.plan.used_memory", lambda: 350)
    monkeypatch.setattr("training.plan.shared_memory", lambda: 200)
    for n_running, taken in ((1, 350), (100, 200 + 101 * 150)):
        monkeypatch.setattr("training.plan.available_memory", lambda taken=taken: plan.all - taken)
        assert plan.fits(n_running)
        monkeypatch.setattr("training.plan.available_memory", lambda taken=taken: plan.all - taken - 1)
        assert not plan.fits(n_running)


def test_a_dry_run_says_what_each_and_all_processes_take(command):
    outcome = command("train.py", "--path", ASTRONAUT, "--devices", 100, "--dry_run")
    found = re.search(r"([\d,]+) MiB of memory for each of 100 processes and ([\d,]+) MiB", outcome.out)
    each, everyone = (int(amount.replace(",", "")) for amount in found.groups())
    assert 50 < everyone / each < 100, "libraries are shared"
