"""A run from its start to its end: signal handling, seeds, extensions, and the log of failures and fallbacks.

```
Ctrl-C, requests to end, seeds ┐
extensions                     ┴──▶ executor.execute(run) ──▶ PipelineResult, log of failures and fallbacks
```

It knows nothing of how pipelines are written, and of an executor only its `execute` method.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flowyml.cancellation import on_cancel
from flowyml.diagnostics.text import pluralize, truncate
from flowyml.errors import ExecutorError, RunInterrupted
from flowyml.results.error_text import error_line
from flowyml.state import STATES, SUCCESS
from flowyml.steps.context import by_name

if TYPE_CHECKING:
    from typing import Protocol

    from flowyml.results.result import PipelineResult
    from flowyml.runtime.run import Run

    class SupportsExecute(Protocol):
        """The part of an executor that a run needs."""

        def execute(self, run: Run) -> None:
            """Run all steps."""


_log = logging.getLogger("flowyml")
_SHOWN_FAILURES = 3
_NEXT = "\n  "
_CHANGED = ("changed size during iteration", "changed during iteration", "mutated during iteration")


def execute(run: Run, executor: SupportsExecute, *, quiet: bool = False) -> PipelineResult:
    """Run everything on an executor, and log what failed unless `quiet`.

    Raises:
        RunInterrupted: After Ctrl-C, with the partial result.
    """
    result: PipelineResult | None = None
    try:
        with run.interrupts, on_cancel(run.interrupts.request), _seeded(run):
            for extension in reversed(run.extensions):  # `on_pipeline_start` is called before anything is looked up
                extension.on_run_started()
            executor.execute(run)
            result = run.result()
            for extension in run.extensions:
                extension.on_run_finished(result)
    except KeyboardInterrupt as error:
        raise RunInterrupted(_cut_off(run)) from error
    except Exception as error:
        partial = _cut_off(run) if result is None else result
        if isinstance(error, ExecutorError):
            error.result = partial
        raise
    finally:
        for extension in run.extensions:
            extension.close(result)
        if result is not None and run.checkpoint_dir:
            _forget_states(run.checkpoint_dir, result)
    if not result.success and not quiet:
        _log_failures(run)
    if run.fallback_errors:
        _log_fallbacks(run)
    return result


def _forget_states(checkpoint_dir: str, result: PipelineResult) -> None:
    """Remove the saved states of steps that succeeded. Without such files it costs one system call."""
    if os.path.isdir(f"{checkpoint_dir}/steps"):  # noqa: PTH112  each run asks; a Path would cost more than the question
        from flowyml.store.step_state_files import remove_succeeded

        steps = result.step_results
        remove_succeeded(Path(checkpoint_dir), result.pipeline_name, lambda name: name in steps and steps[name].success)


def _cut_off(run: Run) -> PipelineResult:
    """Return the partial result of a run that was interrupted, and call `on_pipeline_end`."""
    result = run.partial_result()
    for extension in run.extensions:
        extension.on_run_finished(result, interrupted=True)
    return result


def _seeded(run: Run) -> contextlib.AbstractContextManager[None]:
    if run.seed is None:
        return contextlib.nullcontext()
    from flowyml.runtime import random_seeds

    return random_seeds.kept()


def _log_failures(run: Run) -> None:
    failures, scheduler = _unforgiven(run), run.scheduler
    told = [
        f"  {run.plan.names[node]} (failed): {error_line(error)}"
        for node, error in sorted(run.expansion_errors.items())
    ]
    told += [
        f"  {run.item_name(item)} ({STATES[scheduler.state(item)]}): {error_line(failures[item])}"
        for item in sorted(failures)[:_SHOWN_FAILURES]
    ]
    first = list(map(truncate, told[:_SHOWN_FAILURES]))
    more = len(failures) + len(run.expansion_errors) - len(first)
    _log.error(
        "pipeline %r: %s failed, result.success is False\n%s%s",
        run.plan.name,
        _how_many(run),
        "\n".join(first),
        f"{f'{_NEXT}... and {more:,} more: see result.failed' if more > 0 else ''}{_shared_hint(run)}",
    )


def _shared_hint(run: Run) -> str:
    """Return a hint if items of a map failed because they change an argument that they share; "" if none did.

    That is known if two items or more were called with one and the same object, it is at hand where Python raised, and
    what it raised is that a container changed while it was iterated over. Worker processes give each item a copy.
    """
    hit: dict[int, list[int]] = {}
    for item, error in () if run.keeps_serialized else run.failures.items():
        if type(error) is RuntimeError and str(error).endswith(_CHANGED):
            hit.setdefault(run.node_of[item], []).append(item)
    for node, items in hit.items():
        shared = _shared_by(run, node, items[:2]) if len(items) > 1 else []
        if shared:
            return (
                f"{_NEXT}items of {run.plan.names[node]!r} share the argument {shared[0]!r}, and steps change it while "
                'others read it: run(debug=True) names those steps, ParallelExecutor(backend="process") gives each '
                "item a copy"
            )
    return ""


def _shared_by(run: Run, node: int, items: list[int]) -> list[str]:
    """Return the parameters whose object two items share, and which the first item used when it failed."""
    keywords, function = run.calls.template_of(items[0]).keywords, run.plan.function_of(node)
    with contextlib.suppress(Exception):  # values may be released, or raise when they are loaded
        first, other = (by_name(function, keywords, run.calls.arguments(item)) for item in items)
        last = run.failures[items[0]].__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        at_hand = {id(value) for value in last.tb_frame.f_locals.values()} if last is not None else set()
        return [
            name
            for name, value in first.items()
            if other[name] is value and not at_hand.isdisjoint((id(value), id(getattr(value, "__dict__", value))))
        ]
    return []


def _log_fallbacks(run: Run) -> None:
    """Say, once a run, that there are values that steps have not made themselves."""
    fallen = sorted(item for item in run.fallback_errors if run.scheduler.state(item) == SUCCESS)
    if fallen:
        first = [
            truncate(f"  {run.item_name(item)}: {error_line(run.fallback_errors[item])}")
            for item in fallen[:_SHOWN_FAILURES]
        ]
        more = [f"  ... and {len(fallen) - len(first):,} more"] if len(fallen) > len(first) else []
        many = "1 value comes from a fallback" if len(fallen) == 1 else f"{len(fallen):,} values come from fallbacks"
        _log.warning("pipeline %r: %s\n%s", run.plan.name, many, "\n".join(first + more))


def _unforgiven(run: Run) -> dict[int, BaseException]:
    """Return the failures without those of map tasks that are a success all the same."""
    forgiven = () if run.map_tasks is None else run.map_tasks.forgiven(run.scheduler.states())
    found = {item: error for item, error in run.failures.items() if run.node_of[item] not in forgiven}
    return (
        found if found or run.expansion_errors else run.failures
    )  # nothing else: what was forgiven has cost items that were made of it


def _how_many(run: Run) -> str:
    """Return how many steps failed, and how many items of mapped ones."""
    nodes = [run.node_of[item] for item in _unforgiven(run)]
    mapped = [node for node in nodes if run.item_index.is_mapped(node)]
    steps = len(nodes) - len(mapped) + len(run.expansion_errors)
    parts = [pluralize(steps, "step")] if steps or not mapped else []
    if mapped:
        parts.append(f"{pluralize(len(mapped), 'item')} of {pluralize(len(set(mapped)), 'mapped step')}")
    return " and ".join(parts)
