"""view.py: what it serves and to whom, what it leaves behind, and one line where there is nothing to show."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
import torch
from helpers import ASTRONAUT, ROOT, is_one_line, write_picture
from starlette.testclient import TestClient
from test_packed_file import random_model

import viewing.session
from models.miner import MINER
from packing.write import write_packed
from viewing.session import is_newer, listening, name_of, named_original, original_of


@pytest.fixture(scope="module")
def packed(small_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "small.miner"
    write_packed(path, MINER.load(small_run), {})
    return path


@pytest.fixture(scope="module")
def volume(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("volume") / "cube.miner"
    write_packed(path, random_model((9, 9, 9), (4, 4, 4), 1, 1), {})
    return path


@contextmanager
def viewing_process(folder: Path, *arguments: object, env: dict[str, str] | None = None) -> Iterator[tuple]:
    """The process, the port that it serves, and where its temporary files are."""
    temporary = folder / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, ROOT / "view.py", *map(str, arguments), "--no_browser", "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)} | (env or {}),
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, int(re.fullmatch(r"\S+: http://127\.0\.0\.1:(\d+)/ until Ctrl-C\n", line)[1]), temporary
    finally:
        process.kill()
        process.wait()


def ask(port: int, path: str, method: str = "GET", **headers: str):
    """The answer, read, as (status, headers, body); the path is sent as it is."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host="Host" in named)
    for name, value in named.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def ended(process: subprocess.Popen, number: int) -> tuple[int, str]:
    """Its status and what it said, after a signal."""
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    return process.returncode, said


