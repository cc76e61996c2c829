"""`pipeline.explain`: where each argument would come from, by which rule, and what is wrong."""

from __future__ import annotations

import pytest

import flowyml
from flowyml import If, Pipeline, retry, step


@step(outputs=["raw", "labels"])
def load(path):
    return path, path


@step(inputs={"data": "raw"}, retry=3)
def train(data, labels, rate, x, n=3):
    return data, labels, rate, x, n


@pytest.fixture
def pipeline() -> Pipeline:
    made = Pipeline("p", context={"rate": 0.1}).add_step(load).add_step(train, params={"x": 1})
    return made.add_step(len, name="report", inputs=["train"])


def sources(pipeline: Pipeline, name: str) -> dict[str, str]:
    return {argument.parameter: argument.source for argument in pipeline.explain(name).arguments}


def test_every_source_has_its_rule(pipeline):
    assert sources(pipeline, "train") == {
        "data": "asset 'raw' of step 'load' (declared input)",
        "labels": "asset 'labels' of step 'load' (implicit: it has the parameter's name)",
        "rate": "context",
        "x": "params",
        "n": "default 3",
    }


def test_the_text_says_all_of_it(pipeline):
    text = str(pipeline.explain("train"))
    assert text == repr(pipeline.explain("train"))
    for line in [
        "    x: params",
        "  Waits for: 'load'",
        "  Needed by: 'report'",
        "  Options: retry=",
        "Step 'train': 'train', added at ",
    ]:
        assert line in text
    assert f"{__file__}:" in text
    assert "Problems" not in text


def test_the_parts_can_be_asked_for(pipeline):
    told = pipeline.explain("train")
    assert (told.step_name, told.dependencies, told.dependents, told.items) == ("train", ("load",), ("report",), None)
    assert [each.parameter for each in told.arguments if each.implicit] == ["labels"]
    assert list(told.options) == ["retry"]
    assert [each.assets for each in told.arguments][:2] == [("raw",), ("labels",)]


def test_what_run_must_give_is_missing(pipeline):
    assert pipeline.explain("load").missing == ("path",)
    assert sources(pipeline, "load")["path"].startswith("no source yet")


def test_the_whole_context():
    assert sources(Pipeline("p").add_step(lambda context: context, name="a"), "a") == {"context": "the whole context"}


def test_the_output_of_a_step_without_declared_outputs():
    made = Pipeline("p").add_step(dict, name="raw").add_step(len, inputs=["raw"])
    assert sources(made, "len") == {"obj": "output of step 'raw' (declared input)"}


def test_a_glob_is_a_list_of_assets():
    made = Pipeline("p")
    for i in range(7):
        made.add_step(dict, name=f"d{i}")
    told = sources(made.add_step(len, inputs=["d*"]), "len")["obj"]
    assert told == "list of 7 assets: 'd0', 'd1', 'd2', 'd3', 'd4' and 2 more (declared input 'd*')"


def test_a_map_and_what_reads_it():
    made = Pipeline("p").map(len, ["a", "bc"], name="sizes").add_step(sum, inputs=["sizes"])
    assert sources(made, "sizes") == {"obj": "the item, one of 2"}
    assert sources(made, "sum")["iterable"] == "list of the 2 results of step 'sizes' (declared input)"
    assert "Mapped: runs once for each of 2 items" in str(made.explain("sizes"))


def test_arguments_of_star_args():
    made = Pipeline("p").add_step(dict, name="a").add_step(dict, name="b")
    made.add_step(lambda *values: values, name="all", inputs=["a", "b"])
    told = made.explain("all").arguments
    assert [(each.parameter, each.assets) for each in told] == [("*values", ("a",)), ("*values", ("b",))]


def test_a_builtin_without_a_signature():
    made = Pipeline("p").add_step(dict, name="a").add_step(max, params={"default": 1}, inputs=["a"], name="m")
    assert [each.source for each in made.explain("m").arguments] == ["params", "output of step 'a' (declared input)"]


def test_after_is_waited_for_and_no_argument():
    made = Pipeline("p").add_step(dict, name="a").add_step(dict, name="b", after="a")
    assert (made.explain("b").dependencies, made.explain("b").arguments) == (("a",), ())


def test_an_asset_stands_for_its_step(pipeline):
    assert pipeline.explain("labels").step_name == "load"


@pytest.mark.parametrize(("wrong", "near"), [("trian", "train"), ("repotr", "report")])
def test_a_misspelled_name_gets_the_nearest(pipeline, wrong, near):
    with pytest.raises(KeyError, match=f"no step '{wrong}' in pipeline 'p'; did you mean '{near}'"):
        pipeline.explain(wrong)


def test_a_context_value_set_later_is_seen(pipeline):
    pipeline.context.update(path="/data")
    assert sources(pipeline, "load") == {"path": "context"}


# -- pipelines that are not valid


def test_an_undefined_asset_is_told():
    made = Pipeline("p").add_step(dict, name="rows").add_step(len, inputs=["rwos"])
    told = made.explain("len")
    assert told.arguments[0].source == "asset 'rwos', which no step produces"
    assert told.problems == ("requires undefined asset 'rwos'; did you mean 'rows'?",)
    assert "Problems:" in str(told)


def test_an_unknown_parameter_is_told():
    made = Pipeline("p").add_step(load, params={"paht": 1})
    assert made.explain("load").problems == ("unknown parameter 'paht' in params; did you mean 'path'?",)


def test_a_cycle_is_told_where_it_is():
    made = Pipeline("p").add_step(lambda b: b, name="a").add_step(lambda a: a, name="b").add_step(dict, name="c")
    assert made.explain("b").problems == ("is in a cycle: a → b → a",)
    assert made.explain("c").problems == ()


def test_a_valid_step_of_an_invalid_pipeline():
    made = Pipeline("p").add_step(dict, name="a").add_step(len, inputs=["nowhere"])
    assert made.explain("a").problems == ()


def test_options_of_add_step_are_told():
    made = Pipeline("p").add_step(load, retry=retry(max_attempts=4))
    assert isinstance(made.explain("load").options["retry"], flowyml.RetryConfig)


def test_a_condition_is_told_by_its_name_and_place():
    made = Pipeline("p").add_step(len, name="some", params={"obj": ""}, condition=lambda obj: obj)
    made.add_step(len, name="none", params={"obj": ""}, skip_if=bool)
    assert "Options: condition=<lambda> (test_explain.py:" in str(made.explain("some"))
    assert "Options: skip_if=not bool" in str(made.explain("none"))


def test_what_a_condition_reads_is_told():
    made = Pipeline("p", context={"limit": 3}).add_step(dict, name="rows")
    made.add_step(lambda rows: rows, name="big", condition=lambda rows, limit: len(rows) > limit)
    made.add_step(lambda rows: rows, name="any", condition=lambda it: it)
    assert sources(made, "big")["limit"] == "context"
    assert list(sources(made, "any")) == ["rows"]
    assert list(made.explain("any").options) == ["condition"]


def test_a_branch_names_the_decision_that_chooses_it():
    pipeline = Pipeline("gate").add_step(lambda: 1, name="load").add_control_flow(If(lambda ctx: True, abs))
    (argument,) = [each for each in pipeline.explain("abs").arguments if each.parameter == "if_1"]
    assert argument.source == "output of step 'if_1' (the decision that chooses this branch)"
