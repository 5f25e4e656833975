"""Where the voxels of a volume lie, and in which unit: in our words, and in those of files."""

from typing import Any

import numpy as np

_NAMES = {
    "micrometer": ("µm", "um", "μm", "micron", "microns", "micrometer", "\\u00b5m", "\\u00B5m"),
    **{"nanometer": ("nm", "nanometer"), "centimeter": ("cm", "centimeter"), "meter": ("m", "meter")},
    **{"inch": ("in", "inch"), "pixel": ("pixel", "pixels", "")},
}
"""Of units, ours and those in files, of which the first is written; any other is taken for millimetres."""

_MILLIMETRES = {"nanometer": 1e-6, "micrometer": 1e-3, "centimeter": 10.0, "meter": 1e3, "inch": 25.4}


def unit_named(word: str) -> str | None:
    """A unit by the name that a file has for it; None is the millimetre, and `pixel` none at all."""
    return next((name for name, words in _NAMES.items() if word in words), None)


def short_name(unit: str | None) -> str:
    """That files have for a unit."""
    return _NAMES.get(unit, ("mm",))[0]


def in_millimetres(source: dict[str, Any]) -> np.ndarray:
    """(4, 4): the affine of what is known of a file, in millimetres; where it says nothing, of cubes of one."""
    affine = np.array(source.get("affine") or np.eye(4), float)
    affine[:3] *= _MILLIMETRES.get(source.get("unit"), 1.0)
    return affine


def sides_of(affine: np.ndarray) -> np.ndarray:
    """(3,) of a voxel, along its axes x, y and z."""
    return np.linalg.norm(affine[:3, :3], axis=0)
