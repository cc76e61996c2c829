"""Runs that are continued, on every executor: what is taken over, what runs again, and what is said about it."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from pipelines import planned
from run_notes import LOG, kept, note, ran
from step_states import states_in_order as states

from flowyml import (
    If,
    LocalExecutor,
    ParallelExecutor,
    Pipeline,
    RunInterrupted,
    StoreError,
    dynamic,
    map_task,
    retry,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def allow(folder: Path) -> None:
    """Let the steps that fail succeed from now on."""
    (folder / "allowed").touch()


def is_allowed(folder: str) -> bool:
    return (Path(folder) / "allowed").exists()


def load(folder: str, n: int) -> dict[str, Any]:
    note(folder, f"load {n}")
    return {"rows": list(range(n)), "array": np.arange(n), "frame": pd.DataFrame({"a": range(n)})}


def total(folder: str, load: dict[str, Any]) -> float:
    note(folder, "total")
    return float(sum(load["rows"]) + load["array"].sum() + load["frame"]["a"].sum())


def fragile(folder: str, total: float) -> float:
    note(folder, "fragile")
    if not is_allowed(folder):
        raise OSError("not yet")
    return -total


def chain(tmp_path: Path, folder: Path, n: int = 4, **options: Any) -> Pipeline:
    options = {"enable_checkpointing": True, "checkpoint_dir": tmp_path / "runs"} | options
    pipeline = Pipeline("p", context={"folder": str(folder)}, **options)
    return (
        pipeline.add_step(load, params={"n": n})
        .add_step(total)
        .add_step(fragile)
        .add_step(str, "shown", inputs=["fragile"])
    )


def journals(tmp_path: Path) -> list[str]:
    return sorted(path.parent.name for path in (tmp_path / "runs").glob("*/journal"))


def told(caplog: Any, least: int = logging.INFO) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= least and "failed" not in each.getMessage()]


# -- what is taken over


def test_a_failed_run_is_continued_by_the_next(tmp_path, folder, executor):
    first = chain(tmp_path, folder).run(executor=executor)
    assert (states(first), first.resumed) == (["success", "success", "failed", "upstream_failed"], None)
    assert ran(folder) == ["fragile", "load 4", "total"]
    allow(folder)
    second = chain(tmp_path, folder).run(executor=executor)
    assert states(second) == ["cached", "cached", "success", "success"]
    assert ran(folder) == ["fragile"]
    assert (second.success, second["shown"], second["total"], second.run_id) == (True, "-18.0", 18.0, first.run_id)
    assert second["load"]["frame"]["a"].sum() == 6
    assert second.resumed == "2 finished steps taken over"
    assert "\nResumed: 2 finished steps taken over\nSteps:\n" in second.summary()


def test_a_run_that_ends_well_leaves_nothing(tmp_path, folder, executor):
    allow(folder)
    for _ in range(2):
        result = chain(tmp_path, folder).run(executor=executor)
        assert (result.success, result.resumed, journals(tmp_path)) == (True, None, [])
        assert len(ran(folder)) == 3
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".gitignore"]


def test_it_fails_again_and_is_continued_again(tmp_path, folder, executor):
    ids = {chain(tmp_path, folder).run(executor=executor).run_id for _ in range(3)}
    assert ran(folder) == ["fragile"] * 3 + ["load 4", "total"]
    assert journals(tmp_path) == [*ids]


def test_without_checkpointing_nothing_is_kept(tmp_path, folder, executor):
    for _ in range(2):
        chain(tmp_path, folder, enable_checkpointing=False).run(executor=executor)
    assert len(ran(folder)) == 6
    assert not (tmp_path / "runs").exists()


def item(i: Any, folder: str) -> Any:
    note(folder, i)
    if i == "bad" and not is_allowed(folder):
        raise ValueError(i)
    return {"item": i}


def test_finished_items_of_a_mapped_step_are_taken_over(tmp_path, folder, executor):
    def run(items: list[Any]) -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        return pipeline.map(item, items).add_step(len, inputs=["item"]).run(executor=executor)

    run([1, "bad", 2, 2.0])
    assert ran(folder) == ["1", "2", "2.0", "bad"]
    run([7, 1, "bad", 2])
    assert ran(folder) == ["7", "bad"]
    allow(folder)
    result = run([2.0, 2, "bad", 1, 7])
    assert (ran(folder), result["len"]) == (["bad"], 5)
    assert list(result["item"]) == [{"item": each} for each in (2.0, 2, "bad", 1, 7)]
    assert result.resumed == "4 finished items taken over"


def test_of_equal_items_each_counts_once(tmp_path, folder, executor):
    def run(items: list[Any]) -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        return pipeline.map(item, items).run(executor=executor)

    run(["a", "a", "bad"])
    assert ran(folder) == ["a", "a", "bad"]
    run(["a", "a", "a", "bad"])
    assert ran(folder) == ["a", "bad"]


def test_equal_steps_are_two_steps(tmp_path, folder, executor):
    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(item, "one", {"i": 1}).add_step(item, "other", {"i": "bad"}, after=["one"])
        return pipeline.add_step(item, "third", {"i": 1}, after=["other"]).run(executor=executor)

    run()
    allow(folder)
    assert (ran(folder), states(run()), ran(folder)) == (["1", "bad"], ["cached", "success", "success"], ["1", "bad"])


def test_a_mapped_step_over_what_another_produced(tmp_path, folder, executor):
    def numbers(folder: str) -> list[Any]:
        note(folder, "numbers")
        return [1, 2, "bad", [4]]

    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(numbers).map(item, over="numbers").map(len, over="item", name="sizes")
        return pipeline.add_step(sum, inputs=["sizes"]).run(executor=executor)

    run()
    assert ran(folder) == ["1", "2", "[4]", "bad", "numbers"]
    allow(folder)
    result = run()
    assert (ran(folder), result["sum"]) == (["bad"], 4)
    assert [str(each.state) for each in result.step_results["sizes"].items] == ["cached", "cached", "success", "cached"]


def test_several_outputs_large_values_and_what_is_no_value(tmp_path, folder, executor):
    def parts(folder: str) -> Any:
        note(folder, "parts")
        return {"a": np.arange(50_000), "b": None}

    def use(a: Any, b: Any, folder: str) -> Any:
        note(folder, "use")
        return float(a.sum()), b

    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(parts, outputs=["a", "b"]).add_step(use)
        return pipeline.add_step(item, params={"i": "bad"}, after=["use"]).run(executor=executor)

    first = run()
    assert [path.stat().st_size > 65536 for path in tmp_path.glob("*/objects/*/*")] == [True]
    allow(folder)
    second = run()
    assert (states(second), ran(folder)) == (["cached", "cached", "success"], ["bad", "bad", "parts", "use"])
    assert second["use"] == first["use"] == (1249975000.0, None)
    assert list(second["parts"]) == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"] or not list(tmp_path.glob("*/objects"))


def test_skipped_steps_stay_skipped(tmp_path, folder, executor):
    def asked(folder: str) -> bool:
        note(folder, "asked")
        return False

    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(item, "never", {"i": 1}, condition=asked).add_step(len, "behind", inputs=["never"])
        return (
            pipeline.add_step(item, params={"i": "bad"}, after=["behind"], run_if="any")
            .add_step(item, "last", {"i": "bad"})
            .run(executor=executor)
        )

    first = run()
    assert states(first)[:2] == ["skipped", "skipped"]
    ran(folder)
    allow(folder)
    assert states(run())[:2] == ["skipped", "skipped"]
    assert "asked" not in ran(folder)


def test_a_decision_that_waits_for_nothing_is_journaled(tmp_path, folder, executor):
    def run() -> Any:
        pipeline = Pipeline("p", {"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs")
        branch = step(lambda folder: note(folder, "branch"), name="branch")
        pipeline.add_control_flow(If(lambda ctx: ctx["folder"], name="any").then(branch))
        return pipeline.add_step(item, params={"i": "bad"}, after=["branch"]).run(executor=executor)

    assert states(run()) == ["success", "success", "failed"]
    assert states(run())[:2] == ["cached", "cached"]


def test_decisions_and_branches_are_taken_over(tmp_path, folder, executor):
    def run() -> Any:
        def yes(folder: str) -> str:
            note(folder, "yes")
            return "yes"

        def no(folder: str) -> str:
            note(folder, "no")
            return "no"

        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(item, "score", {"i": 1})
        pipeline.add_control_flow(If(lambda ctx: ctx["score"]["item"] > 0, name="good").then(step(yes)).else_(step(no)))
        pipeline.add_step(lambda yes=None, no=None: yes or no, name="joined", run_if="any")
        return pipeline.add_step(item, "last", {"i": "bad"}, after=["joined"]).run(executor=executor)

    run()
    assert ran(folder) == ["1", "bad", "yes"]
    allow(folder)
    result = run()
    assert (ran(folder), result["joined"]) == (["bad"], "yes")
    assert states(result) == ["cached", "cached", "cached", "skipped", "cached", "success"]


def test_a_join_runs_again_when_what_was_missing_is_there(tmp_path, folder, executor):
    def join(a: Any = None, b: Any = None, folder: str = "") -> Any:
        note(folder, "join")
        return a, b

    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(item, "a", {"i": 1}).add_step(item, "b", {"i": "bad"})
        return pipeline.add_step(join, run_if="any").run(executor=executor)

    assert run()["join"] == ({"item": 1}, None)
    allow(folder)
    assert run()["join"] == ({"item": 1}, {"item": "bad"})
    assert ran(folder) == ["1", "bad", "bad", "join", "join"]


def test_the_steps_of_a_dynamic_step_are_taken_over(tmp_path, folder, executor):
    def build(folder: str) -> Pipeline:
        note(folder, "build")
        inner = Pipeline("inner").add_step(item, "one", {"i": 1}).add_step(item, "two", {"i": "bad"}, after=["one"])
        return inner.add_step(lambda one, two: [one, two], name="both")

    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(item, "zero", {"i": 0}).add_step(dynamic(build), after=["zero"])
        return pipeline.add_step(len, inputs=["build"]).run(executor=executor)

    run()
    assert ran(folder) == ["0", "1", "bad", "build"]
    allow(folder)
    result = run()
    assert (ran(folder), result["len"]) == (["bad", "build"], 2)
    assert result.step_results["build.one"].cached


def test_attempts_that_were_spent_stay_spent(tmp_path, folder):
    """A run that is cut off after two of three attempts has one left."""

    def shaky(folder: str) -> None:
        note(folder, "shaky")
        raise OSError("no")

    def stops(folder: str) -> None:
        if not is_allowed(folder):
            raise KeyboardInterrupt

    def pipeline() -> Pipeline:
        made = Pipeline(
            "p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs"
        )
        made.add_step(shaky, retry=retry(max_attempts=3, backoff=0.2)).add_step(stopped, "stops")
        return made

    def stopped(folder: str) -> None:
        import os
        import signal
        import time

        deadline, log, sent = time.monotonic() + 20, Path(folder) / LOG, False
        while not is_allowed(folder) and time.monotonic() < deadline:
            if not sent and log.exists() and log.read_text().count("shaky") == 2:
                sent = True  # one more would hit the test itself
                time.sleep(0.05)  # the attempt has begun, and is to be counted as failed
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with ParallelExecutor(2, backend="thread") as executor, pytest.raises(RunInterrupted):
        pipeline().run(executor=executor)
    assert ran(folder) == ["shaky"] * 2
    allow(folder)
    result = pipeline().run()
    assert (ran(folder), states(result)) == (["shaky"], ["failed", "success"])
    assert states(pipeline().run()) == ["failed", "cached"]
    assert ran(folder) == ["shaky"] * 3  # it failed for good, so it begins anew


def test_values_of_other_executors_are_taken_over(tmp_path, folder):
    made = [LocalExecutor(), *(ParallelExecutor(2, backend) for backend in ("process", "thread", "async"))]
    for executor in made:
        with executor:
            chain(tmp_path, folder).run(executor=executor)
    allow(folder)
    assert states(chain(tmp_path, folder).run()) == ["cached", "cached", "success", "success"]
    assert ran(folder) == ["fragile"] * 5 + ["load 4", "total"]


def test_what_the_cache_gave_is_taken_over_though_the_cache_is_gone(tmp_path, folder, executor):
    def pipeline() -> Pipeline:
        made = Pipeline(
            "p",
            context={"folder": str(folder)},
            enable_checkpointing=True,
            checkpoint_dir=tmp_path / "runs",
            cache_dir=tmp_path / "cache",
        )
        return made.add_step(load, params={"n": 2}, cache=True).add_step(total).add_step(fragile, after=["total"])

    allow(folder)
    pipeline().run(executor=executor)
    (folder / "allowed").unlink()
    assert states(pipeline().run(executor=executor)) == ["cached", "success", "failed"]
    pipeline().invalidate_cache()
    ran(folder)
    allow(folder)
    assert states(pipeline().run(executor=executor)) == ["cached", "cached", "success"]
    assert ran(folder) == ["fragile"]


def test_a_seeded_run_is_continued_with_its_seed(tmp_path, folder, executor):
    def drawn(folder: str) -> float:
        import random

        note(folder, "drawn")
        return random.random()

    def run(seed: int) -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        return (
            pipeline.add_step(drawn)
            .add_step(item, params={"i": "bad"}, after=["drawn"])
            .run(executor=executor, seed=seed)
        )

    first = run(1)["drawn"]
    assert run(2)["drawn"] != first
    allow(folder)
    assert (run(1)["drawn"], ran(folder).count("drawn")) == (first, 2)


def seeded(tmp_path: Path, folder: Path) -> Pipeline:
    """One step, a map and what fails behind both of them."""
    pipeline = Pipeline(
        "p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs"
    )
    return (
        pipeline.add_step(load, params={"n": 4}).map(kept, [1, 2]).add_step(item, params={"i": "bad"}, after=["kept"])
    )


def test_rerun_goes_on_with_the_seed_of_the_run(tmp_path, folder, executor):
    first = seeded(tmp_path, folder).run(executor=executor, seed=42)
    ran(folder)
    allow(folder)
    result = seeded(tmp_path, folder).rerun(first.run_id, executor=executor)
    assert (result.success, ran(folder), result.run_id) == (True, ["bad"], first.run_id)


def test_rerun_goes_on_with_the_seed_that_the_run_had_last(tmp_path, folder, executor):
    first = seeded(tmp_path, folder).run(executor=executor)
    seeded(tmp_path, folder).run(executor=executor, seed=7, resume=first.run_id)
    ran(folder)
    seeded(tmp_path, folder).rerun("last", executor=executor)
    assert ran(folder) == ["bad"]


@pytest.mark.parametrize(("before", "now"), [(42, None), (None, 42), (42, 43)])
def test_another_seed_is_the_reason_why_steps_run_again(tmp_path, folder, executor, before, now):
    first = seeded(tmp_path, folder).run(executor=executor, seed=before)
    result = seeded(tmp_path, folder).run(executor=executor, seed=now, resume=first.run_id)
    again = "'load' (its seed has changed), 'kept' (its seed has changed)"
    assert sorted(result.resumed.split("run again: ")[1].split(", ")) == sorted(again.split(", "))


def test_an_argument_that_is_gone_is_the_reason_why_a_step_runs_again(tmp_path, folder, executor):
    def run(**options: Any) -> Any:
        pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(lambda n=2: n, name="n", params=options.pop("params", None))
        pipeline.add_step(item, params={"i": "bad", "folder": str(folder)}, after=["n"])
        return pipeline.run(executor=executor, **options)

    run(params={"n": 3})
    assert run(resume="last").resumed == "0 finished steps taken over; runs again: 'n' (argument 'n' is gone)"


def test_keep_leaves(tmp_path, folder, executor):
    chain(tmp_path, folder).run(executor=executor, keep="leaves")
    allow(folder)
    result = chain(tmp_path, folder).run(executor=executor, keep="leaves")
    assert (result["shown"], states(result)) == ("-18.0", ["cached", "cached", "success", "success"])


# -- what has changed


def test_what_has_changed_runs_again_with_what_depends_on_it(tmp_path, folder, executor, caplog):
    chain(tmp_path, folder).run(executor=executor)
    caplog.clear()
    ran(folder)
    allow(folder)
    result = chain(tmp_path, folder, n=5).run(executor=executor, resume="last")
    assert ran(folder) == ["fragile", "load 5", "total"]
    assert result.resumed == (
        "0 finished steps taken over; run again: 'load' (argument 'n' has changed) "
        "and 1 step that depends on what runs again"
    )
    assert told(caplog) == [f"pipeline 'p' continues run {result.run_id}: {result.resumed}"]


def test_changed_code_is_told(tmp_path, folder, caplog):
    def run(source: str) -> Any:
        names: dict[str, Any] = {"__name__": "__main__", "note": note}
        exec(source, names)
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(item, "first", {"i": 1}).add_step(names["f"], inputs=["first"])
        return pipeline.add_step(item, params={"i": "bad"}, after=["f"]).run()

    source = "def helper():\n    return 1\ndef f(first, folder):\n    note(folder, 'f')\n    return helper()\n"
    run(source)
    assert ran(folder) == ["1", "bad", "f"]
    run(f"# a comment\n{source}")
    assert ran(folder) == ["bad"]
    allow(folder)
    result = run(source.replace("return 1", "return 2"))
    assert (ran(folder), result["f"]) == (["bad", "f"], 2)
    assert result.resumed == "1 finished step taken over; runs again: 'f' (helper() has changed)"


def test_a_changed_context_value_runs_again_what_takes_it(tmp_path, folder):
    def scaled(x: int, rate: int, folder: str) -> int:
        note(folder, f"scaled {rate}")
        return x * rate

    def run(rate: int) -> Any:
        pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(item, "first", {"i": 1}).add_step(scaled, params={"x": 2})
        pipeline.add_step(item, params={"i": "bad"}, after=["scaled", "first"])
        return pipeline.run(context={"folder": str(folder), "rate": rate})

    run(1)
    assert run(3).resumed == "1 finished step taken over; runs again: 'scaled' (argument 'rate' has changed)"
    assert ran(folder) == ["1", "bad", "bad", "scaled 1", "scaled 3"]


def test_a_run_with_nothing_in_common_begins_anew_and_leaves_the_other_alone(tmp_path, folder, caplog):
    first = chain(tmp_path, folder).run()
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="flowyml"):
        second = chain(tmp_path, folder, n=7).run()
    assert second.run_id != first.run_id
    assert journals(tmp_path) == sorted([first.run_id, second.run_id])
    reason = "none of 2 finished steps taken over; run again: 'load' (argument 'n' has changed) and 1 step that "
    reason += "depends on what runs again"
    assert second.resumed == f"nothing from run {first.run_id}, which is kept: {reason}"
    new = f"pipeline 'p' starts a new run: nothing that run {first.run_id} finished is part of it ({reason})"
    assert told(caplog, logging.WARNING) == [f"{new}; that is kept in {tmp_path / 'runs' / first.run_id}"]
    allow(folder)
    assert chain(tmp_path, folder).run(resume=first.run_id).resumed == "2 finished steps taken over"


def test_finished_items_that_all_run_again_after_a_fix_are_counted_in_one_warning(tmp_path, caplog):
    def run(factor: int) -> Any:
        def work(i: int) -> int:
            if i == 4 and factor == 1:
                raise ValueError(i)
            return i * factor

        pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path / "runs")
        return pipeline.map(work, range(10)).run()

    first = run(1)
    caplog.clear()
    result = run(2)
    assert (result.success, first.resumed) == (True, None)
    reason = "none of 9 finished items taken over; runs again: 'work' (closure value 'factor' has changed)"
    assert [reason in each for each in told(caplog, logging.WARNING)] == [True]
    assert result.resumed is not None
    assert result.resumed.endswith(reason)


def test_a_step_that_is_taken_over_once_what_it_reads_has_run_is_not_announced_as_running_again(
    tmp_path, folder, caplog
):
    def merge(lock: Any, folder: str) -> int:
        note(folder, "merge")
        return 1

    def run() -> Any:
        pipeline = Pipeline("p", {"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs")
        pipeline.add_step(lambda: 1, name="first")
        pipeline.add_step(lambda: threading.Lock(), name="lock", after=["first"]).add_step(merge)  # noqa: PLW0108
        return pipeline.add_step(item, params={"i": "bad"}, after=["merge"]).run()

    run()
    caplog.clear()
    result = run()
    assert states(result)[:3] == ["cached", "success", "cached"]
    announced = told(caplog, logging.WARNING)[0]
    assert "runs again: 'lock' (its value could not be stored)" in announced
    assert "1 finished step is taken over later, after the steps that it reads have run" in announced
    assert result.resumed == "2 finished steps taken over; runs again: 'lock' (its value could not be stored)"


def grown(tmp_path: Path, folder: Path, n: int = 1) -> Pipeline:
    """Return a pipeline of a dynamic step alone, whose last step fails."""

    def build(folder: str) -> Pipeline:
        note(folder, f"build {n}")
        inner = Pipeline("inner").add_step(item, "one", {"i": n})
        return inner.add_step(item, "two", {"i": "bad"}, after=["one"])

    pipeline = Pipeline(
        "p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs"
    )
    return pipeline.add_step(dynamic(build))


def test_a_run_whose_finished_steps_all_came_from_a_dynamic_step_is_continued(tmp_path, folder, executor):
    first = grown(tmp_path, folder).run(executor=executor)
    said = grown(tmp_path, folder).explain("build").resume
    assert said == f"runs: a dynamic step is called again in each run, from run {first.run_id}"
    second = grown(tmp_path, folder).run(executor=executor)
    allow(folder)
    third = grown(tmp_path, folder).run(executor=executor)
    assert [second.run_id, third.run_id, third.success] == [first.run_id, first.run_id, True]
    assert (ran(folder), journals(tmp_path)) == (["1", *["bad"] * 3, *["build 1"] * 3], [])


def test_what_comes_from_a_dynamic_step_is_not_named_alone(tmp_path, folder):
    first = grown(tmp_path, folder).run()
    instead = "'build.one'; what comes from dynamic step 'build' runs again only with all of it: from_step='build'"
    with pytest.raises(ValueError, match=instead):
        grown(tmp_path, folder).rerun(first.run_id, from_step="build.one")
    grown(tmp_path, folder).rerun(first.run_id, from_step="build")
    assert ran(folder).count("1") == 2


def test_a_dynamic_step_with_other_arguments_has_nothing_in_common_with_what_it_began(tmp_path, folder):
    first = grown(tmp_path, folder).run()
    assert grown(tmp_path, folder, n=2).explain("build").resume is None
    second = grown(tmp_path, folder, n=2).run()
    assert journals(tmp_path) == sorted([first.run_id, second.run_id])


def test_a_dynamic_step_of_which_nothing_has_ended_is_nothing_in_common(tmp_path, folder):
    def run(n: int) -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        build = dynamic(lambda: Pipeline("inner").add_step(item, "one", {"i": "bad"}))
        return pipeline.add_step(build, "build").add_step(item, "beside", {"i": n}).run()

    assert run(1).run_id != run(2).run_id


def test_a_run_after_a_dynamic_step_that_has_ended_is_continued(tmp_path, folder, executor):
    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        build = dynamic(lambda: Pipeline("inner").add_step(item, "one", {"i": 1}))
        return (
            pipeline.add_step(build, "build")
            .add_step(item, "last", {"i": "bad"}, after=["build"])
            .run(executor=executor)
        )

    assert run().run_id == run().run_id
    assert ran(folder) == ["1", "bad", "bad"]


def survived(tmp_path: Path, folder: Path, beside: int = 1, reads: Any = ("probe",)) -> Pipeline:
    """Return a pipeline whose first items all fail, with a step behind them that does not."""

    def probe(x: int, folder: str) -> int:
        note(folder, f"probe {x}")
        raise OSError("down")

    def hours(probe: Any, other: Any = None, folder: str = "") -> int:
        note(folder, "hours")
        return len(probe)

    options = {"enable_checkpointing": True, "checkpoint_dir": tmp_path / "runs"}
    pipeline = Pipeline("p", context={"folder": str(folder)}, **options)
    pipeline.map(map_task(min_success_ratio=0)(probe), [1, 2], name="probe").add_step(item, "beside", {"i": beside})
    return pipeline.add_step(hours, inputs=list(reads)).add_step(item, "save", {"i": "bad"}, after=["hours"])


def test_a_run_whose_first_items_have_all_failed_is_continued_for_what_came_after_them(tmp_path, folder, executor):
    first = survived(tmp_path, folder).run(executor=executor)
    second = survived(tmp_path, folder, beside=2).run(executor=executor)
    assert (second.run_id, ran(folder).count("hours")) == (first.run_id, 1)


def test_first_items_that_have_failed_are_nothing_in_common_where_what_came_after_them_has_changed(tmp_path, folder):
    first = survived(tmp_path, folder, reads=["probe", "beside"]).run()
    second = survived(tmp_path, folder, beside=2, reads=["probe", "beside"]).run()
    assert journals(tmp_path) == sorted([first.run_id, second.run_id])


def test_first_items_that_have_failed_are_nothing_in_common_where_nothing_came_after_them(tmp_path, folder):
    def run(beside: int) -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        return pipeline.add_step(item, "first", {"i": "bad"}).add_step(item, "beside", {"i": beside}).run()

    assert run(1).run_id != run(2).run_id


def test_steps_of_another_pipeline_are_not_its(tmp_path, folder):
    chain(tmp_path, folder).run()
    other = Pipeline("q", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs")
    assert states(other.add_step(load, params={"n": 4}).run()) == ["success"]
    assert ran(folder).count("load 4") == 2
    assert len(journals(tmp_path)) == 1


def test_a_step_with_an_argument_that_cannot_be_hashed_runs_again_with_what_depends_on_it(tmp_path, folder, caplog):
    def guarded(lock: Any, folder: str) -> int:
        note(folder, "guarded")
        return 1

    def run(lock: Any) -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(item, "other", params={"i": 1}).add_step(guarded, params={"lock": lock})
        pipeline.add_step(lambda guarded: 2, "behind")
        return pipeline.add_step(item, params={"i": "bad"}, after=["behind"]).run()

    lock = threading.Lock()
    run(lock)
    reason = "an argument of step 'guarded' cannot be hashed, it runs again on resume: TypeError: cannot pickle"
    assert [reason in each for each in told(caplog, logging.WARNING)] == [True]
    assert states(run(lock))[:3] == ["cached", "success", "success"]


def test_a_value_that_cannot_be_stored_is_made_again(tmp_path, folder, caplog):
    def lock(folder: str) -> Any:
        note(folder, "lock")
        return threading.Lock()

    def use(lock: Any, folder: str) -> int:
        note(folder, "use")
        return 1

    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        return pipeline.add_step(lock).add_step(use).add_step(item, params={"i": "bad"}, after=["use"]).run()

    run()
    assert "the value of step 'lock' cannot be stored, it runs again on resume" in told(caplog, logging.WARNING)[0]
    assert states(run())[:2] == ["success", "cached"]
    assert ran(folder) == ["bad", "bad", "lock", "lock", "use"]


# -- which run


def test_resume_false_begins_anew(tmp_path, folder):
    first = chain(tmp_path, folder).run()
    second = chain(tmp_path, folder).run(resume=False)
    assert second.run_id != first.run_id
    assert ran(folder) == sorted(["fragile", "load 4", "total"] * 2)
    allow(folder)
    assert chain(tmp_path, folder).run().run_id == second.run_id
    assert chain(tmp_path, folder).run(resume="last").run_id == first.run_id
    assert chain(tmp_path, folder).run(resume=True).resumed is None


def test_resume_by_id(tmp_path, folder):
    first = chain(tmp_path, folder).run(run_id="first/run")
    chain(tmp_path, folder).run(resume=False)
    allow(folder)
    result = chain(tmp_path, folder).run(resume="first/run")
    assert (result.run_id, result.resumed) == (first.run_id, "2 finished steps taken over")
    with pytest.raises(ValueError, match="there is no unfinished run 'first/run' in"):
        chain(tmp_path, folder).run(resume="first/run")


def test_a_name_that_is_given_again_continues_that_run(tmp_path, folder):
    chain(tmp_path, folder).run(run_id="nightly")
    other = chain(tmp_path, folder).run(run_id="other")
    assert (other.resumed, journals(tmp_path)) == (None, ["nightly", "other"])
    assert chain(tmp_path, folder).run(run_id="nightly").resumed == "2 finished steps taken over"
    assert chain(tmp_path, folder).run(run_id="nightly", resume=False).resumed is None
    assert ran(folder) == sorted(["fragile"] * 4 + ["load 4", "total"] * 3)


def test_a_near_match_is_told(tmp_path, folder):
    chain(tmp_path, folder).run(run_id="nightly")
    with pytest.raises(ValueError, match=r"no unfinished run 'nigthly'.*did you mean 'nightly'"):
        chain(tmp_path, folder).run(resume="nigthly")
    with pytest.raises(ValueError, match="'nightly' is one of pipeline 'p', not of 'q'"):
        Pipeline("q", enable_checkpointing=True, checkpoint_dir=tmp_path / "runs").add_step(dict).run(resume="nightly")


def test_nothing_to_resume_is_no_error(tmp_path, folder, caplog):
    allow(folder)
    with caplog.at_level(logging.INFO, logger="flowyml"):
        assert chain(tmp_path, folder).run(resume="last").success
    assert told(caplog) == ["pipeline 'p' has no unfinished run to resume: a new run begins"]


def test_a_run_that_is_going_on_is_not_resumed(tmp_path, folder):
    inside, go_on = threading.Event(), threading.Event()

    def waits(folder: str) -> int:
        if not inside.is_set():  # the first run
            inside.set()
            go_on.wait(20)
        return 1

    def pipeline() -> Pipeline:
        made = Pipeline(
            "p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path / "runs"
        )
        return made.add_step(load, params={"n": 1}).add_step(waits, after=["load"]).add_step(item, params={"i": "bad"})

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(pipeline().run(run_id="one")))
    thread.start()
    assert inside.wait(20)
    with pytest.raises(StoreError, match="is in use: run 'one' is executing now"):
        pipeline().run(resume="one")
    with pytest.raises(StoreError, match="is in use"):
        pipeline().run(run_id="one")
    second = pipeline().run()
    go_on.set()
    thread.join()
    assert second.run_id != "one"
    assert second.resumed is None
    assert results[0].run_id == "one"


BEGINS = """
import pathlib, sys
from flowyml.caching.resumable_runs import ResumableRuns
attempt = ResumableRuns(pathlib.Path(sys.argv[1]), "p", always=False).open("blank", resume=None)
if sys.argv[2] == "told":
    attempt.begin(None)
