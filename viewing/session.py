"""A fit -> its page: served on this machine, or written to files."""

import os
import shutil
import signal
import socket
import sys
import webbrowser
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from urllib.parse import quote

import torch
import uvicorn
from starlette.types import ASGIApp

from datasets.sources import Source, open_picture
from decoding.session import why_coarse
from models.miner import MINER
from models.packed.ranges import is_url
from packing.session import check_finished, pack
from utils.checkpoint import find_levels, level_path, load_level, packed_path
from utils.errors import InputError, size_text
from utils.transfer import Reading
from viewing.export import check_target, export_folder, export_page, is_page
from viewing.images import Picture, fit_picture, levels_bytes, original_picture
from viewing.server import HOST, make_app
from viewing.site import Site, original_name

_INTERRUPTED = 128 + signal.SIGINT
_LOSS_SENT = 0.1  # decibels that a file loses which is sent over a network; one that stays here loses none


def run(options: Namespace) -> None:
    """Show what a command line of view.py says."""
    torch.set_flush_denormal(True)
    where, target = options.ckpts, options.export and Path(options.export)
    check_place(where, options.loss_db)
    if target:
        check_target(target)
    with (
        ending_at_once(),
        ending_by_signals(),
        TemporaryDirectory(prefix="miner-", ignore_cleanup_errors=True) as temporary,
        nullcontext() if target else listening(options.port) as listener,
    ):
        folder = Path(temporary)
        name = name_of(Path(where))
        fit = packed_fit(Path(where), options, folder / "fit.miner")
        model = MINER.load(fit)
        if model.finest > 0:
            print(f"note: {why_coarse(model)}", file=sys.stderr)
        source = original_of(model, where, options.original, folder)
        original = source and original_picture(source, folder)
        if target:
            export(target, name, fit, model, original)
        else:
            serve(app_of(name, fit, model, original), listener, name, not options.no_browser)


def export(target: Path, name: str, fit: Path, model: MINER, original: Picture | None) -> None:
    """Write a page or a site, and say how to look at it."""
    if is_page(target):
        export_page(target, name, fit, len(model.size) == 3, original)
        print(f"{target}: {target.stat().st_size:,} bytes, a page that opens from a disk as well")
    else:
        export_folder(target, name, fit, original)
        print(f"{target}: a site; copy it to a web host that knows range requests")


def app_of(name: str, fit: Path, model: MINER, original: Picture | None) -> ASGIApp:
    """What is served."""
    pictures = {name: fit_picture(model)} if len(model.size) == 2 else {}
    place = None
    if original:
        pictures[original_name(name)] = original
        place = {"kind": "iiif", "url": f"iiif/{quote(original_name(name))}/info.json"}
    return make_app(Site(name, fit, place, has_pictures=name in pictures), pictures)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """What ends the program does not wait for threads: they may read an original for minutes, for nobody now."""
    try:
        yield
    except SystemExit as end:
        os._exit(end.code)


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """What ends the program lets it clean up first."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    fatal = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]  # nohup ignores one
    for number in fatal:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in fatal:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket of this machine alone; InputError if the port cannot be had."""
    try:
        listener = socket.create_server((HOST, port))
    except PermissionError as error:
        raise InputError(f"--port {port}: is for the system's own programs; use one from 1024 on") from error
    except OSError as error:
        raise InputError(f"--port {port}: is taken by another program; use another one, or 0 for any") from error
    with listener:
        yield listener


def check_place(where: str, loss_db: float | None) -> None:
    """InputError where there is no fit, and for options that say nothing about it."""
    if is_url(where):
        raise InputError(
            f"{where}: only files of this machine are served; a copy of viewer/ on the web takes ?fit={where}"
        )
    path = Path(where)
    if not path.exists():
        raise InputError(f"{where}: no such file or folder; use ckpts/EXP_NAME, or a file of pack.py")
    if loss_db is not None and not path.is_dir():
        raise InputError(f"--loss_db {loss_db:g}: {where} is packed already; leave it out")


