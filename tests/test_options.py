"""What a command line means where it does not say so: by the file, its size, and what else is given."""

import re
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from helpers import ASTRONAUT, ROOT, SMALL_FIT

from datasets.grids import kept_grid, make_grid
from opt import parse_options, recorded_options, settle
from options.presets import PRESETS, SEED, epochs_for, levels_for
from options.table import make_parser
from utils.errors import InputError


def test_a_file_alone_is_fitted_by_the_best_method_under_its_name():
    options = parse_options(["--path", "some/holiday photo.jpg"])
    assert (options.preset, options.quality, options.task, options.exp_name) == (
        "best",
        "normal",
        "image",
        "holiday_photo",
    )
    given = SEED | PRESETS["best"]["image"] | dict(n_scales=None, num_epochs=None)
    assert {name: getattr(options, name) for name in SEED} == given


@pytest.mark.parametrize(
    ("path", "task", "name"),
    [
        ("a.npy", "mesh", "a"),
        ("x/spot.obj", "mesh", "spot_256"),
        ("SPOT.STL", "mesh", "SPOT_256"),
        ("a.zarr", "image", "a"),
        ("head.nii.gz", "volume", "head"),
        ("head.NII", "volume", "head"),
        (".hidden", "image", "hidden"),
        ("a.tar.gz", "image", "a.tar"),
        ("..", "image", "exp"),
    ],
)
def test_the_kind_and_the_name_follow_from_the_file(path, task, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there are no pictures
    options = parse_options(["--path", path])
    assert (options.task, options.exp_name, options.patch_size) == (task, name, [32, 32] if task == "image" else [16])


@pytest.mark.parametrize("option", [f"--{name}" for name in SEED if name != "omega"])
def test_an_option_of_the_method_alone_means_the_seeds(option):
    values = {
        "--patch_size": "16",
        "--betas": "0.9 0.999",
        "--arch": "sine",
        "--optimizer": "adam",
        "--pyr": "gaussian",
    }
    values |= {
        "--use_pe": "true",
        "--frequencies": "octaves",
        "--weight_sharing": "copy",
        "--start": "ridge",
        "--order": "even",
        "--fill": "lanczos",
        "--loss": "clipped",
        "--stop_ratio": "0.5",
    }
    options = parse_options(["--path", "x.png", option, *values.get(option, "2").split()])
    assert (options.preset, options.exp_name) == ("seed", "exp")
    others = {name: value for name, value in SEED.items() if f"--{name}" != option and name != "batch_size"}
    assert {name: getattr(options, name) for name in others} == others
    assert settle(options, (100, 100)) == options, "nothing follows from the size"


def test_a_quality_means_the_best_method_whatever_else_is_given():
    options = parse_options(["--path", "x.png", "--quality", "draft", "--n_hidden", "7"])
    assert (options.preset, options.n_hidden) == ("best", [7])
    assert options.n_freq == PRESETS["best"]["image"]["n_freq"]
    with pytest.raises(InputError, match="--quality high: --preset seed has none; leave one of them out"):
        parse_options(["--path", "x.png", "--quality", "high", "--preset", "seed"])


@pytest.mark.parametrize(
    ("task", "size", "n_scales"),
    [
        ("image", (1, 1), 1),
        ("image", (64, 64), 1),
        ("image", (128, 128), 2),
        ("image", (512, 512), 4),
        ("image", (2448, 3264), 4),  # 8 megapixels
        ("image", (4000, 6000), 5),
        ("image", (16384, 16384), 7),
        ("image", (50, 5000), 3),
        ("mesh", (16, 16, 16), 1),
        ("mesh", (64, 64, 64), 2),
        ("mesh", (128, 128, 128), 3),
        ("mesh", (256, 256, 256), 3),
        ("mesh", (512, 512, 512), 4),
    ],
)
def test_levels_and_epochs_follow_from_the_size(task, size, n_scales):
    assert levels_for(task, size) == n_scales
    options = settle(parse_options(["--path", "x", "--task", task]), size)
    assert options.n_scales == len(options.num_epochs) == n_scales
    assert options.num_epochs == epochs_for(task, "normal", size, n_scales)


def test_the_seeds_commands_leave_the_files_of_all_its_settings_in_words(command, tmp_path, monkeypatch):
    """Its own defaults, as its command line has them, and this project's where it had no such choice."""
    monkeypatch.chdir(tmp_path)
    own = ["--use_pe", "--n_layers", "3", "--num_epochs", "6", "--val_freq", "5", "--exp_name", "one"]
    words = [
        *("--task", "image", "--n_scales", "1", "--pyr", "laplacian", "--patch_size", "32", "32", "--n_freq", "4"),
        *("--frequencies", "octaves", "--arch", "gaussian", "--weight_sharing", "none", "--n_hidden", "20"),
        *("--a", "0.1", "--batch_size", "256", "--lr", "3e-2", "--optimizer", "radam", "--betas", "0.9", "0.999"),
        *("--loss_thr", "1e-4", "--stop_ratio", "1", "--seed", "0", "--b_chunks", "16384"),
    ]
    left = []
    for more in ([], words):
        done = command("train.py", "--path", ASTRONAUT, "--input_size", 100, 75, *own, *more, "--overwrite")
        assert done.status == 0, done.error
        folder = tmp_path / "ckpts/one"
        left.append({name: (folder / name).read_bytes() for name in ("l0.ckpt", "options.yaml")})
    assert left[0] == left[1]


def test_what_is_given_decides_what_follows():
    size = (512, 512)
    given = ["--path", "x.png", "--preset", "best"]
    assert settle(parse_options([*given, "--n_scales", "2", "--quality", "draft"]), size).num_epochs == [10, 20]
    five = settle(parse_options([*given, "--num_epochs", "1", "2", "3", "4", "5"]), size)
    assert (five.n_scales, five.num_epochs) == (5, [1, 2, 3, 4, 5])
    with pytest.raises(InputError, match="--n_scales 9: a signal of 100x20 has at most 8 levels"):
        settle(parse_options([*given, "--n_scales", "9"]), (20, 100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--path", "x.png", "--N", "64"], "--N 64: x.png is no mesh, and has a size of its own; leave it out"),
        (["--path", "x.ply", "--input_size", "64"], "--input_size 64: a mesh is sampled at --N voxels"),
        (["--N", "64"], "--path is missing"),
    ],
)
def test_sizes_of_meshes_and_of_others_are_told_apart(arguments, message):
    with pytest.raises(InputError, match=message):
        parse_options(arguments)


def test_help_fits_two_screens_and_all_of_it_names_every_option():
    short, long = (make_parser().help_text(everything) for everything in (False, True))
    assert len(short.splitlines()) <= 100
    options = make_parser().defaults()
    assert [name for name in options if not re.search(rf"^  --{name}\b", long, re.MULTILINE)] == []
    assert "None" not in long


@pytest.mark.parametrize("program", ["train.py", "reconstruct.py", "preprocess_mesh.py"])
@pytest.mark.parametrize("argument", ["--help", "--nonsense"])
def test_help_and_errors_do_without_the_heavy_libraries(program, argument):
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], sys.argv[2]]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    command = [sys.executable, "-c", code, ROOT / program, argument]
    assert subprocess.run(command, capture_output=True, text=True).stdout.endswith("False False\n")


