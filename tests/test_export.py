"""A fit as a site of files, and as one page: what is written, and that a browser shows it."""

import base64
import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_packed_file import random_model

import viewing.export
from benchmarks.ranges import served
from models.miner import MINER
from packing.write import write_packed
from viewing.bundle import bare_imports, bundled, in_script, plain
from viewing.export import embedded, export_folder, export_page
from viewing.images import Picture
from viewing.site import VIEWER, page

MODULES = {
    "main.js": 'import { draw } from "./draw.js";\nimport { half, pi } from "./numbers.js";\n\nawait draw(half(pi));\n',
    "draw.js": 'import { half } from "./numbers.js";\nexport async function draw(x) { return half(x); }\n',
    "numbers.js": "/** export */\nexport const pi = 3;\nexport function half(x) { return x / 2; }\nclass Inner {}\n",
}


@pytest.fixture(scope="module")
def packed(small_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "small.miner"
    write_packed(path, MINER.load(small_run), {})
    return path


def original(size: tuple[int, int], n_channels: int = 3) -> Picture:
    """A picture of noise, and its levels."""
    values = np.random.default_rng(5).integers(0, 256, (*size, n_channels), np.uint8)

    def read(level: int, window) -> np.ndarray:
        (top, bottom), (left, right) = window
        return values[:: 2**level, :: 2**level][top:bottom, left:right]

    return Picture(size, n_channels, read)


def elements(text: str) -> dict[str, str]:
    """The texts of a page's scripts by what tells them apart."""
    found = re.findall(r"<script ([^>]*)>(.*?)</script>", text, re.DOTALL)
    return {re.search(r'(?:id|type|src)="([^"]+)"', attributes)[1]: inner for attributes, inner in found}


def test_modules_are_one_script_each_once_and_after_those_it_needs():
    text = bundled("main.js", MODULES.__getitem__)
    assert "import" not in text
    assert re.findall("^export", text, re.MULTILINE) == []
    assert text.count("function half(x)") == text.count("const pi = 3;") == 1
    assert text.index("const pi") < text.index("async function draw") < text.index("await draw")
    assert "/** export */" in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"numbers.js": 'import { draw } from "./draw.js";\nexport const pi = 3;\n'},
            "modules need each other: .*draw.js",
        ),
        (
            {"draw.js": 'import { half } from "./numbers.js";\nconst pi = 4;\n'},
            "pi is declared in both numbers.js and draw",
        ),
        ({"draw.js": "export async function draw() {}\nasync function half() {}\n"}, "half is declared in both"),
        (
            {"numbers.js": "export const pi = 3;\nfunction half() {}\n"},
            "imports half, which numbers.js does not export",
        ),
        ({"draw.js": 'import * as numbers from "./numbers.js";\n'}, "draw.js: 'import . as .* cannot be part of one"),
        ({"draw.js": 'import "./numbers.js";\n'}, "cannot be part of one script"),
        ({"draw.js": "export default function draw() {}\n"}, "cannot be part of one script"),
        ({"draw.js": 'export { half } from "./numbers.js";\n'}, "cannot be part of one script"),
    ],
)
def test_what_does_not_mean_the_same_in_one_script_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        bundled("main.js", (MODULES | changed).__getitem__)


def test_imports_while_running_stay():
    assert plain("x.js", 'const three = await import("three");\n') == 'const three = await import("three");\n'


def test_a_script_in_a_page_does_not_end_early():
    text = in_script('const a = "</script><!-- <script>", b = /<\\/SCRIPT>/, c = "</ScRiPt>", d = 1 < 2;')
    assert "</script" not in text.lower()
    assert "<!--" not in text
    assert text == 'const a = "<\\/script>\\x3c!-- <script>", b = /<\\/SCRIPT>/, c = "<\\/ScRiPt>", d = 1 < 2;'


def test_modules_in_an_address_name_those_beside_them_by_the_map():
    text = 'import{a}from"./core.js";import "./side.js";export*from"./core.js";import{b}from"three";const c="./d.js";'
    expected = text.replace("./core.js", "three/core.js").replace("./side.js", "three/side.js")
    assert bare_imports(text, "three") == (expected, {"core.js", "side.js"})