print("held", flush=True)
sys.stdin.read(1)
"""


@contextlib.contextmanager
def begun_elsewhere(tmp_path: Path, told: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process begin a run; it is killed in the end, before a step has ended."""
    command = [sys.executable, "-c", BEGINS, str(tmp_path / "runs"), told]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("resume", [None, "last", False])
@pytest.mark.parametrize("told", ["told", "not told"])
def test_a_run_that_was_killed_before_anything_had_ended_leaves_nothing(tmp_path, folder, told, resume):
    """Its journal says which run it is, or not even that: the next run removes it, unless it is going on."""
    allow(folder)
    with begun_elsewhere(tmp_path, told):
        assert chain(tmp_path, folder).run(resume=resume).success
        assert journals(tmp_path) == ["blank"]
    result = chain(tmp_path, folder).run(resume=resume)
    assert (result.success, result.resumed) == (True, None)
    assert journals(tmp_path) == (["blank"] if (told, resume) == ("told", False) else [])


@pytest.mark.parametrize("resume", [None, "last"])
def test_the_run_before_one_that_had_finished_nothing_is_continued(tmp_path, folder, resume):
    first = chain(tmp_path, folder).run(run_id="one")
    assert not first.success
    with begun_elsewhere(tmp_path, "told"):
        pass
    allow(folder)
    assert chain(tmp_path, folder).run(resume=resume).run_id == "one"
    assert journals(tmp_path) == []


