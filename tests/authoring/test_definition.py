"""A pipeline described (`to_definition`), ignored and deleted names of 2.x, and `flowyml.visualize.show`."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import flowyml
from flowyml import Pipeline, dynamic, step
from flowyml.visualize import show

if TYPE_CHECKING:
    from collections.abc import Callable
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


@pytest.mark.parametrize("way", ["add_step", "map", "step", "dynamic"])
@pytest.mark.parametrize("group", ["prepare", 3])
def test_a_group_is_ignored_with_one_warning(way: str, group: Any) -> None:
    made = Pipeline("p")
    ways: dict[str, Callable[[], Any]] = {
        "add_step": lambda: made.add_step(abs, params={"x": -1}, execution_group=group),
        "map": lambda: made.map(abs, [-1], execution_group=group),
        "step": lambda: made.add_step(step(execution_group=group)(abs), params={"x": -1}),
        "dynamic": lambda: made.add_step(dynamic(execution_group=group)(abs), params={"x": -1}),
    }
    with pytest.warns(UserWarning, match=rf"{way}\(\) ignores execution_group: .* executor decides") as caught:
        ways[way]()
    assert [each.filename for each in caught] == [__file__]
    assert "execution_group" not in made.to_definition()["steps"][0]
    assert made.run()["abs"] in (1, [1])


@pytest.mark.parametrize("way", ["add_step", "map", "step", "dynamic"])
def test_an_unknown_keyword_beside_an_ignored_one_is_an_error(way: str) -> None:
    makers: dict[str, Any] = {"step": step, "dynamic": dynamic}
    with pytest.raises(TypeError, match=rf"{way}\(\) got an unknown keyword 'retyr'; did you mean 'retry'"):
        (makers.get(way) or getattr(Pipeline("p"), way))(abs, execution_group="g", retyr=1)


@pytest.mark.parametrize("name", ["step_groups", "artifact_uri", "timestamp", "config", "get_cache_key"])
def test_names_of_2_x_that_do_nothing_are_gone(name: str) -> None:
    made = pipeline()
    for each in (made, load, made.dag.nodes["load"], made.run().step_results["load"]):
        with pytest.raises(AttributeError, match=name):
            getattr(each, name)


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
