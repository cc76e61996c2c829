"""The command line: subcommands and options, messages for wrong arguments, and values of `-c name=value`.

| text | value |
| --- | --- |
| `3`, `-1`, `0x1f`, `2.5`, `1e-3` | a number |
| `true`, `false`, `null`, `none` in any case | `True`, `False`, `None` |
| `[1, 2]`, `{"a": 1}`, `(1, 2)`, `"007"`, `'x'` | JSON, else a Python literal |
| anything else: `abc`, `007`, `2026-01-31`, `1_000`, `yes` | the string itself |

Quotes make a string of a number: `-c 'id="3"'`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from flowyml.cli.console import UsageError
from flowyml.diagnostics.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


BACKENDS = ("process", "thread", "async", "local")
FORMATS = ("text", "mermaid", "dot", "svg")
_TARGET = (
    "file.py, file.py:NAME, module:NAME, or a name from [tool.flowyml.pipelines] of pyproject.toml; "
    "NAME is a variable, a function that returns a pipeline, or the name of one"
)
_EPILOGS = {
    "run": """\
The file is executed like `python file.py`. If it runs its pipeline itself, the options apply to that run; if not, its
pipeline is run after the file. Arguments after -- are passed to the file in sys.argv.

values (-c, -i): numbers, true/false/null, JSON and Python literals; everything else is a string

exit codes: 0 success, 1 a step failed or the file raised, 2 wrong use and nothing has run, 3 a file or stdout could not
be written, 130 Ctrl-C
(2 also if a file runs pipelines itself, but none of the given name: the message names those that have run)

examples:
  flowyml run daily.py -c date=2026-01-31 --workers 4
  flowyml run daily.py:etl --resume --report etl.html
  flowyml run shop.pipelines:nightly --backend thread --target report --quiet""",
    "graph": """\
examples:
  flowyml graph daily.py
  flowyml graph daily.py:etl --format svg --output etl.svg
  flowyml graph daily.py --explain train""",
}


class _ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors suggest near matches."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        metavars = {"/".join(action.option_strings): action.metavar for action in self._actions}
        raise UsageError(f"{_friendly(message, metavars)}\nTry `{self.prog} --help`.")

    def refuse(self, arguments: Sequence[str]) -> NoReturn:
        argument = arguments[0].partition("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        problem = (
            f"unknown option {argument}{did_you_mean(argument, known)}"
            if argument[:1] == "-"
            else f"unexpected argument {argument!r}"
        )
        raise UsageError(f"{problem}\nTry `{self.prog} --help`.")


def _non_empty(word: str) -> str:
    """Reject an empty value: `--resume="$ID"` with an unset variable must not select another run."""
    if not word:
        raise argparse.ArgumentTypeError("expected one argument")
    return word


def _friendly(message: str, wanted: Mapping[str, Any]) -> str:
    """Rewrite a message of argparse; `wanted` has the metavar of each option."""
    choice = re.match(r"argument (.*?): invalid choice: '(.*?)' \(choose from (.*)\)", message, re.DOTALL)
    if choice:
        choices = [word.strip(" '") for word in choice[3].split(",")]
        hint = did_you_mean(choice[2], choices) or f"; choose from {', '.join(choices)}"
        if choice[1] in {"COMMAND", "ACTION"}:
            return f"unknown command {choice[2]!r}{hint}"
        return f"{choice[1].rpartition('/')[2]} cannot be {choice[2]!r}{hint}"
    missing = re.match(r"the following arguments are required: (.*)", message)
    if missing:
        return f"{missing[1]} is missing"
    number = re.match(r"argument (.*?): invalid (int|float) value: (.*)", message)
    if number:
        kind = "an integer" if number[2] == "int" else "a number"
        return f"{number[1].rpartition('/')[2]} takes {kind}, got {number[3]}"
    without_value = re.match(r"argument (.*?): expected one argument", message)
    if without_value:
        return f"{without_value[1].rpartition('/')[2]} takes {wanted.get(without_value[1]) or 'a value'}, got nothing"
    wrong = re.match(r"argument (.*?): (.*)", message)
    return f"{wrong[1].rpartition('/')[2]}: {wrong[2]}" if wrong else message


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    return _build_parsers()[0]


def _build_parsers() -> tuple[_ArgumentParser, dict[str, _ArgumentParser]]:
    whole = _ArgumentParser(prog="flowyml", description="Run graphs of plain Python functions in parallel.")
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", parser_class=_ArgumentParser)
    _run(commands)
    _graph(commands)
    _runs(commands)
    _show(commands)
    _cache(commands)
    _bench(commands)
    return whole, dict(commands.choices)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; the arguments after `--` are in `rest`.

    Raises:
        UsageError: If an argument is wrong or missing.
    """
    arguments = list(arguments)
    separator = arguments.index("--") if "--" in arguments else len(arguments)
    whole, parts = _build_parsers()
    options, unknown = whole.parse_known_args(arguments[:separator])
    if unknown:
        parts.get(options.command, whole).refuse(unknown)
    options.rest = arguments[separator + 1 :]
    if options.rest and options.command != "run":
        raise UsageError(f"`flowyml {options.command}` takes no arguments after --")
    return options


def _add(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    subparser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.", epilog=_EPILOGS.get(name)
    )
    return subparser


def _target(to: argparse.ArgumentParser) -> None:
    to.add_argument("pipeline", metavar="PIPELINE", help=_TARGET)


