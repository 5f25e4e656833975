"""The page of a picture, in Chromium: its pixels against `decode`, and what can be done with it."""

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from browsing import Window, opened, served
from conftest import fit
from cosine_models import cosine_model
from helpers import ASTRONAUT
from PIL import Image

from datasets.sources import read_picture
from models.miner import MINER
from models.packed.level import n_parameters
from packing.write import write_packed

LEVEL_0 = ".switch:has-text('Level 0')"
HEIGHT, WIDTH = 300, 401  # no size is a multiple of anything
FIT = [
    *("--path", str(ASTRONAUT), "--input_size", str(WIDTH), str(HEIGHT), "--preset", "best", "--n_scales", "4"),
    *("--num_epochs", "10", "10", "10", "20", "--exp_name", "small", "--accelerator", "cpu"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """A picture's file by its name, a damaged copy, a part of it, and the original."""
    folder = tmp_path_factory.mktemp("page")
    write_packed(folder / "face.miner", MINER.load(fit(folder, FIT)), {})
    write_packed(folder / "cosines.miner", *cosine_model((HEIGHT, WIDTH), (32, 32), 3, 1, (8, 16, 32)))
    data = (folder / "face.miner").read_bytes()
    hurt = bytearray(data)
    hurt[-1000] ^= 255
    picture = read_picture(ASTRONAUT, (HEIGHT, WIDTH)).values
    original = io.BytesIO()
    Image.fromarray(in_bytes(picture.numpy())).save(original, "PNG")
    return {
        "face.miner": data,
        "cosines.miner": (folder / "cosines.miner").read_bytes(),
        "hurt.miner": bytes(hurt),
        "part.miner": data[: len(data) - 1000],
        "other.miner": b"other" * 1000,
        "original.png": original.getvalue(),
    }


@pytest.fixture(scope="module")
def model(files, tmp_path_factory) -> MINER:
    path = tmp_path_factory.mktemp("model") / "face.miner"
    path.write_bytes(files["face.miner"])
    return MINER.load(path)


@pytest.fixture(scope="module")
def address(files) -> Iterator[str]:
    with served(files) as address:
        yield address


@pytest.fixture
def window(browser) -> Iterator[Window]:
    yield from opened(browser, viewport={"width": 720, "height": 560}, color_scheme="dark")


@pytest.fixture
def phone(browser) -> Iterator[Window]:
    yield from opened(browser, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)


@pytest.fixture
def face(window, address) -> Iterator[Window]:
    """The page of the sound file; nothing in it may complain."""
    yield window.open(f"{address}/face/")
    assert window.complaints == []


def in_bytes(values: np.ndarray) -> np.ndarray:
    """(c, h, w) in [0, 1] as (h, w, c) in 8 bits."""
    return np.rint(255 * values).astype(np.uint8).transpose(1, 2, 0)


def assert_same(shown: np.ndarray, expected: np.ndarray) -> None:
    """Within 1/255 but for at most one pixel of 10^5."""
    assert shown.shape[:2] == expected.shape[:2]
    off = np.abs(shown[..., :3].astype(int) - expected).max(-1) > 1
    assert off.sum() <= off.size // 10**5, f"{off.sum()} of {off.size} pixels"


def test_a_pixel_on_each_of_the_screen_is_decoded_exactly(face, model):
    face.press("1")
    top, left = face.corner
    assert (top, left) == pytest.approx((round(top), round(left)), abs=1e-6)
    top, left = round(top), round(left)
    assert_same(face.pixels()[top : top + HEIGHT, left : left + WIDTH], in_bytes(model.decode().numpy()))
    assert face.text(".zoom") == "100%"
    assert face.text(".level") == "level 0"


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_that_is_not_whole_is_shown_as_decode_gives_it(face, model, level):
    assert not model.levels[level].is_whole
    face.go(0.5**level, HEIGHT / 2, WIDTH / 2)
    expected = in_bytes(model.decode(level).numpy())[: HEIGHT >> level, : WIDTH >> level]
    top, left = map(round, face.corner)
    shown = face.pixels()[top : top + expected.shape[0], left : left + expected.shape[1]]
    assert_same(shown, expected)
    assert face.text(".level") == f"level {level}"


def test_beyond_the_pixels_it_interpolates_as_decoding_does(face, model):
    face.go(4, 150, 270)  # two tiles of the level meet there
    top, left = map(round, face.corner)
    expected = in_bytes(model.decode(scale=4).numpy())[-top : 560 - top, -left : 720 - left]
    assert_same(face.pixels(), expected)
    assert face.text(".zoom") == "400%"


def test_a_link_leads_back_to_where_it_was_copied(face, address):
    face.go(3, 100, 200)
    face.page.evaluate("miner.page.showBlocks([0, 3])")
    face.page.evaluate("miner.page.compare('split')")
    face.page.wait_for_function("location.hash.includes('compare')")
    there = face.page.evaluate("location.hash")
    before = face.page.evaluate("miner.page.state")
    face.page.goto("about:blank")
    face.open(f"{address}/face/{there}")
    after = face.page.evaluate("miner.page.state")
    assert after["blocks"] == [0, 3]
    assert after["compare"] == "split"
    for name in ("zoom", "x", "y"):
        assert after[name] == pytest.approx(before[name], rel=1e-6)
    face.page.evaluate("location.hash = '#zoom=2&x=0.25&y=0.5'")
    face.page.wait_for_function("Math.abs(miner.page.state.zoom - 2) < 1e-3")
    assert face.page.evaluate("miner.page.state")["compare"] == "off"


def test_blocks_are_drawn_where_they_are_and_only_when_asked_for(face):
    overlay = "miner.page.blocks.canvas"
    assert face.pixels(overlay)[..., 3].max() == 0
    face.go(1, HEIGHT / 2, WIDTH / 2)
    face.page.click(LEVEL_0)
    drawn = face.pixels(overlay)[..., 3] > 0
    top, left = map(round, face.corner)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), columns.min()) == (top, left)
    assert drawn[top + 32, left + 8]  # the edge of a block of 32
    assert not drawn[top + 16, left + 16]  # the inside of one
    face.press("b")
    assert face.pixels(overlay)[..., 3].max() == 0


