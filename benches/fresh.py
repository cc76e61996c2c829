"""One case in a process of its own: `fresh.py GROUP CASE SIZE DATA` prints what it took as one line of JSON.

```
start ─▶ phase ─▶ phase ─▶ ... ─▶ peaks ─▶ check ─▶ stop
       ▲        ▲                between phases: CPU and memory of this process and its workers
```
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cases import catalogue
from processes import cpu_of_workers, memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from cases.contract import Case


def measure(case: Case) -> dict[str, Any]:
    """Take a case through its phases."""
    begun = timed(case.start)
    phases = {name: timed(getattr(case, name)) for name in case.phases}
    case.check()
    case.stop()
    peaks = {peak: max(each[peak] for each in phases.values()) for peak in ("peak", "peak_with_workers")}
    return {"units": case.units, "start": begun, "phases": phases, **peaks, "further": case.further}


def timed(call: Callable[[], None]) -> dict[str, float]:
    """Call something; return its wall and CPU seconds, and the memory in use after it."""
    workers, own, wall = cpu_of_workers(), time.process_time(), time.perf_counter()
    call()
    wall, own = time.perf_counter() - wall, time.process_time() - own
    return {"wall": wall, "cpu": own + cpu_of_workers() - workers, **memory()}


def main() -> None:
    """Find the case, measure it, tell."""
    group, name, size, data = sys.argv[1:]
    case = catalogue.group(group).cases[name](int(size), Path(data))
    print(json.dumps(measure(case)))


if __name__ == "__main__":
    main()
