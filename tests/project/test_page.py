"""The page that the project makes true: its code blocks run verbatim, wherever a user may type them.

`page/parallel-execution.md` is the page as it was given, but for what had been mis-encoded there and stood in no code:
a symbol after the title is left out, the arrows of "A, B, C" are commas. The blocks run after `page/preamble.py`, each
followed by `CHECKS`, which ask for the real outcome; a step that fails would write to stderr, which must stay empty.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flowyml import ParallelExecutor, Pipeline, step

HERE = Path(__file__).parent / "page"
PAGE = HERE / "parallel-execution.md"
SECONDS = 50

CHECKS = [
    """
result = pipeline.run(executor=executor)
assert result.success
assert {name: done.output for name, done in result.step_results.items()} == {
    f"chunk_{i}": f"processed_{i}" for i in range(5)
}
""",
    """
assert batch_process([1, 2, 3]) == [1, 4, 9]
pipeline = Pipeline("in_step").add_step(batch_process, params={"items": [1, 2, 3]})
assert pipeline.run(executor=executor)["batch_process"] == [1, 4, 9]
""",
    """
result = pipeline.run(executor=executor)
assert result.success
assert list(result.step_results) == [f"chunk_{i}" for i in range(10)]
for i in range(10):
    pd.testing.assert_series_equal(result[f"chunk_{i}"], pd.Series({"x": i + 0.5, "y": 1.0}))
executor.shutdown()
print("the page holds")
""",
]


def code_blocks(page: Path) -> list[str]:
    """Return the Python code blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def cells() -> list[str]:
    """Return the preamble, and each block followed by its checks."""
    pairs = zip(code_blocks(PAGE), CHECKS, strict=True)
    return [(HERE / "preamble.py").read_text(), *(cell for pair in pairs for cell in pair)]


def assert_holds(tmp_path: Path, *arguments: str, stdin: str = "") -> None:
    """Run Python in an empty folder; the last check was reached and nothing was complained about."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tmp_path, input=stdin, text=True, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.endswith("the page holds\n")


def test_the_copy_has_the_blocks_of_the_page(checkout: Path) -> None:
    given = sorted(checkout.parent.glob("shared/seed/*.txt"))
    if not given:
        pytest.skip("the page as it was given is not beside this checkout")
    assert [block for page in given for block in code_blocks(page)] == code_blocks(PAGE)


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text("\n".join(cells()))
    assert_holds(tmp_path, "page.py")


def test_python_c(tmp_path: Path) -> None:
    assert_holds(tmp_path, "-c", "\n".join(cells()))


def test_stdin(tmp_path: Path) -> None:
    assert_holds(tmp_path, "-", stdin="\n".join(cells()))


def test_executed_in_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "no_module_of_this_name"}
    for cell in cells():
        exec(cell, namespace)
    assert capfd.readouterr() == ("the page holds\n", "")


def test_inside_pytest(tmp_path: Path) -> None:
    body = textwrap.indent("\n".join(cells()), "    ")
    (tmp_path / "test_inside.py").write_text(f"def test_page():\n{body}")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_inside.py"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "1 passed" in done.stdout


def test_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    from nbformat import v4

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells()])
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs if output.output_type != "execute_result"]
    assert [(output.name, output.text) for output in outputs] == [("stdout", "the page holds\n")]


# ---- what the page says in words ---------------------------------------------------------------------------------


@step
def meet(me: str, other: str) -> str:
    """Wait until the other step runs, too: only steps that run at the same time get past this."""
    import time

    Path(me).touch()
    while not Path(other).exists():
        time.sleep(0.005)
    return me


@step
def process_id() -> int:
    """Return the id of the process that runs this step."""
    import os

    return os.getpid()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("backend", ["process", "thread"])
def test_independent_steps_run_at_the_same_time(backend: str, tmp_path: Path) -> None:
    ours, theirs = str(tmp_path / "a"), str(tmp_path / "b")
    pipeline = Pipeline("meeting")
    pipeline.add_step(meet, name="a", params={"me": ours, "other": theirs})
    pipeline.add_step(meet, name="b", params={"me": theirs, "other": ours})
    with ParallelExecutor(max_workers=2, backend=backend) as executor:
        assert pipeline.run(executor=executor).success


def test_processes_are_the_default() -> None:
    import os

    pipeline = Pipeline("where").add_step(process_id)
    with ParallelExecutor(max_workers=1) as executor:
        assert pipeline.run(executor=executor)["process_id"] != os.getpid()


def test_threads_stay_in_this_process() -> None:
    import os

    pipeline = Pipeline("where").add_step(process_id)
    with ParallelExecutor(max_workers=1, backend="thread") as executor:
        assert pipeline.run(executor=executor)["process_id"] == os.getpid()


def test_the_tip_on_a_machine_with_one_core_gets_an_answer() -> None:
    with pytest.raises(ValueError, match=re.escape("max(1, cpu_count() - 1)")):
        ParallelExecutor(max_workers=1 - 1)
