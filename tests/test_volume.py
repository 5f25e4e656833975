"""Volumes from the command line to the surface, on bodies whose shape is known."""

import json
import os
import sys
from functools import partialmethod

import cv2
import numpy as np
import pytest
import torch
import trimesh
from helpers import ROOT, curves
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from datasets.meshes import load_mesh
from datasets.occupancy import read_occupancy, write_occupancy
from datasets.voxelize import voxelize
from decoding.volume import original_mesh
from models.miner import MINER
from utils.frame import Frame
from utils.metrics import iou
from utils.pyramid import pyramid
from utils.surface import extract_surface

CENTRE, RADIUS = np.array([3.0, -2.0, 10.0]), 4.0
FIT = [
    *("--task", "mesh", "--patch_size", "8", "--batch_size", "128", "--n_scales", "2", "--use_pe", "--n_freq", "5"),
    *("--n_layers", "2", "--n_hidden", "8", "--loss_thr", "5e-3", "--num_epochs", "50", "100", "--accelerator", "cpu"),
]


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """A run over 36x36x36 voxels of a ball, no multiple of the patch, and the mesh it came from."""
    folder = tmp_path_factory.mktemp("ball")
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS)
    mesh.apply_translation(CENTRE)
    mesh.export(folder / "ball.ply")
    frame = Frame.around(mesh.vertices)
    write_occupancy(folder / "ball.npy", voxelize(mesh, frame, 36), 36, frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *FIT, "--path", "ball.npy", "--exp_name", "ball"])
        train.cli()
    return folder


def test_a_ball_is_fitted_and_its_iou_is_that_of_the_files(ball):
    model = MINER.load(ball / "ckpts/ball")
    grid = read_occupancy(ball / "ball.npy").values
    reached = iou(model.decode(), grid)
    assert reached > 0.99
    metrics = json.loads((ball / "ckpts/ball/metrics.json").read_text())
    assert metrics["iou"] == pytest.approx(reached, abs=1e-6)
    assert 0 < metrics["levels"][0]["active_blocks"] < metrics["levels"][0]["blocks"] == 125
    for level, signal in enumerate(pyramid(grid, 2)):
        _, value = curves(ball / "logs/ball")[f"level {level}/iou"][-1]
        assert value == pytest.approx(iou(model.decode(level), signal), abs=1e-6)


