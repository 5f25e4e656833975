import base64
from itertools import pairwise

import numpy as np
import torch
import trimesh

from utils.figures import (
    LEVEL_COLOURS,
    block_boxes,
    draw_blocks,
    error_map,
    error_slices,
    highlight_blocks,
    level_strip,
    points_up,
    slice_picture,
    thumbnail,
    value_slices,
)
from utils.frame import Frame
from utils.plots import explore_mesh, show, show_parameters
from utils.pyramid import pyramid, upsample_whole


def where(picture: torch.Tensor, level: int) -> list[list[int]]:
    return (picture == LEVEL_COLOURS[level][:, None, None]).all(0).nonzero().tolist()


def test_outlines_lie_on_the_borders_of_active_blocks():
    picture = torch.full((3, 12, 12), 0.5)
    active = torch.tensor([[False, False, False], [False, True, False], [False, False, False]])
    drawn = draw_blocks(picture, {0: active}, (4, 4))
    square = {(y, x) for y in range(4, 9) for x in range(4, 9) if (y in (4, 8) or x in (4, 8)) and (y, x) != (8, 8)}
    assert {tuple(place) for place in where(drawn, 0)} == square
    assert (drawn == 0.5).all(0).sum() == 144 - len(square)


def test_a_block_at_the_far_edge_is_closed_there():
    drawn = draw_blocks(torch.zeros(1, 8, 8), {0: torch.tensor([[False, False], [False, True]])}, (4, 4))
    assert [7, 5] in where(drawn, 0)
    assert [5, 7] in where(drawn, 0)
    assert [5, 5] not in where(drawn, 0)


def test_finer_levels_are_drawn_over_coarser_ones():
    fine = torch.zeros(4, 4, dtype=torch.bool)
    fine[2, 2] = True
    drawn = draw_blocks(torch.zeros(3, 16, 16), {0: fine, 1: torch.ones(2, 2, dtype=torch.bool)}, (4, 4))
    assert [8, 10] in where(drawn, 0), "a border of both levels"
    assert [8, 3] in where(drawn, 1), "a border of the coarser level alone"
    assert [4, 3] not in where(drawn, 0), "a border of no block that is active"


def test_a_crop_of_the_drawing_is_the_drawing_of_the_crop():
    picture = torch.rand(3, 64, 64)
    active = {0: torch.rand(8, 8) > 0.5, 1: torch.rand(4, 4) > 0.5}
    whole = draw_blocks(picture, active, (8, 8))
    crop = draw_blocks(picture[:, 3:40, 5:62], active, (8, 8), corner=(3, 5))
    assert torch.equal(crop[:, :-1, :-1], whole[:, 3:39, 5:61])


def test_rows_of_the_drawing_are_the_drawing_of_the_rows():
    picture = torch.rand(3, 700, 90)
    active = {0: torch.rand(88, 12) > 0.5, 1: torch.rand(44, 6) > 0.5}
    arguments = dict(corner=(3, 5), pixel_size=0.5)
    whole = draw_blocks(picture, active, (16, 16), **arguments)
    cuts = [0, 1, 9, 300, 699, 700]
    for top, bottom in pairwise(cuts):
        rows = draw_blocks(picture[:, top:bottom], active, (16, 16), top=top, size=(700, 90), **arguments)
        assert torch.equal(rows, whole[:, top:bottom])


def test_highlighted_blocks_stay_and_others_are_dimmed():
    picture = torch.rand(3, 10, 10)
    grid = torch.tensor([[False, False, False], [False, True, False], [False, False, False]])
    shown = highlight_blocks(picture, (10, 10), (4, 4), grid, dim=0.5)
    assert torch.equal(shown[:, 4:8, 4:8], picture[:, 4:8, 4:8])
    assert torch.equal(shown[:, :4], picture[:, :4] * 0.5)


def test_a_shrunken_picture_is_highlighted_in_the_same_places():
    grid = torch.rand(5, 4) > 0.5
    full = highlight_blocks(torch.ones(1, 160, 128), (160, 128), (32, 32), grid)
    assert torch.equal(highlight_blocks(torch.ones(1, 40, 32), (160, 128), (32, 32), grid), full[:, ::4, ::4])


def test_errors_are_magnified_and_cut_off_at_one():
    signal = torch.tensor([[[0.5, 0.5, 0.5]]])
    error = error_map(torch.tensor([[[0.5, 0.52, 0.9]]]), signal, gain=10)
    torch.testing.assert_close(error, torch.tensor([[[0.0, 0.2, 1.0]]]))


