"""Where torch computes."""

import torch

from utils.errors import InputError


def device_of(accelerator: str) -> str:
    """Torch's name of an accelerator; InputError where this machine has none of the kind.

    `auto` is a GPU of NVIDIA's or the CPU: an Apple GPU has no fused kernel, and is slower than its CPU.
    """
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("--accelerator gpu: torch finds no GPU here; use cpu")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise InputError("--accelerator mps: torch finds no Apple GPU here; use cpu")
    return {"gpu": "cuda"}.get(accelerator, accelerator)
