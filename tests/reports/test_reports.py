"""`result.timeline()`, `to_dataframe()`, `to_trace()` and `to_html()`."""

from __future__ import annotations

import gzip
import json
import logging
import math
import pickle
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, StepState

EVIL = "<script>alert('&')</script>"


def load():
    return [1, 2, 3, 4]


def square(x):
    if x == 3:
        raise ValueError(f"3 is {EVIL}")
    return x * x


def total(square):
    return sum(square)


@pytest.fixture
def pipeline() -> Pipeline:
    made = Pipeline("p <1>").add_step(load).add_step(total)
    return made.map(square, over="load").add_step(len, name="size", inputs=["load"])


@pytest.fixture
def result(pipeline, executor):
    return pipeline.run(executor=executor)


# -- timeline


def test_a_dataframe_takes_lone_surrogates(monkeypatch):
    """Names of files that are not UTF-8 have them."""
    monkeypatch.setattr(logging.getLogger("flowyml"), "disabled", True)  # pytest-xdist sends captured logs as UTF-8

    def fails():
        raise ValueError("\udce9.csv")

    frame = Pipeline("p").add_step(fails, "\ud800").run().to_dataframe()
    assert (frame["step"][0], frame["error"][0]) == (r"\ud800", r"ValueError: \udce9.csv")


def test_a_timeline_has_an_entry_a_call_in_add_order(result):
    """Items that only the run has brought stand where their step was added."""
    calls = list(result.timeline())
    assert [(call.name, str(call.state), call.attempts) for call in calls] == [
        ("load", "success", 1),
        ("total", "upstream_failed", 0),
        ("square[0]", "success", 1),
        ("square[1]", "success", 1),
        ("square[2]", "failed", 1),
        ("square[3]", "success", 1),
        ("size", "success", 1),
    ]


def test_times_are_seconds_since_the_run_began(result):
    timeline = result.timeline()
    ran = list(timeline.ran())
    assert [timeline.name(at) for at in range(len(timeline)) if at not in ran] == ["total"]
    assert math.isnan(timeline[1].start)
    assert timeline[1].worker is None
    assert all(0 <= timeline.starts[at] <= timeline.ends[at] <= result.duration_seconds for at in ran)
    assert timeline.ends[0] <= min(timeline.starts[at] for at in ran[1:])


def test_the_arrays_are_buffers_and_entries_are_made_on_demand():
    timeline = Pipeline("p").map(abs, range(1000), name="abs").run().timeline()
    assert [memoryview(each).nbytes for each in (timeline.starts, timeline.workers, timeline.states)] == [
        8000,
        2000,
        1000,
    ]
    assert [call.name for call in timeline[998:]] == ["abs[998]", "abs[999]"]
    assert timeline[-1].state is StepState.SUCCESS
    assert pickle.loads(pickle.dumps(timeline))[7].name == "abs[7]"
    assert repr(timeline).startswith("<Timeline: 1,000 calls, 1,000 of them ran, in 0.")


def test_what_came_from_the_cache_did_not_run(tmp_path):
    made = Pipeline("p", cache_dir=tmp_path).add_step(max, params={"a": 1, "b": 2}, cache=True)
    made.run()
    timeline = made.run().timeline()
    assert (list(timeline.ran()), str(timeline[0].state)) == ([], "cached")


def test_a_retry_counts_its_attempts_and_has_the_last_one(tmp_path):
    def flaky():
        with (tmp_path / "seen").open("a") as seen:
            seen.write("x")
        if (tmp_path / "seen").read_text() != "xx":
            raise OSError("not yet")

    assert Pipeline("p").add_step(flaky, retry=1).run().timeline()[0].attempts == 2


# -- dataframe


def test_a_dataframe_has_a_row_a_call(result):
    frame = result.to_dataframe()
    assert list(frame.columns) == [
        *("step", "item", "state", "worker", "attempts"),
        *("start", "end", "duration", "cpu_seconds", "max_rss", "error"),
    ]
    assert list(frame["step"]) == ["load", "total", *["square"] * 4, "size"]
    assert list(frame["item"].fillna(-1)) == [-1, -1, 0, 1, 2, 3, -1]
    assert frame.loc[4, "error"].startswith("ValueError: 3 is <script>")
    assert frame["error"].notna().sum() == 1
    assert frame["state"].value_counts()["success"] == 5
    assert frame["worker"].isna().tolist() == [False, True, *[False] * 5]
    assert (frame["end"] - frame["start"]).dt.total_seconds().dropna().ge(0).all()
    assert frame["start"].min() >= result.start_time


def test_what_steps_used_is_in_the_dataframe_where_it_is_known():
    """On worker processes, of steps of a millisecond or more."""
    made = Pipeline("p").add_step(sum, params={"iterable": range(500_000)})
    with ParallelExecutor(1) as executor:
        result = made.run(executor=executor)
    row = result.to_dataframe().loc[0]
    one = result.step_results["sum"]
    assert (row["cpu_seconds"], row["max_rss"]) == (one.cpu_seconds, one.max_rss)
    assert made.run().to_dataframe()[["cpu_seconds", "max_rss"]].isna().all(axis=None)


