"""Surfaces lie where the field says between the samples, and how near two of them are is measured exactly."""

import re

import numpy as np
import pytest
import trimesh

from decoding.volume import compare_surfaces
from utils.errors import InputError
from utils.surface import distances_to_surface, extract_surface, face_normals, surface_agreement

N_POINTS = 2000
RADIUS = 0.3  # of a ball, in parts of the grid's side


def distances_of_a_ball(n: int, level: int = 0, scale: int = 1, bits: int | None = None) -> np.ndarray:
    """clip(1/2 + d/2, 0, 1), d the distance to a ball's surface in voxels of the level, inside positive.

    It is sampled at a level of n^3 voxels, `scale` times along each axis.
    """
    n_pixels = n >> level
    pixels = (np.arange(n_pixels * scale) + 0.5) / scale - 0.5
    z, y, x = np.meshgrid(*[pixels - (n_pixels - 1) / 2] * 3, indexing="ij")
    depth = RADIUS * n_pixels - np.sqrt(x**2 + y**2 + z**2)
    field = np.clip(0.5 + depth / 2, 0, 1).astype(np.float32)
    return field if bits is None else np.rint(field * (2**bits - 1)).astype(np.float32) / np.float32(2**bits - 1)


def square(angle: float = 0, height: float = 0) -> trimesh.Trimesh:
    """One of side 1 in the plane of x and y, turned about the axis y, then raised."""
    corners = [[x * np.cos(angle), y, x * np.sin(angle) + height] for y in (0, 1) for x in (0, 1)]
    return trimesh.Trimesh(corners, [[0, 1, 3], [0, 3, 2]], process=False)


def moved(mesh: trimesh.Trimesh, unit: float, by: float) -> trimesh.Trimesh:
    return trimesh.Trimesh((mesh.vertices + by) * unit, mesh.faces, process=False)


@pytest.mark.parametrize("n", [32, 64])
@pytest.mark.parametrize(("level", "scale"), [(0, 1), (0, 2), (1, 1), (1, 2)])
@pytest.mark.parametrize("bits", [None, 8])
def test_vertices_lie_where_the_distance_is_none(n, level, scale, bits):
    surface = extract_surface([distances_of_a_ball(n, level, scale, bits)], None, (n,) * 3, None, level, scale)
    from_centre = surface.vertices - (n - 1) / 2
    radii = np.linalg.norm(from_centre, axis=1)
    assert abs(radii - RADIUS * n).mean() < 0.05 * 2**level
    middles = surface.triangles_center - (n - 1) / 2
    outward = middles / np.linalg.norm(middles, axis=1, keepdims=True)
    cosines = (face_normals(surface) * outward).sum(axis=1)
    assert np.average(cosines, weights=surface.area_faces) > 0.995


def test_values_next_to_a_half_keep_their_place_in_eight_bits():
    for below, above in ((127, 128), (0, 128), (127, 255), (100, 200)):
        planes = np.full((4, 3, 3), below, np.float32) / np.float32(255)
        planes[:2] = np.float32(above) / np.float32(255)
        surface = extract_surface([planes], None, (4, 3, 3))
        middle = surface.vertices[(surface.vertices[:, :2] == 1).all(axis=1)]
        assert middle[:, 2].max() == pytest.approx(1 + (above - 127.5) / (above - below), abs=1e-4)


def test_a_surface_does_not_depend_on_the_slabs():
    field = distances_of_a_ball(32, bits=8)
    whole = extract_surface([field], None, field.shape)
    for height in (1, 5, 16):
        cut = extract_surface(np.split(field, range(height, len(field), height)), None, field.shape)
        np.testing.assert_array_equal(cut.vertices, whole.vertices)
        np.testing.assert_array_equal(cut.faces, whole.faces)


def test_a_crop_has_the_vertices_of_the_whole():
    field = distances_of_a_ball(32, scale=2)
    whole = extract_surface([field], None, (32,) * 3, None, 0, 2)
    crop = ((4, 16), (2, 30), (3, 29))
    part = extract_surface([field[8:32, 4:60, 6:58]], None, (32,) * 3, crop, 0, 2)
    places = [set(map(tuple, mesh.vertices[mesh.vertices[:, 2] <= 15.25].round(4))) for mesh in (whole, part)]
    assert places[0] == places[1]


