"""`queue_seconds`: how long a step could have begun already, computed from what a run keeps anyway."""

from __future__ import annotations

import time
from typing import Any

import pytest

from flowyml import Pipeline, dynamic

SOME = 0.2
"""Seconds that a step takes; what waits for it has waited for as long."""


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_step_waits_for_a_worker_not_for_what_it_depends_on() -> None:
    pipeline = Pipeline("p").add_step(sleep, "first", {"seconds": SOME}).add_step(sleep, "second", {"seconds": SOME})
    pipeline.add_step(lambda second: second, "reads").add_step(lambda: 1, "ordered", after=["second"])
    result = pipeline.run()
    waited = {name: each.queue_seconds for name, each in result.step_results.items()}
    assert waited["second"] >= SOME
    assert max(waited["first"], waited["reads"], waited["ordered"]) < waited["second"]


def test_on_every_executor(executor: Any) -> None:
    """Items wait for two workers (the local executor has one)."""
    result = Pipeline("p").map(sleep, [SOME] * 4, name="m").run(executor=executor)
    waited = sorted(item.queue_seconds for item in result.step_results["m"].items)
    assert waited[-1] >= SOME
    assert result.step_results["m"].queue_seconds == waited[0]


def test_items_wait_for_the_items_that_they_are_made_of() -> None:
    result = Pipeline("p").map(sleep, [0.0, SOME], name="a").map(lambda a: a, over="a", name="b").run()
    first, second = result.step_results["b"].items
    assert first.queue_seconds >= SOME > second.queue_seconds


def test_of_steps_that_a_dynamic_step_returned(executor: Any) -> None:
    """They wait as other steps do, at most since that step has run; and it waits for the last of them."""

    @dynamic
    def made(before: int) -> Pipeline:
        inside = Pipeline("p").add_step(lambda: before, "first").add_step(lambda first: first, "second")
        inside.map(abs, [1, 2, 3], name="a").map(lambda a: a, over="a", name="b")
        return inside.add_step(lambda second, b: [second, *b], "last")

    result = Pipeline("whole").add_step(lambda: 1, "before").add_step(made).run(executor=executor)
    steps, calls = result.step_results, {each.name: each for each in result.timeline()}
    waited = {"made.second": steps["made.second"].queue_seconds, "made": steps["made"].queue_seconds}
    waited |= {f"made.b[{k}]": each.queue_seconds for k, each in enumerate(steps["made.b"].items)}
    ends = {"made": "made.last", "made.second": "made.first", **{f"made.b[{k}]": f"made.a[{k}]" for k in range(3)}}
    for name, before in ends.items():
        assert waited[name] == pytest.approx(max(0.0, calls[name].start - calls[before].end), abs=1e-4), name
    for name in ("made.first", "made.a"):
        since_before = steps[name].started_at - steps["before"].started_at
        assert 0 <= steps[name].queue_seconds <= since_before.total_seconds()


def test_hooks_are_told_the_same(executor: Any) -> None:
    told: dict[str, float | None] = {}
    pipeline = Pipeline("p").add_step(lambda: 1, "one").add_step(lambda one: one, "reads").map(abs, [1, 2], name="a")
    pipeline.map(lambda a: a, over="a", name="b")
    pipeline.hooks.on_step_end(lambda _, result: told.update({result.step_name: result.queue_seconds}))
    result = pipeline.run(executor=executor)
    steps, items = result.step_results, result.step_results["b"].items
    assert [told[name] for name in ("one", "reads")] == [steps[name].queue_seconds for name in ("one", "reads")]
    assert [told["b[0]"], told["b[1]"]] == [each.queue_seconds for each in items]


def test_where_it_is_not_known() -> None:
    tries: list[int] = []

    def flaky() -> None:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError

    def fails() -> None:
        raise ValueError

    pipeline = Pipeline("p").add_step(flaky, retry=1).add_step(fails).add_step(lambda fails: 1, name="never")
    result = pipeline.map(sleep, [], name="empty").run()
    assert [result.step_results[name].queue_seconds for name in ("flaky", "never", "empty")] == [None, None, None]
    assert result.step_results["fails"].queue_seconds is not None
