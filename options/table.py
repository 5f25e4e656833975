"""Every option of train.py, in groups, with its type and its help."""

from datasets.tasks import TASKS, VALUES
from options.method import MOST_PIXELS, add_ends, add_networks, add_pyramid, add_steps
from options.presets import (
    LAMBDA,
    LEAST_LAMBDA,
    LOSS_DB,
    N_VOXELS,
    PRESETS,
    QUALITIES,
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

_RARE = (
    *("target_bpp", "loss_db", "transfer", "nodata", "time", "channels"),
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
    add_pyramid(parser.add_argument_group("pyramid"))
    add_networks(parser.add_argument_group("networks"))
    training = parser.add_argument_group("training")
    add_steps(training)
    add_ends(training)
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
        type=whole_number(1, MOST_PIXELS),
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
        help="a method, whose settings apply unless given: compact for small files, seed MINER_pl's, paper that of "
        "its paper (default: best; seed where options of pyramid, networks or training are given)",
    )
    add = add_to.add_argument
    add(
        "--lambda",
        type=option_type(float, lambda price: LEAST_LAMBDA <= price <= 1, f"a number from {LEAST_LAMBDA:g} to 1"),
        metavar="X",
        help=f"with --preset compact, the squared error that a bit must save (default: {LAMBDA:g})",
    )
    add("--target_bpp", type=positive(1000), metavar="BITS", help="with --preset compact, the bits a pixel of its file")


def _add_pack(add_to: Options) -> None:
    add_flag(
        add_to,
        "--pack",
        "also leave one small file, ckpts/NAME/NAME.miner, of rounded networks; pictures take three times the epochs",
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
    add("--config", type=text, metavar="FILE", help="YAML file of options; the command line wins")
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
