"""A fit as a site of plain files, for any web host that knows ranges; or as one page, which needs no host."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from utils.errors import InputError
from utils.files import WriteError, check_replaceable, write_aside, writing
from utils.windows import whole
from viewing import iiif
from viewing.bundle import bare_imports, base64, bundled, data_url, element, in_script
from viewing.images import Picture, encoded, image_of, saved
from viewing.site import VIEWER, Site, original_name, page

MOST_EMBEDDED = 2**26
"""Bytes of a fit that a page holds: browsers read a page whole."""

_MOST_PIXELS = 2**24  # of an original that is one picture; larger ones are tiles
_SOURCES = (".c", ".h")  # of the decoder, which is there compiled

_SHEET = re.compile(r'<link rel="stylesheet" href="([^"]+)">')
_SCRIPT = re.compile(r'<script src="([^"]+)"></script>')
_ENTRY = re.compile(r'<script type="module" src="([^"]+)"></script>')
_MAP = re.compile(r'(<script type="importmap">)(.*?)(</script>)', re.DOTALL)


def is_page(target: Path) -> bool:
    """Whether one page is wanted rather than a folder."""
    return target.suffix.lower() in (".html", ".htm")


def check_target(target: Path) -> None:
    """InputError for a folder that is not empty, and for what a file or a folder must not replace."""
    if is_page(target):
        check_replaceable(target)
        return
    with writing(target):
        if target.is_dir() and any(target.iterdir()):
            raise WriteError(f"{target} is a folder that is not empty; choose another name")
        if target.exists() and not target.is_dir():
            raise WriteError(f"{target} is a file; choose another name, or one that ends in .html for a single page")


def export_folder(target: Path, name: str, fit: Path, original: Picture | None) -> None:
    """Write a site: the page, what it needs, and the fit. It is complete when it appears."""
    check_target(target)
    with _folder_aside(target) as folder:
        _copy_viewer(folder)
        site = Site(name, fit, original and _write_original(folder, name, original), has_pictures=False)
        shutil.copyfile(fit, folder / site.fit_name)
        (folder / "index.html").write_text(page(site.description), "utf-8")


def _copy_viewer(folder: Path) -> None:
    """The page's own files; shutil.copytree would tell a full disk once for each of them."""
    for path in VIEWER.rglob("*"):
        if path.is_file() and path.suffix not in _SOURCES:
            copy = folder / path.relative_to(VIEWER)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


@contextmanager
def _folder_aside(target: Path) -> Iterator[Path]:
    """A new folder, which becomes `target` once it is filled; WriteError for any OSError."""
    with writing(target):
        target = target.resolve()
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield part
            part.chmod(0o777 & ~_mask())
            if target.is_dir():
                target.rmdir()
            os.rename(part, target)
        except BaseException:  # an interrupt too
            shutil.rmtree(part, ignore_errors=True)
            raise


def _mask() -> int:
    """What new files are not allowed."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_original(folder: Path, name: str, original: Picture) -> dict[str, str]:
    """What was fitted, as one picture, or as tiles of IIIF level 0 where it is large; what the page is told of it."""
    of, name = original.size, original_name(name)
    if _is_small(original):
        (folder / f"{name}.png").write_bytes(_whole(original))
        return {"kind": "image", "url": f"{quote(name)}.png"}
    for factor in iiif.scale_factors(of):
        for window in iiif.tiles(of, factor):
            asked = iiif.tile_request(window, factor, of)
            place = folder / name / asked.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(encoded(original, asked))
    information = json.dumps(iiif.described(quote(name), of, "level0"), indent=2)
    (folder / name / "info.json").write_text(information, "utf-8")
    return {"kind": "iiif", "url": f"{quote(name)}/info.json"}


def _is_small(original: Picture) -> bool:
    return original.size[0] * original.size[1] <= _MOST_PIXELS


def _whole(original: Picture) -> bytes:
    return saved(image_of(original.read(0, whole(original.size))), "png")


def export_page(target: Path, name: str, fit: Path, is_volume: bool, original: Picture | None) -> None:
    """Write one page that holds all that it needs.

    Inputs
        original: of a picture, if it is small
    Errors
        InputError for a fit that is too large
    """
    check_target(target)
    if fit.stat().st_size > MOST_EMBEDDED:
        raise InputError(
            f"{target}: a page holds fits of up to {MOST_EMBEDDED:,} bytes, and this one has {fit.stat().st_size:,}; "
            "export a folder"
        )
    has_original = original is not None and _is_small(original)
    shown = {"kind": "image", "url": data_url(_whole(original), "image/png")} if has_original else None
    text = page({"name": name, "fit": None, "original": shown, "iiif": None})
    write_aside(target, embedded(text, fit.read_bytes(), is_volume).encode("utf-8"))


def embedded(text: str, fit: bytes, is_volume: bool) -> str:
    """The page with all that it needs inside, and a fit."""
    text = _SHEET.sub(lambda found: f"<style>\n{_read(found[1])}</style>", text)
    text = _SCRIPT.sub(lambda found: "" if is_volume else f"<script>\n{in_script(_read(found[1]))}</script>", text)
    text = _MAP.sub(lambda found: f"{found[1]}{_import_map(found[2]) if is_volume else '{}'}{found[3]}", text)
    text = _ENTRY.sub(lambda found: f'<script type="module">\n{in_script(bundled(found[1], _read))}</script>', text)
    wasm = "decoder/decoder.wasm"
    elements = [
        element("fit", base64(fit)),
        element(wasm, base64((VIEWER / wasm).read_bytes())),
        element("worker.js", f"\n{in_script(bundled('worker.js', _read))}"),
    ]
    before, end, after = text.rpartition("</body>")
    return "".join([before, *elements, end, after])


def _read(name: str) -> str:
    return (VIEWER / name).read_text("utf-8")


def _import_map(text: str) -> str:
    """The map of a page with the modules themselves in the place of their addresses."""
    waiting, found = dict(json.loads(text)["imports"]), {}
    while waiting:
        name, address = waiting.popitem()
        module, beside = bare_imports(_read(address.removeprefix("./")), name)
        found[name] = data_url(module.encode("utf-8"), "text/javascript")
        waiting |= {f"{name}/{file}": f"{address.rpartition('/')[0]}/{file}" for file in beside}
    return json.dumps({"imports": found})
