"""`flowyml run`: what the command line says holds, what is said, how it ends."""

from __future__ import annotations

import gzip
import inspect
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_process import DAILY, Done, called

from flowyml import ParallelExecutor

if TYPE_CHECKING:
    from pathlib import Path

FAILING = """
from flowyml import Pipeline

def half(n):
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2

pipeline = Pipeline("halves").map(half, [2, 4, 5], name="half")
"""


def test_a_pipeline_of_a_file_is_run_and_told_on_stderr(command, daily):
    done = command("run", daily)
    assert (done.code, done.out) == (0, "loading 1\n")
    assert "Pipeline: daily\n" in done.err
    assert "Status: ✓ SUCCESS\n" in done.err


def test_quiet_says_nothing_of_a_success(command, daily):
    assert command("run", daily, "-q") == (0, "loading 1\n", "")


@pytest.mark.parametrize("option", ["-c", "--context", "-p", "--param"])
def test_context_values_are_for_this_run(command, daily, option):
    done = command("run", daily, option, "day=7", "-q", "--json", "-")
    assert done.out.startswith("loading 7\n")
    assert json.loads(done.out.partition("\n")[2])["steps"]["double"]["state"] == "success"


def test_a_name_that_no_step_takes_is_an_error(command, daily):
    """A crontab must not run with the default of a name that was misspelled."""
    done = command("run", daily, "-c", "dya=7")
    assert (done.code, done.out) == (2, "")
    assert "'dya' of run(context=) is used by no step of pipeline 'daily'; did you mean 'day'?" in done.err


def test_inputs_are_run_inputs(command, write):
    file = write("size.py", "from flowyml import Pipeline\np = Pipeline('p').add_step(len, inputs=['rows'])\n")
    assert command("run", file, "-i", "rows=[1, 2]", "-q").code == 0


def test_targets_are_run_alone(command, daily):
    done = command("run", daily, "-t", "load", "--json", "-", "-q")
    assert list(json.loads(done.out.partition("\n")[2])["steps"]) == ["load"]


def test_a_failed_run_is_code_1_with_the_traceback(command, write):
    done = command("run", write("halves.py", FAILING))
    assert done.code == 1
    assert "Status: ✗ FAILED" in done.err
    assert "half[2]:\nTraceback (most recent call last):\n" in done.err
    assert done.err.rstrip().endswith("ValueError: 5 is odd")


def test_quiet_tells_which_run_failed_and_why(command, write):
    done = command("run", write("halves.py", FAILING), "--quiet", "--run-id", "r1")
    assert "flowyml: pipeline 'halves' failed (run r1)\n  half[2] (failed): ValueError: 5 is odd\n" in done.err
    assert "Status" not in done.err


def test_fail_fast_and_the_seed_reach_the_run(command, write):
    text = FAILING.replace("[2, 4, 5]", "[5, 2, 4]").replace("return n // 2", "return __import__('random').random()")
    done = command("run", write("halves.py", text), "--fail-fast", "--seed", "3")
    assert "2 of 3" not in done.err
    assert "1 of 3 items failed" in done.err


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_goes_before_that_of_the_script(command, write, seed):
    text = "import random\nfrom flowyml import Pipeline\ndef draw(): return random.random()\n"
    file = write("own.py", text + "p = Pipeline('p').add_step(draw)\nprint(p.run(seed=5)['draw'])\n")
    own = text + f"p = Pipeline('p').add_step(draw)\nprint(p.run(seed={seed})['draw'])\n"
    assert command("run", file, "--seed", str(seed), "-q").out == command("run", write("same.py", own), "-q").out


def test_what_is_wrong_with_a_pipeline_is_told_without_a_traceback(command, write):
    file = write("bad.py", "from flowyml import Pipeline\np = Pipeline('bad').add_step(lambda missing: 1, name='a')\n")
    done = command("run", file)
    assert done.code == 2
    assert done.err.startswith("flowyml: Pipeline validation failed:\n  - ")
    assert "Traceback" not in done.err


