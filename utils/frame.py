"""Where the voxels of a grid lie in the space of their mesh."""

from dataclasses import dataclass

import numpy as np

_MARGIN = 1.02  # of the grid over the mesh's bounding box


@dataclass(frozen=True)
class Frame:
    """Along each axis (x, y, z), n voxels lie evenly from centre - half_extent to centre + half_extent inclusive.

    centre, half_extents: in the mesh's own unit
    """

    centre: tuple[float, float, float]
    half_extents: tuple[float, float, float]

    def __post_init__(self) -> None:
        """ValueError for numbers that are not finite, and for no extent along an axis."""
        numbers = np.array([self.centre, self.half_extents])
        if numbers.shape != (2, 3) or not np.isfinite(numbers).all() or numbers[1].min() <= 0:
            raise ValueError(f"centre {self.centre}, half extents {self.half_extents}")

    @classmethod
    def around(cls, vertices: np.ndarray) -> "Frame":
        """The bounding box of (n, 3) vertices, widened by a factor of 1.02 about its centre."""
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        return cls(tuple(((low + high) / 2).tolist()), tuple(((high - low) / 2 * _MARGIN).tolist()))

    def to_voxels(self, points: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
        """Mesh coordinates (n, 3) to positions in a grid of (nx, ny, nz) voxels; voxel k of an axis lies at k."""
        return (points - self.centre) / self.spacing(size) + (np.array(size) - 1) / 2

    def to_mesh(self, positions: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
        """The inverse of to_voxels."""
        return (positions - (np.array(size) - 1) / 2) * self.spacing(size) + self.centre

    def spacing(self, size: tuple[int, int, int]) -> np.ndarray:
        """(3,) distance between neighbouring voxels along x, y, z."""
        return 2 * np.array(self.half_extents) / np.maximum(np.array(size) - 1, 1)
