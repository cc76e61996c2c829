"""Wrong arguments of pipelines, their maps and their parts: the right exception, before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from wrong_pipelines import Wrong, assert_refused, child, load, pipeline, ready, use

from flowyml import (
    CacheStore,
    Context,
    CycleError,
    ParallelExecutor,
    Pipeline,
    PipelineValidationError,
    step,
    sub_pipeline,
)


class Table:
    """Iterates over its columns, as `pyarrow.Table` does."""

    def itercolumns(self) -> Any:
        return iter(())

    def __getitem__(self, index: int) -> Any:
        raise IndexError


MAPS: dict[str, Wrong] = {
    "a string of items": (
        lambda: pipeline().map(use, "abc"),
        TypeError,
        r"items one by one, got the str 'abc'; over='abc' runs over what a step produces, list\(\.\.\.\) over letters",
    ),
    "a dict of items": (
        lambda: pipeline().map(use, {"a": 1}),
        TypeError,
        r"map\(\) of step 'use' takes items one by one, got a dict; make it list\(d.items\(\)\), list\(d\) or",
    ),
    "a table of items": (
        lambda: pipeline().map(use, pd.DataFrame({"a": [1]})),
        TypeError,
        r"got a DataFrame, whose items would be its columns; make it a list of its rows: list\(df.itertuples\(\)\)",
    ),
    "a table of pyarrow as items": (
        lambda: pipeline().map(use, Table()),
        TypeError,
        r"got a Table, whose items would be its columns; make it a list of its rows: table.to_pylist\(\)",
    ),
    "a dict to run over": (
        lambda: pipeline().map(use, over={"data": {"a": 1}}),
        TypeError,
        r"over of step 'use' takes items one by one, got a dict; make it list",
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
    "a cache in no folder": (lambda: CacheStore(3), TypeError, "cache_dir must be a path of a directory, got int 3"),
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
        "cache_dir must be a path of a directory or a CacheStore, got int 3",
    ),
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
        "before must be a date, a datetime or an ISO string like '2026-01-31', got 'yesterday'",
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


SUB_PIPELINES: dict[str, Wrong] = {
    "a pipeline as a step": (
        lambda: pipeline().add_step(child()),
        TypeError,
        r"must be callable, got Pipeline .*becomes part of another by add_sub_pipeline\(pipeline\)",
    ),
    "steps one by one": (
        lambda: pipeline().add_steps(load, use),
        TypeError,
        r"^add_steps\(\) takes several steps, in one list: add_steps\(\[load, clean, ...\]\)",
    ),
    "a pipeline without a name": (
        Pipeline,
        TypeError,
        r"^Pipeline\(\) missing 1 required positional argument: 'name'",
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
        "sub-pipeline 'c' was added already at .*test_bad_pipelines.py:.*, and again at .*; give .* name=",
    ),
    "a sub-pipeline whose step is there": (
        lambda: pipeline().add_step(use, name="c.use").add_sub_pipeline(child()),
        PipelineValidationError,
        "step 'c.use' was added already at .*test_bad_pipelines.py:.*, and again at .*test_bad_pipelines.py:",
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


WRONG = PIPELINES | MAPS | SUB_PIPELINES


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_use_gets_its_error(case: str) -> None:
    assert_refused(*WRONG[case])


# ---- what is nearly wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, np.int64(2), None])
def test_whole_numbers_of_workers_are_fine(workers: Any) -> None:
    assert ParallelExecutor(workers).max_workers >= 1


def test_a_name_may_be_a_string_of_another_class() -> None:
    (name,) = pipeline().add_step(load, np.str_("it")).run().outputs
    assert (name, type(name)) == ("it", str)


@pytest.mark.parametrize("keyword", ["stack", "project", "version", "tracking", "auto_start_ui", "auto_track"])
def test_a_keyword_of_another_scope_is_warned_of_once(keyword: str) -> None:
    with pytest.warns(UserWarning, match=rf"Pipeline\(\) ignores {keyword}: out of scope") as caught:
        Pipeline("p", **{keyword: "x"})
    assert (len(caught), caught[0].filename) == (1, __file__)


def test_several_keywords_of_another_scope_are_one_warning() -> None:
    with pytest.warns(UserWarning, match=r"run\(\) ignores auto_start_ui, stack") as caught:
        ready().run(stack="local", auto_start_ui=False)
    assert len(caught) == 1


def test_an_unknown_keyword_beside_one_of_another_scope_is_an_error() -> None:
    with pytest.raises(TypeError, match="unknown keyword 'contxt'"):
        pipeline(stack="local", contxt={})
