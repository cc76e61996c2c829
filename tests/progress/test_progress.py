"""`run(progress=)`: seen from outside, sampled, and never in the way."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import subprocess
import sys
import threading

import pytest

from flowyml import Pipeline, parallel_map
from flowyml.progress import display as views
from flowyml.progress.display import Progress, _bar
from flowyml.progress.rich_renderer import RichRenderer
from flowyml.progress.terminal import LogProgress, TerminalLine, line_of

SOME = Progress("etl", 1_200, 300, 2, 3, {"cached": 100}, 61.0, ("fit[7]", "load"), open=False)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(views, "_DELAY_SECONDS", 0.0)


def until(seen: threading.Event):
    assert seen.wait(20)


def test_a_function_is_called_with_samples(executor, quick):
    """Also while a step runs, and once more at the end."""
    samples, last = [], threading.Event()
    made = Pipeline("p").map(abs, range(50), name="abs").add_step(sum, inputs=["abs"])
    assert made.run(executor=executor, progress=samples.append).success
    last.set()
    if samples:  # the run may have ended before the first look
        assert (samples[-1].pipeline, samples[-1].total, samples[-1].done) == ("p", 51, 51)


def test_a_sample_tells_what_is_running_and_what_failed(quick):
    seen, samples = threading.Event(), []

    def look(progress):
        samples.append(progress)
        if progress.current == ("waits",) and progress.failed:
            seen.set()

    def waits():
        until(seen)

    made = Pipeline("p").add_step(lambda: 1 / 0, name="fails").add_step(waits).add_step(len, params={"obj": ""})
    made.run(progress=look)
    assert next(each[:5] for each in samples if each.failed) == ("p", 3, 1, 1, 1)
    assert (samples[-1].done, samples[-1].running) == (3, 0)


def test_a_plain_run_starts_no_thread():
    names = []
    Pipeline("p").add_step(lambda: names.extend(each.name for each in threading.enumerate()), name="a").run()
    assert "flowyml-progress" not in names


def test_a_function_that_raises_is_told_once_and_the_run_goes_on(quick, caplog):
    seen = threading.Event()

    def look(progress):
        seen.set()
        raise RuntimeError("broken bar")

    assert Pipeline("p").add_step(lambda: until(seen), name="a").run(progress=look).success
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the run continues without it" in caplog.text


def test_a_run_inside_a_run_shows_nothing(quick):
    outer, inner, seen = [], [], threading.Event()

    def nested():
        Pipeline("inner").add_step(len, params={"obj": ""}).run(progress=inner.append)
        until(seen)

    Pipeline("outer").add_step(nested).run(progress=lambda each: (outer.append(each), seen.set()))
    assert (bool(outer), inner) == (True, [])


@pytest.mark.parametrize("wrong", [1, "yes", [True]])
def test_anything_else_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="progress must be True, False or a function"):
        Pipeline("p").run(progress=wrong)


def test_parallel_map_has_it_too(quick):
    samples, seen = [], threading.Event()

    def look(progress):
        samples.append(progress)
        seen.set()

    assert parallel_map(lambda x: until(seen) or x, [1, 2], progress=look) == [1, 2]
    assert (samples[-1].total, samples[-1].done) == (2, 2)


# -- lines


def test_a_line_tells_counts_times_and_trouble():
    line = line_of(SOME, 200)
    assert line == "etl ███───────── 300/1,200 1:01, 4:34 left, 3 failed, 100 cached, fit[7], load"
    assert line_of(SOME, 20) == "etl ███───────── 30…"


def test_what_is_not_done_is_not_shown_as_done(capsys):
    nearly = SOME._replace(total=500, done=499)
    LogProgress().show(nearly)
    LogProgress().show(SOME._replace(total=5, done=5, open=True))  # the length of some map is not known yet
    LogProgress().show(SOME._replace(total=5, done=5))
    LogProgress().show(SOME._replace(total=0, done=0))
    told = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == ["etl: 499/500 done (99 %)", "etl: 5/5+ done (99 %)", "etl: 5/5 done (100 %)", "etl: 0/0 done (0 %)"]
    assert "███████████─ 499/500" in line_of(nearly, 200)
    assert "width:99.8%" in _bar(nearly)
    assert "width:99.9%" in _bar(nearly._replace(total=100_000, done=99_999))


@pytest.mark.parametrize("width", [200, 80, 60])
def test_the_line_of_rich_fits_the_terminal(monkeypatch, width):
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = re.sub(r"\x1b\[[0-9;]*m", "", RichRenderer()(SOME, width))
    assert len(line) <= width
    assert line.startswith("etl ")
    assert "300/1,200" in line
    assert "\n" not in line
    assert ("fit[7], load" in line) is (width == 200)
    assert "3 failed, 100 cached" in line


def test_what_is_printed_goes_above_the_line(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    view = TerminalLine(lambda progress, width: "BAR")
    view.show(SOME)
    print("one", end="")
    view.show(SOME)  # somebody is in the middle of a line: no bar
    print(" two")
    view.show(SOME)
    view.close(SOME)
    print("after")
    assert terminal.getvalue().replace("\r\x1b[2K", "|") == "|BAR|one two\n|BAR|BAR\nafter\n"
    assert sys.stdout is terminal


def test_a_stream_that_is_no_terminal_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    view = TerminalLine()
    assert sys.stdout is file
    view.close(SOME)


def test_without_a_terminal_there_is_a_line_now_and_then(capsys):
    view = LogProgress()
    pauses = [view.every]
    for _ in range(8):
        view.show(SOME)
        pauses.append(view.every)
    assert capsys.readouterr().err.splitlines()[0] == ("etl: 300/1,200 done (25 %), 3 failed, 100 cached, after 1:01")
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_gets_a_bar_and_a_file_keeps_its_output(tmp_path, rich):
    """Stderr is the terminal, stdout a file: nothing of the one comes into the other."""
    code = "import sys, time\n" + ("" if rich else "sys.modules['rich'] = None\n")
    code += "from flowyml import Pipeline\ndef nap(i):\n    print('nap', i); time.sleep(0.15)\n"
    code += "Pipeline('naps').map(nap, range(3), name='nap').run(progress=True)\n"
    driver, terminal = pty.openpty()
    with (tmp_path / "out").open("w") as out:
        running = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=terminal)
    os.close(terminal)
    told = b""
    while chunk := _read(driver):
        told += chunk
    os.close(driver)
    assert running.wait(20) == 0
    assert (tmp_path / "out").read_text() == "nap 0\nnap 1\nnap 2\n"
    assert "naps" in told.decode()
    assert "3/3" in told.decode()
    assert ("\x1b[1m" in told.decode()) is rich


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux: the other end is closed
        return b""


def test_a_notebook_gets_an_output_that_changes(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/html"])

    class Display:
        @staticmethod
        def display(data, raw, display_id):
            shown.append(data["text/html"])
            return Handle()

    class Shell:
        kernel = True

    module = type(sys)("IPython")
    module.get_ipython, module.display = Shell, Display
    monkeypatch.setitem(sys.modules, "IPython", module)
    view = views._choose_display()
    view.show(SOME)
    view.close(SOME._replace(pipeline="<b>", failed=0))
    assert "width:25.0%" in shown[0]
    assert shown[1].count("&lt;b&gt;") == 1


def test_logging_is_not_set_up_by_it():
    assert logging.getLogger("flowyml").handlers == []
