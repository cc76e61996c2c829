"""Measure everything beside its baselines: `make bench`, or `python benches/run.py --quick -k "steps: and map"`.

pytest-benchmark has each measurement run (`test_cases.py`) and keeps the figures; this prints them as tables with
ratios and bars, and writes them as JSON: a full run to `results/latest.json`, any other to `results/partial.json`.
A missed bar is told, it is no error; the exit code is 1 if something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cases import catalogue
from figures import Figures
from report import reading, report, verdict

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results"


def main() -> int:
    """Measure, print, write."""
    options = _options()
    load = os.getloadavg()[0]
    raw, code = _measure(options)
    figures = Figures((each["extra_info"]["job"], each["extra_info"]["figures"]) for each in raw["benchmarks"])
    print(_headline(raw, load))
    print(report(figures))
    document = {**_circumstances(raw, load), "bars": _bars(figures), "groups": _groups(figures)}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument("-k", default="", metavar="WORDS", help="only what fits, as in pytest: 'steps: and thread'")
    parser.add_argument("--rounds", type=int, help="how often each case is measured")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    partial = options.quick or options.k or options.rounds
    options.json = options.json or _RESULTS / ("partial.json" if partial else "latest.json")
    return options


def _measure(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Have pytest-benchmark measure; return what it wrote, and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw.json")
        command = [sys.executable, "-m", "pytest", "-q", str(_HERE), "--benchmark-quiet", f"--benchmark-json={raw}"]
        command += ["-k", options.k] if options.k else []
        command += ["--quick"] if options.quick else []
        command += [f"--rounds={options.rounds}"] if options.rounds else []
        code = subprocess.run(command, check=False).returncode
        if not raw.exists() or not raw.stat().st_size:
            sys.exit("nothing was measured")
        return json.loads(raw.read_text()), int(code != 0)


def _circumstances(raw: dict[str, Any], load: float) -> dict[str, Any]:
    """Tell where, when and how it was measured; the machine's own name is nobody's business."""
    machine = raw["machine_info"]
    cpu = machine.get("cpu", {})
    return {
        "machine": {
            "cpu": cpu.get("brand_raw", "unknown"),
            "cpus": os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{machine['system']} {machine['release']} {machine['machine']}",
            "load_before": round(load, 2),
        },
        "python": f"{machine['python_implementation']} {machine['python_version']}",
        "command": " ".join(["python", "benches/run.py", *sys.argv[1:]]),
        "commit": raw["commit_info"].get("id"),
        "date": raw["datetime"],
    }


def _headline(raw: dict[str, Any], load: float) -> str:
    about = _circumstances(raw, load)
    machine = about["machine"]
    where = f"{machine['cpus']} x {machine['cpu']}, {machine['memory'] / 1e9:.0f} GB, {machine['system']}"
    return f"\n{about['command']}\n{about['python']}, {where}, load {load:.1f} before, {about['date'][:16]}\n"


def _bars(figures: Figures) -> list[dict[str, Any]]:
    return [
        {
            "group": name,
            "bar": bar.text,
            "at_most": bar.most,
            "unit": bar.unit,
            "measured": reading(figures, bar),
            "verdict": verdict(reading(figures, bar), bar),
        }
        for name in catalogue.NAMES
        for bar in catalogue.group(name).bars
    ]


def _groups(figures: Figures) -> dict[str, Any]:
    """Return all rounds of all cases, by group, size and case."""
    groups: dict[str, Any] = {}
    for (name, size), cases in figures.rounds.items():
        groups.setdefault(name, {})[str(size)] = cases
    return groups


if __name__ == "__main__":
    sys.exit(main())
