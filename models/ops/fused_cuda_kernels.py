"""The kernels of a GPU, in Triton: a program trains, fits or evaluates one block.

What a block has lies in memory, and so in caches: groups of n_packed numbers, its parameters and, to train, their two
moments and their gradients. In registers they would leave no room for the points. A group is a matrix for each layer,
whose last row is the bias: what the layer takes ends with a 1. Then come the widths a. The first layer's matrix is cut
into pieces of p_piece rows, each a product of its own. Sides are padded to powers of two of at least 16, as matrix
units require; padded numbers are 0 and stay 0.
"""

import triton
import triton.language as tl

from utils import bounds

WIDTHS = tl.constexpr(16)  # numbers set aside for the widths at the end of a group
BOUND = tl.constexpr(bounds.BOUND)
STRIP = tl.constexpr(512)  # numbers of a group that are added up, or take a step, at once


@triton.jit
def _piece(
    index: tl.constexpr,
    n_layers: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
):
    """Where the numbers of a matrix lie in a group: those of the first layer's pieces, then of the other layers."""
    n_first: tl.constexpr = n_pieces * p_piece * p_hidden
    begin: tl.constexpr = (
        index * p_piece * p_hidden if index < n_pieces else n_first + (index - n_pieces) * p_hidden * p_hidden
    )
    rows: tl.constexpr = p_piece if index < n_pieces else p_hidden
    columns: tl.constexpr = p_out if index == n_pieces + n_layers - 2 else p_hidden
    return begin + tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]


@triton.jit
def _load_network(
    row,
    n_layers: tl.constexpr,
    sine: tl.constexpr,
    omega: tl.constexpr,
    n_widths: tl.constexpr,
    n_packed: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
):
    """The matrices; -1 / a^2 of each Gaussian layer; and the width of a sine, else 1."""
    weights = ()
    for index in tl.static_range(n_pieces + n_layers - 1):
        weights = weights + (tl.load(row + _piece(index, n_layers, n_pieces, p_piece, p_hidden, p_out)),)
    curves = ()
    for layer in tl.static_range(n_layers - 1):
        if omega == 0:
            a = tl.load(row + n_packed - WIDTHS + layer)
            curves = curves + (-1.0 / (a * a),)
    last = 1.0
    if sine:
        last = tl.load(row + n_packed - WIDTHS + n_widths - 1)
    return weights, curves, last


@triton.jit
def _sine_and_cosine(x):
    """To 2 ulp for |x| up to a few thousand, by Cody and Waite's reduction: without the libraries' branch beyond."""
    shifted = x * 0.636619772 + 12582912.0  # rounds to a whole number, which its low bits hold
    n = shifted - 12582912.0
    r = x - n * 1.5703125
    r = r - n * 4.837512969970703125e-4
    r = r - n * 7.54978995489188216e-8
    quadrant = shifted.to(tl.int32, bitcast=True)
    r2 = r * r
    s = ((r2 * -1.9515295891e-4 + 8.3321608736e-3) * r2 - 1.6666654611e-1) * r2 * r + r
    c = ((r2 * 2.443315711809948e-5 - 1.388731625493765e-3) * r2 + 4.166664568298827e-2) * r2 * r2 - r2 * 0.5 + 1.0
    odd = (quadrant & 1) != 0
    a = tl.where(odd, c, s)
    b = tl.where(odd, s, c)
    return tl.where((quadrant & 2) != 0, -a, a), tl.where(((quadrant + 1) & 2) != 0, -b, b)


