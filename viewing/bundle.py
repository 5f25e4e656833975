"""Modules of JavaScript as one script, and the files of a page inside the page.

Modules import each other by lines `import { a, b } from "./x.js";`, or from "../folder/x.js", and export declarations
alone. Their names are unique over all of them, so that as one script they mean the same.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from posixpath import dirname, join, normpath

_IMPORT = re.compile(r'^import \{ ([\w$, ]+) \} from "(\.{1,2}/[\w./-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function|function|class|const|let)\b)", re.MULTILINE)
_OTHER = re.compile(r"^(?:import\b(?!\()|export\b).*", re.MULTILINE)
_NAME = re.compile(r"^(?:async )?(?:function\*?|class|const|let|var) ([\w$]+)", re.MULTILINE)
_EXPORTED = re.compile(r"^export (?:async )?(?:function\*?|class|const|let) ([\w$]+)", re.MULTILINE)
_ENDING = re.compile("<(/script|!--)", re.IGNORECASE)
_RELATIVE = re.compile(r'(\bfrom\s*|\bimport\s*)"\./([\w.-]+)"')


def bundled(entry: str, read: Callable[[str], str]) -> str:
    """A module and all that it needs, as the text of one script.

    Inputs
        entry: name of its file
        read: the text of a file
    Errors
        ValueError for modules that need each other in a circle or share a name, and for imports that are not there or,
            like exports, are written in another way
    """
    texts, graph, waiting = {}, {}, [entry]
    while waiting:
        name = waiting.pop()
        if name not in texts:
            texts[name] = read(name)
            graph[name] = [home for _, home in imports(name, texts[name])]
            waiting += graph[name]
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise ValueError(f"modules need each other: {', '.join(error.args[1])}") from error
    parts = {name: plain(name, texts[name]) for name in order}
    homes = {}
    for name, part in parts.items():
        for declared in _NAME.findall(part):
            if declared in homes:
                raise ValueError(f"{declared} is declared in both {homes[declared]} and {name}")
            homes[declared] = name
    for name in order:
        for names, home in imports(name, texts[name]):
            if missing := names - set(_EXPORTED.findall(texts[home])):
                raise ValueError(f"{name} imports {', '.join(missing)}, which {home} does not export")
    return "\n".join(parts.values())


def imports(name: str, text: str) -> list[tuple[set[str], str]]:
    """What a module imports: names, and the file from which they come."""
    folder = dirname(name)
    return [(set(names.split(", ")), normpath(join(folder, path))) for names, path in _IMPORT.findall(text)]


def plain(name: str, text: str) -> str:
    """A module without its imports and the word export; ValueError where it has others."""
    text = _EXPORT.sub("", _IMPORT.sub("", text))
    if found := _OTHER.search(text):
        raise ValueError(f"{name}: {found[0]!r} cannot be part of one script")
    return text


def in_script(text: str) -> str:
    """A script as the text of an element of HTML: in strings and patterns, where alone its end can stand, it is written
    otherwise."""
    return _ENDING.sub(lambda found: f"<\\{found[1]}" if found[1][0] == "/" else "\\x3c!--", text)


def element(name: str, text: str) -> str:
    """Text that the page finds by a name; it must hold no tag."""
    return f'<script id="{name}" type="text/plain">{text}</script>\n'


def base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64(data)}"


def bare_imports(text: str, prefix: str) -> tuple[str, set[str]]:
    """A module whose imports of files beside it have names of an import map: a module in an address has none beside it.

    Outputs
        its text, in which "./x.js" is now "prefix/x.js"
        the files that it imports
    """
    names = {name for _, name in _RELATIVE.findall(text)}
    return _RELATIVE.sub(lambda found: f'{found[1]}"{prefix}/{found[2]}"', text), names
