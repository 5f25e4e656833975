"""What is asked of Lightning, and what is kept from it."""

import logging
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from datasets.targets import BlockTarget
from models.ops.batching import blocks_at_once, points_at_once
from training.datamodule import LevelDataModule
from training.module import LevelModule
from utils.files import unwritable
from utils.ranks import Ranks

# A visit is some ten seconds of work at most, and on a CPU few enough blocks to stay in its cache: so many steps,
# so many points times epochs.
_VISIT_STEPS = 2048
_VISIT_POINTS = {"cpu": 2**24}
_VISIT_POINTS_ON_DEVICE = 2**30


def quiet_libraries() -> None:
    """Lightning's advice is for other ways of training, and TensorBoard's thread prints what it raises again later."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
    threading.excepthook = _tell_thread


def _tell_thread(failed: threading.ExceptHookArgs) -> None:
    """What becomes of an error that ends a thread."""
    if not (type(failed.thread).__module__.startswith("tensorboard.") and isinstance(failed.exc_value, OSError)):
        threading.__excepthook__(failed)


class Curves(TensorBoardLogger):
    """TensorBoard's files in a folder of logs/EXP_NAME. Where they cannot be written, the rest is dropped with a note:
    a fit is worth more than its curves."""

    def __init__(self, exp_name: str, version: str, purge_step: int | None = None):
        super().__init__("logs", name=exp_name, version=version, purge_step=purge_step)
        self.is_broken = False

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._try(super().log_metrics, metrics, step)

    def log_hyperparams(self, *parameters: Any) -> None:
        self._try(super().log_hyperparams, *parameters)

    def log_picture(self, tag: str, picture: Tensor, step: int) -> None:
        """A picture (c, h, w) in [0, 1]."""
        self._try(lambda: self.experiment.add_image(tag, picture, step))

    def save(self) -> None:
        self._try(super().save)

    def finalize(self, status: str) -> None:
        self._try(super().finalize, status)

    def _try(self, write: Callable, *arguments: Any) -> None:
        if self.is_broken:
            return
        try:
            write(*arguments)
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__  # of Lightning's error
            if not isinstance(cause, OSError):
                raise
            if not self.is_broken:  # these functions call each other
                _note(f"{unwritable(self.log_dir, cause)}; its curves are not complete")
            self.is_broken = True


@lru_cache
def _note(text: str) -> None:
    """Print a note, once: the parts of a level have a logger each."""
    print(f"note: {text}", file=sys.stderr)


def make_logger(exp_name: str, module: LevelModule) -> Curves:
    """The curves of a level; what an earlier run has logged beyond the state of this one is dropped."""
    done, name = module.first_step + module.n_epochs_done, f"l{module.spec.index}"
    if done == 0:
        shutil.rmtree(Path("logs") / exp_name / name, ignore_errors=True)
    return Curves(exp_name, name, purge_step=done + 1)


def train(
    module: LevelModule,
    target: BlockTarget,
    callbacks: list[Callback],
    logger: Curves | None,
    device: torch.device,
    ranks: Ranks,
    b_chunks: int,
) -> None:
    """Train a module until all its blocks have converged or been through all epochs.

    Inputs
        target: of the module's blocks
        logger: None in all processes but the first
        b_chunks: blocks evaluated at once, at most
    Errors
        Interrupted, KeyboardInterrupt
    """
    spec = module.spec
    n_points = prod(spec.patch_size)
    data = LevelDataModule(
        target.to(device),
        ranks,
        visit_epochs=max(1, _VISIT_STEPS // -(-n_points // spec.batch_size)),
        visit_points=_VISIT_POINTS.get(device.type, _VISIT_POINTS_ON_DEVICE),
        visit_blocks=max(1, points_at_once(device) // spec.batch_size),
        check_blocks=blocks_at_once(n_points, b_chunks, device),
    )
    trainer = pl.Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        strategy=SingleDeviceStrategy(device),  # processes share out blocks: there are no gradients to average
        plugins=[LightningEnvironment()],  # else it would join the process group of torchrun or SLURM
        max_epochs=-(-(spec.n_epochs - module.n_epochs_done) // spec.val_freq),
        logger=logger or False,
        callbacks=callbacks,
        enable_progress_bar=logger is not None,
        reload_dataloaders_every_n_epochs=1,  # the blocks that train change
        num_sanity_val_steps=0,
        enable_checkpointing=False,  # its checkpoints know no parts and no twins
        enable_model_summary=False,
    )
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit as end:  # what Lightning makes of a KeyboardInterrupt
        raise KeyboardInterrupt from end
