"""What the options say about one level."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from models.block_network import BlockNetwork
from models.encoding import encoded_width, frequencies, nested
from models.level import Level
from models.shape import NetworkShape
from opt import epochs_of_level, per_axis
from options.presets import ARCHITECTURES, RIDGE_EPOCHS, steps_for
from utils.allocation import is_whole


@dataclass(frozen=True)
class LevelSpec:
    """
    index: of the level, 0 the finest
    patch_size: pixels of a block along each axis
    residual: networks predict the difference to the upsampled coarser level, else the signal itself
    fill: how blocks without a network show the coarser level, of `utils.pyramid.FILLS`
    frequencies: of the positional encoding, or None
    shapes: of the networks, each of which has one of them; in the order of their units
    a: initial width of their activations
    weight_sharing: what networks start from: none, copy or inherit
    seed: key of the initial weights and of the order of points, together with the index
    starts_fitted: networks start from a wider draw and with last layers that are fitted to the target
    n_epochs, val_freq: epochs in all, and between validations
    is_even: batches are spread evenly over a block
    batch_size: points of a block in a step
    optimizer, betas, lr: of the steps; the learning rate falls to lr/30 by a cosine over the epochs
    is_clipped: where the signal is 0 or 1, networks may go beyond
    loss_thr: mean square error above which a block gets a network
    stop_loss: mean square error at which a block stops training
    loss_db: decibels that rounding the networks may cost; 0 for networks that are not rounded
    price: squared error of a signal in [0, 1], summed over points and channels, that each bit of a network of cosines
        must save; 0 where that is not known yet, and for other networks
    """

    index: int
    patch_size: tuple[int, ...]
    residual: bool
    fill: str
    frequencies: tuple[float, ...] | None
    shapes: tuple[NetworkShape, ...]
    a: float
    weight_sharing: str
    starts_fitted: bool
    seed: int
    n_epochs: int
    val_freq: int
    is_even: bool
    batch_size: int
    optimizer: str
    betas: tuple[float, float]
    lr: float
    is_clipped: bool
    loss_thr: float
    stop_loss: float
    loss_db: float
    price: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether the level is a picture by itself (`utils.allocation`)."""
        return (len(self.shapes) == 1 and not self.is_compact) or is_whole(self.index)

    @property
    def is_compact(self) -> bool:
        """Networks are of cosines, and chosen by the price of their bits; others are trained by gradients."""
        return self.shapes[0].kind == "cosines"

    def level(self, size: tuple[int, ...], group: Tensor, networks: tuple[BlockNetwork, ...]) -> Level:
        """The level of this size with networks of these shapes, group by group."""
        return Level(**self.form(size), group=group, networks=networks)

    def form(self, size: tuple[int, ...]) -> dict[str, Any]:
        """What a level of this size is, besides its networks: fields of `Level`."""
        return dict(
            size=size,
            patch_size=self.patch_size,
            frequencies=self.frequencies,
            residual=self.residual,
            fill=self.fill,
            is_whole=self.is_whole,
        )


def specify_levels(options: Namespace, n_dims: int, n_channels: int) -> list[LevelSpec]:
    """Every level of a run, the finest first."""
    return [_specify(options, n_dims, n_channels, index) for index in range(options.n_scales)]


def _specify(options: Namespace, n_dims: int, n_channels: int, index: int) -> LevelSpec:
    residual = options.pyr == "laplacian" and index < options.n_scales - 1
    encoding = None
    if options.use_pe:
        encoding = frequencies(options.n_freq, options.frequencies)
        if options.weight_sharing == "inherit":
            encoding = nested(encoding, options.n_scales - 1 - index)
    patch_size = per_axis(options.patch_size, n_dims)
    shapes = tuple(
        NetworkShape(
            n_in=encoded_width(n_dims, encoding),
            n_out=n_channels,
            n_layers=options.n_layers,
            n_hidden=n_hidden,
            **_architecture(options, residual, patch_size),
        )
        for n_hidden in options.n_hidden
    )
    n_epochs = epochs_of_level(options.num_epochs, index)
    batch_size, betas = steps_for(options.task, options.loss, prod(patch_size), n_epochs)
    return LevelSpec(
        index=index,
        patch_size=patch_size,
        residual=residual,
        fill=options.fill,
        frequencies=encoding,
        shapes=shapes,
        a=options.a,
        weight_sharing=options.weight_sharing,
        starts_fitted=options.start == "ridge" and options.weight_sharing == "none" and n_epochs <= RIDGE_EPOCHS,
        seed=options.seed,
        n_epochs=n_epochs,
        val_freq=options.val_freq,
        is_even=options.order == "even",
        batch_size=options.batch_size or batch_size,
        optimizer=options.optimizer,
        betas=tuple(options.betas or betas),
        lr=options.lr,
        is_clipped=options.loss == "clipped",
        loss_thr=options.loss_thr,
        stop_loss=options.loss_thr * options.stop_ratio,
        loss_db=options.loss_db or 0.0,
        price=vars(options)["lambda"] or 0.0,
    )


def _architecture(options: Namespace, residual: bool, patch_size: tuple[int, ...]) -> Mapping[str, Any]:
    """What `--arch` and `--omega` mean for the shape of a network."""
    architecture = {"output": "sine" if residual else "sigmoid"} | ARCHITECTURES[options.arch]
    if options.arch == "cosines":
        architecture["lengths"] = patch_size
    if "omega" in architecture:
        architecture["omega"] = options.omega or architecture["omega"][options.task]
    return architecture
