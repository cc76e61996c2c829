"""Steps that one line adds and that differ in what they produce: each produces its own assets, on every executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flowyml import Executor, OutputMismatchError, Pipeline, PipelineValidationError, step
from flowyml.planning import binding

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 40
KINDS = ["tuple", "list", "dict", "many", "array", "wrong"]


def pair(number: int, kind: str = "tuple") -> Any:
    """Return two values in one of the ways in which a step may do so; "many" does not fit into the results ring."""
    first, second = number, str(number)
    values = {
        "tuple": (first, second),
        "list": [first, second],
        "dict": {f"{number}.second": second, f"{number}.first": first},
        "many": (first, second * 20_000),
        "array": (first, [second] * 3),
        "wrong": (first,),
    }
    return values[kind]


def expected(number: int, kind: str) -> Any:
    found = pair(number, kind)
    return [found[f"{number}.first"], found[f"{number}.second"]] if kind == "dict" else list(found)


def added(kinds: list[str], *, twice: bool = False) -> Pipeline:
    pipeline = Pipeline("outputs")
    for number, kind in enumerate(kinds):
        params = {"number": number, "kind": kind} if twice or kind != "tuple" else {"number": number}
        pipeline.add_step(pair, f"s{number}", params, outputs=[f"{number}.first", f"{number}.second"])
    return pipeline


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_each_step_has_its_own_assets(executor: Executor, kind: str) -> None:
    result = added([kind] * COUNT).run(executor=executor)
    assert result.success
    assert dict(result.outputs) == {
        f"{number}.{which}": value
        for number in range(COUNT)
        for which, value in zip(("first", "second"), expected(number, kind), strict=True)
    }
    assert [result[f"s{number}"] for number in range(COUNT)] == [pair(number, kind) for number in range(COUNT)]


def test_kinds_of_return_values_may_be_mixed(executor: Executor) -> None:
    kinds = [KINDS[number % len(KINDS)] for number in range(COUNT)]
    result = added(kinds, twice=True).run(executor=executor)
    failed = [f"s{number}" for number, kind in enumerate(kinds) if kind == "wrong"]
    assert [each.step_name for each in result.failed] == failed
    assert all(isinstance(each.exception, OutputMismatchError) for each in result.failed)
    number = kinds.index("wrong")
    assert f"'{number}.first', '{number}.second'" in str(result.failed[0].exception)
    for number, kind in enumerate(kinds):
        if kind != "wrong":
            found = [result[f"{number}.first"], result[f"{number}.second"]]
            assert found == expected(number, kind)


def test_what_reads_them_gets_those_of_the_step_it_names(executor: Executor) -> None:
    pipeline = added(["tuple"] * COUNT)
    for number in range(COUNT):
        pipeline.add_step(
            lambda left, right: (left, right), f"r{number}", inputs=[f"{number}.second", f"{COUNT - 1 - number}.first"]
        )
    result = pipeline.run(executor=executor)
    assert [result[f"r{number}"] for number in range(COUNT)] == [(str(n), COUNT - 1 - n) for n in range(COUNT)]


def test_one_output_or_none_and_several_from_one_line(executor: Executor) -> None:
    pipeline = Pipeline("outputs")
    declared: list[Any] = [None, "a", ["b"], ["c", "d"], ("e", "f"), None, ["g", "h"], "i", [], ["j", "k"]]
    for number, outputs in enumerate(declared):
        pipeline.add_step(lambda number: (number, -number), f"s{number}", {"number": number}, outputs=outputs)
    result = pipeline.run(executor=executor)
    assert dict(result.outputs) == {
        "s0": (0, 0),
        "a": (1, -1),
        "b": (2, -2),
        "c": 3,
        "d": -3,
        "e": 4,
        "f": -4,
        "s5": (5, -5),
        "g": 6,
        "h": -6,
        "i": (7, -7),
        "s8": (8, -8),
        "j": 9,
        "k": -9,
    }


def test_a_step_does_not_read_its_own_output(executor: Executor) -> None:
    """Its parameter has the name of the asset that one of the steps produces: that one takes its default."""
    pipeline = Pipeline("outputs")
    for name in ("a", "x", "b"):
        pipeline.add_step(lambda x="default": x, f"s_{name}", outputs=[name])
    result = pipeline.run(executor=executor)
    assert dict(result.outputs) == {"a": "default", "x": "default", "b": "default"}


def test_steps_added_alike_are_wired_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(binding.VERIFY, raising=False)
    wired: list[Any] = []
    bind = binding.Binder.bind
    monkeypatch.setattr(binding.Binder, "bind", lambda self: wired.append(self) or bind(self))
    added(["tuple"] * COUNT).build()
    assert len(wired) == 1


@pytest.mark.parametrize("outputs", [["x", "x"], [""], [3, "y"], {"x": 1}, [["x"], "y"], b"xy"], ids=repr)
def test_what_is_no_list_of_names_is_refused_for_each_step(outputs: Any) -> None:
    pipeline = Pipeline("outputs")
    for number, own in enumerate([["a", "b"], ["c", "d"]]):
        pipeline.add_step(pair, f"s{number}", {"number": number}, outputs=own)
    with pytest.raises((TypeError, ValueError), match="output"):
        [pipeline.add_step(pair, name, {}, outputs=own) for name, own in (("e", ["e", "f"]), ("g", outputs))]


@pytest.mark.parametrize("name", ["3.first", "s3"])
def test_a_name_that_is_taken_is_found(name: str) -> None:
    pipeline = added(["tuple"] * COUNT).add_step(pair, "last", {"number": 1}, outputs=[name, "other"])
    with pytest.raises(PipelineValidationError, match=repr(name)):
        pipeline.build()


def test_options_of_a_step_hold_for_each(executor: Executor) -> None:
    calls = step(retry=1)(pair)
    pipeline = Pipeline("outputs")
    for number in range(5):
        pipeline.add_step(
            calls, f"s{number}", {"number": number, "kind": "wrong"}, outputs=[f"{number}.a", f"{number}.b"]
        )
    result = pipeline.run(executor=executor)
    assert [each.attempts for each in result.failed] == [2] * 5


def test_a_sub_pipeline_has_the_outputs_behind_its_prefix(executor: Executor) -> None:
    part = added(["tuple", "dict", "list"])
    whole = Pipeline("whole").add_sub_pipeline(part, name="one").add_sub_pipeline(part, name="two")
    result = whole.run(executor=executor)
    assert (result["one.1.second"], result["two.2.first"], result["two.s1"]) == ("1", 2, pair(1, "dict"))


@pytest.mark.parametrize("option", ["cache", "journal"])
def test_what_a_value_is_taken_apart_into_is_part_of_its_key(tmp_path: Path, executor: Executor, option: str) -> None:
    """Equal calls whose outputs have other names: a dict fits only those that are its keys."""

    def run(*names: str) -> Any:
        pipeline = Pipeline(
            "keys", cache_dir=tmp_path, checkpoint_dir=tmp_path, enable_checkpointing=option == "journal"
        )
        made = step(cache=option == "cache")(lambda keys: dict.fromkeys(keys, 1))
        for keys, outputs in zip(("ab", "cd"), names, strict=True):
            pipeline.add_step(made, f"makes {keys}", {"keys": keys}, outputs=[*outputs])
        return pipeline.add_step(lambda: 1 / 0, "fails").run(executor=executor)

    def states(result: Any) -> list[str]:
        return [result.step_results[f"makes {keys}"].state for keys in ("ab", "cd")]

    assert states(run("ab", "cd")) == ["success", "success"]
    assert states(run("ab", "ce")) == ["cached", "failed"]
