"""The page of a volume: its surface, in Node, and what it shows, in Chromium."""

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import trimesh
from conftest import fit
from helpers import ROOT
from nodes import node
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial import cKDTree

from benchmarks.ranges import serving
from models.miner import MINER
from packing.write import write_packed
from utils.surface import extract_surface

MARCH = """
import fs from "fs";
import { surfaceOf } from "./surface.js";
for (const [i, { window, cells }] of JSON.parse(fs.readFileSync("jobs.json")).entries()) {
    const values = new Float32Array(new Uint8Array(fs.readFileSync(`${i}.values`)).buffer);
    for (const [name, array] of Object.entries(surfaceOf(values, window, cells))) {
        fs.writeFileSync(`${i}.${name}`, new Uint8Array(array.buffer));
    }
}
"""

BALLS = [((0, 0, 0), 3.0), ((4.6, 0.4, -1), 1.0), ((0, -5.5, 2.5), 1.9)]  # no axis, and no end of one, is like another
N = 40
SIZE = (660, 540)  # of the window: larger than a phone
FIT = [
    *("--task", "mesh", "--patch_size", "8", "--batch_size", "128", "--n_scales", "2", "--use_pe", "--n_freq", "5"),
    *("--n_layers", "2", "--n_hidden", "8", "--loss_thr", "5e-3", "--num_epochs", "30", "40", "--accelerator", "cpu"),
    *("--path", "body.ply", "--N", str(N), "--exp_name", "small"),
]
ALONE = "#title, #tools, #panel, #readout, #message { display: none !important }"


@dataclass
class Surface:
    """positions, normals: (n, 3); triangles: (m, 3)"""

    positions: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray

    @property
    def mesh(self) -> trimesh.Trimesh:
        return trimesh.Trimesh(self.positions, self.triangles, process=False)


def march(folder: Path, jobs: list[tuple[np.ndarray, list, list]]) -> list[Surface]:
    """What surface.js makes of values, windows and cells."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "viewer" / "volume" / "surface.js", folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "march.js").write_text(MARCH)
    (folder / "jobs.json").write_text(json.dumps([{"window": window, "cells": cells} for _, window, cells in jobs]))
    for i, (values, _, _) in enumerate(jobs):
        (folder / f"{i}.values").write_bytes(values.astype(np.float32).tobytes())
    subprocess.run([node(), "march.js"], cwd=folder, check=True)
    return [
        Surface(
            *(np.fromfile(folder / f"{i}.{name}", np.float32).reshape(-1, 3) for name in ("positions", "normals")),
            np.fromfile(folder / f"{i}.indices", np.uint32).reshape(-1, 3),
        )
        for i in range(len(jobs))
    ]


def whole(field: np.ndarray) -> tuple[np.ndarray, list, list]:
    return field, [[0, n] for n in field.shape], [[-1, n] for n in field.shape]


def ball(n: int, radius: float, centre: tuple[float, float, float]) -> np.ndarray:
    """1/2 + the distance inside a ball's surface / 2, clipped, as volumes are fitted; the centre is x, y, z."""
    z, y, x = np.meshgrid(*[np.arange(n)] * 3, indexing="ij")
    depth = radius - np.linalg.norm(np.stack([x, y, z], axis=-1) - np.array(centre), axis=-1)
    return np.clip(0.5 + depth / 2, 0, 1)


def assert_closed(triangles: np.ndarray) -> None:
    """Every edge is that of two triangles, which go along it in opposite directions."""
    edges = np.concatenate([triangles[:, [i, (i + 1) % 3]] for i in range(3)])
    assert len(np.unique(edges, axis=0)) == len(edges) > 0
    assert set(map(tuple, edges)) == set(map(tuple, edges[:, ::-1]))


def test_a_ball_is_round_closed_and_seen_from_outside(tmp_path):
    centre, radius = np.array([15.2, 20.1, 17.7]), 11.3
    surface = march(tmp_path, [whole(ball(36, radius, centre))])[0]
    outward = surface.positions - centre
    radii = np.linalg.norm(outward, axis=1)
    assert abs(radii - radius).max() < 0.03, "the distance is linear along an edge, nearly"
    assert_closed(surface.triangles)
    assert surface.mesh.area == pytest.approx(4 * np.pi * radius**2, rel=0.01)
    assert surface.mesh.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)
    cosines = (surface.normals * outward / radii[:, None]).sum(axis=1)
    assert cosines.min() > 0.99
    assert np.linalg.norm(surface.normals, axis=1) == pytest.approx(1, abs=1e-5)