def test_a_mesh_is_sampled_once_and_its_grid_used_again(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trimesh.creation.icosphere(subdivisions=2).export("ball.stl")
    arguments = ["--path", "ball.stl", "--N", 16, "--preset", "best", "--patch_size", 8]
    dry = command("train.py", *arguments, "--dry_run")
    assert dry.status == 0, dry.error
    assert not list(tmp_path.glob("occupancy/*"))
    first = command("train.py", *arguments)
    assert "occupancy/ball_16_distance.npy: 16x16x16 voxels, " in first.out
    assert re.search(r"IoU : (0\.9[5-9]|1\.)", first.out), first.out + first.error
    made = (tmp_path / "occupancy/ball_16_distance.npy").stat().st_mtime_ns
    again = command("train.py", *arguments, "--overwrite")
    assert (tmp_path / "occupancy/ball_16_distance.npy").stat().st_mtime_ns == made
    assert "voxels" not in again.out
    options = (tmp_path / "ckpts/ball_16/options.yaml").read_text()
    assert "path: occupancy/ball_16_distance.npy" in options
    trimesh.creation.box().export("ball.stl")
    other = command("train.py", *arguments, "--overwrite")
    assert other.status == (
        "error: occupancy/ball_16_distance.npy was made of another mesh than ball.stl; "
        "delete it, or name it with --path to fit it"
    )


def test_a_grid_knows_the_mesh_that_it_was_made_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trimesh.creation.box().export("box.ply")
    assert kept_grid(tmp_path, "box.ply", 8, "occupancy") is None
    make_grid(tmp_path, "box.ply", 8)
    assert kept_grid(tmp_path, "box.ply", 8, "occupancy") == tmp_path / "box_8.npy"
    np.save("box_8.npy", np.zeros((8, 8, 8), bool))
    with pytest.raises(InputError, match="was made of another mesh"):
        kept_grid(tmp_path, "box.ply", 8, "occupancy")


def test_the_chosen_method_is_told_in_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--path", ASTRONAUT, "--input_size", 64]
    assert command("train.py", *small, "--dry_run").out.splitlines()[0] == (
        "method: best, quality normal, 1 level of 100 epochs (--quality, --n_scales and --num_epochs change it)"
    )
    seed = command("train.py", *SMALL_FIT, "--dry_run").out.splitlines()[0]
    assert seed == "method: seed, MINER_pl's (--preset best fits better)"


@pytest.mark.parametrize("quality", ["normal", "high"])
def test_values_that_leave_most_of_their_range_empty_have_a_smaller_threshold(quality):
    given = parse_options(["--path", "x.hdr", "--quality", quality])
    plain, wide, narrow, flat = (settle(given, (512, 512), spread=spread) for spread in (None, 0.3, 0.03, 0.0))
    assert plain.loss_thr == wide.loss_thr == given.loss_thr
    assert narrow.loss_thr == pytest.approx(given.loss_thr / 100)
    assert flat.loss_thr > 0
    assert (plain.num_epochs[0], narrow.num_epochs[0]) == (100 if quality == "normal" else 300, 300)
    own = parse_options(["--path", "x.hdr", "--quality", quality, "--loss_thr", "8e-5"])
    assert settle(own, (64, 64), spread=0.03).loss_thr == 8e-5
    seed = parse_options(["--path", "x.hdr", "--preset", "seed"])
    assert settle(seed, (64, 64), spread=0.03).loss_thr == seed.loss_thr


def test_recorded_options_keep_their_order():
    """Checkpoints hold them, and equal runs must give equal bytes, whichever version has written them."""
    names = [
        *("task", "path", "input_size", "n_scales", "pyr", "patch_size", "use_pe", "n_freq", "frequencies", "arch"),
        *("omega", "weight_sharing", "n_layers", "n_hidden", "a", "num_epochs", "batch_size", "lr", "optimizer"),
        *("betas", "val_freq", "loss_thr", "stop_ratio", "target_psnr", "target_iou", "max_seconds", "seed"),
        *("exp_name", "log_image", "b_chunks", "backend", "accelerator"),
    ]
    assert list(recorded_options(parse_options(["--path", "x.png", "--preset", "seed"]))) == names
    assert list(recorded_options(parse_options(["--path", "x.png"]))) == [*names, "start", "order", "fill", "loss"]
