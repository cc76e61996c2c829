"""`flowyml cache`: show or remove cached values."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml.cli.console import (
    FAILURE,
    SUCCESS,
    UsageError,
    columns,
    confirm,
    is_terminal,
    write,
    write_json,
)
from flowyml.diagnostics.text import did_you_mean, pluralize
from flowyml.store.cache_store import DEFAULT, CacheStore
from flowyml.units import format_size

if TYPE_CHECKING:
    import argparse


def cache(options: argparse.Namespace) -> int:
    """Show statistics of cached values, or remove values."""
    return _stats(options) if options.action == "stats" else _clear(options)


def _stats(options: argparse.Namespace) -> int:
    store = CacheStore(options.dir or DEFAULT)
    stats = store.stats()
    if options.json:
        write_json({key: stats[key] for key in ("cache_dir", "total_entries", "total_size_mb", "by_step")})
    elif not stats["total_entries"]:
        write(f"nothing is cached in {store.cache_dir}")
    else:
        steps = sorted(stats["by_step"].items(), key=lambda step: step[1]["size_bytes"], reverse=True)
        rows = [[step, f"{totals['count']:,}", format_size(totals["size_bytes"])] for step, totals in steps]
        size = format_size(int(stats["total_size_mb"] * 2**20))
        write(f"{store.cache_dir}: {pluralize(stats['total_entries'], 'value')}, {size}\n")
        write("\n".join(columns(["step", ">values", ">size"], rows)))
    return SUCCESS


def _clear(options: argparse.Namespace) -> int:
    if options.days is not None and options.days < 0:
        raise UsageError(f"--days must be 0 or more, got {options.days:g}")
    before = None if options.days is None else dt.datetime.now(dt.UTC) - dt.timedelta(days=options.days)
    store, names, what = _selection(options)
    if store is None:
        write("the pipeline has no cache")
        return SUCCESS
    if options.days is not None:
        what += f" that were stored more than {options.days:g} days ago"
    if not options.yes:
        if not is_terminal(sys.stdin):
            raise UsageError(f"refusing to remove {what} from {store.cache_dir} without a terminal; pass --yes")
        if not confirm(f"Remove {what} from {store.cache_dir}?"):
            write("nothing was removed")
            return FAILURE
    removed = _removed(store, names, before)
    if options.json:
        write_json({"cache_dir": str(store.cache_dir), "removed": removed})
    else:
        write(f"{pluralize(removed, 'value')} removed from {store.cache_dir}")
    return SUCCESS


def _selection(options: argparse.Namespace) -> tuple[CacheStore | None, list[str] | None, str]:
    """Return the cache, the selected steps (`None` for all), and a description of both."""
    if options.pipeline is None:
        store = CacheStore(options.dir or DEFAULT)
        known = store.stats()["by_step"]
        if options.step is not None and options.step not in known:
            raise UsageError(
                f"nothing is cached of step {options.step!r} in {store.cache_dir}{did_you_mean(options.step, known)}"
            )
        names = None if options.step is None else [options.step]
        return store, names, "all cached values" if names is None else f"the values of step {options.step!r}"
    from flowyml.cli.graph_command import pipeline_of

    pipeline = pipeline_of(options.pipeline)
    steps = list(pipeline.dag.nodes)
    if options.step is not None and options.step not in steps:
        raise UsageError(f"pipeline {pipeline.name!r} has no step {options.step!r}{did_you_mean(options.step, steps)}")
    at = options.dir or pipeline.cache_stats().get("cache_dir")
    chosen = steps if options.step is None else [options.step]
    what = (
        f"the values of pipeline {pipeline.name!r}" if options.step is None else f"the values of step {options.step!r}"
    )
    return None if at is None else CacheStore(Path(at)), chosen, what


def _removed(store: CacheStore, names: list[str] | None, before: Any) -> int:
    if names is not None:
        return store.invalidate_steps(names, before=before)
    return store.clear() if before is None else store.invalidate(before=before)
