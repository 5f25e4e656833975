"""Backends: modules that implement `fit_points` and `predict`, one signature; the reference is the definition."""

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from models.ops import reference
from utils.errors import InputError, KernelError

_FUSED = {"cpu": "models.ops.fused_cpu", "cuda": "models.ops.fused_cuda"}


def choose_backend(
    wanted: str, shapes: Iterable[dict[str, Any]], device: str | torch.device
) -> tuple[ModuleType, str | None]:
    """The backend for networks of some shapes on a device, and why it is not the fused one if that was not ruled out.

    Inputs
        wanted: reference, fused, or auto: fused where it can serve
        shapes: of the networks, as `BlockMLP.shape`
    Errors
        InputError where the fused one is wanted and cannot serve
    """
    if wanted == "reference":
        return reference, None
    try:
        kind = torch.device(device).type
        if kind not in _FUSED:
            raise KernelError(f"there is no kernel for {kind}")
        fused = import_module(_FUSED[kind])
        for shape in shapes:
            fused.kernel(**shape)
        return fused, None
    except (KernelError, ImportError) as error:
        if wanted == "fused":
            raise InputError(f"--backend fused: {error}; --backend reference works") from error
        return reference, str(error)
