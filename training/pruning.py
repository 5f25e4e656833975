"""The policy of pruning: which blocks stop training, and when. The surgery is `models.block_networks.select_all`."""

from models.block_networks import select_all
from training.lightning import Callback, Trainer
from training.module import LevelModule


class BlockPruning(Callback):
    """Blocks stop training as they converge.

    After every validation
    - the parameters of the twin are copied to the level's networks;
    - except those of blocks that have diverged: these stay as they were at the last validation, or where there was none
      are silenced, so that they add nothing to the base; either way they stop training;
    - blocks whose mean square error over all their points is at most `stop_loss` stop training;
    - the survivors' parameters and moments are copied to a smaller twin and its optimizers.
    """

    def on_validation_epoch_end(self, trainer: Trainer, module: LevelModule) -> None:
        is_sound = module.block_mse.isfinite()
        sound = is_sound.nonzero().squeeze(1)
        module.networks.write_(module.survivors[sound], module.twin.select(sound))
        module.n_diverged += len(is_sound) - len(sound)
        if module.n_epochs_done == 0:
            diverged = module.survivors[~is_sound]
            module.networks.silence_(diverged)
            module.silent[diverged] = True
        kept = (is_sound & (module.block_mse > module.spec.stop_loss)).nonzero().squeeze(1)
        if len(kept) < module.twin.n_blocks:
            module.twin, trainer.optimizers = select_all(module.twin, trainer.optimizers, kept)
            module.survivors = module.survivors[kept]
