"""The options of a method: the pyramid, the networks and their training."""

from options.defaults import default
from options.presets import (
    ARCHITECTURES,
    FEW_EPOCHS,
    ORDERS,
    RIDGE_EPOCHS,
    STARTS,
)
from utils.cli import (
    Options,
    add_choice,
    add_flag,
    not_negative,
    option_type,
    positive,
    whole_number,
)

MOST_PIXELS = 2**20
"""Along an axis."""

_MOST_EPOCHS = 10**7  # each has a place in the curves


def add_pyramid(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "--n_scales",
        type=whole_number(1, 64),
        metavar="N",
        help="levels of the pyramid (default: from the size; seed 1)",
    )
    add(
        "--patch_size",
        type=whole_number(1, MOST_PIXELS),
        nargs="+",
        metavar="W H",
        help=f"pixels of a block, W H (W H D) or one number; smaller ones suit finer detail {default('patch_size')}",
    )
    add_choice(
        add_to,
        "--pyr",
        ["laplacian", "gaussian"],
        help=f"what finer levels learn: the residual or the signal {default('pyr')}",
    )
    add_choice(
        add_to,
        "--fill",
        ["spline", "lanczos"],
        help=f"how the coarser level is upsampled where a block has no network; lanczos is sharper {default('fill')}",
    )


def add_networks(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "--n_hidden",
        type=whole_number(1, 4096),
        nargs="+",
        metavar="N ...",
        help=f"units of a hidden layer; of several, each block gets what suits it {default('n_hidden')}",
    )
    add(
        "--n_parameters",
        type=whole_number(1),
        metavar="N",
        help="of several --n_hidden, give blocks those with which all networks have at most so many parameters "
        "(default: by --loss_thr, up to one a pixel, or a third of the values if that is more)",
    )
    add(
        "--n_layers",
        type=whole_number(2, 100),
        metavar="N",
        help=f"linear layers; 3 are enough with --use_pe {default('n_layers')}",
    )
    _add_encoding(add_to)


def _add_encoding(add_to: Options) -> None:
    add = add_to.add_argument
    add_flag(add_to, "--use_pe", f"encode positions by sines and cosines {default('use_pe')}", default=None)
    add(
        "--n_freq",
        type=whole_number(1, 64),
        metavar="N",
        help=f"frequencies of the encoding; larger blocks need more {default('n_freq')}",
    )
    add_choice(
        add_to,
        "--frequencies",
        ["octaves", "harmonics"],
        help="spacing of the encoding's frequencies: 1, 2, 4, ... or 3, 6, 9, ... radians over half a block "
        f"{default('frequencies')}",
    )
    add_choice(
        add_to,
        "--arch",
        [name for name in ARCHITECTURES if name != "cosines"],
        help="hidden activations: gaussian, with a sine or sigmoid output; centred, Gaussians minus 1/2, which learn "
        "faster; sine, with a linear output (SIREN); gabor, products with Gabor filters of the positions (a "
        f"multiplicative filter network) {default('arch')}",
    )
    add(
        "--omega",
        type=positive(),
        metavar="X",
        help="frequency of --arch sine (default: 150, volumes 30), or scale of the initial frequencies of --arch gabor "
        "(default: 10, volumes 5)",
    )
    add_choice(
        add_to,
        "--weight_sharing",
        ["none", "copy", "inherit"],
        help="what networks start from: none, random weights; copy, the weights of the coarser network at that place, "
        "halved for images; inherit, its features exactly (finer levels then have a wider encoding) "
        f"{default('weight_sharing')}",
    )
    add_choice(
        add_to,
        "--start",
        STARTS,
        help=f"ridge: levels of at most {RIDGE_EPOCHS} epochs start from a wider draw, and from last layers that ridge "
        f"regression has fitted to the signal {default('start')}",
    )
    add("--a", type=positive(), metavar="X", help=f"initial width of the activations {default('a')}")


def add_steps(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "--num_epochs",
        type=whole_number(1, _MOST_EPOCHS),
        nargs="+",
        metavar="N ...",
        help="epochs of each level, coarsest first; the first value is repeated for coarser levels that are not listed "
        "(default: from the quality and the size; seed 500)",
    )
    add(
        "--batch_size",
        type=whole_number(1),
        metavar="N",
        help="points of a block in a batch, at most all of them (default: an eighth, of occupancy a fourth; "
        f"in levels of at most {FEW_EPOCHS} epochs a sixteenth; seed 256)",
    )
    add_choice(
        add_to,
        "--order",
        ORDERS,
        help="of a block's points in an epoch; even: those of a batch are spread evenly over the block "
        f"{default('order')}",
    )
    add_choice(
        add_to,
        "--loss",
        ["plain", "clipped"],
        help="the mean square error; clipped: of what is decoded: where the signal is 0 or 1, networks may go beyond "
        f"{default('loss')}",
    )
    add(
        "--lr",
        type=positive(),
        metavar="X",
        help=f"learning rate; it falls to a thirtieth along a cosine over each level {default('lr')}",
    )
    add_choice(
        add_to,
        "--optimizer",
        ["radam", "adam", "nradam"],
        help=f"optimizer; nradam is RAdam with Nesterov's momentum {default('optimizer')}",
    )
    add(
        "--betas",
        type=option_type(float, lambda beta: 0 <= beta < 1, "a number from 0 to below 1"),
        nargs="+",
        metavar="X Y",
        help="decay of the optimizer's two moments (default: 0.95 0.99, volumes 0.9 0.99, in levels of at most "
        f"{FEW_EPOCHS} epochs 0.9 0.95; seed 0.9 0.999)",
    )
    add(
        "--val_freq",
        type=whole_number(1, _MOST_EPOCHS),
        metavar="N",
        help=f"epochs between validations, after which converged blocks stop training {default('val_freq')}",
    )


def add_ends(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "--loss_thr",
        type=not_negative(),
        metavar="X",
        help="mean square error up to which a block needs no network, or no training; 1e-4 is 40 dB; of several "
        f"--n_hidden, what each parameter has to lower that of a pixel by {default('loss_thr')}",
    )
    add(
        "--stop_ratio",
        type=not_negative(),
        metavar="X",
        help="fraction of loss_thr at which a block stops training; below 1, networks go on improving "
        f"{default('stop_ratio')}",
    )
    add(
        "--target_psnr",
        type=positive(1000),
        metavar="DB",
        help="PSNR in dB at which a run ends; with --preset compact, that of its file",
    )
    add("--target_iou", type=positive(1), metavar="X", help="the same for a mesh: the IoU of its voxels")
    add(
        "--max_seconds",
        type=positive(1e9),
        metavar="S",
        help="time after which a run ends; finer levels are left without networks",
    )
    add(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        default=0,
        metavar="N",
        help="random seed of the initial weights and of the order of points",
    )
