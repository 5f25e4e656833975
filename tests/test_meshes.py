"""Meshes as users have them: what they enclose does not depend on how their faces look, and files say what is wrong."""

import warnings

import numpy as np
import pytest
import trimesh
from helpers import ROOT, is_one_line
from trimesh.exchange.load import mesh_loaders

from datasets.meshes import load_mesh
from datasets.occupancy import open_occupancy
from datasets.repair import body_of_each, collapse_duplicates, make_neighbours_agree
from datasets.store import read_levels, write_levels
from datasets.voxelize import voxelize
from utils.errors import InputError
from utils.frame import Frame

SPOT = ROOT / "meshes" / "spot.obj"
N = 40
FRAME = Frame((0, 0, 0), (2, 2, 2))


def ball(radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    mesh.apply_translation(centre)
    return mesh


def box(low: list[float], high: list[float]) -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=[low, high])


def inwards(*meshes: trimesh.Trimesh) -> trimesh.Trimesh:
    mesh = joined(*meshes)
    mesh.invert()
    return mesh


def joined(*meshes: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.util.concatenate([mesh.copy() for mesh in meshes])


def grid(mesh: trimesh.Trimesh, frame: Frame = FRAME) -> np.ndarray:
    return np.unpackbits(voxelize(mesh, frame, N), axis=2, count=N).astype(bool)


@pytest.fixture
def loaded(tmp_path):
    """The mesh as it is loaded from a file."""

    def through_a_file(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
        mesh.export(tmp_path / "mesh.ply")
        return load_mesh(str(tmp_path / "mesh.ply"))

    return through_a_file


PLY = """ply
format ascii 1.0
element vertex 3
property float x
property float y
property float z
element face 1
property list uchar int vertex_indices
end_header
0 0 0
1 0 0
0 1 1
3 0 1 2
"""
BIG, SMALL, BESIDE, ACROSS = ball(1), ball(0.5), ball(0.4, (1.5, 0, 0)), ball(0.5, (1, 0, 0))
KERNEL = ball(0.25)
BIG_GRID, SMALL_GRID, BESIDE_GRID, ACROSS_GRID = (grid(mesh) for mesh in (BIG, SMALL, BESIDE, ACROSS))
KERNEL_GRID, THROUGH = grid(KERNEL), ball(0.5, (0.53, 0, 0))
OTHER = ball(0.3, (0, 0, 0.4))
LEFT, RIGHT = box([-1, -1, -1], [0, 1, 1]), box([0, -1, -1], [1, 1, 1])
BODIES = {  # mesh, what it encloses, how many bodies are turned over
    "one beside another": (joined(BIG, inwards(BESIDE)), BIG_GRID | BESIDE_GRID, 1),
    "both": (inwards(BIG, BESIDE), BIG_GRID | BESIDE_GRID, 2),
    "across another": (joined(BIG, inwards(ACROSS)), BIG_GRID | ACROSS_GRID, 1),
    "a cavity": (joined(BIG, inwards(SMALL)), BIG_GRID & ~SMALL_GRID, 0),
    "with a cavity": (joined(inwards(BIG), SMALL), BIG_GRID & ~SMALL_GRID, 1),
    "beside one with a cavity": (
        joined(BESIDE, inwards(BIG), SMALL),
        BIG_GRID & ~SMALL_GRID | BESIDE_GRID,
        1,
    ),
    "a body inside": (joined(BIG, SMALL), BIG_GRID, 0),
    "with a body inside": (inwards(BIG, SMALL), BIG_GRID, 1),
    "a body in a cavity": (joined(BIG, inwards(SMALL), KERNEL), BIG_GRID & ~SMALL_GRID | KERNEL_GRID, 0),
    "in a cavity": (joined(BIG, inwards(SMALL, KERNEL)), BIG_GRID & ~SMALL_GRID | KERNEL_GRID, 1),
    "with a body in a cavity": (
        joined(inwards(BIG), SMALL, inwards(KERNEL)),
        BIG_GRID & ~SMALL_GRID | KERNEL_GRID,
        1,
    ),
    "a cavity that breaks through": (joined(BIG, inwards(THROUGH)), BIG_GRID & ~grid(THROUGH), 0),
    "cavities that overlap": (joined(BIG, inwards(SMALL, OTHER)), BIG_GRID & ~SMALL_GRID & ~grid(OTHER), 0),
    "a cavity of two that touch": (joined(LEFT, RIGHT, inwards(SMALL)), (grid(LEFT) | grid(RIGHT)) & ~SMALL_GRID, 0),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_look_inwards_are_counted_in_and_cavities_are_not(loaded, capsys, name):
    mesh, expected, n_turned = BODIES[name]
    found = grid(loaded(mesh))
    assert np.array_equal(found, expected)
    words = {0: "", 1: "1 inside-out body turned over", 2: "2 inside-out bodies turned over"}[n_turned]
    said = capsys.readouterr().err
    assert said.endswith(f"mesh.ply: {words}\n") if words else said == ""


def test_a_mesh_with_a_hole_that_looks_inwards_is_turned_over(loaded, capsys):
    half = ball(1, (5, 6, 7))
    half.update_faces(half.triangles_center[:, 2] < 7.8)
    frame = Frame((5, 6, 7), (2, 2, 2))
    assert np.array_equal(grid(loaded(inwards(half)), frame), grid(loaded(half), frame))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("1 inside-out body turned over, 1 hole closed")
    assert second.endswith("mesh.ply: 1 hole closed")


def test_many_bodies_are_turned_over_at_once(loaded, capsys):
    rng = np.random.default_rng(0)
    one = trimesh.creation.icosphere(subdivisions=0, radius=0.03)
    centres = (np.stack(np.meshgrid(*[np.arange(12)] * 3), axis=-1).reshape(-1, 3) - 5.5) * 0.2
    over = rng.random(len(centres)) < 0.5
    corners = one.triangles + centres[:, None, None]
    corners = np.where(over[:, None, None, None], corners[:, :, ::-1], corners).reshape(-1, 3)
    mesh = loaded(trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False))
    assert f"{over.sum()} inside-out bodies turned over" in capsys.readouterr().err
    assert mesh.volume == pytest.approx(len(centres) * one.volume, rel=1e-5)


@pytest.mark.parametrize("share", [1, 0.3])
@pytest.mark.parametrize("both_ways", [True, False])
def test_repeated_faces_count_once(loaded, capsys, share, both_ways):
    spot = load_mesh(str(SPOT))
    assert capsys.readouterr().err == ""
    frame = Frame.around(spot.vertices)
    again = spot.faces[np.random.default_rng(0).random(len(spot.faces)) < share]
    faces = np.concatenate([spot.faces, again[:, ::-1] if both_ways else np.roll(again, 1, axis=1)])
    mesh = loaded(trimesh.Trimesh(spot.vertices, faces, process=False))
    assert np.array_equal(grid(mesh, frame), grid(spot, frame))
    assert f"{len(again)} duplicate faces dropped" in capsys.readouterr().err


def test_a_wall_between_bodies_that_touch_is_not_a_surface(loaded):
    """The two boxes have the four vertices of the wall in common, and its two faces, in opposite orientations."""
    left = box([-1, -1, -1], [0, 1, 1])
    right = inwards(trimesh.Trimesh(left.vertices * (-1, 1, 1), left.faces, process=False))  # its mirror image
    mesh = loaded(joined(left, right))
    assert len(mesh.faces) == 20
    assert np.array_equal(grid(mesh), grid(box([-1, -1, -1], [1, 1, 1])))


def test_the_orientation_of_most_is_kept_and_the_order_of_faces():
    faces = np.array([[0, 1, 2], [3, 4, 5], [2, 1, 0], [1, 2, 0], [5, 4, 3]])
    kept, n_dropped = collapse_duplicates(faces)
    assert kept.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert n_dropped == 3


@pytest.mark.parametrize("mesh", [ball(1), trimesh.creation.torus(1, 0.3), joined(ball(1), inwards(ball(0.5)))])
def test_turned_faces_are_turned_back(mesh):
    turned = np.random.default_rng(0).random(len(mesh.faces)) < 0.3
    faces, n_turned = make_neighbours_agree(np.where(turned[:, None], mesh.faces[:, ::-1], mesh.faces))
    assert np.array_equal(faces, mesh.faces)
    assert n_turned == turned.sum()


def test_a_band_with_one_side_is_let_through(loaded):
    n = 60
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    side = 0.3 * np.stack([np.cos(angle / 2) * np.cos(angle), np.cos(angle / 2) * np.sin(angle), np.sin(angle / 2)], 1)
    middle = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    here, there = np.arange(n), (np.arange(n) + 1) % n
    left, right = np.where(there == 0, n, 0) + there, np.where(there == 0, 0, n) + there  # it closes with a twist
    faces = np.concatenate([np.stack([here, left, here + n], 1), np.stack([left, right, here + n], 1)])
    band = trimesh.Trimesh(np.concatenate([middle - side, middle + side]), faces, process=False)
    mesh = loaded(band)
    assert len(mesh.faces) == len(mesh.face_adjacency) == 2 * n
    assert 0 < grid(mesh).mean() < 0.5


def test_bodies_that_touch_along_an_edge_are_two():
    vertices = joined(box([-1, -1, -1], [0, 0, 1]), box([0, 0, -1], [1, 1, 1]))
    vertices.merge_vertices()
    body = body_of_each(np.asarray(vertices.faces))
    assert sorted(np.bincount(body)) == [12, 12]


@pytest.mark.parametrize("kind", sorted(mesh_loaders) + ["dxf", "zip", "tar.gz", "bz2", "blend"])  # noqa: RUF005
@pytest.mark.parametrize(
    "content", [b"", bytes(range(256)) * 40, b"hello world\n" * 20], ids=["empty", "bytes", "text"]
)
def test_what_is_no_mesh_is_refused_in_a_line(tmp_path, capfd, kind, content):
    path = tmp_path / f"bad.{kind}"
    path.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        load_mesh(str(path))
    assert str(path) in str(refusal.value)
    assert "charset" not in str(refusal.value)
    assert is_one_line(str(refusal.value))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("high.ply", PLY.replace("3 0 1 2", "3 0 1 9"), "faces name vertices that it lacks"),
        ("low.ply", PLY.replace("3 0 1 2", "3 0 1 -1"), "faces name vertices that it lacks"),
        ("infinite.ply", PLY.replace("3 0 1 2", "3 0 1 1e400"), ""),
        ("pair.obj", "v 0 0\nv 0 1\nv 1 0\nf 1 2 3\n", r"vertices of shape \(3, 2\)"),
    ],
)
def test_faces_of_vertices_that_are_not_there_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with warnings.catch_warnings(action="error"), pytest.raises(InputError, match=f"{name} is damaged.*{message}"):
        load_mesh(str(tmp_path / name))