def test_dry_run_leaves_the_journal_alone(tmp_path, folder, capsys):
    chain(tmp_path, folder).run()
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    chain(tmp_path, folder).run(dry_run=True)
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before


def test_an_invalid_pipeline_leaves_no_journal(tmp_path):
    pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path / "runs").add_step(load)
    with pytest.raises(ValueError, match="Missing required parameters"):
        pipeline.run()
    assert not (tmp_path / "runs").exists()


def test_a_function_that_does_not_pickle_leaves_no_journal(tmp_path):
    lock = threading.Lock()
    pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path / "runs").add_step(
        lambda: lock, name="f"
    )
    with ParallelExecutor(1) as executor, pytest.raises(Exception, match="cannot be pickled"):
        pipeline.run(executor=executor)
    assert journals(tmp_path) == []


def test_the_default_folder(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True).map(item, [1, "bad"]).run(run_id="r")
    run = tmp_path / ".flowyml" / "checkpoints" / "r"
    assert sorted(path.name for path in run.iterdir()) == [".gitignore", "journal", "lock"]
    assert run.stat().st_mode & 0o777 == 0o700


def test_always_durable(tmp_path, folder, executor):
    chain(tmp_path, folder, durability="always").run(executor=executor)
    allow(folder)
    result = chain(tmp_path, folder, durability="always").run(executor=executor)
    assert states(result) == ["cached", "cached", "success", "success"]