def test_what_a_file_raises_has_its_frames_and_none_of_ours(command, write):
    done = command("run", write("raises.py", "def f():\n    raise KeyError('x')\nf()\n"))
    assert done.code == 1
    assert [line for line in done.err.splitlines() if "File" in line and "raises.py" not in line] == []
    assert done.err.rstrip().endswith("KeyError: 'x'")


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(7)", 7), ("sys.exit()", 0), ("sys.exit('no data')", 1)])
def test_a_file_that_exits_has_its_exit_code(command, write, ending, code):
    assert command("run", write("exits.py", f"import sys\n{ending}\n")).code == code


MISSPELLED = """
from flowyml import Pipeline

def f(x, rate=1):
    return x

pipeline = (
    Pipeline("p", context={"rtae": 2})
    .add_step(f, params={"x": 1})
)

def build():
    return Pipeline("p", context={"rtae": 2}).add_step(f, params={"x": 1})
"""


@pytest.mark.parametrize(
    ("given", "place", "line"),
    [
        ("wrong.py", "wrong.py:7", "pipeline = ("),
        ("wrong.py:build", "wrong.py:12", "def build():"),
        ("wrong:pipeline", "wrong.py:7", "pipeline = ("),
    ],
)
def test_a_warning_of_the_run_is_for_the_line_that_made_the_pipeline(tmp_path, given, place, line):
    (tmp_path / "wrong.py").write_text(MISSPELLED)
    done = called(tmp_path, "run", given, "-q")
    assert (done.code, done.out) == (0, "")
    first, second = done.err.splitlines()
    assert first.startswith(f"{tmp_path / place}: UserWarning: 'rtae' of Pipeline(context=) is used by no step")
    assert second == f"  {line}"


# -- files that run their pipeline themselves


def test_a_file_that_runs_its_pipeline_runs_it_once_with_the_options(command, write):
    file = write("own.py", DAILY + "result = pipeline.run(context={'day': 2})\nprint('then', result['double'])\n")
    done = command("run", file, "-c", "day=5")
    assert (done.code, done.out) == (0, "loading 5\nthen 10\n")


def test_the_guard_of_a_script_is_open_and_argv_is_its_own(command, write):
    file = write("own.py", DAILY + "import sys\nif __name__ == '__main__':\n    print(sys.argv); pipeline.run()\n")
    assert command("run", file, "--", "-x", "y").out == "['own.py', '-x', 'y']\nloading 1\n"


def test_the_arguments_of_the_script_hold_where_nothing_is_said(command, write):
    file = write("own.py", DAILY + "pipeline.run(context={'day': 2}, targets='load')\n")
    done = command("run", file, "--json", "-", "-q")
    assert list(json.loads(done.out.partition("\n")[2])["steps"]) == ["load"]


def test_options_are_for_the_pipeline_that_was_named(command, write):
    file = write(
        "own.py", DAILY + "other = Pipeline('other', {'day': 0}).add_step(load)\nother.run()\npipeline.run()\n"
    )
    assert command("run", file + ":pipeline", "-c", "day=9", "-q").out == "loading 0\nloading 9\n"


