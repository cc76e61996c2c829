"""Options, conditions, control flow, hooks and results, as type checkers see them; see authoring.py."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, assert_type

from flowyml import (
    CircuitBreaker,
    Context,
    ExponentialBackoff,
    If,
    LocalExecutor,
    MapTask,
    ParallelExecutor,
    Pipeline,
    PipelineResult,
    PipelineValidationError,
    RetryConfig,
    RunInterrupted,
    Step,
    StepError,
    StepResult,
    Switch,
    context,
    get_context,
    hooks,
    map_task,
    on_failure,
    retry,
    step,
    unless,
    when,
)


@step(outputs=["rows", "labels"], retry=2, timeout=1.5, tags={"team": "ml"})
def load(path: str, limit: int = 10) -> tuple[list[int], list[str]]:
    """Return rows and labels."""
    return [limit], [path]


@step(retry=retry(max_attempts=3, backoff=ExponentialBackoff(initial=0.1), on=[ConnectionError]))
async def fetch(url: str) -> bytes:
    """Return a page."""
    return url.encode()


def is_positive(score: float) -> bool:
    """Tell whether a score is one."""
    return score > 0


def is_large(score: float) -> bool:
    """Tell whether a score is too good."""
    return score > 1


@step(circuit_breaker=CircuitBreaker(failure_threshold=2), fallback=lambda: 0.0, timeout=dt.timedelta(seconds=1))
@when(is_positive)
@unless(is_large)
def ship(score: float) -> float:
    """Return the score."""
    return score


def check_options_keep_the_signature() -> None:
    """A decorator with options leaves parameters, defaults and result as they are."""
    assert_type(load("a"), tuple[list[int], list[str]])
    assert_type(load(path="a", limit=3), tuple[list[int], list[str]])
    assert_type(ship(0.5), float)
    load(limit=3)  # type: ignore[call-arg]
    load("a", 3, 4)  # type: ignore[call-arg]
    load(3)  # type: ignore[arg-type]


async def check_coroutines() -> None:
    """A coroutine function stays one where it is called; a pipeline can be awaited."""
    assert_type(await fetch("a"), bytes)
    assert_type(await Pipeline("p").run_async(), PipelineResult)


def check_wrong_options() -> None:
    """Options of a wrong kind are found."""
    step(retry="twice")  # type: ignore[call-overload]
    step(run_if="some")  # type: ignore[call-overload]
    step(nmae="x")  # type: ignore[call-overload]
    Pipeline("p").add_step(load, timeout="1")  # type: ignore[arg-type]
    Pipeline("p").add_step(3)  # type: ignore[arg-type]
    ParallelExecutor(backend="fork")  # type: ignore[arg-type]


def check_attributes_of_steps() -> None:
    """What a step was told can be read."""
    assert_type(load.name, str)
    assert_type(load.outputs, tuple[str, ...])
    assert_type(load.retry, RetryConfig | None)
    assert_type(load.timeout, float | None)
    assert_type(load.tags, dict[str, Any])
    assert_type(load.source_code, str)
    again: Step[[str, int], tuple[list[int], list[str]]] = Step(load.func)
    wrong: Step[[int], tuple[list[int], list[str]]] = Step(load.func)  # type: ignore[arg-type]


def check_contexts() -> None:
    """A context is a mapping, inside a step there is one of another kind."""
    given = context(rate=0.1).inherit(epochs=3)
    assert_type(given, Context)
    as_mapping: Mapping[str, Any] = given
    assert_type(list(given), list[str])
    assert_type(get_context().attempt, int)
    assert_type(get_context().step_name, str)
    assert_type(get_context().params["a"], Any)


def check_control_flow() -> None:
    """Decisions are added as steps are."""
    pipeline = Pipeline("p").add_control_flow(If(lambda ctx: ctx["a"] > 1).then(load).else_(ship))
    pipeline.add_control_flow(Switch(lambda ctx: ctx["a"]).case("x", load).default(ship))
    assert_type(pipeline, Pipeline)
    If(lambda ctx: ctx.stps["a"], load)  # type: ignore[attr-defined]
    If(lambda ctx: bool(ctx.steps["a"].outputs["b"]) and "limit" in ctx.params, load)
    told = on_failure("log", recipients=["#alerts"])
    result: StepResult = pipeline.run().step_results["a"]
    told(ValueError(), result)
    told(ValueError(), "a")  # type: ignore[arg-type]


def check_running() -> None:
    """Executors are context managers; a run takes values by name."""
    with ParallelExecutor(max_workers=2, backend="thread") as executor, LocalExecutor() as local:
        assert_type(executor, ParallelExecutor)
        assert_type(local, LocalExecutor)
        result = Pipeline("p", context={"a": 1}, executor=local).run({"b": 2}, executor=executor, seed=3)
    assert_type(result.success, bool)
    assert_type(result.duration_seconds, float)
    assert_type(result.start_time, dt.datetime)
    assert_type(result.summary(), str)
    assert_type(result.timeline()[0].end, float)
    assert_type(result.timeline().states, bytes)
    assert_type(Pipeline("p").run(progress=print), PipelineResult)
    assert_type(Pipeline("p").run(progress=True), PipelineResult)
    assert_type(result.outputs, Mapping[str, Any])
    assert_type(result.step_results, Mapping[str, StepResult])
    assert_type(result["a"], Any)
    Pipeline("p").run(["b"])  # type: ignore[arg-type]


def check_step_results(one: StepResult) -> None:
    """What came of a step has a type, but for its value."""
    assert_type(one.step_name, str)
    assert_type(one.attempts, int)
    assert_type(one.exception, BaseException | None)
    assert_type(one.error, str | None)
    assert_type(one.output, Any)


def check_errors() -> None:
    """Errors carry their data."""
    try:
        Pipeline("p").build()
    except PipelineValidationError as error:
        assert_type(error.problems, list[str])
    except StepError as error:
        assert_type(error.step_name, str)
    except RunInterrupted as error:
        assert_type(error.result, PipelineResult | None)


@map_task(concurrency=4, retries=1)
def shout(word: str, mark: str = "!") -> str:
    """Return a word, loudly."""
    return word.upper() + mark


def check_map_tasks() -> None:
    """A map task is called with a list and is a step."""
    assert_type(shout, MapTask[str])
    assert_type(list(shout(["a"], mark="?")), list[str])
    assert_type(shout(["a"]).success_ratio, float)
    assert_type(Pipeline("p").add_step(shout, inputs=["words"]), Pipeline)


@hooks.on_step_end
def told(one: Step[..., Any], result: StepResult) -> None:
    """A hook stays the function that it is."""


def check_hooks(one: Step[..., Any], result: StepResult) -> None:
    """A hook can be called as before."""
    told(one, result)
    told(result)  # type: ignore[call-arg, arg-type]
