"""The multiply-add peak of this processor in float32, on as many cores as torch uses.

    python -m benchmarks.peak

It is the speed of peak.c, a loop of independent multiply-adds over registers, built with the compiler of the kernels. A
product of large matrices would be too low a bar: torch's reaches less than half of this peak on some processors.
"""

import ctypes
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-mcpu=native", "-shared", "-fPIC")
_STEPS = 2**24  # some tens of milliseconds: long beside the start of a thread
_REPEATS = 10


def peak_flops() -> float:
    """Floating-point operations a second, two a multiply-add; the best of several measurements.

    Errors
        CalledProcessError where the compiler fails
    """
    n_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(n_threads) as threads:
        path = Path(folder) / "peak.so"
        subprocess.run([sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-o", path, _SOURCE], check=True)
        library = ctypes.CDLL(str(path))
        library.multiply_add.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float]
        library.multiply_add.restype = ctypes.c_float
        library.operations_per_step.restype = ctypes.c_long

        def speed(n_steps: int) -> float:
            start = time.thread_time()  # of this thread: what else the machine does takes nothing from the peak
            library.multiply_add(n_steps, 0.5, 0.5)
            return n_steps * library.operations_per_step() / (time.thread_time() - start)

        return max(sum(threads.map(speed, [_STEPS] * n_threads)) for _ in range(_REPEATS))


if __name__ == "__main__":
    print(f"{peak_flops() / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads")