@pytest.mark.parametrize("backend", ["local", "thread", "async", "process"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_run_inside_a_step_is_a_run_like_any_other(command, write, backend, kind):
    inner = f"{kind} outer(day):\n    return Pipeline('inner', {{'day': 3}}).add_step(load).run()['load']\n"
    file = write("own.py", DAILY + inner + "pipeline = Pipeline('o', {'day': 1}).add_step(outer)\npipeline.run()\n")
    done = command("run", file, "-c", "day=9", "-b", backend)
    assert (done.code, done.out) == (0, "loading 3\n")
    assert done.err.count("Pipeline: ") == 1


def test_a_run_inside_a_hook_is_a_run_like_any_other(command, write):
    hook = "inner = Pipeline('inner', {'day': 3}).add_step(load)\n@pipeline.hooks.on_pipeline_end\n"
    file = write("own.py", DAILY + hook + "def told(*_): inner.run()\npipeline.run()\n")
    done = command("run", file, "-c", "day=9")
    assert (done.out, done.err.count("Pipeline: ")) == ("loading 9\nloading 3\n", 1)


TOGETHER = """
import asyncio, threading
from flowyml import Pipeline
both = threading.Barrier(2)
def meet(day):
    both.wait(20)
    print(f"day {day}\\n", end="")
    if day == 1:
        raise ValueError("day 1")
p = Pipeline("p", context={"day": 1}).add_step(meet)
async def gathered():
    await asyncio.gather(p.run_async(), p.run_async())
def threaded():
    threads = [threading.Thread(target=p.run) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
"""


@pytest.mark.parametrize("way", ["asyncio.run(gathered())", "threaded()"])
def test_options_hold_for_each_of_the_runs_that_go_on_at_once(command, write, way, tmp_path):
    file = write("own.py", f"{TOGETHER}{way}\n{way}\n")
    done = command("run", file, "-c", "day=2", "--json", "r.json", "-q")
    assert (done.code, sorted(done.out.split())) == (0, ["2"] * 4 + ["day"] * 4)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["r-2.json", "r-3.json", "r-4.json", "r.json"]


@pytest.mark.parametrize("way", ["asyncio.run(gathered())", "threaded()"])
def test_each_of_the_runs_that_go_on_at_once_is_told(command, write, way):
    done = command("run", write("own.py", f"{TOGETHER}{way}\n"), "-q")
    assert (done.code, done.err.count("pipeline 'p' failed (run ")) == (1, 2)


def test_a_failure_is_code_1_although_the_script_goes_on(command, write):
    done = command("run", write("own.py", FAILING + "pipeline.run()\nprint('goes on')\n"))
    assert (done.code, done.out) == (1, "goes on\n")


def test_an_asynchronous_run_is_one_too(command, write):
    file = write("own.py", DAILY + "import asyncio\nprint(asyncio.run(pipeline.run_async())['double'])\n")
    done = command("run", file, "-c", "day=4")
    assert done.out == "loading 4\n8\n"
    assert "Status: ✓ SUCCESS" in done.err


def test_a_dry_run_ends_the_script_where_it_would_run(command, write):
    done = command("run", write("own.py", DAILY + "print(pipeline.run()['double'])\n"), "--dry-run")
    assert done.code == 0
    assert done.out.endswith("Dry run: 2 steps (2 calls) would run on LocalExecutor; nothing was run.\n")


@pytest.mark.parametrize(
    "look",
    ["pipeline.dry_run()", "pipeline.run(dry_run=True)", "asyncio.run(pipeline.run_async(dry_run=True))"],
)
def test_a_dry_run_of_the_script_itself_does_not_end_it(command, write, look, tmp_path):
    file = write("own.py", DAILY + f"import asyncio\n{look}\nprint('for real')\npipeline.run()\n")
    done = command("run", file, "-c", "day=4", "--json", "r.json")
    assert (done.code, done.out.partition("for real\n")[2]) == (0, "loading 4\n")
    assert done.err.count("Status: ") == 1
    assert [path.name for path in tmp_path.glob("*.json")] == ["r.json"]


def test_a_script_that_only_looks_at_its_pipeline_does_not_have_it_run(command, write):
    done = command("run", write("own.py", DAILY + "pipeline.dry_run()\n"))
    assert (done.code, "loading" in done.out, "Status" in done.err) == (0, False, False)


BROKEN = """
import os
from flowyml import Pipeline, get_context

def first(n=1):
    print("first", n)
    return n

def second(first):
    if not os.path.exists("mended"):
        raise OSError("full")
    print("second", get_context().rng.random())
    return first

def third(second):
    print("third")

p = Pipeline("broken", enable_checkpointing=True).add_steps([first, second, third])
"""
SECOND = "second 0."


@pytest.fixture
def broken(command, write) -> str:
    """A script that continues run r1, which has finished its first step."""
    assert command("run", write("broken.py", BROKEN), "--run-id", "r1", "--seed", "5", "-q").code == 1
    write("mended", "")
    return write("again.py", BROKEN + "p.rerun('r1')\nprint('goes on')\n")


def test_a_run_that_the_script_continues_is_told_like_any_other(command, broken, tmp_path):
    done = command("run", broken, "--json", "r.json", "--workers", "1", "--backend", "thread")
    assert [line.partition(" ")[0] for line in done.out.splitlines()] == ["second", "third", "goes"]
    assert (done.code, done.err.count("Run ID: r1\nStatus: ✓ SUCCESS")) == (0, 1)
    told = json.loads((tmp_path / "r.json").read_text())
    assert {name: each["state"] for name, each in told["steps"].items()} == {
        "first": "cached",
        "second": "success",
        "third": "success",
    }


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("p.rerun('r1')", "Continues run r1: 1 finished step taken over.\n"),
        ("p.rerun('r1', 'first')", "Continues run r1: 0 finished steps taken over; runs again: 'first' (it was to "),
    ],
)
def test_a_run_that_the_script_would_continue_is_only_looked_at(command, write, broken, call, told):
    done = command("run", write("again.py", BROKEN + f"{call}\nprint('goes on')\n"), "--dry-run")
    assert (done.code, "goes on" in done.out, SECOND in done.out) == (0, False, False)
    assert f"nothing was run.\n{told}" in done.out
    assert "would run on LocalExecutor" in done.out


