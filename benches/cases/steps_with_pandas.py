"""Steps of a module that imports pandas, as most modules of steps import something large."""

from __future__ import annotations

import os
import signal

import pandas as pd


def count(i: int) -> int:
    """Return the argument, by way of a table."""
    return len(pd.DataFrame({"a": range(i)}))


def count_or_die(i: int) -> int:
    """Kill the process that it runs in, or, for the last item of all, return its number."""
    if i:
        os.kill(os.getpid(), signal.SIGKILL)
    return count(i)
