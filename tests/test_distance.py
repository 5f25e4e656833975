"""Distances at the voxels of a grid: they are those of geometry, and their sign is occupancy."""

import builtins
import re

import igl
import numpy as np
import pytest
import trimesh
from helpers import ROOT, is_one_line

from datasets import distance
from datasets.distance import distance_slabs
from datasets.grids import grid_path, kept_grid, make_grid
from datasets.meshes import load_mesh
from datasets.occupancy import DISTANCE_FORMAT, open_occupancy, origin_of, read_occupancy, write_distances
from datasets.tasks import VALUES
from datasets.voxelize import closed_in_voxels, voxelize
from models.miner import MINER
from opt import parse_options, settle
from options.presets import QUALITIES, accuracy_for
from utils.errors import InputError
from utils.frame import Frame
from utils.metrics import iou

SPOT = ROOT / "meshes" / "spot.obj"
STEP = 1 / 255
N = 40


def numbers(mesh: trimesh.Trimesh, n: int = N, frame: Frame | None = None, **options) -> np.ndarray:
    """(z, y, x) from 0 to 255."""
    frame = frame or Frame.around(mesh.vertices)
    return np.concatenate(list(distance_slabs(*closed_in_voxels(mesh, frame, n), voxelize(mesh, frame, n, **options))))


def distances(mesh: trimesh.Trimesh, n: int = N, frame: Frame | None = None) -> np.ndarray:
    """(z, y, x) in voxels, from -1 to 1."""
    return numbers(mesh, n, frame) / 127.5 - 1


def places(n: int, frame: Frame) -> np.ndarray:
    """(n, n, n, 3) x y z of the voxels, in the mesh's coordinates."""
    z, y, x = np.meshgrid(*[np.arange(n)] * 3, indexing="ij")
    return frame.to_mesh(np.stack([x, y, z], axis=-1), (n, n, n))


def box_distance(points: np.ndarray, low: list[float], high: list[float]) -> np.ndarray:
    """Positive inside."""
    beyond = np.maximum(np.array(low) - points, points - np.array(high))
    return np.where((beyond > 0).any(-1), -np.linalg.norm(beyond.clip(0), axis=-1), -beyond.max(-1))


def test_a_sphere_has_its_distances():
    mesh = trimesh.creation.icosphere(subdivisions=6)
    frame = Frame.around(mesh.vertices)
    expected = (1 - np.linalg.norm(places(N, frame), axis=-1)) / frame.spacing((N, N, N))[0]
    assert abs(distances(mesh) - expected.clip(-1, 1)).max() <= STEP + 2e-3, "the mesh lies a little inside its sphere"


def test_a_box_has_its_distances_in_voxels_of_any_extents():
    mesh = trimesh.creation.box(bounds=[[0, 0, 0], [1, 2, 5]])
    frame = Frame((0.6, 1, 2.5), (0.9, 1.3, 2.9))
    spacing = frame.spacing((N, N, N))
    expected = box_distance(places(N, frame) / spacing, [0, 0, 0], np.array([1, 2, 5]) / spacing)
    assert abs(distances(mesh, N, frame) - expected.clip(-1, 1)).max() <= STEP + 1e-9


def test_a_cap_over_a_hole_is_surface():
    mesh = trimesh.creation.box(bounds=[[0, 0, 0], [1, 1, 1]])
    mesh.update_faces(mesh.triangles_center[:, 2] < 1)
    frame = Frame((0.5, 0.5, 0.5), (0.7, 0.7, 0.7))
    assert not mesh.is_watertight
    assert np.array_equal(numbers(mesh, N, frame), numbers(trimesh.creation.box(bounds=mesh.bounds), N, frame))


