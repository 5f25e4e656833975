"""The IIIF Image API: what may be asked, what is sent, and that pixels are those of the fit."""

import asyncio
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fit
from helpers import ASTRONAUT, ROOT, write_picture
from PIL import Image
from starlette.testclient import TestClient

from datasets.sources import open_picture
from models.miner import MINER
from packing.write import write_packed
from viewing import iiif
from viewing.images import Picture, encoded, fit_picture, original_picture
from viewing.server import HOST, make_app
from viewing.site import Site

HEIGHT, WIDTH = 375, 501


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MINER:
    """A face, fitted in a moment: a picture of more than a tile, in two levels, with odd sizes."""
    size = (str(WIDTH), str(HEIGHT))
    arguments = ["--path", str(ASTRONAUT), "--input_size", *size, "--preset", "best", "--n_scales", "2"]
    arguments += ["--num_epochs", "2", "--exp_name", "small", "--accelerator", "cpu", "--quiet"]
    return MINER.load(fit(tmp_path_factory.mktemp("face"), arguments))


@pytest.fixture(scope="module")
def client(model, tmp_path_factory) -> TestClient:
    path = tmp_path_factory.mktemp("served") / "face.miner"
    write_packed(path, model, {})
    site = Site("a face", path, None, has_pictures=True)
    app = make_app(site, {"a face": fit_picture(MINER.load(path))})
    return TestClient(app, base_url=f"http://{HOST}:8000", follow_redirects=False)


def asked(client: TestClient, path: str, **headers: str):
    return client.get(f"/iiif/a%20face/{path}", headers=headers)


