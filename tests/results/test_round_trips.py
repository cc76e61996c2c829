"""Values that pickle would change on their way arrive as they are, on every executor and from the cache."""

from __future__ import annotations

import array
import ctypes
import dataclasses
from typing import Any

import numpy as np
import pytest

from flowyml import ParallelExecutor, Pipeline, step

VIEWS = {
    "bytes": memoryview(b"abc"),
    "bytearray": memoryview(bytearray(b"abc")),
    "array": memoryview(array.array("d", [1.5, 2.5])),
    "shape": memoryview(bytearray(range(12))).cast("B", [3, 4]),
    "strided": memoryview(b"abcdef")[::2],
    "strided writable": memoryview(bytearray(b"abcdef"))[::-2],
    "numpy": memoryview(np.arange(6, dtype=np.int32).reshape(2, 3)),
    "fortran order": memoryview(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    "large": memoryview(np.arange(100_000)),
    "empty": memoryview(b""),
    "empty of numbers": memoryview(array.array("i")),
    "empty of a shape": memoryview(np.empty((0, 3))),
    "no dimensions": memoryview(np.array(1.5)),
}


def same(value: Any) -> Any:
    return value


def facts(view: memoryview) -> tuple[Any, ...]:
    return type(view), view.format, view.shape, view.readonly, view.tobytes()


@pytest.mark.parametrize("kind", VIEWS)
def test_a_memoryview_keeps_its_type_format_and_shape(executor, kind):
    given = VIEWS[kind]
    pipeline = Pipeline("views").add_step(same, "result", {"value": given}).add_step(facts, inputs=["result"])
    result = pipeline.run(executor=executor)
    assert facts(result["result"]) == result["facts"] == facts(given)


def test_a_nested_memoryview_is_one(executor):
    result = Pipeline("nested").add_step(same, "result", {"value": {"a": [VIEWS["array"]]}}).run(executor=executor)
    assert facts(result["result"]["a"][0]) == facts(VIEWS["array"])


def test_a_memoryview_that_nothing_can_make_again_is_refused():
    def structured():
        return {"view": memoryview(np.zeros(2, [("a", "i4"), ("b", "f8")]))}

    with ParallelExecutor(1) as processes:
        (failed,) = Pipeline("p").add_step(structured).run(executor=processes).failed
    assert "['view']: cannot pickle a memoryview of format 'T{i:a:=d:b:}'" in failed.error_line


def test_an_array_of_ctypes_is_one(executor):
    def made():
        return [(ctypes.c_int * 3)(1, 2, 3), ((ctypes.c_double * 2) * 2)((1.5, 2), (3, 4))]

    pipeline = Pipeline("ctypes").add_step(made, "made").add_step(lambda made: made[1][1][0], "read")
    result = pipeline.run(executor=executor)
    assert list(map(type, result["made"])) == list(map(type, made()))
    assert (result["made"][0][:], result["read"]) == ([1, 2, 3], 3)


class KeywordOnlyError(Exception):
    def __init__(self, *, code: int):
        super().__init__(f"code {code}")
        self.code = code


class PutTogetherError(Exception):
    def __init__(self, text: str = "", *, level: int = 1):
        super().__init__(f"<{text}>")
        self.level = level


class OwnGroup(ExceptionGroup):
    def __new__(cls, errors: list[Exception], *, stage: str):
        made = super().__new__(cls, f"in {stage}", errors)
        made.stage = stage
        return made

    def __init__(self, *args: Any, stage: str):
        pass


class SlottedError(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int, reason: str):
        super().__init__(reason)
        self.code = code


@dataclasses.dataclass
class Outcome:
    error: Exception


def noted() -> KeywordOnlyError:
    error = KeywordOnlyError(code=1)
    error.add_note("a note")
    return error


def itself() -> KeywordOnlyError:
    error = KeywordOnlyError(code=1)
    error.me = error
    return error


def look(error: BaseException) -> Any:
    """Return what is to be the same on both sides."""
    held = {name: value for name, value in vars(error).items() if not isinstance(value, BaseException)}
    members = [look(each) for each in getattr(error, "exceptions", ())]
    return type(error).__name__, str(error), getattr(error, "code", None), held, members


EXCEPTIONS = {
    "keyword-only": lambda: KeywordOnlyError(code=3),
    "a message put together": lambda: PutTogetherError("x", level=2),
    "slots": lambda: SlottedError(3, "because"),
    "a group": lambda: ExceptionGroup("all", [KeywordOnlyError(code=1), PutTogetherError("y")]),
    "a group with arguments of its own": lambda: OwnGroup([KeywordOnlyError(code=1)], stage="load"),
    "notes": noted,
    "one that holds itself": itself,
    "of the system": lambda: FileNotFoundError(2, "not there", "x.csv"),
}


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_an_exception_that_is_returned_or_given_is_the_same(executor, kind):
    make = EXCEPTIONS[kind]
    pipeline = Pipeline("errors").add_step(make, "result").add_step(look, inputs=["result"])
    pipeline.add_step(look, "given", {"error": make()})
    result = pipeline.run(executor=executor)
    assert look(result["result"]) == result["look"] == result["given"] == look(make())
    assert type(result["result"]) is type(make())


@pytest.mark.parametrize("wrap", [lambda error: [1, {"a": (error,)}], Outcome], ids=["containers", "an object"])
def test_an_exception_inside_a_value_is_the_same(executor, wrap):
    result = Pipeline("p").add_step(lambda: wrap(PutTogetherError("x", level=2)), "result").run(executor=executor)
    value = result["result"]
    error = value.error if isinstance(value, Outcome) else value[1]["a"][0]
    assert look(error) == look(PutTogetherError("x", level=2))


@pytest.mark.parametrize("kind", ["keyword-only", "array"])
def test_the_cache_gives_back_the_same(executor, tmp_path, kind):
    make = EXCEPTIONS.get(kind) or (lambda: VIEWS[kind])
    cached = step(make, name="result", cache=True)
    runs = [Pipeline("p", cache_dir=tmp_path).add_step(cached).run(executor=executor) for _ in range(2)]
    assert [str(result.step_results["result"].state) for result in runs] == ["success", "cached"]
    first, second = (result["result"] for result in runs)
    assert (facts if kind == "array" else look)(first) == (facts if kind == "array" else look)(second)
