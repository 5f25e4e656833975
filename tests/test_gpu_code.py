"""What the kernels of a GPU take of a multiprocessor, from compiling them ahead of time: no GPU is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from benchmarks.records import read

triton = pytest.importorskip("triton", reason="there is no triton to compile with")

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
AMD = "gfx942"
MOST = {  # registers for NVIDIA and for AMD, bytes of them spilled, KiB of shared memory; programs at once, at least
    ("image", "fit"): (255, 312, 96, 48, 2),
    ("image", "predict"): (104, 128, 0, 24, 6),
    ("mesh", "fit"): (255, 240, 16, 40, 4),
    ("mesh", "predict"): (80, 112, 0, 34, 4),
    ("paper", "fit"): (232, 208, 0, 22, 4),
    ("paper", "predict"): (64, 64, 0, 10, 14),
}
"""Little above what Triton 3.6 and 3.7 need. What is spilled are numbers of a step, not of the loop over its points."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[tuple[str, str], list[list[str]]]:
    """By network and kernel. A process of its own: in this one, kernels are for the interpreter."""
    if not (TOOLS / "ptxas").exists() or not (TOOLS / "cuobjdump").exists():
        pytest.skip("this triton comes without NVIDIA's assembler")
    out = tmp_path_factory.mktemp("gpu_code") / "table.json"
    command = [sys.executable, "-m", "benchmarks.gpu_code", "--kernels", "fit", "predict", "--out", out]
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {}
    for network, kernel, *rest in read(out).rows:
        found.setdefault((network, kernel), []).append(rest)
    return found


@pytest.mark.parametrize("case", MOST, ids="-".join)
def test_a_kernel_leaves_room_for_others_and_keeps_its_points_in_registers(rows, case):
    of_nvidia, of_amd, most_spilled, most_shared, least_programs = MOST[case]
    assert [row[0] for row in rows[case]] == ["sm_80", "sm_90", "sm_100", AMD]
    for target, registers, spilled, shared, programs in rows[case]:
        assert int(registers) <= (of_amd if target == AMD else of_nvidia), target
        assert int(spilled) <= most_spilled, target
        assert float(shared) <= most_shared, target
        assert int(programs) >= least_programs, target