def test_bodies_that_overlap_have_the_surface_of_their_union():
    boxes = [([-4, -4, -4], [1, 4, 4]), ([-1, -3, -3], [4.5, 3, 3])]
    frame = Frame((0, 0, 0), (5, 5, 5))
    mesh = trimesh.util.concatenate([trimesh.creation.box(bounds=box) for box in boxes])
    points = places(N, frame)
    each = np.stack([box_distance(points, *box) for box in boxes]) / frame.spacing((N, N, N))[0]
    found, outside = distances(mesh, N, frame), (each < 0).all(axis=0)
    assert abs(found - each.max(axis=0).clip(-1, 1))[outside].max() <= STEP + 1e-9
    within = (abs(points[..., 1]) < 2) & (abs(points[..., 2]) < 2) & (abs(points[..., 0]) < 3)
    assert (found[within] == 1).all(), "the faces inside the union do not count"
    alone = points[..., 0] < -2
    assert abs(found - each[0].clip(-1, 1))[alone].max() <= STEP + 1e-9


@pytest.mark.parametrize("options", [{}, {"n_repeats": 3}])
def test_what_is_occupied_is_above_a_half_and_the_rest_below(options):
    mesh = load_mesh(str(SPOT))
    frame = Frame.around(mesh.vertices)
    inside = np.unpackbits(voxelize(mesh, frame, 64, **options), axis=2, count=64).astype(bool)
    found = numbers(mesh, 64, frame, **options)
    assert np.array_equal(found > 127, inside)
    assert np.array_equal(found[::3] > 127.5, inside[::3])
    for axis in range(3):  # a sign changes only where the surface is
        before, after = (np.moveaxis(found, axis, 0)[part].astype(int) for part in (slice(-1), slice(1, None)))
        assert abs(after - before)[(before > 127) != (after > 127)].max() <= 128


def test_distances_agree_with_those_of_libigl():
    mesh = load_mesh(str(SPOT))
    found = distances(mesh, 64)
    vertices, faces = closed_in_voxels(mesh, Frame.around(mesh.vertices), 64)
    z, y, x = np.nonzero(abs(found) < 1)
    points = np.stack([x, y, z], axis=1).astype(float)
    true = np.sqrt(igl.point_mesh_squared_distance(points, vertices, faces.astype(np.int64))[0])
    assert abs(abs(found[z, y, x]) - true).max() <= STEP + 1e-9
    assert (found == 1).sum() + (found == -1).sum() + len(z) == 64**3


def test_slabs_leave_the_same_distances(monkeypatch):
    mesh = load_mesh(str(SPOT))
    whole = numbers(mesh)
    monkeypatch.setattr(distance, "_VOXELS_AT_ONCE", 7 * N**2)
    monkeypatch.setattr(distance, "_QUERIES_AT_ONCE", 100)
    assert np.array_equal(numbers(mesh), whole)


def test_a_file_of_distances_knows_what_it_is(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 13), dtype=np.uint8)
    frame = Frame((0.0, 1.0, 2.0), (1.0, 2.0, 3.0))
    path = tmp_path / "x.npy"
    write_distances(path, [values[:4], values[4:]], values.shape, frame, "a mesh")
    source = open_occupancy(path)
    assert (source.size, source.bits, source.frame, origin_of(path)) == (values.shape, 8, frame, "a mesh")
    assert np.array_equal(source.read(3, 6)[0], values[3:6])
    np.testing.assert_allclose(read_occupancy(path).values[0], values / 255, rtol=1e-6)
    assert np.load(path)["format"] == DISTANCE_FORMAT
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"x\.npy is damaged: it does not hold 13x7x9 voxels; make it again"):
        open_occupancy(path)


def test_both_grids_of_a_mesh_are_kept_apart_and_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trimesh.creation.icosphere(subdivisions=2).export("ball.ply")
    kinds = ("occupancy", "distance")
    for values in kinds:
        assert kept_grid(tmp_path, "ball.ply", 12, values) is None
        make_grid(tmp_path, "ball.ply", 12, values)
    paths = [kept_grid(tmp_path, "ball.ply", 12, values) for values in kinds]
    assert [path.name for path in paths] == ["ball_12.npy", "ball_12_distance.npy"]
    occupancy, field = (read_occupancy(path).values for path in paths)
    assert iou(field, occupancy) == 1
    paths[0].rename(grid_path(tmp_path, "ball.ply", 12, "distance"))
    with pytest.raises(InputError, match="was made of another mesh"):
        kept_grid(tmp_path, "ball.ply", 12, "distance")