def _values(to: argparse.ArgumentParser) -> None:
    options = {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    to.add_argument("-c", "--context", **options, help="a context value for this run")  # type: ignore[arg-type]
    to.add_argument("-p", "--param", dest="context", **options, help="the same as --context")  # type: ignore[arg-type]
    to.add_argument("-i", "--input", dest="inputs", **options, help="a declared input: run(inputs=)")  # type: ignore[arg-type]


def _targets(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "-t",
        "--target",
        action="append",
        default=[],
        dest="targets",
        metavar="STEP",
        help="only this step or asset and its dependencies; a glob, or tag:NAME; may be repeated",
    )


def _run(commands: Any) -> None:
    run = _add(commands, "run", "run a pipeline")
    _target(run)
    _values(run)
    _targets(run)
    run.add_argument("-w", "--workers", type=int, metavar="N", help="number of workers; processes unless --backend")
    run.add_argument(
        "-b", "--backend", choices=BACKENDS, metavar="KIND", help=f"where steps run: {', '.join(BACKENDS)}"
    )
    run.add_argument("--fail-fast", action="store_true", help="start nothing new after the first failure")
    run.add_argument("--dry-run", action="store_true", help="check everything, print what would run, and run nothing")
    run.add_argument(
        "--resume",
        nargs="?",
        const="last",
        type=_non_empty,
        metavar="ID",
        help="continue the last unfinished run, or that of an id (needs enable_checkpointing)",
    )
    run.add_argument("--fresh", action="store_true", help="start from the beginning even if there is an unfinished run")
    run.add_argument("--run-id", type=_non_empty, metavar="ID", help="id of the run")
    run.add_argument("--seed", type=int, metavar="N", help="make random numbers reproducible")
    run.add_argument("--report", type=_non_empty, metavar="FILE", help="write a page about the run: one HTML file")
    run.add_argument(
        "--trace", type=_non_empty, metavar="FILE", help="write a trace for ui.perfetto.dev; .json or .json.gz"
    )
    run.add_argument("--json", type=_non_empty, metavar="FILE", help="write the result as JSON; - is stdout")
    run.add_argument("--progress", choices=("auto", "on", "off"), default="auto", help="auto: on a terminal")
    run.add_argument("-q", "--quiet", action="store_true", help="report only failures")


def _graph(commands: Any) -> None:
    graph = _add(commands, "graph", "show the graph of a pipeline without running it")
    _target(graph)
    graph.add_argument("-f", "--format", choices=FORMATS, metavar="FORMAT", help=f"{', '.join(FORMATS)}; default: text")
    graph.add_argument(
        "-o", "--output", metavar="FILE", help="write to a file; the format follows from .svg, .dot, .mmd"
    )
    graph.add_argument("--explain", metavar="STEP", help="show the source of each argument of a step")


def _runs(commands: Any) -> None:
    runs = _add(commands, "runs", "list the runs that have a journal: running, or resumable")
    runs.add_argument(
        "--dir", type=_non_empty, metavar="DIR", help="directory of the journals; default: .flowyml/checkpoints"
    )
    runs.add_argument("--pipeline", metavar="NAME", help="only those of one pipeline")
    runs.add_argument(
        "--remove", action="append", default=[], metavar="ID", help="remove a run, so that it cannot be resumed"
    )
    runs.add_argument("--json", action="store_true", help="as JSON")


def _show(commands: Any) -> None:
    show = _add(commands, "show", "show the finished steps of a run from its journal")
    show.add_argument("run", metavar="RUN", nargs="?", default="last", help="its id; default: the last one")
    show.add_argument(
        "--dir", type=_non_empty, metavar="DIR", help="directory of the journals; default: .flowyml/checkpoints"
    )
    show.add_argument("--json", action="store_true", help="as JSON")


def _cache(commands: Any) -> None:
    cache = _add(commands, "cache", "show or remove cached values")
    actions = cache.add_subparsers(dest="action", metavar="ACTION", parser_class=_ArgumentParser, required=True)
    stats = _add(actions, "stats", "show stored values by step")
    clear = _add(actions, "clear", "remove cached values")
    for action in (stats, clear):
        action.add_argument("--dir", type=_non_empty, metavar="DIR", help="the cache; default: .flowyml/cache")
        action.add_argument("--json", action="store_true", help="as JSON")
    clear.add_argument("--pipeline", metavar="PIPELINE", help="of the steps of a pipeline: file.py[:NAME], module:NAME")
    clear.add_argument("--step", metavar="NAME", help="of one step")
    clear.add_argument("--days", type=float, metavar="N", help="only values older than N days")
    clear.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _bench(commands: Any) -> None:
    bench = _add(commands, "bench", "measure the cost of an empty step on this machine")
    bench.add_argument("-n", "--steps", type=int, default=100_000, metavar="N", help="number of steps; default: 100000")
    bench.add_argument("-w", "--workers", type=int, metavar="N", help="number of workers")
    bench.add_argument(
        "-b", "--backend", action="append", choices=BACKENDS, metavar="KIND", help="only this backend; may be repeated"
    )


_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+")
_KEYWORDS = {"true": True, "false": False, "null": None, "none": None}


def parse_value(text: str) -> Any:
    """Return the value that a string stands for.

    >>> [parse_value(text) for text in ("3", "1e-3", "TRUE", "null", "[1, 2]", '"3"', "007", "2026-01-31")]
    [3, 0.001, True, None, [1, 2], '3', '007', '2026-01-31']
    """
    if _NUMBER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if text.lower() in _KEYWORDS:
        return _KEYWORDS[text.lower()]
    if text[:1] in tuple("[{(\"'"):
        return _parse_literal(text)
    return text


def _parse_literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def parse_assignments(option: str, pairs: Iterable[str]) -> dict[str, Any]:
    """Return the values of `name=value` pairs by name; the last one of a name wins.

    Raises:
        UsageError: If a pair has no name or no `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name.strip():
            raise UsageError(f"{option} takes name=value, got {pair!r}")
        values[name.strip()] = parse_value(text)
    return values
