"""Wrong arguments at the door: each gets the right exception, in words that say what would do, before anything runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import math
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from flowyml import (
    CacheStore,
    CircuitBreaker,
    Context,
    CycleError,
    If,
    LocalExecutor,
    ParallelExecutor,
    Pipeline,
    PipelineValidationError,
    Step,
    dynamic,
    on_failure,
    parallel_map,
    retry,
    step,
    sub_pipeline,
)
from flowyml.messages.frames import is_own

if TYPE_CHECKING:
    from collections.abc import Callable


def load() -> int:
    return 1


def use(data: Any) -> Any:
    return data


def generate() -> Any:
    yield 1


async def generate_soon() -> Any:
    yield 1


class Generates:
    def __call__(self) -> Any:
        yield 1


def pipeline(**keywords: Any) -> Pipeline:
    return Pipeline("p", **keywords)


def ready() -> Pipeline:
    return pipeline().add_step(load)


Wrong = tuple["Callable[[], Any]", type[Exception], str]

EXECUTORS: dict[str, Wrong] = {
    "no workers": (
        lambda: ParallelExecutor(0),
        ValueError,
        r"got 0; max\(1, cpu_count\(\) - 1\) with os.cpu_count\(\)",
    ),
    "negative workers": (lambda: ParallelExecutor(max_workers=-1), ValueError, "at least 1, got -1"),
    "workers as text": (lambda: ParallelExecutor("2"), TypeError, "whole number or None, got str '2'"),
    "workers as truth": (lambda: ParallelExecutor(True), TypeError, "whole number or None, got bool True"),
    "workers as a fraction": (lambda: ParallelExecutor(2.5), TypeError, "whole number or None, got float 2.5"),
    "too many workers": (lambda: ParallelExecutor(100_000), ValueError, "at most 65536, got 100000"),
    "a misspelled backend": (
        lambda: ParallelExecutor(2, backend="proces"),
        ValueError,
        "must be one of 'process', 'thread', 'async', got 'proces'; did you mean 'process'",
    ),
    "no backend": (lambda: ParallelExecutor(2, backend=None), ValueError, "must be one of .* got None"),
    "a backend of another kind": (lambda: ParallelExecutor(2, backend=["thread"]), ValueError, "must be one of"),
    "an unknown keyword of an executor": (
        lambda: ParallelExecutor(max_worker=2),
        TypeError,
        r"ParallelExecutor\(\) got an unknown keyword 'max_worker'; did you mean 'max_workers'",
    ),
    "no time for steps": (lambda: ParallelExecutor(2, timeout=0), ValueError, "timeout must be more than 0 .*got 0;"),
    "resources of a step as a number": (
        lambda: step(resources=2)(use),
        TypeError,
        "resources of step 'use' must be a mapp",
    ),
    "nothing of a resource": (
        lambda: step(resources={"cpu": 0})(use),
        ValueError,
        "step 'use': cpu must be above 0, got 0",
    ),
    "a resource as text": (lambda: Step(use, resources={"cpu": "two"}), TypeError, "cpu must be a number, got 'two'"),
    "a resource with a blank": (
        lambda: Step(use, resources={"a b": 1}),
        TypeError,
        "names without blanks as keys, got 'a b'",
    ),
    "an unknown unit": (
        lambda: Step(use, resources={"memory": "4 gigs"}),
        ValueError,
        'memory must be an amount of memory like "4GiB"',
    ),
    "memory as truth": (
        lambda: Step(use, resources={"memory": True}),
        TypeError,
        "memory must be a number of bytes or a text",
    ),
    "totals below nothing": (
        lambda: ParallelExecutor(resources={"api": -1}),
        ValueError,
        "resources: api must be from 0",
    ),
    "limits of tags as a list": (
        lambda: ParallelExecutor(tag_limits=["db"]),
        TypeError,
        "tag_limits must be a mapping",
    ),
    "no step with a tag": (
        lambda: ParallelExecutor(tag_limits={"db": 0}),
        ValueError,
        "'db' must be at least 1, got 0",
    ),
    "half a step with a tag": (lambda: ParallelExecutor(tag_limits={"db": 0.5}), TypeError, "tags to whole numbers"),
    "time for steps as text": (lambda: ParallelExecutor(timeout="5"), TypeError, "seconds or a timedelta, got str '5'"),
    "a memory limit of nothing": (lambda: ParallelExecutor(memory_limit=0), ValueError, "more than 0 bytes, got 0"),
    "a memory limit in words": (
        lambda: ParallelExecutor(memory_limit="a lot"),
        ValueError,
        'memory_limit must be an amount of memory like "4GiB", "500 MB" or a number of bytes, got \'a lot\'',
    ),
    "a memory limit without a unit": (lambda: ParallelExecutor(memory_limit="500"), ValueError, 'like "4GiB"'),
    "a memory limit as a fraction": (lambda: ParallelExecutor(memory_limit=0.5), TypeError, "bytes .* got float 0.5"),
    "a memory limit of threads": (
        lambda: ParallelExecutor(2, "thread", memory_limit="1GiB"),
        ValueError,
        "memory_limit is about worker processes: backend=\"process\", not 'thread'",
    ),
    "workers that do nothing": (
        lambda: ParallelExecutor(max_tasks_per_worker=0),
        ValueError,
        "max_tasks_per_worker must be at least 1, got 0; None never replaces a worker",
    ),
    "a number of tasks as truth": (
        lambda: ParallelExecutor(max_tasks_per_worker=True),
        TypeError,
        "whole number or None, got bool True",
    ),
    "tasks of coroutines": (
        lambda: ParallelExecutor(2, "async", max_tasks_per_worker=5),
        ValueError,
        "max_tasks_per_worker is about worker processes",
    ),
    "an executor class": (
        lambda: ready().run(executor=ParallelExecutor),
        TypeError,
        r"got the class ParallelExecutor; make one: ParallelExecutor\(\)",
    ),
    "an executor class for a pipeline": (
        lambda: pipeline(executor=LocalExecutor),
        TypeError,
        r"got the class LocalExecutor; make one",
    ),
    "an executor by name": (
        lambda: ready().run(executor="threads"),
        TypeError,
        r"got 'threads'; use ParallelExecutor\(backend=\"thread\"\)$",
    ),
    "an executor by a strange name": (lambda: ready().run(executor="cluster"), TypeError, "got 'cluster'$"),
}

STEPS: dict[str, Wrong] = {
    "a generator function": (lambda: step(generate), TypeError, r"'generate' is a generator function.*list\(\.\.\.\)"),
    "an async generator function": (
        lambda: step(generate_soon),
        TypeError,
        "'generate_soon' is an async generator function",
    ),
    "a generator in a partial": (lambda: Step(functools.partial(generate)), TypeError, "is a generator function"),
    "an object that generates": (lambda: Step(Generates(), name="g"), TypeError, "is a generator function"),
    "a generator added to a pipeline": (lambda: pipeline().add_step(generate), TypeError, "is a generator function"),
    "the result of a function": (
        lambda: pipeline().add_step(load()),
        TypeError,
        "must be callable, got int 1; pass the function, not its result",
    ),
    "no step": (lambda: pipeline().add_step(None), TypeError, "must be callable, got NoneType None"),
    "a class method below the decorator": (
        lambda: step(classmethod(load)),
        TypeError,
        "got classmethod .*put @classmethod above @step",
    ),
    "a step of a step": (lambda: step(step(load)), TypeError, "<Step 'load' of load> is a step already"),
    "a name in the place of a function": (lambda: step("name"), TypeError, r"use @step\(name='name'\)"),
    "an unknown keyword of step": (
        lambda: step(nmae="x"),
        TypeError,
        r"step\(\) got an unknown keyword 'nmae'; did you mean 'name'",
    ),
    "a keyword of step that is unlike all": (
        lambda: step(zzz=1),
        TypeError,
        "unknown keyword 'zzz'; known are name, inputs, outputs",
    ),
    "a name that is no string": (lambda: step(name=3)(load), TypeError, "name of a step must be a string, got int 3"),
    "an empty name of a step": (lambda: Step(load, name=""), ValueError, "name of a step must not be empty"),
    "an unknown word for a cache": (
        lambda: step(cache="code_hsh")(use),
        ValueError,
        "cache of step 'use' must be True, False, 'code_hash', 'input_hash' or a function, got 'code_hsh'; did you",
    ),
    "a cache of another kind": (
        lambda: pipeline().add_step(use, cache=60),
        TypeError,
        r"'input_hash' or a function \(step, inputs, context\) -> str, got int 60",
    ),
    "a cache function that takes too little": (
        lambda: pipeline().map(use, [1], cache=lambda: "key"),
        TypeError,
        r"cache function of step 'use' must take \(step, inputs, context\), it takes 0 arguments",
    ),
    "a cache function that takes too much": (
        lambda: Step(use, cache=lambda a, b, c, d: "key"),
        TypeError,
        "it takes 4 arguments",
    ),
    "a time to live of nothing": (
        lambda: Step(use, cache_ttl=0),
        ValueError,
        "cache_ttl of step 'use' must be above 0",
    ),
    "an infinite time to live": (
        lambda: Step(use, cache_ttl=math.inf),
        ValueError,
        "above 0 seconds and finite, got inf",
    ),
    "a time to live as text": (
        lambda: Step(use, cache_ttl="1d"),
        TypeError,
        "cache_ttl of step 'use' must be seconds or a timedelta, got str '1d'",
    ),
    "a time to live as truth": (lambda: Step(use, cache_ttl=True), TypeError, "seconds or a timedelta, got bool True"),
    "a timeout of nothing": (
        lambda: step(timeout=0)(use),
        ValueError,
        "timeout of step 'use' must be more than 0 seconds, got 0; leave it out for no limit",
    ),
    "a timeout below nothing": (lambda: Step(use, timeout=-1.5), ValueError, "more than 0 seconds, got -1.5"),
    "a timeout that is not a number": (lambda: Step(use, timeout=float("nan")), ValueError, "0 seconds, got nan"),
    "a timeout of negative infinity": (lambda: Step(use, timeout=-math.inf), ValueError, "0 seconds, got -inf"),
    "a timeout as truth": (lambda: Step(use, timeout=True), TypeError, "seconds or a timedelta, got bool True"),
    "a timeout as text": (
        lambda: pipeline().add_step(use, timeout="10s"),
        TypeError,
        "timeout of step 'use' must be a number of seconds or a timedelta, got str '10s'",
    ),
    "a timeout of a mapped step": (lambda: pipeline().map(use, [1], timeout=[1]), TypeError, r"got list \[1\]"),
    "a timeout below nothing as a timedelta": (
        lambda: pipeline().add_step(use, timeout=dt.timedelta(seconds=-1)),
        ValueError,
        "more than 0 seconds, got -1.0",
    ),
    "a fallback that is a value": (
        lambda: step(fallback={"a": 1})(use),
        TypeError,
        r"fallback of step 'use' must be a function, got dict .*fallback=lambda: \{'a': 1\}",
    ),
    "a fallback that generates": (lambda: Step(use, fallback=generate), TypeError, "'use' is a generator function"),
    "a fallback that wants more": (
        lambda: Step(use, fallback=lambda data, more: more),
        TypeError,
        "takes 'data', 'more', which the step's arguments do not fill: they are 'data'; ",
    ),
    "a fallback that wants something": (
        lambda: pipeline().add_step(load, fallback=lambda *, day: day),
        TypeError,
        "fallback of step 'load' takes 'day', which the step's arguments do not fill: they are none",
    ),
    "a fallback of a mapped step": (lambda: pipeline().map(use, [1], fallback=0), TypeError, "got int 0; for a fixed"),
    "fallback_on alone": (
        lambda: pipeline().add_step(use, fallback_on=[OSError]),
        ValueError,
        "step 'use' has fallback_on, but no fallback",
    ),
    "fallback_on as text": (
        lambda: Step(use, fallback=use, fallback_on="OSError"),
        TypeError,
        "fallback_on of step 'use' takes exception classes, got 'OSError'",
    ),
    "fallback_on that is no error": (
        lambda: Step(use, fallback=use, fallback_on=[int]),
        TypeError,
        "got <class 'int'>",
    ),
    "on_failure as text": (lambda: step(on_failure="slack")(use), TypeError, "must be a function, got str 'slack'"),
    "on_failure that takes nothing": (
        lambda: step(on_failure=load)(use),
        TypeError,
        r"is called with \(error\) or \(error, result\), but it takes no arguments",
    ),
    "on_failure that nobody awaits": (
        lambda: step(on_failure=asyncio.sleep)(use),
        TypeError,
        "on_failure of step 'use' must be a plain function: nobody awaits",
    ),
    "the decorator in the place of on_failure=": (
        lambda: step(on_failure=on_failure(use))(use),
        TypeError,
        r"takes the function itself; @on_failure\(function\)",
    ),
    "on_failure of nothing": (lambda: on_failure(3), TypeError, 'takes a function or "log", got int 3'),
    "on_failure above nothing": (lambda: on_failure(use)(3), TypeError, "decorates a function, got int 3"),
    "a circuit breaker that is a number": (
        lambda: step(circuit_breaker=5)(use),
        TypeError,
        "circuit_breaker of step 'use' must be a CircuitBreaker, got 5",
    ),
    "a circuit breaker that was not made": (
        lambda: pipeline().add_step(use, circuit_breaker=CircuitBreaker),
        TypeError,
        r"call it: CircuitBreaker\(\)",
    ),
    "a circuit that never closes": (
        lambda: CircuitBreaker(0),
        ValueError,
        "failure_threshold must be at least 1, got 0",
    ),
    "a misspelled fallback": (lambda: step(falback=use)(use), TypeError, "did you mean 'fallback'"),
    "inputs of a step that are no names": (lambda: step(inputs=[1])(use), TypeError, "inputs of step 'use' must be"),
    "inputs of a step that are a frame": (
        lambda: step(inputs=pd.DataFrame({1: [1]}))(use),
        TypeError,
        "inputs of step 'use' must be names, got int 1",
    ),
}

ADDING: dict[str, Wrong] = {
    "an unknown keyword of add_step": (
        lambda: pipeline().add_step(load, param={}),
        TypeError,
        r"add_step\(\) got an unknown keyword 'param'; did you mean 'params'",
    ),
    "nothing to add": (
        lambda: pipeline().add_step(),  # type: ignore[call-arg]
        TypeError,
        r"^Pipeline.add_step\(\) missing 1 required positional argument: 'step'",
    ),
    "a step to map that is not there": (
        lambda: pipeline().map(),  # type: ignore[call-arg]
        TypeError,
        r"^Pipeline.map\(\) missing 1 required positional argument: 'step'",
    ),
    "a picture of nobody knows what": (
        lambda: pipeline().visualize("text", 1),  # type: ignore[call-arg]
        TypeError,
        r"^Pipeline.visualize\(\) takes from 1 to 2 positional arguments but 3 were given",
    ),
    "a decision without a question": (
        If,  # called without it
        TypeError,
        r"^If\(\) missing 1 required positional argument: 'condition'",
    ),
    "an unknown keyword of retry": (
        lambda: retry(max_attempt=2),  # type: ignore[call-arg]
        TypeError,
        r"^RetryConfig\(\) got an unexpected keyword argument 'max_attempt'; did you mean 'max_attempts'",
    ),
    "an unknown keyword of dynamic": (
        lambda: dynamic(output=["a"]),  # type: ignore[call-overload]
        TypeError,
        r"^dynamic\(\) got an unknown keyword 'output'; did you mean 'outputs'",
    ),
    "params that are no mapping": (
        lambda: pipeline().add_step(use, params=[1]),
        TypeError,
        r"params of step 'use' must be a mapping of parameter names to values, got \[1\]",
    ),
    "params that are empty and no mapping": (lambda: pipeline().add_step(use, params=[]), TypeError, "be a mapping"),
    "params with numbers as keys": (
        lambda: pipeline().add_step(use, params={1: 2}),
        TypeError,
        "params of step 'use' must have parameter names as keys, got 1",
    ),
    "a name that is a number": (
        lambda: pipeline().add_step(load, name=1),
        TypeError,
        "name of a step must be a string, got int 1",
    ),
    "an empty name": (lambda: pipeline().add_step(load, name=""), ValueError, "name of a step must not be empty"),
    "a partial without a name": (
        lambda: pipeline().add_step(functools.partial(load)),
        TypeError,
        r"has no name of its own; give it one: add_step\(\.\.\., name=\.\.\.\)",
    ),
    "the same name twice": (
        lambda: ready().add_step(load),
        PipelineValidationError,
        "'load' was added already at .*test_bad_input.py:.*, and again at .*test_bad_input.py:",
    ),
    "two lambdas without a name": (
        lambda: pipeline().add_step(lambda: 1).add_step(lambda: 2),
        ValueError,
        "step 'lambda' was added already.*name=",
    ),
    "inputs that are a number": (
        lambda: pipeline().add_step(use, inputs=3),
        TypeError,
        "inputs of step 'use' must be a name or a list of names, got 3",
    ),
    "inputs without order": (
        lambda: pipeline().add_step(use, inputs={"a"}),
        TypeError,
        "inputs of step 'use' must be a name or a list of names, got {'a'}",
    ),
    "inputs that are steps": (
        lambda: pipeline().add_step(use, inputs=[load]),
        TypeError,
        "inputs of step 'use' must be names, got function",
    ),
    "inputs by number": (
        lambda: pipeline().add_step(use, inputs={0: "a"}),
        TypeError,
        "inputs of step 'use' must have parameter names as keys, got 0",
    ),
    "inputs by name that are no names": (
        lambda: pipeline().add_step(use, inputs={"data": 1}),
        TypeError,
        r"inputs\['data'\] of step 'use' must be a name or a list of names, got 1",
    ),
    "an empty input": (lambda: pipeline().add_step(use, inputs=[""]), ValueError, "'use' must not be empty names"),
    "an output twice": (
        lambda: pipeline().add_step(load, outputs=["a", "b", "a"]),
        ValueError,
        "step 'load' declares an output twice: 'a'",
    ),
    "outputs by name": (lambda: pipeline().add_step(load, outputs={"a": 1}), TypeError, "outputs of step 'load' must"),
    "after a step object": (
        lambda: pipeline().add_step(load, after=[load]),
        TypeError,
        "after of step 'load' must be names, got function",
    ),
    "one step where several are asked for": (
        lambda: pipeline().add_steps(load),
        TypeError,
        r"add_steps\(\) takes several steps, in a list; got <function load",
    ),
    "a string of steps": (lambda: pipeline().add_steps(["load"]), TypeError, "must be callable, got str 'load'"),
}

MAPS: dict[str, Wrong] = {
    "a string of items": (
        lambda: pipeline().map(use, "abc"),
        TypeError,
        r"items one by one, got the str 'abc'; over='abc' runs over what a step produces, list\(\.\.\.\) over letters",
    ),
    "items that are no iterable": (
        lambda: pipeline().map(use, 3),
        TypeError,
        r"map\(\) of step 'use' takes an iterable of items, got int 3; what a step produces is named in over=",
    ),
    "a map without items": (
        lambda: pipeline().map(use),
        TypeError,
        r"map\(\) of step 'use' takes items or over=, got neither",
    ),
    "items and over": (
        lambda: ready().map(use, [1], over="load"),
        TypeError,
        r"takes items or over=, got both; give the items in over=\{parameter: items\}",
    ),
    "a step's name for items": (lambda: ready().map(use, "load"), TypeError, "over='load' runs over what"),
    "a number for over": (
        lambda: pipeline().map(use, over=3),
        TypeError,
        "over of step 'use' must be names .*got int 3",
    ),
    "numbers for over": (
        lambda: pipeline().map(use, over=[1, 2]),
        TypeError,
        r"takes names of assets and lists of values, got int 1; the items themselves go to map\(step, items\)",
    ),
    "a set for over": (lambda: pipeline().map(use, over={"load"}), TypeError, "must be names of assets, got set"),
    "nothing to run over": (lambda: pipeline().map(use, over=[]), ValueError, "names nothing to run over"),
    "an empty name to run over": (lambda: pipeline().map(use, over=""), ValueError, "must not be empty names"),
    "a number as a parameter to run over": (
        lambda: pipeline().map(use, over={1: [2]}),
        TypeError,
        "must have parameter names as keys, got 1",
    ),
    "bytes to run over": (
        lambda: pipeline().map(use, over={"data": b"abc"}),
        TypeError,
        r"items one by one, got the bytes b'abc'; use list\(\.\.\.\)",
    ),
    "another way to combine": (
        lambda: ready().map(use, over="load", combine="cross"),
        ValueError,
        "combine of step 'use' must be \"zip\" or \"product\", got 'cross'",
    ),
    "an unknown asset to run over": (
        lambda: ready().map(use, over="laod").build(),
        PipelineValidationError,
        "requires undefined asset 'laod'; did you mean 'load'",
    ),
    "an unknown parameter to run over": (
        lambda: ready().map(use, over={"dta": "load"}).build(),
        PipelineValidationError,
        "unknown parameter 'dta' in over; did you mean 'data'",
    ),
    "a parameter that params give, too": (
        lambda: ready().map(use, over={"data": "load"}, params={"data": 1}).build(),
        PipelineValidationError,
        "parameter 'data' is given by params, and by over",
    ),
    "more lists than parameters": (
        lambda: ready().map(use, over=["load", [1]]).build(),
        PipelineValidationError,
        "no parameter is left for the items of the map",
    ),
    "lists of different lengths": (
        lambda: pipeline().map(max, over=[[1, 2], [3]]).build(),
        PipelineValidationError,
        "cannot zip lists of different lengths: list 1 has 2 items, list 2 has 1 item",
    ),
    "a map over itself": (
        lambda: pipeline().map(use, over="use").build(),
        CycleError,
        "Pipeline contains cycles! use → use",
    ),
    "maps over each other": (
        lambda: pipeline().map(use, over="b", name="a").map(use, over="a", name="b").build(),
        CycleError,
        "Pipeline contains cycles! a → b → a",
    ),
    "one string of run inputs to run over": (
        lambda: pipeline().map(use, over="files").run(inputs={"files": "abc"}),
        PipelineValidationError,
        "runs over 'files', which must be a list of items, and is one str, 'abc'",
    ),
    "a generator of run inputs to run over": (
        lambda: pipeline().map(use, over="files").run(inputs={"files": (x for x in "ab")}),
        PipelineValidationError,
        r"is a generator, which can be read only once; make it list\(\.\.\.\)",
    ),
    "a join over whole lists": (
        lambda: ready().map(use, over={"data": "load*"}, run_if="any").build(),
        PipelineValidationError,
        'runs over whole lists, which does not go with run_if="any"',
    ),
    "too many combinations": (
        lambda: pipeline().map(pow, over=[range(10**6), range(10**6)], combine="product").build(),
        PipelineValidationError,
        "is mapped over 1,000,000,000,000 items, more than 4,294,967,294",
    ),
    "two outputs of a map": (
        lambda: pipeline().map(use, [1], outputs=["a", "b"]),
        ValueError,
        r"a mapped step has one output, the list of its results; got outputs=\['a', 'b'\]",
    ),
    "an unknown keyword of map": (
        lambda: pipeline().map(use, [1], itmes=[2]),
        TypeError,
        r"map\(\) got an unknown keyword 'itmes'; did you mean 'items'",
    ),
    "items that raise": (lambda: pipeline().map(use, (1 / k for k in (1, 0))), ZeroDivisionError, "division by zero"),
}

PIPELINES: dict[str, Wrong] = {
    "a pipeline without a name": (lambda: Pipeline(None), TypeError, "pipeline's name must be a string, got NoneType"),
    "a pipeline with an empty name": (lambda: Pipeline(""), ValueError, "pipeline's name must not be empty"),
    "an unknown keyword of a pipeline": (
        lambda: pipeline(contxt={}),
        TypeError,
        r"Pipeline\(\) got an unknown keyword 'contxt'; did you mean 'context'",
    ),
    "targets of another kind": (lambda: ready().run(targets=3), TypeError, "targets must be names of steps or assets"),
    "a target that is nothing": (
        lambda: ready().run(targets="laod"),
        ValueError,
        "'laod' is no step, sub-pipeline or asset; did you",
    ),
    "no targets at all": (lambda: ready().run(targets=[]), ValueError, "targets names no step; leave it out"),
    "a tag that nobody has": (lambda: ready().run(targets="tag:x"), ValueError, "no step has the tag 'x'"),
    "tags that are a number": (lambda: step(tags=3)(load), TypeError, "tags of step 'load' must be texts or a mapping"),
    "a tag that is no text": (lambda: step(tags=[3])(load), TypeError, "tags of step 'load' must be texts, got int 3"),
    "an empty tag": (lambda: ready().add_step(use, tags=""), ValueError, "a tag of step 'use' is empty"),
    "a tag with a strange value": (
        lambda: step(tags={"team": [1]})(load),
        TypeError,
        r"tag 'team' of step 'load' must have a text or a number as its value, got list \[1\]",
    ),
    "a pipeline of a step that is no name": (
        lambda: step(pipeline=Pipeline("p"))(load),
        TypeError,
        r"step\(pipeline=\) must be a string, got Pipeline",
    ),
    "a cache that is neither on nor off": (
        lambda: pipeline(enable_cache="no"),
        TypeError,
        "enable_cache must be True or False, got str 'no'",
    ),
    "a cache folder of another kind": (
        lambda: pipeline(cache_dir=3),
        TypeError,
        "cache_dir must be a folder or a CacheStore, got int 3",
    ),
    "a cache in no folder": (lambda: CacheStore(3), TypeError, "cache_dir must be a folder, got int 3"),
    "a cache of no size": (lambda: CacheStore(max_bytes=0), ValueError, "max_bytes must be at least 1, got 0"),
    "a cache of a size in words": (
        lambda: CacheStore(max_bytes="1GB"),
        TypeError,
        "max_bytes must be .* got str '1GB'",
    ),
    "an invalidation of a step that is not there": (
        lambda: ready().invalidate_cache("laod"),
        KeyError,
        "pipeline 'p' has no step 'laod'; did you mean 'load'",
    ),
    "an invalidation before no time": (
        lambda: ready().invalidate_cache(before="yesterday"),
        ValueError,
        "before= takes a date, a datetime or ISO text like '2026-01-31', got 'yesterday'",
    ),
    "an invalidation of no key": (lambda: CacheStore().invalidate("xyz"), ValueError, "hexadecimal digits, got 'xyz'"),
    "checkpoints that are neither on nor off": (
        lambda: pipeline(enable_checkpointing=1),
        TypeError,
        "enable_checkpointing must be True or False, got int 1",
    ),
    "a checkpoint folder of another kind": (
        lambda: pipeline(checkpoint_dir=["a"]),
        TypeError,
        r"checkpoint_dir must be a folder, got list \['a'\]",
    ),
    "an unknown durability": (
        lambda: pipeline(durability="never"),
        ValueError,
        'durability must be "batch" or "always", got \'never\'',
    ),
    "a resumption without checkpoints": (
        lambda: ready().run(resume="last"),
        ValueError,
        r"run\(resume=\) needs a pipeline that keeps a journal: Pipeline\(..., enable_checkpointing=True\)",
    ),
    "a resumption of another kind": (
        lambda: pipeline(enable_checkpointing=True).run(resume=3),
        TypeError,
        'resume must be "last", the id of a run, False or None, got int 3',
    ),
    "a resumption of two runs": (
        lambda: pipeline(enable_checkpointing=True).run(resume="a", run_id="b"),
        ValueError,
        r"run\(resume='a', run_id='b'\) names two runs",
    ),
    "types validated in an unknown way": (
        lambda: pipeline(validate_types="strict"),
        ValueError,
        'validate_types must be True, False, "warn" or "error", got \'strict\'',
    ),
    "types validated by a number": (
        lambda: Pipeline.from_steps(load, validate_types=1),
        TypeError,
        'validate_types must be True, False, "warn" or "error", got int 1',
    ),
    "a context that is a list": (
        lambda: pipeline(context=[1]),
        TypeError,
        r"Pipeline\(context=\) takes a mapping of names to values, got list \[1\]",
    ),
    "a context with numbers as names": (lambda: pipeline(context={1: 2}), TypeError, "must have names as keys, got 1"),
    "a context class": (
        lambda: pipeline(context=Context),
        TypeError,
        "takes a mapping of names to values, got ABCMeta",
    ),
    "an unknown keyword of from_steps": (
        lambda: Pipeline.from_steps(load, nam="x"),
        TypeError,
        r"from_steps\(\) got an unknown keyword 'nam'; did you mean 'name'",
    ),
}

RUNS: dict[str, Wrong] = {
    "run inputs in a list": (
        lambda: ready().run(inputs=[1]),
        TypeError,
        r"run\(inputs=\) takes a mapping of names to values, got list \[1\]",
    ),
    "run inputs by number": (lambda: ready().run(inputs={1: 1}), TypeError, r"run\(inputs=\) must have names as keys"),
    "a run context that is text": (lambda: ready().run(context="x"), TypeError, r"run\(context=\) takes a mapping"),
    "build inputs in a list": (lambda: ready().build(inputs=[1]), TypeError, r"build\(inputs=\) takes a mapping"),
    "fail_fast in words": (
        lambda: ready().run(fail_fast="no"),
        TypeError,
        "fail_fast must be True or False, got str 'no'",
    ),
    "a dry run by number": (
        lambda: ready().run(dry_run=1),
        TypeError,
        "dry_run must be True or False, got int 1",
    ),
    "an unknown keyword of run": (
        lambda: ready().run(failfast=True),
        TypeError,
        r"run\(\) got an unknown keyword 'failfast'; did you mean 'fail_fast'",
    ),
    "a wrong word for keep": (
        lambda: ready().run(keep="some"),
        ValueError,
        'keep must be "all", "leaves" or a list of names, got \'some\'',
    ),
    "keep that is no iterable": (lambda: ready().run(keep=None), TypeError, "keep must be .* got NoneType None"),
    "a name to keep that is none": (
        lambda: ready().run(keep=["laod"]),
        ValueError,
        "keep names 'laod', which is no step or asset; did you mean 'load'",
    ),
    "a step to keep": (
        lambda: ready().run(keep=[load]),
        TypeError,
        "keep takes names of steps or assets, got function",
    ),
    "a run id that is a number": (lambda: ready().run(run_id=7), TypeError, "run_id must be a string, got int 7"),
    "an empty run id": (lambda: ready().run(run_id=""), ValueError, "run_id must not be empty"),
}

PARALLEL_MAPS: dict[str, Wrong] = {
    "a chunk of nothing": (
        lambda: parallel_map(abs, [1], chunksize=0),
        ValueError,
        'chunksize must be at least 1, got 0; "auto"',
    ),
    "a chunk in words": (
        lambda: parallel_map(abs, [1], chunksize="many"),
        TypeError,
        'chunksize must be a whole number or "auto", got str',
    ),
    "no items": (
        lambda: parallel_map(use, None),
        TypeError,
        r"parallel_map\(\) takes an iterable of items, got NoneType",
    ),
    "a function that is none": (lambda: parallel_map(3, [1]), TypeError, "must be callable, got int 3"),
    "no workers for items": (lambda: parallel_map(use, [1], 0), ValueError, "at least 1, got 0"),
    "a misspelled backend for items": (
        lambda: parallel_map(use, [1], backend="threads"),
        ValueError,
        "did you mean 'thread'",
    ),
    "a wrong word for on_error": (
        lambda: parallel_map(use, [1], on_error="ignore"),
        ValueError,
        'on_error must be "raise" or "return", got \'ignore\'',
    ),
    "two numbers of workers": (
        lambda: parallel_map(use, [1], max_workers=2, num_workers=3),
        TypeError,
        "num_workers is another name of max_workers; give one of them",
    ),
    "an unknown keyword of parallel_map": (
        lambda: parallel_map(use, [1], max_worker=3),
        TypeError,
        r"parallel_map\(\) got an unknown keyword 'max_worker'; did you mean 'max_workers'",
    ),
    "no time for items": (
        lambda: parallel_map(use, [1], timeout=0.0),
        ValueError,
        "timeout must be more than 0 seconds",
    ),
    "a generator for items": (lambda: parallel_map(generate, [1]), TypeError, "is a generator function"),
    "a function without a parameter": (
        lambda: parallel_map(load, [1]),
        PipelineValidationError,
        "no parameter is left",
    ),
    "a function of two parameters": (
        lambda: parallel_map(lambda a, b: a + b, [1]),
        PipelineValidationError,
        r"Missing required parameters: \['b'\]",
    ),
}


def child(name: str = "c") -> Pipeline:
    return Pipeline(name).add_step(use)


SUB_PIPELINES: dict[str, Wrong] = {
    "a pipeline as a step": (
        lambda: pipeline().add_step(child()),
        TypeError,
        r"must be callable, got Pipeline .*becomes part of another by add_sub_pipeline\(pipeline\)",
    ),
    "a pipeline among steps": (lambda: pipeline().add_steps([child()]), TypeError, "add_sub_pipeline"),
    "a step as a sub-pipeline": (
        lambda: pipeline().add_sub_pipeline(load),
        TypeError,
        "a sub-pipeline must be a Pipeline, got function",
    ),
    "a class as a sub-pipeline": (lambda: sub_pipeline(Pipeline), TypeError, "must be a Pipeline, got type <class"),
    "an unknown keyword of add_sub_pipeline": (
        lambda: pipeline().add_sub_pipeline(child(), input_maping={}),
        TypeError,
        r"add_sub_pipeline\(\) got an unknown keyword 'input_maping'; did you mean 'input_mapping'",
    ),
    "a pipeline in itself": (
        lambda: (same := child()).add_sub_pipeline(same),
        ValueError,
        "pipeline 'c' cannot be a sub-pipeline of itself",
    ),
    "a sub-pipeline of a name that is a number": (
        lambda: pipeline().add_sub_pipeline(child(), name=3),
        TypeError,
        "the name of a sub-pipeline must be a string, got int 3",
    ),
    "a sub-pipeline of no name": (lambda: pipeline().add_sub_pipeline(child(), name=""), ValueError, "not be empty"),
    "the same sub-pipeline twice": (
        lambda: pipeline().add_sub_pipeline(child()).add_sub_pipeline(child()),
        PipelineValidationError,
        "sub-pipeline 'c' was added already at .*test_bad_input.py:.*, and again at .*; give .* name=",
    ),
    "a sub-pipeline whose step is there": (
        lambda: pipeline().add_step(use, name="c.use").add_sub_pipeline(child()),
        PipelineValidationError,
        "step 'c.use' was added already at .*test_bad_input.py:.*, and again at .*test_bad_input.py:",
    ),
    "a step that a sub-pipeline has": (
        lambda: pipeline().add_sub_pipeline(child()).add_step(use, name="c.use"),
        PipelineValidationError,
        "step 'c.use' was added already",
    ),
    "a step of the name of a sub-pipeline": (
        lambda: pipeline().add_step(load, name="c").add_sub_pipeline(child()).build(inputs={"data": 1}),
        PipelineValidationError,
        "step 'c' .* has the name of sub-pipeline 'c' .*; give one of them another name=",
    ),
    "inputs of a sub-pipeline that are a number": (
        lambda: pipeline().add_sub_pipeline(child(), 3),
        TypeError,
        "inputs of sub-pipeline 'c' must be a name or a list of names, got 3",
    ),
    "inputs of a sub-pipeline that are given by number": (
        lambda: pipeline().add_sub_pipeline(child(), {"data": 3}),
        TypeError,
        r"inputs\['data'\] of sub-pipeline 'c' must be a name or a list of names, got 3",
    ),
    "outputs of a sub-pipeline that are no names": (
        lambda: pipeline().add_sub_pipeline(child(), outputs=[load]),
        TypeError,
        "outputs of sub-pipeline 'c' must be names, got function",
    ),
    "outputs of a sub-pipeline under no names": (
        lambda: pipeline().add_sub_pipeline(child(), outputs={"use": 1}),
        TypeError,
        "outputs of sub-pipeline 'c' must have names on both sides, got 1",
    ),
    "an output of a sub-pipeline among its own names": (
        lambda: pipeline().add_sub_pipeline(child(), outputs={"use": "c.data"}),
        ValueError,
        "sub-pipeline 'c' cannot export 'use' as 'c.data', which is among its own names",
    ),
    "a mapping of inputs that is a list": (
        lambda: pipeline().add_sub_pipeline(child(), input_mapping=["data"]),
        TypeError,
        r"input_mapping of sub-pipeline 'c' must be a mapping of names to names, got \['data'\]",
    ),
    "an input of a sub-pipeline twice": (
        lambda: pipeline().add_sub_pipeline(child(), {"data": "a"}, input_mapping={"b": "data"}),
        ValueError,
        "sub-pipeline 'c' gets input 'data' twice: from 'a' and 'b'",
    ),
    "after for a sub-pipeline that is no name": (
        lambda: pipeline().add_sub_pipeline(child(), after=[load]),
        TypeError,
        "after of sub-pipeline 'c' must be names",
    ),
    "params for a sub-pipeline": (
        lambda: pipeline().add_step(sub_pipeline(child()), params={"data": 1}),
        TypeError,
        r"add_step\(SubPipeline\(\.\.\.\)\) takes a name only; say the rest in sub_pipeline\(\)",
    ),
}

WRONG = EXECUTORS | STEPS | ADDING | MAPS | SUB_PIPELINES | PIPELINES | RUNS | PARALLEL_MAPS


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_use_gets_its_error(case: str) -> None:
    use_it, kind, words = WRONG[case]
    with pytest.raises(kind, match=words) as caught:
        use_it()
    assert caught.type is kind or kind is ValueError
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame for frame in frames if is_own(frame.filename)] == []


def test_a_message_does_not_repeat_a_long_value() -> None:
    with pytest.raises(TypeError) as caught:
        pipeline().add_step(use, params=list(range(1_000_000)))
    assert len(str(caught.value)) < 300


def test_executors_show_how_they_are_made() -> None:
    wanted = "ParallelExecutor(max_workers=2, backend='thread')"
    assert (repr(LocalExecutor()), repr(ParallelExecutor(2, "thread"))) == ("LocalExecutor()", wanted)


# ---- what is nearly wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, np.int64(2), None])
def test_whole_numbers_of_workers_are_fine(workers: Any) -> None:
    assert ParallelExecutor(workers).max_workers >= 1


def test_a_name_may_be_a_string_of_another_class() -> None:
    (name,) = pipeline().add_step(load, np.str_("it")).run().outputs
    assert (name, type(name)) == ("it", str)


@pytest.mark.parametrize("keyword", ["stack", "project", "version", "auto_start_ui", "enable_experiment_tracking"])
def test_a_keyword_of_another_scope_is_warned_of_once(keyword: str) -> None:
    with pytest.warns(UserWarning, match=rf"Pipeline\(\) ignores {keyword}: out of scope") as caught:
        pipeline(**{keyword: "x"})
    assert (len(caught), caught[0].filename) == (1, __file__)


def test_several_keywords_of_another_scope_are_one_warning() -> None:
    with pytest.warns(UserWarning, match=r"run\(\) ignores auto_start_ui, stack") as caught:
        ready().run(stack="local", auto_start_ui=False)
    assert len(caught) == 1


def test_an_unknown_keyword_beside_one_of_another_scope_is_an_error() -> None:
    with pytest.raises(TypeError, match="unknown keyword 'contxt'"):
        pipeline(stack="local", contxt={})
