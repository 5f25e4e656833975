"""Ranges of bytes of a file, on a disk or in a network."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from utils.errors import InputError, one_line
from utils.files import check_file

Span = tuple[int, int]
"""The first byte, and the one after the last."""

_GAP = 2**12  # bytes: fewer are read in vain rather than asked around
_HTTP = dict(headers={"Accept-Encoding": "identity"})  # a range of what is compressed on its way means nothing


class Ranges(Protocol):
    """
    name: of the file, for messages
    size: bytes of the file
    """

    name: str
    size: int

    def read(self, spans: list[Span]) -> list[bytes]:
        """The bytes of each span, exactly; InputError, in one line that names the file, if they cannot be had."""


def is_url(where: str | Path) -> bool:
    return "://" in str(where)


def open_ranges(where: str | Path) -> Ranges:
    """A file of the disk, or for an address such as https://... one of the network; InputError if there is none."""
    return _Remote(str(where)) if is_url(where) else _Local(Path(where))


class _Local:
    def __init__(self, path: Path):
        check_file(path)
        self.path, self.name, self.size = path, str(path), path.stat().st_size

    def read(self, spans: list[Span]) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                found = [_at(file, *span) for span in spans]
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror or one_line(error)}") from error
        return checked(found, spans, f"{self.name} was changed while it was read; read it again")


def _at(file: Any, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)


class _Remote:
    def __init__(self, where: str):
        self.name = where
        try:
            from fsspec.core import url_to_fs  # files of the disk do without it
        except ImportError as error:
            raise InputError(f"{where}: needs the package fsspec; pip install fsspec aiohttp") from error

        def size() -> int | None:
            self.files, self.path = url_to_fs(where, **(_HTTP if where.startswith(("http://", "https://")) else {}))
            return self.files.info(self.path)["size"]

        self.size = self._reaching(size)
        if not isinstance(self.size, int):
            raise InputError(f"{where}: the server does not tell how large the file is; download it first")

    def read(self, spans: list[Span]) -> list[bytes]:
        merged = list(merge(spans))
        starts, stops = (list(ends) for ends in zip(*merged, strict=True)) if merged else ([], [])
        paths = [self.path] * len(merged)
        found = self._reaching(lambda: self.files.cat_ranges(paths, starts, stops, on_error="raise"))
        remedy = "the server gives other bytes than it is asked for; use one that knows range requests, or download it"
        parts = dict(zip(merged, checked(found, merged, f"{self.name}: {remedy}"), strict=True))
        return list(cut(parts, spans))

    def _reaching(self, ask: Callable[[], Any]) -> Any:
        """What a network answers; InputError for whatever it raises."""
        try:
            return ask()
        except Exception as error:
            cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
            reason = one_line(cause)[:200] or type(cause).__name__
            raise InputError(f"{self.name} cannot be read ({reason}); check the address and the network") from error


def checked(found: list[bytes], spans: list[Span], complaint: str) -> list[bytes]:
    """Bytes that were read; InputError unless each is as long as its span."""
    if [len(data) for data in found] != [stop - start for start, stop in spans]:
        raise InputError(complaint)
    return found


def merge(spans: list[Span]) -> Iterator[Span]:
    """Ascending spans that hold some others, of which those with a small gap between them are one."""
    held = None
    for start, stop in sorted(spans):
        if held and start - held[1] < _GAP:
            held = held[0], max(held[1], stop)
            continue
        if held:
            yield held
        held = start, stop
    if held:
        yield held


def cut(parts: dict[Span, bytes], spans: list[Span]) -> Iterator[bytes]:
    """The bytes of each span, from those of spans that hold them."""
    ascending, order = sorted(parts.items()), sorted(range(len(spans)), key=spans.__getitem__)
    found, at = {}, 0
    for index in order:
        start, stop = spans[index]
        while ascending[at][0][1] < stop:
            at += 1
        (first, _), data = ascending[at]
        found[index] = data[start - first : stop - first]
    return (found[index] for index in range(len(spans)))


class Head:
    """A file whose first bytes are kept: what lies in them is not asked for again."""

    def __init__(self, ranges: Ranges, n_bytes: int):
        self.ranges, self.name, self.size = ranges, ranges.name, ranges.size
        [self.kept] = ranges.read([(0, min(n_bytes, ranges.size))])

    def read(self, spans: list[Span]) -> list[bytes]:
        farther = [span for span in spans if span[1] > len(self.kept)]
        found = iter(self.ranges.read(farther) if farther else [])
        return [next(found) if stop > len(self.kept) else self.kept[start:stop] for start, stop in spans]

    def extend(self, stop: int) -> None:
        """Keep what lies before `stop` as well."""
        if stop > len(self.kept):
            self.kept += self.ranges.read([(len(self.kept), stop)])[0]
