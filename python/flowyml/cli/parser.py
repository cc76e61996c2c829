"""The words of the command line: subcommands, options, and what is said about a word that does not exist.

Values of `-c name=value`: what a text on the command line means.

| text | value |
| --- | --- |
| `3`, `-1`, `0x1f`, `2.5`, `1e-3` | a number |
| `true`, `false`, `null`, `none` in any case | `True`, `False`, `None` |
| `[1, 2]`, `{"a": 1}`, `(1, 2)`, `"007"`, `'x'` | as JSON, else as Python writes it |
| anything else: `abc`, `007`, `2026-01-31`, `1_000`, `yes` | the text itself |

Quotes make text of what would be something else: `-c 'id="3"'`.
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
The file is executed as `python file.py` executes it. If it runs its pipeline itself, the options hold for that run; if
not, its pipeline is run when the file has been executed. What stands behind -- is sys.argv of the file.

values (-c, -i): numbers, true/false/null, JSON and Python literals; everything else is text

exit codes: 0 success, 1 a step failed or the file raised, 2 wrong use and nothing has run, 3 a file or stdout could not
be written, 130 Ctrl-C
(2 also for a name that turns out to be none of a file which runs its pipelines itself: the message says what has run)

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
    """A parser that says which word may have been meant."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, with the nearest word."""
        words = {"/".join(action.option_strings): action.metavar for action in self._actions}
        raise UsageError(f"{_clear(message, words)}\nTry `{self.prog} --help`.")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Raise that there are no such options or arguments."""
        word = words[0].partition("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        told = f"there is no option {word}{did_you_mean(word, known)}" if word[:1] == "-" else f"what is {word!r} for?"
        raise UsageError(f"{told}\nTry `{self.prog} --help`.")


def _filled(word: str) -> str:
    """Return a word that is not empty: `--resume="$ID"` without that ID must not mean another run."""
    if not word:
        raise argparse.ArgumentTypeError("expected one argument")
    return word


def _clear(message: str, wanted: Mapping[str, Any]) -> str:
    """Return a message of argparse in our words; `wanted` says what each option takes."""
    choice = re.match(r"argument (.*?): invalid choice: '(.*?)' \(choose from (.*)\)", message, re.DOTALL)
    if choice:
        words = [word.strip(" '") for word in choice[3].split(",")]
        hint = did_you_mean(choice[2], words) or f"; there are {', '.join(words)}"
        if choice[1] in {"COMMAND", "ACTION"}:
            return f"there is no command {choice[2]!r}{hint}"
        return f"{choice[1].rpartition('/')[2]} cannot be {choice[2]!r}{hint}"
    lacking = re.match(r"the following arguments are required: (.*)", message)
    if lacking:
        return f"{lacking[1]} is missing"
    number = re.match(r"argument (.*?): invalid (int|float) value: (.*)", message)
    if number:
        kind = "a whole number" if number[2] == "int" else "a number"
        return f"{number[1].rpartition('/')[2]} takes {kind}, got {number[3]}"
    alone = re.match(r"argument (.*?): expected one argument", message)
    if alone:
        return f"{alone[1].rpartition('/')[2]} takes {wanted.get(alone[1]) or 'a value'}, got nothing"
    wrong = re.match(r"argument (.*?): (.*)", message)
    return f"{wrong[1].rpartition('/')[2]}: {wrong[2]}" if wrong else message


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    return _parsers()[0]


def _parsers() -> tuple[_ArgumentParser, dict[str, _ArgumentParser]]:
    """Return the parser of the whole command, and those of its parts."""
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


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for; what stands behind `--` is in `rest`.

    Raises:
        UsageError: If a word is wrong or missing.
    """
    words = list(words)
    place = words.index("--") if "--" in words else len(words)
    whole, parts = _parsers()
    found, unknown = whole.parse_known_args(words[:place])
    if unknown:
        parts.get(found.command, whole).refuse(unknown)
    found.rest = words[place + 1 :]
    if found.rest and found.command != "run":
        raise UsageError(f"`flowyml {found.command}` takes nothing behind --")
    return found


def _add(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.", epilog=_EPILOGS.get(name)
    )
    return added


def _target(to: argparse.ArgumentParser) -> None:
    to.add_argument("pipeline", metavar="PIPELINE", help=_TARGET)


