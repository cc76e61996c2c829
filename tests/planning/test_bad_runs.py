"""Wrong arguments of executors, runs and `parallel_map`: the right exception, before anything runs."""

from __future__ import annotations

import pytest
from wrong_pipelines import Wrong, assert_refused, generate, load, pipeline, ready, use

from flowyml import LocalExecutor, ParallelExecutor, PipelineValidationError, Step, parallel_map, step

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
        r"memory must be an int \(bytes\) or a string",
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
    "a memory limit in gibibytes": (
        lambda: ParallelExecutor(memory_limit=4),
        ValueError,
        'memory_limit must be at least 1 MiB, got 4 bytes; write an amount like "4GiB" or "500 MB"',
    ),
    "a memory budget in mebibytes": (
        lambda: ParallelExecutor(memory_budget=500),
        ValueError,
        'memory_budget must be at least 1 MiB, got 500 bytes; write an amount like "4GiB"',
    ),
    "a memory limit of a few kilobytes": (
        lambda: ParallelExecutor(memory_limit="4 kB"),
        ValueError,
        "memory_limit must be at least 1 MiB, got '4 kB'; write an amount like \"4GiB\"",
    ),
    "memory of a step in gibibytes": (
        lambda: Step(use, resources={"memory": 4}),
        ValueError,
        "memory must be at least 1 MiB, got 4 bytes",
    ),
    "a memory limit in words": (
        lambda: ParallelExecutor(memory_limit="a lot"),
        ValueError,
        'memory_limit must be an amount of memory like "4GiB" or "500 MB", or an int \\(bytes\\), got \'a lot\'',
    ),
    "a memory limit without a unit": (lambda: ParallelExecutor(memory_limit="500"), ValueError, 'like "4GiB"'),
    "a memory limit as a fraction": (
        lambda: ParallelExecutor(memory_limit=0.5),
        TypeError,
        r"bytes\) .* got float 0.5",
    ),
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


RUNS: dict[str, Wrong] = {
    "run inputs in a list": (
        lambda: ready().run(inputs=[1]),
        TypeError,
        r"run\(inputs=\) takes a mapping of names to values, got list \[1\]",
    ),
    "run inputs by number": (lambda: ready().run(inputs={1: 1}), TypeError, r"run\(inputs=\) must have names as keys"),
    "a run context that is text": (lambda: ready().run(context="x"), TypeError, r"run\(context=\) takes a mapping"),
    "build inputs in a list": (lambda: ready().build(inputs=[1]), TypeError, r"build\(inputs=\) takes a mapping"),
    "an unknown keyword of run": (
        lambda: ready().run(failfast=True),
        TypeError,
        r"run\(\) got an unknown keyword 'failfast'; did you mean 'fail_fast'",
    ),
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
    "a wrong word for keep": (
        lambda: ready().run(keep="some"),
        ValueError,
        'keep must be "all", "leaves" or a list of names, got \'some\'',
    ),
    "a misspelled word for keep": (lambda: ready().run(keep="leafs"), ValueError, "got 'leafs'; did you mean 'leaves'"),
    "an executor as inputs": (
        lambda: ready().run(LocalExecutor()),
        TypeError,
        r"run\(inputs=\) takes a mapping .* got LocalExecutor LocalExecutor\(\); did you mean executor=\?",
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


WRONG = EXECUTORS | RUNS | PARALLEL_MAPS


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_use_gets_its_error(case: str) -> None:
    assert_refused(*WRONG[case])


def test_executors_show_how_they_are_made() -> None:
    wanted = "ParallelExecutor(max_workers=2, backend='thread')"
    assert (repr(LocalExecutor()), repr(ParallelExecutor(2, "thread"))) == ("LocalExecutor()", wanted)