def test_the_best_preset_fits_a_volume_as_well_with_half_of_the_parameters(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("preprocess_mesh.py", "--N", 64, "--path", ROOT / "meshes" / "spot.obj").status == 0
    common = ["--task", "mesh", "--path", "occupancy/spot_64.npy", "--n_scales", 2, "--num_epochs", 50, 150]
    seed = ["--patch_size", 16, "--batch_size", 512, "--n_layers", 2, "--n_hidden", 8, "--n_freq", 5, "--use_pe"]
    found = []
    for options in ([*seed, "--loss_thr", "5e-3"], ["--preset", "best"]):
        assert command("train.py", *common, *options, "--exp_name", "exp", "--overwrite").status == 0
        found.append(json.loads((tmp_path / "ckpts/exp/metrics.json").read_text()))
    assert found[1]["iou"] > found[0]["iou"] > 0.998
    assert found[1]["parameters"] < 0.5 * found[0]["parameters"]


def test_pictures_of_a_volume_show_its_middle_with_y_pointing_up(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = np.zeros((20, 20, 20), dtype=bool)
    grid[10, :5, 2:] = True  # low y; only in the middle layer
    np.save("slab.npy", grid)
    options = ["--n_scales", 1, "--num_epochs", 100, "--log_image", "--loss_thr", "1e-9"]
    assert command("train.py", *FIT, "--path", "slab.npy", *options).status == 0
    events = EventAccumulator("logs/exp")
    events.Reload()
    expected = np.zeros((20, 20), dtype=bool)
    expected[15:, 2:] = True
    for tag in ("level 0/image", "level 0/training_blocks"):
        picture = cv2.imdecode(np.frombuffer(events.Images(tag)[-1].encoded_image_string, np.uint8), 0)
        np.testing.assert_array_equal(picture > 127, expected)


def test_a_crop_of_a_volume_equals_the_crop_of_the_whole(ball):
    model = MINER.load(ball / "ckpts/ball")
    for scale in (1, 3):
        crop = model.decode(crop=((3, 9), (30, 36), (8, 17)), scale=scale)
        whole = model.decode(scale=scale)[:, 3 * scale : 9 * scale, 30 * scale : 36 * scale, 8 * scale : 17 * scale]
        assert torch.equal(crop, whole)


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb", "stl"])
def test_the_surface_lies_on_the_ball_in_its_own_coordinates(command, ball, tmp_path, suffix):
    outcome = command("reconstruct.py", ball / "ckpts/ball", "--out", tmp_path / f"ball.{suffix}")
    assert outcome.status == 0, outcome.error
    surface = trimesh.load_mesh(tmp_path / f"ball.{suffix}")
    surface = surface.to_mesh() if isinstance(surface, trimesh.Scene) else surface
    surface.merge_vertices()
    assert surface.is_watertight
    voxel = 2 * RADIUS * 1.02 / 35
    off = np.abs(np.linalg.norm(surface.vertices - CENTRE, axis=1) - RADIUS)
    assert off.max() < 1.5 * voxel
    assert off.mean() < 0.4 * voxel
    assert surface.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.05)


@pytest.mark.parametrize("arguments", [["--level", 1], ["--scale", 2], ["--scale", 1.5], ["--scale", 0.7]])
def test_levels_and_scales_lie_in_the_same_place(command, ball, tmp_path, arguments):
    assert command("reconstruct.py", ball / "ckpts/ball", "--out", tmp_path / "x.ply", *arguments).status == 0
    surface = trimesh.load_mesh(tmp_path / "x.ply")
    np.testing.assert_allclose(surface.bounds.mean(axis=0), CENTRE, atol=0.15)
    assert surface.extents == pytest.approx(2 * RADIUS, rel=0.08)


def test_a_crop_is_closed_where_it_is_cut(command, ball, tmp_path):
    crop = ["--crop", 0, 0, 0, 36, 36, 18]
    assert command("reconstruct.py", ball / "ckpts/ball", "--out", tmp_path / "x.ply", *crop).status == 0
    surface = trimesh.load_mesh(tmp_path / "x.ply")
    assert surface.is_watertight
    assert surface.bounds[1, 2] == pytest.approx(CENTRE[2], abs=0.3), "the lower half: z is cut, x and y are not"
    assert surface.extents[:2] == pytest.approx(2 * RADIUS, rel=0.08)


@pytest.fixture(scope="module")
def fields():
    """A cow whose occupancy is blurred; the same in steps of 1/4, many of which are 1/2 exactly; noise."""
    mesh = load_mesh(ROOT / "meshes" / "spot.obj")
    occupancy = np.unpackbits(voxelize(mesh, Frame.around(mesh.vertices), 48), axis=2, count=48)
    cow = gaussian_filter(occupancy.astype(np.float32), 1.2)
    noise = gaussian_filter(np.random.default_rng(0).random((20, 30, 25), dtype=np.float32), 1)
    return {"cow": cow, "steps": (cow * 4).round() / 4, "noise": (noise - noise.mean()) / noise.std() / 6 + 0.5}


@pytest.mark.parametrize("name", ["cow", "steps", "noise"])
def test_a_surface_in_slabs_is_closed_and_that_of_the_whole(fields, name):
    field = fields[name]
    off = np.where(field > 0.5, np.maximum(field, 0.5 + 2**-11), np.minimum(field, 0.5 - 2**-11))
    corners, faces, _, _ = marching_cubes(np.pad(off, 1), 0.5)
    whole = trimesh.Trimesh(corners[:, ::-1] - 1, faces, process=False)
    for height in (1, 2, 7, 16, len(field)):
        slabs = (field[top : top + height] for top in range(0, len(field), height))
        surface = extract_surface(slabs, None, field.shape)
        edges = np.sort(surface.edges, axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()
        assert surface.is_watertight == whole.is_watertight
        assert surface.is_winding_consistent == whole.is_winding_consistent
        assert (len(surface.vertices), len(surface.faces)) == (len(corners), len(faces))
        assert surface.volume == pytest.approx(whole.volume, rel=1e-5)
        assert surface.volume > 0
        assert surface.area == pytest.approx(whole.area, rel=1e-5)
        np.testing.assert_allclose(np.sort(surface.triangles_center, 0), np.sort(whole.triangles_center, 0), atol=1e-4)
        if name == "cow":
            assert surface.is_watertight


@pytest.mark.parametrize("out", ["x.npy", "x.ply"])
def test_what_reconstruct_makes_of_a_volume_does_not_depend_on_the_windows(command, ball, tmp_path, monkeypatch, out):
    arguments = [ball / "ckpts/ball", "--out", tmp_path / out, "--original", ball / "ball.ply"]
    whole = command("reconstruct.py", *arguments)
    assert whole.status == 0, whole.error
    content = (tmp_path / out).read_bytes()
    monkeypatch.setattr(MINER, "decode_windows", partialmethod(MINER.decode_windows, most=7000))
    assert command("reconstruct.py", *arguments).out == whole.out
    assert (tmp_path / out).read_bytes() == content


def test_arrays_hold_what_decode_gives(command, ball, tmp_path):
    model = MINER.load(ball / "ckpts/ball")
    assert command("reconstruct.py", ball / "ckpts/ball", "--out", tmp_path / "x.npy").status == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), model.decode()[0].numpy() > 0.5)
    assert command("reconstruct.py", ball / "ckpts/ball", "--out", tmp_path / "x.npy", "--field").status == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), model.decode()[0].numpy())
    crop = ["--crop", 1, 2, 3, 10, 11, 12]
    assert command("reconstruct.py", ball / "ckpts/ball", "--out", tmp_path / "x.npy", "--field", *crop).status == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), model.decode(crop=((3, 15), (2, 13), (1, 11)))[0].numpy())


