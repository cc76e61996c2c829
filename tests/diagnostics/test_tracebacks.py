"""What a terminal shows of an error: the frames of the user, with short arguments, and none of ours unless asked."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import enum
import math
import os
import pathlib
import subprocess
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import flowyml
from flowyml import If, LocalExecutor, ParallelExecutor, Pipeline, StepError, StepNotRunError, parallel_map, step
from flowyml.diagnostics.text import MAX_LENGTH, short_repr
from flowyml.diagnostics.tracebacks import called_as, hide_internal_frames
from flowyml.visualize import show

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml import Executor

OURS = str(pathlib.Path(flowyml.__file__).parent)


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def printed(error: BaseException) -> str:
    """Return what the interpreter would print."""
    return "".join(traceback.format_exception(error))


# ---- ours are hidden -----------------------------------------------------------------------------------------------


def half(n: int, scale: int = 1) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2 * scale


def failing() -> Pipeline:
    return Pipeline("halves").map(half, [2, 5]).add_step(sum, inputs=["half"])


def missing(absent: int) -> int:
    return absent


@step(outputs=["a", "b"])
def three() -> tuple[int, int, int]:
    return 1, 2, 3


def generate() -> Any:
    yield 1


class Unloadable:
    """Pickles, and does not load."""

    def __reduce__(self) -> tuple[Any, ...]:
        return half, (1,)


def unloadable() -> flowyml.PipelineResult:
    with ParallelExecutor(1) as executor:
        return Pipeline("p").add_step(Unloadable, name="a").add_step(Unloadable, name="b").run(executor=executor)


def locked() -> Pipeline:
    lock = threading.Lock()
    return Pipeline("p").add_step(lambda: lock, name="locked")


RAISING: dict[str, Callable[[], Any]] = {
    "a step that is none": lambda: Pipeline("p").add_step(3),
    "an unknown keyword": lambda: Pipeline("p").add_step(half, input=["x"]),
    "a generator": lambda: step(generate),
    "a wrong option of a decorator": lambda: step(retry="3")(half),
    "a name twice": lambda: Pipeline("p").add_step(half).add_step(half),
    "several steps that are none": lambda: Pipeline("p").add_steps([half, 3]),
    "steps that are none": lambda: Pipeline.from_steps(half, 3),
    "no items": lambda: Pipeline("p").map(half, 5),
    "no decision": lambda: Pipeline("p").add_control_flow(half),
    "a decision without branches": lambda: Pipeline("p").add_control_flow(If(bool)),
    "no pipeline": lambda: Pipeline("p").add_sub_pipeline(half),
    "an invalid pipeline that is built": lambda: Pipeline("p").add_step(missing, inputs=["nothing"]).build(),
    "an invalid pipeline that runs": lambda: Pipeline("p").add_step(missing).run(),
    "an executor that is none": lambda: failing().run(executor="process"),
    "a failure": lambda: failing().run(raise_on_failure=True),
    "a failure of ours": lambda: Pipeline("p").add_step(three).run(raise_on_failure=True),
    "a failure that is raised later": lambda: failing().run().raise_for_failure(),
    "a value that is not there": lambda: failing().run()["sum"],
    "an item that is not there": lambda: failing().run()["half"][1],
    "a list of items of which one is not there": lambda: list(failing().run()["half"]),
    "a slice of items of which one is not there": lambda: failing().run()["half"][:2],
    "items of which one is not there, compared": lambda: failing().run()["half"] == [1, 2],
    "no item of that index": lambda: failing().run()["half"][9],
    "no index of an item": lambda: failing().run()["half"]["a"],
    "values of which one does not load": lambda: list(unloadable().outputs.values()),
    "named values of which one does not load": lambda: list(unloadable().outputs.items()),
    "an output that is not there": lambda: failing().run().outputs["sum"],
    "an output of a step that is not there": lambda: failing().run().step_results["sum"].output,
    "a misspelled name": lambda: failing().run()["hlaf"],
    "a misspelled step": lambda: failing().run().step_results["hlaf"],
    "an executor without workers": lambda: ParallelExecutor(0),
    "a decision about nothing": lambda: If(True),
    "a branch twice": lambda: If(bool).then(half).then(half),
    "a retry without attempts": lambda: flowyml.retry(max_attempts=0),
    "a wrong delay": lambda: flowyml.ExponentialBackoff(initial=-1),
    "no value of a context": lambda: flowyml.context(rate=1).rte,
    "no key of a context": lambda: flowyml.context(rate=1)["rte"],
    "no step around": flowyml.get_context,
    "a format that is none": lambda: failing().visualize("png"),
    "a format that show() does not know": lambda: show(failing(), "png"),  # type: ignore[arg-type]
    "a step that is not explained": lambda: failing().explain("hlaf"),
    "a handle of nothing": lambda: failing()["hlaf"],
    "a node that is none": lambda: failing().dag.nodes["hlaf"],
    "an asset of nobody": lambda: failing().dag.asset_producers["hlaf"],
    "parallel_map": lambda: parallel_map(half, [1], max_workers=1),
    "a wrong argument of parallel_map": lambda: parallel_map(half, 5),
    "a builtin that a circuit breaker calls": lambda: flowyml.CircuitBreaker().call(math.sqrt, -1),
    "a builtin under a circuit breaker": lambda: flowyml.CircuitBreaker()(math.sqrt)(-1),
    "a run that is only looked at": lambda: failing().dry_run(given={"unknown": 1}),
    "a wrong argument of a coroutine function": lambda: asyncio.run(failing().run_async(1, 2)),  # type: ignore[misc]
    "a keyword that is none": lambda: flowyml.ParallelExecutor(max_worker=2),  # type: ignore[call-arg]
    "a value that does not load": lambda: unloadable().get("a"),
    "an output that does not load": lambda: unloadable().outputs.get("a"),
    "a lock in a function": lambda: locked().run(executor=ParallelExecutor(1)),
}


@pytest.mark.parametrize("name", RAISING)
@pytest.mark.filterwarnings("ignore")
def test_what_a_public_function_raises_shows_frames_of_the_user_only(name: str) -> None:
    text = printed(raised(RAISING[name]))
    assert OURS not in text
    assert "test_tracebacks.py" in text


@pytest.mark.parametrize("name", ["an invalid pipeline that runs", "a failure", "a wrong option of a decorator"])
def test_all_frames_are_shown_where_that_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_TRACEBACK", "full")
    assert OURS in printed(raised(RAISING[name]))


def test_a_mistake_of_ours_keeps_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowyml.planning.plan.Plan", 3)
    text = printed(raised(lambda: Pipeline("p").add_step(half).run()))
    assert "TypeError: 'int' object is not callable" in text
    assert OURS in text


def test_frames_of_the_user_below_ours_stay() -> None:
    def items() -> Any:
        yield 1
        raise OSError("the disk is full")

    text = printed(raised(lambda: Pipeline("p").map(half, items())))
    assert "in items\n" in text
    assert OURS not in text


def test_a_run_that_is_awaited_hides_them_too() -> None:
    error = raised(lambda: asyncio.run(failing().run_async(raise_on_failure=True)))
    assert isinstance(error, StepError)
    assert OURS not in printed(error)


def test_an_exception_that_refuses_attributes_is_raised_as_it_is() -> None:
    class StubbornError(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise AttributeError(name)

    hide_internal_frames(StubbornError())
    assert type(raised(lambda: Pipeline("p").map(half, map(raise_it, [StubbornError()])))) is StubbornError


def raise_it(error: BaseException) -> None:
    raise error


def test_a_script_prints_nothing_of_ours(tmp_path: pathlib.Path) -> None:
    (tmp_path / "script.py").write_text(
        "from flowyml import Pipeline\n"
        "def price(row):\n"
        "    return int(row['price'])\n"
        "Pipeline('shop').add_step(price, params={'row': {'price': 'three'}}).run(raise_on_failure=True)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, text=True, capture_output=True, timeout=50)
    assert done.returncode == 1
    assert OURS not in done.stderr
    assert done.stderr.endswith(
        "flowyml.errors.StepError: step 'price' failed: ValueError: invalid literal for int() with base 10: 'three'\n"
        "it was called as price(row={'price': 'three'})\n"
    )


# ---- arguments -----------------------------------------------------------------------------------------------------


def parse(row: dict[str, str]) -> int:
    return int(row["price"])


def clean(rows: list[dict[str, str]], password: str = "tooth") -> list[int]:
    return [parse(row) for row in rows]


def test_an_error_text_tells_the_arguments_on_every_executor(executor: Executor) -> None:
    rows = [{"price": "3"}, {"price": "three"}]
    result = Pipeline("shop").add_step(clean, params={"rows": rows}).run(executor=executor)

    lines = [line.strip() for line in result.step_results["clean"].error.splitlines()]
    assert [line for line in lines if line.startswith("where")] == [
        "where password = (not shown)",
        "where rows = [{'price': '3'}, {'price': 'three'}]",
        "where row = {'price': 'three'}",
    ]
    assert OURS not in result.step_results["clean"].error


def test_a_step_that_is_a_builtin_fails_with_the_same_text_on_every_executor(executor: Executor) -> None:
    pipeline = Pipeline("b").map(math.sqrt, [-1], name="many").add_step(math.sqrt, "one", {"x": -1})
    pipeline.add_step(math.sqrt, "asked", {"x": -1}, condition=lambda: True)
    pipeline.add_step(int, "none", {"x": "a"}, fallback=math.sqrt)
    results = pipeline.run(executor=executor).step_results
    for name in ("many[0]", "one", "asked"):
        text = (results[name].error or "").lower()  # "expected a nonnegative input" since 3.14
        assert text.startswith(("math domain error\nvalueerror: math", "expected a nonnegative input"))
        assert "file " not in text
    assert ".py" not in (results["none"].error or "")


def test_errors_that_ours_raise_in_a_step_end_at_the_users_line(executor: Executor) -> None:
    def reads(ctx: Any) -> bool:
        return ctx.steps["laod"]

    def load() -> int:
        return 1

    pipeline = Pipeline("p").add_step(load).add_control_flow(If(reads, step(load, name="again")))
    error = pipeline.run(executor=executor).step_results["if_1"].error
    assert OURS not in error
    assert "in reads\n" in error
    assert "name it in after=; did you mean 'load'?" in error


def test_frames_of_libraries_have_no_arguments() -> None:
    def pick(table: pd.DataFrame) -> Any:
        return table["b"]

    pipeline = Pipeline("p").add_step(pick, params={"table": pd.DataFrame({"a": [1, 2]})})
    error = pipeline.run().step_results["pick"].error
    assert "where table = <DataFrame of shape (2, 1)>" in error
    assert error.count("where") == 1


def test_the_call_that_failed_is_told() -> None:
    assert called_as(failing().run().failed[0].exception) == "half(n=5, scale=1)"
    assert called_as(ValueError("never raised")) == ""


@pytest.mark.usefixtures("uncollected")
def test_deep_recursion_is_told_shortly() -> None:
    def deep(n: int) -> int:
        return deep(n + 1)

    error = Pipeline("p").add_step(deep, params={"n": 0}).run(executor=LocalExecutor()).step_results["deep"].error
    assert 0 < error.count("where n = ") <= 8
    assert "more times]" in error


def test_a_value_that_raises_names_its_step() -> None:
    error = raised(lambda: failing().run()["sum"])
    assert isinstance(error, StepNotRunError)
    assert isinstance(error.__cause__, ValueError)


# ---- values in short form ------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int


class Nasty:
    def __repr__(self) -> str:
        raise SystemExit

    def __getattr__(self, name: str) -> Any:
        raise SystemExit

    def __len__(self) -> int:
        raise SystemExit


class Greedy(dict):
    def __len__(self) -> int:
        raise SystemExit


SHORT: dict[str, tuple[Any, str]] = {
    "none": (None, "None"),
    "number": (2.5, "2.5"),
    "huge number": (10**100, "<int of 333 bits>"),
    "long text": ("a" * 100, f"'{'a' * 60}'..."),
    "bytes": (b"ab", "b'ab'"),
    "long list": ([1] * 9, "[1, 1, 1, 1, ...]"),
    "tuple of one": ((1,), "(1,)"),
    "empty set": (set(), "set()"),
    "set": (frozenset({1}), "{1}"),
    "nested": ({"a": {"b": {"c": 1}}}, "{'a': {'b': {...}}}"),
    "array": (np.zeros((2, 3)), "<ndarray of shape (2, 3)>"),
    "numpy number": (np.float64(2), "np.float64(2.0)"),
    "frame": (pd.DataFrame({"a": [1]}), "<DataFrame of shape (1, 1)>"),
    "time": (pd.Timestamp("2020-01-02"), "Timestamp('2020-01-02 00:00:00')"),
    "date": (dt.date(2020, 1, 2), "datetime.date(2020, 1, 2)"),
    "path": (pathlib.PurePosixPath("/x"), "PurePosixPath('/x')"),
    "enum": (Colour.RED, "Colour.RED"),
    "named tuple": (Point(1), "<Point of 1>"),
    "counter": (collections.Counter("aab"), "<Counter of 2>"),
    "function": (len, "<builtin_function_or_method len>"),
    "class": (Nasty, "<type Nasty>"),
    "object": (object(), "<object>"),
    "what must not be asked": ([Nasty()], "[<Nasty>]"),
    "what must not be counted": (Greedy(a=1), "<Greedy of 1>"),
    "module": (os, "<module>"),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_value_in_short_form(name: str) -> None:
    value, text = SHORT[name]
    assert short_repr(value) == text


def test_short_is_short() -> None:
    assert len(short_repr({f"a long key {i}": "a long value" for i in range(10)})) == MAX_LENGTH
