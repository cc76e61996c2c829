"""The tables of figures in the documents, written from `benches/results/*.json` where a document has a place.

```text
<!-- figures: bars -->  ──▶ whatever stands here is replaced ──▶  <!-- end of figures -->
```

`make bench` and `make bench-peers` write the JSON, `python benches/tables.py` the documents; so no figure in a table is
typed. The module knows what the documents show, not how anything is measured.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from report import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Document = dict[str, Any]

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benches" / "results"
DOCUMENTS = [ROOT / "docs" / "performance.md", ROOT / "docs" / "benchmarks.md"]

_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_MILLION = 1_000_000
_STEPS = {
    "`add_step`, local": "flowyml local add_step",
    "`add_step`, threads": "flowyml thread add_step",
    "`add_step`, processes": "flowyml process add_step",
    "`map`, local": "flowyml local map",
    "`map`, threads": "flowyml thread map",
    "`map`, processes": "flowyml process map",
}
_BY_HAND = {
    "a bare `for` loop that appends": ["bare loop"],
    "`multiprocessing.pool.ThreadPool.map`": [f"ThreadPool.map, {each} a worker" for each in (1, 8, 64)],
    "`multiprocessing.Pool.map`": [f"Pool.map, {each} a worker" for each in (1, 8, 64)],
    "`ProcessPoolExecutor.map`": [f"ProcessPoolExecutor map, {each} a worker" for each in (1, 8, 64)],
}
_START = {
    "a bare interpreter": "bare interpreter",
    "`import flowyml`": "import flowyml",
    "first step of a cold process executor": "first step, cold process executor",
    "first call of a cold `ProcessPoolExecutor`, forked": "first call, cold ProcessPoolExecutor",
    "the same, spawned": "first call, cold ProcessPoolExecutor, spawned",
    "a killed worker replaced": "a killed worker replaced",
    "five steps, local executor": "five steps, local",
    "five steps on warm threads": "five steps, warm threads",
    "five steps on warm worker processes": "five steps, warm processes",
    "five calls on a warm `ProcessPoolExecutor`": "five calls, warm ProcessPoolExecutor",
}


def written(text: str, results: Document) -> str:
    """Return a document with its tables as the results have them."""

    def fill(place: re.Match[str]) -> str:
        return "\n".join([place[1], *TABLES[place[2]](results), "", place[3]])

    return _PLACE.sub(fill, text)


def steps(results: Document) -> Iterator[str]:
    """A step that does nothing, a million of them."""
    yield from _head(["us per step", "define + build", "run", "collect", "all", "peak memory, workers included"])
    for label, case in _STEPS.items():
        one = _figure(results, "steps", _MILLION, case)
        sums = [_cost(one, phases) for phases in (["define", "build"], ["run"], ["collect"], _phases(one))]
        yield _row([label, *(f"{each * 1e6:.2f}" for each in sums), _megabytes(one)])
    for label, cases in _BY_HAND.items():
        found = [_figure(results, "steps", _MILLION, case) for case in cases]
        best = min(found, key=lambda each: _cost(each, _phases(each)))
        chunks = ", best chunks" if len(cases) > 1 else ""
        yield _row([label + chunks, "", "", "", f"{_cost(best, _phases(best)) * 1e6:.2f}", _megabytes(best)])


def start(results: Document) -> Iterator[str]:
    """How long it takes until something runs."""
    yield from _head(["", "ms"])
    for label, case in _START.items():
        one = _figure(results, "start", 1, case)
        yield _row([label, number(_cost(one, _phases(one)) * 1e3)])


def bars(results: Document) -> Iterator[str]:
    """All bars, met or not."""
    yield from _head(["", "at most", "measured", ""])
    for bar in _all_bars(results):
        yield _row([*_bar(bar), "met" if bar["verdict"] == "met" else f"**{bar['verdict'].lower()}**"])


def missed(results: Document) -> Iterator[str]:
    """The bars that are not met."""
    yield from _head(["", "at most", "measured"])
    yield from (_row(_bar(bar)) for bar in _all_bars(results) if bar["verdict"] != "met")


def _all_bars(results: Document) -> list[dict[str, Any]]:
    return [*results["bars"], *results["peers"]["bars"]]


def _bar(bar: dict[str, Any]) -> list[str]:
    return [bar["bar"], *(_with_unit(bar[key], bar["unit"]) for key in ("at_most", "measured"))]


def circumstances(results: Document) -> Iterator[str]:
    """Where, when and by which command it was measured."""
    machine, rounds = results["machine"], len(results["figures"][0]["others"])
    how = f"`{results['command']}`: {f'median of {rounds} rounds' if rounds > 1 else 'one round'}, {results['python']}"
    where = f"{machine['cpus']} x {machine['cpu']}, {machine['memory'] / 1e9:.0f} GB, {machine['system']}"
    yield from textwrap.wrap(f"{how}, {where}, {results['date'][:10]}.", 120, break_on_hyphens=False)


def peers(results: Document) -> Iterator[str]:
    """The same steps on the engines and pools that one could use instead."""
    yield from _head(["", "us per step", "vs ours", "measured at"])
    peers = results["peers"]
    ours = {kind: _run(_figure(peers, "peers", _MILLION, f"flowyml {kind} add_step")) for kind in ("thread", "process")}
    for each in peers["figures"]:
        kind = each["case"].removeprefix("flowyml ").split()[0]
        ratio = "" if each["case"].startswith("flowyml") else f"{number(_run(each) / ours[kind])}x"
        yield _row([each["case"], number(_run(each) * 1e6), ratio, f"{each['units']:,}"])
    yield ""
    yield from circumstances(peers)


def _run(figure: dict[str, Any]) -> float:
    return _cost(figure, ["run"])


TABLES: dict[str, Callable[[Document], Iterator[str]]] = {
    each.__name__: each for each in (steps, start, bars, missed, peers, circumstances)
}


def _head(cells: Sequence[str]) -> Iterator[str]:
    yield _row(cells)
    yield _row(["---"] * len(cells))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def _figure(results: Document, group: str, size: int, case: str) -> dict[str, Any]:
    for each in results["figures"]:
        if (each["group"], each["size"], each["case"]) == (group, size, case):
            return dict(each)
    raise LookupError(f"{case!r} of {group!r} was not measured at {size:,}")


def _phases(figure: dict[str, Any]) -> list[str]:
    """Return the phases of a case that count; that of the whole process does where there is no other."""
    return [phase for phase in figure["wall"] if phase != "process"] or ["process"]


def _cost(figure: dict[str, Any], phases: Sequence[str]) -> float:
    """Return the median of the rounds, in seconds."""
    rounds = zip(*(figure["wall"][phase] for phase in phases if phase in figure["wall"]), strict=True)
    return median(map(sum, rounds))


def _megabytes(figure: dict[str, Any]) -> str:
    return f"{median(figure['peak_with_workers']) / 1e6:,.0f} MB"


def _with_unit(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{number(value)} {unit}".strip()


def _read(name: str) -> Document:
    return dict(json.loads((RESULTS / f"{name}.json").read_text()))


def main() -> None:
    """Write all documents, or with `--check` say which are not as they would be written."""
    parser = argparse.ArgumentParser(description="Write the tables of figures into the documents.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is another one")
    check = parser.parse_args().check
    results = _read("latest") | {"peers": _read("peers")}
    for document in DOCUMENTS:
        before = document.read_text()
        after = written(before, results)
        if check and before != after:
            sys.exit(f"{document.name} has other tables than benches/results: python benches/tables.py writes them")
        if before != after:
            document.write_text(after)


if __name__ == "__main__":
    main()
