"""Wrong arguments of steps and where they are added: the right exception, before anything runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import math

import pandas as pd
import pytest
from wrong_pipelines import Generates, Wrong, assert_refused, generate, generate_soon, load, pipeline, use

from flowyml import CircuitBreaker, If, PipelineValidationError, Step, dynamic, on_failure, retry, step

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
        lambda: pipeline().add_step(load).add_step(load),
        PipelineValidationError,
        "'load' was added already at .*test_bad_steps.py:.*, and again at .*test_bad_steps.py:",
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


WRONG = STEPS | ADDING


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_use_gets_its_error(case: str) -> None:
    assert_refused(*WRONG[case])


def test_a_message_does_not_repeat_a_long_value() -> None:
    with pytest.raises(TypeError) as caught:
        pipeline().add_step(use, params=list(range(1_000_000)))
    assert len(str(caught.value)) < 300