def test_options_hold_for_a_run_that_the_script_continues(command, broken):
    done = command("run", broken, "-c", "n=3", "-t", "second", "-q")
    assert (done.code, done.out.count("third")) == (0, 0)
    assert done.out.startswith("first 3\nsecond 0.")


def test_a_run_that_the_script_continues_has_no_other_name(command, broken):
    done = command("run", broken, "--run-id", "r2")
    assert (done.code, done.out) == (2, "")
    assert "run(resume='r1', run_id='r2') names two runs" in done.err


@pytest.mark.parametrize(("words", "seed"), [((), 5), (("--seed", "6"), 6)])
def test_a_run_that_the_script_continues_goes_on_with_its_seed(command, write, broken, words, seed):
    own = command("run", write("seeded.py", BROKEN + f"p.run(seed={seed}, resume=False)\n"), "-q").out
    assert (
        command("run", broken, "-q", *words).out.removeprefix("first 1\n")
        == own.removeprefix("first 1\n") + "goes on\n"
    )


def test_fresh_goes_before_the_run_that_the_script_would_continue(command, broken):
    assert command("run", broken, "--fresh", "-q").out.startswith("first 1\nsecond 0.")


def test_a_run_that_the_script_continues_and_that_fails_is_code_1(command, broken, tmp_path):
    (tmp_path / "mended").unlink()
    done = command("run", broken, "-q")
    assert (done.code, done.out) == (1, "goes on\n")
    assert "second (failed): OSError: full" in done.err


def test_a_wrong_run_to_continue_is_code_2_without_a_traceback(command, write):
    done = command("run", write("again.py", BROKEN + "p.rerun('r2')\n"))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("flowyml: there is no unfinished run 'r2' in ")
    assert "Traceback" not in done.err


def test_a_run_that_the_script_continues_beside_the_pipeline_that_is_meant_is_its_own(command, write, broken):
    more = "p.rerun('r1')\nq = Pipeline('other').add_step(dict, name='d')\nq.run()\n"
    done = command("run", write("two.py", BROKEN + more) + ":q", "--seed", "6")
    assert done.code == 0
    assert done.err.count("Pipeline: ") == 1


def test_the_graph_of_a_script_that_continues_a_run_runs_nothing(command, broken):
    done = command("graph", broken)
    assert (done.code, "goes on" in done.out, SECOND in done.out) == (0, False, False)
    assert done.out.startswith("Pipeline DAG: broken\n")


MAKES = "def main():\n    made = Pipeline('made', {'day': 1}).add_step(load)\n"


@pytest.mark.parametrize("end", ["    made.run()\n    return made\n", "    made.run()\n", "    return made.run()\n"])
def test_a_function_that_runs_its_pipeline_runs_it_once_with_the_options(command, write, end):
    done = command("run", write("own.py", DAILY + MAKES + end) + ":main", "-c", "day=4")
    assert (done.code, done.out, done.err.count("Pipeline: made")) == (0, "loading 4\n", 1)


def test_a_function_that_runs_another_pipeline_first_has_its_own_run(command, write):
    first = "    Pipeline('first', {'day': 1}).add_step(double, params={'load': 'x'}).run()\n    return made\n"
    done = command("run", write("own.py", DAILY + MAKES + first) + ":main")
    assert (done.code, done.out) == (0, "loading 1\n")
    assert [line for line in done.err.splitlines() if "Pipeline:" in line] == ["Pipeline: first", "Pipeline: made"]