def test_a_run_is_packed_and_served_until_ctrl_c(small_run, tmp_path):
    with viewing_process(tmp_path, small_run) as (process, port, temporary):
        status, headers, page = ask(port, "/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        told = json.loads(re.search(rb'<script id="site" type="application/json">(.*?)</script>', page)[1])
        address = "iiif/small_original/info.json"
        original = {"kind": "iiif", "url": address}
        assert told == {"name": "small", "fit": "small.miner", "original": original, "iiif": "iiif/small/info.json"}
        _, _, data = ask(port, "/small.miner")
        (tmp_path / "served.miner").write_bytes(data)
        assert torch.equal(MINER.load(tmp_path / "served.miner").decode(), MINER.load(small_run).decode())
        info = json.loads(ask(port, f"/{address}")[2])
        assert (info["width"], info["height"]) == (100, 75)
        assert ask(port, "/iiif/small_original/full/max/0/default.png")[0] == 200
        assert list(temporary.iterdir()) != []
        status, said = ended(process, signal.SIGINT)
        assert (status, said) == (130, "")
        assert list(temporary.iterdir()) == []


def test_a_file_is_served_by_ranges_to_this_machine_alone_and_nothing_beside_it(packed, tmp_path):
    (packed.parent / "secret.txt").write_text("secret")
    data = packed.read_bytes()
    with viewing_process(tmp_path, packed) as (process, port, _):
        status, headers, body = ask(port, "/small.miner", "HEAD")
        assert (status, headers["content-length"], body) == (200, str(len(data)), b"")
        tag = headers["etag"]
        status, headers, body = ask(port, "/small.miner", Range="bytes=10-29")
        assert (status, headers["content-range"], body) == (206, f"bytes 10-29/{len(data)}", data[10:30])
        assert ask(port, "/small.miner", Range="bytes=-5")[2] == data[-5:]
        assert ask(port, "/small.miner", Range=f"bytes={len(data) - 5}-")[2] == data[-5:]
        status, headers, _ = ask(port, "/small.miner", Range=f"bytes={len(data)}-")
        assert (status, headers["content-range"]) == (416, f"bytes */{len(data)}")
        assert ask(port, "/small.miner", Range="bytes=0-9", If_Range=tag)[0] == 206
        assert ask(port, "/small.miner", Range="bytes=0-9", If_Range='"older"')[::2] == (200, data)
        status, headers, body = ask(port, "/small.miner", Range="bytes=0-9,20-29")
        assert (status, headers["content-type"].split(";")[0]) == (206, "multipart/byteranges")
        assert data[:10] in body
        assert data[20:30] in body
        assert ask(port, "/viewer.css")[::2] == (200, (ROOT / "viewer" / "viewer.css").read_bytes())
        for path in (
            *(
                "/secret.txt",
                "/other.miner",
                "/../pack.py",
                "/%2e%2e/pack.py",
                "/..%2fpack.py",
                "/vendor/../../pack.py",
            ),
            *("/%2e%2e%2fpack.py", "//etc/passwd", "/%2fetc%2fpasswd", "/small.miner/../secret.txt", "/.git/config"),
            *("/iiif/../../pack.py", "/iiif/%2e%2e%2fpack.py/info.json", "/..\\pack.py", "/%00", "/fit.miner"),
        ):
            status, _, body = ask(port, path)
            assert status in (400, 404), path
            assert b"secret" not in body
            assert b"import" not in body
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
            assert ask(port, "/small.miner", Host=host)[0] == 400, host
        assert ask(port, "/small.miner", Host=f"localhost:{port}")[0] == 200
        assert "access-control-allow-origin" not in ask(port, "/small.miner", Origin="https://example.org")[1]
        assert ask(port, "/small.miner", "POST")[0] == 405
        assert is_refused_elsewhere(port)
        with socket.create_connection(("127.0.0.1", port)) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\n")
            start = time.monotonic()
            assert ended(process, signal.SIGTERM) == (143, "")
            assert time.monotonic() - start < 5, "who has not asked to the end does not hold it up"


def is_refused_elsewhere(port: int) -> bool:
    """Whether other addresses of this machine do not answer."""
    with socket.socket() as other:
        other.settimeout(5)
        return other.connect_ex(("127.0.0.2", port)) != 0


def test_an_unfinished_run_is_shown_as_far_as_it_came(command, small_run, tmp_path, monkeypatch):
    shutil.copytree(small_run, tmp_path / "early")
    (tmp_path / "early" / "l0.ckpt").unlink()
    seen = []

    def serve(app, *_):
        client = TestClient(app, base_url="http://127.0.0.1")
        seen.extend([client.get("/iiif/early/info.json").json(), client.get("/early.miner").content])

    monkeypatch.setattr(viewing.session, "serve", serve)
    outcome = command("view.py", tmp_path / "early", "--port", 0)
    assert (outcome.status, outcome.error) == (0, "note: the fit is not finished; level 1 is its finest so far\n")
    info, data = seen
    assert (info["width"], info["height"]) == (50, 38)
    (tmp_path / "early.miner").write_bytes(data)
    assert torch.equal(MINER.load(tmp_path / "early.miner").decode(1), MINER.load(tmp_path / "early").decode(1))


def test_a_busy_port_is_told_in_one_line(command, packed):
    with listening(0) as listener:
        port = listener.getsockname()[1]
        outcome = command("view.py", packed, "--port", port, "--no_browser")
    assert outcome.status == f"error: --port {port}: is taken by another program; use another one, or 0 for any"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such file or folder; use ckpts/EXP_NAME, or a file of pack.py"),
        (["missing.miner"], "missing.miner: no such file or folder"),
        (["empty"], "empty holds no checkpoints"),
        (["photo.png"], "photo.png is not a .miner file; name one that pack.py wrote"),
        (
            ["https://example.org/x.miner"],
            "only files of this machine are served; a copy of viewer/ on the web takes ?fit=https",
        ),
        (["x.miner", "--loss_db", "0.1"], "--loss_db 0.1: x.miner is packed already; leave it out"),
        (["x.miner", "--port", "65536"], "--port 65536: must be a whole number from 0 to 65,535"),
        (["x.miner", "--original", "missing.png"], "missing.png: no such file"),
        (["x.miner", "--original", "photo.png"], "--original photo.png: has 512x512 pixels, and the fit 100x75"),
        (
            ["x.miner", "--original", "grey.png"],
            "--original grey.png: has 1 channels, and the fit 3; use what was fitted",
        ),
        (["cube.miner", "--original", "photo.png"], "a volume is not compared with anything; leave it out"),
        (["x.miner", "--export", "full"], "full is a folder that is not empty; choose another name"),
        (["x.miner", "--export", "photo.png"], "photo.png is a file; choose another name, or one that ends in .html"),
        (["x.miner", "--export", "folder.html"], "folder.html is a folder; choose another name"),
        (
            ["x.miner", "--export", "no/where"],
            "cannot write no/where: No such file or directory; make the folder first",
        ),
        (["x.miner", "--export", "no/where.html"], "cannot write no/where.html"),
        (["early", "--export", "site"], "early is not finished: level 1 is its finest so far; go on with --resume"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(
    command, packed, volume, small_run, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    model = MINER.load(packed)
    model.options = {name: value for name, value in model.options.items() if name != "input_size"}
    write_packed(tmp_path / "x.miner", model, {})
    shutil.copy(volume, "cube.miner")
    shutil.copy(ASTRONAUT, "photo.png")
    write_picture(Path("grey.png"), torch.rand(1, 75, 100), 8)
    for name in ("empty", "full", "folder.html"):
        Path(name).mkdir()
    Path("full/x").touch()
    shutil.copytree(small_run, "early")
    Path("early/l0.ckpt").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    outcome = command("view.py", *arguments, "--no_browser", *(["--port", "0"] if "--port" not in arguments else []))
    assert isinstance(outcome.status, str)
    assert message in outcome.status
    assert is_one_line(outcome.error)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_is_exported_as_pack_would_write_it(command, best_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("view.py", best_run, "--export", "site")
    assert outcome.out == "site: a site; copy it to a web host that knows range requests\n"
    assert command("pack.py", best_run).status == 0
    assert Path("site/small.miner").read_bytes() == Path("small.miner").read_bytes()
    assert Path("site/small_original.png").exists()
    assert command("view.py", best_run, "--export", "every_bit", "--loss_db", "0").status == 0
    assert torch.equal(MINER.load("every_bit/small.miner").decode(), MINER.load(best_run).decode())


def test_a_file_is_exported_as_it_is_and_a_page_replaces_an_older_one(command, packed, volume, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("site").mkdir()
    assert command("view.py", packed, "--export", "site").status == 0
    assert Path("site/small.miner").read_bytes() == packed.read_bytes()
    Path("x.html").write_text("older")
    outcome = command("view.py", volume, "--export", "x.html")
    assert outcome.status == 0
    n_bytes = Path("x.html").stat().st_size
    assert outcome.out == f"x.html: {n_bytes:,} bytes, a page that opens from a disk as well\n"
    assert '"name": "cube"' in Path("x.html").read_text()


def test_the_file_in_a_folder_is_taken_unless_a_checkpoint_is_younger(small_run, tmp_path):
    run = tmp_path / "small"
    shutil.copytree(small_run, run)
    path = run / "small.miner"
    assert not is_newer(path, run)
    path.write_bytes(b"packed")
    for seconds, is_taken in ((0, True), (1, True), (-1, False)):
        for level in run.glob("l*.ckpt"):
            os.utime(level, (1000, 1000))
        os.utime(path, (1000 + seconds, 1000 + seconds))
        assert is_newer(path, run) == is_taken


def test_what_a_run_names_is_compared_with_if_it_is_there_and_fits(small_run, packed, tmp_path, monkeypatch):
    assert named_original(small_run) == ASTRONAUT
    assert named_original(tmp_path) is None
    model = MINER.load(packed)
    assert original_of(model, str(small_run), None, tmp_path).size == (75, 100)
    assert original_of(model, str(packed), None, tmp_path) is None
    assert original_of(model, str(packed), str(ASTRONAUT), tmp_path).size == (75, 100), "the run has resized it"
    monkeypatch.setattr(viewing.session, "levels_bytes", lambda _: 2**60)
    assert original_of(model, str(small_run), None, tmp_path) is None
    with pytest.raises(
        ValueError, match=r"takes 1073741824\.0 GiB of temporary files, .*; set TMPDIR to a folder with more"
    ):
        original_of(model, str(packed), str(ASTRONAUT), tmp_path)
    model.options = {}
    assert original_of(model, str(small_run), None, tmp_path) is None


def test_names_that_are_no_text_have_addresses(tmp_path):
    assert name_of(tmp_path / os.fsdecode(b"a\xff.miner")) == "a\ufffd"
    assert name_of(tmp_path) == tmp_path.name


def test_the_end_does_not_wait_for_a_picture_that_is_being_made():
    code = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from viewing.session import ending_at_once
ThreadPoolExecutor(1).submit(time.sleep, 60)
with ending_at_once():
    sys.exit(130)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30).returncode == 130


def test_the_browser_is_opened_unless_told_otherwise(monkeypatch, packed):
    opened, app = [], object()
    monkeypatch.setattr(viewing.session.webbrowser, "open", opened.append)
    monkeypatch.setattr(viewing.session.uvicorn.Server, "run", lambda *_, sockets: time.sleep(0.1))
    for opens in (False, True):
        with listening(0) as listener:
            viewing.session.serve(app, listener, "x", opens)
            address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    assert opened == [address]
