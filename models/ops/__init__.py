"""Backends: modules that implement `fit_points` and `predict`, one signature; the reference is the definition."""

import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from models.ops import reference
from utils.errors import InputError, KernelError

_FUSED = {"cpu": "models.ops.fused_cpu", "cuda": "models.ops.fused_cuda"}


def choose_backend(wanted: str, shapes: Iterable[dict[str, Any]], device: str | torch.device) -> ModuleType:
    """The backend for networks of some shapes on a device.

    Inputs
        wanted: reference, fused, or auto: fused where it can serve, else the reference, with a note that says why
        shapes: of the networks, as `BlockNetwork.shape`
    Errors
        InputError where the fused one is wanted and cannot serve
    """
    if wanted == "reference":
        return reference
    try:
        kind = torch.device(device).type
        if kind not in _FUSED:
            raise KernelError(f"there is no kernel for {kind}")
        fused = import_module(_FUSED[kind])
        for shape in shapes:
            fused.kernel(**shape)
        return fused
    except (KernelError, ImportError) as error:
        if wanted == "fused":
            raise InputError(f"--backend fused: {error}; --backend reference works") from error
        _note(str(error))
        return reference


@lru_cache
def _note(why: str) -> None:
    """Said once."""
    print(f"note: the fused backend cannot serve ({why}), the reference does", file=sys.stderr)