def test_distances_to_a_box_are_exact():
    box = trimesh.creation.box(bounds=[[0, 0, 0], [1, 1, 1]])
    points = np.array([[0.5, 0.5, 1.25], [0.5, 0.4, 0.5], [2, 2, 2], [-0.3, -0.4, 0.5], [1, 0.5, 0.5]])
    distances, nearest = distances_to_surface(points, box)
    np.testing.assert_allclose(distances, [0.25, 0.4, np.sqrt(3), 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(face_normals(box)[nearest[[0, 1, 4]]], [[0, 0, 1], [0, -1, 0], [1, 0, 0]], atol=1e-12)


def test_a_shifted_square_is_as_far_as_it_was_shifted():
    found = surface_agreement(square(height=0.25), square(), N_POINTS)
    assert found.diagonal == pytest.approx(np.sqrt(2))
    expected = 0.25 / np.sqrt(2)
    np.testing.assert_allclose([*found.forth, *found.back], expected, rtol=1e-9)
    assert expected <= found.chamfer < 1.01 * expected
    assert found.consistency == pytest.approx(1)


def test_both_ways_are_told_apart():
    """A quarter of a square lies on the whole; of the whole, three quarters lie up to 1/2 or its diagonal away."""
    quarter = moved(square(), unit=0.5, by=0)
    found = surface_agreement(quarter, square(), 100 * N_POINTS)
    np.testing.assert_allclose(found.forth, 0, atol=1e-12)
    off = np.maximum(np.stack(np.meshgrid(*[(np.arange(1000) + 0.5) / 1000] * 2)) - 0.5, 0)
    distances = np.sqrt((off**2).sum(axis=0)) / np.sqrt(2)
    np.testing.assert_allclose(found.back, [distances.mean(), np.percentile(distances, 95)], rtol=0.01)


@pytest.mark.parametrize("degrees", [10, 60, 180])
def test_normal_consistency_is_the_cosine_of_the_tilt(degrees):
    found = surface_agreement(square(angle=np.radians(degrees)), square(), N_POINTS)
    assert found.consistency == pytest.approx(abs(np.cos(np.radians(degrees))))


def test_a_ball_in_a_ball():
    small, large = (trimesh.creation.icosphere(subdivisions=4, radius=radius) for radius in (0.9, 1))
    found = surface_agreement(small, large, N_POINTS)
    np.testing.assert_allclose([*found.forth, *found.back], 0.1 / np.sqrt(12), rtol=0.02)
    assert found.consistency > 0.999


def test_a_surface_beside_itself_gives_the_floors():
    ball = trimesh.creation.icosphere(subdivisions=3)
    floor = surface_agreement(ball, ball, N_POINTS)
    np.testing.assert_allclose([*floor.forth, *floor.back], 0, atol=1e-14)
    assert floor.consistency > 0.9999
    spacing = np.sqrt(4 * np.pi / N_POINTS)
    assert floor.chamfer * floor.diagonal == pytest.approx(spacing / 2, rel=0.05), "of random points"


@pytest.mark.parametrize(("unit", "by"), [(1e-90, 0), (1e90, 0), (1, 1e6)])
def test_the_unit_and_the_place_do_not_matter(unit, by):
    small, large = (trimesh.creation.icosphere(subdivisions=2, radius=radius) for radius in (0.9, 1))
    expected = surface_agreement(small, large, N_POINTS)
    found = surface_agreement(moved(small, unit, by), moved(large, unit, by), N_POINTS)
    assert found.diagonal == pytest.approx(expected.diagonal * unit)
    assert found.chamfer == pytest.approx(expected.chamfer, rel=1e-6)
    np.testing.assert_allclose([*found.forth, *found.back], [*expected.forth, *expected.back], rtol=1e-6)
    assert found.consistency == pytest.approx(expected.consistency, rel=1e-3), (
        "many points are as near to several faces"
    )


@pytest.mark.parametrize("order", [1, -1])
def test_a_mesh_without_faces_is_refused(order):
    meshes = [square(), trimesh.Trimesh(np.eye(3), np.zeros((0, 3), int), process=False)][::order]
    with pytest.raises(InputError, match="without faces has no surface"):
        surface_agreement(*meshes, N_POINTS)


def test_each_printed_figure_has_its_unit_and_its_floor(capsys):
    compare_surfaces(square(height=0.25), square())
    *distances, normals = capsys.readouterr().out.splitlines()
    number = r"\d\.\d{3}e[+-]\d\d"
    parts = [f"{way}, {part}" for way in ("Fit to mesh", "Mesh to fit") for part in ("mean", "95th percentile")]
    for line, name in zip(distances, ["Chamfer distance", *parts], strict=True):
        form = rf"{name} *: (0\.25\d*) +in the mesh's unit, ({number}) of its box's diagonal, floor ({number})"
        here, part, floor = map(float, re.fullmatch(form, line).groups())
        assert here == pytest.approx(0.25, rel=1e-4)
        assert part == pytest.approx(0.25 / np.sqrt(2), rel=1e-3)
        assert (floor > 0) == (name == "Chamfer distance")
    assert len({line.index("in the mesh's unit") for line in distances[1:]}) == 1, "they are aligned"
    assert normals == "Normal consistency : 1.0000, floor 1.0000 (100,000 points on each surface)"
