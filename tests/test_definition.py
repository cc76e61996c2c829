"""A pipeline described (`to_definition`), its groups of steps, and `flowyml.visualize.show`."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import flowyml
from flowyml import Pipeline, step
from flowyml.visualize import show

if TYPE_CHECKING:
    from pathlib import Path


@step(outputs=["rows", "labels"], tags={"team": "ml"}, retry=2)
def load() -> tuple[list[int], list[str]]:
    return [1], ["a"]


def pipeline() -> Pipeline:
    made = Pipeline("described").add_step(load).add_step(len, inputs=["rows"], condition=bool)
    return made.map(pow, range(3), params={"exp": object()})


def test_a_definition_is_json_and_has_no_values() -> None:
    definition = pipeline().to_definition()
    first, second, third = json.loads(json.dumps(definition))["steps"]
    source = first.pop("source_code")
    assert first == {
        "name": "load",
        "function": f"{__name__}:load",
        "inputs": [],
        "outputs": ["rows", "labels"],
        "params": [],
        "mapped": False,
        "items": None,
        "tags": {"team": "ml"},
        "execution_group": None,
        "options": first["options"],
    }
    assert "max_attempts" in first["options"]["retry"]
    assert source.startswith("@step(outputs=")
    assert (second["function"], second["source_code"], list(second["options"])) == ("builtins:len", "", ["condition"])
    assert (third["items"], third["params"]) == (3, ["exp"])
    assert definition["dag"]["edges"] == [{"source": "load", "target": "len"}]
    assert definition["dag"]["nodes"][1] == {"name": "len", "inputs": ["rows"], "outputs": ["len"]}


def test_the_source_of_a_step_is_read_when_somebody_asks() -> None:
    assert load.source_code.startswith("@step(outputs=")
    assert step(len).source_code == ""


def test_groups_of_steps() -> None:
    with pytest.warns(UserWarning, match=r"execution_group= names a group for Pipeline.step_groups") as caught:

        @step(execution_group="prepare")
        def clean(load: Any) -> Any:
            return load

    assert caught[0].filename == __file__
    assert clean.execution_group == "prepare"
    made = Pipeline("p").add_step(clean, name="again", inputs=["clean"]).add_step(clean)
    made.add_step(lambda: 1, name="load").add_step(lambda clean: clean, name="use")
    (group,) = made.step_groups
    assert (group.group_name, group.execution_order, group.steps) == ("prepare", ["clean", "again"], [clean, clean])
    assert made.run()["use"] == 1


@pytest.mark.parametrize("way", ["add_step", "map"])
def test_a_group_that_is_given_where_a_step_is_added(way: str) -> None:
    """It stands in the place of the step's own, with the same warning, at the line that gives it."""
    made = Pipeline("p")
    items: dict[str, Any] = {"items": [1, 2]} if way == "map" else {}
    with pytest.warns(UserWarning, match=r"execution_group= names a group for Pipeline.step_groups") as caught:
        getattr(made, way)(abs, name="size", execution_group="measure", **items)
    assert [(each.group_name, each.execution_order) for each in made.step_groups] == [("measure", ["size"])]
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize("way", ["add_step", "map"])
def test_a_group_is_named_by_a_text(way: str) -> None:
    with (
        pytest.warns(UserWarning, match="names a group"),
        pytest.raises(TypeError, match="execution_group of step 'abs' must be a text, got int 3"),
    ):
        getattr(Pipeline("p"), way)(abs, execution_group=3)


def test_a_pipeline_without_groups_has_none() -> None:
    assert pipeline().step_groups == []


def test_show_prints_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(pipeline())
    show(pipeline().dag, format="mermaid")
    text = capsys.readouterr().out
    assert text == pipeline().visualize() + "\n" + pipeline().visualize("mermaid") + "\n"


def test_show_lets_a_notebook_draw(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Shell:
        kernel = True

    class IPython:
        @staticmethod
        def get_ipython() -> Shell:
            return Shell()

        class display:  # noqa: N801
            shown: list[Any] = []  # noqa: RUF012
            display = shown.append

    monkeypatch.setitem(sys.modules, "IPython", IPython)  # type: ignore[arg-type]
    made = pipeline()
    show(made)
    assert (IPython.display.shown, capsys.readouterr().out) == ([made], "")


def test_the_module_takes_nobodys_place() -> None:
    assert "visualize" not in flowyml.__all__
    assert callable(Pipeline.visualize)


def test_to_networkx_says_what_is_missing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['networkx'] = None\n"
        "from flowyml import Pipeline\n"
        "try: Pipeline('p').dag.to_networkx()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "to_networkx() needs networkx: pip install networkx"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_has_the_same_steps_and_goes_its_own_way(copied: Any) -> None:
    told: list[str] = []
    first = Pipeline("p", context={"x": 2}).add_step(abs, "a", {"x": -1}).map(lambda y, x: x * y, [1, 2], name="m")
    first.hooks.on_pipeline_end(lambda pipeline, result: told.append(pipeline.name))
    second = copied(first)
    second.add_step(sum, "s", inputs=["m"])
    second.context.update({"x": 5})
    second.hooks.on_pipeline_start(lambda pipeline: told.append("second"))
    assert (dict(first.run().outputs).keys(), list(first.run()["m"])) == ({"a", "m"}, [2, 4])
    assert second.run()["s"] == 15
    assert told == ["p", "p", "second", "p"]
    assert first.dag.edges["m"] == set()
    assert second.dag.edges["s"] == {"m"}