def test_keys_of_items_that_end_in_another_order_are_their_own(tmp_path):
    """Steps that read them are taken over, whatever the order in which several workers have ended them."""
    from flowyml.caching.journal_keys import JournalKeys
    from flowyml.runtime.run import Run

    pipeline = Pipeline("p").map(abs, range(4), name="abs")
    plan = planned(pipeline)
    keys, mixed = (JournalKeys(Run(plan), lambda *_: None) for _ in range(2))
    mixed.of([0, 2, 1, 3])
    assert [mixed.key(item) for item in range(4)] == keys.of([0, 1, 2, 3])


@pytest.mark.parametrize("sharing", [LocalExecutor, lambda: ParallelExecutor(2, "thread")])
def test_what_a_step_returned_is_written_before_another_changes_it(tmp_path, folder, sharing):
    """Numbers may wait to be written with others; a list may not, since the steps behind it share it."""

    def number() -> int:
        return 1

    def rows(number: int) -> list[int]:
        return [number]

    def spoil(rows: list[int]) -> int:
        rows.append(2)
        return len(rows)

    def fragile(spoil: int, rows: list[int], folder: str) -> list[int]:
        if not is_allowed(folder):
            raise ValueError(spoil)
        return rows

    def pipeline() -> Pipeline:
        made = Pipeline("p", context={"folder": str(folder)}, enable_checkpointing=True, checkpoint_dir=tmp_path)
        return made.add_step(number).add_step(rows).add_step(spoil).add_step(fragile)

    with sharing() as executor:
        assert not pipeline().run(executor=executor).success
        allow(folder)
        assert pipeline().run(executor=executor)["fragile"] == [1]
