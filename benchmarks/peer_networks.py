"""Networks that other methods fit pictures with, each of at most so many parameters as it is given."""

import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

N_LAYERS, FIRST_OMEGA, OMEGA = 4, 120.0, 30.0  # of SIREN: hidden layers; frequencies of the first and of the others
N_LEVELS, N_FEATURES, BASE, HIDDEN = 12, 2, 16, 64  # of a hash grid: levels; features of a vertex; cells; units
_PRIMES = (2654435761, 1)  # of rows and columns


def largest(limit: int, count: Callable[[int], int]) -> int:
    """The largest number whose count, which grows with it, is at most a limit."""
    return bisect_right(range(limit), limit, key=count) - 1


class Siren(nn.Module):
    """Layers of sines (Sitzmann et al., Implicit neural representations with periodic activation functions, NeurIPS
    2020), by the package siren-pytorch; as wide as the parameters allow.

    Inputs
        size: (h, w) of the picture
    """

    def __init__(self, size: tuple[int, int], parameters: int):
        super().__init__()
        try:
            from siren_pytorch import SirenNet
        except ImportError:
            raise SystemExit("SIREN needs the package siren-pytorch: pip install -r requirements-dev.txt") from None
        self.size = size
        width = largest(parameters, lambda n: 3 * n + (N_LAYERS - 1) * (n + 1) * n + 3 * (n + 1))
        self.network = SirenNet(2, width, 3, N_LAYERS, w0=OMEGA, w0_initial=FIRST_OMEGA)

    def inputs(self, pixels: Tensor) -> tuple[Tensor]:
        """Positions (n, 2) in [-1, 1] of pixels (n,), which are counted along rows."""
        last = torch.tensor(self.size) - 1
        return (2 * _rows_and_columns(pixels, self.size[1]) / last - 1,)

    def forward(self, positions: Tensor) -> Tensor:
        """Colours (n, 3), about [0, 1]."""
        return (self.network(positions) + 1) / 2


