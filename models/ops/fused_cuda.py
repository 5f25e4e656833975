"""The fused kernel of a GPU, in Triton: a program trains one block for a whole call.

Its parameters, their moments and their gradients stay in registers and shared memory from the first batch to the last;
the coordinates and the targets of the points are streamed. Every width is padded to a power of two of at least 16, as
matrix units require: padded weights are 0 and stay 0, since padded units give 0.

The packed parameters of a block are those of fused_cpu.c: weight (n_in, n_out) and bias of each layer, then the widths
a.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.block_mlp import BlockMLP
from models.ops.optimizers import lookahead, set_step, step_rates, steps_taken
from models.ops.reference import LOSS_EPS, LOSS_SCALE, fit_last_layer  # noqa: F401  there is no kernel of it
from models.shape import NetworkShape
from utils.errors import KernelError

name = "fused"

SERVED = ("gaussian", "sine")
"""Activations that the kernels have."""

_WIDEST_INPUT, _WIDEST_LAYER = 256, 64  # padded: beyond these a block does not fit into a multiprocessor


@triton.jit
def _layer_at(layer: tl.constexpr, n_in: tl.constexpr, n_hidden: tl.constexpr):
    """Where a layer's weight begins among the packed parameters of a block."""
    return (layer > 0) * (n_in + 1) * n_hidden + (layer - 1) * (layer > 0) * (n_hidden + 1) * n_hidden


@triton.jit
def _load_layer(at, n_k: tl.constexpr, n_i: tl.constexpr, p_k: tl.constexpr, p_i: tl.constexpr):
    """Weight (inputs, outputs) and bias (outputs,) of a layer, padded with 0."""
    k = tl.arange(0, p_k)[:, None]
    i = tl.arange(0, p_i)
    weight = tl.load(at + k * n_i + i[None, :], mask=(k < n_k) & (i[None, :] < n_i), other=0.0)
    return weight, tl.load(at + n_k * n_i + i, mask=i < n_i, other=0.0)


@triton.jit
def _store_layer(at, weight, bias, n_k: tl.constexpr, n_i: tl.constexpr, p_k: tl.constexpr, p_i: tl.constexpr):
    k = tl.arange(0, p_k)[:, None]
    i = tl.arange(0, p_i)
    tl.store(at + k * n_i + i[None, :], weight, mask=(k < n_k) & (i[None, :] < n_i))
    tl.store(at + n_k * n_i + i, bias, mask=i < n_i)


@triton.jit
def _load_layers(
    row,
    n_in: tl.constexpr,
    n_hidden: tl.constexpr,
    n_out: tl.constexpr,
    n_layers: tl.constexpr,
    p_in: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
):
    weights = ()
    biases = ()
    for layer in tl.static_range(n_layers):
        weight, bias = _load_layer(
            row + _layer_at(layer, n_in, n_hidden),
            n_in if layer == 0 else n_hidden,
            n_out if layer == n_layers - 1 else n_hidden,
            p_in if layer == 0 else p_hidden,
            p_out if layer == n_layers - 1 else p_hidden,
        )
        weights = weights + (weight,)
        biases = biases + (bias,)
    return weights, biases


@triton.jit
def _store_layers(
    row,
    weights,
    biases,
    n_in: tl.constexpr,
    n_hidden: tl.constexpr,
    n_out: tl.constexpr,
    n_layers: tl.constexpr,
    p_in: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
):
    for layer in tl.static_range(n_layers):
        _store_layer(
            row + _layer_at(layer, n_in, n_hidden),
            weights[layer],
            biases[layer],
            n_in if layer == 0 else n_hidden,
            n_out if layer == n_layers - 1 else n_hidden,
            p_in if layer == 0 else p_hidden,
            p_out if layer == n_layers - 1 else p_hidden,
        )


@triton.jit
def _load_widths(row, n_parameters: tl.constexpr, n_widths: tl.constexpr):
    widths = ()
    for layer in tl.static_range(n_widths):
        widths = widths + (tl.load(row + n_parameters - n_widths + layer),)
    return widths


@triton.jit
def _store_widths(row, widths, n_parameters: tl.constexpr, n_widths: tl.constexpr):
    for layer in tl.static_range(n_widths):
        tl.store(row + n_parameters - n_widths + layer, widths[layer])