def test_noise_of_all_256_cases_leaves_no_hole_and_is_closed_at_the_box(tmp_path):
    field = np.random.default_rng(0).random((24, 21, 22))
    inside = np.pad(field > 0.5, 1).astype(int)
    corners = [inside[z : z - 1 or None, y : y - 1 or None, x : x - 1 or None] for z, y, x in np.ndindex(2, 2, 2)]
    assert len(np.unique(sum(corner << i for i, corner in enumerate(corners)))) == 256
    for one in march(tmp_path, [whole(field), whole(1 - field), whole(np.ones((3, 4, 5)))]):
        assert_closed(one.triangles)
        assert one.mesh.volume > 0
    full = one.mesh
    assert full.bounds.tolist() == [[-0.5] * 3, [4.5, 3.5, 2.5]], "halfway to the zeros around the box"


def test_vertices_are_those_that_python_finds(tmp_path):
    field = np.random.default_rng(1).random((9, 10, 11)).astype(np.float32)
    expected = extract_surface([field], None, field.shape).vertices
    found = march(tmp_path, [whole(field)])[0].positions
    assert cKDTree(expected).query(found)[0].max() < 1e-5, "which has some more, within cells"
    assert len(found) > 0.97 * len(expected)


def test_nothing_above_a_half_has_no_surface(tmp_path):
    field = np.full((4, 4, 4), 0.5)
    assert march(tmp_path, [whole(field)])[0].triangles.size == 0


