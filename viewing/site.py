"""The page and what it is told of the fit that it shows."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

VIEWER = Path(__file__).resolve().parent.parent / "viewer"
"""The page's own files."""

_DESCRIPTION = re.compile(r'(<script id="site" type="application/json">).*?(</script>)', re.DOTALL)


@dataclass(frozen=True)
class Site:
    """
    name: of the fit
    fit: its file
    original: where the page finds what was fitted: `kind`, image or iiif, and `url`; or None
    has_pictures: whether IIIF has some
    """

    name: str
    fit: Path
    original: dict[str, str] | None
    has_pictures: bool

    @property
    def fit_name(self) -> str:
        """Of its file, beside the page."""
        return f"{self.name}.miner"

    @property
    def description(self) -> dict[str, Any]:
        """What the page is told; addresses are relative to its own."""
        information = f"iiif/{quote(self.name)}/info.json" if self.has_pictures else None
        return {"name": self.name, "fit": quote(self.fit_name), "original": self.original, "iiif": information}


def original_name(name: str) -> str:
    """The identifier of what was fitted."""
    return f"{name}_original"


def page(description: dict[str, Any]) -> str:
    """The page, told what it shows."""
    text = json.dumps(description).replace("<", "\\u003c")
    filled, count = _DESCRIPTION.subn(
        lambda found: f"{found[1]}{text}{found[2]}", (VIEWER / "index.html").read_text("utf-8")
    )
    if count != 1:
        raise ValueError("index.html has no single place for the description of the site")
    return filled
