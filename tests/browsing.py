"""Pages of the viewer in a real browser: a server of files, and what is done and seen there."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from benchmarks.ranges import serving

VIEWER = ROOT / "viewer"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm"}


@contextmanager
def served(files: dict[str, bytes], has_ranges: bool = True) -> Iterator[str]:
    """The viewer for each of the files, at NAME/, on a server that knows ranges or none."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name, _, rest = self.path.split("?")[0].strip("/").partition("/")
            path = VIEWER / (rest or "index.html")
            data = files.get(rest) or (path.read_bytes() if path.is_file() else None)
            if path.name == "index.html" and name != "none":
                site = {"name": name, "fit": f"{name}.miner", "original": {"kind": "image", "url": "original.png"}}
                data = data.replace(b'"application/json">{}', b'"application/json">' + json.dumps(site).encode())
            status = 404 if data is None else 200
            data = data or b""
            size = len(data)
            start = 0
            if has_ranges and status == 200 and "Range" in self.headers:
                start, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                data, status = data[start : last + 1], 206
            self.send_response(status)
            self.send_header("Content-Type", TYPES.get(path.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(data)))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        yield address


@contextmanager
def launched() -> Iterator[object]:
    """A browser without a window; the test is skipped where none is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="there is no playwright: pip install playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser ({', '.join(BROWSERS)}): apt install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Window:
    """A page of the browser, and what it complained of."""

    page: object
    complaints: list[str] = field(default_factory=list)

    def open(self, url: str) -> "Window":
        self.page.goto(url)
        self.page.wait_for_function("window.miner || document.querySelector('.notice')")
        return self.settle()

    def settle(self) -> "Window":
        self.page.evaluate("window.miner?.settled()")
        return self

    def press(self, *keys: str) -> "Window":
        for key in keys:
            self.page.keyboard.press(key)
        return self.settle()

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def go(self, zoom: float, row: float, column: float) -> "Window":
        """To a zoom in screen pixels a pixel, with a place of level 0 in the middle."""
        self.page.evaluate(
            """([zoom, row, column]) => {
                const { item, viewer } = miner.page;
                viewer.viewport.zoomTo(item.imageToViewportZoom(zoom), null, true);
                viewer.viewport.panTo(item.imageToViewportCoordinates(column, row), true);
            }""",
            [zoom, row, column],
        )
        return self.settle().settle()

    @property
    def corner(self) -> tuple[float, float]:
        """Where row 0 and column 0 of level 0 lie in the view."""
        point = self.page.evaluate(
            "(({ item, viewer }) => viewer.viewport.pixelFromPoint(item.imageToViewportCoordinates(0, 0), true))"
            "(miner.page)"
        )
        return point["y"], point["x"]

    def pixels(self, canvas: str = "miner.viewer.drawer.canvas") -> np.ndarray:
        """(rows, columns, 4) of a canvas of the page."""
        url = self.page.evaluate(f"{canvas}.toDataURL()")
        return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))


def opened(browser, **options: object) -> Iterator[Window]:
    context = browser.new_context(**options)
    window = Window(context.new_page())
    window.page.on("console", lambda message: message.type == "error" and window.complaints.append(message.text))
    window.page.set_default_timeout(5000)
    window.page.on("pageerror", lambda error: window.complaints.append(str(error)))
    yield window
    context.close()
