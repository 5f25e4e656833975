import igl
import numpy as np
import pytest
import trimesh
from helpers import ROOT

from datasets.meshes import load_mesh
from datasets.occupancy import read_occupancy
from datasets.repair import close_holes
from datasets.voxelize import voxelize
from preprocess_mesh import make_parser
from utils.frame import Frame

SPOT = ROOT / "meshes" / "spot.obj"


def occupancy(mesh: trimesh.Trimesh, n: int, frame: Frame | None = None, **options) -> tuple[np.ndarray, np.ndarray]:
    """(z, y, x) bools, and the mesh coordinates (n, n, n, 3) of the voxels, likewise."""
    frame = frame or Frame.around(mesh.vertices)
    inside = np.unpackbits(voxelize(mesh, frame, n, **options), axis=2, count=n).astype(bool)
    z, y, x = np.meshgrid(*[np.arange(n)] * 3, indexing="ij")
    return inside, frame.to_mesh(np.stack([x, y, z], axis=-1), (n, n, n))


def volume(inside: np.ndarray, frame: Frame) -> float:
    return inside.sum() * frame.spacing(inside.shape).prod()


def test_voxels_span_the_widened_box_inclusive():
    frame = Frame.around(np.array([[0.0, 0, 0], [2, 4, 8]]))
    corners = frame.to_mesh(np.array([[0, 0, 0], [10, 10, 10], [5, 5, 5]]), (11, 11, 11))
    np.testing.assert_allclose(corners, [[-0.02, -0.04, -0.08], [2.02, 4.04, 8.08], [1, 2, 4]])
    np.testing.assert_allclose(frame.to_voxels(corners, (11, 11, 11)), [[0, 0, 0], [10, 10, 10], [5, 5, 5]], atol=1e-12)


def test_a_sphere_has_its_volume_and_members():
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=2)
    inside, points = occupancy(mesh, 65)
    radius = np.linalg.norm(points, axis=-1)
    assert inside[radius < 1.99].all()
    assert not inside[radius > 2].any()
    assert volume(inside, Frame.around(mesh.vertices)) == pytest.approx(4 / 3 * np.pi * 8, rel=0.01)


def test_a_torus_has_its_volume_and_members():
    mesh = trimesh.creation.torus(major_radius=3, minor_radius=1, major_sections=200, minor_sections=100)
    inside, points = occupancy(mesh, 81)
    distance = np.hypot(np.hypot(points[..., 0], points[..., 1]) - 3, points[..., 2])
    assert inside[distance < 0.99].all()
    assert not inside[distance > 1.01].any()
    assert volume(inside, Frame.around(mesh.vertices)) == pytest.approx(2 * np.pi**2 * 3, rel=0.02)


def make_l() -> trimesh.Trimesh:
    """Two overlapping boxes: a body that differs along every axis and in every direction."""
    foot = trimesh.creation.box(bounds=[[0, 0, 0], [5, 2, 1]])
    leg = trimesh.creation.box(bounds=[[0, 0, 0.5], [1, 1.5, 9]])
    return trimesh.util.concatenate([foot, leg])


def in_l(points: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(points, -1, 0)
    foot = (0 < x) & (x < 5) & (0 < y) & (y < 2) & (0 < z) & (z < 1)
    return foot | ((0 < x) & (x < 1) & (0 < y) & (y < 1.5) & (0.5 < z) & (z < 9))


@pytest.mark.parametrize("options", [{}, {"n_repeats": 3}, {"n_repeats": 5}])
def test_no_axis_is_swapped_and_overlaps_are_unions(options):
    inside, points = occupancy(make_l(), 48, **options)
    assert np.array_equal(inside, in_l(points))


def test_two_overlapping_spheres_are_their_union():
    balls = [trimesh.creation.icosphere(subdivisions=4), trimesh.creation.icosphere(subdivisions=4)]
    balls[1].apply_translation([0.8, 0.3, 0.1])
    mesh = trimesh.util.concatenate(balls)
    frame = Frame.around(mesh.vertices)
    inside, _ = occupancy(mesh, 40, frame)
    each = [occupancy(ball, 40, frame)[0] for ball in balls]
    assert np.array_equal(inside, each[0] | each[1])
    assert (each[0] & each[1]).any()


def test_a_cavity_is_outside():
    outer, inner = trimesh.creation.icosphere(subdivisions=4), trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    inner.invert()
    inside, points = occupancy(trimesh.util.concatenate([outer, inner]), 40)
    radius = np.linalg.norm(points, axis=-1)
    assert not inside[radius < 0.49].any()
    assert inside[(radius > 0.5) & (radius < 0.99)].all()


def test_columns_through_edges_and_corners_are_decided_one_way():
    """Voxels lie exactly on the sides of the boxes: each belongs to one of two that touch, or to none."""
    frame = Frame((0, 0, 0), (1, 1, 1))
    halves = [
        trimesh.creation.box(bounds=[[-0.5, -0.5, -0.55], [0, 0.5, 0.55]]),
        trimesh.creation.box(bounds=[[0, -0.5, -0.55], [0.5, 0.5, 0.55]]),
    ]
    left, right = (occupancy(half, 9, frame)[0] for half in halves)
    assert not (left & right).any()
    columns = (left | right).any(axis=0)
    assert columns.sum() == 4 * 4, "half-open: four of the five columns from -0.5 to 0.5, both ways"
    assert np.array_equal((left | right).sum(axis=0), np.where(columns, 5, 0))
    whole = trimesh.creation.box(bounds=[[-0.5, -0.5, -0.55], [0.5, 0.5, 0.55]])
    assert np.array_equal(occupancy(whole, 9, frame)[0], left | right)


def test_a_mesh_with_holes_is_closed_over_them():
    mesh = trimesh.creation.icosphere(subdivisions=4)
    centres = mesh.triangles_center
    holes = (centres[:, 2] > 0.95) | (centres[:, 0] < -0.97)
    open_mesh = trimesh.Trimesh(mesh.vertices, mesh.faces[~holes], process=False)
    frame = Frame.around(mesh.vertices)
    closed, points = occupancy(mesh, 48, frame)
    inside, _ = occupancy(open_mesh, 48, frame)
    beyond = (points[..., 2] > 0.93) | (points[..., 0] < -0.95)
    assert np.array_equal(inside[~beyond], closed[~beyond])
    assert not (inside & ~closed).any()


def test_closing_leaves_no_edge_over():
    mesh = load_mesh(SPOT)
    kept = np.random.default_rng(0).random(len(mesh.faces)) > 0.3
    _, faces = close_holes(np.asarray(mesh.vertices), np.asarray(mesh.faces)[kept])
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forward, count = np.unique(edges, axis=0, return_counts=True)
    back, back_count = np.unique(edges[:, ::-1], axis=0, return_counts=True)
    assert np.array_equal(forward, back)
    assert np.array_equal(count, back_count)
    assert len(close_holes(np.asarray(mesh.vertices), np.asarray(mesh.faces))[1]) == len(mesh.faces)


def test_membership_agrees_with_generalised_winding_numbers():
    mesh = load_mesh(SPOT)
    n = 96
    inside, points = occupancy(mesh, n)
    chosen = np.random.default_rng(0).integers(0, n, (20000, 3))
    places = np.ascontiguousarray(points[tuple(chosen.T)])
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces, dtype=np.int64)
    winding = igl.fast_winding_number(vertices, faces, places)
    distance = np.sqrt(igl.point_mesh_squared_distance(places, vertices, faces)[0])
    far = distance > Frame.around(mesh.vertices).spacing((n, n, n)).max()
    assert far.mean() > 0.9
    assert np.array_equal(inside[tuple(chosen.T)][far], (winding > 0.5)[far])


