"""What is asked of Lightning, and what is kept from it."""

from math import prod

import torch

from datasets.targets import BlockTarget
from models.ops.batching import blocks_at_once, points_at_once
from training.datamodule import LevelDataModule
from training.lightning import Callback, LightningEnvironment, SingleDeviceStrategy, Trainer
from training.module import LevelModule
from utils.ranks import Ranks

# A visit is some ten seconds of work at most, and on a CPU few enough blocks to stay in its cache: so many steps,
# so many points times epochs.
_VISIT_STEPS = 2048
_VISIT_POINTS = {"cpu": 2**24}
_VISIT_POINTS_ON_DEVICE = 2**30


def train(
    module: LevelModule,
    target: BlockTarget,
    callbacks: list[Callback],
    device: torch.device,
    ranks: Ranks,
    b_chunks: int,
) -> None:
    """Train a module until all its blocks have converged or been through all epochs.

    Inputs
        target: of the module's blocks
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
    trainer = Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        strategy=SingleDeviceStrategy(device),  # processes share out blocks: there are no gradients to average
        plugins=[LightningEnvironment()],  # else it would join the process group of torchrun or SLURM
        max_epochs=-(-(spec.n_epochs - module.n_epochs_done) // spec.val_freq),
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        reload_dataloaders_every_n_epochs=1,  # the blocks that train change
        num_sanity_val_steps=0,
        enable_checkpointing=False,  # its checkpoints know no parts and no twins
        enable_model_summary=False,
    )
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit as end:  # what Lightning makes of a KeyboardInterrupt
        raise KeyboardInterrupt from end
