"""Pictures from their fits."""

from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from datasets.writers import check_picture_path, write_rows
from decoding.originals import original_rows
from models.miner import MINER, WINDOW_VALUES
from utils.figures import draw_blocks
from utils.metrics import Similarity, psnr
from utils.pyramid import pyramid
from utils.windows import Window, cut_rows, in_samples, size_of


def reconstruct_picture(model: MINER, level: int, crop: Window, options: Namespace) -> None:
    bits = options.bits or model.source["bits"]
    n_channels = 3 if options.blocks or (options.no_alpha and model.n_channels == 4) else model.n_channels
    samples = in_samples(crop, options.scale)
    size = size_of(samples)
    if options.out is not None:
        check_picture_path(Path(options.out), n_channels, size, bits)
    original = None if options.original is None else original_rows(options.original, model)
    errors, similarity = torch.zeros(2, dtype=torch.float64), Similarity()

    def rows() -> Iterator[Tensor]:
        for window, decoded in model.decode_windows(
            level, crop, options.scale, options.b_chunks, between=options.between
        ):
            values = decoded.cpu()
            if original is not None:
                truth = level_window(original, model.size, level, window)
                errors.add_(psnr.totals(values, truth))
                similarity.add(values, truth)
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
            yield values[:n_channels]

    if options.out is None:
        deque(rows(), maxlen=0)
    else:
        write_rows(options.out, rows(), n_channels, size, bits)
    if original is not None:
        print(psnr.line.format(psnr.value(*errors.tolist())))
        none = "none, the picture is smaller than its window"
        print(f"SSIM : {none if similarity.value is None else f'{similarity.value:.4f}'}")


def level_window(rows: Callable[[int, int], Tensor], size: tuple[int, ...], level: int, window: Window) -> Tensor:
    """A window (c, n_rows, w) of a level of a picture, from the rows of level 0, which has size (h, w)."""
    (top, bottom), across = window
    parts = []
    for start, stop in cut_rows(top, bottom, 1, max(1, WINDOW_VALUES // (2**level * size[1]))):
        reach = rows(start * 2**level, min(stop * 2**level, size[0]))
        parts.append(pyramid(reach, level + 1)[level][:, :, slice(*across)])
    return torch.cat(parts, dim=1)