@triton.jit
def _forward(
    coords,
    point,
    weights,
    curves,
    n_hidden: tl.constexpr,
    n_layers: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    precision: tl.constexpr,
):
    """What each hidden activation takes (of a sine its slope), what it gives, and what the last activation takes."""
    at = coords + point[:, None] * (n_pieces * p_piece) + tl.arange(0, p_piece)[None, :]
    z = tl.zeros((point.shape[0], p_hidden), tl.float32)
    for index in tl.static_range(n_pieces):
        x = tl.load(at + index * p_piece, eviction_policy="evict_last")
        z = tl.dot(x, weights[index], z, input_precision=precision)
    real = tl.arange(0, p_hidden)[None, :] < n_hidden
    before = ()
    after = ()
    for layer in tl.static_range(n_layers - 1):
        if omega > 0:
            h, slope = _sine_and_cosine(z * omega)
            before = before + (tl.where(real, slope * omega, 0.0),)
        else:
            h = tl.exp(z * z * (0.5 * curves[layer])) - centre
            before = before + (z,)
        h = tl.where(real, h, 1.0)
        after = after + (h,)
        z = tl.dot(h, weights[n_pieces + layer], input_precision=precision)
    return before, after, z


@triton.jit
def _activate(z, amplitude, last, sine: tl.constexpr, linear: tl.constexpr):
    """The last activation and its slope."""
    if sine:
        value, slope = _sine_and_cosine(z * last)
        return amplitude * value, (amplitude * last) * slope
    elif linear:
        return z, tl.full(z.shape, 1.0, tl.float32)
    else:
        value = 1.0 / (1.0 + tl.exp(-z))
        return value, value * (1.0 - value)


@triton.jit
def _misfit(prediction, target):
    """Prediction less target; 0 beyond a target that is a bound (`utils.bounds`)."""
    error = prediction - target
    above = tl.minimum(error + BOUND, 0.0)
    below = tl.maximum(error - BOUND, 0.0)
    return tl.where(target > BOUND / 2, above, tl.where(target < -BOUND / 2, below, error))


@triton.jit
def _add_gradients(
    gradients,
    coords,
    point,
    weights,
    curves,
    before,
    after,
    gradient,
    n_hidden: tl.constexpr,
    n_layers: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
    precision: tl.constexpr,
):
    """Adds a tile's gradients of the matrices, from those of what the last activation takes."""
    trained = tl.arange(0, p_hidden)[:, None] <= n_hidden
    for layer in tl.static_range(n_layers - 2, -1, -1):
        into = gradients + _piece(n_pieces + layer, n_layers, n_pieces, p_piece, p_hidden, p_out)
        total = tl.dot(tl.trans(after[layer]), gradient, tl.load(into), input_precision=precision)
        tl.store(into, total, mask=trained)
        inner = tl.dot(gradient, tl.trans(weights[n_pieces + layer]), input_precision=precision)
        if omega > 0:
            gradient = inner * before[layer]
        else:
            gradient = inner * (after[layer] + centre) * before[layer] * curves[layer]
    at = coords + point[:, None] * (n_pieces * p_piece) + tl.arange(0, p_piece)[None, :]
    for index in tl.static_range(n_pieces):
        into = gradients + _piece(index, n_layers, n_pieces, p_piece, p_hidden, p_out)
        x = tl.load(at + index * p_piece, eviction_policy="evict_first")  # again: kept, they would fill the registers
        tl.store(into, tl.dot(tl.trans(x), gradient, tl.load(into), input_precision=precision))


@triton.jit
def _width_gradient(
    row,
    width: tl.constexpr,
    layer: tl.constexpr,
    n_layers: tl.constexpr,
    n_packed: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
):
    """Sets the gradient of an activation's width a from those of the matrix W before it.

    A sine takes a W x, a Gaussian W x / a: so a times one gradient is W times the other, or its negative.
    """
    n_first: tl.constexpr = n_pieces * p_piece * p_hidden
    begin: tl.constexpr = 0 if layer == 0 else n_first + (layer - 1) * p_hidden * p_hidden
    size: tl.constexpr = n_first if layer == 0 else p_hidden * (p_out if layer == n_layers - 1 else p_hidden)
    sign: tl.constexpr = 1.0 if layer == n_layers - 1 else -1.0
    total = tl.zeros((STRIP,), tl.float32)
    for start in range(begin, begin + size, STRIP):
        at = start + tl.arange(0, STRIP)
        there = at < begin + size
        weight = tl.load(row + at, mask=there, other=0.0)
        total += weight * tl.load(row + 3 * n_packed + at, mask=there, other=0.0)
    own = n_packed - WIDTHS + width
    tl.store(row + 3 * n_packed + own, sign * tl.sum(total) / tl.load(row + own))


