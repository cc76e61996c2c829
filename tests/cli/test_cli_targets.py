"""What PIPELINE names, and what is said when it names nothing."""

from __future__ import annotations

import pytest
from cli_process import DAILY

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
        ("two.py:number", "'number' in two.py is not a pipeline but of type int"),
        ("two.py:wants", "wants() in two.py cannot be called without arguments"),
        ("two.py:", "'two.py:' has no name after the colon"),
        ("tow.py", "file 'tow.py' does not exist; did you mean 'two.py'?"),
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
    assert "two.py has 2 pipelines, choose one: two.py:first, two.py:weekly" in command("run", file).err


def test_a_file_without_a_pipeline_is_told(command, write):
    assert "nothing.py defines and runs no pipeline" in command("run", write("nothing.py", "x = 1\n")).err


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
    assert "that file does not exist" in command("graph", "gone").err


def test_a_bare_name_is_a_file_of_that_name(command, daily):
    assert "DAG: daily" in command("graph", "daily").out


# -- a name that is not there, and a file that runs its pipeline itself

RUNS = """
from flowyml import Pipeline, step
print("the file runs")
etl = Pipeline("by day").add_step(len, params={"obj": "abc"}, name="size")
etl.run()
"""

NAMES_FROM_ELSEWHERE = {
    "an import of everything": "from shop import *\n",
    "a module beside it": "import shop\n",
    "a function of one": "from shop import made\nmade()\n",
    "exec": "exec('nope = 3')\n",
    "globals": "globals().update({'no' + 'pe': 3})\n",
    "a name that is made": "for word in ['no']:\n    Pipeline(word + 'pe')\n",
    "a name of a variable": "word = 'no' + str('pe')\nPipeline(name=word)\n",
    "steps for a name that is made": "@step(pipeline=str('no') + 'pes')\ndef one(): return 1\n",
    "another word for the class": "from flowyml import Pipeline as P\nP(str('no') + 'pe')\n",
    "the class in a variable": "kind = Pipeline\nkind(str('no') + 'pe')\n",
    "arguments from elsewhere": "def f(**words): pass\nf(**{})\n",
}


@pytest.mark.parametrize(("verb", "ran"), [("run", "; the file itself has run 'by day'"), ("graph", "")])
@pytest.mark.parametrize(("name", "hint"), [("elt", "did you mean 'etl'?"), ("nope", "there are etl, by day")])
def test_a_wrong_name_in_a_file_that_runs_its_pipeline_itself(command, write, verb, ran, name, hint):
    quiet = ["-q"] if verb == "run" else []
    done = command(verb, f"{write('own.py', RUNS)}:{name}", *quiet)
    assert done == (2, "the file runs\n", f"flowyml: there is no pipeline {name!r} in own.py; {hint}{ran}\n")


@pytest.mark.parametrize("more", NAMES_FROM_ELSEWHERE.values(), ids=NAMES_FROM_ELSEWHERE)
def test_a_name_that_may_come_from_elsewhere_is_looked_for_afterwards(command, write, more):
    write("shop.py", "from flowyml import Pipeline\ndef made(): return Pipeline('made')\n")
    done = command("run", f"{write('own.py', RUNS + more)}:nope", "-q")
    assert (done.code, done.out) == (2, "the file runs\n")
    assert "'nope' in own.py" in done.err
    assert done.err.endswith("; the file itself has run 'by day'\n")


@pytest.mark.parametrize(
    "text",
    [
        "from flowyml import Pipeline\nPipeline('there').add_step(dict, name='a').run()\n",
        "from flowyml import Pipeline\ndef there(): return Pipeline('x').add_step(dict, name='a')\n",
        "from flowyml import Pipeline\ndef f():\n    global there\n    there = Pipeline('x').map(abs, [1])\nf()\n",
        "from flowyml import Pipeline\nwords = {'no': 'there'}\nPipeline(words['no']).add_step(dict, name='a').run()\n",
    ],
)
def test_a_name_that_a_file_has_is_never_refused(command, write, text):
    assert command("run", f"{write('own.py', text)}:there", "-q") == (0, "", "")


def test_what_is_no_python_is_said_to_be_none(command, write):
    done = command("run", write("README.md", "# Pipelines\n\nThis runs daily.\n"))
    assert done == (2, "", "flowyml: README.md is not a valid Python file; line 3: invalid syntax\n")


def test_a_python_file_without_its_ending_runs_and_a_wrong_one_keeps_its_error(command, write):
    assert command("run", write("daily", DAILY), "-q").code == 0
    done = command("run", write("wrong.py", "x = 1\ny = = 2\n"))
    assert (done.code, "SyntaxError" in done.err, "line 2" in done.err) == (1, True, True)


def test_a_directory_is_no_file(command, tmp_path):
    (tmp_path / "dir.py").mkdir()
    done = command("run", "dir.py")
    expected = "flowyml: 'dir.py' is a directory; give a Python file, or a module that can be imported\n"
    assert (done.code, done.err) == (2, expected)
    assert "did you mean" not in command("run", "dirr.py").err
