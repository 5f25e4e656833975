"""Levenberg-Marquardt for the networks of blocks, each by itself: how low can a loss be, whatever it costs?"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.block_mlp import BlockMLP

_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-8, 1e6
_FLOOR = 1e-6  # of the mean of the diagonal: what moves nothing is damped too


@dataclass
class Layers:
    """Networks with two Gaussian hidden layers and a sine at the output, as tensors that each step replaces.

    tensors: of each layer the weights with the bias as the last row, (n_blocks, fan_in + 1, fan_out); last the widths
        of the three activations, (n_blocks, 1, 3)
    """

    tensors: list[Tensor]
    amplitude: Tensor
    centre: float

    @classmethod
    def of(cls, network: BlockMLP) -> "Layers":
        pairs = zip(network.weight, network.bias, strict=True)
        tensors = [torch.cat([weight, bias], 1).detach() for weight, bias in pairs]
        widths = torch.cat(list(network.a), 2).detach()
        return cls([*tensors, widths], network.amplitude, network.shape.centre)

    def write_(self, network: BlockMLP) -> None:
        with torch.no_grad():
            for weight, bias, tensor in zip(network.weight, network.bias, self.tensors, strict=False):
                weight.copy_(tensor[:, :-1])
                bias.copy_(tensor[:, -1:])
            for place, width in enumerate(network.a):
                width.copy_(self.tensors[-1][:, :, place : place + 1])

    def moved(self, step: Tensor) -> "Layers":
        """By a step (n_blocks, n_parameters)."""
        parts = step.split([tensor[0].numel() for tensor in self.tensors], 1)
        tensors = [old + part.view_as(old) for old, part in zip(self.tensors, parts, strict=True)]
        return Layers(tensors, self.amplitude, self.centre)

    def mixed(self, other: "Layers", chosen: Tensor) -> "Layers":
        """The other's blocks where chosen (n_blocks,)."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        tensors = [torch.where(chosen[:, None, None], theirs, mine) for mine, theirs in pairs]
        return Layers(tensors, self.amplitude, self.centre)

    def predict(self, inputs: Tensor) -> Tensor:
        """(n_blocks, n_points, n_out) at encoded coordinates with a last column of ones."""
        first, second, last, widths = self.tensors
        h = pad(self._activate(inputs @ first, widths[:, :, :1])[0], (0, 1), value=1.0)
        h = pad(self._activate(h @ second, widths[:, :, 1:2])[0], (0, 1), value=1.0)
        return self._output(h @ last)[0]

    def _activate(self, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A Gaussian layer, and its derivatives by its input and its width."""
        bell = torch.exp(-(z**2) / (2 * a**2))
        return bell - self.centre, -z / a**2 * bell, z**2 / a**3 * bell

    def _output(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sine, and its derivatives by its input and its width."""
        a = self.tensors[-1][:, :, 2:]
        slope = self.amplitude * torch.cos(a * z)
        return self.amplitude * torch.sin(a * z), a * slope, z * slope

    def linearised(self, inputs: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The prediction, and its Jacobian as factors.

        Outputs
            (n_blocks, n_points, n_out)
            for each tensor (n_blocks, r, m), signals s (n_blocks, n_points, n_out, m) and values v (n_blocks or 1,
            n_points, r): output c at point p has the derivative s[p, c, k] v[p, i] by its element (i, k)
        """
        first, second, last, widths = self.tensors
        h1, by_z1, by_a1 = self._activate(inputs @ first, widths[:, :, :1])
        h1 = pad(h1, (0, 1), value=1.0)
        h2, by_z2, by_a2 = self._activate(h1 @ second, widths[:, :, 1:2])
        h2 = pad(h2, (0, 1), value=1.0)
        out, by_z3, by_a3 = self._output(h2 @ last)
        to_h2 = by_z3[..., None] * last[:, None, :-1].mT
        to_z2 = to_h2 * by_z2[:, :, None]
        to_h1 = to_z2 @ second[:, None, :-1].mT
        to_z1 = to_h1 * by_z1[:, :, None]
        to_a = torch.stack([(to_h1 * by_a1[:, :, None]).sum(3), (to_h2 * by_a2[:, :, None]).sum(3), by_a3], 3)
        values = [inputs[None], h1, h2, inputs.new_ones(1, len(inputs), 1)]
        return out, list(zip([to_z1, to_z2, torch.diag_embed(by_z3), to_a], values, strict=True))


def normal_equations(factors: list[tuple[Tensor, Tensor]], error: Tensor) -> tuple[Tensor, Tensor]:
    """J^T J (n_blocks, n_parameters, n_parameters) and J^T error (n_blocks, n_parameters) of a factored Jacobian.

    Columns of a layer are products of a signal and a value, so each pair of layers takes one matrix product over the
    points, with the channels summed before: a quarter of the operations that J itself would take.
    """
    sizes = [values.shape[2] * signals.shape[3] for signals, values in factors]
    n_blocks = len(error)
    matrix = error.new_empty(n_blocks, sum(sizes), sum(sizes))
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    for row, (s, v) in enumerate(factors):
        for column, (t, w) in enumerate(factors[: row + 1]):
            weights = (s.permute(0, 1, 3, 2) @ t).flatten(2)  # over the channels
            pairs = (v[..., :, None] * w[..., None, :]).flatten(2)
            block = (weights.mT @ pairs).view(n_blocks, s.shape[3], t.shape[3], v.shape[2], w.shape[2])
            block = block.permute(0, 3, 1, 4, 2).reshape(n_blocks, sizes[row], sizes[column])
            rows = slice(starts[row], starts[row] + sizes[row])
            columns = slice(starts[column], starts[column] + sizes[column])
            matrix[:, rows, columns] = block
            matrix[:, columns, rows] = block.mT
    slopes = [(v.mT @ (s * error[..., None]).sum(2)).flatten(1) for s, v in factors]
    return matrix, torch.cat(slopes, 1)


def _step(matrix: Tensor, slope: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The damped step of each block (Marquardt, 1963, eq. 28), and how far it should lower half the sum of squares;
    zeros where the matrix is not positive definite."""
    matrix, slope = matrix.double(), slope.double()
    diagonal = matrix.diagonal(dim1=1, dim2=2)  # a view
    added = damping[:, None] * (diagonal + _FLOOR * diagonal.mean(1, keepdim=True))
    diagonal += added
    factor, failed = torch.linalg.cholesky_ex(matrix)
    half = torch.linalg.solve_triangular(factor, -slope[..., None], upper=False)
    step = torch.linalg.solve_triangular(factor.mT, half, upper=True)[..., 0]
    step = torch.where((failed > 0)[:, None] | ~step.isfinite(), 0, step)
    return step.float(), (step * (added * step - slope)).sum(1) / 2


@torch.no_grad()
def descend_(network: BlockMLP, coords: Tensor, target: Tensor, n_steps: int) -> Tensor:
    """Minimise the mean square error of every block, in place; a step that would raise it is not taken, and the damping
    follows Nielsen (Damping parameter in Marquardt's method, 1999, eq. 2.5).

    Inputs
        network: with two Gaussian hidden layers and a sine at the output
        coords: (n_points, n_in) encoded coordinates
        target: (n_blocks, n_points, c)
    Outputs
        (n_steps + 1, n_blocks) mean square error before the first and after each step
    """
    inputs = pad(coords, (0, 1), value=1.0)
    layers = Layers.of(network)
    damping = target.new_full((len(target),), _FIRST_DAMPING, dtype=torch.float64)
    growth = torch.full_like(damping, 2)
    loss = (layers.predict(inputs) - target).double().square().mean((1, 2))
    losses = [loss]
    for _ in range(n_steps):
        out, factors = layers.linearised(inputs)
        step, promised = _step(*normal_equations(factors, out - target), damping)
        trial = layers.moved(step)
        reached = (trial.predict(inputs) - target).double().square().mean((1, 2))
        better = reached < loss  # never where it is NaN
        ratio = (loss - reached) * target[0].numel() / 2 / promised
        calmer = (1 - (2 * ratio - 1) ** 3).clamp(min=1 / 3)
        damping = (damping * torch.where(better, calmer, growth)).clamp(_LEAST_DAMPING, _MOST_DAMPING)
        growth = torch.where(better, 2, growth * 2)
        layers, loss = layers.mixed(trial, better), torch.where(better, reached, loss)
        losses.append(loss)
    layers.write_(network)
    return torch.stack(losses)
