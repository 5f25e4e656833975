"""What the kernels of a GPU take of a multiprocessor, from compiling them for several; no GPU is needed.

    python -m benchmarks.gpu_code [--kernels fit predict fit_last_layer] [--out FILE]

For each network of benchmarks.fit, kernel and architecture: registers a thread, bytes of them that a thread spills to
memory, shared memory of a program, and how many programs a multiprocessor holds at once. For AMD, the compiler of the
installed triton must serve it; for NVIDIA, the tools that come with triton report on the code.
"""

import os

os.environ.pop("TRITON_INTERPRET", None)  # before triton is imported: the interpreter compiles nothing

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.fit import NETWORKS, shape_of
from benchmarks.records import Printer, make_parser
from models.ops import fused_cuda, fused_cuda_kernels

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED = {"sm_80": 164, "sm_90": 228, "sm_100": 228, "gfx942": 64}  # KiB of a multiprocessor
OVERHEAD = {"cuda": 1024, "hip": 0}  # bytes of it that the system takes for a program
REGISTERS = {"cuda": 2**14, "hip": 2**15}  # of a quarter of a multiprocessor, which runs warps of its own
KERNELS = ("fit", "predict", "fit_last_layer")
_POINTERS = ("packed", "amplitudes", "coords", "target", "rates", "loss", "out")
_COUNTS = ("n_blocks", "n_points", "n_epochs", "batch_size")
_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=KERNELS)
    options = parser.parse_args()
    columns = ["network", "kernel", "architecture", "registers", "spilled, bytes", "shared memory, KiB", "programs"]
    table = Printer("What a kernel takes of a multiprocessor", columns, options.out, f"triton {triton.__version__}")
    for network, kernel, target, registers, spilled, shared, programs in measure(options.kernels):
        table.add(network, kernel, target, registers, spilled, f"{shared / 1024:.1f}", programs)


def measure(kernels: Sequence[str]) -> Iterator[tuple[str, str, str, int, int, int, int]]:
    """Network, kernel, architecture; registers, bytes spilled, bytes of shared memory; programs a multiprocessor."""
    rows = [(network, kernel, target) for network in NETWORKS for kernel in kernels for target in TARGETS]
    # in processes, since of two threads one changes how many registers the other's compiler takes
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        for row, taken in zip(rows, processes.map(_measure, *zip(*rows, strict=True)), strict=True):
            yield *row, *taken


def _measure(network: str, kernel: str, target: str) -> tuple[int, int, int, int]:
    code = compile_for(network, kernel, target)
    registers, spilled = (_of_nvidia if TARGETS[target].backend == "cuda" else _of_amd)(code.asm)
    shared, warps = code.metadata.shared, code.metadata.num_warps
    backend = TARGETS[target].backend
    given = -(-registers // 8) * 8 * TARGETS[target].warp_size
    by_registers = 4 * (REGISTERS[backend] // given) // warps
    return registers, spilled, shared, min(by_registers, SHARED[target] * 1024 // (shared + OVERHEAD[backend]))


def compile_for(network: str, kernel: str, target: str) -> triton.compiler.CompiledKernel:
    """A kernel as fused_cuda launches it."""
    function = getattr(fused_cuda_kernels, kernel)
    constants = fused_cuda.prepare(shape_of(network))
    if TARGETS[target].backend == "hip":
        constants["precision"] = "ieee"
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    kinds = dict.fromkeys(function.arg_names, "fp32")
    kinds |= dict.fromkeys(_POINTERS, "*fp32") | dict.fromkeys(_COUNTS, "i32") | {"order": "*i32"}
    kinds |= dict.fromkeys(constants, "constexpr")
    signature = {name: kinds[name] for name in function.arg_names}
    aligned = [["tt.divisibility", 16]]
    attributes = {(place,): aligned for place, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(function, signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=TARGETS[target], options=options)


def _of_nvidia(asm: dict) -> tuple[int, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        command = [_CUOBJDUMP, "-res-usage", file.name]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", printed).groups()
    return int(registers), int(stack)


def _of_amd(asm: dict) -> tuple[int, int]:
    numbers = {name: int(number) for name, number in re.findall(r"\.(\w+):\s+(\d+)\n", asm["amdgcn"])}
    return numbers["vgpr_count"], 4 * numbers["vgpr_spill_count"]


if __name__ == "__main__":
    main()
