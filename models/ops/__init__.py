"""Backends: how networks are trained and evaluated. The reference defines it; the others agree up to rounding."""

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from models.block_network import BlockNetwork
from models.ops import reference
from models.shape import NetworkShape
from utils.errors import InputError, KernelError

_FUSED = {"cpu": "models.ops.fused_cpu", "cuda": "models.ops.fused_cuda"}


POINTS = 256
"""That the last layer is fitted to at once, at most."""


class Backend(Protocol):
    """What a module needs to be a backend; `models.ops.reference` describes inputs and outputs.

    name: for messages
    """

    name: str

    def prepare(self, shape: NetworkShape) -> Any:
        """Whatever is needed for networks of a shape, such as a compiled kernel, kept for the next call.

        Errors
            KernelError for networks that the backend cannot compute, or if this machine lacks what it needs
        """

    def fit_points(
        self,
        network: BlockNetwork,
        optimizer: torch.optim.Optimizer,
        coords: Tensor,
        target: Tensor,
        order: Tensor,
        batch_size: int,
        lr: Tensor,
    ) -> Tensor:
        """Train every block for some epochs, in place; returns the mean losses (n_epochs, n_blocks)."""

    def fit_last_layer(self, network: BlockNetwork, coords: Tensor, target: Tensor) -> None:
        """Set the last layer of every block, in place, to what fits a target best at some points, at most POINTS."""

    def predict(self, network: BlockNetwork, index: Tensor | slice, coords: Tensor) -> Tensor:
        """Evaluate some blocks; a block has the same bits whichever others are evaluated with it."""


def choose_backend(wanted: str, shapes: Iterable[NetworkShape], device: str | torch.device) -> Backend:
    """The backend for networks of some shapes on a device: fused if it has a kernel for the narrowest of them.

    Inputs
        wanted: reference, fused, or auto: fused where possible, else the reference, with a note that says why
    Errors
        InputError if the fused backend is required and not available
    """
    if wanted == "reference":
        return reference
    try:
        kind = torch.device(device).type
        if kind not in _FUSED:
            raise KernelError(f"there is no kernel for {kind}")
        fused = import_module(_FUSED[kind])
        shapes = sorted(dict.fromkeys(shapes), key=lambda shape: shape.n_hidden)
        for least in shapes[:1]:
            fused.prepare(least)
        prepare_all(fused, shapes)
        return fused
    except (KernelError, ImportError) as error:
        if wanted == "fused":
            raise InputError(f"--backend fused: {error}; use --backend reference") from error
        _note(str(error))
        return reference


def prepare_all(backend: Backend, shapes: Iterable[NetworkShape]) -> None:
    """Prepare for networks of some shapes, several at a time, since a compiler takes a second or more for each; what
    fails is left to `serving`."""

    def prepare(shape: NetworkShape) -> None:
        with suppress(KernelError):
            backend.prepare(shape)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(prepare, dict.fromkeys(shapes)))


@lru_cache
def serving(backend: Backend, shape: NetworkShape) -> Backend:
    """A backend or, for networks that it cannot compute, such as wide ones on a GPU, the reference."""
    try:
        backend.prepare(shape)
        return backend
    except KernelError as error:
        print(f"note: {shape.n_hidden} units are computed by the reference backend ({error})", file=sys.stderr)
        return reference


@lru_cache
def _note(why: str) -> None:
    """Print why, once."""
    print(f"note: using the reference backend, because the fused one is not available ({why})", file=sys.stderr)
