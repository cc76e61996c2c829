"""Probes B1 to B9, and the rows of section 1.3: what a step is."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from flowyml import Pipeline, PipelineValidationError, Step, step


def plain() -> int:
    """Say one."""
    return 1


@step
def train(data: int = 2, *, rate: float = 0.5) -> float:
    """Train something."""
    return data * rate


@step(name="loaded", inputs=["raw"], outputs=["rows"])
def load(raw: Any) -> Any:
    return raw


async def fetch(url: str) -> str:
    return url.upper()


def gather(first: int, *rest: int, **more: int) -> tuple[Any, ...]:
    return first, rest, more


def by_position(a: int, b: int = 5, /) -> int:
    return 10 * a + b


def say(word: str) -> str:
    print(f"said {word}")
    return word


def test_B1_a_plain_function_is_added(executor: Any) -> None:
    assert Pipeline("p").add_step(plain).run(executor=executor)["plain"] == 1


def test_B2_add_step_chains() -> None:
    pipeline = Pipeline("p")
    assert pipeline.add_step(plain) is pipeline


def test_B3_the_same_step_twice_without_a_name_is_an_error_that_names_both_places() -> None:
    with pytest.raises(PipelineValidationError, match=r"'plain' was added already at .*:\d+, and again at .*:\d+"):
        Pipeline("p").add_step(plain).add_step(plain)


def test_B4_Q4_two_steps_of_one_name_may_be_defined() -> None:
    made = [step(name="train")(lambda k=k: k) for k in range(3)]
    assert [Pipeline("p").add_step(each).run()["train"] for each in made] == [0, 1, 2]


def test_B5_a_step_looks_like_its_function() -> None:
    assert (train.__name__, train.__doc__, train.__module__) == ("train", "Train something.", __name__)
    assert train.__wrapped__ is train.func  # type: ignore[attr-defined]
    assert inspect.signature(train) == inspect.signature(train.func)


def test_B6_a_coroutine_function_is_run(executor: Any) -> None:
    result = Pipeline("p").add_step(fetch, params={"url": "a"}).run(executor=executor)
    assert result["fetch"] == "A"


def test_B7_keyword_arguments_that_a_step_collects_get_their_values(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(plain).add_step(gather, params={"first": 0, "k": 1}, inputs={"rest": ["plain"]})
    assert pipeline.run(executor=executor)["gather"] == (0, (1,), {"k": 1})


def test_B8_positional_only_parameters_are_filled(executor: Any) -> None:
    assert Pipeline("p").add_step(by_position, params={"a": 1}).run(executor=executor)["by_position"] == 15
    assert Pipeline("p").add_step(by_position, params={"a": 1, "b": 2}).run(executor=executor)["by_position"] == 12


def test_B9_what_a_step_prints_is_shown_live_and_kept(executor: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert Pipeline("p").add_step(say, params={"word": "hello"}).run(executor=executor).success
    assert "said hello" in capfd.readouterr().out


def test_b_row_a_step_is_called_like_its_function() -> None:
    assert (train(), train(4, rate=1.0)) == (1.0, 4.0)


def test_b_row_the_decorator_has_two_forms_and_takes_keywords_only() -> None:
    assert isinstance(train, Step)
    assert (load.name, load.inputs, load.outputs) == ("loaded", ("raw",), ("rows",))
    with pytest.raises(TypeError):
        step(plain, "name")  # type: ignore[call-overload]


def test_b_row_a_step_pickles_by_name() -> None:
    assert pickle.loads(pickle.dumps(train)) is train


@pytest.mark.parametrize("inputs", ["part_1", ["part_1"], {"values": "part_1"}])
def test_b_row_inputs_are_a_name_names_or_a_mapping(inputs: Any, executor: Any) -> None:
    pipeline = Pipeline("p")
    for k in range(3):
        pipeline.add_step(by_position, name=f"part_{k}", params={"a": k})
    pipeline.add_step(gather, inputs={"first": inputs["values"]} if isinstance(inputs, dict) else inputs)
    assert pipeline.run(executor=executor)["gather"][0] == 15


def test_b_row_inputs_may_be_a_glob(executor: Any) -> None:
    pipeline = Pipeline("p")
    for k in range(3):
        pipeline.add_step(by_position, name=f"part_{k}", params={"a": k})
    assert pipeline.add_step(sum, inputs="part_*").run(executor=executor)["sum"] == 45


def test_b_row_attributes_keep_their_names() -> None:
    made = step(retry=2, timeout=3, tags={"team": "ml"}, condition=bool)(plain)
    assert (made.func, made.name, made.inputs, made.outputs) == (plain, "plain", None, ())
    assert made.retry is not None
    assert made.retry.max_attempts == 3
    assert (made.timeout, made.tags, made.condition) == (3.0, {"team": "ml"}, bool)
    assert made.source_code.startswith("def plain() -> int:")


def test_b_row_the_hash_of_a_steps_code_follows_what_it_does() -> None:
    made = [step(lambda x, k=k: x + k) for k in (1, 1, 2)]
    same, again, other = (each.get_code_hash() for each in made)
    assert same == again != other


def test_b_row_tags_choose_steps(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(plain, tags=["nightly"]).add_step(fetch)
    assert list(pipeline.run(targets="tag:nightly", executor=executor).outputs) == ["plain"]


def test_b_row_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises(TypeError, match="unknown keyword 'parallel'"):
        step(parallel=True)  # type: ignore[call-overload]
