"""Run one case on one pool in this process, and print the verdict: `python one.py POOL CASE FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from cases import CASES, same
from pools import POOLS, Task

WORKERS = 2


def verdict(pool: str, case: str, folder: Path) -> str:
    """Return "kept", or what was not."""
    fault = CASES[case]
    with POOLS[pool](WORKERS, fault.timeout) as run:
        complaint = fault.check(run(fault.tasks(folder)), folder)
        if complaint is None and fault.again:
            outcomes = run([Task(same, (i,)) for i in range(10)])
            complaint = None if [each.value for each in outcomes] == list(range(10)) else "broken afterwards"
        # Told before the pool is closed: whether it can be closed is seen from outside.
        print(f"verdict: {complaint or 'kept'}", flush=True)
    return complaint or "kept"


if __name__ == "__main__":
    verdict(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