def test_what_the_page_is_told_cannot_end_its_element():
    description = {"name": "</script><script>alert(1)</script>", "fit": "a\\1b.miner"}
    text = page(description)
    assert json.loads(elements(text)["site"]) == description
    assert text.count("</script>") == (VIEWER / "index.html").read_text().count("</script>")


@pytest.mark.parametrize("is_volume", [False, True])
def test_one_page_holds_all_that_it_needs(is_volume):
    text = embedded(page({"name": "x", "fit": None}), b"a fit", is_volume)
    parts = elements(text)
    assert base64.b64decode(parts["fit"]) == b"a fit"
    assert base64.b64decode(parts["decoder/decoder.wasm"]) == (VIEWER / "decoder/decoder.wasm").read_bytes()
    assert "function surfaceOf" in parts["worker.js"]
    assert "openFit(" in parts["module"]
    assert not re.search(r'\b(?:src|href)="(?!data:)', re.sub("<script.*?</script>", "", text, flags=re.DOTALL))
    assert not re.search(r"<script[^>]*\bsrc=", text)
    assert "<style>\n" in text
    imports = json.loads(parts["importmap"]).get("imports", {})
    assert ("OpenSeadragon=" in text or "function OpenSeadragon" in text) == (not is_volume)
    names = {"three", "three/three.core.min.js", "three/addons/controls/OrbitControls.js"}
    assert set(imports) == (names if is_volume else set())
    for address in imports.values():
        module = base64.b64decode(address.removeprefix("data:text/javascript;base64,")).decode()
        assert (
            set(re.findall(r"""\bfrom\s*["']([^"']+)["']""", re.sub(r"/\*.*?\*/", "", module, flags=re.DOTALL)))
            <= names
        )