def name_of(where: Path) -> str:
    """Of a fit, as addresses can hold it: files may have names that are no text."""
    name = where.resolve().name if where.is_dir() else where.stem
    return os.fsencode(name).decode("utf-8", "replace")


def packed_fit(where: Path, options: Namespace, path: Path) -> Path:
    """The file of a fit: the one that is there, or one that is made of the checkpoints.

    Inputs
        path: where to make it
    Errors
        as for `pack`; InputError for a run that is not finished and is to be exported
    """
    if not where.is_dir():
        return where
    there = packed_path(where.resolve())
    if options.loss_db is None and is_newer(there, where):
        return there
    model = MINER.load(where)
    if options.export:
        check_finished(where, model)
    usual = _LOSS_SENT if options.export else 0
    pack(where, model, path, usual if options.loss_db is None else options.loss_db)
    return path


def is_newer(path: Path, folder: Path) -> bool:
    """Whether there is a file, and no checkpoint of a run is younger."""
    levels = [level_path(folder, level) for level in find_levels(folder)]
    return path.is_file() and all(path.stat().st_mtime_ns >= level.stat().st_mtime_ns for level in levels)


def original_of(model: MINER, where: str, given: str | None, folder: Path) -> Source | None:
    """What was fitted: the given one or, for a folder, the one that its run names, if it is still there.

    Inputs
        folder: where its levels will be kept
    Errors
        InputError if the given one is not what was fitted, or the fit is a volume, or the disk has no room
    """
    if len(model.size) != 2:
        if given:
            raise InputError(f"--original {given}: a volume is not compared with anything; leave it out")
        return None
    if given:
        return open_original(given, model, folder)
    try:
        path = named_original(Path(where))
        return path and open_original(path, model, folder)
    except InputError:
        return None


def named_original(folder: Path) -> Path | None:
    """The file that a run has fitted, as far as its folder tells."""
    levels = find_levels(folder) if folder.is_dir() else []
    name = load_level(level_path(folder, levels[-1]))["options"].get("path") if levels else None
    path = name and folder.resolve().parent.parent / name  # it was named from where ckpts/ is
    return path if path and os.path.exists(path) else None  # also where we may not look


def open_original(path: str | Path, model: MINER, folder: Path) -> Source:
    """InputError unless it is a picture of the size and the channels of the fit, or the run has resized it, and a
    folder has room for its levels."""
    source = open_picture(path, model.size, Reading(model.transfer))
    if source.file_size != model.size and not model.options.get("input_size"):
        sizes = f"{size_text(source.file_size)} pixels, and the fit {size_text(model.size)}"
        raise InputError(f"--original {path}: has {sizes}; use what was fitted")
    if source.n_channels != model.n_channels:
        raise InputError(
            f"--original {path}: has {source.n_channels} channels, and the fit {model.n_channels}; use what was fitted"
        )
    if source.transfer != model.transfer:
        raise InputError(f"--original {path}: holds other values than what was fitted; use that")
    missing, free = levels_bytes(source), shutil.disk_usage(folder).free
    if missing > free:
        sizes = f"{missing / 2**30:.1f} GiB of temporary files, and {folder.parent} has {free / 2**30:.1f} free"
        raise InputError(f"--original {path}: takes {sizes}; set TMPDIR to a folder with more")
    return source


def serve(app: ASGIApp, listener: socket.socket, name: str, opens_browser: bool) -> None:
    """Serve until Ctrl-C, which then ends the program."""
    address = f"http://{HOST}:{listener.getsockname()[1]}/"
    print(f"{name}: {address} until Ctrl-C", flush=True)
    if opens_browser:
        Thread(
            target=webbrowser.open, args=(address,), daemon=True
        ).start()  # some browsers return when they are closed
    config = uvicorn.Config(
        app,
        log_level="critical",
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
