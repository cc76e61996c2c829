"""Measure everything beside its baselines: `make bench`, or `python benches/run.py --quick -k "steps: and map"`.

pytest-benchmark has each measurement run (`test_cases.py`) and keeps the figures; this prints them as tables with
ratios and bars, and writes them as JSON: a full run to `results/latest.json`, one of the peers (`make bench-peers`, or
`--peers`) to `results/peers.json`, any other to `results/partial.json`.
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
from document import circumstances, document, headline
from figures import Figures
from report import report

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results"


def main() -> int:
    """Measure, print, write."""
    options = _options()
    load = os.getloadavg()[0]
    raw, code = _measure(options)
    measured = ((each["extra_info"]["job"], each["extra_info"]["figures"]) for each in raw["benchmarks"])
    figures = Figures(measured, scale=lambda group: catalogue.group(group).unit[1])
    about = circumstances(raw, load)
    print(f"\n{headline(about)}\n\n{report(figures)}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(document(about, figures))
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument("--peers", action="store_true", help="the groups of `make bench-peers` in place of all others")
    parser.add_argument("-k", default="", metavar="WORDS", help="only what fits, as in pytest: 'steps: and thread'")
    parser.add_argument("--rounds", type=int, help="how often each case is measured")
    parser.add_argument("--tries", type=int, default=1, help="measure up to so often while others use the machine")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    partial = options.quick or options.k or options.rounds
    whole = "peers.json" if options.peers else "latest.json"
    options.json = options.json or _RESULTS / ("partial.json" if partial else whole)
    return options


def _measure(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Have pytest-benchmark measure; return what it wrote, and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw.json")
        command = [sys.executable, "-m", "pytest", "-qrs", str(_HERE), "--benchmark-quiet", f"--benchmark-json={raw}"]
        command += [f"--tries={options.tries}"]
        command += ["-k", options.k] if options.k else []
        command += ["--quick"] if options.quick else []
        command += ["--peers"] if options.peers else []
        command += [f"--rounds={options.rounds}"] if options.rounds else []
        code = subprocess.run(command, check=False).returncode
        if not raw.exists() or not raw.stat().st_size:
            sys.exit("nothing was measured")
        return json.loads(raw.read_text()), int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
