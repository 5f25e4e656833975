"""The fused kernel of a CPU: fused_cpu.c, compiled for the shape of a network, its blocks shared among threads."""

import ctypes
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from models.block_mlp import BlockMLP
from models.block_network import BlockNetwork
from models.ops import cosines_cpu
from models.ops.optimizers import lookahead, set_step, step_rates, steps_taken
from models.ops.reference import LEAST, LOSS_EPS, LOSS_SCALE, RIDGE, STILL
from models.ops.threads import share_out
from models.shape import NetworkShape
from utils.bounds import BOUND
from utils.compiler import load_library
from utils.errors import KernelError, one_line

name = "fused"

SERVED = ("gaussian", "sine")
"""Activations that the kernel has."""

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-mcpu=native", "-fno-math-errno", "-shared", "-fPIC")


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

    share_out(fit, n_blocks)
    set_step(optimizer, steps_taken(optimizer) + len(rates))
    return losses


@torch.no_grad()
def fit_last_layer(network: BlockMLP, coords: Tensor, target: Tensor) -> None:
    """As reference.fit_last_layer, up to rounding; the same bits for any number of threads."""
    columns, target, amplitude = coords.T.contiguous(), target.contiguous(), network.amplitude.contiguous()
    pointers = (_pointers(network.packed_order()), *(array.data_ptr() for array in (amplitude, columns, target)))
    call = prepare(network.shape).fit_last_layer
    share_out(lambda first, last: call(*pointers, first, last, len(coords)), network.n_blocks)


@torch.no_grad()
def predict(network: BlockNetwork, index: Tensor | slice, coords: Tensor) -> Tensor:
    """As reference.predict, up to rounding; the bits of a block do not depend on the others."""
    if network.shape.kind == "cosines":
        return cosines_cpu.predict(network, index, coords)
    part = network.select(index)
    out = coords.new_empty(part.n_blocks, len(coords), part.shape.n_out)
    columns, amplitude = coords.T.contiguous(), part.amplitude.contiguous()
    pointers = (_pointers(part.packed_order()), amplitude.data_ptr(), columns.data_ptr(), out.data_ptr())
    call = prepare(network.shape).predict
    share_out(lambda first, last: call(*pointers, first, last, len(coords)), part.n_blocks)
    return out


def _pointers(tensors: list[Tensor]) -> ctypes.Array:
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in tensors)
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


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
    if shape.kind == "cosines":
        return cosines_cpu.library()
    if shape.activation not in SERVED:
        raise KernelError(f"it has no {shape.activation} activations")
    library = load_library(_SOURCE, (*_FLAGS, *_constants(shape)))
    pointer, count, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    reals = [ctypes.c_double] * 2 + [ctypes.c_float] * 3
    library.fit.argtypes = [*[pointer] * 9, *[count] * 3, *[size] * 3, *reals]
    library.fit_last_layer.argtypes = [*[pointer] * 4, *[count] * 2, size]
    library.predict.argtypes = [*[pointer] * 4, *[count] * 3]
    return library


def _constants(shape: NetworkShape) -> list[str]:
    """The flags that name a network to the source."""
    constants = dict(N_IN=shape.n_in, N_OUT=shape.n_out, N_LAYERS=shape.n_layers, N_HIDDEN=shape.n_hidden)
    constants |= dict(SINE=int(shape.output == "sine"), LINEAR=int(shape.output == "linear"))
    constants |= dict(BOUND=f"{BOUND!r}f", CENTRE=f"{shape.centre!r}f", RIDGE=RIDGE, STILL=STILL, LEAST=f"{LEAST!r}f")
    if shape.activation == "sine":
        constants["OMEGA"] = f"{shape.omega!r}f"
    return [f"-D{name}={value}" for name, value in constants.items()]
