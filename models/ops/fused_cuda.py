"""The fused backend of a GPU: packs networks for the kernels in fused_cuda_kernels.py, and launches them."""

from typing import Any

import torch
import triton
from torch import Tensor, nn

from models.block_mlp import BlockMLP
from models.ops import fused_cuda_kernels as kernels
from models.ops.optimizers import lookahead, set_step, step_rates, steps_taken
from models.ops.reference import LEAST, LOSS_EPS, LOSS_SCALE, RIDGE, STILL
from models.shape import NetworkShape
from utils.errors import KernelError

name = "fused"

SERVED = ("gaussian", "sine")
"""Activations that the kernels have."""

_WIDEST_INPUT, _WIDEST_LAYER = 256, 64  # padded: beyond these a block does not fit into a multiprocessor
_LARGEST_PIECE = 32
_GROUPS = 4  # a block's parameters, their two moments, and their gradients


def fit_points(
    network: BlockMLP,
    optimizer: torch.optim.Optimizer,
    coords: Tensor,
    target: Tensor,
    order: Tensor,
    batch_size: int,
    lr: Tensor,
) -> Tensor:
    """As reference.fit_points, up to rounding; one launch, and nothing waits for it."""
    n_blocks, n_points = len(target), len(coords)
    losses = target.new_zeros(len(order), n_blocks)
    rates = step_rates(optimizer, lr, -(-n_points // batch_size))
    tensors = network.packed_order()
    groups = [tensors, *([optimizer.state[t][name] for t in tensors] for name in ("exp_avg", "exp_avg_sq"))]
    constants = prepare(network.shape)
    packed = coords.new_zeros(n_blocks, _GROUPS, constants["n_packed"])
    for group, tensors in enumerate(groups):
        _pack(packed[:, group], tensors, constants)
    beta1, beta2 = optimizer.defaults["betas"]
    if n_blocks:
        kernels.fit[(n_blocks,)](
            packed,
            network.amplitude.contiguous(),
            _padded(coords, constants),
            target.contiguous(),
            order.int().contiguous(),
            rates.to(coords.device, non_blocking=True),
            losses,
            *(n_blocks, n_points, len(order), batch_size),
            *(1 - beta1, beta2, 1 - beta2, lookahead(optimizer), LOSS_EPS, LOSS_SCALE),
            **constants,
        )
    for group, tensors in enumerate(groups):
        for tensor, part in zip(tensors, _parts(packed[:, group], tensors, constants), strict=True):
            tensor.detach().copy_(part)
    set_step(optimizer, steps_taken(optimizer) + len(rates))
    return losses


@torch.no_grad()
def fit_last_layer(network: BlockMLP, coords: Tensor, target: Tensor) -> None:
    """As reference.fit_last_layer, up to rounding; the bits of a block do not depend on the others."""
    if not len(target):
        return
    constants, packed = _packed(network)
    kernels.fit_last_layer[(len(target),)](
        packed,
        network.amplitude.contiguous(),
        _padded(coords, constants),
        target.contiguous(),
        *(len(coords), RIDGE, STILL, LEAST),
        **constants,
    )
    parts = _parts(packed, network.packed_order(), constants)
    last = 2 * network.shape.n_layers - 2
    network.weight[-1].copy_(parts[last])
    network.bias[-1].copy_(parts[last + 1])


@torch.no_grad()
def predict(network: BlockMLP, index: Tensor | slice, coords: Tensor) -> Tensor:
    """As reference.predict, up to rounding; the bits of a block do not depend on the others."""
    part = network.select(index)
    out = coords.new_empty(part.n_blocks, len(coords), part.shape.n_out)
    if part.n_blocks:
        constants, packed = _packed(part)
        kernels.predict[(part.n_blocks,)](
            packed,
            part.amplitude.contiguous(),
            _padded(coords, constants),
            out,
            len(coords),
            **constants,
        )
    return out


def _packed(network: BlockMLP) -> tuple[dict[str, Any], Tensor]:
    """The constants of a network's kernels, and its parameters (n_blocks, n_packed) as they take them."""
    constants = prepare(network.shape)
    packed = network.amplitude.new_zeros(network.n_blocks, constants["n_packed"])
    _pack(packed, network.packed_order(), constants)
    return constants, packed


def _pack(group: Tensor, tensors: list[Tensor], constants: dict[str, Any]) -> None:
    for tensor, part in zip(tensors, _parts(group, tensors, constants), strict=True):
        part.copy_(tensor.detach())


def _parts(group: Tensor, tensors: list[Tensor], constants: dict[str, Any]) -> list[Tensor]:
    """Where a group (n_blocks, n_packed) holds each tensor of `packed_order`: views of their shapes."""
    parts, begin, n_layers = [], 0, constants["n_layers"]
    for layer in range(n_layers):
        rows = constants["n_pieces"] * constants["p_piece"] if layer == 0 else constants["p_hidden"]
        columns = constants["p_out"] if layer == n_layers - 1 else constants["p_hidden"]
        matrix = group[:, begin : begin + rows * columns].unflatten(1, (rows, columns))
        n_in, n_out = tensors[2 * layer].shape[1:]
        parts += [matrix[:, :n_in, :n_out], matrix[:, n_in : n_in + 1, :n_out]]
        begin += rows * columns
    return parts + [group[:, begin + width, None, None] for width in range(len(tensors) - 2 * n_layers)]


def _padded(coords: Tensor, constants: dict[str, Any]) -> Tensor:
    """(n_points, p_in): after the inputs 1, which the bias is multiplied by, and zeros."""
    ones = nn.functional.pad(coords, (0, 1), value=1.0)
    return nn.functional.pad(ones, (0, constants["n_pieces"] * constants["p_piece"] - ones.shape[1])).contiguous()


def prepare(shape: NetworkShape) -> dict[str, Any]:
    """The constants that the kernels are compiled for.

    A warp multiplies 16 points at a time, so two share a tile of 32: of more warps or points, the products for the
    gradients would spill registers. Nothing is prefetched: the other blocks of a multiprocessor hide the wait.

    Errors
        KernelError for a network it has no kernel for, or one too wide for a multiprocessor
    """
    if shape.activation not in SERVED:
        raise KernelError(f"it has no {shape.activation} activations")
    n_in, n_hidden, n_out, n_layers = shape.n_in, shape.n_hidden, shape.n_out, shape.n_layers
    p_in, p_hidden, p_out = (max(16, triton.next_power_of_2(width)) for width in (n_in + 1, n_hidden + 1, n_out))
    n_widths = (n_layers - 1) * (shape.activation == "gaussian") + (shape.output == "sine")
    if p_in > _WIDEST_INPUT or p_hidden > _WIDEST_LAYER or p_out > _WIDEST_LAYER or n_widths > kernels.WIDTHS.value:
        raise KernelError(f"a network {n_in}-{n_hidden}-{n_out} is too wide for it")
    p_piece = min(p_in, _LARGEST_PIECE)
    n_pieces = -(-(n_in + 1) // p_piece)
    return dict(
        n_hidden=n_hidden,
        n_out=n_out,
        n_layers=n_layers,
        sine=shape.output == "sine",
        linear=shape.output == "linear",
        omega=shape.omega or 0.0,
        centre=shape.centre,
        n_widths=n_widths,
        n_packed=(n_pieces * p_piece + (n_layers - 2) * p_hidden + p_out) * p_hidden + kernels.WIDTHS.value,
        n_pieces=n_pieces,
        p_piece=p_piece,
        p_hidden=p_hidden,
        p_out=p_out,
        tile=32,
        precision="ieee" if torch.version.hip else "tf32x3",  # matrix units of AMD's multiply float32 as it is
        num_warps=2,
        num_stages=1,
    )