def pixels_of(data: bytes) -> np.ndarray:
    """(h, w, c)"""
    pixels = np.asarray(Image.open(BytesIO(data)))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def bytes_of(values: torch.Tensor) -> np.ndarray:
    return (values * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def striped(n_channels: int, size: tuple[int, int] = (40, 60), seen: list | None = None) -> Picture:
    """A picture of noise, which tells what is read of it."""
    levels = iiif.scale_factors(size)
    whole = np.random.default_rng(3).integers(0, 256, (*size, n_channels), np.uint8) if max(size) < 1000 else None

    def read(level: int, window) -> np.ndarray:
        (top, bottom), (left, right) = window
        if seen is not None:
            seen.append((level, bottom - top, right - left))
        assert level < len(levels)
        if whole is None:
            return np.zeros((bottom - top, right - left, n_channels), np.uint8)
        assert level == 0
        return whole[top:bottom, left:right]

    return Picture(size, n_channels, read)


def sent(picture: Picture, path: str) -> np.ndarray:
    return pixels_of(encoded(picture, iiif.parse(*path.split("/"), of=picture.size, n_channels=picture.n_channels)))


@pytest.mark.parametrize(
    ("region", "window"),
    [
        ("full", (0, 375, 0, 501)),
        ("square", (0, 375, 63, 438)),
        ("10,20,30,40", (20, 60, 10, 40)),
        ("480,350,300,300", (350, 375, 480, 501)),
        ("pct:0,0,100,100", (0, 375, 0, 501)),
        ("pct:50,25.5,10,.8", (96, 99, 250, 301)),
        ("pct:90,90,50,50", (338, 375, 451, 501)),
    ],
)
def test_regions_are_pixels_of_the_fit(client, model, region, window):
    answer = asked(client, f"{region}/max/0/default.png")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    top, bottom, left, right = window
    assert np.array_equal(pixels_of(answer.content), bytes_of(model.decode()[:, top:bottom, left:right]))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("max", (501, 375)),
        ("^max", (501, 375)),
        ("100,", (100, 75)),
        (",100", (134, 100)),
        ("pct:50", (250, 188)),
        ("pct:33.3", (167, 125)),
        ("100,90", (100, 90)),
        ("!100,90", (100, 75)),
        ("!400,90", (120, 90)),
        ("501,375", (501, 375)),
        ("^600,", (600, 449)),
        ("^,750", (1002, 750)),
        ("^pct:200", (1002, 750)),
        ("^600,10", (600, 10)),
        ("^!1002,1002", (1002, 750)),
        ("^!9000,9000", (4734, 3543)),
        ("1,", (1, 1)),
    ],
)
def test_sizes_are_those_of_the_api(client, size, expected):
    answer = asked(client, f"full/{size}/0/default.png")
    assert answer.status_code == 200, answer.text
    assert Image.open(BytesIO(answer.content)).size == expected


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("fool/max/0/default.jpg", 400, "the region must be"),
        ("0,0,-1,5/max/0/default.jpg", 400, "the region must be"),
        ("0,0,5/max/0/default.jpg", 400, "the region must be"),
        ("1.5,0,5,5/max/0/default.jpg", 400, "the region must be"),
        ("pct:1e1,0,5,5/max/0/default.jpg", 400, "the region must be"),
        ("0,0,0,5/max/0/default.jpg", 400, "no pixel of the picture, which is 501 x 375"),
        ("501,0,5,5/max/0/default.jpg", 400, "no pixel of the picture"),
        ("pct:0,0,0.01,50/max/0/default.jpg", 400, "no pixel of the picture"),
        (f"0,0,{'9' * 5000},5/max/0/default.jpg", 400, "the region must be"),
        ("full/full/0/default.jpg", 400, "the size must be"),
        ("full/pct:/0/default.jpg", 400, "the size must be"),
        ("full/,/0/default.jpg", 400, "the size must be"),
        ("full/0,/0/default.jpg", 400, "the size has no pixel"),
        ("full/0,10/0/default.jpg", 400, "the size has no pixel"),
        ("full/pct:0/0/default.jpg", 400, "the size has no pixel"),
        ("full/502,/0/default.jpg", 400, "larger than the region, 501 x 375; to enlarge it, write ^502,"),
        ("full/,376/0/default.jpg", 400, "larger than the region"),
        ("full/10,376/0/default.jpg", 400, "larger than the region"),
        ("full/pct:101/0/default.jpg", 400, "larger than the region"),
        ("full/!600,600/0/default.jpg", 400, "larger than the region"),
        ("full/!0,600/0/default.jpg", 400, "the size has no pixel"),
        ("0,0,10,10/11,11/0/default.jpg", 400, "larger than the region, 10 x 10"),
        ("full/^5000,5000/0/default.jpg", 400, "more pixels than are served, 16383 a side and 16,777,216 in all"),
        ("full/^16384,1/0/default.jpg", 400, "more pixels than are served"),
        ("full/^pct:999999999/0/default.jpg", 400, "more pixels than are served"),
        ("full/max/361/default.jpg", 400, "the rotation must be"),
        ("full/max/-90/default.jpg", 400, "the rotation must be"),
        ("full/max/90!/default.jpg", 400, "the rotation must be"),
        ("full/max/22.5/default.jpg", 501, "turned by 0, 90, 180 or 270"),
        ("full/max/0/colour.jpg", 400, "the quality must be one of default, color, gray, bitonal"),
        ("full/max/0/default", 400, "the format must be one of jpg, png, webp"),
        ("full/max/0/default.exe", 400, "the format must be"),
        ("full/max/0/default.tif", 501, "the format must be"),
    ],
)
def test_what_cannot_be_is_told_in_words(client, path, status, words):
    answer = asked(client, path)
    assert answer.status_code == status
    assert words in answer.text
    assert len(answer.text.splitlines()) == 1
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["other/info.json", "other", "other/full/max/0/default.jpg"])
def test_other_names_are_not_there(client, path):
    answer = client.get(f"/iiif/{path}")
    assert (answer.status_code, answer.text) == (404, "no such picture\n"), (
        "pages of other sites do not learn the names"
    )


@pytest.mark.parametrize("path", ["", "/a%20face/full/max", "/a%20face/full/max/0/0/default.jpg", "/a/face/info.json"])
def test_other_paths_are_not_there(client, path):
    assert client.get(f"/iiif{path}").status_code == 404


