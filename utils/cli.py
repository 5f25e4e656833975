"""What the programs' command lines share: what a value may be, and errors of one line.

A value arrives as text, from the command line or a config, and the type of its option reads it. A type says in words
what it takes, so that every error names the option, the value and what to try.
"""

import shutil
from argparse import (
    SUPPRESS,
    Action,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    HelpFormatter,
    Namespace,
)
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from utils.errors import InputError, one_line

MOST = 10**9
"""Of whatever is counted: more than any run needs, and few enough for the arithmetic of all libraries."""

_LARGEST = 1e30  # in single precision it still has a square root, a product with small numbers, and so on
_LONGEST_SHOWN = 60
_FLAGS = dict.fromkeys(("true", "yes", "on"), True) | dict.fromkeys(("false", "no", "off"), False)


def option_type(read: Callable[[str], Any], accepts: Callable[[Any], bool], meaning: str) -> Callable[[str], Any]:
    """The type of an option.

    Inputs
        read: text -> value; ValueError or KeyError for text that is none
        accepts: whether the option takes the value
        meaning: what it must be, in words
    """

    def parse(text: str) -> Any:
        try:
            if accepts(value := read(text)):
                return value
        except (ValueError, KeyError):
            pass
        shown = one_line(text) or repr(text)
        shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
        raise ArgumentTypeError(f"{shown}: must be {meaning}")

    return parse


def whole_number(least: int, most: int = MOST) -> Callable[[str], int]:
    """The type of an option that takes whole numbers between two bounds."""
    return option_type(int, lambda number: least <= number <= most, f"a whole number from {least:,} to {most:,}")


def positive(most: float = _LARGEST) -> Callable[[str], float]:
    """The type of an option that takes numbers above 0."""
    return option_type(float, lambda number: 0 < number <= most, f"a positive number, at most {most:g}")


def not_negative(most: float = _LARGEST) -> Callable[[str], float]:
    """The type of an option that takes 0 and numbers above it."""
    return option_type(float, lambda number: 0 <= number <= most, f"zero or a positive number, at most {most:g}")


text = option_type(str, lambda value: value.strip() != "" and "\0" not in value, "text that is not empty")
"""The type of an option that takes names and paths."""


_WIDTH = 100  # of the help, where a terminal has so much


class _Formatter(HelpFormatter):
    """Values as one writes them, and the default at the end, where there is one."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=min(_WIDTH, shutil.get_terminal_size().columns - 2))

    def _format_args(self, action: Action, default_metavar: str) -> str:
        if action.nargs == "?":
            return ""
        return (
            action.metavar if action.nargs == "+" and action.metavar else super()._format_args(action, default_metavar)
        )

    def _get_help_string(self, action: Action) -> str:
        default = action.default
        if default is None or default is False or default is SUPPRESS:
            return action.help
        return f"{action.help} (default: {value_text(default)})"


class Options(Protocol):
    """A parser, or a group of its options."""

    def add_argument(self, *names: str, **settings: Any) -> Action: ...


def value_text(value: Any) -> str:
    """A value of an option as one writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class _ShowHelp(Action):
    """Print the help and end; with `const`, that of the rare options too."""

    def __call__(self, parser: "OneLineParser", *_: Any) -> None:
        print(parser.help_text(self.const), end="")
        parser.exit()


class OneLineParser(ArgumentParser):
    """Errors are InputErrors of one line, without the usage.

    Inputs
        usage: the shortest command line, without the program
        rare: options that only --help_all shows
    """

    def __init__(self, prog: str, usage: str, description: str, rare: Iterable[str] = ()):
        super().__init__(
            prog=prog,
            usage=f"python {prog} {usage} [options]",
            description=description,
            exit_on_error=False,
            allow_abbrev=False,
            add_help=False,
            formatter_class=_Formatter,
        )
        self.rare = set(rare)

    def add_help_options(self) -> None:
        """Those that print the options, after all others."""
        group = self.add_argument_group("help")
        group.add_argument("-h", "--help", action=_ShowHelp, nargs=0, const=False, default=SUPPRESS, help="this page")
        if self.rare:
            group.add_argument(
                *("--help_all", "--help-all"),
                action=_ShowHelp,
                nargs=0,
                const=True,
                default=SUPPRESS,
                help=f"the same with {len(self.rare)} more options, which are rarely needed",
            )

    def help_text(self, with_rare: bool = True) -> str:
        """The help, by groups of options."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_arguments(
                action for action in group._group_actions if with_rare or action.dest not in self.rare
            )
            formatter.end_section()
        return formatter.format_help()

    def parse_args(self, args: list[str] | None = None, namespace: Namespace | None = None) -> Namespace:
        try:
            return super().parse_args(args, namespace)
        except ArgumentError as error:
            raise InputError(one_line(f"{error.argument_name or ''} {error.message}")) from error

    def parse_given(self, args: list[str]) -> dict[str, Any]:
        """The options that are named, without the defaults of the others."""
        absent = object()
        namespace = Namespace(**dict.fromkeys(self.defaults(), absent))
        return {name: value for name, value in vars(self.parse_args(args, namespace)).items() if value is not absent}

    def parse_values(self, values: dict[str, Any]) -> dict[str, Any]:
        """The same for options by their names, with numbers, text or lists of these."""
        argv = []
        for name, value in values.items():
            words = list(map(str, value if isinstance(value, list | tuple) else [value]))
            argv += [f"--{name}", *words] if len(words) > 1 else [f"--{name}={words[0]}"]
        return self.parse_given(argv)

    def defaults(self) -> dict[str, Any]:
        """Those of all options, in their order in the help."""
        return vars(super().parse_args([]))

    def takes_several(self, name: str) -> bool:
        """Whether an option takes a list of values."""
        return self._option_string_actions[f"--{name}"].nargs == "+"

    def error(self, message: str) -> None:
        raise InputError(f"{one_line(message)} (see --help)")


def add_choice(
    parser: Options, name: str, choices: Iterable[Any], *, default: Any = None, help: str, read: type = str
) -> None:
    """An option that takes one of a few values."""
    choices = list(choices)
    *others, last = map(str, choices)
    parser.add_argument(
        name,
        type=option_type(read, choices.__contains__, f"{', '.join(others)} or {last}"),
        metavar=f"{{{','.join(map(str, choices))}}}",
        default=default,
        help=help,
    )


def add_flag(parser: Options, name: str, help: str, default: bool | None = False) -> None:
    """An option that is turned on by its name; `--name false` turns it off again.

    Inputs
        default: None where it follows from other options
    """
    flag = option_type(lambda word: _FLAGS[word.lower()], lambda _: True, "true or false")
    parser.add_argument(name, type=flag, nargs="?", const=True, default=default, help=help)


def add_backend_option(parser: Options) -> None:
    add_choice(
        parser,
        "--backend",
        ["auto", "reference", "fused"],
        default="auto",
        help="how networks are computed: by fused kernels or plain torch (reference); auto is fused where possible",
    )