def test_faces_without_an_area_are_none(tmp_path):
    (tmp_path / "line.ply").write_text(PLY.replace("3 0 1 2", "3 0 2 2").replace("0 1 1", "1 1 1"))
    with pytest.raises(InputError, match=r"line\.ply holds no faces"):
        load_mesh(str(tmp_path / "line.ply"))


@pytest.mark.parametrize("kind", ["stl", "ply", "glb"])
def test_half_a_file_is_refused(tmp_path, kind):
    whole = ball(1).export(file_type=kind)
    for size in (len(whole) * 9 // 10, len(whole) // 2, 90):
        (tmp_path / f"half.{kind}").write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"half\.{kind} is damaged, or not a \.{kind} file"):
            load_mesh(str(tmp_path / f"half.{kind}"))


@pytest.mark.parametrize(("kind", "package"), [("dae", "pycollada"), ("3dxml", "lxml"), ("step", "cascadio")])
def test_a_kind_that_needs_a_package_says_which(tmp_path, kind, package):
    if kind in trimesh.available_formats():
        pytest.skip(f"{package} is installed")
    path = tmp_path / f"x.{kind}"
    path.write_text("<xml/>")
    with pytest.raises(InputError) as refusal:
        load_mesh(str(path))
    assert f"x.{kind}: .{kind} files need the package {package}; run pip install {package}, or" in str(refusal.value)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (1e300, r"coordinates up to 1\.0e\+300; use a unit that keeps them below 1e\+100"),
        (1e-300, r"extends 2\.0e-300 along [xyz]; use a unit that makes it more than 1e-100"),
        (1e99, None),
        (1e-99, None),
    ],
)
def test_coordinates_are_computed_with_or_refused(tmp_path, capfd, scale, message):
    mesh = joined(ball(1), inwards(ball(0.5)))
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in (mesh.vertices * scale).tolist()]
    lines += ["f {} {} {}".format(*face) for face in (mesh.faces + 1).tolist()]
    (tmp_path / "far.obj").write_text("\n".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if message:
            with pytest.raises(InputError, match=message):
                load_mesh(str(tmp_path / "far.obj"))
        else:
            frame = Frame((0, 0, 0), (2 * scale, 2 * scale, 2 * scale))
            found = grid(load_mesh(str(tmp_path / "far.obj")), frame)
            assert np.array_equal(found, BIG_GRID & ~SMALL_GRID)
    assert capfd.readouterr().err == ""


ENCLOSING = "a mesh that encloses a volume"


@pytest.mark.parametrize(
    ("n", "message"),
    [
        (2, f"--N 2: no voxel is inside {{}}; use a larger --N, preprocess_mesh.py --T 3, or {ENCLOSING}"),
        (1, "--N 1: every voxel is inside {}; use a larger --N"),
    ],
)
def test_a_grid_without_a_surface_is_not_written(command, tmp_path, monkeypatch, n, message):
    monkeypatch.chdir(tmp_path)
    ball(1).export("ball.ply")
    outcome = command("preprocess_mesh.py", "--N", n, "--path", "ball.ply")
    assert outcome.error.strip() == f"error: {message.format('ball.ply')}"
    assert not (tmp_path / "occupancy").exists()


@pytest.mark.parametrize(("value", "share"), [(False, "none"), (True, "all")])
def test_a_grid_without_a_surface_is_not_fitted(command, tmp_path, monkeypatch, value, share):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.full((20, 20, 20), value))
    message = f"x.npy: {share} of its voxels are inside, so it has no surface; use another grid"
    smaller = ["--patch_size", 8, "--batch_size", 64, "--backend", "reference"]  # compiles nothing, which would be told
    outcome = command("train.py", "--task", "mesh", "--path", "x.npy", *smaller)
    assert outcome.error.strip() == f"error: {message}"
    assert not list((tmp_path / "ckpts").rglob("*.ckpt"))
    with pytest.raises(InputError, match=message):
        write_levels(open_occupancy("x.npy"), 2, tmp_path / "levels")
    assert {path.suffix for path in (tmp_path / "levels").iterdir()} == {".lock"}


def test_one_voxel_is_a_surface(tmp_path):
    grid = np.zeros((40, 40, 40), bool)
    grid[39, 39, 39] = True
    np.save(tmp_path / "x.npy", grid)
    assert read_levels(open_occupancy(tmp_path / "x.npy"), 5).levels[0].numbers.sum() == 1