@pytest.mark.parametrize("window", [(0, 256, 0, 256), (256, 375, 256, 501), (0, 375, 0, 501)])
def test_tiles_of_coarser_levels_are_those_levels_exactly(client, model, window):
    top, bottom, left, right = window
    for factor, values in ((1, model.decode()), (2, model.decode(1))):
        size = f"{-(-(right - left) // factor)},{-(-(bottom - top) // factor)}"
        answer = asked(client, f"{left},{top},{right - left},{bottom - top}/{size}/0/default.png")
        cut = values[:, top // factor : -(-bottom // factor), left // factor : -(-right // factor)]
        assert np.array_equal(pixels_of(answer.content), bytes_of(cut))


def test_other_sizes_are_resampled_from_a_level_that_has_the_pixels(client, model):
    values = bytes_of(model.decode())
    for region, size, level in (("full", (300, 225), 0), ("11,13,401,301", (200, 150), 1)):
        got = pixels_of(asked(client, f"{region}/{size[0]},{size[1]}/0/default.png").content).astype(float)
        box = (0, 0, WIDTH, HEIGHT) if region == "full" else (11, 13, 412, 314)
        expected = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.LANCZOS, box=box), float)
        error = abs(got - expected)
        assert error.max() == 0 if level == 0 else 0 < error.mean() < 3


def test_what_is_coarser_than_the_coarsest_level_is_means_of_it(model):
    coarse = model.with_levels({1: model.levels[1]})
    one = fit_picture(coarse)
    assert one.size == (188, 251)
    means = one.reader(1, ((10, 94), (0, 126)))
    padded = torch.nn.functional.pad(coarse.decode(1), (0, 1, 0, 0), mode="replicate")
    expected = padded.unflatten(2, (-1, 2)).mean(3).unflatten(1, (-1, 2)).mean(2)
    assert means.shape == (84, 126, 3)
    assert abs(means - bytes_of(expected)[10:].astype(float)).max() <= 1


@pytest.mark.parametrize(("rotation", "turns"), [("0", 0), ("90", 3), ("180", 2), ("270", 1), ("360", 0), ("90.0", 3)])
@pytest.mark.parametrize("mirror", ["", "!"])
def test_pictures_are_mirrored_then_turned_clockwise(client, model, rotation, turns, mirror):
    answer = asked(client, f"0,0,50,30/max/{mirror}{rotation}/default.png")
    cut = bytes_of(model.decode()[:, :30, :50])
    assert np.array_equal(pixels_of(answer.content), np.rot90(cut[:, ::-1] if mirror else cut, turns))


def test_qualities(client, model):
    colour, grey, two = (
        pixels_of(asked(client, f"full/max/0/{name}.png").content) for name in ("color", "gray", "bitonal")
    )
    assert np.array_equal(colour, bytes_of(model.decode()))
    luma = colour @ [0.299, 0.587, 0.114]
    assert grey.shape[2] == two.shape[2] == 1
    assert abs(grey[:, :, 0] - luma).max() < 1
    assert np.array_equal(two, np.where(grey < 128, 0, 255))


@pytest.mark.parametrize(("format", "type", "most"), [("jpg", "JPEG", 9), ("png", "PNG", 0), ("webp", "WEBP", 9)])
def test_formats(client, model, format, type, most):
    answer = asked(client, f"full/max/0/default.{format}")
    image = Image.open(BytesIO(answer.content))
    assert (image.format, answer.headers["content-type"]) == (type, Image.MIME[type])
    assert abs(np.asarray(image, float) - bytes_of(model.decode())).mean() <= most


def test_alpha_is_kept_or_laid_on_white():
    picture = striped(4)
    whole = picture.reader(0, ((0, 40), (0, 60))).astype(float)
    assert np.array_equal(sent(picture, "full/max/0/default.png"), whole)
    assert sent(picture, "full/30,20/0/default.webp").shape == (20, 30, 4)
    grey = sent(picture, "full/max/0/gray.png")
    assert np.array_equal(grey[:, :, 1], whole[:, :, 3])
    assert sent(picture, "full/max/0/gray.webp").shape == (40, 60, 4)
    alpha = whole[:, :, 3:] / 255
    white = whole[:, :, :3] * alpha + 255 * (1 - alpha)
    opaque = Picture(picture.size, 3, lambda _, window: np.rint(white).astype(np.uint8))
    assert (
        abs(sent(picture, "full/max/0/default.jpg") - sent(opaque, "full/max/0/default.jpg").astype(float)).max() <= 4
    )
    assert set(np.unique(sent(picture, "full/max/0/bitonal.png"))) == {0, 255}


