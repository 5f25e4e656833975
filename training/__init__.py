"""Training, with PyTorch Lightning, which is first imported here.

Lightning loads torchmetrics, which loads Matplotlib and much of SciPy where it finds them: a third of the time that a
program takes to start. No fit needs these, so they are not found meanwhile.
"""

from importlib.metadata import PackageNotFoundError
from typing import Any

from lightning_utilities.core import imports

from utils import bars  # noqa: F401  before Lightning, which would warn where a notebook cannot draw them

_NOT_NEEDED = ("matplotlib", "scipy")
_LOOKUPS = {name: look for name, look in vars(imports).items() if name in ("find_spec", "_version")}


def _find_spec(name: str) -> Any:
    return None if name in _NOT_NEEDED else _LOOKUPS["find_spec"](name)


def _version(name: str) -> str:
    if name in _NOT_NEEDED:
        raise PackageNotFoundError(name)
    return _LOOKUPS["_version"](name)


_BLIND = {"find_spec": _find_spec, "_version": _version}
try:
    vars(imports).update({name: _BLIND[name] for name in _LOOKUPS})
    import pytorch_lightning  # noqa: F401
finally:
    vars(imports).update(_LOOKUPS)
    imports.package_available.cache_clear()  # which remembers what it has not found
