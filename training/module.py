"""The LightningModule that trains the networks of a part of a level."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.block_networks import BlockNetworks, fit_points, make_optimizers, select_all
from models.ops import Backend
from models.ops.optimizers import moments_of, set_step
from models.starts import fit_last_layer
from training.datamodule import Check, Visit
from training.lightning import LightningModule
from training.spec import LevelSpec
from training.state import PartState
from training.stop import Enough
from utils.bounds import misfit
from utils.metrics import Metric
from utils.ranks import Ranks
from utils.rng import even_order, point_order

if TYPE_CHECKING:
    from training.curves import LevelCurves


class LevelModule(LightningModule):
    """Trains the networks of a part of one level's blocks, in one of the processes that share the part out.

    `networks` holds those of all blocks of the part. `twin` holds those that still train: the networks of the blocks
    `survivors`, in any order. One of Lightning's epochs is a *period*: the epochs between two validations. A
    training batch is a *visit*, a validation batch a *check*.

    The first process logs, epoch by epoch: lr; loss, the mean square error of the blocks that train; and at every
    validation psnr in dB or iou, of the level's reconstruction; n_training_blocks; and, where there are several
    processes, spread_of_blocks, the difference between the largest and the smallest share of training blocks.

    Inputs
        networks: of the blocks, initialised
        coords: (n_points, n_in) encoded coordinates of a block's points
        spec: of the level
        backend: trains and evaluates the networks
        metric: judges the level
        block_sums: (n_blocks, 2) the metric's sums for the base in every block
        other_sums: (2,) its sums for all blocks of the level that are not in the part
        ranks: the processes
        enough: asked after every validation; training ends when it says so
    """

    def __init__(
        self,
        networks: BlockNetworks,
        coords: Tensor,
        spec: LevelSpec,
        *,
        backend: Backend,
        metric: Metric,
        block_sums: Tensor,
        other_sums: Tensor,
        ranks: Ranks,
        enough: Enough,
    ):
        super().__init__()
        self.automatic_optimization = False
        n_blocks = networks.n_blocks
        self.networks = networks
        self.twin = networks.select(torch.arange(n_blocks))
        self.register_buffer("coords", coords)
        self.register_buffer("survivors", torch.arange(n_blocks))
        self.register_buffer("block_sums", block_sums)
        self.register_buffer("silent", torch.zeros(n_blocks, dtype=torch.bool))
        self.register_buffer("block_mse", torch.empty(0))  # of the twin's networks, at the last validation
        self.register_buffer("is_sound", torch.empty(0))  # whether their parameters were numbers then
        self.spec = spec
        self.backend = backend
        self.metric = metric
        self.other_sums = other_sums
        self.ranks = ranks
        self.enough = enough
        self.curves: LevelCurves | None = None  # of the level, in the first process
        self.n_epochs_done = 0
        self.epochs_done = torch.zeros(n_blocks, dtype=torch.int64)
        self.period_loss = torch.zeros(len(self.period), dtype=torch.float64)
        self.n_diverged = 0
        self.block_epochs = 0
        self.n_training = 0  # in all processes
        self.ends_early = False  # since it is good enough, or its time is over
        self.first_moments: list[list[list[Tensor]]] | None = None  # of the twin, where training goes on
        self.quality = math.nan  # of the level, at the last validation

    @property
    def period(self) -> range:
        """The epochs between the last validation and the next."""
        end = (self.n_epochs_done // self.spec.val_freq + 1) * self.spec.val_freq
        return range(self.n_epochs_done, min(self.spec.n_epochs, end))

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train for the blocks of this process."""
        return self.n_epochs_done >= self.spec.n_epochs or self.twin.n_blocks == 0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        moments, self.first_moments = self.first_moments, None  # the optimizers' from here on
        return make_optimizers(self.twin, self.spec.lr, moments, self.spec.optimizer, self.spec.betas)

    def on_train_start(self) -> None:
        values = self._judge()
        if self.n_epochs_done == 0:
            self._log_at(0, values)  # of the base, where the curves begin
        elif self.enough.is_reached(self.spec.index, self.quality):
            self.ends_early = self.trainer.should_stop = True  # it was stopped before its checkpoint was written

    def learning_rate(self, epochs: range) -> Tensor:
        """(n_epochs,) cosine from lr to lr/30 (Loshchilov and Hutter, SGDR, 2017, eq. 5)."""
        lowest = self.spec.lr / 30
        phase = torch.tensor(epochs, dtype=torch.float64) / self.spec.n_epochs * math.pi
        return lowest + (self.spec.lr - lowest) * (1 + phase.cos()) / 2

    def _order(self, epochs: range) -> Tensor:
        """(n_epochs, n_points) in which each epoch visits the points of every block."""
        if self.spec.is_even:
            return even_order(self.spec.seed, self.spec.index, epochs, self.spec.patch_size)
        return point_order(self.spec.seed, self.spec.index, epochs, len(self.coords))

    def training_step(self, visit: Visit, _: int) -> None:
        if not len(visit.target):
            return
        part, optimizers = select_all(self.twin, self.trainer.optimizers, visit.index)
        for optimizer in optimizers:
            set_step(optimizer, visit.epochs.start * -(-len(self.coords) // self.spec.batch_size))
        order = self._order(visit.epochs).to(self.device)
        if self.spec.starts_fitted and visit.epochs.start == 0:
            for network, _, where in part.of_groups():
                fit_last_layer(self.backend, network, self.coords, visit.target[where], order[0])
        losses = fit_points(
            self.backend,
            part,
            optimizers,
            self.coords,
            visit.target,
            order,
            self.spec.batch_size,
            self.learning_rate(visit.epochs),
        )
        first = visit.epochs.start - self.period.start
        self.period_loss[first : first + len(losses)] += losses.cpu().sum(1, dtype=torch.float64)
        self.epochs_done[visit.index] = visit.epochs.stop

    def state(self) -> PartState:
        """All that training changes, between two visits."""
        groups = zip(self.twin.groups, self.trainer.optimizers, strict=True)
        return PartState(
            group=self.networks.group,
            network=self.networks.tensors(),
            twin=self.twin.tensors(),
            moments=[moments_of(network, optimizer) for network, optimizer in groups],
            survivors=self.survivors,
            epochs_done=self.epochs_done,
            block_sums=self.block_sums,
            silent=self.silent,
            n_epochs_done=self.n_epochs_done,
            period_loss=self.period_loss,
            n_diverged=self.n_diverged,
            block_epochs=self.block_epochs,
        )

    def load_state(self, state: PartState) -> None:
        """Take over a state, before the trainer starts; TypeError where it does not fit together."""
        if not torch.equal(state.group, self.networks.group):
            raise TypeError("blocks of other groups")
        self.networks.load_tensors(state.network)
        self.twin = self.networks.select(state.survivors)
        self.twin.load_tensors(state.twin)
        self.first_moments = state.moments
        plain = ("survivors", "epochs_done", "block_sums", "silent")
        for name in (*plain, "n_epochs_done", "period_loss", "n_diverged", "block_epochs"):
            setattr(self, name, getattr(state, name))
        n_blocks, n_training = self.networks.n_blocks, self.twin.n_blocks
        shapes = {
            "block_sums": (n_blocks, 2),
            "silent": (n_blocks,),
            "epochs_done": (n_training,),
            "period_loss": (len(self.period),),
        }
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != shape:
                raise TypeError(f"{name} {tuple(getattr(self, name).shape)}, and not {shape}")
        for network, of_group in zip(self.twin.groups, state.moments, strict=True):
            for parameter, moments in zip(network.parameters(), of_group, strict=True):
                if [moment.shape for moment in moments] != [parameter.shape] * 2:
                    raise TypeError(f"moments of a parameter {tuple(parameter.shape)}")
        if not all(type(count) is int for count in (self.n_epochs_done, self.n_diverged, self.block_epochs)):
            raise TypeError("counts that are not whole numbers")

    def on_validation_epoch_start(self) -> None:
        self.block_mse = self.coords.new_empty(self.twin.n_blocks)
        self.is_sound = self.twin.is_finite()
        self.block_epochs += self.twin.n_blocks * len(self.period)

    def validation_step(self, check: Check, _: int) -> None:
        prediction = self.twin.predict(self.backend, check.index, self.coords)
        reconstruction = (check.base + prediction if self.spec.residual else prediction).clamp(0, 1)
        error = misfit(prediction, check.wanted)
        mse = error.square().mean(dim=(1, 2)).masked_fill(~self.is_sound[check.index], math.nan)
        self.block_mse[check.index] = mse
        blocks = self.survivors[check.index]
        sums = self.metric.sums(reconstruction, check.signal, check.true)
        self.block_sums[blocks[mse.isfinite()]] = sums[mse.isfinite()]

    def on_validation_epoch_end(self) -> None:
        """Runs after the callbacks' hooks of this name, so the twin holds the survivors of pruning."""
        rates = self.learning_rate(self.period).tolist()
        losses = (self.ranks.sum(self.period_loss) / self.n_training).tolist()
        for epoch, rate, loss in zip(self.period, rates, losses, strict=True):
            self._log_at(epoch + 1, {"lr": rate, "loss": loss})
        self.n_epochs_done = self.period.stop
        self.epochs_done = torch.full((self.twin.n_blocks,), self.n_epochs_done)
        self.period_loss = torch.zeros(len(self.period), dtype=torch.float64)
        self._log_at(self.n_epochs_done, self._judge())
        self.ends_early = self.enough(self.spec.index, self.quality)
        self.trainer.should_stop = self.ends_early or self.n_training == 0

    def _judge(self) -> dict[str, float]:
        """How good the level is, and how many blocks train, in all processes; as values of its curves."""
        mine = self.block_sums.cpu().sum(0, dtype=torch.float64)
        *sums, n_training = self.ranks.sum(torch.tensor([*mine, self.twin.n_blocks])).tolist()
        self.n_training = int(n_training)
        self.quality = self.metric.value(*(self.other_sums + torch.tensor(sums)).tolist())
        values = {self.metric.name: self.quality, "n_training_blocks": self.n_training}
        if self.ranks.size > 1:
            most, least = self.ranks.max(self.twin.n_blocks), -self.ranks.max(-self.twin.n_blocks)
            values["spread_of_blocks"] = most - least
        return values

    def _log_at(self, epoch: int, values: dict[str, float]) -> None:
        if self.curves is not None:
            self.curves.log(epoch, values)