def test_small_blocks_are_drawn_as_a_mask(face):
    face.page.evaluate("miner.viewer.viewport.minZoomLevel = 0.01")
    face.go(0.1, HEIGHT / 2, WIDTH / 2)
    face.page.evaluate("miner.page.showBlocks([0])")
    drawn = face.pixels("miner.page.blocks.canvas")[..., 3] > 0
    top, left = map(round, face.corner)
    assert drawn[top + 3 : top + 27, left + 3 : left + 37].mean() > 0.5
    assert not drawn[: top - 2].any()


def test_the_block_and_the_pixel_under_the_pointer_are_told(face, model):
    face.press("1")
    top, left = face.corner
    row, column = 101, 203
    face.page.mouse.move(left + column + 0.5, top + row + 0.5)
    face.settle()
    assert face.text(".place") == f"{column}, {row}"
    value = in_bytes(model.decode(crop=((row, row + 1), (column, column + 1))).numpy())[0, 0]
    assert [int(word) for word in face.text(".value").split()] == pytest.approx(value.tolist(), abs=1)
    units = int(model.units(0)[row // 32, column // 32])
    shape = next(shape for shape in model.levels[0].shapes if shape.n_hidden == units)
    expected = (
        f"level 0, row {row // 32}, column {column // 32}: {units} units, {n_parameters([shape], [1]):,} parameters"
    )
    assert face.text(".block") == expected


def test_a_picture_of_cosines_in_one_level_is_shown(window, address):
    window.open(f"{address}/cosines/")
    model, _ = cosine_model((HEIGHT, WIDTH), (32, 32), 3, 1, (8, 16, 32))
    window.press("1")
    top, left = map(round, window.corner)
    assert_same(window.pixels()[top : top + HEIGHT, left : left + WIDTH], in_bytes(model.decode().numpy()))
    window.page.mouse.move(left + 203.5, top + 101.5)
    window.settle()
    n = int(model.units()[101 // 32, 203 // 32])
    assert window.text(".block") == f"level 0, row 3, column 6: cosines in parts of {n} pixels"
    assert window.complaints == []


def test_the_original_is_split_off_and_subtracted(face, files, model):
    original = np.array(Image.open(io.BytesIO(files["original.png"])))
    ours = in_bytes(model.decode().numpy())
    face.press("1")
    top, left = map(round, face.corner)
    place = slice(top, top + HEIGHT), slice(left, left + WIDTH)
    face.press("o")
    face.page.wait_for_function("miner.viewer.world.getItemCount() === 2")
    shown = face.settle().pixels()[place]
    middle = 360 - left
    assert_same(shown[:, : middle - 1], ours[:, : middle - 1])
    assert_same(shown[:, middle + 1 :], original[:, middle + 1 :])
    face.press("o")
    difference = np.abs(ours.astype(int) - original)
    assert difference.max() > 10
    assert_same(face.pixels()[place], difference)
    assert face.page.evaluate("miner.viewer.drawer.canvas.style.filter") == "brightness(4)"
    face.press("o")
    assert_same(face.pixels()[place], ours)


def test_the_handle_moves_the_edge(face, files):
    face.press("1", "o")
    face.page.wait_for_function("miner.viewer.world.getItemCount() === 2")
    face.page.mouse.move(360, 280)
    face.page.mouse.down()
    face.page.mouse.move(200, 280, steps=3)
    face.page.mouse.up()
    top, left = map(round, face.settle().corner)
    original = np.array(Image.open(io.BytesIO(files["original.png"])))
    shown = face.pixels()[top : top + HEIGHT, left : left + WIDTH]
    assert_same(shown[:, 202 - left :], original[:, 202 - left :])


def test_tiles_that_cannot_be_decoded_are_told_and_the_rest_is_shown(window, address, model):
    window.open(f"{address}/hurt/#zoom={WIDTH / 720}&x=0.5&y={HEIGHT / WIDTH / 2}")
    assert "1 tile could not be shown" in window.text("#message")
    assert "damaged" in window.text("#message")
    assert "1 tile failed" in window.text(".work")
    top, left = map(round, window.corner)
    ours = in_bytes(model.decode().numpy())
    assert_same(window.pixels()[top : top + 256, left : left + 256], ours[:256, :256])  # the first tile is sound
    window.page.click("text=Try again")
    window.page.wait_for_function("miner.page.jobs.failed.size === 1")  # it was asked for again, and failed again


def test_a_file_cut_short_shows_its_coarser_levels(window, address, model):
    window.open(f"{address}/part/")
    assert "cut short" in window.text("#message")
    assert window.page.evaluate("miner.fit.finest") > 0


@pytest.mark.parametrize(
    ("name", "told"), [("other", "is not a .miner file"), ("absent", "is not on the server (404)")]
)
def test_what_cannot_be_shown_is_told_in_words(window, address, name, told):
    window.open(f"{address}/{name}/")
    assert told in window.text(".notice")


def test_a_browser_that_cannot_decode_is_told_so(window, address):
    window.page.add_init_script("WebAssembly.validate = () => false")
    window.open(f"{address}/face/")
    assert "no WebAssembly SIMD" in window.text(".notice")


def test_a_server_without_ranges_does_for_small_files(window, files):
    with served(files, has_ranges=False) as address:
        window.open(f"{address}/face/")
        assert window.press("1").text(".level") == "level 0"
        assert window.complaints == []


def test_a_file_is_chosen_or_dropped(window, address, files):
    window.open(f"{address}/none/")
    assert "Choose a .miner file" in window.text(".notice")
    dropped = {"name": "face.miner", "mimeType": "application/octet-stream", "buffer": files["face.miner"]}
    window.page.set_input_files("input[type=file]", dropped)
    window.page.wait_for_function("window.miner")
    assert window.settle().text("#name") == "face"
    drop(window, files["face.miner"], "again.miner")
    window.page.wait_for_function("document.getElementById('name').textContent === 'again' && window.miner")
    window.settle()
    assert window.page.locator(".blocks").count() == 1
    assert window.page.locator("[aria-label^='Copy the link']").count() == 0, "none leads to a file of this device"
    assert window.complaints == []


def drop(window: Window, data: bytes, *names: str) -> None:
    """A file after the other, in the same moment."""
    window.page.evaluate(
        """([text, names]) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            for (const name of names) {
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([bytes], name));
                document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
            }
        }""",
        [base64.b64encode(data).decode(), list(names)],
    )


def test_of_two_files_dropped_at_once_the_last_one_is_shown_alone(face, files):
    drop(face, files["face.miner"], "one.miner", "two.miner")
    face.page.wait_for_function("document.getElementById('name').textContent === 'two' && window.miner")
    face.page.wait_for_timeout(200)  # for what should not come
    face.settle()
    for part in (".openseadragon-container", ".navigator", ".blocks"):
        assert face.page.locator(part).count() == (2 if part.startswith(".open") else 1)  # the navigator has its own
    assert face.page.locator("#sections section").count() == 1


def test_what_is_no_fit_leaves_what_is_shown(face):
    drop(face, b"hello" * 100, "notes.txt")
    face.page.wait_for_selector("#message")
    assert "notes.txt is not a .miner file" in face.text("#message")
    assert face.text("#name") == "face"
    assert face.press("1").text(".zoom") == "100%"


def test_an_address_that_is_none_is_told(window, address):
    window.open(f"{address}/none/?fit=http://")
    assert "http:// is no address" in window.text(".notice")


def test_keys_need_no_click_and_leave_fields_alone(face):
    home = face.page.evaluate("miner.page.state")
    face.press("+", "ArrowRight")
    face.page.wait_for_function(f"miner.page.state.zoom > 1.9 * {home['zoom']}")
    assert face.page.evaluate("miner.page.state")["x"] > home["x"]
    face.press("0")
    face.page.wait_for_function(f"Math.abs(miner.page.state.zoom / {home['zoom']} - 1) < 1e-2")
    face.page.focus("#fold")
    face.page.mouse.click(360, 280)  # takes the focus from it, and has no ring
    assert face.page.evaluate("document.activeElement === document.body")
    face.press("1", "l")
    assert face.text(".zoom") == "100%"
    assert face.page.evaluate("document.documentElement.dataset.theme") == "light"
    face.press("?")
    assert face.page.is_visible("#help")
    face.press("b")  # belongs to the dialog
    assert face.page.evaluate("miner.page.blocks.on") == []
    face.press("Escape", "b")
    assert face.page.evaluate("miner.page.blocks.on") == [0, 3]  # the others have no block
    face.page.focus(".choice input")
    face.press("ArrowRight")
    assert face.page.evaluate("miner.page.comparison.mode") == "split"
    assert face.text(".zoom") == "100%"


def test_tiles_out_of_view_are_given_up_and_may_be_asked_for_again(face):
    face.page.evaluate(
        """() => {
            const { shown } = miner.tiles;
            miner.tiles.shown = (level, number, { signal }) => new Promise((resolve, reject) => {
                signal.addEventListener("abort", () => reject(signal.reason));
            });
            window.restore = () => { miner.tiles.shown = shown; };
            miner.viewer.world.getItemAt(0).reset();
            miner.viewer.viewport.goHome(true);
        }"""
    )
    face.page.wait_for_function("miner.page.jobs.nWaiting > 1")
    face.page.evaluate(
        "miner.viewer.viewport.panTo(new OpenSeadragon.Point(0.05, 0.05), true),"
        "miner.viewer.viewport.zoomTo(20, null, true)"
    )
    face.page.evaluate("restore()")
    face.page.wait_for_function("miner.page.isExact")
    face.page.evaluate("miner.viewer.viewport.goHome(true)")
    face.page.wait_for_function("miner.page.isExact")
    assert face.page.evaluate("miner.page.jobs.failed.size") == 0


def test_on_a_phone_the_panel_is_a_sheet_that_folds_away(phone, address):
    phone.open(f"{address}/face/")
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not phone.page.is_visible(LEVEL_0)
    phone.page.tap("#fold")
    assert phone.page.is_visible(LEVEL_0)
    phone.page.tap(LEVEL_0)
    assert phone.page.evaluate("miner.page.blocks.on") == [0]
    for tool in phone.page.query_selector_all("#tools .tool:visible"):
        box = tool.bounding_box()
        assert min(box["width"], box["height"]) >= 44
        assert box["x"] + box["width"] <= 390
    phone.page.tap("#fold")
    phone.page.touchscreen.tap(195, 422)
    assert phone.settle().text(".place")
    assert phone.complaints == []
