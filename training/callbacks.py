"""What goes on beside the training of a part: saving, progress, pictures in TensorBoard."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datasets.targets import LevelTarget
from models.level import Level, refine
from training.datamodule import Visit
from training.display import Display, Standing
from training.lightning import Callback, Trainer
from training.module import LevelModule
from training.state import PartState
from training.stop import StopSignals
from utils.errors import Interrupted
from utils.figures import colours, highlight_blocks, signed, thumbnail
from utils.windows import whole

if TYPE_CHECKING:
    from training.part import Part


class StateSaver(Callback):
    """Saves where training stands: after every validation, and at the end of a visit when the last save was long ago.

    Inputs
        save: called in the first process with the state of the whole part
        every: seconds
        stop: asked as often as it may save; training then ends with Interrupted, its state saved
    """

    def __init__(self, save: Callable[[PartState], None], every: float, stop: StopSignals):
        self.save = save
        self.every = every
        self.stop = stop
        self.saved_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LevelModule) -> None:
        self.stop.listen()  # Lightning handles SIGTERM in its own way, which ends without saving
        trainer._signal_connector.received_sigterm = False  # so did it with one that has come since fit was called

    def on_train_batch_end(self, trainer: Trainer, module: LevelModule, outputs: Any, visit: Visit, _: int) -> None:
        if trainer.is_last_batch:
            return  # validation follows; stopping before it would leave the period without an end when training resumes
        self._save(module, time.monotonic() - self.saved_at > self.every)

    def on_validation_end(self, trainer: Trainer, module: LevelModule) -> None:
        if module.n_training and module.n_epochs_done < module.spec.n_epochs:  # else the level's checkpoint follows
            self._save(module, True)

    def _save(self, module: LevelModule, is_due: bool) -> None:
        stop = self.stop()
        if stop or module.ranks.max(is_due):
            states = module.ranks.gather(module.state())
            if states is not None:
                self.save(PartState.merge(states))
            module.ranks.share()  # it is saved: no process leaves before
            self.saved_at = time.monotonic()
        if stop:
            raise Interrupted


class PartProgress(Callback):
    """Tells a display how far a part is: as far as its share in the first process."""

    def __init__(self, display: Display, part: "Part"):
        self.display = display
        self.part = part

    def on_train_epoch_start(self, trainer: Trainer, module: LevelModule) -> None:
        self.display.start(self._standing(module))

    def on_train_batch_end(self, trainer: Trainer, module: LevelModule, outputs: Any, visit: Visit, _: int) -> None:
        self.display.update(self._standing(module), is_validated=False)

    def on_validation_end(self, trainer: Trainer, module: LevelModule) -> None:
        self.display.update(self._standing(module), is_validated=True)

    def _standing(self, module: LevelModule) -> Standing:
        epochs = module.epochs_done.tolist() or [module.n_epochs_done]
        epoch, n_epochs = sum(epochs) / len(epochs), module.spec.n_epochs
        n_waiting = self.part.n_active - self.part.span.stop
        return Standing(epoch, self.part.level_epoch(epoch, n_epochs), module.n_training, n_waiting, module.quality)


class LevelImages(Callback):
    """After every validation, pictures of the level for TensorBoard, at most 1024 pixels long.

    image is the reconstruction; laplacian what the level adds to the base, upsampled smoothly (grey is nothing, black
    and white the largest residual of the level); training_blocks the reconstruction, dark where no block trains any
    more. A volume is shown by its middle slice across z.

    Inputs
        level: whose networks are those that the module trains
        blocks: (n_blocks,) indices in the grid of the module's blocks
        target: of the level
        b_chunks: blocks evaluated at once, at most
        is_up: y of the slice is shown pointing up
    """

    def __init__(self, level: Level, blocks: Tensor, target: LevelTarget, b_chunks: int, is_up: bool = False):
        self.level = level
        self.blocks = blocks
        self.b_chunks = b_chunks
        self.is_up = is_up
        self.window = whole(level.size)
        self.band: int | None = None  # of blocks, that the slice lies in
        if len(level.size) == 3:
            middle = level.size[0] // 2
            self.window = ((middle, middle + 1), *self.window[1:])
            self.band = middle // level.patch_size[0]
        self.base, self.fill = target.base(self.window), target.filled(self.window)

    def on_validation_end(self, trainer: Trainer, module: LevelModule) -> None:
        level, base, fill = self.level, self.base.to(module.device), self.fill
        fill = None if fill is None else fill.to(module.device)
        image = refine(level, base, self.window, 1, self.b_chunks, module.backend, fill)
        training = torch.zeros_like(level.group, dtype=torch.bool)
        training[self.blocks[module.survivors.cpu()]] = True
        training = training.view(level.active_grid.shape)
        if self.band is not None:
            image, base, training = image[:, 0], base[:, 0], training[self.band]
        image, base = thumbnail(colours(image)), thumbnail(colours(base))
        largest = max(network.amplitude.max().item() for network in level.networks if network.n_blocks)
        figures = {
            "image": image,
            "laplacian": signed(image - base, largest),
            "training_blocks": highlight_blocks(image, level.size[-2:], level.patch_size[-2:], training),
        }
        for name, figure in figures.items():
            module.curves.log_picture(module.n_epochs_done, name, figure.flip(1) if self.is_up else figure)
