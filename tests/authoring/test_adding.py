"""Adding steps: from several threads, while the pipeline runs, and cut short by Ctrl-C at any instruction."""

from __future__ import annotations

import dis
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import If, ParallelExecutor, Pipeline, registry, step
from flowyml.authoring import builder, step_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# After these the interpreter looks whether there was a signal.
LOOKS = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}
FILES = {each.__file__ for each in (step_table, step_table, builder)}


def same(value: Any) -> Any:
    return value


def add_one(pipeline: Pipeline, name: str) -> None:
    pipeline.add_step(same, name=name, params={"value": name})


class Interrupt:
    """Raises KeyboardInterrupt where an interpreter may do so, at the given one of such places in a pipeline's methods.

    Attributes:
        left: How many such places are still to be passed.
    """

    def __init__(self, place: int) -> None:
        self.left = place
        self._last: dict[FrameType, int] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> Interrupt | None:
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last = self._last.get(frame)
            self._last[frame] = frame.f_lasti
            if last is not None and dis.opname[frame.f_code.co_code[last]] in LOOKS:
                self.left -= 1
                if self.left < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
        return self


def interrupted(prepare: Callable[[], Pipeline], add: Callable[[Pipeline], Any]) -> Iterator[Pipeline]:
    """Go through pipelines to which `add` adds something and is interrupted, once at each place where it may be."""
    trace = sys.gettrace()
    for place in range(10_000):
        pipeline = prepare()
        try:
            sys.settrace(Interrupt(place))
            add(pipeline)
        except KeyboardInterrupt:
            yield pipeline
        else:
            assert place > 3, "it was interrupted somewhere"
            return
        finally:
            sys.settrace(trace)


def begun() -> Pipeline:
    pipeline = Pipeline("p")
    for name in ("a", "b", "c"):
        add_one(pipeline, name)
    return pipeline


def begun_and_run() -> Pipeline:
    pipeline = begun()
    pipeline.run()
    return pipeline


def found() -> Pipeline:
    return Pipeline("found by itself", auto_discover=True)


def inner() -> Pipeline:
    return Pipeline("inner").add_step(same, "x", {"value": "x"}).add_step(same, "y", {"value": "y"})


INNER = inner()


WAYS: dict[str, tuple[Callable[[Pipeline], Any], set[str]]] = {
    "the same line": (lambda pipeline: add_one(pipeline, "d"), {"d"}),
    "another line": (lambda pipeline: pipeline.add_step(same, "d", {"value": "d"}, retry=1), {"d"}),
    "map": (lambda pipeline: pipeline.map(same, ["x", "y"], name="d"), {"d"}),
    "sub-pipeline": (lambda pipeline: pipeline.add_sub_pipeline(INNER), {"inner.x", "inner.y"}),
    "branches": (
        lambda pipeline: pipeline.add_control_flow(
            If(lambda _: True, step(lambda: 1, name="yes"), step(lambda: 2, name="no"), name="which")
        ),
        {"which", "yes", "no"},
    ),
}


@pytest.mark.parametrize("prepare", [begun, begun_and_run])
@pytest.mark.parametrize("way", WAYS)
def test_what_was_interrupted_is_added_wholly_or_not_at_all(prepare: Callable[[], Pipeline], way: str) -> None:
    """Wherever Ctrl-C comes, what was there before is as it was, and what is missing can be added again."""
    add, new = WAYS[way]
    for pipeline in interrupted(prepare, add):
        names = set(pipeline.run().step_results)
        assert names in ({"a", "b", "c"}, {"a", "b", "c"} | new)
        if not names & new:
            add(pipeline)
        add_one(pipeline, "e")
        result = pipeline.run()
        assert set(result.step_results) == {"a", "b", "c", "e"} | new
        assert [result[name] for name in "abce"] == ["a", "b", "c", "e"]
        assert len(pipeline) == 4 + len(new)


def test_an_interrupted_loop_leaves_the_pipeline_to_other_threads() -> None:
    """Nothing stays locked behind the thread that was interrupted."""
    with ThreadPoolExecutor(1) as other:
        for pipeline in interrupted(begun, lambda pipeline: add_one(pipeline, "d")):
            other.submit(add_one, pipeline, "e").result(10)
            assert "e" in pipeline


def test_steps_are_found_though_looking_for_them_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that looks for its steps finds all of them the next time."""
    made = registry._StepRegistry()  # without the steps of other tests
    monkeypatch.setattr(registry, "_registry", made)
    monkeypatch.setattr(registry, "register", made.add)
    kept = [step(lambda: 1, name=name, pipeline="found by itself") for name in ("one", "two")]
    for pipeline in interrupted(found, lambda pipeline: pipeline.build()):
        assert set(pipeline.run().step_results) == {each.name for each in kept}


def test_a_refused_branch_leaves_nothing_behind() -> None:
    """Where the name of a branch is taken, its decision is not added either."""
    pipeline = begun()
    with pytest.raises(ValueError, match="'b' was added already"):
        pipeline.add_control_flow(If(lambda _: True, step(lambda: 1, name="yes"), step(lambda: 2, name="b")))
    assert set(pipeline.run().step_results) == {"a", "b", "c"}


@pytest.fixture
def often() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
def test_threads_may_add_steps_at_once() -> None:
    """Each step keeps its own values, whoever adds others meanwhile."""
    pipeline, start = Pipeline("p"), threading.Barrier(4)

    def add(thread: int) -> None:
        start.wait(10)
        for k in range(1_500):
            pipeline.add_step(lambda value: value, name=f"{thread}_{k}", params={"value": (thread, k)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    result = pipeline.run()
    assert [(t, k) for t in range(4) for k in range(1_500) if result[f"{t}_{k}"] != (t, k)] == []


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_run_has_the_steps_that_were_added_when_it_began(backend: Any) -> None:
    """One thread adds steps, sub-pipelines among them, another runs the pipeline: they do not disturb each other."""
    pipeline = begun()

    def add() -> None:
        for k in range(600):
            pipeline.add_step(same, f"s{k}", {"value": k})
            if k % 100 == 0:
                pipeline.add_sub_pipeline(inner(), name=f"inner_{k}")

    with ParallelExecutor(2, backend=backend) as executor, ThreadPoolExecutor(1) as pool:
        adds = pool.submit(add)
        while True:
            last = adds.done()
            result = pipeline.run(executor=executor)
            names = [name for name in result.step_results if name.startswith("s")]
            assert names == [f"s{k}" for k in range(len(names))]
            assert [result[name] for name in names] == list(range(len(names)))
            if last:
                break
        adds.result()
    assert len(names) == 600
