"""The shape of a block's network, and how checkpoints spell it."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from utils.limits import MOST_COSINES

ACTIVATIONS = {"mlp": ("gaussian", "sine"), "filters": ("gabor",), "cosines": ("cosine",)}
"""Those that each kind of network has."""

OUTPUTS = {"mlp": ("sigmoid", "sine", "linear"), "filters": ("linear",), "cosines": ("linear",)}


@dataclass(frozen=True)
class NetworkShape:
    """All that defines the networks of a level besides their parameters.

    n_in, n_out: width of the encoded position, and channels
    n_layers: linear layers, at least 2; with filters, one more than there are linear layers; of cosines 1
    n_hidden: units of a hidden layer; of cosines, how many there are along each axis of a part of a block
    kind: an MLP (`BlockMLP`), a multiplicative filter network (`GaborMLP`), or a linear one of cosines (`BlockCosines`)
    activation: of the hidden units; with filters, what multiplies them; of cosines themselves
    output: what follows the last linear layer: sigmoid, the signal itself; sine, a residual; linear, either
    omega: frequency of sine activations, scale of the initial frequencies of Gabor filters; None for Gaussians
    centre: what is subtracted from Gaussian activations
    lengths: pixels of a block along each axis, of cosines alone
    """

    n_in: int
    n_out: int
    n_layers: int
    n_hidden: int
    kind: str = "mlp"
    activation: str = "gaussian"
    output: str = "sigmoid"
    omega: float | None = None
    centre: float = 0.0
    lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """ValueError for a shape that no network has."""
        sizes = (self.n_in, self.n_out, self.n_layers, self.n_hidden)
        least = 1 if self.kind == "cosines" else 2
        if not all(type(size) is int and size > 0 for size in sizes) or self.n_layers < least:
            raise ValueError(f"{sizes} are not the sizes of a network")
        if self.kind == "cosines":
            self._check_cosines()
        elif self.lengths:
            raise ValueError(f"a network of kind {self.kind!r} has no lengths")
        if self.activation not in ACTIVATIONS.get(self.kind, ()):
            raise ValueError(f"a network of kind {self.kind!r} has no activation {self.activation!r}")
        if self.output not in OUTPUTS[self.kind]:
            raise ValueError(f"a network of kind {self.kind!r} has no output {self.output!r}")
        if self.activation in ("sine", "gabor"):
            if not (isinstance(self.omega, float) and 0 < self.omega < math.inf):
                raise ValueError(f"omega {self.omega!r} is not a positive number")
        elif self.omega is not None:
            raise ValueError(f"omega {self.omega!r} does not go with the activation {self.activation!r}")
        if not (isinstance(self.centre, float) and 0 <= self.centre < 1):
            raise ValueError(f"centre {self.centre!r} is outside the range of a Gaussian")

    def _check_cosines(self) -> None:
        if self.n_layers != 1 or len(self.lengths) != self.n_in:
            raise ValueError(f"{self.n_layers} layers of cosines in blocks of {self.lengths}")
        if not all(type(length) is int and length > 0 and length % self.n_hidden == 0 for length in self.lengths):
            raise ValueError(f"blocks of {self.lengths} are not cut into parts of {self.n_hidden}")
        if math.prod(self.lengths) > MOST_COSINES:
            raise ValueError(f"blocks of {self.lengths} are of more than {MOST_COSINES} pixels")

    def __str__(self) -> str:
        return f"{self.n_layers} layers, {self.n_in}-{self.n_hidden}-{self.n_out}, {self.activation}, {self.output}"

    def record(self) -> dict[str, Any]:
        """As checkpoints spell it: Gabor filters by an `output` "gabor", sines by having an `omega`, others in full."""
        sizes = dict(n_in=self.n_in, n_out=self.n_out, n_layers=self.n_layers, n_hidden=self.n_hidden)
        if self.activation == "gabor":
            return sizes | dict(output="gabor", omega=self.omega)
        if self.activation in ("gaussian", "sine"):
            return sizes | dict(output=self.output, omega=self.omega, centre=self.centre)
        return asdict(self) | dict(lengths=list(self.lengths))

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """The inverse of `record`; TypeError or ValueError for anything else."""
        if not isinstance(record, dict):
            raise TypeError(f"{record!r} is not the shape of a network")
        if "activation" in record:
            return cls(**record | dict(lengths=tuple(record.get("lengths", ()))))
        if record.get("output") == "gabor":
            return cls(**record | dict(kind="filters", activation="gabor", output="linear"))
        return cls(**record | dict(activation="gaussian" if record.get("omega") is None else "sine"))