def test_grey_pictures_stay_grey():
    picture = striped(1)
    for path in ("default.png", "color.png", "gray.png", "default.jpg"):
        assert sent(picture, f"full/max/0/{path}").shape == (40, 60, 1)
    assert iiif.parse("full", "max", "0", "gray.png", picture.size, 1).path == "full/max/0/default.png"


def test_what_was_fitted_is_served_in_8_bits_with_all_its_levels(tmp_path):
    values = torch.rand(3, 300, 270, generator=torch.Generator().manual_seed(1))
    write_picture(tmp_path / "deep.png", values, 16)
    picture = original_picture(open_picture(tmp_path / "deep.png"), tmp_path / "levels")
    assert (picture.size, picture.n_channels, picture.n_levels) == ((300, 270), 3, 2)
    assert abs(sent(picture, "full/max/0/default.png") - bytes_of(values).astype(float)).max() <= 1
    means = values.unflatten(2, (-1, 2)).mean(3).unflatten(1, (-1, 2)).mean(2)
    assert abs(sent(picture, "full/135,150/0/default.png") - bytes_of(means).astype(float)).max() <= 1


@pytest.mark.parametrize(
    ("path", "expected", "level"),
    [
        ("full/max/0/default.jpg", (4096, 4096), 3),
        ("full/256,256/0/default.jpg", (256, 256), 7),
        ("4096,8192,512,512/256,256/0/default.jpg", (256, 256), 1),
        ("100,100,256,256/max/0/default.jpg", (256, 256), 0),
        ("full/16383,1/0/default.jpg", (16383, 1), 2),
    ],
)
def test_of_a_large_picture_no_more_is_read_than_is_sent_or_a_bounded_part(path, expected, level):
    seen = []
    picture = striped(1, (32768, 32768), seen)
    assert sent(picture, path).shape[:2] == expected[::-1]
    [(read_level, height, width)] = seen
    assert read_level == level
    assert height * width <= 4 * iiif.MOST_AREA


def test_information_says_what_there_is(client):
    answer = asked(client, "info.json")
    assert answer.headers["content-type"] == "application/json"
    info = answer.json()
    assert info["id"] == f"http://{HOST}:8000/iiif/a%20face"
    assert (info["width"], info["height"], info["profile"]) == (WIDTH, HEIGHT, "level2")
    assert info["tiles"] == [{"width": 256, "height": 256, "scaleFactors": [1, 2]}]
    assert info["sizes"] == [{"width": 251, "height": 188}, {"width": WIDTH, "height": HEIGHT}]
    assert (info["maxArea"], info["preferredFormats"]) == (iiif.MOST_AREA, ["png"])
    for size in info["sizes"]:
        assert asked(client, f"full/{size['width']},{size['height']}/0/default.jpg").status_code == 200
    linked = asked(client, "info.json", accept="application/ld+json")
    assert linked.headers["content-type"].startswith("application/ld+json")
    assert linked.json() == info
    large = iiif.information("x", (32768, 20000))
    assert large["tiles"][0]["scaleFactors"] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert large["sizes"][-1] == {"width": 2500, "height": 4096}, "larger ones are not sent whole"


def test_the_base_leads_to_the_information(client):
    answer = client.get("/iiif/a%20face")
    assert (answer.status_code, answer.headers["location"]) == (303, f"http://{HOST}:8000/iiif/a%20face/info.json")


def test_links_name_the_profile_and_a_canonical_address_of_the_same_bytes(client):
    answer = asked(client, "pct:10,10,50,50/^pct:120/!450/gray.png".replace("450", "90"))
    links = dict(reversed(link) for link in re.findall(r'<([^>]+)>;rel="(\w+)"', answer.headers["link"]))
    assert links["profile"] == "http://iiif.io/api/image/3/level2.json"
    assert links["canonical"].endswith("/iiif/a%20face/50,38,251,187/^301,224/!90/gray.png")
    assert client.get(links["canonical"]).content == answer.content
    for path in ("0,0,501,375/501,375/360/color.jpg", "full/max/0/default.jpg"):
        assert '/full/max/0/default.jpg>;rel="canonical"' in asked(client, path).headers["link"]


