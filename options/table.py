"""Every option of train.py, in groups, with its type and its help."""

from datasets.tasks import TASKS, VALUES
from options.defaults import default
from options.presets import (
    ARCHITECTURES,
    FEW_EPOCHS,
    LOSS_DB,
    N_VOXELS,
    ORDERS,
    PRESETS,
    QUALITIES,
    RIDGE_EPOCHS,
    STARTS,
)
from utils.cli import (
    MOST,
    OneLineParser,
    Options,
    add_backend_option,
    add_choice,
    add_flag,
    not_negative,
    option_type,
    positive,
    text,
    whole_number,
)

_MOST_PIXELS = 2**20  # along an axis
_MOST_EPOCHS = 10**7  # each has a place in the curves
_RARE = (
    *("loss_db", "transfer", "nodata", "time", "channels"),
    *("task", "pyr", "n_freq", "frequencies", "arch", "omega", "weight_sharing", "start", "a", "order", "fill", "loss"),
    *("batch_size", "lr", "optimizer", "betas", "val_freq", "stop_ratio", "save_every", "log_image", "b_chunks"),
    *("max_memory", "max_blocks"),
)


def make_parser() -> OneLineParser:
    """The parser of the command line. Options of a method have no default there: it depends on the method."""
    parser = OneLineParser(
        prog="train.py",
        usage="--path FILE",
        description="Fit a picture, a volume, or the voxels of a mesh, with a Laplacian pyramid of tiny per-block "
        "MLPs. Without any option, a picture that ships with the project is fitted.",
        rare=_RARE,
    )
    _add_signal(parser.add_argument_group("signal"))
    _add_method(parser.add_argument_group("method"))
    _add_pyramid(parser.add_argument_group("pyramid"))
    _add_networks(parser.add_argument_group("networks"))
    training = parser.add_argument_group("training")
    _add_steps(training)
    _add_ends(training)
    _add_run(parser.add_argument_group("run"))
    parser.add_help_options()
    return parser


def _add_signal(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "--path",
        type=text,
        metavar="FILE",
        help="what to fit: a picture; a mesh, or a grid of its voxels (.npy); a volume (.nii, .npy, a folder)",
    )
    add("--N", type=whole_number(1, 2**20), metavar="N", help=f"voxels along each axis of a mesh (default: {N_VOXELS})")
    add_choice(
        add_to,
        "--values",
        VALUES,
        help="what the voxels of a mesh hold: occupancy, or the distance to the surface, whose fit is smooth (default: "
        "distance; other presets than best occupancy)",
    )
    add(
        "--input_size",
        type=whole_number(1, _MOST_PIXELS),
        nargs="+",
        metavar="W H",
        help="resize a picture to this size, or to a square; of MINER_pl's volumes, the size of the file, W H D "
        "(default: the file's own)",
    )
    add_choice(
        add_to,
        "--transfer",
        ["linear", "log", "pq"],
        help="the curve by which floating point values lie in [0, 1], where they are fitted (default: linear; of high "
        "dynamic range log, of extreme ranges pq)",
    )
    add_flag(add_to, "--nodata", "take values that are no numbers, or infinite, for the lowest one")
    add(
        "--time",
        type=option_type(
            lambda word: "all" if word == "all" else int(word),
            lambda time: time == "all" or 1 <= time <= MOST,
            "a whole number from 1 on, or all",
        ),
        metavar="N",
        help="of a volume over time, which one, from 1 on, or all as channels",
    )
    add("--channels", type=whole_number(1), nargs="+", metavar="N", help="of a volume, from 1 on (default: all)")
    add_choice(
        add_to, "--task", TASKS, help="the kind of the signal; a TIFF of slices is a volume (default: by the file)"
    )


def _add_method(add_to: Options) -> None:
    add_choice(
        add_to,
        "--quality",
        QUALITIES,
        help="draft takes a tenth of the epochs, high several times as long; the epochs and more follow from it "
        "(default: normal)",
    )
    add_choice(
        add_to,
        "--preset",
        PRESETS,
        help="a method, whose settings apply unless they are given: seed is MINER_pl's, paper that of the MINER paper "
        "(default: best; seed where options of the pyramid, the networks or the training are given)",
    )


def _add_pyramid(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "--n_scales",
        type=whole_number(1, 64),
        metavar="N",
        help="levels of the pyramid (default: from the size; seed 1)",
    )
    add(
        "--patch_size",
        type=whole_number(1, _MOST_PIXELS),
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


def _add_networks(add_to: Options) -> None:
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
        ARCHITECTURES,
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


def _add_steps(add_to: Options) -> None:
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


def _add_ends(add_to: Options) -> None:
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
        help="PSNR in dB at which a run ends, checked after every validation",
    )
    add("--target_iou", type=positive(1), metavar="X", help="the same for a mesh: the IoU of its voxels")
    add(
        "--max_seconds",
        type=positive(1e9),
        metavar="S",
        help="time after which a run ends, at the next validation; finer levels are left without networks",
    )
    add(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        default=0,
        metavar="N",
        help="random seed of the initial weights and of the order of points",
    )


def _add_pack(add_to: Options) -> None:
    add_flag(
        add_to,
        "--pack",
        "also leave one small file, ckpts/NAME/NAME.miner, of networks that are rounded level by level; pictures take "
        "three times the epochs",
    )
    add_to.add_argument(
        "--loss_db",
        type=not_negative(100),
        metavar="DB",
        help=f"with --pack, of PSNR that rounding may cost a level; 0 rounds nothing (default: {LOSS_DB:g})",
    )


def _add_run(add_to: Options) -> None:
    add = add_to.add_argument
    add(
        "--exp_name",
        type=text,
        metavar="NAME",
        help="checkpoints go to ckpts/NAME, curves to logs/NAME (default: the file's name; seed exp)",
    )
    add_flag(add_to, "--overwrite", "replace an earlier run of the same name")
    add_flag(add_to, "--resume", "go on with an interrupted run; it ends as if it had never stopped")
    add_flag(add_to, "--quiet", "print notes and errors alone: no progress, no plan and no result")
    _add_pack(add_to)
    add_flag(add_to, "--dry_run", "only print the most blocks, parameters and memory that the run can take")
    add("--config", type=text, metavar="FILE", help="YAML file of options; the command line overrides it")
    add_choice(
        add_to,
        "--accelerator",
        ["auto", "cpu", "gpu", "mps"],
        default="auto",
        help="where to train; auto is a CUDA GPU, or else the CPU",
    )
    add(
        "--devices",
        type=whole_number(1, 1024),
        default=1,
        metavar="N",
        help="processes that share the blocks; each has a device of its own",
    )
    add_backend_option(add_to)
    add(
        "--max_memory",
        type=positive(1e6),
        metavar="GIB",
        help="memory for each process; levels that do not fit are kept in mapped files (default: what is free)",
    )
    add(
        "--max_blocks",
        type=whole_number(1),
        metavar="N",
        help="blocks trained at once on each device; the others wait (default: as many as fit)",
    )
    add(
        "--b_chunks",
        type=whole_number(1),
        default=16384,
        metavar="N",
        help="blocks evaluated at once in validation and decoding; fewer save memory",
    )
    add(
        "--save_every",
        type=not_negative(1e9),
        default=300.0,
        metavar="S",
        help="seconds between saves within a level, in addition to every validation",
    )
    add_flag(add_to, "--log_image", "show pictures of every validation in TensorBoard")
