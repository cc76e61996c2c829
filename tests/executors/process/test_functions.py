"""A worker loads a function when the first step that calls it has begun: what goes wrong there is that step's alone."""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import worker_pools
from run_notes import executions, kept

from flowyml import ParallelExecutor, Pipeline, StepTimeoutError, WorkerLostError
from flowyml.executors.process.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LATE = 0.5
"""Seconds after its deadline by which a step must have ended."""

IN_A_WORKER = "import os, sys, threading, time\nif int(os.environ['DRIVER']) != os.getpid():\n    "
WORK = "\ndef work(x=1):\n    return x\n"
ENDLESS = {
    "in Python": "while True: pass",
    "in C": "time.sleep(600)",
    "in a lock": "(lock := threading.Lock()).acquire(); lock.acquire()",
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Any]]:
    """Write a module that does something when a worker imports it; return its function."""
    monkeypatch.setenv("DRIVER", str(os.getpid()))
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(name: str, does: str) -> Any:
        (tmp_path / f"{name}.py").write_text(IN_A_WORKER + does + WORK)
        names.append(name)
        return importlib.import_module(name).work

    yield write
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize(("workers", "does"), [(1, "os._exit(7)"), (2, "os.abort()"), (8, "os._exit(7)")])
def test_a_module_that_crashes_when_it_is_imported(module: Any, workers: int, does: str, tmp_path: Path) -> None:
    """The step that calls its function is to blame, and nobody else: not those that come first, nor those beside it."""
    crashes = module("crashes", does)
    pipeline = Pipeline("p").map(kept, range(100), name="small", params={"folder": str(tmp_path)})
    pipeline.add_step(crashes, "guilty").add_step(lambda: 5, "other")
    with ParallelExecutor(workers) as executor:
        result = pipeline.run(executor=executor)
    assert [each.step_name for each in result.failed] == ["guilty"]
    assert isinstance(result.failed[0].exception, WorkerLostError)
    assert result["other"] == 5
    assert executions(tmp_path) == list(range(100))


