"""Pictures from their fits."""

import sys
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from datasets.writers import check_picture_path, holds_values, most_bits, write_rows
from decoding.originals import level_window, original_rows
from models.miner import MINER
from utils.channels import n_colours
from utils.errors import InputError
from utils.figures import draw_blocks
from utils.georeference import Georeference
from utils.metrics import Similarity, picture_metrics
from utils.transfer import Transfer
from utils.windows import Window, in_samples, size_of


def reconstruct_picture(model: MINER, level: int, crop: Window, options: Namespace) -> None:
    chosen = chosen_channels(model, options)
    n_channels = 3 if options.blocks else len(chosen)
    spectral = n_channels not in (1, 3) and (model.spectral or options.channels is not None)
    samples = in_samples(crop, options.scale)
    size = size_of(samples)
    bits, transfer = _kind_of_values(model, options)
    if options.out is not None:
        check_picture_path(Path(options.out), n_channels, size, bits, transfer, spectral)
    original = None if options.original is None else original_rows(options.original, model)
    metrics, similarity = picture_metrics(model.transfer, model.spectral), Similarity(model.spectral)
    errors = torch.zeros(len(metrics), 2, dtype=torch.float64)

    def rows() -> Iterator[Tensor]:
        for window, decoded in model.decode_windows(
            level, crop, options.scale, options.b_chunks, between=options.between
        ):
            values = decoded.cpu()
            if original is not None:
                truth = level_window(original, model.size, level, window)
                errors.add_(torch.stack([metric.totals(values, truth) for metric in metrics]))
                similarity.add(values, truth)
            values = values[chosen]
            if options.blocks:
                values = draw_blocks(
                    values,
                    model.active_grids,
                    model.patch_size,
                    corner=tuple(start * 2**level for start, _ in crop),
                    pixel_size=float(2**level / options.scale),
                    top=window[0][0] - samples[0][0],
                    size=size,
                )
            yield values

    if options.out is None:
        deque(rows(), maxlen=0)
    else:
        as_fitted = (bits, transfer) == (model.source["bits"], model.transfer)
        place = georeference_of(model, level, samples, options.scale, as_fitted)
        write_rows(options.out, rows(), n_channels, size, bits, transfer, spectral, place)
    if original is not None:
        if model.transfer:
            print(f"note: PSNR and SSIM are those of the encoded values ({model.transfer.kind})", file=sys.stderr)
        for metric, sums in zip(metrics, errors.tolist(), strict=True):
            print(metric.line.format(metric.value(*sums)))
        print(similarity.line)


def _kind_of_values(model: MINER, options: Namespace) -> tuple[int, Transfer | None]:
    """Bits of a channel to write; or, of a fit of other values and where the file holds these, what gives them."""
    bits, transfer = options.bits or model.source["bits"], model.transfer
    if options.out is None or transfer is None:
        return bits, None
    path = Path(options.out)
    if holds_values(path, transfer) and not options.bits:
        return bits, transfer
    if most := most_bits(path):  # or else it is refused
        bits = options.bits or min(bits, most)
        print(f"note: {path}: holds the encoded values ({transfer.kind}), of {bits} bits", file=sys.stderr)
    return bits, None


def chosen_channels(model: MINER, options: Namespace) -> list[int]:
    """Which channels are written, from 0; InputError for those that the fit does not have."""
    if options.channels is None:
        n_channels = n_colours(model.n_channels, model.spectral) if options.no_alpha else model.n_channels
        return list(range(n_channels))
    if max(options.channels) > model.n_channels:
        given = " ".join(map(str, options.channels))
        raise InputError(f"--channels {given}: the fit has channels 1 to {model.n_channels}; use some of them")
    return [channel - 1 for channel in options.channels]


def georeference_of(model: MINER, level: int, samples: Window, scale: Fraction, as_fitted: bool) -> Georeference | None:
    """Of a window of a level, in its samples. What stands for no value does so among values as they were fitted."""
    if model.georeference is None:
        return None
    pixel = float(2**level / scale)
    moved = model.georeference.window(tuple(start * pixel for start, _ in samples), (pixel, pixel))
    return moved if as_fitted else replace(moved, nodata=None)