def test_reconstruct_compares_with_the_mesh_and_with_the_file(command, ball):
    expected = iou(MINER.load(ball / "ckpts/ball").decode(), read_occupancy(ball / "ball.npy").values)
    with_file = command("reconstruct.py", ball / "ckpts/ball", "--original", ball / "ball.npy")
    assert with_file.out == f"IoU : {expected:.6f}\n"
    with_mesh = command("reconstruct.py", ball / "ckpts/ball", "--original", ball / "ball.ply")
    line, chamfer, *distances, normals = with_mesh.out.splitlines()
    assert line == f"IoU : {expected:.6f}"
    voxel = 2 * RADIUS * 1.02 / 35
    assert float(chamfer.split()[3]) < 0.5 * voxel
    means = [float(line.split()[5]) for line in distances if "mean" in line]
    assert len(means) == 2
    assert max(means) < 0.3 * voxel
    assert float(normals.split()[3].rstrip(",")) > 0.9
    assert "100,000 points" in normals


def test_holes_are_closed_before_a_surface_is_compared_with_the_mesh(ball, tmp_path):
    mesh = trimesh.load_mesh(ball / "ball.ply")
    trimesh.Trimesh(mesh.vertices, mesh.faces[:-200]).export(tmp_path / "open.ply")
    closed, _ = original_mesh(str(tmp_path / "open.ply"), MINER.load(ball / "ckpts/ball"))
    assert closed.is_watertight
    assert len(closed.faces) > len(mesh.faces) - 200


def test_iou_of_known_sets():
    a, b = torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    a[:, :2], b[:, 1:3] = 0.9, 1
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a * 0, b * 0) == 1


