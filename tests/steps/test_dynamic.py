"""Dynamic steps: a step returns a pipeline, and its steps run in its place, on every executor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from dynamic_pipelines import add, error, making, numbers, same, total, tower
from step_states import states

from flowyml import OutputMismatchError, Pipeline, PipelineValidationError, RetryConfig, dynamic, step

if TYPE_CHECKING:
    from flowyml import Executor


# ---- values and names ----------------------------------------------------------------------------------------------


def test_its_steps_stand_behind_its_name_and_after_it(executor: Executor) -> None:
    whole = Pipeline("whole").add_step(numbers, params={"count": 3}).add_step(len, inputs=["numbers"])
    result = whole.run(executor=executor)
    assert list(result.step_results) == ["numbers", "numbers.n0", "numbers.n1", "numbers.n2", "len"]
    assert set(states(result).values()) == {"success"}
    assert dict(result.outputs) == {
        "numbers": {"n0": 0, "n1": 1, "n2": 2},
        "numbers.n0": 0,
        "numbers.n1": 1,
        "numbers.n2": 2,
        "len": 3,
    }
    assert result["numbers.n1"] == result.step_results["numbers.n1"].output == 1


def test_the_order_of_results_is_that_of_the_pipeline(executor: Executor) -> None:
    whole = Pipeline("whole")
    for name in ("first", "second", "third"):
        whole.add_step(numbers, name, {"count": 2})
    names = [f"{name}{part}" for name in ("first", "second", "third") for part in ("", ".n0", ".n1")]
    assert list(whole.run(executor=executor).step_results) == names


def test_of_one_last_asset_it_has_the_value(executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p").map(add, [1, 2, 3], name="plus", params={"right": 10}).add_step(total, inputs=["plus"])

    result = making(build).run(executor=executor)
    assert (result["made"], list(result["made.plus"]), result["made.plus[1]"]) == (36, [11, 12, 13], 12)


def test_a_mapped_step_at_the_end_is_a_list(executor: Executor) -> None:
    result = (
        making(lambda: Pipeline("p").map(abs, [-1, -2], name="sizes"))
        .add_step(total, inputs=["made"])
        .run(executor=executor)
    )
    assert (list(result["made"]), result["total"]) == ([1, 2], 3)


def test_several_outputs_of_a_last_step_are_several_values(executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p").add_step(lambda: (1, 2), "two", outputs=["low", "high"])

    assert making(build).run(executor=executor)["made"] == {"low": 1, "high": 2}


def test_declared_outputs_are_assets_of_the_pipeline(executor: Executor) -> None:
    def build() -> Pipeline:
        made = Pipeline("p").add_step(lambda: (1, 2), "two", outputs=["low", "high"])
        return made.add_step(lambda low: low + 10, "end").add_step(same, "other", {"value": 0})

    one = making(build, outputs=["end"]).add_step(same, "last", inputs=["end"]).run(executor=executor)
    assert (one["end"], one["made"], one["last"]) == (11, 11, 11)
    several = making(build, outputs=["end", "high"]).add_step(add, "sum", inputs=["end", "high"]).run(executor=executor)
    assert (several["end"], several["high"], several["made"], several["sum"]) == (11, 2, (11, 2), 13)
    error_ = error(making(build, outputs=["end", "hihg"]).run(executor=executor))
    assert isinstance(error_, PipelineValidationError)
    assert re.search(r"'made' declares output 'hihg', which .* does not produce; did you mean 'high'\?", str(error_))
    named = making(build, outputs=["all"]).add_step(len, inputs=["all"]).run(executor=executor)
    assert (named["all"], named["len"]) == ({"end": 11, "other": 0}, 2)


def test_whatever_else_it_returns_is_its_value(executor: Executor) -> None:
    assert making(lambda: 7).run(executor=executor)["made"] == 7
    assert making(lambda: None).run(executor=executor)["made"] is None
    result = making(lambda: (1, 2), outputs=["a", "b"]).run(executor=executor)
    assert (result["a"], result["b"]) == (1, 2)
    assert isinstance(error(making(lambda: 7, outputs=["a", "b"]).run(executor=executor)), OutputMismatchError)


def test_a_pipeline_without_steps_gives_no_values(executor: Executor) -> None:
    assert making(lambda: Pipeline("none")).run(executor=executor)["made"] == {}


def test_a_dynamic_step_may_return_another(executor: Executor) -> None:
    result = Pipeline("whole").add_step(tower, params={"height": 4}).run(executor=executor)
    assert result["tower"] == 5
    assert result["tower.up.up.up.up"] == 1
    assert len(result.step_results) == 9


def test_coroutines_and_methods_may_be_dynamic(executor: Executor) -> None:
    class Maker:
        def __init__(self, count: int) -> None:
            self.count = count

        @dynamic
        def make(self) -> Pipeline:
            return Pipeline("p").add_step(same, "count", {"value": self.count})

    @dynamic
    async def soon(count: int) -> Pipeline:
        return Pipeline("p").add_step(same, "count", {"value": count})

    whole = Pipeline("whole").add_step(Maker(3).make).add_step(soon, params={"count": 4})
    result = whole.run(executor=executor)
    assert (result["make"], result["soon"]) == (3, 4)


def test_above_step_and_with_its_options() -> None:
    @dynamic
    @step(name="other", outputs=["x"], retry=2)
    def build() -> Pipeline:
        return Pipeline("p").add_step(same, "x", {"value": 1})

    assert (build.name, build.outputs, build.retry) == ("other", ("x",), RetryConfig(3))
    assert build().name == "p"
    assert Pipeline("whole").add_step(build).run()["x"] == 1
    assert "dynamic=True" in str(Pipeline("whole").add_step(build).explain("other"))


# ---- what its steps see --------------------------------------------------------------------------------------------


def test_what_they_lack_is_looked_for_around(executor: Executor) -> None:
    @dynamic
    def build() -> Pipeline:
        made = Pipeline("p", context={"own": 1}).add_step(lambda raw, own, far, given: (raw, own, far, given), "all")
        return made.add_step(same, "declared", inputs=["raw"])

    whole = Pipeline("whole", context={"own": 9, "far": 2}).add_step(same, "raw", {"value": 0}).add_step(build)
    result = whole.run({"given": 3}, executor=executor)
    assert result["build"] == {"all": (0, 1, 2, 3), "declared": 0}


def test_inside_a_sub_pipeline_that_is_what_is_inside(executor: Executor) -> None:
    inner = (
        Pipeline("inner", context={"far": 1})
        .add_step(same, "raw", {"value": 5})
        .add_step(dynamic(lambda: Pipeline("p").add_step(lambda raw, far: raw + far, "sum")), name="made")
    )
    whole = Pipeline("whole", context={"far": 9}).add_step(same, "raw", {"value": 0}).add_sub_pipeline(inner)
    result = whole.run(executor=executor)
    assert (result["inner.made"], result["inner.made.sum"]) == (6, 6)


def test_steps_of_other_dynamic_steps_are_not_seen(executor: Executor) -> None:
    @dynamic
    def build(numbers: object) -> Pipeline:
        return Pipeline("p").add_step(same, "reads", inputs=["numbers.n0"])

    result = Pipeline("whole").add_step(numbers, params={"count": 1}).add_step(build).run(executor=executor)
    assert "requires undefined asset 'numbers.n0'" in str(error(result, "build"))


def test_a_step_that_reads_what_waits_for_it_is_a_cycle(executor: Executor) -> None:
    whole = making(lambda: Pipeline("p").add_step(same, "reads", inputs=["after"])).add_step(lambda made: made, "after")
    result = whole.run(executor=executor)
    assert isinstance(error(result), PipelineValidationError)
    assert "Pipeline contains cycles! " in str(error(result))
    assert states(result) == {"made": "failed", "after": "upstream_failed"}


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: Pipeline("p").add_step(same, inputs=["nothing"]),
            "Node 'made.same' requires undefined asset 'nothing'",
        ),
        (lambda: Pipeline("p").add_step(same), r"Missing required parameters: \['value'\]"),
        (lambda: Pipeline("p").add_step(same, "taken", {"value": 1}), "there is a step 'made.taken' already"),
        (
            lambda: Pipeline("p").add_step(same, "a", inputs=["b"]).add_step(same, "b", inputs=["a"]),
            "Pipeline contains cycles! made.a → made.b → made.a",
        ),
    ],
    ids=["undefined", "missing", "taken", "cycle"],
)
def test_what_is_wrong_with_the_pipeline_is_the_steps_failure(build: Any, words: str, executor: Executor) -> None:
    whole = making(build).add_step(same, "made.taken", {"value": 1}).add_step(same, "beside", {"value": 1})
    result = whole.run(executor=executor)
    assert isinstance(error(result), PipelineValidationError)
    assert re.search(words, str(error(result)))
    assert states(result) == {"made": "failed", "made.taken": "success", "beside": "success"}


# ---- who returns a pipeline without saying so ----------------------------------------------------------------------


def test_a_step_that_is_not_dynamic_fails(executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p")

    whole = Pipeline("whole").add_step(build).add_step(build, "two", outputs=["a", "b"])
    whole.map(lambda n: build() if n else n, [0, 1], name="items").add_step(len, inputs=["build"])
    result = whole.run(executor=executor)
    assert states(result) == {"build": "failed", "two": "failed", "items": "failed", "len": "upstream_failed"}
    for name in ("build", "two", "items"):
        assert isinstance(error(result, name), TypeError)
        assert re.search(r"step '[a-z]+(\[1\])?' returned the pipeline 'p': with @dynamic", str(error(result, name)))
    assert result["items"][0] == 0


def test_a_dynamic_step_cannot_be_mapped() -> None:
    with pytest.raises(TypeError, match="step 'numbers' is dynamic, so it cannot be mapped"):
        Pipeline("p").map(numbers, [1, 2])
