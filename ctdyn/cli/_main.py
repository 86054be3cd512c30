"""From the words of a shell to a command, and from its fault to one line and an exit code."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from .._checks import SolveError
from ._commands import COMMANDS


if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["main"]

#: The options that need no value.
FLAGS = ("--overwrite", "--baselines", "--quick", "--drop_empty")

#: The options that take several names, as one word.
LISTS = ("values", "noise", "inputs", "static", "labels", "sums", "units", "kinds", "quantiles", "at")

EXIT_USER, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

EXAMPLES = {
    "describe": """
  ctdyn describe vitals.csv --id patient --time hours
  ctdyn describe long.parquet --id stay --time minute --variable name --value value
  ctdyn describe visits.csv --id patient --time day --kinds visits=count,alive=binary --units hr=1/min""",
    "fit": """
  ctdyn fit vitals.csv --id patient --time hours --out run
  ctdyn fit vitals.csv --id patient --time hours --context 48 --horizon 24 --max_steps 4000 --out run
  ctdyn fit vitals.csv --config fit.yaml          # id: patient, time: hours, latent_size: 8 ... one option a line
  ctdyn fit --print_config > fit.yaml             # all options, to start from""",
    "interpolate": """
  ctdyn interpolate run vitals.csv --out filled.csv
  ctdyn interpolate run vitals.csv --at 6,12,18,24 --quantiles 0.1,0.5,0.9 --plot filled.png""",
    "forecast": """
  ctdyn forecast run vitals.csv --horizon 24 --out forecast.csv --plot forecast.png
  ctdyn forecast run sensors.parquet --horizon 30D --out forecast.parquet
  ctdyn forecast run heating.csv --at ahead.csv   # times, and the inputs that are known ahead""",
    "evaluate": """
  ctdyn evaluate run test.csv                     # hide 30 % of the rows and fill them
  ctdyn evaluate run test.csv --cut 48            # forecast what follows hour 48""",
    "demo": """
  ctdyn demo
  ctdyn demo --out results --seed 1""",
}

OVERVIEW = """Irregularly sampled series: fill gaps and forecast, with intervals.

A file is CSV or parquet, with a column of times, a column per channel and (for many series) an id. Cells may be
empty, times need no grid. A first session:

  ctdyn describe vitals.csv --id patient --time hours
  ctdyn fit vitals.csv --id patient --time hours --out run
  ctdyn evaluate run held_out.csv --cut 48
  ctdyn forecast run vitals.csv --horizon 24 --out forecast.csv --plot forecast.png"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        0 where all went well, 1 where the data, a file or a value is at fault, 2 where the command line is, 130 where
        it was interrupted. Faults are one line on standard error.

    Example:
        >>> main(["describe"])
        2
    """
    # The models are small: a second thread brings little on an idle machine, and on a busy one costs tenfold. Torch
    # reads this when a command imports it; whoever has set it knows better.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        name, arguments = parse(sys.argv[1:] if argv is None else list(argv))
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else EXIT_USAGE
    try:
        COMMANDS[name](**arguments)
    except KeyboardInterrupt:
        print(f"ctdyn {name}: interrupted; nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, SolveError) as error:
        message = " ".join(str(error).split())
        print(f"ctdyn {name}: error: {message or type(error).__name__}", file=sys.stderr)
        return EXIT_USER
    return 0


def parse(argv: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of the command that was asked for, and its arguments."""
    formatter, ArgumentParser = help_formatter(), parser_class(argv)
    parser = ArgumentParser(prog="ctdyn", description=OVERVIEW, formatter_class=formatter)
    commands = parser.add_subcommands(dest="command")
    for name, function in COMMANDS.items():
        summary = (function.__doc__ or "").split("\n\n")[0]
        command = ArgumentParser(description=f"{summary}\n\nexamples:{EXAMPLES[name]}", formatter_class=formatter)
        command.add_argument("--config", action="config", help="YAML file of options, one a line.")
        grouped = groups(function)
        command.add_function_arguments(function, as_group=False, as_positional=True, skip=set(grouped))
        for group in grouped.values():
            command.add_class_arguments(group, nested_key=None, as_group=True)
        commands.add_subcommand(name, command, help=summary)
    parsed = parser.parse_args(normalize(argv))
    function, options = COMMANDS[parsed.command], parsed[parsed.command]
    arguments = {
        name: group(**{field.name: options[field.name] for field in fields(group)})
        for name, group in groups(function).items()
    }
    plain = [name for name in inspect.signature(function).parameters if name not in arguments]
    return parsed.command, arguments | {name: options[name] for name in plain}


def parser_class(argv: Sequence[str]) -> type[ArgumentParser]:
    """The parser of jsonargparse, which says of words too many that belong to the option before them."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        """It says so."""

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            """See argparse."""
            super().error(message + several(argv, message), ex)

    return Parser


def several(argv: Sequence[str], message: str) -> str:
    """What to write where an option that takes one word is followed by several, and the message complains of one."""
    extra = set(message.split())
    for place, option in enumerate(argv):
        if option.startswith("--") and option[2:] in LISTS:
            given = list(takewhile(lambda word: not word.startswith("--"), argv[place + 1 :]))
            if extra.intersection(given[1:]):
                words = ",".join(word.strip(",") for word in given[:2])
                return f". Several go into one word, with commas and no blanks: {option} {words}"
    return ""


def groups(function: Callable[..., None]) -> dict[str, Any]:
    """The parameters of a command that are groups of options."""
    return {name: hint for name, hint in get_type_hints(function).items() if is_dataclass(hint)}


def normalize(argv: Sequence[str]) -> list[str]:
    """`--max-steps 3` as `--max_steps 3`, and a bare `--overwrite` as `--overwrite=true`: either will do."""
    words = []
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
        bare = name in FLAGS and not equals and following not in ("true", "false")
        words.append(f"{name}=true" if bare else f"{name}{equals}{value}")
    return words


def help_formatter() -> type:
    """The help of jsonargparse, with the examples left as they are written."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        """Both."""

    return Formatter