def test_a_volume_need_not_be_a_cube(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = np.zeros((10, 17, 30), bool)
    grid[2:8, 3:14, 5:25] = True
    np.save("slab.npy", grid)
    size = ["--input_size", 30, 17, 10]
    outcome = command("train.py", *FIT, "--path", "slab.npy", *size, "--num_epochs", 50)
    assert outcome.status == 0, outcome.error
    assert iou(MINER.load("ckpts/exp").decode(), torch.from_numpy(grid)[None]) > 0.95
    wrong = command("train.py", *FIT, "--path", "slab.npy", "--input_size", 10, 17, 30, "--exp_name", "other")
    assert "holds 30x17x10 voxels, not the 10x17x30 of --input_size" in wrong.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.png"], "'.png' cannot hold a volume; use .npy"),
        (["--out", "x.ply", "--crop", "1", "2", "3", "4"], "--crop 1 2 3 4: must be X Y Z W H D"),
        (["--out", "x.ply", "--blocks"], "--blocks: outlines blocks of pictures"),
        (["--out", "x.ply", "--crop", "0", "0", "0", "2", "2", "2"], "the field has no surface"),
        (["--original", "ball.ply", "--level", "1"], "leave --level and --crop out"),
        (["--original", "nowhere.ply"], "nowhere.ply: no such file"),
    ],
)
def test_reconstruct_of_a_volume_says_what_is_wrong(command, ball, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = command("reconstruct.py", ball / "ckpts/ball", *arguments)
    assert outcome.status not in (0, None)
    assert message in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_mesh_that_lies_elsewhere_is_not_compared_with(command, ball, tmp_path):
    trimesh.load_mesh(ball / "ball.ply").apply_scale(1e30).export(tmp_path / "far.ply")
    outcome = command("reconstruct.py", ball / "ckpts/ball", "--original", tmp_path / "far.ply")
    assert outcome.error.endswith("e+30 times as far as the fit; use what was fitted")


def test_a_volume_does_not_replace_a_pipe(command, ball, tmp_path):
    os.mkfifo(tmp_path / "x.ply")
    outcome = command("reconstruct.py", ball / "ckpts/ball", "--out", tmp_path / "x.ply")
    assert outcome.error == f"error: {tmp_path / 'x.ply'} is a pipe or a device; choose another name"


def test_the_encoding_of_a_volume_has_21_directions():
    from models.encoding import directions, encoded_width

    every = directions(3)
    assert encoded_width(3, (1.0, 2.0, 4.0, 8.0, 16.0)) == 210
    torch.testing.assert_close(every.norm(dim=1), torch.ones(21))
    cosines = (every @ every.T - torch.eye(21)).abs()
    assert cosines.max() < np.cos(np.radians(31)), "no two are closer than 31 degrees, nor opposite"
    torch.testing.assert_close(every.T @ every, torch.eye(3) * 7, msg="evenly spread")


def test_pictures_of_a_volume_are_those_that_decoding_gives(command, ball, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("train.py", *FIT, "--path", ball / "ball.npy", "--num_epochs", 30, "--log_image")
    assert outcome.status == 0, outcome.error
    events = EventAccumulator(str(tmp_path / "logs/exp"))
    events.Reload()
    names = {tag.partition("level 0/")[2] for tag in events.Tags()["images"]} - {""}
    assert names == {"image", "laplacian", "training_blocks"}
    encoded = np.frombuffer(events.Images("level 0/image")[-1].encoded_image_string, np.uint8)
    shown = torch.tensor(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)).float() / 255
    middle = MINER.load("ckpts/exp").decode()[0, 18].flip(0)  # y points up
    torch.testing.assert_close(shown, middle, rtol=0, atol=1.01 / 255)
    assert 0.1 < shown.mean() < 0.9, "it cuts the ball"


def test_the_shipped_mesh_is_closed():
    assert load_mesh(ROOT / "meshes" / "spot.obj").is_watertight