def test_a_program_samples_fits_and_compares_distances(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trimesh.creation.icosphere(subdivisions=3).export("ball.ply")
    made = command("preprocess_mesh.py", "--path", "ball.ply", "--N", 32, "--values", "distance")
    assert re.fullmatch(r"occupancy/ball_32_distance\.npy: 32x32x32 voxels, \d\d\.\d\d% inside\n", made.out), made.error
    again = command("preprocess_mesh.py", "--path", "ball.ply", "--N", 32, "--values", "distance")
    assert "ball_32_distance.npy already exists; use --overwrite" in again.error
    fitted = command("train.py", "--path", "occupancy/ball_32_distance.npy", "--exp_name", "ball")
    assert fitted.status == 0, fitted.error
    model = MINER.load("ckpts/ball")
    settings = {name: model.options[name] for name in accuracy_for("distance", "normal")}
    [n_hidden] = accuracy_for("distance", "normal")["n_hidden"]
    assert settings == accuracy_for("distance", "normal") | dict(n_hidden=n_hidden)
    said = fitted.out.splitlines()[-1]
    for grid in ("ball_32_distance.npy", "ball.ply"):
        path = grid if grid.endswith("ply") else f"occupancy/{grid}"
        compared = command("reconstruct.py", "ckpts/ball", "--original", path)
        assert compared.out.splitlines()[0] == said, compared.error
    error = abs(model.decode()[0].numpy() - read_occupancy("occupancy/ball_32_distance.npy").values[0].numpy())
    assert error.mean() < 0.01
    radius = np.linalg.norm(model.surface().vertices, axis=1)
    assert abs(radius - 1).mean() < 0.1 * model.frame.spacing(model.size)[0]


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], "distance"),
        (["--quality", "high"], "distance"),
        (["--values", "occupancy"], "occupancy"),
        (["--preset", "seed"], "occupancy"),
        (["--n_hidden", "5"], "occupancy"),
        (["--preset", "seed", "--values", "distance"], "distance"),
    ],
)
def test_the_method_decides_what_a_mesh_is_sampled_as(arguments, values):
    assert parse_options(["--path", "x.ply", *arguments]).values == values


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("quality", QUALITIES)
def test_the_best_method_follows_what_a_grid_holds(values, quality):
    given = parse_options(["--path", "x.npy", "--quality", quality])
    settled = settle(given, (64, 64, 64), values)
    assert {name: getattr(settled, name) for name in accuracy_for(values, quality)} == accuracy_for(values, quality)
    given = parse_options(["--path", "x.npy", "--quality", quality, "--n_hidden", "3", "--loss_thr", "0.5"])
    settled = settle(given, (64, 64, 64), values)
    assert (settled.n_hidden, settled.loss_thr) == ([3], 0.5)


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("preprocess_mesh.py", ["--values", "sdf"], "--values sdf: must be occupancy or distance"),
        (
            "preprocess_mesh.py",
            ["--values", "distance", "--M", 27],
            "--M 27: --values distance takes one sample a voxel; leave one of them out",
        ),
        ("train.py", ["--values", "sdf"], "--values sdf: must be occupancy or distance"),
        (
            "train.py",
            ["--path", "x.npy", "--values", "distance"],
            "--values distance: x.npy is no mesh, and tells what it holds; leave it out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(command, tmp_path, monkeypatch, program, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = command(program, "--path", SPOT, *arguments)
    assert outcome.status not in (0, None)
    assert outcome.error.strip() == f"error: {message}"
    assert is_one_line(outcome.error)
    assert not list(tmp_path.iterdir())


def test_without_the_library_a_line_says_what_to_do(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real = builtins.__import__

    def refuse(name: str, *rest):
        if name == "igl":
            raise ImportError("No module named 'igl'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    outcome = command("preprocess_mesh.py", "--path", SPOT, "--N", 8, "--values", "distance")
    assert outcome.error.strip() == (
        "error: --values distance: needs the package libigl (No module named 'igl'); "
        "run pip install libigl, or use --values occupancy"
    )
    assert not list(tmp_path.iterdir())
