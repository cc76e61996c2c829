"""What PIPELINE names, and what is said when it names nothing."""

from __future__ import annotations

import pytest
from calling import DAILY

TWO = (
    DAILY
    + """
weekly = Pipeline("by week").add_step(len, params={"obj": "abc"}, name="size")
number = 3
def build() -> Pipeline:
    return Pipeline("built").add_step(len, params={"obj": "abcd"}, name="made")
def wants(x):
    return pipeline
"""
)


@pytest.mark.parametrize("name", ["weekly", "by week"])
def test_a_variable_or_the_name_of_a_pipeline(command, write, name):
    assert "1. size" in command("graph", f"{write('two.py', TWO)}:{name}").out


def test_a_function_that_returns_one(command, write):
    assert "1. made" in command("graph", f"{write('two.py', TWO)}:build").out


def test_of_several_the_one_called_pipeline(command, write):
    assert "DAG: daily" in command("graph", write("two.py", TWO)).out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("two.py:weakly", "there is no pipeline 'weakly' in two.py; did you mean 'weekly'?"),
        ("two.py:number", "'number' in two.py is no pipeline, it is of type int"),
        ("two.py:wants", "wants() in two.py cannot be called without arguments"),
        ("two.py:", "'two.py:' names no pipeline behind the colon"),
        ("tow.py", "there is no file 'tow.py'; did you mean 'two.py'?"),
        ("tow", "there is no pipeline 'tow': no file, no module, and no registered name; did you mean 'two'?"),
        ("no_such_module:p", "there is no module 'no_such_module'"),
    ],
)
def test_what_is_wrong_is_told_with_near_matches(command, write, given, told):
    write("two.py", TWO)
    done = command("graph", given)
    assert (done.code, done.out) == (2, "")
    assert f"flowyml: {told}" in done.err


def test_several_pipelines_have_to_be_told_apart(command, write):
    file = write("two.py", TWO.replace("pipeline =", "first =").replace("return pipeline", "return 1"))
    assert "two.py has 2 pipelines, say which one: two.py:first, two.py:weekly" in command("run", file).err


def test_a_file_without_a_pipeline_is_told(command, write):
    assert "nothing.py has no pipeline among its names" in command("run", write("nothing.py", "x = 1\n")).err


def test_steps_made_for_a_pipeline_are_one(command, write):
    text = "from flowyml import step\n@step(pipeline='cli_made')\ndef one(): return 1\n"
    assert "DAG: cli_made" in command("graph", write("made.py", text) + ":cli_made").out


def test_a_name_of_pyproject(command, write, tmp_path, monkeypatch):
    write("two.py", TWO)
    write("pyproject.toml", '[tool.flowyml.pipelines]\nnightly = "two.py:weekly"\ngone = "three.py"\n')
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    assert "DAG: by week" in command("graph", "nightly").out
    assert "did you mean 'nightly'?" in command("graph", "nightyl").err
    assert "there is no such file" in command("graph", "gone").err


def test_a_bare_name_is_a_file_of_that_name(command, daily):
    assert "DAG: daily" in command("graph", "daily").out