def test_bricks_join_to_the_whole(tmp_path):
    field = np.random.default_rng(2).random((12, 9, 10)).astype(np.float32)
    cuts = [[-1, 4, 8, 12], [-1, 5, 9], [-1, 4, 8, 10]]
    jobs = []
    for place in np.ndindex(3, 2, 3):
        cells = [[along[i], along[i + 1]] for along, i in zip(cuts, place, strict=True)]
        window = [[max(a - 1, 0), min(b + 2, n)] for (a, b), n in zip(cells, field.shape, strict=True)]
        jobs.append((field[tuple(slice(*along) for along in window)], window, cells))
    one, *bricks = march(tmp_path, [whole(field), *jobs])
    joined = np.concatenate([np.hstack([brick.positions, brick.normals])[brick.triangles] for brick in bricks])
    expected = np.hstack([one.positions, one.normals])[one.triangles]
    assert {one.tobytes() for one in joined} == {one.tobytes() for one in expected}
    assert len(joined) == len(expected)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the viewer and a fit of 40x40x40 voxels, two bricks along each axis; one is hurt in each way."""
    folder = tmp_path_factory.mktemp("body")
    balls = [trimesh.creation.icosphere(subdivisions=3, radius=radius).apply_translation(at) for at, radius in BALLS]
    trimesh.util.concatenate(balls).export(folder / "body.ply")
    run = fit(folder, FIT)
    shutil.copytree(ROOT / "viewer", folder / "site")
    write_packed(folder / "site" / "body.miner", MINER.load(run), {})
    data = (folder / "site" / "body.miner").read_bytes()
    for name, at in (("last", -100), ("first", data.index(b"\x78", len(data) // 100))):
        hurt = bytearray(data)
        hurt[at] ^= 255
        (folder / "site" / f"{name}.miner").write_bytes(hurt)
    return folder / "site"


@pytest.fixture(scope="module")
def model(site) -> MINER:
    return MINER.load(site / "body.miner")


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with serving(partial(Quiet, directory=site)) as address:
        yield address


class Page:
    """The viewer in a tab."""

    def __init__(self, tab: object, address: str):
        self.tab, self.address, self.complaints = tab, address, []
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, name: str, pose: str = "") -> "Page":
        self.tab.goto("about:blank")
        self.tab.goto(f"{self.address}/index.html?fit={name}.miner#{pose}")
        self.tab.wait_for_function("window.miner || document.querySelector('.notice')")
        return self.settle()

    def show(self, pose: str) -> "Page":
        """Another view of the same fit."""
        self.tab.evaluate("pose => { location.hash = pose; return new Promise(requestAnimationFrame); }", pose)
        return self.settle()

    def settle(self) -> "Page":
        self.tab.evaluate("window.miner?.settled()")
        return self

    def press(self, *keys: str) -> "Page":
        for key in keys:
            self.tab.keyboard.press(key)
        return self.settle()

    def ask(self, code: str) -> object:
        return self.tab.evaluate(code)

    def picture(self) -> np.ndarray:
        """(h, w, 3) of what is seen without what floats over it."""
        style = self.tab.add_style_tag(content=ALONE)
        picture = np.array(Image.open(io.BytesIO(self.tab.screenshot())).convert("RGB")).astype(int)
        style.evaluate("style => style.remove()")
        return picture

    def mask(self) -> np.ndarray:
        """(h, w): where there is something in front of the background."""
        picture = self.picture()
        return abs(picture - picture[0, 0]).max(axis=2) > 8


@pytest.fixture(scope="module")
def opened(browser, address) -> Iterator[Page]:
    """The page of the fit, for tests that only turn it and change what is shown."""
    yield from pages(browser, address)


@pytest.fixture
def page(opened) -> Page:
    return opened if opened.ask("Boolean(window.miner)") else opened.open("body")


@pytest.fixture
def fresh(browser, address) -> Iterator[Page]:
    """A page that nothing is opened in."""
    yield from pages(browser, address)


def pages(browser, address: str) -> Iterator[Page]:
    view = {"viewport": {"width": SIZE[0], "height": SIZE[1]}, "color_scheme": "dark", "reduced_motion": "reduce"}
    context = browser.new_context(**view)
    page = Page(context.new_page(), address)
    yield page
    assert page.complaints == []
    context.close()


def seen_at(points: np.ndarray, model: MINER, azimuth: float, elevation: float, distance: float) -> np.ndarray:
    """Columns and rows (n, 2) of the window at which points (n, 3) of the mesh's space are seen."""
    half = model.frame.spacing(model.size[::-1]) * np.array(model.size[::-1]) / 2
    around, up = np.deg2rad([azimuth, elevation])
    back = np.array([np.sin(around) * np.cos(up), np.sin(up), np.cos(around) * np.cos(up)])
    right = np.array([np.cos(around), 0, -np.sin(around)])
    turned = (points - model.frame.centre) / np.linalg.norm(half) @ np.stack([right, np.cross(back, right), back]).T
    scale = SIZE[1] / 2 / np.tan(np.deg2rad(35 / 2)) / (distance - turned[:, 2])
    return np.array(SIZE) / 2 + turned[:, :2] * [1, -1] * scale[:, None]


def extent(mask: np.ndarray) -> np.ndarray:
    """Its first and last columns and rows, as bounds: ((left, top), (right, bottom))."""
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    return np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]])


@pytest.mark.parametrize(("azimuth", "level"), [(0, 0), (90, 0), (180, 0), (270, 1)])
def test_the_body_is_seen_where_it_lies_in_the_mesh(page, model, azimuth, level):
    page.show(f"level={level}&camera={azimuth},0,4")
    places = seen_at(model.surface(level).vertices, model, azimuth, 0, 4)
    expected = np.stack([places.min(axis=0), places.max(axis=0)])
    assert abs(extent(page.mask()) - expected).max() < 1.5, "pixels"


@pytest.mark.parametrize("level", [0, 1])
def test_the_surface_that_is_saved_is_that_of_python(page, model, tmp_path, level):
    page.show(f"level={level}")
    with page.tab.expect_download() as download:
        page.tab.click("text=Save as STL")
    assert download.value.suggested_filename == "body.stl"
    download.value.save_as(tmp_path / "body.stl")
    saved, expected = trimesh.load_mesh(tmp_path / "body.stl"), model.surface(level)
    assert saved.is_watertight
    assert len(saved.faces) == page.ask("miner.page.body.counts.triangles")
    assert saved.volume == pytest.approx(expected.volume, rel=3e-3)
    step = model.frame.spacing(model.size[::-1]).min()
    for one, other in ((saved, expected), (expected, saved)):
        distances = cKDTree(other.vertices).query(one.vertices)[0]
        assert (distances < 0.02 * step * 2**level).mean() > 0.99, "but where cells can be read in two ways"


