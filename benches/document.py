"""The figures as JSON: where, when and how they were measured, which bars they meet, all rounds of all cases.

Times are seconds for one unit (a step, a pipeline), a number for each round; memory is in bytes. One entry a line, so
that two files can be compared by eye.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from cases import catalogue
from cases.pair import PROCESS
from figures import cost
from report import reading, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from figures import Figures, Measurement

_MEMORY = ("peak", "peak_with_workers")


def circumstances(raw: dict[str, Any], load: float) -> dict[str, Any]:
    """Tell where, when and how it was measured; the machine's own name is nobody's business."""
    machine = raw["machine_info"]
    return {
        "machine": {
            "cpu": machine.get("cpu", {}).get("brand_raw", "unknown"),
            "cpus": os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{machine['system']} {'.'.join(machine['release'].split('.')[:2])} {machine['machine']}",
            "load_before": round(load, 2),
        },
        "python": f"{machine['python_implementation']} {machine['python_version']}",
        "command": " ".join(["python", "benches/run.py", *sys.argv[1:]]),
        "commit": raw["commit_info"].get("id"),
        "date": raw["datetime"],
    }


def headline(about: dict[str, Any]) -> str:
    """Return the circumstances in two lines."""
    machine = about["machine"]
    where = f"{machine['cpus']} x {machine['cpu']}, {machine['memory'] / 1e9:.0f} GB, {machine['system']}"
    when = f"load {machine['load_before']:.1f} before, {about['date'][:16]}"
    return f"{about['command']}\n{about['python']}, {where}, {when}"


def document(about: dict[str, Any], figures: Figures) -> str:
    """Return everything as JSON."""
    lists = {"bars": list(_bars(figures)), "ratios": list(_ratios(figures)), "figures": list(_figures(figures))}
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    parts += [f"{json.dumps(key)}: [\n{_lines(entries)}\n]" for key, entries in lists.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(entries: list[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(entry) for entry in entries)


def _bars(figures: Figures) -> Iterator[dict[str, Any]]:
    for name in figures.groups():
        for bar in catalogue.group(name).bars:
            measured = reading(figures, bar)
            told = {"at_most": bar.most, "unit": bar.unit, "measured": _short(measured)}
            yield {"group": name, "bar": bar.text, **told, "verdict": verdict(measured, bar)}


def _ratios(figures: Figures) -> Iterator[dict[str, Any]]:
    for name, size in figures.rounds:
        for pair in catalogue.group(name).pairs:
            found = figures.ratios(name, pair, size)
            if found:
                sides = {"case": pair.case, "baseline": figures.fastest(name, pair, size), "of": pair.label}
                ratio = {key: _short(value) for key, value in found._asdict().items()}
                yield {"group": name, "size": size, **sides, **ratio}


def _figures(figures: Figures) -> Iterator[dict[str, Any]]:
    for (name, size), cases in figures.rounds.items():
        for case, rounds in cases.items():
            yield {"group": name, "size": size, "case": case, **_rounds(rounds)}


def _rounds(rounds: list[Measurement]) -> dict[str, Any]:
    """Put the rounds of a case side by side."""
    phases = rounds[0]["phases"]
    kinds = {kind: [phase for phase in phases if kind in phases[phase]] for kind in ("wall", "cpu")}
    times = {
        kind: {phase: [_short(cost(each, [phase], kind)) for each in rounds] for phase in chosen}
        for kind, chosen in kinds.items()
    }
    rss = {phase: [each["phases"][phase]["rss"] for each in rounds] for phase in phases if phase != PROCESS}
    peaks = {peak: [each[peak] for each in rounds] for peak in _MEMORY if peak in rounds[0]}
    others = [round(each["others"], 2) for each in rounds]
    return {"units": rounds[0]["units"], **times, "rss": rss, **peaks, "others": others}


def _short(value: float | None) -> float | None:
    """Keep the digits that say something."""
    return None if value is None else float(f"{value:.4g}")