@triton.jit
def _forward(
    x,
    weights,
    biases,
    widths,
    n_hidden: tl.constexpr,
    n_layers: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    p_hidden: tl.constexpr,
    precision: tl.constexpr,
):
    """What the activation of every layer takes; and x, followed by what those of the hidden layers give."""
    real = tl.arange(0, p_hidden)[None, :] < n_hidden
    before = ()
    after = (x,)
    for layer in tl.static_range(n_layers):
        z = tl.dot(after[layer], weights[layer], input_precision=precision) + biases[layer][None, :]
        before = before + (z,)
        if layer < n_layers - 1:
            if omega > 0:
                h = tl.sin(z * omega)
            else:
                h = tl.exp(z * z * (-0.5 / (widths[layer] * widths[layer]))) - centre
            after = after + (tl.where(real, h, 0.0),)
    return before, after


@triton.jit
def _step(
    parameters,
    firsts,
    seconds,
    gradients,
    scale,
    rate,
    rectified,
    gain1,
    keep2,
    gain2,
    ahead,
    eps,
    count: tl.constexpr,
):
    """A step, by `optimizers.step_rates` and `lookahead`, for tuples of parameters, moments and unscaled gradients."""
    new_parameters = ()
    new_firsts = ()
    new_seconds = ()
    for index in tl.static_range(count):
        gradient = gradients[index] * scale
        first = firsts[index] + (gradient - firsts[index]) * gain1
        second = seconds[index] * keep2 + gradient * gradient * gain2
        adapted = tl.where(rectified > 0, rectified / (tl.sqrt(second) + eps), 1.0)
        new_parameters = new_parameters + (parameters[index] - rate * (first + (gradient - first) * ahead) * adapted,)
        new_firsts = new_firsts + (first,)
        new_seconds = new_seconds + (second,)
    return new_parameters, new_firsts, new_seconds


