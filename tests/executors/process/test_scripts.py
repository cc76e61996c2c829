"""Scripts as people write them: no `__main__` guard, everything at the top level, wherever the text comes from.

test_page.py runs the project's page in the same ways, and in a notebook.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest
from worker_pools import MARK, driver, eventually, marked, under_load

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 40

SCRIPT = '''
import dataclasses, enum, functools, os, sys, threading, typing
from collections import namedtuple
from flowyml import ParallelExecutor, Pipeline, StepState, step

assert not os.environ.get("FLOWYML_WORKER"), "the script is run again in a worker"
executor = ParallelExecutor(max_workers=2)
pipeline = Pipeline("script", executor=executor)
result = pipeline.run() if pipeline.steps else None
FACTOR, count, seen = 3, 0, []


class Point:
    """A class of the script."""

    made = 0

    def __init__(self, x):
        self.x = x
        type(self).made += 1

    @classmethod
    def origin(cls):
        return cls(0)

    def __eq__(self, other):
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None


class Far(Point):
    def __init__(self, x):
        super().__init__(x * FACTOR)


class Colour(enum.Enum):
    RED = 1
    BLUE = enum.auto()


@dataclasses.dataclass(frozen=True)
class Config:
    colour: Colour = Colour.BLUE
    where: Point = dataclasses.field(default_factory=Point.origin, compare=False)


Pair = namedtuple("Pair", "left right")


class Trouble(Exception):
    def __init__(self, code, *, hint=None):
        super().__init__(f"trouble {code}")
        self.code, self.hint = code, hint


def helper(x):
    return x * FACTOR


@step
def helped(x):
    return helper(x)


@step
def calls_a_step(x):
    """A decorated step called as a function, in a step."""
    return helped(x) + 1


@functools.lru_cache
def cached(x):
    return helper(x)


def takes(point, config):
    assert isinstance(point, Point) and type(point) is Far and isinstance(config, Config)
    assert config.colour is Colour.BLUE and config == Config()
    return Pair(Far(point.x), Colour.RED)


def reads(pair):
    assert isinstance(pair, Pair) and isinstance(pair.left, Far) and pair.right is Colour.RED
    return [pair, Config(), Point]


def troubled():
    try:
        raise Trouble(7, hint=Point(1))
    except Trouble as error:
        assert isinstance(error, Trouble)
        raise


def counts():
    global count
    count += 1
    seen.append(count)
    return count


class Model:
    def __init__(self, by):
        self.by = by

    def apply(self, x):
        return x * self.by

    def __call__(self, x):
        return x + self.by


def outer(n):
    def inner(x):
        return x + n + helper(1)

    return inner


pipeline.add_step(helped, params={"x": 2})
pipeline.add_step(calls_a_step, params={"x": 2})
pipeline.add_step(cached, params={"x": 5}, name="cached")
pipeline.add_step(lambda x: helper(x), params={"x": 4}, name="lambda")
pipeline.add_step(outer(10), params={"x": 1}, name="closure")
pipeline.add_step(Model(3).apply, params={"x": 2}, name="method")
pipeline.add_step(Model(3), params={"x": 2}, name="object")
pipeline.add_step(functools.partial(helper, x=9), name="partial")
pipeline.add_step(takes, name="pair", params={"point": Far(2), "config": Config()})
pipeline.add_step(reads)
pipeline.add_step(troubled)
pipeline.add_step(counts)
pipeline.add_step(lambda: Point.made, name="made")


for _ in range(2):
    result = pipeline.run()
    assert [each.step_name for each in result.failed] == ["troubled"], result.summary()
    assert result["helped"] == 6 and result["calls_a_step"] == 7 and result["cached"] == 15
    assert result["lambda"] == 12 and result["closure"] == 14 and result["method"] == 6 and result["object"] == 5
    assert result["partial"] == 27 and result["counts"] in (1, 2)
    assert type(result["pair"]) is Pair and type(result["pair"].left) is Far and result["pair"].right is Colour.RED
    pair, config, cls = result["reads"]
    assert cls is Point and isinstance(config, Config) and pair == result["pair"]
    error = result.step_results["troubled"].exception
    assert type(error) is Trouble and error.code == 7 and isinstance(error.hint, Point)
    assert 'raise Trouble(7, hint=Point(1))' in result.step_results["troubled"].error or __file__ is None
assert count == 0 and seen == []
print("it holds")
'''


def run(*command: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, input=stdin, capture_output=True, text=True, timeout=SECONDS
    )


def assert_holds(done: subprocess.CompletedProcess[str]) -> None:
    lines = [line for line in done.stderr.splitlines() if "troubled" not in line and "result.success" not in line]
    assert (done.returncode, lines) == (0, []), done.stderr
    assert done.stdout == "it holds\n"


NO_FILE = "__file__ = None\n" + SCRIPT


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert_holds(run("script.py", folder=tmp_path))


def test_a_text_on_the_command_line(tmp_path: Path) -> None:
    assert_holds(run("-c", NO_FILE, folder=tmp_path))


def test_stdin(tmp_path: Path) -> None:
    assert_holds(run(folder=tmp_path, stdin=NO_FILE))


def test_a_package_with_m(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "__main__.py").write_text(SCRIPT)
    assert_holds(run("-m", "pack", folder=tmp_path))


def test_a_module_with_m(tmp_path: Path) -> None:
    """It has relative imports, so it cannot be run as a file."""
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("NINE = 9")
    (tmp_path / "pack" / "other.py").write_text("def nine(): from . import NINE; return NINE")
    text = "from .other import nine\n" + SCRIPT.replace('{"x": 9', '{"x": nine()').replace("x=9", "x=nine()")
    (tmp_path / "pack" / "script.py").write_text(text)
    assert_holds(run("-m", "pack.script", folder=tmp_path))


def test_exec_in_a_namespace(tmp_path: Path) -> None:
    """As doctest, notebooks and plug-in loaders do it."""
    for namespace in ({"__name__": "__main__"}, {"__name__": "no_such_module"}, {}):
        text = f"exec({NO_FILE!r}, {namespace!r})"
        assert_holds(run("-c", text, folder=tmp_path))


def test_doctest(tmp_path: Path) -> None:
    (tmp_path / "documented.py").write_text('''
"""
>>> from flowyml import *
>>> class Local:
...     def __init__(self, x): self.x = x
>>> def make(x): return Local(x + OFFSET)
>>> OFFSET = 1
>>> with ParallelExecutor(2) as executor:
...     result = Pipeline("doc").map(make, [1, 2]).run(executor=executor)
>>> [each.x for each in result["make"]], isinstance(result["make"][0], Local)
([2, 3], True)
"""
''')
    done = run("-m", "doctest", "documented.py", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- what stands in the way at the top level -----------------------------------------------------------------------

HEAD = "import threading\nfrom flowyml import *\nexecutor = ParallelExecutor(2)\n"


def test_globals_that_steps_do_not_use_are_in_nobodys_way(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
lock = threading.Lock()
file = open(__file__)
generator = (i for i in range(3))
pipeline = Pipeline("p", executor=executor)
def fine(): return 1
pipeline.add_step(fine)
result = pipeline.run()
def again(): return 2
pipeline.add_step(again)
result = pipeline.run()
assert result["fine"] == 1 and result["again"] == 2
"""
    )
    (tmp_path / "script.py").write_text(text)
    assert run("script.py", folder=tmp_path).stderr == ""


