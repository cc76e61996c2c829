"""`Pipeline(auto_discover=True)`: the steps that `@step` has made, for this pipeline or for all."""

from __future__ import annotations

import gc

import pytest

from flowyml import Pipeline, PipelineValidationError, Step, registry, step


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without the steps of other tests."""
    made = registry._StepRegistry()
    monkeypatch.setattr(registry, "_registry", made)
    monkeypatch.setattr(registry, "register", made.add)


def test_a_pipeline_finds_its_steps_and_those_for_all() -> None:
    @step(pipeline="training")
    def load() -> list[int]:
        return [1, 2]

    @step
    def total(load: list[int]) -> int:
        return sum(load)

    @step(pipeline="other")
    def strange() -> None: ...

    @step(register=False)
    def helper() -> None: ...

    pipeline = Pipeline("training", auto_discover=True)
    assert dict(pipeline.run().outputs) == {"load": [1, 2], "total": 3}
    assert [each.name for each in pipeline.steps] == ["load", "total"]
    assert [load.tags, total.tags, strange.name, helper.name] == [{}, {}, "strange", "helper"]


def test_the_last_definition_of_a_name_wins() -> None:
    made = []
    for k in range(3):

        @step(name="answer")
        def answer(k: int = k) -> int:
            return k

        made.append(answer)
    assert Pipeline("p", auto_discover=True).run()["answer"] == 2


def test_a_pipelines_own_step_goes_before_one_for_all() -> None:
    mine = step(name="load", pipeline="p")(lambda: "mine")
    everybodys = step(name="load")(lambda: "everybody's")
    assert Pipeline("p", auto_discover=True).run()["load"] == mine()
    assert Pipeline("q", auto_discover=True).run()["load"] == everybodys()


def test_steps_that_were_added_are_all_there_is() -> None:
    other = step(name="other")(lambda: 1)
    pipeline = Pipeline("p", auto_discover=True).add_step(lambda: 2, name="mine")
    assert list(pipeline.run().outputs) == ["mine"]
    assert other.name == "other"


def test_a_step_that_is_gone_is_not_found() -> None:
    step(name="gone")(lambda: 1)
    stays = step(name="stays")(lambda: 1)
    gc.collect()
    assert registry.registered("p") == [stays]


def test_what_is_gone_does_not_pile_up() -> None:
    kept = [step(name=f"kept_{k}")(lambda: 1) for k in range(10)]
    for k in range(5_000):
        step(name=f"gone_{k}")(lambda: 1)
    assert len(registry._registry._steps) <= 1_001
    assert registry.registered("p") == kept


def test_plain_steps_and_copies_are_not_found() -> None:
    made = Step(len)
    assert registry.registered("p") == []
    assert made.name == "len"


def test_nothing_to_find_is_told() -> None:
    train = step(pipeline="training")(lambda: 1)
    with pytest.warns(UserWarning, match="no step for pipeline 'trainning'; there are some for 'training'") as caught:
        Pipeline("trainning", auto_discover=True).run()
    assert caught[0].filename == __file__
    assert train() == 1


def test_messages_name_the_place_of_the_function() -> None:
    @step
    def train(rows: int) -> int:
        return rows

    with pytest.raises(PipelineValidationError, match=f"{__file__}:{train.func.__code__.co_firstlineno}"):
        Pipeline("p", auto_discover=True).run()


def test_the_graph_finds_them_too() -> None:
    train = step(name="train")(lambda: 1)
    assert list(Pipeline("p", auto_discover=True).dag.nodes) == [train.name]