def test_blocks_are_boxes_where_the_networks_are(page, model):
    before = page.show("level=0").picture()
    page.press("b")
    assert page.ask("miner.page.state.boxes") == [0, 1]
    assert (page.picture() != before).any(axis=2).sum() > 500
    for level, grid in model.active_grids.items():
        level_of = f"miner.fit.levels.get({level})"
        ends = page.ask(
            f"import('./volume/outlines.js').then(({{ edgesOf }}) => [...edgesOf({level_of}, miner.fit.size)])"
        )
        expected = set()
        for block in np.argwhere(grid.numpy()):
            corners = [np.minimum((block + corner) * 8 * 2**level, N) - 0.5 for corner in np.ndindex(2, 2, 2)]
            for a, b in product(corners, corners):
                if (b >= a).all() and (b > a).sum() == 1:
                    expected.add((*a[::-1], *b[::-1]))
        found = list(map(tuple, np.reshape(ends, (-1, 6))))
        assert set(found) == expected
        assert len(found) == len(expected), "each once"


@pytest.mark.parametrize(
    ("axis", "voxel", "azimuth", "elevation"), [("x", 12, 90, 0), ("y", 27, 0, 89), ("z", 17, 0, 0)]
)
def test_a_slice_shows_the_decoded_field(page, model, axis, voxel, azimuth, elevation):
    picture = page.show(f"level=0&camera={azimuth},{elevation},4&opacity=0&slices={axis}{voxel}").picture().max(axis=2)
    number = "zyx".index(axis)
    field = np.moveaxis(model.decode()[0].numpy(), number, 0)[voxel]
    voxels = np.insert(np.argwhere(np.ones_like(field)), number, voxel, axis=1)[:, ::-1].astype(float)
    places = seen_at(model.frame.to_mesh(voxels, model.size[::-1]), model, azimuth, elevation, 4)
    columns, rows = places.astype(int).T
    is_bright = (picture[rows, columns] > 128).reshape(field.shape)
    inside, outside = minimum_filter(field, 3) > 0.6, maximum_filter(field, 3) < 0.4
    assert inside.sum() > 50
    assert is_bright[inside].all()
    assert not is_bright[outside].any()


def test_the_slider_lets_the_background_through_as_a_link_does(page):
    view = "level=0&camera=0,0,4"
    opaque = page.show(view).picture()
    page.tab.locator("input[aria-label=Opacity]").fill("0.3")
    by_slider = page.settle().picture()
    background = opaque[0, 0]
    assert abs(by_slider - background).sum() < 0.5 * abs(opaque - background).sum()
    by_link = page.show(view).show(f"{view}&opacity=0.3").picture()
    assert abs(by_link - by_slider).max() <= 1
    assert abs(page.show(view).picture() - opaque).max() <= 1


def test_z_may_point_up(page, model):
    x, y, z = (model.surface(0).vertices - model.frame.centre).T
    places = seen_at(np.stack([x, z, -y], axis=1) + model.frame.centre, model, 0, 0, 4)
    expected = np.stack([places.min(axis=0), places.max(axis=0)])
    upright = extent(page.show("level=0&camera=0,0,4&up=z").mask())
    assert abs(upright - expected).max() < 1.5, "pixels"
    page.tab.wait_for_function("location.hash.includes('up=z')")
    low = extent(page.show("level=0&camera=0,0,4&up=z&clip=z,0.5").mask())
    assert low[1, 1] == upright[1, 1]
    assert abs(low[0, 1] - SIZE[1] / 2) < 10, "the upper half is gone"
    page.tab.locator("[aria-label=Up] label").first.click()
    assert page.ask("miner.page.state.up") == "y"