@pytest.mark.parametrize("path", ["info.json", "full/max/0/default.jpg"])
def test_other_sites_may_read_and_caches_may_ask(client, path):
    answer = asked(client, path, origin="https://example.org")
    assert answer.headers["access-control-allow-origin"] == "*"
    question = client.options(f"/iiif/a%20face/{path}", headers={"Access-Control-Request-Method": "GET"})
    assert (question.status_code, question.headers["access-control-allow-origin"]) == (204, "*")
    head = client.head(f"/iiif/a%20face/{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == answer.headers["etag"]
    again = asked(client, path, **{"if-none-match": f'"other", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert asked(client, path, **{"if-none-match": '"other"'}).status_code == 200


def test_a_volume_has_no_pictures(client, tmp_path):
    (tmp_path / "x.miner").write_bytes(b"x")
    app = make_app(Site("x", tmp_path / "x.miner", None, has_pictures=False), {})
    answer = TestClient(app, base_url=f"http://{HOST}").get("/iiif/x/info.json")
    assert (answer.status_code, answer.text) == (404, "no such picture; a volume has none\n")


def test_a_file_that_is_damaged_is_told(client, model, tmp_path):
    path = tmp_path / "x.miner"
    write_packed(path, model, {})
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    app = make_app(Site("x", path, None, has_pictures=True), {"x": fit_picture(MINER.load(path))})
    answer = TestClient(app, base_url=f"http://{HOST}").get("/iiif/x/full/max/0/default.jpg")
    assert answer.status_code == 500
    assert f"{path} is damaged" in answer.text


def test_a_file_that_was_removed_is_not_there(model, tmp_path):
    path = tmp_path / "x.miner"
    write_packed(path, model, {})
    app = make_app(Site("x", path, None, has_pictures=True), {"x": fit_picture(MINER.load(path))})
    path.unlink()
    assert TestClient(app, base_url=f"http://{HOST}").get("/x.miner").status_code == 404


@pytest.mark.parametrize(("message", "n_read"), [("http.request", 1), ("http.disconnect", 0)])
def test_who_has_left_gets_no_picture(message, n_read):
    seen, sent = [], []
    app = make_app(Site("x", Path("x.miner"), None, has_pictures=True), {"x": striped(3, seen=seen)})
    path = "/iiif/x/full/max/0/default.png"
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", HOST.encode())]}

    async def receive():
        return {"type": message, "body": b"", "more_body": False}

    async def send(part):
        sent.append(part)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == (200 if n_read else 503)
    assert len(seen) == n_read


VALIDATOR = os.environ.get("IIIF_VALIDATOR")
NAME = "67352ccc-d1b0-11e1-89ae-279075081939"  # by which the validator knows its picture


@pytest.mark.skipif(
    not VALIDATOR,
    reason="no validator: pip install iiif-validator==1.0.5 in an environment of its own, IIIF_VALIDATOR=.../bin/"
    "iiif-validate.py",
)
def test_the_public_validator_finds_nothing(tmp_path):
    python = next(Path(VALIDATOR).parent.glob("python3"))
    drawn = """
from iiif_validator.validator import ValidationInfo
from PIL import Image
small = Image.new("RGB", (10, 10))
for x, column in enumerate(ValidationInfo().colorInfo):
    for y, colour in enumerate(column):
        small.putpixel((x, y), colour)
small.resize((1000, 1000), Image.Resampling.NEAREST).save("squares.png")
"""
    subprocess.run([python, "-c", drawn], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    arguments = ["--path", "squares.png", "--quality", "draft", "--exp_name", NAME, "--accelerator", "cpu", "--quiet"]
    subprocess.run([sys.executable, ROOT / "train.py", *arguments], cwd=tmp_path, check=True)
    command = [sys.executable, ROOT / "view.py", f"ckpts/{NAME}", "--no_browser", "--port", "0"]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        place = re.search(r"http://([^/]+)/", server.stdout.readline())[1]
        asked = ["-s", place, "-p", "iiif", "-i", NAME, "--version=3.0", "--level=2"]
        outcome = subprocess.run([python, VALIDATOR, *asked], capture_output=True, text=True)
    finally:
        server.terminate()
        server.wait()
    assert "Done (33 tests, 0 failures)" in outcome.stderr, outcome.stderr