def test_more_samples_follow_the_volume_more_closely():
    mesh = trimesh.creation.box(bounds=[[0, 0, 0], [1, 1, 1]])
    frame = Frame((0.5, 0.5, 0.5), (0.75, 0.75, 0.75))
    inside, _ = occupancy(mesh, 12, frame, n_samples=27)
    once, _ = occupancy(mesh, 12, frame)
    spacing = frame.spacing((12, 12, 12))[0]
    along = (np.arange(12)[:, None] + [-1 / 3, 0, 1 / 3]) * spacing - 0.25
    count = ((along > 0) & (along < 1)).sum(1)
    expected = 2 * count[:, None, None] * count[:, None] * count > 27
    assert np.array_equal(inside, expected)
    assert not np.array_equal(inside, once)


def test_preprocess_writes_what_it_says(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("preprocess_mesh.py", "--N", 20, "--M", 1, "--T", 1, "--path", SPOT)
    assert outcome.status == 0, outcome.error
    values = read_occupancy("occupancy/spot_20.npy").values
    assert values.shape == (1, 20, 20, 20)
    assert outcome.out == f"occupancy/spot_20.npy: 20x20x20 voxels, {values.float().mean():.2%} inside\n"
    again = command("preprocess_mesh.py", "--N", 20, "--path", SPOT)
    assert "already exists; use --overwrite to replace it" in again.error
    assert command("preprocess_mesh.py", "--N", 20, "--path", SPOT, "--overwrite").status == 0


TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["--N", "0"], None, "--N 0: must be a whole number from 1 to 1,048,576"),
        (["--N", "9999"], None, "--N 9999: its voxels take 232.8 GiB"),
        (["--M", "2"], None, "--M 2: must be an odd cube"),
        (["--M", "8"], None, "--M 8: must be an odd cube"),
        (["--M", "0"], None, "--M 0: must be an odd cube"),
        (["--T", "2"], None, "--T 2: must be an odd number up to 255"),
        (["--T", "-1"], None, "--T -1: must be an odd number up to 255"),
        (["--path", "nowhere.ply"], None, "nowhere.ply: no such file"),
        ([], "hello", "bad.obj holds no faces"),
        ([], "v 0 0 0\nv 1 0 0\n", "bad.obj holds no faces"),
        ([], TRIANGLE + "f 1 2 3\n", "no extent along z"),
        ([], TRIANGLE + "v nan 0 1\nf 1 2 3\nf 1 2 4\n", "not finite"),
    ],
)
def test_bad_meshes_and_options_are_reported_in_one_line(command, tmp_path, monkeypatch, arguments, content, message):
    monkeypatch.chdir(tmp_path)
    path = SPOT
    if content is not None:
        path = tmp_path / "bad.obj"
        path.write_text(content)
    outcome = command("preprocess_mesh.py", "--N", 8, "--path", path, *arguments)
    assert outcome.status not in (0, None)
    assert message in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1
    assert not (tmp_path / "occupancy").exists()


@pytest.mark.parametrize("root", [125, 343, 1331])
def test_cube_roots_are_exact(root):
    assert make_parser().parse_args(["--path", "x", "--M", str(root)]).M == root


def test_scenes_are_joined_where_their_bodies_stand(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.icosphere(subdivisions=2))
    scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.export(tmp_path / "scene.glb")
    mesh = load_mesh(tmp_path / "scene.glb")
    assert mesh.body_count == 2
    np.testing.assert_allclose(mesh.bounds[:, 0], [-1, 5.5], atol=1e-6)
