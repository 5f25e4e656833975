"""How the networks of a chunk become bytes, by name."""

from typing import Any, Protocol

from torch import Tensor

from models.block_network import BlockNetwork
from models.packed.coefficients import Coefficients
from models.packed.float32 import Float32
from models.packed.quantised import Quantised
from models.shape import NetworkShape


class Coding(Protocol):
    """Made for the networks of a level, which are in groups."""

    def record(self) -> dict[str, Any]:
        """What the header says of it, plain data: its `name`, and whatever else `coding_of` needs."""

    def encode(self, group: Tensor, networks: list[BlockNetwork]) -> bytes:
        """
        Inputs
            group: (n_active,) int8, of each active block of a chunk, in the order of the grid
            networks: of each group, those of its blocks, in that order; of some groups there may be none
        """

    def decode(self, data: bytes, n_active: int) -> tuple[Tensor, list[BlockNetwork]]:
        """The inverse, in float32; TypeError or ValueError for data that is not of so many blocks, before memory is
        taken for them."""


def coding_of(record: dict[str, Any]) -> Coding:
    """The coding of a level, from what the header says of it; TypeError or the like for one that is not known."""
    shapes = [NetworkShape.from_record(shape) for shape in record["networks"]]
    name = record["coding"]["name"]
    if name == Float32.name:
        return Float32(shapes)
    if name == Quantised.name:
        return Quantised.from_record(shapes, record["coding"])
    if name == Coefficients.name:
        return Coefficients.from_record(shapes, record["coding"])
    raise TypeError(f"coding {name!r}, which this program does not know: update it")