@pytest.mark.parametrize("does", ENDLESS.values(), ids=ENDLESS)
def test_an_import_that_never_ends_is_ended_with_its_step(
    module: Any, does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is that for loading and the step's own; whatever else was posted to its worker runs elsewhere, once."""
    monkeypatch.setattr(wire, "MAX_LOADING_SECONDS", 0.6)
    endless = module("endless", does)
    pipeline = Pipeline("p").add_step(endless, "guilty", timeout=0.3)
    pipeline.map(kept, range(100), name="small", params={"folder": str(tmp_path)})
    with ParallelExecutor(1) as executor:
        Pipeline("warm").add_step(abs, params={"x": 1}).run(executor=executor)
        begun = time.monotonic()
        result = pipeline.run(executor=executor)
        assert time.monotonic() - begun < 0.9 + worker_pools.under_load(LATE + 1)
    guilty = result.step_results["guilty"]
    assert (str(guilty.state), isinstance(guilty.exception, StepTimeoutError)) == ("timed_out", True)
    assert guilty.duration_seconds < 0.3 + worker_pools.under_load(LATE)
    assert [each.step_name for each in result.failed] == ["guilty"]
    assert executions(tmp_path) == list(range(100))


def test_an_import_that_never_ends_in_every_worker_at_once(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_LOADING_SECONDS", 0.4)
    endless = module("endless_too", "while True: pass")
    with ParallelExecutor(2) as executor:
        result = (
            Pipeline("p")
            .map(endless, [1, 2, 3], name="m", timeout=0.2)
            .add_step(abs, params={"x": -1})
            .run(executor=executor)
        )
    assert [each.step_name for each in result.failed] == ["m[0]", "m[1]", "m[2]"]
    assert {str(each.state) for each in result.failed} == {"timed_out"}
    assert result["abs"] == 1


def test_an_import_that_never_ends_spends_an_attempt(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wire, "MAX_LOADING_SECONDS", 0.3)
    mark = tmp_path / "tried"
    ends = module(
        "ends_at_last",
        f"\n    if not os.path.exists({str(mark)!r}):\n        open({str(mark)!r}, 'x')\n        time.sleep(600)",
    )
    with ParallelExecutor(1) as executor:
        result = Pipeline("p").add_step(ends, "step", timeout=0.2, retry=1).run(executor=executor)
    assert (result["step"], result.step_results["step"].attempts) == (1, 2)


def test_a_module_is_imported_when_a_step_needs_it(module: Any, tmp_path: Path) -> None:
    """Not for steps that do not run: their dependency has failed."""
    slow = module("unneeded", f"open({str(tmp_path / 'imported')!r}, 'x')")
    pipeline = (
        Pipeline("p")
        .add_step(lambda: 1 / 0, "fails")
        .add_step(slow, "never", after=["fails"])
        .add_step(abs, params={"x": -1})
    )
    with ParallelExecutor(1) as executor:
        assert pipeline.run(executor=executor)["abs"] == 1
    assert not (tmp_path / "imported").exists()


def test_an_import_is_no_part_of_the_time_of_a_step(module: Any) -> None:
    """Neither as it is told, nor as batches are sized by it."""
    slow = module("slow_one", "time.sleep(0.5)")
    with ParallelExecutor(1) as executor:
        result = Pipeline("p").add_step(slow, "step").run(executor=executor)
    assert result.step_results["step"].duration_seconds < 0.25


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(3)", "GeneratorExit", "ValueError('no')"])
def test_an_import_that_raises_is_the_failure_of_its_steps(module: Any, error: str) -> None:
    raises = module("raises", f"raise {error}")
    with ParallelExecutor(2) as executor:
        result = Pipeline("p").map(raises, [1, 2], name="m").add_step(abs, params={"x": -1}).run(executor=executor)
    assert [each.step_name for each in result.failed] == ["m[0]", "m[1]"]
    assert {type(each.exception).__name__ for each in result.failed} == {error.partition("(")[0]}
    assert result["abs"] == 1


UNLESS = "if not os.path.exists({!r}): raise ImportError('not there')"
"""What a module does that does not load until there is a file."""


def by_value(function: Any) -> Any:
    """Return a function that a worker gets by value, and that is loaded with another one."""
    return lambda x=1: function(x)


@pytest.mark.parametrize("travels", [lambda function: function, by_value], ids=["by name", "by value"])
@pytest.mark.parametrize("seed", [None, 1])
def test_an_import_that_raised_is_tried_again_by_the_next_run(
    module: Any, travels: Any, seed: int | None, tmp_path: Path
) -> None:
    needed = tmp_path / "needed"
    pipeline = Pipeline("p").add_step(travels(module("mended", UNLESS.format(str(needed)))), "step")
    with ParallelExecutor(1) as executor:
        first, again = (pipeline.run(executor=executor, seed=seed) for _ in range(2))
        needed.touch()
        assert pipeline.run(executor=executor, seed=seed)["step"] == 1
    assert [type(each.step_results["step"].exception) for each in (first, again)] == [ImportError] * 2


@pytest.mark.parametrize("travels", [lambda function: function, by_value], ids=["by name", "by value"])
def test_an_import_that_raised_is_tried_again_by_the_next_attempt(module: Any, travels: Any, tmp_path: Path) -> None:
    tried = str(tmp_path / "tried")
    raises = module("raises_once", f"\n    if not os.path.exists({tried!r}): open({tried!r}, 'x'); 1 / 0")
    with ParallelExecutor(1) as executor:
        result = Pipeline("p").add_step(travels(raises), "step", retry=1).run(executor=executor)
    assert (result["step"], result.step_results["step"].attempts) == (1, 2)


def test_a_module_that_raises_is_not_imported_for_each_item(module: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    raises = module("raises_always", f"open({str(trace)!r}, 'a').write('x'); 1 / 0")
    with ParallelExecutor(1) as executor:
        result = Pipeline("p").map(raises, range(3000), name="m").run(executor=executor)
    assert len(result.failed) == 3000
    assert trace.read_text() == "x"


def test_what_loads_is_not_loaded_again_for_what_does_not(module: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    fine = module("fine", f"open({str(trace)!r}, 'a').write('x')")
    raises = module("raises_beside_it", "1 / 0")
    pipeline = Pipeline("p").add_step(fine, "fine").add_step(raises, "raises", after=["fine"])
    with ParallelExecutor(1) as executor:
        results = [pipeline.run(executor=executor) for _ in range(2)]
    assert [(each["fine"], len(each.failed)) for each in results] == [(1, 1)] * 2
    assert trace.read_text() == "x"


def test_a_child_forked_by_an_import_does_no_step(module: Any, tmp_path: Path) -> None:
    forks = module("forks", "os.fork()")
    pipeline = Pipeline("p").add_step(forks, "forks").map(kept, range(50), params={"folder": str(tmp_path)})
    with ParallelExecutor(1) as executor:
        result = pipeline.run(executor=executor)
        assert result["forks"] == 1
    assert executions(tmp_path) == list(range(50))


SLOTTED = """
import abc, dataclasses, typing

@dataclasses.dataclass(slots=True)
class Point:
    x: int
    y: int = 2

@dataclasses.dataclass(slots=True, frozen=True, weakref_slot=True)
class Frozen:
    x: int

class One:
    __slots__ = "only"

class Private:
    __slots__ = ("__hidden", "open")
    def __init__(self):
        self.__hidden, self.open = 1, 2
    def both(self):
        return self.__hidden, self.open

class Below(Point):
    __slots__ = ("z",)

class Abstract(abc.ABC):
    __slots__ = ()

class Generic(typing.Generic[typing.TypeVar("T")], Abstract):
    __slots__ = ("value",)

class WithDict:
    __slots__ = ("a", "__dict__")

class Named(typing.NamedTuple):
    a: int
    b: int = 8

def made():
    one, below, generic, more = One(), Below(1), Generic(), WithDict()
    one.only, below.z, generic.value, more.a, more.b = 1, 3, 4, 5, 6
    return [Point(1), Frozen(1), one, Private(), below, generic, more]

def have_dict(made):
    return [hasattr(each, "__dict__") for each in made]

def attributes(made):
    point, frozen, one, private, below, generic, more = made
    return point.x, frozen.x, one.only, private.both(), below.x, below.z, generic.value, more.a, more.b, Named(7)
"""


def test_a_class_that_goes_by_value_has_its_slots(by_hand):
    module = by_hand("made_slotted", SLOTTED)
    pipeline = Pipeline("slots").add_steps([module.made, module.have_dict, module.attributes])
    with ParallelExecutor(1) as executor:
        result = pipeline.run(executor=executor)
    here = module.made()
    assert list(map(type, result["made"])) == list(map(type, here))
    assert result["have_dict"] == module.have_dict(here) == [False] * 6 + [True]
    assert result["attributes"] == module.attributes(result["made"]) == module.attributes(here)


MADE_ONCE = """
import enum

class Plugin:
    known = {}
    def __init_subclass__(cls, /, kind, **rest):
        super().__init_subclass__(**rest)
        Plugin.known.setdefault(kind, []).append(cls.__name__)

class Reader(Plugin, kind="reader"):
    class Options:
        pass

class Planet(enum.Enum):
    EARTH = (5.976e24, 6.37814e6)
    MARS = (6.421e23, 3.3972e6)
    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius
    def gravity(self):
        return 6.67300e-11 * self.mass / (self.radius * self.radius)

class Status(int, enum.Enum):
    def __new__(cls, value, phrase):
        made = int.__new__(cls, value)
        made._value_, made.phrase = value, phrase
        return made
    OK = 200, "fine"
    GONE = 410, "gone"

def plugins():
    return Plugin.known, Reader.Options.__qualname__

def members():
    return [each.gravity() for each in Planet], [(each + 0, each.phrase, Status(each.value) is each) for each in Status]

def objects():
    return Reader(), Reader.Options(), Planet.MARS, Status.GONE

def same(objects):
    assert [*map(type, objects)] == [Reader, Reader.Options, Planet, Status]
    return objects[2:] == (Planet.MARS, Status.GONE)
"""


def test_a_class_that_goes_by_value_is_made_once(by_hand):
    """The effects of `__init_subclass__` arrive with its base; its keywords are not known in the worker."""
    module = by_hand("made_plugins", MADE_ONCE)
    with ParallelExecutor(1) as executor:
        result = Pipeline("classes").add_steps([module.plugins, module.objects, module.same]).run(executor=executor)
    assert result["plugins"] == module.plugins() == ({"reader": ["Reader"]}, "Reader.Options")
    assert result["same"]
    assert module.same(result["objects"])
    assert module.Plugin.known == {"reader": ["Reader"]}


def test_members_of_an_enum_that_goes_by_value_have_their_attributes(by_hand):
    module = by_hand("made_enums", MADE_ONCE)
    with ParallelExecutor(1) as executor:
        result = Pipeline("enums").add_step(module.members).run(executor=executor)
    assert result["members"] == module.members()