@pytest.mark.parametrize("words", [("run", "--dry-run"), ("graph",)])
def test_a_function_that_runs_its_pipeline_is_only_looked_at(command, write, words):
    done = command(words[0], write("own.py", DAILY + MAKES + "    made.run()\n    return made\n") + ":main", *words[1:])
    assert (done.code, "loading" in done.out) == (0, False)
    assert done.out.startswith("Pipeline DAG: made\n")


def test_what_is_wrong_with_a_run_of_a_function_is_told_without_a_traceback(command, write):
    done = command("run", write("own.py", DAILY + MAKES + "    made.run()\n") + ":main", "-c", "dya=4")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("flowyml: 'dya' of run(context=) is used by no step")


# -- where it runs


def test_workers_and_backend_choose_the_executor(command, daily, monkeypatch):
    made = []
    plain = ParallelExecutor.execute
    monkeypatch.setattr(
        ParallelExecutor, "execute", lambda self, run: made.append((self.max_workers, self.backend)) or plain(self, run)
    )
    assert command("run", daily, "-w", "3", "-b", "thread", "-q").code == 0
    assert made == [(3, "thread")]


def test_limits_of_the_scripts_executor_stay(command, write, monkeypatch):
    made = []
    monkeypatch.setattr(ParallelExecutor, "execute", lambda self, run: made.append(self) or run.cancel())
    ran = "from flowyml import ParallelExecutor\n"
    ran += "pipeline.run(executor=ParallelExecutor(8, resources={'api': 2}, timeout=9))\n"
    command("run", write("own.py", DAILY + ran), "--workers", "2", "-q")
    assert (made[0].max_workers, made[0].backend, made[0].resources, made[0].timeout) == (2, "process", {"api": 2}, 9)


HELD = """
from flowyml import ParallelExecutor, Pipeline
held = {}
def load(): held["model"] = 7
def use(i): return held.get("model", "no model")
pipeline = Pipeline("p", executor=ParallelExecutor(2, "thread", initializer=load)).map(use, [1, 2])
"""


@pytest.mark.parametrize("words", [("--workers", "3"), ("--backend", "thread"), ("-w", "1", "-b", "process")])
def test_the_initializer_of_the_scripts_executor_is_called(command, write, words):
    file = write("own.py", HELD + "print(list(pipeline.run()['use']))\n")
    assert command("run", file, *words, "-q") == (0, "[7, 7]\n", "")


@pytest.mark.parametrize("backend", ["async", "local"])
def test_a_backend_that_would_drop_the_initializer_is_refused(command, write, backend):
    done = command("run", write("own.py", HELD), "--backend", backend)
    assert (done.code, done.out) == (2, "")
    assert f"--backend {backend} does not support initializers, and the executor of the script has one" in done.err


ALL = {
    "timeout": 9.0,
    "resources": {"api": 2},
    "tag_limits": {"db": 1},
    "initializer": dict,
    "memory_limit": 10**9,
    "memory_budget": 10**10,
    "max_tasks_per_worker": 5,
    "preload": ("json",),
}


@pytest.mark.parametrize(
    ("words", "kept"),
    [(["-w", "3"], set(ALL)), (["-b", "thread"], {"timeout", "resources", "tag_limits", "initializer"})],
)
def test_all_options_of_the_scripts_executor_go_where_they_hold(command, write, monkeypatch, words, kept):
    made = []
    monkeypatch.setattr(ParallelExecutor, "execute", lambda self, run: made.append(self) or run.cancel())
    ran = f"from flowyml import ParallelExecutor\npipeline.run(executor=ParallelExecutor(8, **{ALL}))\n"
    command("run", write("own.py", DAILY + ran.replace("<class 'dict'>", "dict")), *words, "-q")
    known = inspect.signature(ParallelExecutor).parameters.values()
    assert [each.name for each in known if each.kind is each.KEYWORD_ONLY] == list(ALL)
    assert {name: value for name in ALL if (value := getattr(made[0], name)) is not None} == {
        name: ALL[name] for name in kept
    }