def test_executors_contexts_and_such_may_be_used_in_steps(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
settings = context(depth=2)
first = Pipeline("first").map(abs, [-1, -2], name="abs").run(executor=executor)
def nested(depth):
    assert "first" in str(first) and outer.name == "outer"
    assert settings["depth"] == depth == 2
    assert executor.max_workers == 2
    inner = Pipeline("inner", context=settings).map(abs, [-1, -2], name="abs")
    assert list(inner.run()["abs"]) == [1, 2]
    assert list(inner.run(executor=ParallelExecutor(1, "thread"))["abs"]) == [1, 2]
    with executor:
        return sum(inner.run(executor=executor)["abs"])
outer = Pipeline("outer", context=settings, executor=executor).add_step(nested)
assert outer.run()["nested"] == 3
assert outer.run()["nested"] == 3
print("it holds")
"""
    )
    assert_holds(run("-c", text, folder=tmp_path))


@pytest.mark.parametrize("use", ["return lock.locked()", "return helper()", "return Holder().go()"])
def test_a_lock_that_a_step_uses_is_named(tmp_path: Path, use: str) -> None:
    text = (
        HEAD
        + f"""
lock = threading.Lock()
def helper():
    with lock: return 1
class Holder:
    def go(self):
        with lock: return 1
def locks(): {use}
try:
    Pipeline("p").add_step(locks).run(executor=executor)
except FlowymlError as error:
    print(error)
"""
    )
    done = run("-c", text, folder=tmp_path)
    assert done.stderr == ""
    assert "step 'locks'" in done.stdout
    assert "global variable 'lock'" in done.stdout
    assert "cannot pickle '_thread.lock' object" in done.stdout


# ---- modules -------------------------------------------------------------------------------------------------------

DAILY = """
from flowyml import *
def work(i): return i
print("imported")
result = Pipeline("daily").map(work, range(3)).run(executor=ParallelExecutor(2))
result.raise_for_failure()
"""


def test_a_module_that_runs_a_pipeline_when_it_is_imported(mark: str, tmp_path: Path) -> None:
    """It is named, and no worker starts workers that start workers."""
    (tmp_path / "daily.py").write_text(DAILY)
    with driver(f"import os, sys; os.chdir({str(tmp_path)!r}); sys.path[0] = ''; import daily", mark) as process:
        assert process.wait(SECONDS) == 1
        errors = process.stderr.read()
        assert "module 'daily' runs a pipeline when it is imported" in errors
        assert 'if __name__ == "__main__"' in errors
        assert process.stdout.read().count("imported\n") <= 3
        assert eventually(lambda: not marked(mark), 1.0)


def test_a_script_that_imports_itself_by_name(tmp_path: Path) -> None:
    """The functions are those of the other module; importing it is what runs the pipeline again."""
    (tmp_path / "daily.py").write_text("import os\n" + DAILY.replace("range(3)", "[1]"))
    done = run("daily.py", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n", "")


def test_a_value_whose_class_is_in_such_a_module(tmp_path: Path) -> None:
    (tmp_path / "classes.py").write_text("""
import os
class Thing: pass
if os.environ.get("FLOWYML_WORKER"):
    from flowyml import Pipeline
    Pipeline("p").map(abs, [1], name="abs").run()
""")
    text = """
import sys; sys.path.insert(0, "")
from flowyml import *
from classes import Thing
with ParallelExecutor(1) as executor:
    result = Pipeline("p").map(type, [Thing()], name="type").run(executor=executor)
print(result.step_results["type"].items[0].error)
"""
    done = run("-c", text, folder=tmp_path)
    assert "module 'classes' runs a pipeline when it is imported" in done.stdout, done.stderr


def test_an_edited_module_is_seen_by_the_next_run(tmp_path: Path) -> None:
    """By new workers: the driver itself goes on with what it has loaded, or reloads it."""
    text = """
import importlib, os, sys
sys.path.insert(0, os.getcwd())
sys.dont_write_bytecode = True
from flowyml import *
def write(word, more=""):
    with open("edited.py", "w") as file:
        file.write(f"import os\\ndef say(): return {word!r}, os.getpid() {more}\\n")
write("one")
import edited
def through(): return edited.say()
executor = ParallelExecutor(1)
def ask():
    result = Pipeline("p").add_step(edited.say, name="direct").add_step(through).run(executor=executor)
    assert result["direct"] == result["through"]
    return result["direct"]
first = ask()
assert first[0] == "one" and ask() == first
write("three")
second = ask()
assert second[0] == "three" and second[1] != first[1] and ask() == second
importlib.reload(edited)
write("fourth", "# longer")
importlib.reload(edited)
assert ask()[0] == "fourth"
print("it holds")
"""
    assert_holds(run("-B", "-c", text, folder=tmp_path))


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_inside_pytest(tmp_path: Path, mode: str) -> None:
    """Functions of a test module, of conftest.py, and a fixture's executor."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text("""
import pytest
from flowyml import ParallelExecutor
@pytest.fixture(scope="session")
def warm():
    with ParallelExecutor(2) as executor:
        yield executor
""")
    (tmp_path / "tests" / "test_mine.py").write_text(
        textwrap.dedent("""
        import dataclasses
        from flowyml import Pipeline, step
        @dataclasses.dataclass
        class Row: x: int
        def helper(x): return Row(x + 1)
        @step
        def make(x): return helper(x)
        def read(make): print("seen"); return isinstance(make, Row) and make.x
        def pipeline(): return Pipeline("p").add_step(make, params={"x": 1}).add_step(read)
        def test_one(warm, capsys):
            result = pipeline().run(executor=warm)
            assert result["read"] == 2 and isinstance(result["make"], Row)
            assert capsys.readouterr().out.endswith("seen\\n")
        def test_two(warm, capfd):
            assert pipeline().run(executor=warm)["read"] == 2
            assert capfd.readouterr().out.endswith("seen\\n")
    """)
    )
    done = run("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", f"--import-mode={mode}", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(r"^2 passed", done.stdout, re.MULTILINE)
    assert MARK not in done.stdout


# ---- where a driver may find itself --------------------------------------------------------------------------------

ODD = {
    "without stdin": "{python} script.py <&-",
    "without any of the three": "{python} script.py <&- >&- 2>&-",
    "with few descriptors": "ulimit -n 32; {python} script.py",
    "under nohup": "nohup {python} script.py </dev/null >/dev/null 2>&1",
    "with signals ignored": "trap '' INT HUP TERM CHLD PIPE; {python} script.py",
    "isolated": "{python} -I script.py",
    "optimised, no bytecode": "{python} -OO -B script.py",
    "in an empty environment": "env -i {python} script.py",
    "in an ASCII world": "env LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {python} script.py",
    "with a variable that is no text": "env BAD=$(printf 'a\\377b') {python} script.py",
    "into a pipe that closes": "{python} script.py | head -1",
    "with a file system that is full": "{python} script.py > /dev/full 2>&1",
}


@pytest.mark.parametrize("how", ODD)
def test_odd_places(mark: str, tmp_path: Path, how: str) -> None:
    """The run is what it is anywhere; the answer comes by a file."""
    (tmp_path / "script.py").write_text("""
import os, sys
from flowyml import *
def work(i): print("é", i); print("e", i, file=sys.stderr); return i
with ParallelExecutor(2) as executor:
    result = Pipeline("p").map(work, range(50)).run(executor=executor)
open("answer", "w").write(repr([result.success, sum(result["work"])]))
""")
    command = ODD[how].format(python=sys.executable)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, timeout=SECONDS)
    assert (tmp_path / "answer").read_text() == "[True, 1225]"
    assert eventually(lambda: not marked(mark), 1.0)


def test_a_notebook_cell_is_interrupted(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell is out within a second with the partial result, the next ones work, the end leaves nothing."""
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    kernel, client = start_new_kernel(kernel_name="python3", extra_arguments=["--log-level=ERROR"])
    clock = []

    def cell(text: str) -> list[str]:
        heard: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            heard.append(content.get("text") or content.get("ename") or "")
            if heard[-1] == "up\n":
                clock.append(time.monotonic())
                kernel.interrupt_kernel()

        client.execute_interactive(text, timeout=SECONDS, output_hook=hear)
        return [each for each in heard if each]

    try:
        assert (
            cell("""
import sys, time
from flowyml import *
executor = ParallelExecutor(2)
def quick(): return 1
def slow(): print("up"); time.sleep(60)
pipeline = Pipeline("p", executor=executor).add_step(quick).add_step(slow, after=["quick"])
""")
            == []
        )
        assert cell("pipeline.run()") == ["up\n", "RunInterrupted"]
        assert time.monotonic() - clock[0] < under_load(1.5)
        assert cell("print(sys.last_value.result['quick'], sys.last_value.result.state)") == ["1 cancelled\n"]
        assert cell("def quick(): return 2") == []
        assert cell("print(Pipeline('q').add_step(quick).run(executor=executor)['quick'])") == ["2\n"]
    finally:
        client.stop_channels()
        kernel.shutdown_kernel()
    assert eventually(lambda: not marked(mark), 1.0)