@triton.jit
def _step(row, scale, rates, gain1, keep2, gain2, ahead, n_packed: tl.constexpr):
    """A step, by `optimizers.step_rates` and `lookahead`; the gradients are scaled before, and 0 after it."""
    rate = tl.load(rates)
    rectified = tl.load(rates + 1)
    eps = tl.load(rates + 2)
    for start in range(0, n_packed, STRIP):
        own = start + tl.arange(0, STRIP)
        there = own < n_packed
        at = row + own
        gradient = tl.load(at + 3 * n_packed, mask=there, other=0.0) * scale
        first = tl.load(at + n_packed, mask=there, other=0.0)
        second = tl.load(at + 2 * n_packed, mask=there, other=0.0)
        parameter = tl.load(at, mask=there, other=0.0)
        first = first + (gradient - first) * gain1
        second = second * keep2 + gradient * gradient * gain2
        adapted = tl.where(rectified > 0, rectified / (tl.sqrt(second) + eps), 1.0)
        tl.store(at, parameter - rate * (first + (gradient - first) * ahead) * adapted, mask=there)
        tl.store(at + n_packed, first, mask=there)
        tl.store(at + 2 * n_packed, second, mask=there)
        tl.store(at + 3 * n_packed, tl.zeros((STRIP,), tl.float32), mask=there)


