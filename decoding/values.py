"""Volumes of values from their fits."""

import sys
from argparse import Namespace
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.volumes import Affine, VolumeFormat, format_of
from datasets.writers import as_steps
from decoding.originals import level_window, original_rows
from decoding.picture import chosen_channels
from models.miner import MINER
from utils.errors import InputError
from utils.metrics import SliceSimilarity, psnr_of
from utils.windows import Window, in_samples, size_of

_AXES = 3


def reconstruct_values(model: MINER, level: int, crop: Window, options: Namespace) -> None:
    if options.blocks:
        raise InputError("--blocks: outlines blocks of pictures, and this is a volume; leave it out")
    format = _writer(options)
    original = None if options.original is None else original_rows(options.original, model)
    to_values, chosen = _Values(model, options), chosen_channels(model, options)
    metric, similarity = psnr_of(model.spectral), SliceSimilarity(model.spectral)
    shape, source = (len(chosen), *size_of(in_samples(crop, options.scale))), model.source
    if source.get("affine"):
        source = source | {"affine": affine_of(source["affine"], level, crop, options.scale)}
    errors = torch.zeros(2, dtype=torch.float64)
    with (
        nullcontext() if format is None else format.writing(Path(options.out), shape, to_values.dtype, source) as write
    ):
        for window, decoded in model.decode_windows(
            level, crop, options.scale, options.b_chunks, between=options.between
        ):
            values = decoded.cpu()
            if original is not None:
                truth = level_window(original, model.size, level, window)
                errors.add_(metric.totals(values, truth))
                similarity.add(values, truth)
            if write is not None:
                write(to_values(values[chosen]))
    if original is not None:
        if model.transfer:
            print(f"note: PSNR and SSIM are those of the encoded values ({model.transfer.kind})", file=sys.stderr)
        print(metric.line.format(metric.value(*errors.tolist())))
        print(similarity.line)


def _writer(options: Namespace) -> VolumeFormat | None:
    """The format to write, if there is one; InputError for another suffix."""
    if options.out is None:
        return None
    path = Path(options.out)
    format = format_of(path)
    if not format.is_written:
        raise InputError(f"{path}: a {format.name} is only read; write .npy, .nii, .mha or .zarr")
    format.check_replaceable(path)
    return format


class _Values:
    """What is written of numbers in [0, 1]: values of the file's type, or as the options ask.

    dtype: of them
    """

    def __init__(self, model: MINER, options: Namespace):
        self.transfer = None if options.field or options.bits else model.transfer
        if options.field:
            self.dtype = np.dtype(np.float32)
        elif self.transfer is not None:
            self.dtype = np.dtype(self.transfer.dtype)
        else:
            self.dtype = np.dtype(f"uint{options.bits or model.source['bits']}")

    def __call__(self, numbers: Tensor) -> np.ndarray:
        if self.transfer is not None:
            return self.transfer.decode(numbers.numpy())
        if self.dtype.kind == "f":
            return numbers.numpy()
        return as_steps(numbers, 8 * self.dtype.itemsize)


def affine_of(affine: Affine, level: int, crop: Window, scale: Fraction | int) -> Affine:
    """Where the samples of a crop lie, from where the voxels of level 0 do.

    Inputs
        crop: (start, stop) along z, y, x, in voxels of the level
        scale: samples a voxel of the level
    """
    step = float(2**level / Fraction(scale))
    starts = [samples[0] for samples in in_samples(crop, scale)[::-1]]
    to_voxels = np.diag([step] * _AXES + [1.0])
    to_voxels[:_AXES, _AXES] = [(start + 0.5) * step - 0.5 for start in starts]
    return (np.array(affine) @ to_voxels).tolist()