def test_the_level_strip_adds_up():
    """Base and prediction, read back from the panels, are the reconstruction; base and residual the signal."""
    torch.manual_seed(0)
    signals = pyramid(torch.rand(3, 20, 14), 2)
    reconstructions = [(signal + 0.01 * torch.randn(signal.shape)).clamp(0, 1) for signal in signals]
    panels = level_strip(reconstructions, signals)
    titles = list(panels)
    assert titles[0] == "level 1: reconstruction, 7x10"
    assert titles[3] == "level 0: reconstruction, 14x20"
    assert torch.equal(panels[titles[3]], reconstructions[0])
    base = upsample_whole(reconstructions[1], (20, 14))
    span = min(4 * (signals[0] - base).square().mean().sqrt().item(), 1)
    for title, expected in ((titles[4], signals[0]), (titles[5], reconstructions[0])):
        assert title.endswith(f"±{span:.2g}")
        inside = (panels[title] > 0) & (panels[title] < 1)
        assert inside.float().mean() > 0.95
        torch.testing.assert_close((base + (panels[title] - 0.5) * 2 * span)[inside], expected[inside])


def test_slices_point_up():
    volume = torch.zeros(1, 4, 5, 6)
    volume[0, 1, 4, 2] = 1  # z, y, x
    assert slice_picture(volume, 0, 1).nonzero().tolist() == [[0, 0, 2]], "across z: the largest y is on top"
    assert slice_picture(volume, 1, 4).nonzero().tolist() == [[0, 2, 2]], "across y: z points up"
    assert slice_picture(volume, 2, 2).nonzero().tolist() == [[0, 2, 4]], "across x: z points up"


def test_slices_of_a_body_are_shown_with_its_front_and_its_head_on_top():
    turned = np.diag([-1.0, -1, 1, 1]).tolist()
    assert points_up({"bits": 8, "affine": np.eye(4).tolist()}, "y")
    assert points_up({"frame": None}, "y")
    assert not points_up({"bits": 8, "affine": turned}, "y")
    assert points_up({"bits": 8, "affine": turned}, "z")
    assert not points_up({"bits": 8, "affine": np.eye(4).tolist(), "unit": "micrometer"}, "y")
    assert not points_up({"bits": 8, "affine": None}, "z")


def ramp() -> torch.Tensor:
    """(1, 4, 5, 6) bytes that tell their place: 30 z + 6 y + x."""
    return torch.arange(120).view(1, 4, 5, 6) / 255


def test_slices_of_bytes_are_shown_as_they_are():
    panels = value_slices(ramp() + 0.02, ramp(), {"bits": 8, "affine": None})
    names = ("z = 2", "y = 2", "x = 3")
    titles = [f"{name}: {part}" for name in names for part in ("original", "fit", "error x 10")]
    assert list(panels) == titles, "three in a row across each axis"
    for name, expected in zip(names, (ramp()[:, 2], ramp()[:, :, 2], ramp()[..., 3]), strict=True):
        assert torch.equal(panels[f"{name}: original"], expected)
        torch.testing.assert_close(panels[f"{name}: fit"], expected + 0.02)
        torch.testing.assert_close(panels[f"{name}: error x 10"], torch.full_like(expected, 0.2))


def test_slices_of_values_point_up_as_their_affine_says():
    turned = np.diag([-1.0, -1, 1, 1]).tolist()
    panels = value_slices(ramp(), ramp(), {"bits": 8, "affine": turned})
    assert torch.equal(panels["z = 2: original"], ramp()[:, 2])
    assert torch.equal(panels["y = 2: original"], ramp()[:, :, 2].flip(1))


def test_slices_of_a_narrow_range_are_stretched_and_so_is_their_error():
    narrow = (0.5 + torch.linspace(0, 0.01, 1000)).view(1, 10, 10, 10)
    narrow[0, 0, 0, 0], narrow[0, -1, -1, -1] = 0, 1
    panels = value_slices(narrow + 0.0001, narrow, {"bits": 16})
    shown, error = panels["x = 5: original"], panels["x = 5: error x 10"]
    assert shown.min() < 0.1
    assert shown.max() > 0.9
    torch.testing.assert_close(error, torch.full_like(error, 10 * 0.0001 / 0.0098), rtol=0.02, atol=0)
    flat = torch.full((1, 3, 3, 3), 0.25)
    assert (value_slices(flat, flat, {"bits": 16})["z = 1: fit"] == 0.25).all(), "no range to stretch"


def test_slices_of_channels_are_the_first_three_or_the_first():
    assert len(value_slices(ramp().expand(5, -1, -1, -1), ramp().expand(5, -1, -1, -1), {})["z = 2: fit"]) == 3
    assert len(value_slices(ramp().expand(2, -1, -1, -1), ramp().expand(2, -1, -1, -1), {})["z = 2: fit"]) == 1


