"""The page of a volume of values: what it makes of numbers and places, in Node, and what it shows, in Chromium."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from browsing import Window, opened, served
from nodes import run_module
from scipy.ndimage import map_coordinates
from test_packed_file import parts_of, random_model

from models.miner import MINER
from models.packed.layout import beginning
from packing.write import write_packed
from utils.transfer import Transfer

SIZE = (20, 30, 36)
AFFINE = [[-2.0, 0, 0, 50], [0, 0, 3.0, -20], [0, -2.0, 0, 70], [0, 0, 0, 1]]
"""Of a patient: x goes from right to left, y from top to bottom, z from back to front, in steps of 2, 2 and 3."""
CT = {"kind": "linear", "low": -1000.0, "high": 3000.0, "dtype": "int16"}
KINDS = [CT | {"kind": kind, "low": low, "dtype": "float32"} for kind, low in (("linear", -1e3), ("log", 0), ("pq", 0))]
VIEW = {"viewport": {"width": 1000, "height": 700}, "color_scheme": "dark", "reduced_motion": "reduce"}


def model_of(n_channels: int, **source: object) -> MINER:
    model = random_model(SIZE, (8, 8, 8), n_channels, 2)
    model.source = {"bits": 16, "affine": None} | source
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, MINER]:
    return {"ct": model_of(1, affine=AFFINE, transfer=CT), "film": model_of(3), "spectra": model_of(5)}


@pytest.fixture(scope="module")
def address(models, tmp_path_factory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("values")
    for name, model in models.items():
        write_packed(folder / f"{name}.miner", model, {})
    with served({path.name: path.read_bytes() for path in folder.iterdir()}) as found:
        yield found


@pytest.fixture
def window(browser) -> Iterator[Window]:
    for window in opened(browser, **VIEW):
        yield window
        assert window.complaints == []


REFUSED = [
    ({"bits": 12}, "bits of a channel that are neither"),
    ({"affine": [[1, 0, 0, 0]] * 3}, "an affine that is none"),
    ({"scaling": [2, None]}, "a scaling that is none"),
    ({"transfer": CT | {"low": 1e5}}, "a transfer over no range"),
    ({"transfer": CT | {"kind": "sqrt"}}, 'needs a newer viewer: the transfer "sqrt" is not known here'),
]


def test_a_source_that_makes_no_sense_is_refused_in_words(models, tmp_path):
    write_packed(tmp_path / "ct.miner", models["ct"], {})
    for number, (changes, _) in enumerate(REFUSED):
        header, index, rest = parts_of(tmp_path / "ct.miner")
        header["source"].update(changes)
        (tmp_path / f"{number}.miner").write_bytes(beginning(header, index) + rest)
    paths = [tmp_path / f"{number}.miner" for number in range(len(REFUSED))]
    for outcome, (_, message) in zip(json.loads(run_module("file.mjs", "describe", *paths)), REFUSED, strict=True):
        assert outcome["inWords"]
        assert message in outcome["error"]


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    generator = np.random.default_rng(0)
    given = {
        "sources": [
            *({"bits": 16, "transfer": transfer} for transfer in KINDS),
            {"bits": 8, "scaling": [-2.0, 10.0]},
            {"bits": 16, "scaling": [0.5, -1.0]},
        ],
        "encoded": [0, 0.1, 0.25, 0.5, 0.9, 1],
        "size": SIZE,
        "places": [
            {"affine": AFFINE},
            {"affine": None},
            {"affine": np.zeros((4, 4)).tolist()},
            {"affine": np.diag([0.2, 0.2, 0.7, 1]).tolist(), "unit": "micrometer"},
        ],
        "samples": [np.r_[generator.normal(0.2, 0.03, 5000), generator.normal(0.7, 0.05, 2000)].tolist(), [0.5] * 9],
    }
    return json.loads(run_module("values.mjs", given=given))


def test_values_are_those_of_the_file(found):
    encoded = np.array([0, 0.1, 0.25, 0.5, 0.9, 1])
    for transfer, values in zip(KINDS, found["values"], strict=False):
        assert values == pytest.approx(Transfer(**transfer).decode(encoded), rel=1e-5, abs=1e-3)
    for back in found["back"]:
        assert back == pytest.approx(encoded, abs=1e-6)
    assert found["words"][3] == ["10", "-42", "-118", "-246", "-450", "-500"]
    assert found["words"][4][:2] == ["-1", "3276"], "of whole numbers, halved; no more is read of such a range"


def test_slices_are_turned_as_the_patient_lies(found):
    axial, coronal, sagittal = found["planes"][0]
    assert [plane["name"] for plane in found["planes"][0]] == ["Axial", "Coronal", "Sagittal"]
    assert [plane["across"]["axis"] for plane in found["planes"][0]] == [1, 2, 0]
    assert "".join(axial["ends"]) + "".join(coronal["ends"]) + "".join(sagittal["ends"]) == "RLAPRLSIAPSI"
    sides = {side["axis"]: side["isFlipped"] for side in (axial["right"], axial["down"], coronal["down"])}
    assert sides == {0: False, 2: True, 1: False}
    assert [axial[side]["spacing"] for side in ("right", "down", "across")] == [2, 3, 2]
    for planes in found["planes"][1:]:
        assert [(plane["name"], plane["ends"]) for plane in planes] == [("XY", None), ("XZ", None), ("YZ", None)]
    microscope = found["planes"][3]
    assert [plane["across"]["spacing"] for plane in microscope] == pytest.approx([0.7, 0.2, 0.2])
    assert not any(plane[side]["isFlipped"] for plane in microscope for side in ("right", "down", "across"))
    assert found["places"][:2] == [[44, 1, 60], None]
    corner = np.array(found["placements"][0]["matrix"]) @ [-0.5, 29.5, -0.5, 1]
    assert abs(corner[:3]) == pytest.approx(np.abs(found["placements"][0]["corner"]))


def test_a_threshold_parts_two_classes_and_a_window_holds_most_of_them(found):
    two, one = found["samples"]
    assert two["otsu"] == pytest.approx(0.42, abs=0.1), "amid the gap between them"
    assert two["ends"] == pytest.approx([0.14, 0.79], abs=0.02)
    assert one == {"otsu": 0.5, "ends": [0.5, 0.5]}


def shades(window: Window, plane: str) -> np.ndarray:
    """What a plane shows of its voxels, at the middle of each: (down, right, 3)."""
    places = window.page.evaluate(
        """(key) => {
            const view = miner.page.views.find(({ plane }) => plane.key === key);
            const { right, down } = view.plane;
            const { clientWidth: width, clientHeight: height } = view.canvas;
            const along = (side, length) => Array.from({ length: side.n }, (_, k) => {
                const at = (side.isFlipped ? side.n - 1 - k : k) + 0.5 - side.n / 2;
                return length / 2 + at * side.spacing * view.scale;
            });
            return [along(down, height), along(right, width)];
        }""",
        plane,
    )
    picture = window.pixels(f"document.querySelector('.{plane} canvas')")[..., :3].astype(int)
    return picture[np.ix_(*[np.array(along).astype(int) for along in places])]


def test_three_slices_show_the_values_within_the_window(window, address, models):
    window.open(f"{address}/ct/#at=20,11,7&window=200,1400").press("x")
    values = CT["low"] + 4000.0 * models["ct"].decode()[0].numpy().astype(float)
    expected = {"axial": values[:, 11], "coronal": values[7], "sagittal": values[:, :, 20].T}
    for plane, slice_ in expected.items():
        shown = shades(window, plane)
        assert (shown[..., :1] == shown).all(), "grey"
        difference = abs(shown[..., 0] - np.clip((slice_ - 200) / 1200, 0, 1) * 255)
        assert np.quantile(difference, 0.8) < 12, "but beside edges of blocks"
        assert shown.std() > 20
    assert window.text(".reading") == str(round(values[7, 11, 20]))
    assert window.text(".voxel") == "20, 11, 7"
    assert window.text(".place") == "10.0, 1.0, 48.0 mm"
    assert window.page.evaluate("[miner.page.solid.shell, performance.getEntriesByName('three').length]") == [None, 0]


def test_a_click_goes_there_a_wheel_through_slices_and_the_right_button_to_a_window(window, address):
    window.open(f"{address}/ct/#at=20,11,7&window=200,1400")
    box = window.page.locator(".axial canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    scale = window.page.evaluate("miner.page.views[0].scale")
    window.page.mouse.click(middle[0] + 4.5 * 2 * scale, middle[1] + 3.5 * 3 * scale)
    assert window.page.evaluate("miner.page.state.at") == [22, 11, 6], "z goes up on the screen"
    window.page.mouse.wheel(0, 100)
    window.page.wait_for_function("miner.page.state.at[1] === 12")
    window.press("ArrowDown", "PageUp")
    assert window.page.evaluate("miner.page.state.at") == [22, 3, 6]
    window.page.mouse.down(button="right")
    window.page.mouse.move(middle[0] + 4.5 * 2 * scale + 250, middle[1] + 3.5 * 3 * scale + 125)
    window.page.mouse.up(button="right")
    low, high = window.page.evaluate("miner.page.state.window")
    assert [(low + high) / 2, high - low] == pytest.approx([800 + 600, 1200 * np.e], rel=1e-3)
    state = window.press("1", "+").page.evaluate("miner.page.state")
    window.page.wait_for_function("location.hash.includes('view=axial') && location.hash.includes('zoom')")
    window.page.reload()
    window.page.wait_for_function("window.miner")
    again = window.settle().page.evaluate("miner.page.state")
    assert again.pop("window") == pytest.approx(state.pop("window"), rel=1e-4)
    assert again == state
    assert window.press("a", "1", "0").page.evaluate("miner.page.state") | {"focus": None} == state | {
        "window": None, "view": "all", "zoom": 1, "focus": None,
    }  # fmt: skip
    window.page.evaluate("location.hash = 'at=99,1,1&window=2,1&view=top&surface=no&zoom=nan&channel=7'")
    window.page.wait_for_function("miner.page.state.zoom === 1")
    assert window.page.evaluate("miner.page.state.at") == [22, 3, 6], "words that are not understood change nothing"


def test_the_surface_is_made_when_asked_for_at_a_threshold_where_the_volume_lies(window, address, models, tmp_path):
    window.open(f"{address}/ct/").press("s")
    threshold = window.page.evaluate("miner.page.state.surface")
    assert -1000 < threshold < 3000
    for value in (threshold, threshold + 100):
        window.page.evaluate("value => miner.page.set({ surface: value })", value)
        window.settle()
        bricks = window.page.evaluate(
            "[...miner.page.solid.shell.bricks.visible()].map(({ surface }) => [...surface.positions])"
        )
        vertices = np.concatenate([np.reshape(one, (-1, 3)) for one in bricks])
        field = np.pad(models["ct"].decode()[0].numpy(), 1)
        there = CT["low"] + 4000.0 * map_coordinates(field, vertices.T[::-1] + 1, order=1)
        assert len(vertices) > 1000
        assert there == pytest.approx(value, abs=4000 * 2**-11)
    with window.page.expect_download() as download:
        window.page.click("text=Save as STL")
    download.value.save_as(tmp_path / "ct.stl")
    saved = trimesh.load_mesh(tmp_path / "ct.stl")
    places = (vertices @ np.array(AFFINE)[:3, :3].T + np.array(AFFINE)[:3, 3]).astype(np.float32)
    assert saved.bounds == pytest.approx(np.stack([places.min(axis=0), places.max(axis=0)]), abs=1e-3)
    assert saved.volume > 0, "seen from outside, though the affine mirrors"
    n_drawn = window.page.evaluate("miner.page.solid.shell.body.group.children.length")
    assert n_drawn == len(bricks), "those of the threshold before are gone"
    corner = window.page.evaluate(
        """(() => {
            const { stage } = miner.page.solid;
            return stage.voxels.localToWorld(new stage.three.Vector3(35, 0, 19)).toArray();
        })()"""
    )
    left, top, front = corner
    assert left < 0 < top, "x ends at the left, y begins at the top of the patient, who stands upright"
    assert front < 0, "and looks away from azimuth 0"


def test_channels_are_colours_or_one_is_chosen(window, address, models):
    window.open(f"{address}/film/#at=20,11,7&window=0,65535").press("x")
    values = models["film"].decode().numpy()[:, 7] * 255
    difference = abs(shades(window, "xy") - np.moveaxis(values, 0, 2))
    assert np.quantile(difference, 0.8) < 12
    window.open(f"{address}/spectra/#at=20,11,7&window=0,65535&channel=4").press("x")
    difference = abs(shades(window, "xy")[..., 0] - models["spectra"].decode().numpy()[3, 7] * 255)
    assert np.quantile(difference, 0.8) < 12
    window.page.locator("select").select_option("2")
    window.settle()
    assert window.text(".reading") == str(round(float(models["spectra"].decode()[1, 7, 11, 20]) * 65535))
