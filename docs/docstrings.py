"""The docstrings on the page python.md.

    python -m docs.docstrings

The page names a function by `<!-- docstring: MODULE.NAME -->`, and ends its text by `<!-- /docstring -->`; what stands
between is written anew.
"""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent / "python.md"

_DOCSTRING = re.compile(r"<!-- docstring: (?P<name>[\w.]+) -->\n.*?<!-- /docstring -->", re.DOTALL)


def with_docstrings(page: str) -> str:
    """A page's text with every docstring as the code has it now; AttributeError for a name that is none."""
    return _DOCSTRING.sub(lambda found: _section(found["name"]), page)


def _section(name: str) -> str:
    thing = _find(name)
    body = inspect.getdoc(thing)
    return f"<!-- docstring: {name} -->\n\n```\n{_head(name, thing)}\n\n{body}\n```\n\n<!-- /docstring -->"


def _find(name: str) -> Any:
    """What a dotted name, of a module and of names inside it, stands for."""
    first, *inside = name.split(".")
    found = import_module(first)
    for one in inside:
        found = getattr(found, one) if hasattr(found, one) else import_module(f"{found.__name__}.{one}")
    return found


def _head(name: str, thing: Any) -> str:
    short = name.rpartition(".")[2]
    signature = inspect.signature(thing)
    shown = [one for one in signature.parameters.values() if one.name not in ("self", "cls")]
    names = [str(one.replace(annotation=inspect.Parameter.empty)).replace(" = ", "=") for one in shown]
    return f"{short}({', '.join(names)})"


def main() -> None:
    PAGE.write_text(with_docstrings(PAGE.read_text()))


if __name__ == "__main__":
    main()
