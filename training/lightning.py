"""What is used of PyTorch Lightning, which is first imported here.

Lightning loads torchmetrics, which loads Matplotlib and much of SciPy where it finds them: a third of the time that it
takes to load. No fit needs these, so they are not found meanwhile.
"""

import logging
import warnings
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
    from lightning_fabric.plugins.environments import SLURMEnvironment
    from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
    from pytorch_lightning.plugins.environments import LightningEnvironment
    from pytorch_lightning.strategies import SingleDeviceStrategy
finally:
    vars(imports).update(_LOOKUPS)
    imports.package_available.cache_clear()  # which remembers what it has not found

__all__ = [
    "Callback",
    "LightningDataModule",
    "LightningEnvironment",
    "LightningModule",
    "SLURMEnvironment",
    "SingleDeviceStrategy",
    "Trainer",
]

for _name in ("pytorch_lightning", "lightning_fabric"):  # its advice is for other ways of training
    logging.getLogger(_name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=_name)
