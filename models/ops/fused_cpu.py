"""The fused kernel of a CPU: fused_cpu.c, compiled for the shape of a network, its blocks shared among threads."""

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from models.block_mlp import BlockMLP
from models.ops.optimizers import lookahead, set_step, step_rates, steps_taken
from models.ops.reference import LEAST, LOSS_EPS, LOSS_SCALE, RIDGE, STILL
from models.shape import NetworkShape
from utils.bounds import BOUND
from utils.errors import KernelError, one_line
from utils.files import unwritable

name = "fused"

SERVED = ("gaussian", "sine")
"""Activations that the kernel has."""

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-mcpu=native", "-fno-math-errno", "-shared", "-fPIC")
_PIECES_PER_THREAD = 4  # so that threads finish together
_PIECE = 32  # blocks, at most


def fit_points(
    network: BlockMLP,
    optimizer: torch.optim.Optimizer,
    coords: Tensor,
    target: Tensor,
    order: Tensor,
    batch_size: int,
    lr: Tensor,
) -> Tensor:
    """As reference.fit_points, up to rounding; the same bits for any number of threads."""
    n_blocks, n_points = len(target), len(coords)
    losses = target.new_empty(len(order), n_blocks)
    tensors = network.packed_order()
    moments = ([optimizer.state[tensor][name] for tensor in tensors] for name in ("exp_avg", "exp_avg_sq"))
    n_batches = -(-n_points // batch_size)
    rates = step_rates(optimizer, lr, n_batches)
    beta1, beta2 = optimizer.defaults["betas"]
    arrays = [network.amplitude, coords.T, target, order.int(), rates]
    arrays = [array.contiguous() for array in arrays]
    pointers = [_pointers(group) for group in (tensors, *moments)] + [array.data_ptr() for array in arrays]
    call = prepare(network.shape).fit

    def fit(first: int, last: int) -> int:
        return call(
            *pointers,
            losses.data_ptr(),
            *(n_blocks, first, last, n_points, len(order), batch_size),
            *(beta1, beta2, lookahead(optimizer), LOSS_EPS, LOSS_SCALE),
        )

    _share_out(fit, n_blocks)
    set_step(optimizer, steps_taken(optimizer) + len(rates))
    return losses


@torch.no_grad()
def fit_last_layer(network: BlockMLP, coords: Tensor, target: Tensor) -> None:
    """As reference.fit_last_layer, up to rounding; the same bits for any number of threads."""
    columns, target, amplitude = coords.T.contiguous(), target.contiguous(), network.amplitude.contiguous()
    pointers = (_pointers(network.packed_order()), *(array.data_ptr() for array in (amplitude, columns, target)))
    call = prepare(network.shape).fit_last_layer
    _share_out(lambda first, last: call(*pointers, first, last, len(coords)), network.n_blocks)


@torch.no_grad()
def predict(network: BlockMLP, index: Tensor | slice, coords: Tensor) -> Tensor:
    """As reference.predict, up to rounding; the bits of a block do not depend on the others."""
    part = network.select(index)
    out = coords.new_empty(part.n_blocks, len(coords), part.shape.n_out)
    columns, amplitude = coords.T.contiguous(), part.amplitude.contiguous()
    pointers = (_pointers(part.packed_order()), amplitude.data_ptr(), columns.data_ptr(), out.data_ptr())
    call = prepare(network.shape).predict
    _share_out(lambda first, last: call(*pointers, first, last, len(coords)), part.n_blocks)
    return out


def _pointers(tensors: list[Tensor]) -> ctypes.Array:
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in tensors)
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _share_out(call: Callable[[int, int], int], n_blocks: int) -> None:
    """Call it with ranges first..last-1 of the blocks, from as many threads as torch uses."""
    n_threads = torch.get_num_threads()
    step = max(1, min(_PIECE, n_blocks // (n_threads * _PIECES_PER_THREAD)))
    ranges = ((start, min(start + step, n_blocks)) for start in range(0, n_blocks, step))
    pieces = [_threads(n_threads).submit(call, *piece) for piece in ranges]
    try:
        failed = any(piece.result() for piece in pieces)
    finally:  # an interrupt must not free what threads still write to
        for piece in pieces:
            piece.cancel()
        wait(pieces)
    if failed:
        raise MemoryError("no memory for a tile of points")


@lru_cache(maxsize=1)
def _threads(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="fused")


def prepare(shape: NetworkShape) -> ctypes.CDLL:
    """The library for a shape of network, compiled if this machine does not have it yet.

    Errors
        KernelError for a network it has no kernel for, or if the compiler (the package ziglang) is missing or fails
    """
    library = _library(shape)
    if isinstance(library, KernelError):
        raise KernelError(str(library))
    return library


@lru_cache
def _library(shape: NetworkShape) -> ctypes.CDLL | KernelError:
    """What `prepare` returns or raises: what failed once is not tried again."""
    try:
        return _load(shape)
    except KernelError as error:
        return error
    except OSError as error:
        return KernelError(f"{error.filename or _SOURCE}: {error.strerror or one_line(error)}")


def _load(shape: NetworkShape) -> ctypes.CDLL:
    if shape.activation not in SERVED:
        raise KernelError(f"it has no {shape.activation} activations")
    flags = [*_FLAGS, *_constants(shape)]
    try:
        compiler = version("ziglang")
    except ImportError as error:
        raise KernelError("the package ziglang, which brings the compiler, is not installed") from error
    recipe = "\n".join([_SOURCE.read_text(), *flags, compiler, _processor()])
    try:
        path = _cache() / f"{hashlib.sha256(recipe.encode()).hexdigest()[:32]}.so"
        if not path.exists():
            _say_compiling()
            _compile(flags, path)
    except OSError as error:
        raise KernelError(unwritable(error.filename or "the kernel", error)) from error
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"{path} cannot be loaded ({one_line(error)})") from error
    pointer, count, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    reals = [ctypes.c_double] * 2 + [ctypes.c_float] * 3
    library.fit.argtypes = [*[pointer] * 9, *[count] * 3, *[size] * 3, *reals]
    library.fit_last_layer.argtypes = [*[pointer] * 4, *[count] * 2, size]
    library.predict.argtypes = [*[pointer] * 4, *[count] * 3]
    return library


@lru_cache
def _say_compiling() -> None:
    """Once, however many kernels there are."""
    print("compiling the kernels of these networks (once on this machine)", file=sys.stderr)


def _constants(shape: NetworkShape) -> list[str]:
    """The flags that name a network to the source."""
    constants = dict(N_IN=shape.n_in, N_OUT=shape.n_out, N_LAYERS=shape.n_layers, N_HIDDEN=shape.n_hidden)
    constants |= dict(SINE=int(shape.output == "sine"), LINEAR=int(shape.output == "linear"))
    constants |= dict(BOUND=f"{BOUND!r}f", CENTRE=f"{shape.centre!r}f", RIDGE=RIDGE, STILL=STILL, LEAST=f"{LEAST!r}f")
    if shape.activation == "sine":
        constants["OMEGA"] = f"{shape.omega!r}f"
    return [f"-D{name}={value}" for name, value in constants.items()]


def _compile(flags: list[str], path: Path) -> None:
    """Compile to a temporary name, then rename: two processes may do it at once."""
    zig_cache = {f"ZIG_{scope}_CACHE_DIR": str(path.parent / "zig") for scope in ("GLOBAL", "LOCAL")}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        aside = Path(folder) / "kernel.so"
        command = [sys.executable, "-m", "ziglang", "cc", *flags, "-o", str(aside), str(_SOURCE)]
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
