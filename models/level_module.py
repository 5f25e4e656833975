"""Lightning's part: the module that trains one level, the callback that prunes it, the bar that shows it."""

import math
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from tqdm.auto import tqdm

from models.block_mlp import BlockNetwork
from models.miner import Level, refine
from models.ops.adam import make_optimizer
from utils.errors import Interrupted
from utils.figures import highlight_blocks, signed, thumbnail
from utils.metrics import Metric, n_colours
from utils.pruning import select_blocks, set_step
from utils.ranks import Ranks
from utils.raster import Window, whole
from utils.rng import point_order
from utils.stop import StopSignals


class OneOfMany(SingleDeviceStrategy):
    """One of several processes, each with a device and blocks of its own: Lightning has nothing to synchronise."""

    def __init__(self, device: torch.device, rank: int):
        super().__init__(device)
        self.global_rank = rank

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0


class LevelModule(LightningModule):
    """Trains the networks of a part of one level's blocks, in one of the processes that share the part out.

    `network` holds all blocks; `twin` the training ones, rows `training_blocks` of it, in any order. An epoch of
    Lightning's is a period: the epochs between two validations. A training batch is a visit, a validation batch a
    check.

    Logged by the first process, over the epochs of the level: train/lr; train/loss, the mean square error of the blocks
    that train; val/psnr in dB or val/iou, of the level's reconstruction; val/n_training_blocks; and of several
    processes val/spread_of_blocks, by how many the one with the most has more than the one with the least.

    Inputs
        network: of the blocks, initialised
        coords: (n_points, n_in) encoded coordinates of a block's points
        residual: predictions are added to the base
        backend: that trains and evaluates the networks
        metric: by which the level is judged
        block_sums: (n_blocks, 2) its sums for the base in every block
        other_sums: (2,) its sums for all blocks of the level that are not in the part
        ranks: the processes
        seed, level: key of the order of points
        n_epochs, val_freq, lr, optimizer, betas, batch_size: as the options say; the learning rate falls to lr/30 by a
            cosine over the epochs
        first_step: of the curves, where other parts of the level come before this one
        is_enough: asked with the quality after every validation; where it says so, training ends
    """

    def __init__(
        self,
        network: BlockNetwork,
        coords: Tensor,
        *,
        residual: bool,
        backend: ModuleType,
        metric: Metric,
        block_sums: Tensor,
        other_sums: Tensor,
        ranks: Ranks,
        seed: int,
        level: int,
        n_epochs: int,
        val_freq: int,
        lr: float,
        optimizer: str,
        betas: tuple[float, float],
        batch_size: int,
        first_step: int,
        is_enough: Callable[[float], bool] = lambda quality: False,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.twin = network.select(torch.arange(network.n_blocks))
        self.register_buffer("coords", coords)
        self.register_buffer("training_blocks", torch.arange(network.n_blocks))
        self.register_buffer("block_sums", block_sums)
        self.register_buffer("block_mse", torch.empty(0))  # of the training blocks, at the last validation
        self.register_buffer("sound_blocks", torch.empty(0))  # whether their parameters were numbers then
        self.residual = residual
        self.backend = backend
        self.metric = metric
        self.other_sums = other_sums
        self.ranks = ranks
        self.seed = seed
        self.level = level
        self.n_epochs = n_epochs
        self.val_freq = val_freq
        self.lr = lr
        self.optimizer = optimizer
        self.betas = betas
        self.batch_size = batch_size
        self.first_step = first_step
        self.is_enough = is_enough
        self.n_epochs_done = 0  # by all blocks, at the last validation
        self.epochs_done = torch.zeros(network.n_blocks, dtype=torch.int64)  # by each training block
        self.period_loss = torch.zeros(len(self.period), dtype=torch.float64)  # sum over the training blocks
        self.n_diverged = 0
        self.block_epochs = 0  # epochs of training, over the blocks
        self.n_training = 0  # in all processes
        self.first_moments: list[list[Tensor]] | None = None  # of the twin, where training goes on
        self.progress = {"loss": "-", metric.name: "-", "blocks": str(network.n_blocks * ranks.size)}

    @property
    def period(self) -> range:
        """The epochs between the last validation and the next."""
        return range(self.n_epochs_done, min(self.n_epochs, (self.n_epochs_done // self.val_freq + 1) * self.val_freq))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        moments, self.first_moments = self.first_moments, None  # the optimizer's from here on
        return make_optimizer(self.twin, self.lr, moments, self.optimizer, self.betas)

    def on_train_start(self) -> None:
        quality = self._quality()
        if self.n_epochs_done == 0:
            self._log_at(0, quality)  # of the base, where the curves begin

    def learning_rate(self, epochs: range) -> Tensor:
        """(n_epochs,) cosine from lr to lr/30 (Loshchilov and Hutter, SGDR, 2017, eq. 5)."""
        lowest = self.lr / 30
        phase = torch.tensor(epochs, dtype=torch.float64) / self.n_epochs * math.pi
        return lowest + (self.lr - lowest) * (1 + phase.cos()) / 2

    def training_step(self, visit: Any, _: int) -> None:
        if not len(visit.target):
            return
        part, optimizer = select_blocks(self.twin, self.optimizers(use_pl_optimizer=False), visit.rows)
        set_step(optimizer, visit.epochs.start * -(-len(self.coords) // self.batch_size))
        losses = self.backend.fit_points(
            part,
            optimizer,
            self.coords,
            visit.target,
            point_order(self.seed, self.level, visit.epochs, len(self.coords)).to(self.device),
            self.batch_size,
            self.learning_rate(visit.epochs),
        )
        first = visit.epochs.start - self.period.start
        self.period_loss[first : first + len(losses)] += losses.sum(1, dtype=torch.float64).cpu()
        self.progress["loss"] = f"{losses[-1].mean().item():.2e}"
        self.epochs_done[visit.rows] = visit.epochs.stop

    @property
    def is_done(self) -> bool:
        """For the blocks of this process."""
        return self.n_epochs_done >= self.n_epochs or self.twin.n_blocks == 0

    def state(self) -> dict[str, Any]:
        """All that training changes, as plain data, between two visits."""
        moments = self.optimizers(use_pl_optimizer=False).state
        return {
            "network": dict(self.network.state_dict()),
            "twin": dict(self.twin.state_dict()),
            "moments": [[moments[p][name] for name in ("exp_avg", "exp_avg_sq")] for p in self.twin.parameters()],
            "training_blocks": self.training_blocks,
            "epochs_done": self.epochs_done,
            "block_sums": self.block_sums,
            "n_epochs_done": self.n_epochs_done,
            "period_loss": self.period_loss,
            "n_diverged": self.n_diverged,
            "block_epochs": self.block_epochs,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a state, before the trainer starts."""
        self.network.load_state_dict(state["network"])
        self.training_blocks = state["training_blocks"]
        self.twin = self.network.select(self.training_blocks)
        self.twin.load_state_dict(state["twin"])
        self.first_moments = state["moments"]
        self.epochs_done = state["epochs_done"]
        self.block_sums = state["block_sums"]
        self.n_epochs_done = state["n_epochs_done"]
        self.period_loss = state["period_loss"]
        self.n_diverged = state["n_diverged"]
        self.block_epochs = state["block_epochs"]
        if not (len(self.epochs_done) == self.twin.n_blocks and len(self.period_loss) == len(self.period)):
            raise TypeError(f"{len(self.epochs_done)} blocks, {len(self.period_loss)} epochs")

    def on_validation_epoch_start(self) -> None:
        self.block_mse = self.coords.new_empty(self.twin.n_blocks)
        self.sound_blocks = self.twin.is_finite()
        self.block_epochs += self.twin.n_blocks * len(self.period)

    def validation_step(self, check: Any, _: int) -> None:
        prediction = self.backend.predict(self.twin, check.rows, self.coords)
        reconstruction = (check.base + prediction if self.residual else prediction).clamp(0, 1)
        target = check.signal - check.base if self.residual else check.signal
        mse = (prediction - target).square().mean(dim=(1, 2)).masked_fill(~self.sound_blocks[check.rows], math.nan)
        self.block_mse[check.rows] = mse
        blocks = self.training_blocks[check.rows]
        sums = self.metric.sums(reconstruction, check.signal, check.true)
        self.block_sums[blocks[mse.isfinite()]] = sums[mse.isfinite()]

    def on_validation_epoch_end(self) -> None:
        """Runs after the callbacks' hooks of this name: the blocks left are those that survived."""
        rates = self.learning_rate(self.period).tolist()
        losses = (self.ranks.sum(self.period_loss) / self.n_training).tolist()
        for epoch, rate, loss in zip(self.period, rates, losses, strict=True):
            self._log_at(epoch + 1, {"train/lr": rate, "train/loss": loss})
        self.n_epochs_done = self.period.stop
        self.epochs_done = torch.full((self.twin.n_blocks,), self.n_epochs_done)
        self.period_loss = torch.zeros(len(self.period), dtype=torch.float64)
        quality = self._quality()
        self._log_at(self.n_epochs_done, quality)
        if self.is_enough(quality[f"val/{self.metric.name}"]):
            self.n_training = 0
        self.log("val/n_training_blocks", float(self.n_training), logger=False)  # for EarlyStopping

    def _quality(self) -> dict[str, float]:
        """Of the level, as it stands in all processes."""
        mine = self.block_sums.cpu().sum(0, dtype=torch.float64)
        *sums, n_training = self.ranks.sum(torch.tensor([*mine, self.twin.n_blocks])).tolist()
        self.n_training = int(n_training)
        quality = self.metric.value(*(self.other_sums + torch.tensor(sums)).tolist())
        self.progress |= {self.metric.name: f"{quality:.5g}", "blocks": str(self.n_training)}
        values = {f"val/{self.metric.name}": quality, "val/n_training_blocks": self.n_training}
        if self.ranks.size > 1:
            most, least = self.ranks.max(self.twin.n_blocks), -self.ranks.max(-self.twin.n_blocks)
            values["val/spread_of_blocks"] = most - least
        return values

    def _log_at(self, epoch: int, values: dict[str, float]) -> None:
        if self.logger is not None:
            self.logger.log_metrics(values, step=self.first_step + epoch)


class BlockPruning(Callback):
    """Blocks leave as they converge.

    After every validation
    - the parameters of the training blocks are copied to their rows of the level's network;
    - blocks that have diverged are not: they stay what they were at the last validation, or where there was none are
      silenced, so that the base is kept; either way they stop training;
    - blocks whose mean square error over all their points is at most loss_thr stop training;
    - the survivors' parameters and moments are copied to a shrunken twin network and optimizer.
    """

    def __init__(self, loss_thr: float):
        self.loss_thr = loss_thr

    def on_validation_epoch_end(self, trainer: Trainer, module: LevelModule) -> None:
        sound = module.block_mse.isfinite()
        rows = sound.nonzero().squeeze(1)
        module.network.write_(module.training_blocks[rows], module.twin.select(rows))
        module.n_diverged += len(sound) - len(rows)
        if module.n_epochs_done == 0:
            module.network.silence_(module.training_blocks[~sound])
        survivors = (sound & (module.block_mse > self.loss_thr)).nonzero().squeeze(1)
        if len(survivors) < module.twin.n_blocks:
            module.twin, optimizer = select_blocks(module.twin, trainer.optimizers[0], survivors)
            trainer.optimizers = [optimizer]
            module.training_blocks = module.training_blocks[survivors]


class StateSaver(Callback):
    """Saves where training stands: after every validation, and at the end of a visit where the last time was long ago.

    Inputs
        save: called in the first process with the `LevelModule.state()` of all blocks of the part
        every: seconds
        stop: asked as often as it may save; training then ends with Interrupted, its state saved
    """

    def __init__(self, save: Callable[[dict[str, Any]], None], every: float, stop: StopSignals):
        self.save = save
        self.every = every
        self.stop = stop
        self.saved_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LevelModule) -> None:
        self.stop.listen()  # Lightning has its own way with SIGTERM, which ends without saving

    def on_train_batch_end(self, trainer: Trainer, module: LevelModule, outputs: Any, visit: Any, _: int) -> None:
        if trainer.is_last_batch:
            return  # validation follows, without which the period would not end when training goes on
        self._save(module, time.monotonic() - self.saved_at > self.every)

    def on_validation_end(self, trainer: Trainer, module: LevelModule) -> None:
        if module.n_training and module.n_epochs_done < module.n_epochs:  # else the level's checkpoint follows
            self._save(module, True)

    def _save(self, module: LevelModule, is_due: bool) -> None:
        stop = self.stop()
        if stop or module.ranks.max(is_due):
            states = module.ranks.gather(module.state())
            if states is not None:
                self.save(merge_states(states))
            self.saved_at = time.monotonic()
        if stop:
            raise Interrupted


def merge_states(states: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of a part from those of the processes that share it out: of k processes, number r has blocks r, r + k,
    ..."""
    if len(states) == 1:
        return states[0]
    blocks = torch.cat([state["training_blocks"] * len(states) + rank for rank, state in enumerate(states)])
    order = blocks.argsort()

    def training(values: Sequence[Tensor]) -> Tensor:
        return torch.cat(values)[order]

    return {
        "network": {name: interleave([s["network"][name] for s in states]) for name in states[0]["network"]},
        "twin": {name: training([s["twin"][name] for s in states]) for name in states[0]["twin"]},
        "moments": [
            [training(moment) for moment in zip(*pairs, strict=True)]
            for pairs in zip(*(s["moments"] for s in states), strict=True)
        ],
        "training_blocks": blocks[order],
        "epochs_done": training([s["epochs_done"] for s in states]),
        "block_sums": interleave([s["block_sums"] for s in states]),
        "n_epochs_done": states[0]["n_epochs_done"],
        "period_loss": sum(s["period_loss"] for s in states),
        "n_diverged": sum(s["n_diverged"] for s in states),
        "block_epochs": sum(s["block_epochs"] for s in states),
    }


def split_state(state: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    """What one of so many processes takes over from the state of a part."""
    mine = (state["training_blocks"] % size == rank).nonzero().squeeze(1)
    mine = mine[state["epochs_done"][mine].argsort(stable=True)]  # those that are as far lie together
    first = rank == 0  # takes over the sums
    return {
        "network": {name: tensor[rank::size].contiguous() for name, tensor in state["network"].items()},
        "twin": {name: tensor[mine] for name, tensor in state["twin"].items()},
        "moments": [[moment[mine] for moment in pair] for pair in state["moments"]],
        "training_blocks": torch.div(state["training_blocks"][mine], size, rounding_mode="floor"),
        "epochs_done": state["epochs_done"][mine],
        "block_sums": state["block_sums"][rank::size],
        "n_epochs_done": state["n_epochs_done"],
        "period_loss": state["period_loss"] if first else torch.zeros_like(state["period_loss"]),
        "n_diverged": state["n_diverged"] if first else 0,
        "block_epochs": state["block_epochs"] if first else 0,
    }


def interleave(parts: list[Tensor]) -> Tensor:
    """The rows that k processes have of one tensor, number r rows r, r + k, ..., as that tensor."""
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


class LevelProgressBar(ProgressBar):
    """One bar a level: epochs, loss, PSNR, blocks left."""

    def __init__(self, level: int):
        super().__init__()
        self.level = level
        self.bar: tqdm | None = None

    def disable(self) -> None:
        """Called by Lightning on all processes but the first."""
        self.bar = tqdm(disable=True)

    def on_train_start(self, trainer: Trainer, module: LevelModule) -> None:
        self.bar = self.bar or tqdm(
            desc=f"level {self.level}",
            total=module.n_epochs,
            dynamic_ncols=True,
            initial=module.n_epochs_done,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| epoch {n:.0f}/{total} [{elapsed}<{remaining}{postfix}]",
        )

    def on_train_batch_end(self, trainer: Trainer, module: LevelModule, outputs: Any, visit: Any, _: int) -> None:
        self.bar.set_postfix(module.progress, refresh=False)
        done = len(visit.epochs) * len(visit.target) / max(1, module.twin.n_blocks)
        self.bar.update(min(done, self.bar.total - self.bar.n))

    def on_validation_end(self, trainer: Trainer, module: LevelModule) -> None:
        self.bar.set_postfix(module.progress)

    def on_train_end(self, trainer: Trainer, module: LevelModule) -> None:
        self.bar.close()

    def on_exception(self, trainer: Trainer, module: LevelModule, exception: BaseException) -> None:
        if self.bar is not None:
            self.bar.close()


class LevelImages(Callback):
    """After every validation, pictures of the level for TensorBoard, at most 1024 pixels long.

    image/l{j} the reconstruction, laplacian/l{j} what the networks add to the base (grey is nothing, black and white
    the largest residual of the level), training_blocks/l{j} the reconstruction, dark where no block trains any more. Of
    a volume its middle slice across z, y pointing up.

    Inputs
        index: j
        level: whose network is the one that the module trains
        blocks: (n_blocks,) indices in the grid of the module's blocks
        base: gives a window of the upsampled coarser level, (c, *window_size)
        b_chunks: blocks evaluated at once, at most
    """

    def __init__(self, index: int, level: Level, blocks: Tensor, base: Callable[[Window], Tensor], b_chunks: int):
        self.index = index
        self.level = level
        self.blocks = blocks
        self.b_chunks = b_chunks
        middle = level.size[0] // 2
        self.window = whole(level.size)
        self.layer: int | None = None  # of blocks, that the slice lies in
        if len(level.size) == 3:
            self.window = ((middle, middle + 1), *self.window[1:])
            self.layer = middle // level.patch_size[0]
        self.base = base(self.window)

    def on_validation_end(self, trainer: Trainer, module: LevelModule) -> None:
        level, base = self.level, self.base.to(module.device)
        image = refine(level, base, self.window, b_chunks=self.b_chunks, backend=module.backend)
        training = torch.zeros_like(level.active)
        training[self.blocks[module.training_blocks.cpu()]] = True
        training = training.view(level.active_grid.shape)
        if self.layer is not None:
            image, base, training = image[:, 0], base[:, 0], training[self.layer]
        colours = n_colours(len(image))
        image, base = thumbnail(image[:colours]), thumbnail(base[:colours])
        largest = level.network.amplitude.max().item()
        figures = {
            "image": image,
            "laplacian": signed(image - base, largest),
            "training_blocks": highlight_blocks(image, level.size[-2:], level.patch_size[-2:], training),
        }
        for name, figure in figures.items():
            upright = figure if self.layer is None else figure.flip(1)
            trainer.logger.experiment.add_image(f"{name}/l{self.index}", upright, module.n_epochs_done)
