"""What a person waits for who opens a fit in a browser: Chromium without a window, on the page of view.py.

python -m benchmarks.viewer FILE.miner ... [--workers 1 2] [--repeats 3] [--out FILE]

The first view is the whole picture in 1280x800 pixels; a deep link is its middle, a screen pixel for each of its own.
Both begin with an empty cache. Seconds are from the call of the page: until something is seen, and until every tile is
there at the level that the view asks for. The network has no delay; bytes are those of the file that were asked for.
"""

import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.records import Printer, make_parser

VIEW = {"width": 1280, "height": 800}
MOST_TILES = 256  # of level 0, that are decoded to tell the speed

_SEEN = """(() => {
    const look = () => {
        const image = window.miner?.viewer?.world.getItemAt(0);
        if (image?.getTilesToDraw().length) window.seenAt = performance.now();
        else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
})()"""
_SETTLED = "async () => { await window.miner.settled(); return performance.now(); }"
_READ = """() => {
    const { bytes, requests } = window.miner.tiles.ranges.stats;
    return { bytes, requests, seen: window.seenAt };
}"""
_SPEED = """async (most) => {
    const { tiles: shown, fit } = window.miner;
    const { chunks } = fit.levels.get(0);
    const n = Math.min(most, chunks[0] * chunks[1]);
    let found = null;
    for (let pass = 0; pass < 3; pass++) { // the first ones are also those that make the decoder fast
        const tiles = new shown.constructor(fit, shown.ranges, shown.pool, { bytes: 2 ** 30 });
        const before = tiles.stats.seconds, begin = performance.now();
        await Promise.all(Array.from({ length: n }, (_, number) => tiles.shown(0, number)));
        const { megapixels, decoded, seconds } = tiles.stats;
        found = {
            speed: megapixels / (performance.now() - begin) * 1e3,
            tile: (seconds - before) / decoded * 1e3,
        };
    }
    return found;
}"""


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """The address at which view.py serves a file."""
    command = [sys.executable, "view.py", str(path), "--port", "0", "--no_browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield next(word for word in process.stdout.readline().split() if word.startswith("http"))
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """A page that nothing is known of yet."""
    context = browser.new_context(viewport=VIEW)
    page = context.new_page()
    page.add_init_script(_SEEN)
    page.goto(address)
    page.wait_for_function("window.miner?.viewer", timeout=120_000)
    page.set_default_timeout(600_000)
    yield page
    context.close()


def view(browser: Browser, address: str) -> dict[str, Any]:
    """Seconds until something is seen and until all is there, bytes and requests."""
    with opened(browser, address) as page:
        settled = page.evaluate(_SETTLED)
        read = page.evaluate(_READ)
    return {"seen": read["seen"] / 1e3, "settled": settled / 1e3, "bytes": read["bytes"], "requests": read["requests"]}


def speed(browser: Browser, address: str, workers: int) -> dict[str, float]:
    """Megapixels a second of all workers together, and milliseconds of a worker for a tile."""
    with opened(browser, f"{address}?workers={workers}") as page:
        page.evaluate(_SETTLED)
        return page.evaluate(_SPEED, MOST_TILES)


def middle_link(browser: Browser, address: str) -> str:
    """The address of the middle of a picture, a screen pixel for each of its own."""
    with opened(browser, address) as page:
        width, height = page.evaluate("() => [window.miner.fit.size[1], window.miner.fit.size[0]]")
    return f"{address}#zoom={width / VIEW['width']:.6f}&x=0.5&y={height / width / 2:.6f}"


def medians(of: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median(one[name] for one in of) for name in of[0]}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    columns = ["file", "bytes", "view", "seconds until seen", "until all is there", "bytes read", "requests"]
    columns += ["ms of a worker for a tile", *(f"megapixels/s, workers: {n}" for n in options.workers)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        table = Printer("A fit in a browser", columns, options.out, f"Chromium {browser.version}; medians")
        for path in options.files:
            with serving(path) as address:
                speeds = [
                    medians([speed(browser, address, workers) for _ in range(options.repeats)])
                    for workers in options.workers
                ]
                told = [f"{speeds[0]['tile']:.1f}", *(f"{one['speed']:.1f}" for one in speeds)]
                links = {"whole": address, "deep link": middle_link(browser, address)}
                for name, link in links.items():
                    found = medians([view(browser, link) for _ in range(options.repeats)])
                    table.add(
                        path.stem,
                        f"{path.stat().st_size:,}",
                        name,
                        f"{found['seen']:.2f}",
                        f"{found['settled']:.2f}",
                        f"{found['bytes']:,.0f}",
                        f"{found['requests']:.0f}",
                        *told,
                    )
                    told = [""] * len(told)
        browser.close()


if __name__ == "__main__":
    main()
