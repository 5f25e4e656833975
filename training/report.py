"""How a run went: the quality of its files, loaded back, and what they took."""

import math
import platform
import sys
import time
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import torch

from models.miner import MINER
from packing.sizes import size_line
from packing.write import codings_of, write_packed
from training.job import Job
from utils.checkpoint import checkpoint_bytes, packed_path
from utils.errors import InputError
from utils.memory import peak_memory, release_memory
from utils.metrics import Metric, Similarity, SliceSimilarity, iou, picture_metrics, psnr, psnr_of, psnr_of_channel
from utils.raster import Raster
from utils.windows import rows_at_once, whole

_SSIM_PIXELS, _SSIM_BANDS = 2**23, 8
_SSIM_ROWS = {Similarity: 32, SliceSimilarity: 1}  # of a band, at least
_SSIM_WINDOW = 2**21  # values decoded at once


def finish(job: Job, signal: Raster, report: dict[str, Any], backend: str, started: float) -> None:
    """Judge the files of a run, write metrics.json and the row of TensorBoard's table, and print the result.

    Inputs
        signal: at the finest level
        report: of `fit_levels`
        backend: --backend, which decodes
        started: `time.perf_counter()` when the run began
    """
    release_memory()
    run, metric = job.run, job.metric
    model = MINER.load(run.ckpts, job.device, backend)
    usual = picture_metrics(model.transfer, model.spectral) if len(signal.size) == 2 else (psnr_of(model.spectral),)
    metrics = list(dict.fromkeys((job.metric, *usual)))
    channels = [psnr_of_channel(channel) for channel in range(model.n_channels)] if model.spectral else []
    measured = judge(job, model, signal, metrics + channels)
    quality = measured[job.metric]
    if math.isnan(quality):
        raise InputError(f"{run.ckpts} decodes to values that are not numbers: fit it again with --overwrite")
    if not job.ranks.is_first:
        return
    n_pixels, sizes = prod(signal.size), disk_sizes(job, model)
    finite = {one: value if math.isfinite(value) else None for one, value in measured.items()}
    report["levels"][0][metric.name] = finite[metric]
    report |= {
        **{one.name: finite[one] for one in metrics},
        **({"psnr_per_channel": [finite[one] for one in channels]} if channels else {}),
        **({} if metric is iou else {"ssim": mean_similarity(model, signal, job.b_chunks)}),
        "parameters": model.n_parameters,
        "parameters_per_pixel": model.n_parameters / n_pixels,
        "bytes": sizes,
        "bits_per_pixel": {name: 8 * size / n_pixels for name, size in sizes.items()},
        "points_trained": sum(level["points_trained"] for level in report["levels"]),
    }
    report["seconds"]["total"] = time.perf_counter() - started
    report |= surroundings(job.device)
    run.save_report(report)
    log_options(job, {metric.name: quality, "parameters": model.n_parameters, "seconds": report["seconds"]["total"]})
    print_result(job, report, {one: measured[one] for one in metrics})


def disk_sizes(job: Job, model: MINER) -> dict[str, int]:
    """Bytes of the checkpoints and, of a packed run, of its file, which is written."""
    ckpts = job.run.ckpts
    sizes = {"checkpoints": checkpoint_bytes(ckpts)}
    if job.run.options.get("pack"):
        write_packed(packed_path(ckpts), model, codings_of(ckpts, model))
        sizes["packed"] = packed_path(ckpts).stat().st_size
    return sizes


