"""`flowyml graph`, `runs`, `show` and `cache`; words that do not exist; pipes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest
from cli_process import DAILY

from flowyml.cli.parser import parse_value

KEEPS = """
from flowyml import Pipeline

def load(rows):
    return list(range(rows))

def square(x):
    return x * x

def save(square):
    raise OSError("no space left")

pipeline = Pipeline("nightly", enable_checkpointing=True).add_step(load, params={"rows": 3})
pipeline.map(square, over="load").add_step(save)
"""


# -- graph


@pytest.mark.parametrize(
    ("file", "begins"), [("g.svg", "<svg"), ("g.dot", "digraph"), ("g.mmd", "flowchart"), ("g.txt", "Pipeline DAG")]
)
def test_the_ending_of_the_file_tells_the_format(command, daily, tmp_path, file, begins):
    assert command("graph", daily, "-o", file) == (0, "", f"Wrote {file}\n")
    assert (tmp_path / file).read_text().startswith(begins)


def test_a_graph_runs_nothing_of_a_script(command, write):
    done = command("graph", write("own.py", DAILY + "print('not here', pipeline.run())\n"))
    assert (done.code, "loading" in done.out, "not here" in done.out) == (0, False, False)
    assert "2. double (depends on: load)" in done.out


def test_explain_says_where_arguments_come_from(command, daily):
    assert "day: context" in command("graph", daily, "--explain", "load").out
    assert "did you mean 'load'?" in command("graph", daily, "--explain", "laod").err


# -- runs and show


def test_a_failed_run_is_listed_shown_continued_and_removed(command, write):
    file = write("nightly.py", KEEPS)
    assert command("run", file, "--run-id", "r1", "-q").code == 1
    listed = command("runs").out.splitlines()
    assert listed[0].split() == ["run", "pipeline", "state", "written", "finished", "size"]
    assert listed[1].split()[:3] == ["r1", "nightly", "failed"]
    shown = command("show").out
    assert "Run ID: r1\nPipeline: nightly\nState: failed\n" in shown
    assert re.search(r"\n  ✓ load, \d+ B\n  ✓ square \(3 items\)\n", shown)
    assert "Resuming: reuses the unchanged results of 4 calls" in shown
    assert "Resumed: 1 finished step and 3 finished items taken over" in command("run", file, "--resume").err
    assert command("run", file, "--resume", "r2").err.startswith("flowyml: there is no unfinished run 'r2'")
    assert command("runs", "--remove", "r1") == (0, "", "Removed run r1 of pipeline 'nightly'\n")
    assert command("runs").out.startswith("there are no runs in .flowyml/checkpoints")


def test_a_map_that_was_cut_off_is_told_as_unfinished(command, write):
    text = KEEPS.replace("    return x * x", "    return 1 // (2 - x)")
    file = write("nightly.py", text)
    command("run", file, "--run-id", "r1", "-q")
    shown = command("show").out
    assert re.search(r"\n  ✓ load, \d+ B\n  … square \(2 of 3 items\)\n", shown)
    told = json.loads(command("show", "--json").out)["steps"]
    assert [(told[name]["ended"], told[name]["items"]) for name in ("load", "square")] == [(1, None), (2, 3)]
    rehearsed = command("run", file, "--dry-run", "--resume").out
    assert "Dry run: 2 steps (2 calls) would run on LocalExecutor; nothing was run.\n" in rehearsed
    assert "Continues run r1: 1 finished step and 2 finished items taken over." in rehearsed
    assert "3 steps (at least 2 calls) would run" in command("run", file, "--dry-run", "--fresh").out


def test_a_map_that_has_more_items_now_is_told_with_them(command, write):
    command("run", write("nightly.py", KEEPS), "--run-id", "r1", "-q")
    text = KEEPS.replace('"rows": 3', '"rows": 5').replace("    return x * x", "    return x * x // (4 - x)")
    command("run", write("nightly.py", text), "--resume", "r1", "-q")
    assert re.search(r"\n  … square \(4 of 5 items\)\n", command("show", "r1").out)


def test_a_fresh_run_continues_nothing(command, write):
    file = write("nightly.py", KEEPS)
    command("run", file, "-q")
    assert "Resumed" not in command("run", file, "--fresh").err
    assert len(json.loads(command("runs", "--json").out)) == 2
    assert command("runs", "--pipeline", "nightyl").out.endswith("did you mean 'nightly'?\n")


def test_a_run_that_goes_on_is_said_to(command, write):
    text = KEEPS.replace("raise OSError", "import flowyml.cli; flowyml.cli.main(['show']); raise OSError")
    done = command("run", write("nightly.py", text), "-q")
    assert "State: going on\n" in done.out
    assert "Resuming: nothing: it is going on\n" in done.out


def test_a_lock_of_another_process_is_seen_and_not_taken(command, write, tmp_path):
    command("run", write("nightly.py", KEEPS), "-q", "--run-id", "r1")
    holds = "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX)\n"
    lock = tmp_path / ".flowyml" / "checkpoints" / "r1" / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", f"{holds}print(1, flush=True); input()", str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()
        assert "going on" in command("runs").out
        holder.communicate(b"\n")
    assert "failed" in command("runs").out


# -- cache


def test_the_cache_is_told_and_cleared(command, write):
    text = "from flowyml import Pipeline\np = Pipeline('c').map(abs, [1, 2], name='abs', cache=True)\n"
    file = write("cached.py", text + "p.add_step(str, 'text', {'object': 3}, cache=True)\n")
    assert command("run", file, "-q").code == 0
    told = command("cache", "stats").out
    assert told.startswith(".flowyml/cache: 3 values, ")
    assert json.loads(command("cache", "stats", "--json").out)["by_step"]["abs"]["count"] == 2
    assert "did you mean 'abs'?" in command("cache", "clear", "--step", "asb", "-y").err
    assert command("cache", "clear", "--step", "abs", "--yes").out == "2 values removed from .flowyml/cache\n"
    assert command("cache", "clear", "--days", "1", "-y").out == "0 values removed from .flowyml/cache\n"
    assert command("cache", "clear", "--pipeline", file, "-y").out.startswith("1 value removed from ")


def test_clearing_asks_and_without_a_terminal_needs_yes(command, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    done = command("cache", "clear")
    assert done.code == 2
    assert "without a terminal; pass --yes" in done.err


# -- words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run", "x.py", "--workrs", "3"], "unknown option --workrs; did you mean '--workers'?"),
        (["run", "x.py", "-b", "thred"], "--backend cannot be 'thred'; did you mean 'thread'?"),
        (["run"], "PIPELINE is missing"),
        (["run", "x.py", "--workers", "zero"], "--workers takes an integer, got 'zero'"),
        (["cache", "clear", "--days", "many"], "--days takes a number, got 'many'"),
        (["run", "x.py", "-c"], "--context takes NAME=VALUE, got nothing"),
        (["run", "x.py", "y"], "unexpected argument 'y'"),
        (["cache", "claer"], "unknown command 'claer'; did you mean 'clear'?"),
        (["runs", "--", "x"], "`flowyml runs` takes no arguments after --"),
    ],
)
def test_wrong_words_are_code_2_with_the_nearest(command, words, told):
    done = command(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"flowyml: {told}")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-w", "0"], "--workers must be at least 1, got 0"),
        (["-w", "100000"], "--workers must be at most 65536, got 100000"),
        (["-w", "2", "-b", "local"], "--backend local runs one step at a time, without workers"),
        (["-c", "day"], "-c takes name=value, got 'day'"),
        (["--resume", "--fresh"], "--fresh and --resume are mutually exclusive"),
        (["--resume"], "run(resume=) needs a pipeline that keeps a journal"),
        (["-t", "laod"], "targets: 'laod' is no step, sub-pipeline or asset; did you mean 'load'?"),
    ],
)
def test_wrong_use_is_code_2_and_nothing_runs(command, daily, words, told):
    done = command("run", daily, *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"flowyml: {told}")


@pytest.mark.parametrize(
    ("option", "wanted"),
    [("--resume", "ID"), ("--run-id", "ID"), ("--report", "FILE"), ("--trace", "FILE"), ("--json", "FILE")],
)
def test_a_variable_of_the_shell_that_is_empty_is_not_an_option_that_is_absent(command, daily, option, wanted):
    done = command("run", daily, f"{option}=")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"flowyml: {option} takes {wanted}, got nothing\n")


def test_an_empty_folder_is_not_the_folder_by_default(command, write):
    text = "from flowyml import Pipeline\np = Pipeline('p', enable_cache=True).add_step(dict, name='a', cache=True)\n"
    assert command("run", write("stored.py", text), "-q").code == 0
    stored = command("cache", "stats", "--json").out
    done = command("cache", "clear", "--yes", "--dir", "")
    assert (done.code, done.err.partition("\n")[0]) == (2, "flowyml: --dir takes DIR, got nothing")
    assert ('"a"' in stored, command("cache", "stats", "--json").out) == (True, stored)


def test_help_loads_no_pipeline():
    code = "import sys; from flowyml.cli import main; main(['--help']); print('flowyml.pipeline' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.endswith("\nFalse\n")


def test_what_a_step_costs_is_a_table_by_backend(command):
    done = command("bench", "--steps", "50", "--backend", "local", "--backend", "thread", "--workers", "1")
    rows = [line.split()[:2] for line in done.out.splitlines()[-4:]]
    assert rows == [[backend, way] for backend in ("local", "thread") for way in ("add_step", "map")]
    assert command("bench", "--steps", "0").code == 2
    assert command("bench", "--workers", "0") == (2, "", "flowyml: --workers must be at least 1, got 0\n")


def test_help_and_version(command):
    assert command().out.startswith("usage: flowyml")
    assert "exit codes: 0 success" in command("run", "--help").out
    assert command("--version").out.startswith("flowyml 0.")


def test_a_reader_that_closes_the_pipe_is_no_error(command, daily, tmp_path):
    shell = f'"{sys.executable}" -m flowyml graph daily.py -f svg | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, text=True, capture_output=True, timeout=30)
    assert (done.stdout, done.stderr) == ("0\n", "")


# -- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("3", 3), ("-12", -12), ("0", 0), ("0x1F", 31), ("2.5", 2.5), ("-1e-3", -0.001), (".5", 0.5), ("1e6", 1e6)),
        *(("true", True), ("False", False), ("NULL", None), ("none", None)),
        *(("[1, 2]", [1, 2]), ('{"a": true}', {"a": True}), ("(1, 'x')", (1, "x")), ('"3"', "3"), ("'x'", "x")),
        *(("abc", "abc"), ("007", "007"), ("1_000", "1_000"), ("2026-01-31", "2026-01-31"), ("yes", "yes")),
        *(("", ""), ("[broken", "[broken"), ("a=b", "a=b"), ("nan", "nan"), ("1,2", "1,2")),
    ],
)
def test_a_text_means_what_the_documentation_says(text, value):
    assert (parse_value(text), type(parse_value(text))) == (value, type(value))