def test_error_slices_show_the_worst_slice_and_distinguish_both_errors():
    truth = torch.zeros(1, 4, 5, 6)
    truth[0, :, 1:4, 1:5] = 1
    field = truth.clone()
    field[0, 2, 0, 3] = 0.9  # wrongly inside
    field[0, 2, 1, 1:3] = 0.2  # wrongly outside
    panels = error_slices(field, truth)
    across_z = panels["z = 2: 3 of 30 voxels are wrong"]
    assert where(across_z, 0) == [[4, 3]]
    assert where(across_z, 1) == [[3, 1], [3, 2]]
    assert (across_z == 0.7).all(0).sum() == 12 - 2
    assert (across_z == 1).all(0).sum() == 30 - 10 - 3
    assert list(panels)[1] == "y = 1: 2 of 24 voxels are wrong"


def test_boxes_are_the_edges_of_the_active_blocks_each_once():
    grid = torch.zeros(2, 2, 2, dtype=torch.bool)
    grid[0, 0, 0] = grid[0, 0, 1] = True  # neighbours along x share a face, of four edges
    edges = block_boxes({0: grid}, (4, 4, 4), (8, 8, 7), None)[0]
    assert edges.shape == (12 + 12 - 4, 2, 3)
    assert len({tuple(sorted(map(tuple, edge))) for edge in edges.tolist()}) == len(edges)
    assert edges.reshape(-1, 3).min(0).tolist() == [-0.5, -0.5, -0.5]
    assert edges.reshape(-1, 3).max(0).tolist() == [6.5, 3.5, 3.5], "x y z, ending where the volume does"


def test_boxes_lie_in_the_space_of_the_mesh():
    frame = Frame((1.0, 2.0, 3.0), (3.5, 3.5, 7.0))
    edges = block_boxes({1: torch.ones(1, 1, 1, dtype=torch.bool)}, (4, 4, 4), (8, 8, 8), frame)[1]
    assert len(edges) == 12
    np.testing.assert_allclose(edges.reshape(-1, 3).min(0), [1 - 4, 2 - 4, 3 - 8])
    np.testing.assert_allclose(edges.reshape(-1, 3).max(0), [1 + 4, 2 + 4, 3 + 8])


def test_thumbnails_are_bounded_and_keep_the_mean():
    picture = torch.rand(3, 512, 2048)
    small = thumbnail(picture, 256)
    assert small.shape == (3, 64, 256)
    torch.testing.assert_close(small.mean(), picture.mean())
    assert thumbnail(picture, 4096) is picture


def test_panels_show_their_pixels_under_their_titles():
    pictures = {"grey": torch.rand(1, 4, 6), "colour": torch.rand(3, 4, 6), "with alpha": torch.rand(4, 4, 6)}
    figure = show(pictures, columns=2, legend={"level 0": "#ff0000"})
    shown = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert list(shown) == list(pictures)
    np.testing.assert_array_equal(shown["grey"], pictures["grey"][0])
    np.testing.assert_array_equal(shown["with alpha"], pictures["with alpha"][:3].permute(1, 2, 0))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["level 0"]


def test_bars_are_as_long_as_what_they_count():
    summary = [
        {"level": 0, "size": [8, 8], "blocks": 4, "active_blocks": 3, "parameters": 30},
        {"level": 1, "size": [4, 4], "blocks": 1, "active_blocks": 1, "parameters": 10},
    ]
    blocks, parameters = show_parameters(summary).axes
    assert [bar.get_width() for bar in blocks.patches] == [4, 1, 3, 1]
    assert [bar.get_width() for bar in parameters.patches] == [30, 10]
    assert "40 in all" in parameters.get_title()


def test_the_mesh_view_holds_the_mesh_and_the_boxes_and_a_picture():
    mesh = trimesh.creation.box()
    boxes = {0: np.arange(12.0).reshape(2, 2, 3), 1: np.arange(6.0).reshape(1, 2, 3)}
    view = explore_mesh(mesh, boxes)
    figure = view["application/vnd.plotly.v1+json"]
    assert [trace["name"] for trace in figure["data"]] == ["mesh", "blocks of level 1", "blocks of level 0"]
    finest = figure["data"][2]
    assert finest["visible"] is True
    np.testing.assert_array_equal(_numbers(finest["x"]), [0, 3, np.nan, 6, 9, np.nan])
    assert len(_numbers(figure["data"][0]["i"])) == len(mesh.faces)
    assert base64.b64decode(view["image/png"]).startswith(b"\x89PNG")


def _numbers(array: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