@pytest.mark.parametrize(("given", "count"), [("3, 'async'", 3), ("backend='async'", None)])
def test_a_default_number_of_coroutines_is_none_of_processes(command, write, monkeypatch, given, count):
    made = []
    monkeypatch.setattr(ParallelExecutor, "execute", lambda self, run: made.append(self) or run.cancel())
    ran = f"from flowyml import ParallelExecutor\npipeline.run(executor=ParallelExecutor({given}))\n"
    command("run", write("own.py", DAILY + ran), "--backend", "process", "-q")
    assert made[0].max_workers == (count or ParallelExecutor().max_workers)


def test_each_executor_of_a_script_has_its_own_in_its_place(command, write, monkeypatch):
    """One that is gone leaves its place in memory to the next."""
    made = []
    monkeypatch.setattr(
        ParallelExecutor, "execute", lambda self, run: made.append((id(self), self.timeout)) or run.cancel()
    )
    ran = "from flowyml import ParallelExecutor\nfor n in range(1, 50):\n"
    ran += "    pipeline.run(executor=ParallelExecutor(2, timeout=n))\n"
    ran += "pipeline.executor = ParallelExecutor(2)\npipeline.run()\npipeline.run()\n"
    command("run", write("own.py", DAILY + ran), "--workers", "2", "-q")
    assert [timeout for _, timeout in made] == [*range(1, 50), None, None]
    assert made[-2] == made[-1]


def test_worker_processes_find_the_functions_of_the_file(tmp_path):
    text = DAILY + "import os\ndef where():\n    return __name__, os.getpid() != parent\nparent = os.getpid()\n"
    text += "pipeline.add_step(where)\nr = pipeline.run()\nprint(r['where'])\n"
    (tmp_path / "own.py").write_text(text)
    done = called(tmp_path, "run", "own.py", "--workers", "1", "-q")
    assert (done.code, done.out, done.err) == (0, "loading 1\n('__main__', True)\n", "")


def test_a_module_goes_by_name(tmp_path):
    (tmp_path / "shop.py").write_text(DAILY)
    done = called(tmp_path, "run", "shop:pipeline", "-w", "1", "-q")
    assert (done.code, done.out, done.err) == (0, "loading 1\n", "")


def test_a_module_that_runs_a_pipeline_on_import_is_refused(command, write):
    write("eager_module.py", DAILY + "pipeline.run()\n")
    done = command("run", "eager_module:pipeline")
    assert (done.code, done.out) == (2, "")
    assert "module 'eager_module' runs a pipeline when it is imported" in done.err


# -- files that are written


def test_report_trace_and_json_are_written(command, daily, tmp_path):
    done = command("run", daily, "--report", "r.html", "--trace", "t.json.gz", "--json", "r.json")
    assert done.code == 0
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))["otherData"]["pipeline"] == "daily"
    assert json.loads((tmp_path / "r.json").read_text())["success"] is True
    assert done.err.endswith("Wrote r.html\nWrote t.json.gz\nWrote r.json\n")


def test_a_second_run_of_a_script_does_not_overwrite_the_first(command, write, tmp_path):
    command("run", write("own.py", DAILY + "pipeline.run()\npipeline.run()\n"), "--report", "r.html", "-q")
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["r-2.html", "r.html"]


def test_a_folder_that_is_not_there_is_told_before_anything_runs(command, daily):
    done = command("run", daily, "--report", "nowhere/r.html")
    assert (done.code, done.out, done.err) == (2, "", "flowyml: --report: the directory 'nowhere' does not exist\n")


# -- standard streams and files that take nothing


STREAMS = [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "2>&1 | true", "--progress on 2>/dev/full"]


def in_a_shell(folder: Path, line: str) -> Done:
    """Run `flowyml run` and the rest of a line of a shell; the code is the command's, also in front of a pipe."""
    line = f"{sys.executable} -m flowyml run {line}; exit ${{PIPESTATUS[0]}}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=50)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("backend", ["local", "process"])
