"""The job of `examples/flights.py` as somebody writes it who knows `concurrent.futures` and nothing else.

The default way to start processes (forked where the platform forks: pandas is there at once), `map` with one file a
call, since a file is half a second of work; the merge runs where the results arrive.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cases.pools import futures_pool

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor
    from pathlib import Path

    import pandas as pd


def month(path: Path, resamples: int) -> pd.DataFrame:
    """Sum up one month."""
    import flights

    return flights.month_by_carrier.func(path, resamples)


def year(pool: ProcessPoolExecutor, files: list[Path], resamples: int) -> pd.DataFrame:
    """Sum up all months in the pool, merge them here."""
    import flights

    return flights.year_by_carrier.func(list(pool.map(partial(month, resamples=resamples), files)))


def new_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool with as many workers."""
    return futures_pool(workers)