def _values(to: argparse.ArgumentParser) -> None:
    alike = {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    to.add_argument("-c", "--context", **alike, help="a value of the context, for this run")  # type: ignore[arg-type]
    to.add_argument("-p", "--param", dest="context", **alike, help="the same as --context")  # type: ignore[arg-type]
    to.add_argument("-i", "--input", dest="inputs", **alike, help="a declared input: run(inputs=)")  # type: ignore[arg-type]


def _targets(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "-t",
        "--target",
        action="append",
        default=[],
        dest="targets",
        metavar="STEP",
        help="only this step or asset and what it needs; a glob, or tag:NAME; may be repeated",
    )


def _run(commands: Any) -> None:
    run = _add(commands, "run", "run a pipeline")
    _target(run)
    _values(run)
    _targets(run)
    run.add_argument(
        "-w", "--workers", type=int, metavar="N", help="how many workers; process workers unless --backend"
    )
    run.add_argument(
        "-b", "--backend", choices=BACKENDS, metavar="KIND", help=f"where steps run: {', '.join(BACKENDS)}"
    )
    run.add_argument("--fail-fast", action="store_true", help="start nothing new after the first failure")
    run.add_argument("--dry-run", action="store_true", help="check everything, print what would run, and run nothing")
    run.add_argument(
        "--resume",
        nargs="?",
        const="last",
        type=_filled,
        metavar="ID",
        help="continue the last unfinished run, or that of an id (needs enable_checkpointing)",
    )
    run.add_argument("--fresh", action="store_true", help="begin anew although there is an unfinished run")
    run.add_argument("--run-id", type=_filled, metavar="ID", help="the name of the run")
    run.add_argument("--seed", type=int, metavar="N", help="make random numbers reproducible")
    run.add_argument("--report", type=_filled, metavar="FILE", help="write a page about the run: one HTML file")
    run.add_argument(
        "--trace", type=_filled, metavar="FILE", help="write a trace for ui.perfetto.dev; .json or .json.gz"
    )
    run.add_argument("--json", type=_filled, metavar="FILE", help="write what came of the run as JSON; - is stdout")
    run.add_argument("--progress", choices=("auto", "on", "off"), default="auto", help="auto: on a terminal")
    run.add_argument("-q", "--quiet", action="store_true", help="say nothing but what failed")


def _graph(commands: Any) -> None:
    graph = _add(commands, "graph", "show the graph of a pipeline; runs nothing of it")
    _target(graph)
    graph.add_argument("-f", "--format", choices=FORMATS, metavar="FORMAT", help=f"{', '.join(FORMATS)}; default: text")
    graph.add_argument("-o", "--output", metavar="FILE", help="write it to a file; .svg, .dot, .mmd tell the format")
    graph.add_argument("--explain", metavar="STEP", help="say where the arguments of a step come from")


def _runs(commands: Any) -> None:
    runs = _add(commands, "runs", "list the runs that have a journal: going on, or to be continued")
    runs.add_argument("--dir", type=_filled, metavar="FOLDER", help="where journals are; default: .flowyml/checkpoints")
    runs.add_argument("--pipeline", metavar="NAME", help="those of one pipeline only")
    runs.add_argument("--remove", action="append", default=[], metavar="ID", help="remove a run; it is not continued")
    runs.add_argument("--json", action="store_true", help="as JSON")


def _show(commands: Any) -> None:
    show = _add(commands, "show", "tell what a run has finished, by its journal")
    show.add_argument("run", metavar="RUN", nargs="?", default="last", help="its id; default: the last one")
    show.add_argument("--dir", type=_filled, metavar="FOLDER", help="where journals are; default: .flowyml/checkpoints")
    show.add_argument("--json", action="store_true", help="as JSON")


def _cache(commands: Any) -> None:
    cache = _add(commands, "cache", "look at cached values, or remove them")
    actions = cache.add_subparsers(dest="action", metavar="ACTION", parser_class=_ArgumentParser, required=True)
    stats = _add(actions, "stats", "what is stored, step by step")
    clear = _add(actions, "clear", "remove cached values")
    for each in (stats, clear):
        each.add_argument("--dir", type=_filled, metavar="FOLDER", help="the cache; default: .flowyml/cache")
        each.add_argument("--json", action="store_true", help="as JSON")
    clear.add_argument("--pipeline", metavar="PIPELINE", help="of the steps of a pipeline: file.py[:NAME], module:NAME")
    clear.add_argument("--step", metavar="NAME", help="of one step")
    clear.add_argument("--days", type=float, metavar="N", help="what was stored more than N days ago")
    clear.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _bench(commands: Any) -> None:
    bench = _add(commands, "bench", "measure what a step costs on this machine that does nothing")
    bench.add_argument("-n", "--steps", type=int, default=100_000, metavar="N", help="how many steps; default: 100000")
    bench.add_argument("-w", "--workers", type=int, metavar="N", help="how many workers")
    bench.add_argument(
        "-b", "--backend", action="append", choices=BACKENDS, metavar="KIND", help="only this one; may be repeated"
    )


_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+")
_WORDS = {"true": True, "false": False, "null": None, "none": None}


def value_of(text: str) -> Any:
    """Return what a text means.

    >>> [value_of(text) for text in ("3", "1e-3", "TRUE", "null", "[1, 2]", '"3"', "007", "2026-01-31")]
    [3, 0.001, True, None, [1, 2], '3', '007', '2026-01-31']
    """
    if _NUMBER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[:1] in tuple("[{(\"'"):
        return _structure(text)
    return text


def _structure(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def assigned(option: str, pairs: Iterable[str]) -> dict[str, Any]:
    """Return the values of `name=value` pairs by name; the last one of a name wins.

    Raises:
        UsageError: If one has no name or no `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name.strip():
            raise UsageError(f"{option} takes name=value, got {pair!r}")
        values[name.strip()] = value_of(text)
    return values