class HashGrid(nn.Module):
    """Levels of vertices with features that are learnt, hashed where they are more than a level's table has entries,
    and a small network of what lies between the vertices (Müller et al., Instant neural graphics primitives, SIGGRAPH
    2022, section 3). The first pixel and the last lie on vertices, and the finest level has a vertex for each pixel.

    Pixels stay where they are, so their vertices and weights are computed once, as sparse matrices: features are a
    product with the tables, and the tables' gradient is a product with the transpose.

    Inputs
        size: (h, w) of the picture
        parameters: tables are as long as they allow; any length will do for the hash
    """

    def __init__(self, size: tuple[int, int], parameters: int):
        super().__init__()
        widths = [N_LEVELS * N_FEATURES, HIDDEN, HIDDEN, 3]
        layers = [nn.Linear(*pair, bias=False) for pair in pairwise(widths)]  # as tinycudann's have none
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        self.network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        self.size, self.shapes = size, level_shapes(size)
        n_vertices = (parameters - sum(layer.weight.numel() for layer in layers)) // N_FEATURES
        longest = largest(n_vertices, lambda length: sum(min(length, math.prod(shape)) for shape in self.shapes))
        self.lengths = [min(longest, math.prod(shape)) for shape in self.shapes]
        self.tables = nn.Parameter(torch.empty(sum(self.lengths), N_FEATURES).uniform_(-1e-4, 1e-4))

    def inputs(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix from the tables to the features of pixels, and its transpose.

        Inputs
            pixels: (n,), counted along rows
        Outputs
            (n * n_levels, n_vertices) in CSR: the levels of a pixel follow each other
            (n_vertices, n * n_levels) in CSR
        """
        points, first, vertices, weights = _rows_and_columns(pixels, self.size[1]), 0, [], []
        for shape, length in zip(self.shapes, self.lengths, strict=True):
            indices, parts = corners(points * ((max(shape) - 1) / (max(self.size) - 1)), shape, length)
            vertices.append(first + indices)
            weights.append(parts)
            first += length
        size = (len(pixels) * N_LEVELS, first)
        rows = torch.arange(size[0]).repeat_interleave(4)
        columns, values = torch.stack(vertices, 1).flatten(), torch.stack(weights, 1).flatten()
        return _csr(rows, columns, values, size), _csr(columns, rows, values, size[::-1])

    def forward(self, matrix: Tensor, transpose: Tensor) -> Tensor:
        """Colours (n, 3) from the matrices of `inputs`."""
        return self.network(_Product.apply(self.tables, matrix, transpose).view(-1, N_LEVELS * N_FEATURES))


class CudaHashGrid(nn.Module):
    """A hash grid by the package tinycudann, whose tables have a power of two of entries and cover a square.

    Inputs
        size: (h, w) of the picture
    """

    def __init__(self, size: tuple[int, int], parameters: int):
        super().__init__()
        try:
            import tinycudann
        except ImportError:
            raise SystemExit("on a GPU, the hash grid needs NVIDIA's package tinycudann") from None
        self.size = size
        grid = dict(otype="HashGrid", n_levels=N_LEVELS, n_features_per_level=N_FEATURES, base_resolution=BASE)
        grid |= dict(per_level_scale=(max(size) / BASE) ** (1 / (N_LEVELS - 1)))
        layers = dict(otype="FullyFusedMLP", activation="ReLU", output_activation="None")
        layers |= dict(n_neurons=HIDDEN, n_hidden_layers=2)
        for exponent in reversed(range(8, 25)):
            grid |= dict(log2_hashmap_size=exponent)
            self.network = tinycudann.NetworkWithInputEncoding(2, 3, grid, layers)
            if sum(parameter.numel() for parameter in self.parameters()) <= parameters:
                break

    def inputs(self, pixels: Tensor) -> tuple[Tensor]:
        """Positions (n, 2) in [0, 1] of the centres of pixels (n,), which are counted along rows."""
        return ((_rows_and_columns(pixels, self.size[1]) + 0.5) / torch.tensor(self.size),)

    def forward(self, positions: Tensor) -> Tensor:
        """Colours (n, 3)."""
        return self.network(positions).float()


def level_shapes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Vertices along each axis, coarse to fine: cells grow by one factor (equations 2 and 3), up to the pixels."""
    finest = max(size) - 1
    growth = (finest / BASE) ** (1 / (N_LEVELS - 1))
    cells = [int(BASE * growth**level) for level in range(N_LEVELS - 1)] + [finest]
    return [tuple(math.ceil(n * (length - 1) / finest) + 1 for length in size) for n in cells]


def corners(points: Tensor, shape: tuple[int, int], length: int) -> tuple[Tensor, Tensor]:
    """The four vertices around points, in a table, and their bilinear weights.

    Inputs
        points: (n, 2), in cells
        shape: vertices along each axis
        length: of the table; vertices are hashed (equation 4) if they are more
    Outputs
        indices (n, 4); weights (n, 4)
    """
    low = torch.minimum(points.floor().long(), torch.tensor(shape) - 2)[:, None]
    steps = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    beyond = points[:, None] - low
    weights = torch.where(steps == 1, beyond, 1 - beyond).prod(2)
    rows, columns = (low + steps).unbind(2)
    if math.prod(shape) <= length:
        return rows * shape[1] + columns, weights
    return (rows * _PRIMES[0] ^ columns * _PRIMES[1]) % length, weights


def _rows_and_columns(pixels: Tensor, width: int) -> Tensor:
    return torch.stack([pixels // width, pixels % width], dim=1)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """In 32 bits, which torch hands on to MKL as they are."""
    order = rows.argsort(stable=True)
    starts = torch.zeros(size[0] + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(rows, minlength=size[0]).cumsum(0)
    return torch.sparse_csr_tensor(starts, columns[order].int(), values[order], size, check_invariants=False)


class _Product(torch.autograd.Function):
    """Of a sparse matrix with the tables, whose gradient needs no transposing."""

    @staticmethod
    def forward(ctx, tables: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.transpose = transpose
        return matrix @ tables

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transpose @ gradient, None, None
