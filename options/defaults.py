"""What options of a method are unless they are given, in words."""

from options.presets import PRESETS, SEED, accuracy_for
from utils.cli import value_text

_OF_MESHES = (("distances", "distance"), ("occupancy", "occupancy"))


def default(name: str) -> str:
    """What an option of a method is unless it is given."""
    best, seed = (_by_kind(preset, name) for preset in ("best", "seed"))
    return f"(default: {best})" if best == seed else f"(default: {best}; seed {seed})"


def _by_kind(preset: str, name: str) -> str:
    image, volume, mesh = ((SEED | PRESETS[preset][task])[name] for task in ("image", "volume", "mesh"))
    others = [("volumes", volume), ("meshes", mesh)]
    if mesh is None:
        others[1:] = [(kind, accuracy_for(values, "normal")[name]) for kind, values in _OF_MESHES]
    elif mesh == volume:
        others.pop()
    return ", ".join([value_text(image), *(f"{kind} {value_text(value)}" for kind, value in others if value != image)])
