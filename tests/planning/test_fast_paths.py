"""Every fast path gives what the plain code gives: drawn pipelines run both ways (see ARCHITECTURE.md, "Fast paths").

The plain code is what a run uses if hooks, limits, large values or the like need it; here it is made to be used.
"""

from __future__ import annotations

from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_binder import built
from test_wiring_drawn import Drawing

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, get_context
from flowyml.caching.journal_keys import JournalKeys
from flowyml.caching.keys import CallHasher
from flowyml.caching.run_journal import RunJournal
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.worker.results import ResultSender
from flowyml.executors.process.worker.worker_loop import WorkerLoop
from flowyml.runtime.calls import StepCaller
from flowyml.runtime.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flowyml import Executor

pytestmark = pytest.mark.filterwarnings("ignore:.*(is used by no|reaches no) step:UserWarning")

SEEDS = st.integers(0, 2**64)


# ---- steps that do what steps do -------------------------------------------------------------------------------------


class Custom:
    """A value that only `pickle` knows."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Custom({self.value!r})"


class Odd(Exception):  # noqa: N818
    """An exception with arguments of its own."""

    def __init__(self, what: str, *, code: int = 3) -> None:
        super().__init__(what)
        self.code = code


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "int": -7,
    "large int": 2**70,
    "float": 0.1,
    "infinite": float("-inf"),
    "text": "grün",
    "long text": "x" * 3_000,
    "bytes": b"\0\xff",
    "tuple": (1, "two", None),
    "nested": [{"a": (1, 2.5)}, [b"x"], {}],
    "set": frozenset({1}),
    "object": Custom([1, 2]),
    "class": Custom,
    "exception": ValueError("a value"),
}
ERRORS: dict[str, Any] = {
    "value": ValueError("wrong"),
    "key": KeyError("missing"),
    "odd": Odd("strange"),
    "exit": SystemExit(4),
    "group": ExceptionGroup("several", [ValueError(1), TypeError(2)]),
}


def act(kind: str, *others: Any) -> Any:
    """Return or raise what the kind says; "flaky" fails until the third attempt."""
    if kind in ERRORS:
        raise ERRORS[kind]
    if kind == "flaky" and get_context().attempt < 3:
        raise ValueError(get_context().attempt)
    if kind == "two":
        return repr(others)[:50], len(others)
    return VALUES[kind] if kind in VALUES else [kind, *map(repr, others)]


def act_on(kind: str) -> Any:
    return act(kind)


def same(value: Any) -> Any:
    return value


def drawn(seed: int) -> Pipeline:
    """Return a pipeline of steps that return and raise all kinds of things, alone, in rows, in chains and in maps."""
    random = Random(seed)
    kinds = [*VALUES, *ERRORS, "flaky", "two", "own"]
    pipeline, names = Pipeline("drawn"), []
    for number in range(random.randint(3, 25)):
        name, form = f"n{number}", random.randrange(6)
        kind = random.choice(kinds) if random.randrange(3) else random.choice(list(VALUES))
        retry = random.choice([0, 2, 3])
        before = random.sample(names, min(len(names), random.randint(0, 3)))
        if form == 0 and names:
            pipeline.add_step(same, name, inputs=[random.choice(names)])
        elif form == 1:
            pipeline.add_step(act_on, name, {"kind": kind})
        elif form == 2:
            pipeline.map(
                act_on, [random.choice(kinds[:-3]) for _ in range(random.randint(1, 4))], name=name, retry=retry
            )
        elif form == 3 and names:
            pipeline.add_step(act, name, {"kind": "two"}, inputs=before, outputs=[f"{name}.text", f"{name}.count"])
            names += [f"{name}.text", f"{name}.count"]
            continue
        else:
            pipeline.add_step(act, name, {"kind": kind}, inputs=before, retry=retry)
        names.append(name)
    return pipeline


def facts(pipeline: Pipeline, executor: Executor, **options: Any) -> dict[str, Any]:
    """Return what came of a run, but for what differs from run to run."""
    result = pipeline.run(executor=executor, **options)
    return {name: (each.state, shown(each), each.attempts) for name, each in result.step_results.items()}


def shown(each: Any) -> str:
    if each.state == "success":
        return f"{type(each.output).__name__} {list(each.output) if each.attempts is None else each.output!r}"
    error = each.exception
    return f"{type(error).__name__} {error.args if error is not None else None} {getattr(error, 'code', None)}"


# ---- calls and reports in this process -------------------------------------------------------------------------------


@contextmanager
def replaced(target: Any, **attributes: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in attributes.items():
            patch.setattr(target, name, value)
        yield


def always_by_call(self: StepCaller, call: Any, *, fallbacks: bool) -> Any:
    return (*for_core(self, call, fallbacks=fallbacks)[:-1], True)


for_core = StepCaller.for_core


@pytest.fixture(scope="module", params=["local", "thread"])
def in_process(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor = LocalExecutor() if request.param == "local" else ParallelExecutor(2, backend="thread")
    with executor:
        yield executor


@given(seed=SEEDS)
@settings(max_examples=examples(60, 2_000))
def test_steps_called_by_the_loop_of_the_core_are_called_as_python_calls_them(in_process: Any, seed: int) -> None:
    pipeline = drawn(seed)
    fast = facts(pipeline, in_process)
    with replaced(StepCaller, for_core=always_by_call):
        assert facts(pipeline, in_process) == fast


@given(seed=SEEDS)
@settings(max_examples=examples(60, 2_000))
def test_reports_and_claims_in_one_call_are_those_of_two(in_process: Any, seed: int) -> None:
    pipeline = drawn(seed)
    fast = facts(pipeline, in_process)
    with replaced(Run, can_report_directly=False):
        assert facts(pipeline, in_process) == fast


# ---- calls and results of worker processes ---------------------------------------------------------------------------


def call_one_by_one() -> None:
    """Let a worker call all steps in Python."""

    def run_many(self: Any, group: Any, slot: int) -> None:
        self._run_each(group, slot, [])

    WorkerLoop._run_many = run_many  # type: ignore[method-assign]


def send_through_the_socket() -> None:
    """Let a worker send all results through its socket; those of calls in the core go past that."""

    def result(self: ResultSender, slot: int, start: float, outcome: int, value: Any, usage: Any) -> None:
        if usage is not None:
            self.send(wire.frame(wire.USAGE, [slot, *usage]))
        segments: list[bytes] = []
        slimmed = value if type(value) in wire.ATOMS else wire.extract_segments(value, segments)
        self.send(wire.frame(wire.RESULT, [slot, start, now(), outcome, slimmed], segments))

    from time import monotonic as now

    call_one_by_one()
    ResultSender.result = result  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def fast_workers() -> Iterator[Executor]:
    with ParallelExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module", params=[call_one_by_one, send_through_the_socket], ids=["calls", "results"])
def plain_workers(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with ParallelExecutor(2, initializer=request.param) as executor:
        yield executor


@given(seed=SEEDS)
@settings(max_examples=examples(30, 1_000))
def test_worker_processes_call_and_answer_alike_in_the_core_and_in_python(
    fast_workers: Any, plain_workers: Any, seed: int
) -> None:
    pipeline = drawn(seed)
    assert facts(pipeline, plain_workers) == facts(pipeline, fast_workers)


# ---- journals and keys -----------------------------------------------------------------------------------------------


def kept(pipeline: Pipeline, folder: Path) -> Pipeline:
    """Return the same steps with a journal, and one that fails, so that the journal stays."""
    keeping = Pipeline("kept", context=dict(pipeline.context), enable_checkpointing=True, checkpoint_dir=folder)
    keeping._builder = keeping._preparation.builder = pipeline._builder.copy()
    return keeping.add_step(act, "fails", {"kind": "value"})


class Journalled:
    """What runs in a block have written into their journals: by item its state, and its key."""

    def __init__(self) -> None:
        self.states: dict[int, int] = {}
        self.keys: dict[int, bytes] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        write, with_contents = RunJournal._write, JournalKeys.with_contents

        def noted(resuming: RunJournal, items: Any, values: Any, states: bytes) -> None:
            self.states.update(zip(items, states, strict=True))
            write(resuming, items, values, states)

        def keyed(keys: JournalKeys, items: Any) -> Any:
            found = with_contents(keys, items)
            self.keys.update(zip(items, found[0], strict=True))
            return found

        with replaced(RunJournal, _write=noted), replaced(JournalKeys, with_contents=keyed):
            yield


def run_and_continued(pipeline: Pipeline, executor: Executor, folder: Path) -> tuple[Any, ...]:
    """Return what a run and its continuation come to, and what is in their journals."""
    keeping, journalled = kept(pipeline, folder), Journalled()
    with journalled.watching():
        first = facts(keeping, executor)
        second = facts(keeping, executor, resume="last")
    return first, second, journalled.states, journalled.keys


@given(seed=SEEDS)
@settings(max_examples=examples(25, 1_000))
def test_journals_of_the_loop_of_the_core_hold_what_those_of_python_hold(
    in_process: Any, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pipeline, folder = drawn(seed), tmp_path_factory.mktemp("journals")
    fast = run_and_continued(pipeline, in_process, folder / "fast")
    with replaced(RunJournal, can_defer=False):
        assert run_and_continued(pipeline, in_process, folder / "plain") == fast


@given(seed=SEEDS)
@settings(max_examples=examples(25, 1_000))
def test_keys_of_many_calls_are_those_of_each_alone(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    case, folder = Drawing(seed).valid(), tmp_path_factory.mktemp("journals")
    for number, pipeline in enumerate([drawn(seed), chained(seed), built(case.spec)]):
        inputs = {"inputs": case.inputs, "context": case.context} if number == 2 else {}
        fast, plain = Journalled(), Journalled()
        with fast.watching():
            kept(pipeline, folder / f"fast{number}").run(**inputs)
        with plain.watching(), replaced(CallHasher, joined_batch=nothing), replaced(JournalKeys, _of_chain=nothing):
            kept(pipeline, folder / f"plain{number}").run(**inputs)
        assert (plain.keys, plain.states) == (fast.keys, fast.states)
        assert fast.keys


def nothing(*_: Any) -> None:
    """Have no way to do many at once."""


def chained(seed: int) -> Pipeline:
    """Return rows of numbers and texts, chains behind them and maps: what many keys at once are made for."""
    random = Random(seed)
    pipeline = Pipeline("chained")
    for row in range(random.randint(1, 3)):
        values = [random.choice([row, 0.5, "text", True, None, 2**70]) for _ in range(random.randint(1, 30))]
        for number, value in enumerate(values):
            pipeline.add_step(same, f"row{row}_{number}", {"value": value})
        names = [f"row{row}_{number}" for number in range(len(values))]
        for number in range(random.randint(0, 30)):
            pipeline.add_step(same, f"chain{row}_{number}", inputs=[random.choice(names[-random.choice([1, 1, 5]) :])])
            names.append(f"chain{row}_{number}")
        pipeline.map(same, values, name=f"map{row}")
    return pipeline