@triton.jit
def fit(
    packed,
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
    n_hidden: tl.constexpr,
    n_out: tl.constexpr,
    n_layers: tl.constexpr,
    sine: tl.constexpr,
    linear: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    n_widths: tl.constexpr,
    n_packed: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
    tile: tl.constexpr,
    precision: tl.constexpr,
):
    """Train a block.

    packed (n_blocks, 4, n_packed): parameters, two moments, and gradients, which are 0; coords (n_points, n_pieces *
    p_piece); target (n_blocks, n_points, n_out); order (n_epochs, n_points); rates (n_steps, 3); loss (n_epochs,
    n_blocks), which is 0.
    """
    block = tl.program_id(0).to(tl.int64)
    row = packed + block * (4 * n_packed)
    wish = target + block * n_points * n_out
    amplitude = tl.load(amplitudes + block)
    i = tl.arange(0, p_out)[None, :]
    n_batches = tl.cdiv(n_points, batch_size)
    for step in tl.range(n_epochs * n_batches, disable_licm=True):  # hoisted addresses would fill the registers
        epoch = (step // n_batches).to(tl.int64)
        start = (step % n_batches) * batch_size
        n_batch = tl.minimum(batch_size, n_points - start)
        weights, curves, last = _load_network(
            row, n_layers, sine, omega, n_widths, n_packed, n_pieces, p_piece, p_hidden, p_out
        )
        squares = tl.zeros((tile,), tl.float32)
        for done in range(0, n_batch, tile):
            here = done + tl.arange(0, tile) < n_batch
            point = tl.load(order + epoch * n_points + start + done + tl.arange(0, tile), mask=here, other=0)
            wanted = here[:, None] & (i < n_out)
            y = tl.load(wish + point[:, None] * n_out + i, mask=wanted, other=0.0)
            before, after, z = _forward(
                coords, point, weights, curves,
                n_hidden, n_layers, omega, centre, n_pieces, p_piece, p_hidden, precision,
            )  # fmt: skip
            prediction, slope = _activate(z, amplitude, last, sine, linear)
            error = tl.where(wanted, _misfit(prediction, y), 0.0)
            squares += tl.sum(error * error, axis=1)
            _add_gradients(
                row + 3 * n_packed, coords, point, weights, curves, before, after, error * slope,
                n_hidden, n_layers, omega, centre, n_pieces, p_piece, p_hidden, p_out, precision,
            )  # fmt: skip
            tl.debug_barrier()  # a thread may read what another wrote

        for width in tl.static_range(n_widths):
            _width_gradient(
                row, width, n_layers - 1 if omega > 0 else width,
                n_layers, n_packed, n_pieces, p_piece, p_hidden, p_out,
            )  # fmt: skip
        tl.debug_barrier()
        count = n_batch.to(tl.float32) * n_out
        mean = tl.sum(squares) / count
        scale = 2.0 / count / (mean + loss_eps) / loss_scale
        _step(row, scale, rates + 3 * step, gain1, keep2, gain2, ahead, n_packed)
        own = loss + epoch * n_blocks + block
        tl.store(own, tl.load(own) + mean * (n_batch.to(tl.float32) / n_points))
        tl.debug_barrier()


@triton.jit
def _to_fit(
    done,
    mean,
    mean_wanted,
    wish,
    amplitude,
    coords,
    n_points,
    least,
    weights,
    curves,
    last,
    n_hidden: tl.constexpr,
    n_out: tl.constexpr,
    n_layers: tl.constexpr,
    sine: tl.constexpr,
    linear: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
    tile: tl.constexpr,
    precision: tl.constexpr,
):
    """Last hidden units, and what the last layer should give, at a tile of points, less their means."""
    i = tl.arange(0, p_out)[None, :]
    here = (done + tl.arange(0, tile))[:, None] < n_points
    point = tl.minimum(done + tl.arange(0, tile), n_points - 1)
    _, after, _ = _forward(
        coords, point, weights, curves, n_hidden, n_layers, omega, centre, n_pieces, p_piece, p_hidden, precision
    )
    y = tl.load(wish + point[:, None] * n_out + i, mask=i < n_out, other=0.5)
    if sine:
        y = y / (last * amplitude)
    elif not linear:
        y = tl.minimum(tl.maximum(y, least), 1.0 - least)
        y = tl.log(y / (1.0 - y))
    h = tl.where(here & (tl.arange(0, p_hidden)[None, :] < n_hidden), after[n_layers - 2] - mean[None, :], 0.0)
    return h, tl.where(here & (i < n_out), y - mean_wanted[None, :], 0.0)


@triton.jit
def fit_last_layer(
    packed,
    amplitudes,
    coords,
    target,
    n_points,
    ridge,
    still,
    least,
    n_hidden: tl.constexpr,
    n_out: tl.constexpr,
    n_layers: tl.constexpr,
    sine: tl.constexpr,
    linear: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    n_widths: tl.constexpr,
    n_packed: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
    tile: tl.constexpr,
    precision: tl.constexpr,
):
    """Fit a block's last layer to target (n_blocks, n_points, n_out), in packed (n_blocks, n_packed).

    The penalty keeps the condition below n_hidden / ridge + 1, so single precision and no pivoting will do.
    """
    block = tl.program_id(0).to(tl.int64)
    row = packed + block * n_packed
    wish = target + block * n_points * n_out
    amplitude = tl.load(amplitudes + block)
    weights, curves, last = _load_network(
        row, n_layers, sine, omega, n_widths, n_packed, n_pieces, p_piece, p_hidden, p_out
    )
    mean = tl.zeros((p_hidden,), tl.float32)
    mean_wanted = tl.zeros((p_out,), tl.float32)
    total = tl.zeros((p_hidden,), tl.float32)
    total_wanted = tl.zeros((p_out,), tl.float32)
    for done in range(0, n_points, tile):
        h, y = _to_fit(
            done, mean, mean_wanted, wish, amplitude, coords, n_points, least, weights, curves, last,
            n_hidden, n_out, n_layers, sine, linear, omega, centre, n_pieces, p_piece, p_hidden, p_out, tile, precision,
        )  # fmt: skip
        total += tl.sum(h, axis=0)
        total_wanted += tl.sum(y, axis=0)
    mean = total / n_points
    mean_wanted = total_wanted / n_points
    gram = tl.zeros((p_hidden, p_hidden), tl.float32)
    right = tl.zeros((p_hidden, p_out), tl.float32)
    for done in range(0, n_points, tile):
        h, y = _to_fit(
            done, mean, mean_wanted, wish, amplitude, coords, n_points, least, weights, curves, last,
            n_hidden, n_out, n_layers, sine, linear, omega, centre, n_pieces, p_piece, p_hidden, p_out, tile, precision,
        )  # fmt: skip
        gram = tl.dot(tl.trans(h), h, gram, input_precision=precision)
        right = tl.dot(tl.trans(h), y, right, input_precision=precision)
    k = tl.arange(0, p_hidden)
    diagonal = k[:, None] == k[None, :]
    trace = tl.sum(tl.where(diagonal, gram, 0.0))
    gram += tl.where(diagonal, ridge * trace / n_hidden, 0.0)
    for pivot in range(n_hidden):  # Gauss and Jordan's elimination
        column = tl.sum(tl.where(k[None, :] == pivot, gram, 0.0), axis=1)
        factor = tl.where(k == pivot, 0.0, column / tl.sum(tl.where(k == pivot, column, 0.0)))[:, None]
        gram -= factor * tl.sum(tl.where(k[:, None] == pivot, gram, 0.0), axis=0)[None, :]
        right -= factor * tl.sum(tl.where(k[:, None] == pivot, right, 0.0), axis=0)[None, :]
    solved = tl.where(k[:, None] < n_hidden, right / tl.sum(tl.where(diagonal, gram, 0.0), axis=1)[:, None], 0.0)
    bias = mean_wanted - tl.sum(mean[:, None] * solved, axis=0)
    matrix = tl.where(k[:, None] == n_hidden, bias[None, :], solved)
    lives = trace > still * n_hidden * n_points  # else the hidden units are constant, or no numbers
    into = row + _piece(n_pieces + n_layers - 2, n_layers, n_pieces, p_piece, p_hidden, p_out)
    tl.store(into, tl.where(lives, matrix, tl.load(into)))


@triton.jit
def predict(
    packed,
    amplitudes,
    coords,
    out,
    n_points,
    n_hidden: tl.constexpr,
    n_out: tl.constexpr,
    n_layers: tl.constexpr,
    sine: tl.constexpr,
    linear: tl.constexpr,
    omega: tl.constexpr,
    centre: tl.constexpr,
    n_widths: tl.constexpr,
    n_packed: tl.constexpr,
    n_pieces: tl.constexpr,
    p_piece: tl.constexpr,
    p_hidden: tl.constexpr,
    p_out: tl.constexpr,
    tile: tl.constexpr,
    precision: tl.constexpr,
):
    """Evaluate a block of packed (n_blocks, n_packed): out (n_blocks, n_points, n_out)."""
    block = tl.program_id(0).to(tl.int64)
    row = packed + block * n_packed
    amplitude = tl.load(amplitudes + block)
    weights, curves, last = _load_network(
        row, n_layers, sine, omega, n_widths, n_packed, n_pieces, p_piece, p_hidden, p_out
    )
    i = tl.arange(0, p_out)[None, :]
    for done in range(0, n_points, tile):
        here = done + tl.arange(0, tile)
        _, _, z = _forward(
            coords, tl.minimum(here, n_points - 1), weights, curves,
            n_hidden, n_layers, omega, centre, n_pieces, p_piece, p_hidden, precision,
        )  # fmt: skip
        values, _ = _activate(z, amplitude, last, sine, linear)
        at = out + (block * n_points + here[:, None]) * n_out + i
        tl.store(at, values, mask=(here[:, None] < n_points) & (i < n_out))