@triton.jit
def _fit(
    parameters,
    firsts,
    seconds,
    amplitudes,
    coords,
    target,
    order,
    rates,
    loss,
    n_blocks,
    n_points,
    n_epochs,
    batch_size,
    gain1,
    keep2,
    gain2,
    ahead,
    loss_eps,
    loss_scale,
    n_in: tl.constexpr,
    n_hidden: tl.constexpr,
    n_out: tl.constexpr,
    n_layers: tl.constexpr,
    sine: tl.constexpr,
    linear: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    n_widths: tl.constexpr,
    n_parameters: tl.constexpr,
    p_in: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
    tile: tl.constexpr,
    precision: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64)
    row = parameters + block * n_parameters
    first_row = firsts + block * n_parameters
    second_row = seconds + block * n_parameters
    amplitude = tl.load(amplitudes + block)
    weights, biases = _load_layers(row, n_in, n_hidden, n_out, n_layers, p_in, p_hidden, p_out)
    weights1, biases1 = _load_layers(first_row, n_in, n_hidden, n_out, n_layers, p_in, p_hidden, p_out)
    weights2, biases2 = _load_layers(second_row, n_in, n_hidden, n_out, n_layers, p_in, p_hidden, p_out)
    widths = _load_widths(row, n_parameters, n_widths)
    widths1 = _load_widths(first_row, n_parameters, n_widths)
    widths2 = _load_widths(second_row, n_parameters, n_widths)
    k = tl.arange(0, p_in)
    i = tl.arange(0, p_out)
    p = tl.arange(0, tile)

    n_batches = tl.cdiv(n_points, batch_size)
    epoch_loss = 0.0
    for step in range(n_epochs * n_batches):
        epoch = step // n_batches
        start = (step % n_batches) * batch_size
        n_batch = tl.minimum(batch_size, n_points - start)
        squares = 0.0
        weight_gradients = ()
        bias_gradients = ()
        width_gradients = ()
        for layer in tl.static_range(n_layers):
            weight_gradients = weight_gradients + (tl.zeros_like(weights[layer]),)
            bias_gradients = bias_gradients + (tl.zeros_like(biases[layer]),)
        for layer in tl.static_range(n_widths):
            width_gradients = width_gradients + (0.0,)

        for done in range(0, n_batch, tile):
            here = done + p < n_batch
            point = tl.load(order + epoch.to(tl.int64) * n_points + start + done + p, mask=here, other=0)
            x = tl.load(
                coords + point[:, None] * n_in + k[None, :], mask=here[:, None] & (k[None, :] < n_in), other=0.0
            )
            wanted = here[:, None] & (i[None, :] < n_out)
            at = target + (block * n_points + point[:, None]) * n_out + i[None, :]
            y = tl.load(at, mask=wanted, other=0.0)
            before, after = _forward(x, weights, biases, widths, n_hidden, n_layers, omega, centre, p_hidden, precision)

            z = before[n_layers - 1]
            if sine:
                phase = z * widths[n_widths - 1]
                prediction = amplitude * tl.sin(phase)
                slope = amplitude * tl.cos(phase)
            elif linear:
                prediction = z
                slope = tl.full(z.shape, 1.0, tl.float32)
            else:
                prediction = 1.0 / (1.0 + tl.exp(-z))
                slope = prediction * (1.0 - prediction)
            error = tl.where(wanted, prediction - y, 0.0)
            squares += tl.sum(error * error)
            gradient = error * slope
            sine_gradient = ()
            if sine:
                sine_gradient = (width_gradients[n_widths - 1] + tl.sum(gradient * z),)
                gradient = gradient * widths[n_widths - 1]

            new_weights = ()
            new_biases = ()
            new_widths = ()
            for layer in tl.static_range(n_layers - 1, -1, -1):
                new_weights = (
                    tl.dot(tl.trans(after[layer]), gradient, weight_gradients[layer], input_precision=precision),
                ) + new_weights
                new_biases = (bias_gradients[layer] + tl.sum(gradient, axis=0),) + new_biases
                if layer > 0:
                    z = before[layer - 1]
                    inner = tl.dot(gradient, tl.trans(weights[layer]), input_precision=precision)
                    if omega > 0:
                        gradient = inner * tl.cos(z * omega) * omega
                    else:
                        inner = inner * (after[layer] + centre) * z
                        width = widths[layer - 1]
                        squared = width * width
                        new_widths = (width_gradients[layer - 1] + tl.sum(inner * z) / (squared * width),) + new_widths
                        gradient = inner * (-1.0 / squared)
            weight_gradients = new_weights
            bias_gradients = new_biases
            width_gradients = new_widths + sine_gradient

        count = n_batch.to(tl.float32) * n_out
        mean = squares / count
        scale = 2.0 / count / (mean + loss_eps) / loss_scale
        rate = tl.load(rates + 3 * step)
        rectified = tl.load(rates + 3 * step + 1)
        eps = tl.load(rates + 3 * step + 2)
        weights, weights1, weights2 = _step(
            weights, weights1, weights2, weight_gradients,
            scale, rate, rectified, gain1, keep2, gain2, ahead, eps, n_layers,
        )  # fmt: skip
        biases, biases1, biases2 = _step(
            biases, biases1, biases2, bias_gradients,
            scale, rate, rectified, gain1, keep2, gain2, ahead, eps, n_layers,
        )  # fmt: skip
        widths, widths1, widths2 = _step(
            widths, widths1, widths2, width_gradients,
            scale, rate, rectified, gain1, keep2, gain2, ahead, eps, n_widths,
        )  # fmt: skip

        epoch_loss += mean * (n_batch.to(tl.float32) / n_points)
        if start + batch_size >= n_points:
            tl.store(loss + epoch.to(tl.int64) * n_blocks + block, epoch_loss)
            epoch_loss = 0.0

    _store_layers(row, weights, biases, n_in, n_hidden, n_out, n_layers, p_in, p_hidden, p_out)
    _store_layers(first_row, weights1, biases1, n_in, n_hidden, n_out, n_layers, p_in, p_hidden, p_out)
    _store_layers(second_row, weights2, biases2, n_in, n_hidden, n_out, n_layers, p_in, p_hidden, p_out)
    _store_widths(row, widths, n_parameters, n_widths)
    _store_widths(first_row, widths1, n_parameters, n_widths)
    _store_widths(second_row, widths2, n_parameters, n_widths)