def test_a_cut_takes_one_side_away_and_shows_the_inner_side(page):
    whole_body, low, high = (
        extent(page.show(f"level=0&camera=0,0,4{cut}").mask()) for cut in ("", "&clip=x,0.5", "&clip=-x,0.5")
    )
    assert low[0, 0] == whole_body[0, 0]
    assert high[1, 0] == whole_body[1, 0]
    assert [low[1, 0], high[0, 0]] == pytest.approx([SIZE[0] / 2] * 2, abs=2), "the plane is seen edge on"
    red, _, blue = np.moveaxis(page.show("level=0&camera=90,0,4&clip=x,0.5").picture(), 2, 0)
    assert (red > blue + 60).sum() > 1000, "warm"


def test_keys_change_the_view_which_its_link_gives_back(fresh):
    picture = fresh.open("body").press("c", "x", "z", "ArrowLeft", "+").picture()
    fresh.press("b").tab.wait_for_timeout(400)
    state = fresh.ask("miner.page.state")
    assert state["boxes"] == [0, 1]
    assert state["cut"] == {"axis": 0, "part": 0.5, "isFlipped": True}
    assert state["slices"] == [20, None, 20]
    fresh.open("body", fresh.ask("location.hash")[1:])
    assert fresh.ask("miner.page.state") == state
    changed = (abs(fresh.press("b").picture() - picture) > 40).any(axis=2)
    assert changed.mean() < 0.005, "but for the rounding of the camera"
    plain = state | {"boxes": [], "cut": None, "slices": [None] * 3}
    fresh.press("c", "x", "z", "0")
    assert fresh.ask("miner.page.state") == plain
    fresh.show("camera=nothing&level=9&clip=w,2&slices=q1&boxes=,a,7")
    assert fresh.ask("miner.page.state") == plain, "words that are not understood change nothing"


def test_nothing_is_drawn_while_nothing_changes(page):
    count = "miner.page.stage.renderer.info.render.frame"
    before = page.settle().ask(count)
    page.tab.wait_for_timeout(300)
    assert page.ask(count) == before
    page.press("ArrowLeft")
    assert page.ask(count) > before


def test_coarse_bricks_stay_until_the_finer_ones_are_there(fresh):
    fresh.open("body", "level=1")
    coarse = fresh.ask("miner.page.body.counts.triangles")
    found = fresh.ask(
        """(async () => {
            const counts = new Set();
            const { bricks, body } = miner.page;
            const { onBrick } = bricks;
            bricks.onBrick = (brick) => {
                onBrick(brick);
                body.show(bricks.visible());
                counts.add(body.counts.triangles);
            };
            miner.page.set({ level: 0 });
            await miner.settled();
            return [...counts];
        })()"""
    )
    assert found[0] == coarse
    assert len(found) == 2
    assert found[-1] > 3 * coarse


@pytest.mark.parametrize(
    ("name", "message"), [("last", "7 of 8 bricks of level 0 could be decoded"), ("first", "Nothing of level 0")]
)
def test_damage_is_told_and_the_rest_is_shown(fresh, name, message):
    fresh.open(name)
    assert fresh.tab.inner_text("#message").startswith(message)
    triangles = fresh.ask("miner.page.body.counts.triangles")
    assert (triangles > 1000) == (name == "last")
    fresh.tab.click("text=Try again")
    fresh.settle()
    assert fresh.tab.inner_text("#message").startswith(message)


def test_a_field_without_a_surface_is_told(fresh):
    fresh.open("body", "level=1")
    fresh.ask(
        """(async () => {
            const level = miner.fit.levels.get(0);
            miner.tiles.shown = async (index, number) => {
                const { window } = level.chunkOf(number);
                const size = window.map(([start, stop]) => stop - start);
                return { window, values: new Float32Array(size[0] * size[1] * size[2]) };
            };
            miner.page.set({ level: 0 });
            await miner.settled();
        })()"""
    )
    assert fresh.ask("miner.page.body.counts.triangles") == 0
    assert "nowhere above 1/2" in fresh.tab.inner_text("#message")


def test_a_browser_without_webgl_is_told(fresh):
    fresh.tab.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    fresh.open("body")
    assert "WebGL 2" in fresh.tab.inner_text(".notice")
