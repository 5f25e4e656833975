"""Options in YAML files: those that a user writes, and those of a run."""

import re
from pathlib import Path
from typing import Any

import yaml

from utils.cli import OneLineParser
from utils.errors import InputError, one_line
from utils.files import check_file

_MOST = 2**20  # bytes


class _TextLoader(yaml.BaseLoader):
    """Reads values as text, since options have types already, and null as None."""


_TextLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("(~|null|Null|NULL)?$"), ["~", "n", "N", ""])
_TextLoader.add_constructor("tag:yaml.org,2002:null", lambda *_: None)


def read_config(parser: OneLineParser, path: str) -> dict[str, Any]:
    """Options from a YAML file: `n_scales: 4` stands for `--n_scales 4`, and a single number does for a list."""
    check_file(Path(path), _MOST)
    try:
        config = yaml.load(Path(path).read_text(), _TextLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"--config {path} cannot be read ({one_line(error)})") from error
    if not isinstance(config, dict):
        raise InputError(f"--config {path} holds no options: write lines such as 'n_scales: 4'")
    known = parser.defaults().keys() - {"config"}
    for name, value in config.items():
        if name not in known:
            raise InputError(f"--config {path}: {name} is not an option (see --help)")
        words = value if isinstance(value, list) else [value]
        if None in words:
            raise InputError(f"--config {path}: {name} has no value; give it one, or leave it out")
        if len(words) > 1 and not parser.takes_several(name):
            raise InputError(f"--config {path}: {name} takes one value, not {len(words)}")
        if not words or any(not isinstance(word, str) or word.startswith("--") for word in words):
            raise InputError(f"--config {path}: {name} must be a value, or a list of values")
    try:
        return parser.parse_values(config)
    except InputError as error:
        raise InputError(f"--config {path}: {error}") from error


def dump_options(recorded: dict[str, Any]) -> str:
    """The recorded options of a run as YAML that --config takes."""
    kept = {name: value for name, value in recorded.items() if value is not None}
    return yaml.safe_dump(kept, sort_keys=False, default_flow_style=None)