def test_an_empty_run_is_an_empty_dataframe():
    assert Pipeline("p").run().to_dataframe().empty


def test_without_pandas_the_error_says_what_to_install():
    code = "import sys; sys.modules['pandas'] = None\nfrom flowyml import Pipeline\n"
    code += "try: Pipeline('p').run().to_dataframe()\nexcept ImportError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout == "to_dataframe() needs pandas: pip install pandas\n"


# -- trace


def test_a_trace_has_a_slice_a_call_on_the_thread_of_its_worker(result, tmp_path):
    result.to_trace(tmp_path / "t.json")
    trace = json.loads((tmp_path / "t.json").read_text())
    slices = {event["name"]: event for event in trace["traceEvents"] if event["ph"] == "X"}
    assert set(slices) == {"load", "size", "square[0]", "square[1]", "square[2]", "square[3]"}
    assert slices["square[2]"]["args"] == {"state": "failed", "attempts": 1}
    threads = {event["tid"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert threads == {event["tid"] for event in slices.values()}
    timeline = result.timeline()
    assert slices["load"]["ts"] == pytest.approx(timeline.starts[0] * 1e6, abs=0.01)
    assert trace["otherData"]["run_id"] == result.run_id
    assert trace["traceEvents"][0]["args"]["name"] == "p <1>"


def test_flows_are_arrows_between_slices(result, tmp_path):
    result.to_trace(tmp_path / "t.json.gz", flows=True)
    events = json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))["traceEvents"]
    begins, ends = ([event for event in events if event["ph"] == kind] for kind in "sf")
    assert [event["id"] for event in begins] == [event["id"] for event in ends]
    assert len(begins) == 2  # load to size, load to the first of the squares
    assert all(begin["ts"] <= end["ts"] for begin, end in zip(begins, ends, strict=True))


def test_item_by_item_each_item_has_its_arrow(tmp_path):
    Pipeline("p").map(abs, [1, 2, 3], name="a").map(abs, over="a", name="b").run().to_trace(tmp_path / "t", flows=True)
    events = json.loads((tmp_path / "t").read_text())["traceEvents"]
    assert sum(event["ph"] == "s" for event in events) == 3


# -- the page

VOID = {"meta", "br", "link", "img", "path", "rect", "polygon", "circle", "line"}


class Page(HTMLParser):
    """What a page holds, and whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.text, self.links = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(result, path) -> tuple[Page, str]:
    result.to_html(path)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    return page, text


def test_the_page_is_one_file_without_script_or_links(result, tmp_path):
    page, text = page_of(result, tmp_path / "r.html")
    assert page.links == []
    assert "script" not in page.tags
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)


def test_the_page_tells_states_failures_and_times(result, tmp_path):
    page, text = page_of(result, tmp_path / "r.html")
    told = " ".join(page.text)
    for part in (
        "p <1>",
        "failed",
        "1 failure",
        f"ValueError: 3 is {EVIL}",
        "Graph",
        "Timeline",
        "Functions",
        "Slowest",
    ):
        assert part in told
    assert EVIL not in text
    assert "parallel efficiency" in told
    assert "Traceback (most recent call last)" in told
    assert "did not run: step 'square' failed" in told


def test_the_picture_has_the_colours_of_the_states(result, tmp_path):
    _, text = page_of(result, tmp_path / "r.html")
    assert "<title>square: 4 items, 3 success, 1 failed</title>" in text
    assert "<title>total: upstream failed</title>" in text


def test_a_large_run_is_a_small_page(tmp_path):
    made = Pipeline("large").map(abs, range(100_000), name="abs")
    for i in range(300):
        made.add_step(abs, name=f"step_{i}", params={"x": i})
    with ParallelExecutor(2, backend="thread") as executor:
        result = made.run(executor=executor)
    page, text = page_of(result, tmp_path / "r.html")
    assert len(text) < 1_500_000
    assert page.tags.count("i") < 10_000
    assert "100,000 items" in text


def test_what_nobody_has_run_is_a_page_too(tmp_path):
    empty = Pipeline("p").run()
    dry = Pipeline("p").add_step(max, params={"a": 1, "b": 2}).run(dry_run=True)
    skipped = Pipeline("p").add_step(lambda: 1, name="a", condition=lambda: False).run(executor=LocalExecutor())
    for result in (empty, dry, skipped):
        page, _ = page_of(result, tmp_path / "r.html")
        assert result.state.replace("_", " ") in page.text


def test_secrets_of_a_context_are_not_in_it(tmp_path):
    made = Pipeline("p", context={"token": "s3cret"}).add_step(lambda token: token, name="a")
    _, text = page_of(made.run(), tmp_path / "r.html")
    assert "s3cret" not in text


def test_a_page_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Pipeline("p").run().to_html(tmp_path / "nowhere" / "r.html")