@pytest.mark.parametrize("streams", STREAMS)
def test_standard_streams_that_are_closed_or_full_change_no_exit_code(daily, tmp_path, streams, backend):
    assert in_a_shell(tmp_path, f"{daily} --backend {backend} {streams}").code == 0


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "2>&1 | true"])
def test_a_requested_file_is_written_also_if_stderr_cannot_be(daily, tmp_path, streams):
    done = in_a_shell(tmp_path, f"{daily} --json r.json {streams}")
    assert (done.code, json.loads((tmp_path / "r.json").read_text())["success"]) == (0, True)


def test_a_failed_run_is_code_1_also_if_output_cannot_be_written(tmp_path, write):
    script = write("f.py", FAILING)
    for rest in ("--json - >/dev/full", "--json /dev/full", ">&- 2>&-", "--json - | true"):
        assert in_a_shell(tmp_path, f"{script} {rest}").code == 1


def test_two_options_with_one_file_are_refused_before_anything_runs(command, daily):
    done = command("run", daily, "--report", "r.json", "--json", "./r.json")
    expected = "flowyml: --report and --json name the same file './r.json'; give each one of its own\n"
    assert (done.code, done.out, done.err) == (2, "", expected)


@pytest.mark.parametrize("line", ["daily", "daily --json r.json"])
def test_a_working_directory_that_is_gone_is_an_error_without_a_traceback(tmp_path, line):
    (tmp_path / "gone").mkdir()
    command = f"cd gone && rmdir ../gone && {sys.executable} -P -m flowyml run {line}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    expected = "flowyml: the working directory does not exist any more; change to an existing one\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_a_graph_that_could_not_be_written_is_code_3(command, daily):
    done = command("graph", daily, "-o", "/dev/full")
    assert (done.code, done.err) == (3, "flowyml: /dev/full cannot be written: No space left on device\n")


@pytest.mark.parametrize("option", ["json", "trace", "report"])
def test_a_file_that_could_not_be_written_is_code_3(command, daily, option):
    done = command("run", daily, f"--{option}", "/dev/full")
    assert (done.code, done.err.splitlines()[-1]) == (
        3,
        "flowyml: /dev/full cannot be written: No space left on device",
    )


@pytest.mark.parametrize(
    ("streams", "reason"),
    [
        (">&-", "standard output is closed"),
        (">/dev/full", "standard output cannot be written: No space left on device"),
    ],
)
def test_json_that_stdout_does_not_take_is_code_3(daily, tmp_path, streams, reason):
    done = in_a_shell(tmp_path, f"{daily} --json - {streams}")
    assert (done.code, done.err.splitlines()[-1]) == (3, f"flowyml: --json -: {reason}")


def test_output_of_steps_that_stdout_does_not_take_is_code_3(tmp_path, write):
    script = write("printing.py", DAILY + "print('of the script')\n")
    done = in_a_shell(tmp_path, f"{script} >/dev/full")
    assert (done.code, done.err.splitlines()[-1]) == (
        3,
        "flowyml: standard output cannot be written: No space left on device",
    )


def test_a_reader_that_closes_the_pipe_is_no_error(daily, tmp_path):
    assert in_a_shell(tmp_path, f"{daily} -q --json - | true") == (0, "", "")


def test_json_on_a_stdout_without_all_characters_is_json(tmp_path, write, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    text = r"p = Pipeline('caf\xe9\ud800').add_step(lambda: 1, name='a')"
    done = in_a_shell(tmp_path, write("e.py", f"from flowyml import Pipeline\n{text}\n") + " -q --json -")
    assert json.loads(done.out)["pipeline_name"] == "caf\xe9\ud800"


# -- interruption


def test_ctrl_c_is_code_130_with_what_was_finished(tmp_path):
    text = "import sys, time\nfrom flowyml import Pipeline\ndef nap(i):\n    print('nap', i, flush=True)\n"
    text += "    time.sleep(30 * i)\np = Pipeline('naps').map(nap, [0, 1], name='nap')\n"
    (tmp_path / "naps.py").write_text(text)
    running = subprocess.Popen(
        [sys.executable, "-m", "flowyml", "run", "naps.py"],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    while running.stdout.readline() != "nap 1\n":
        pass
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "Status: ✗ CANCELLED" in told
    assert "Traceback" not in told