@triton.jit
def _predict(
    parameters,
    amplitudes,
    coords,
    out,
    n_points,
    n_in: tl.constexpr,
    n_hidden: tl.constexpr,
    n_out: tl.constexpr,
    n_layers: tl.constexpr,
    sine: tl.constexpr,
    linear: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    n_widths: tl.constexpr,
    n_parameters: tl.constexpr,
    p_in: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
    tile: tl.constexpr,
    precision: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64)
    row = parameters + block * n_parameters
    weights, biases = _load_layers(row, n_in, n_hidden, n_out, n_layers, p_in, p_hidden, p_out)
    widths = _load_widths(row, n_parameters, n_widths)
    amplitude = tl.load(amplitudes + block)
    k = tl.arange(0, p_in)
    i = tl.arange(0, p_out)
    for done in range(0, n_points, tile):
        point = done + tl.arange(0, tile)[:, None]
        x = tl.load(coords + point * n_in + k[None, :], mask=(point < n_points) & (k[None, :] < n_in), other=0.0)
        before, _ = _forward(x, weights, biases, widths, n_hidden, n_layers, omega, centre, p_hidden, precision)
        z = before[n_layers - 1]
        if sine:
            values = amplitude * tl.sin(z * widths[n_widths - 1])
        elif linear:
            values = z
        else:
            values = 1.0 / (1.0 + tl.exp(-z))
        at = out + (block * n_points + point) * n_out + i[None, :]
        tl.store(at, values, mask=(point < n_points) & (i[None, :] < n_out))


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
    losses = target.new_empty(len(order), n_blocks)
    rates = step_rates(optimizer, lr, -(-n_points // batch_size))
    tensors = network.packed_order()
    groups = [tensors, *([optimizer.state[t][name] for t in tensors] for name in ("exp_avg", "exp_avg_sq"))]
    packed = [torch.cat([tensor.detach().flatten(1) for tensor in group], dim=1) for group in groups]
    beta1, beta2 = optimizer.defaults["betas"]
    if n_blocks:
        _fit[(n_blocks,)](
            *packed,
            network.amplitude.contiguous(),
            coords.contiguous(),
            target.contiguous(),
            order.int().contiguous(),
            rates.to(coords.device, non_blocking=True),
            losses,
            *(n_blocks, n_points, len(order), batch_size),
            *(1 - beta1, beta2, 1 - beta2, lookahead(optimizer), LOSS_EPS, LOSS_SCALE),
            **prepare(network.shape),
        )
    for group, values in zip(groups, packed, strict=True):
        parts = values.split([tensor.shape[1:].numel() for tensor in group], dim=1)
        for tensor, part in zip(group, parts, strict=True):
            tensor.detach().copy_(part.view(tensor.shape))
    set_step(optimizer, steps_taken(optimizer) + len(rates))
    return losses


@torch.no_grad()
def predict(network: BlockMLP, index: Tensor | slice, coords: Tensor) -> Tensor:
    """As reference.predict, up to rounding; the bits of a block do not depend on the others."""
    part = network.select(index)
    out = coords.new_empty(part.n_blocks, len(coords), part.shape.n_out)
    if part.n_blocks:
        packed = torch.cat([tensor.flatten(1) for tensor in part.packed_order()], dim=1)
        _predict[(part.n_blocks,)](
            packed, part.amplitude.contiguous(), coords.contiguous(), out, len(coords), **prepare(network.shape)
        )
    return out


def prepare(shape: NetworkShape) -> dict[str, Any]:
    """The constants that the kernels are compiled for.

    Errors
        KernelError for a network it has no kernel for, or one too wide for a multiprocessor
    """
    if shape.activation not in SERVED:
        raise KernelError(f"it has no {shape.activation} activations")
    n_in, n_hidden, n_out, n_layers = shape.n_in, shape.n_hidden, shape.n_out, shape.n_layers
    p_in, p_hidden, p_out = (max(16, triton.next_power_of_2(width)) for width in (n_in, n_hidden, n_out))
    if p_in > _WIDEST_INPUT or p_hidden > _WIDEST_LAYER or p_out > _WIDEST_LAYER:
        raise KernelError(f"a network {n_in}-{n_hidden}-{n_out} is too wide for it")
    n_widths = (n_layers - 1) * (shape.activation == "gaussian") + (shape.output == "sine")
    sizes = [(n_in + 1) * n_hidden, *[(n_hidden + 1) * n_hidden] * (n_layers - 2), (n_hidden + 1) * n_out]
    return dict(
        n_in=n_in,
        n_hidden=n_hidden,
        n_out=n_out,
        n_layers=n_layers,
        sine=shape.output == "sine",
        linear=shape.output == "linear",
        omega=shape.omega or 0.0,
        centre=shape.centre,
        n_widths=n_widths,
        n_parameters=sum(sizes) + n_widths,
        p_in=p_in,
        p_hidden=p_hidden,
        p_out=p_out,
        tile=32,
        precision="tf32x3",
        num_warps=4 if p_in <= 64 else 8,
    )
