"""The tables of the pages, from the files in benchmarks/results.

    python -m docs.tables

A page names the files of a table by `<!-- table: NAME ... -->`, and ends it by `<!-- /table -->`; what stands between
is written anew. The rows of several files follow each other, so their columns must be the same.
"""

import re
from pathlib import Path

from benchmarks.records import RESULTS, Table, as_markdown, read

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_TABLE = re.compile(r"<!-- table: (?P<names>[\w ]+) -->\n.*?<!-- /table -->", re.DOTALL)


def names_on(page: str) -> list[str]:
    """The files that a page shows."""
    return [name for found in _TABLE.finditer(page) for name in found["names"].split()]


def with_tables(page: str) -> str:
    """A page's text with every table as its files have it now.

    Errors
        FileNotFoundError for a file that does not exist
        ValueError for files whose columns differ
    """
    return _TABLE.sub(lambda found: _section(found["names"]), page)


def _section(names: str) -> str:
    tables = [read(RESULTS / f"{name}.json") for name in names.split()]
    columns = tables[0].columns
    if any(table.columns != columns for table in tables):
        raise ValueError(f"{names}: their columns differ")
    rows = [as_markdown(row) for table in tables for row in table.rows]
    head = [as_markdown(columns), f"{'|---' * len(columns)}|"]
    captions = [f"\n*{caption(table)}*" for table in tables]
    return "\n".join([f"<!-- table: {names} -->\n", *head, *rows, *captions, "\n<!-- /table -->"])


def caption(table: Table) -> str:
    """What the figures are, and where they come from."""
    origin = [f"`{table.command}`" if table.command else table.source, table.hardware]
    origin += [f"{name} {number}" for name, number in table.versions.items()]
    sentence = ", ".join(filter(None, [*origin, table.date]))
    return f"{table.title}: {sentence}." + (f" {table.note}." if table.note else "")


def main() -> None:
    for path in PAGES:
        page = path.read_text()
        path.write_text(with_tables(page))


if __name__ == "__main__":
    main()