def judge(job: Job, model: MINER, signal: Raster, metrics: list[Metric]) -> dict[Metric, float]:
    """The quality of a fit as it is decoded, by some metrics; each process decodes its share of the bands of blocks."""
    height, patch = signal.size[0], model.patch_size[0]
    bands = job.ranks.share_of(-(-height // patch))
    totals = torch.zeros(len(metrics), 2, dtype=torch.float64)
    if bands:
        crop = ((bands.start * patch, min(bands.stop * patch, height)), *whole(signal.size[1:]))
        rows = rows_at_once(signal.n_channels, signal.size, patch)
        most = rows * signal.n_channels * prod(signal.size[1:])
        with job.display.rows("reading back", crop[0][1] - crop[0][0]) as done:
            for window, values in model.decode_windows(0, crop, b_chunks=job.b_chunks, most=most):
                pair = values.cpu(), signal.read(window)
                totals += torch.stack([metric.totals(*pair) for metric in metrics])
                done(window[0][1] - window[0][0])
    sums = sum(job.ranks.exchange(totals)).tolist()
    return {metric: metric.value(*of_metric) for metric, of_metric in zip(metrics, sums, strict=True)}


def print_result(job: Job, report: dict[str, Any], measured: dict[Metric, float]) -> None:
    n_diverged = sum(level["diverged_blocks"] for level in report["levels"])
    if job.enough.why:
        print(f"note: {job.enough.why}; --resume, with a higher target or more time, continues", file=sys.stderr)
    if n_diverged:
        print(f"note: {n_diverged:,} blocks diverged and were rolled back", file=sys.stderr)
    if job.quiet:
        return
    folder = f"ckpts/{job.run.ckpts.name}"
    sizes = {name: size_line(n_bytes, job.run.identity["size"]) for name, n_bytes in report["bytes"].items()}
    print(
        f"{folder}: {report['parameters']:,} parameters, {sizes['checkpoints']}, "
        f"{report['seconds']['total']:.1f} s, {report['peak_memory_mib']['host']:.0f} MiB"
    )
    if "packed" in sizes:
        print(f"{folder}/{packed_path(job.run.ckpts).name}: {sizes['packed']}")
    for metric in (job.metric, *(one for one in measured if one not in (job.metric, psnr))):
        print(metric.line.format(measured[metric]))


def print_finished(ckpts: Path, report: dict[str, Any], metric: Metric) -> None:
    """Say how a run went that has nothing left to do."""
    print(f"{ckpts} is finished: {report['parameters']:,} parameters")
    print(metric.line.format(math.inf if report[metric.name] is None else report[metric.name]))


def mean_similarity(model: MINER, signal: Raster, b_chunks: int) -> float | None:
    """SSIM of a picture, or of the slices of a volume; of a large one in a few bands, evenly spread over its height or
    depth, since it takes long."""
    (height, *across), kind = signal.size, Similarity if len(signal.size) == 2 else SliceSimilarity
    rows, bands = max(_SSIM_ROWS[kind], _SSIM_PIXELS // (_SSIM_BANDS * prod(across))), [(0, height)]
    if rows * _SSIM_BANDS < height:
        starts = (band * (height - rows) // (_SSIM_BANDS - 1) for band in range(_SSIM_BANDS))
        bands = [(start, start + rows) for start in starts]
    values = []
    for band in bands:
        similarity = kind(model.spectral)
        for window, decoded in model.decode_windows(0, (band, *whole(across)), 1, b_chunks, _SSIM_WINDOW):
            similarity.add(decoded.cpu(), signal.read(window))
        values.append(similarity.value)
    return None if None in values else sum(values) / len(values)


def log_options(job: Job, results: dict[str, float]) -> None:
    """The run's row in TensorBoard's table of options and results."""
    aside = {"accelerator", "b_chunks", "exp_name", "log_image"}  # the table names the run anyway
    row = {name: value for name, value in job.run.options.items() if value is not None and name not in aside}
    job.curves.log_results(row, results)
    job.curves.close()


def surroundings(device: torch.device) -> dict[str, Any]:
    """Where a run took place and what memory it took, in MiB."""
    memory = {"host": peak_memory() / 2**20}
    name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        memory["device"] = torch.cuda.max_memory_allocated(device) / 2**20
    elif device.type == "mps":
        name = f"{platform.processor()} GPU"
    return {
        "device": name,
        "peak_memory_mib": memory,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch_lightning": version("pytorch_lightning"),
        },
    }
