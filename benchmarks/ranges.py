"""Bytes that are read of files of fits over a network: a server on this machine counts them.

python -m benchmarks.ranges FILE.miner ... [--crop 512] [--out FILE]

A crop lies in the middle of level 0. Seconds are those of `MINER.load` and the decoding, on a network without delay.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import unquote

from benchmarks.records import Printer, make_parser
from models.miner import MINER
from models.packed.layout import PREFACE_BYTES, read_preface
from utils.windows import Window


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on this machine, as long as it is entered: its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def served(folder: Path, has_ranges: bool = True) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """A server of the files of a folder: its address, and the (start, stop) that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = folder / unquote(self.path.strip("/"))
            data, status = (path.read_bytes(), 200) if path.exists() else (b"", 404)
            start, stop = 0, len(data)
            if data and has_ranges and "Range" in self.headers:
                start, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                stop = last + 1
            if self.command == "GET":
                asked.append((start, stop))
            is_part = (start, stop) != (0, len(data))
            self.send_response(206 if is_part else status)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Content-Type", guess_type(path.name)[0] or "application/octet-stream")
            if is_part:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[start:stop])

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        yield address, asked


def middle(size: tuple[int, ...], length: int) -> Window:
    starts = [max(0, (extent - length) // 2) for extent in size]
    return tuple((start, min(start + length, extent)) for start, extent in zip(starts, size, strict=True))


def read_of(path: Path, level: int | None, crop: int | None) -> tuple[int, int, float]:
    """Requests, bytes and seconds of opening a file and decoding of it.

    Inputs
        level: None for the coarsest; a negative one decodes nothing
        crop: samples along each axis, in the middle; None for the whole level
    """
    with served(path.resolve().parent) as (address, asked):
        begin = time.perf_counter()
        model = MINER.load(f"{address}/{path.name}")
        index = model.n_scales - 1 if level is None else level
        if index >= 0:
            model.decode(index, crop and middle(model.levels[index].size, crop))
        return len(asked), sum(stop - start for start, stop in asked), time.perf_counter() - begin


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--crop", type=int, default=512, metavar="N", help="pixels along each axis")
    options = parser.parse_args()
    columns = ["file", "bytes", "of its index", "read of", "requests", "bytes read", "seconds"]
    table = Printer("Bytes that are read over a network", columns, options.out)
    for path in options.files:
        with path.open("rb") as file:
            preface = read_preface(file.read(PREFACE_BYTES), str(path))
        size = MINER.load(path).size
        name = f"{path.stem}, {'x'.join(map(str, size[::-1]))}"
        for what, level, crop in [
            ("nothing but its beginning", -1, None),
            ("the coarsest level", None, None),
            (f"{options.crop}x{options.crop} of level 0", 0, options.crop),
        ]:
            requests, n_bytes, seconds = read_of(path, level, crop)
            n_all = path.stat().st_size
            table.add(name, f"{n_all:,}", f"{preface.index_bytes:,}", what, requests, f"{n_bytes:,}", f"{seconds:.2f}")


if __name__ == "__main__":
    main()
