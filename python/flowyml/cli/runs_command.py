"""`flowyml runs` and `flowyml show`: runs with a journal, their finished steps, and the effect of resuming them."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.caching.journal_index import JournalIndex
from flowyml.cli.console import SUCCESS, UsageError, ago, columns, complain, say, write, write_json
from flowyml.diagnostics.text import did_you_mean, pluralize
from flowyml.errors import StoreError
from flowyml.steps.context import CHECKPOINTS
from flowyml.store.journal import Journal
from flowyml.store.run_directory import RunDirectory, directory_of, is_locked, unfinished_runs
from flowyml.units import format_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from flowyml.caching.journal_index import StepTally

_MAX_STEPS = 200


class RunSummary(NamedTuple):
    """The contents of a run's journal.

    Attributes:
        state: "going on", "cut off" (it was killed), or the final state.
        began: Start time, in seconds since 1970.
        changed: Time of the last write to the journal.
        size: Size of its directory in bytes.
    """

    run_id: str
    pipeline: str
    state: str
    began: float
    changed: float
    size: int
    folder: RunDirectory
    finished: JournalIndex

    @property
    def resuming(self) -> str:
        """The effect of `run(resume=)`."""
        if self.state == "going on":
            return "nothing: it is going on"
        if not self.finished.count:
            return "starts from the beginning: nothing is finished"
        ended = sum(tally.ended for tally in self.finished.tallies().values())
        return f"reuses the unchanged results of {pluralize(ended, 'call')}"


def runs(options: argparse.Namespace) -> int:
    """List the runs that have a journal, or remove some."""
    root = _root(options)
    if options.remove:
        return _remove(root, options.remove)
    known = [summary for summary in _all(root) if options.pipeline in {None, summary.pipeline}]
    if options.json:
        write_json([_data(summary) for summary in known])
    elif known:
        rows = [
            (
                summary.run_id,
                summary.pipeline,
                summary.state,
                ago(time.time() - summary.changed),
                f"{summary.finished.count:,}",
                format_size(summary.size),
            )
            for summary in known
        ]
        write("\n".join(columns(["run", "pipeline", "state", "written", ">finished", ">size"], rows)))
    elif options.pipeline is not None:
        others = [summary.pipeline for summary in _all(root)]
        write(f"pipeline {options.pipeline!r} has no runs in {root}{did_you_mean(options.pipeline, others)}")
    else:
        write(f"there are no runs in {root}; only unsuccessful runs of pipelines with enable_checkpointing are kept")
    return SUCCESS


def show(options: argparse.Namespace) -> int:
    """Show the finished steps of a run."""
    root = _root(options)
    known = _one(root, options.run)
    if options.json:
        tallies = known.finished.tallies()
        write_json({**_data(known), "steps": {name: tally._asdict() for name, tally in tallies.items()}})
        return SUCCESS
    began = dt.datetime.fromtimestamp(known.began).astimezone()
    write(
        f"Run ID: {known.run_id}\nPipeline: {known.pipeline}\nState: {known.state}\n"
        f"Began: {began:%Y-%m-%d %H:%M:%S %Z}, written {ago(time.time() - known.changed)}\n"
        f"Journal: {known.folder.path} ({format_size(known.size)})\nFinished:"
    )
    write("\n".join(_steps(known)))
    if known.finished.attempts:
        spent = sum(1 for attempts in known.finished.attempts.values() if attempts)
        if spent:
            write(f"Waiting for a retry: {pluralize(spent, 'call')}")
    write(f"Resuming: {known.resuming}")
    if known.state != "going on":
        write(
            f"          flowyml run PIPELINE --resume {known.run_id}; add --dry-run to see which steps would run again"
        )
    return SUCCESS


def _steps(known: RunSummary) -> Iterator[str]:
    tallies = known.finished.tallies()
    if not tallies:
        yield "  nothing"
        return
    for name, tally in list(tallies.items())[:_MAX_STEPS]:
        items = f" ({_items(tally)})" if tally.mapped else ""
        notes = [(tally.skipped, "skipped"), (tally.lost, "not stored: runs again")]
        details = ", ".join(word if not tally.mapped else f"{count:,} {word}" for count, word in notes if count)
        size = f", {format_size(tally.size)}" if tally.size else ""
        sign = "…" if tally.left else "-" if tally.skipped == tally.ended else "✓"
        yield f"  {sign} {name}{items}{f': {details}' if details else ''}{size}"
    if len(tallies) > _MAX_STEPS:
        yield f"  and {pluralize(len(tallies) - _MAX_STEPS, 'more step')}"


def _items(tally: StepTally) -> str:
    if tally.items is not None and tally.left:
        return f"{tally.items - tally.left:,} of {pluralize(tally.items, 'item')}"
    return pluralize(tally.ended, "item")


def _data(known: RunSummary) -> dict[str, Any]:
    return {
        "run_id": known.run_id,
        "pipeline_name": known.pipeline,
        "state": known.state,
        "began": dt.datetime.fromtimestamp(known.began, dt.UTC).isoformat(),
        "written": dt.datetime.fromtimestamp(known.changed, dt.UTC).isoformat(),
        "finished": known.finished.count,
        "size_bytes": known.size,
        "folder": str(known.folder.path),
        "resuming": known.resuming,
    }


def _root(options: argparse.Namespace) -> Path:
    return Path(options.dir or CHECKPOINTS)


def _all(root: Path) -> Iterator[RunSummary]:
    """Yield the runs, the last written first; report those that cannot be read."""
    for folder in unfinished_runs(root):
        try:
            known = _known(folder)
        except (OSError, StoreError) as error:
            complain(str(error))
            continue
        if known is not None:
            yield known


def _one(root: Path, run_id: str) -> RunSummary:
    if run_id == "last":
        for last in _all(root):
            return last
        raise UsageError(f"there are no runs in {root}")
    folder = directory_of(root, run_id)
    known = _known(folder) if folder.has_journal else None
    if known is None:
        raise UsageError(
            f"there is no run {run_id!r} in {root}{did_you_mean(run_id, [other.run_id for other in _all(root)])}"
        )
    return known


def _known(folder: RunDirectory) -> RunSummary | None:
    """Return the contents of a journal; `None` if it does not name its run."""
    journal = Journal(folder.path, read_only=True, on_trouble=lambda _: None)
    try:
        finished = JournalIndex(journal)
        if finished.run is None:
            return None
        run_id, pipeline, began = finished.run
        state = "going on" if is_locked(folder.path) else finished.ended or "cut off"
        return RunSummary(run_id, pipeline, state, began, folder.changed, _size(folder.path), folder, finished)
    finally:
        journal.close()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(root: Path, run_ids: list[str]) -> int:
    chosen = [_one(root, run_id) for run_id in run_ids]
    for known in chosen:
        if not known.folder.acquire():
            raise UsageError(f"run {known.run_id!r} is going on")
        known.folder.remove()
        known.folder.release()
        say(f"Removed run {known.run_id} of pipeline {known.pipeline!r}")
    return SUCCESS