def test_a_fit_that_is_too_large_for_a_page_is_told_to_be_a_folder(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(viewing.export, "MOST_EMBEDDED", 1000)
    with pytest.raises(
        ValueError, match=r"a page holds fits of up to 1,000 bytes, and this one has [\d,]+; export a folder"
    ):
        export_page(tmp_path / "x.html", "x", packed, False, None)
    assert list(tmp_path.iterdir()) == []


def test_a_page_holds_a_small_original_and_goes_without_a_large_one(packed, tmp_path, monkeypatch):
    picture = original((20, 30))
    export_page(tmp_path / "x.html", "x", packed, False, picture)
    shown = json.loads(elements((tmp_path / "x.html").read_text())["site"])
    assert shown["fit"] is None
    data = base64.b64decode(shown["original"]["url"].removeprefix("data:image/png;base64,"))
    (tmp_path / "x.png").write_bytes(data)
    assert np.array_equal(Image.open(tmp_path / "x.png"), picture.reader(0, ((0, 20), (0, 30))))
    monkeypatch.setattr(viewing.export, "_MOST_PIXELS", 599)
    export_page(tmp_path / "x.html", "x", packed, False, picture)
    assert json.loads(elements((tmp_path / "x.html").read_text())["site"])["original"] is None


def test_a_site_has_the_page_the_fit_and_what_was_fitted(packed, tmp_path):
    picture = original((20, 30), 4)
    export_folder(tmp_path / "site", "a b", packed, picture)
    site = tmp_path / "site"
    assert (site / "a b.miner").read_bytes() == packed.read_bytes()
    told = json.loads(elements((site / "index.html").read_text())["site"])
    url = "a%20b_original.png"
    assert told == {"name": "a b", "fit": "a%20b.miner", "original": {"kind": "image", "url": url}, "iiif": None}
    assert np.array_equal(Image.open(site / "a b_original.png"), picture.reader(0, ((0, 20), (0, 30))))
    there = {str(path.relative_to(VIEWER)) for path in VIEWER.rglob("*") if path.is_file()}
    copied = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert {name for name in there - copied if not name.endswith((".c", ".h"))} == set()
    assert {path.name for path in tmp_path.iterdir()} == {"site"}
    assert (site.stat().st_mode & 0o055) == 0o055 & ~viewing.export._mask(), "a web host reads it as others"


def test_a_large_original_becomes_tiles_of_all_its_levels(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(viewing.export, "_MOST_PIXELS", 1000)
    picture = original((300, 700))
    export_folder(tmp_path / "site", "x", packed, picture)
    told = json.loads(elements((tmp_path / "site/index.html").read_text())["site"])
    assert told["original"] == {"kind": "iiif", "url": "x_original/info.json"}
    place = tmp_path / "site/x_original"
    info = json.loads((place / "info.json").read_text())
    assert (info["id"], info["profile"], info["width"], info["height"]) == ("x_original", "level0", 700, 300)
    assert info["tiles"] == [{"width": 256, "height": 256, "scaleFactors": [1, 2, 4]}]
    assert info["preferredFormats"] == ["png"]
    tiles = {str(path.relative_to(place).parent): np.asarray(Image.open(path)) for path in place.rglob("default.png")}
    assert len(tiles) == 6 + 2 + 1
    assert np.array_equal(tiles["512,256,188,44/188,44/0"], picture.reader(0, ((256, 300), (512, 700))))
    assert np.array_equal(tiles["512,0,188,300/94,150/0"], picture.reader(1, ((0, 150), (256, 350))))
    assert np.array_equal(tiles["full/175,75/0"], picture.reader(2, ((0, 75), (0, 175))))


@pytest.mark.parametrize("was_there", [False, True])
def test_what_fails_leaves_no_folder(packed, tmp_path, was_there):
    def fail(*_):
        raise KeyboardInterrupt

    if was_there:
        (tmp_path / "site").mkdir()
    with pytest.raises(KeyboardInterrupt):
        export_folder(tmp_path / "site", "x", packed, Picture((20, 30), 3, fail))
    assert [path.name for path in tmp_path.rglob("*")] == (["site"] if was_there else [])


def test_a_full_disk_is_told_once(packed, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(viewing.export.shutil, "copyfile", fail)
    with pytest.raises(ValueError, match=r"cannot write .*site: No space left on device; free some space$"):
        export_folder(tmp_path / "site", "x", packed, None)
    assert list(tmp_path.iterdir()) == []


def decoded_at(browser, address: str) -> tuple[np.ndarray, str]:
    """The values of the finest level that a page decodes, flat, and what it shows as its name."""
    tab = browser.new_page()
    try:
        errors = []
        tab.on("pageerror", lambda error: errors.append(error))
        tab.goto(address)
        tab.wait_for_function("window.miner !== undefined", timeout=20000)
        values = tab.evaluate(
            "miner.tiles.window('shown', 0, miner.fit.size.map((n) => [0, n]), {}).then((values) => Array.from(values))"
        )
        assert errors == []
        return np.array(values), tab.inner_text("#name")
    finally:
        tab.close()


def test_a_browser_shows_the_page_from_a_disk(browser, packed, tmp_path):
    export_page(tmp_path / "x.html", "a face", packed, False, None)
    values, name = decoded_at(browser, (tmp_path / "x.html").as_uri())
    assert name == "a face"
    assert abs(values - MINER.load(packed).decode().flatten().numpy()).max() < 1 / 255


def test_a_browser_shows_the_site_from_a_host(browser, packed, tmp_path):
    export_folder(tmp_path / "site", "a face", packed, None)
    with served(tmp_path / "site") as (address, asked):
        values, _ = decoded_at(browser, f"{address}/index.html")
        assert abs(values - MINER.load(packed).decode().flatten().numpy()).max() < 1 / 255
        assert asked


def test_a_browser_shows_a_volume_from_a_disk(browser, tmp_path):
    model = random_model((9, 9, 9), (4, 4, 4), 1, 1)
    write_packed(tmp_path / "cube.miner", model, {})
    export_page(tmp_path / "x.html", "a cube", tmp_path / "cube.miner", True, None)
    values, name = decoded_at(browser, (tmp_path / "x.html").as_uri())
    assert name == "a cube"
    assert abs(values - model.decode().flatten().numpy()).max() < 1 / 255
