"""What goes to a worker as function, argument or result, and what comes back, is what it was."""

import functools
import importlib
import importlib.util
import json
import math
import operator
import pickle
import subprocess
import sys
import threading

import cloudpickle
import pytest
from payload_child import HERE, Worker

from flowyml.errors import FlowymlError, SerializationError
from flowyml.executors.process.protocol.function_payload import build_payload
from flowyml.executors.process.protocol.importable import user_modules
from flowyml.executors.process.protocol.value_pickle import ValueDumper, dump_result, dump_value, load_value


@pytest.fixture
def worker():
    with Worker() as child:
        yield child


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Modules that are written, importable and imported."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)
        return importlib.import_module(name)

    make.folder = tmp_path
    yield make
    for name in made:
        sys.modules.pop(name, None)


# ---- other callables --------------------------------------------------------------------------------------------


def shout(text):
    return text.upper()


def adding(n):
    return lambda x: x + n


class Adder:
    def __init__(self, n):
        self.n = n

    def add(self, x):
        return self.n + x

    __call__ = add


def test_functions_of_importable_modules_go_by_name():
    assert len(build_payload([json.dumps, shout, math.hypot, len, Adder], list("abcde")).data) < 300


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (shout, ("a",), "A"),
        (len, ([1, 2],), 2),
        (math.hypot, (3, 4), 5.0),
        (operator.itemgetter(1), ("ab",), "b"),
        (str.upper, ("a",), "A"),
        ("a-b".split, ("-",), ["a", "b"]),
        (functools.partial(int, base=2), ("11",), 3),
        (functools.partial(shout), ("a",), "A"),
        (Adder(1).add, (2,), 3),
        (Adder(1), (2,), 3),
        (complex, (1, 2), 1 + 2j),
        (lambda x, y=1: x + y, (1,), 2),
        (adding(3), (1,), 4),
    ],
)
def test_any_callable_works(worker, function, arguments, result):
    assert worker.run(function, *arguments) == result


def test_a_ufunc_works(worker):
    numpy = pytest.importorskip("numpy")
    assert worker.run(numpy.add, 1, 2) == 3


def test_the_same_function_many_times_travels_once(worker):
    def step(x):
        return x

    once, often = build_payload([step], ["a"]).data, build_payload([step] * 100, ["a"] * 100).data
    assert len(often) - len(once) < 400
    assert worker.load(*[step] * 3) == [None] * 3


def test_a_function_behind_a_step_object_goes_by_its_name(on_disk, worker):
    module = on_disk(
        "steps_a",
        "class Step:\n    def __init__(self, func): self.func = func\n@Step\ndef load(): return __name__, type(load)\n",
    )
    payload = build_payload([module.load.func], ["load"])
    assert b"load.func" in payload.data
    assert worker.run(module.load.func) == ("steps_a", module.Step)


def test_a_module_that_is_missing_in_the_worker_is_the_error_of_its_step_alone(on_disk, worker):
    module = on_disk("steps_b", "def step(): return 1\n")
    data = build_payload([module.step, lambda: 2], ["a", "b"]).data
    (on_disk.folder / "steps_b.py").unlink()
    failure, fine = worker.ask("load", data)
    assert isinstance(failure, ModuleNotFoundError)
    assert fine is None
    assert worker.call(1) == 2


def test_a_module_that_exits_on_import_is_the_error_of_its_step(on_disk, worker):
    module = on_disk("steps_c", "import os\nif os.environ.get('STEPS_C'): raise SystemExit(3)\ndef step(): return 1\n")
    worker.run(lambda: __import__("os").environ.__setitem__("STEPS_C", "1"))
    assert [type(error) for error in worker.load(module.step)] == [SystemExit]


# ---- modules that cannot be imported ----------------------------------------------------------------------------

BY_HAND = """
import dataclasses
COUNT = [0]
@dataclasses.dataclass
class Point:
    x: int
def helper(p): return p.x + COUNT[0]
def step(p):
    import pickle
    global SEEN
    SEEN = isinstance(p, Point)
    COUNT[0] += 1
    pickle.dumps(helper)
    return helper(p), seen(), Point(9)
def seen(): return SEEN
"""


@pytest.mark.parametrize(("name", "parents"), [("made_by_hand", ()), ("made.by.hand", ("made", "made.by"))])
def test_a_module_made_by_hand_goes_by_value_with_helpers_and_classes(by_hand, worker, name, parents):
    module = by_hand(name, BY_HAND, parents)
    result, seen, back = worker.run(module.step, module.Point(1))
    assert (result, seen) == (2, True)
    assert type(back) is module.Point
    assert not cloudpickle.list_registry_pickle_by_value()


def test_a_module_made_by_hand_below_nothing_goes_by_value(by_hand, worker):
    module = by_hand("nothing.made", "class Point: pass\ndef step(p): return p, isinstance(p, Point)\n")
    back, same = worker.run(module.step, module.Point())
    assert same
    assert type(back) is module.Point


def test_a_module_with_the_file_of_another_goes_by_value(on_disk, tmp_path, worker):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "steps_d.py").write_text("def step(): return 'elsewhere'\n")
    on_disk("steps_d", "def step(): return 'found'\n")
    spec = importlib.util.spec_from_file_location("steps_d", elsewhere / "steps_d.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["steps_d"] = module
    spec.loader.exec_module(module)
    assert worker.run(module.step) == "elsewhere"


def test_a_module_made_by_hand_can_be_a_global(by_hand, worker):
    module = by_hand("helpers_by_hand", "LIM = 4\ndef limit(): return LIM\n")
    namespace = {"helpers": module, "__name__": "nowhere"}
    exec("def step(): return helpers.limit()", namespace)
    assert worker.run(namespace["step"]) == 4


@pytest.mark.parametrize("mode", ["importlib", "prepend"])
def test_steps_in_tests_work_in_each_import_mode(tmp_path, mode):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_inner.py").write_text(f"import sys; sys.path.append({str(HERE)!r})\n" + INNER)
    assert run_pytest(tmp_path, f"--import-mode={mode}").count("1 passed") == 1


INNER = """
from payload_child import Worker
class Point: pass
COUNT = [0]
def helper(): COUNT[0] += 1; return COUNT[0]
def step(p): assert isinstance(p, Point); helper(); return helper(), p
def test_step():
    with Worker() as w:
        count, back = w.run(step, Point())
    assert count == 2 and type(back) is Point
"""


def run_pytest(folder, *options):
    import subprocess

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "tests"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False).stdout


def test_a_module_that_runs_a_pipeline_on_import_is_named(on_disk, worker):
    text = "from flowyml.import_guard import refuse_if_loading\nrefuse_if_loading()\ndef step(): return 1\n"
    module = on_disk("daily", text)
    (error,) = worker.load(module.step)
    assert isinstance(error, FlowymlError)
    assert str(error).startswith("module 'daily' runs a pipeline when it is imported; put it under if __name__")


# ---- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, "__main__", b"\x93__main__", {"a": (1, [2.0, None])}, 1 + 2j, {1, 2}])
def test_plain_values_are_plainly_pickled(value):
    assert dump_value(value) == dump_result(value) == pickle.dumps(value, 5)
    assert load_value(dump_value(value)) == value


def test_a_lambda_is_a_value():
    assert load_value(dump_value([lambda x: x + 1]))[0](1) == 2


def test_a_local_class_comes_back_as_itself():
    class Local:
        pass

    assert type(load_value(dump_value(Local()))) is Local


def test_an_instance_of_a_class_made_in_a_step_comes_back(worker):
    def step():
        class Made:
            x = 3

        return Made()

    assert worker.run(step).x == 3


def test_an_array_with_a_name_in_its_contents_is_plainly_pickled():
    class Array:
        def __reduce_ex__(self, protocol):
            return bytes, (pickle.PickleBuffer(b"__main__"),)

    assert dump_value(Array()) == pickle.dumps(Array(), 5)


class Translated:
    """An object of its own for each step, as a translator of graphs makes them; counts how often it is pickled."""

    dumps = 0

    def __init__(self, *arguments):
        self.arguments = arguments

    def __getstate__(self):
        type(self).dumps += 1
        return self.arguments

    def __setstate__(self, arguments):
        self.arguments = arguments


@pytest.fixture
def translated(monkeypatch):
    """The class, as one of a script."""
    monkeypatch.setattr(Translated, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Translated", Translated, raising=False)
    monkeypatch.setattr(Translated, "dumps", 0)
    return Translated


def dumped_one_by_one(values):
    dumper = ValueDumper()
    try:
        return [dumper.dump(value, "a value") for value in values]
    finally:
        dumper.close()


def test_many_values_by_value_are_what_each_is_alone(translated):
    shared = [1]
    values = [translated(operator.add, shared), 7, [translated(shared)], (lambda: shared), translated(math.pi)]
    loaded = [load_value(data) for data in dumped_one_by_one(values)]
    assert loaded[0].arguments == (operator.add, [1])
    assert loaded[1] == 7
    assert loaded[2][0].arguments == ([1],)
    assert loaded[3]() == [1]
    assert loaded[4].arguments == (math.pi,)
    assert loaded[0].arguments[1] is not loaded[2][0].arguments[0]


def test_each_object_of_a_class_by_value_is_pickled_once_but_for_the_first(translated):
    dumped_one_by_one([translated(k) for k in range(10)])
    assert translated.dumps == 11


def test_a_value_that_does_not_pickle_leaves_nothing_in_the_next_one(translated):
    dumper = ValueDumper()
    assert load_value(dumper.dump(translated(1), "a value")).arguments == (1,)
    with pytest.raises(SerializationError, match="a lock"):
        dumper.dump(translated("a" * 100, threading.Lock()), "a lock")
    assert load_value(dumper.dump(translated(2), "a value")).arguments == (2,)
    dumper.close()
    assert load_value(dumper.dump(translated(3), "a value")).arguments == (3,)
    dumper.close()


def test_functions_of_modules_go_without_cloudpickle():
    """It takes long to import, and what goes by name does not need it."""
    code = "import json, sys; from flowyml.executors.process.protocol.function_payload import build_payload as build\n"
    code += "build([json.dumps, json.loads], ['a', 'b']); assert 'cloudpickle' not in sys.modules\n"
    code += "build([lambda: 1], ['c']); assert 'cloudpickle' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- fingerprints of modules ------------------------------------------------------------------------------------


def test_user_modules_are_those_outside_the_installation(on_disk):
    on_disk("mine_a", "x = 1\n")
    known = user_modules()
    assert "mine_a" in known
    assert "payload_child" in known
    assert not {"json", "pytest", "flowyml", "flowyml.errors", "__main__", "sys"} & known.keys()


def test_the_fingerprint_changes_when_a_module_is_edited(on_disk):
    on_disk("mine_b", "x = 1\n")
    before = user_modules()["mine_b"]
    assert user_modules()["mine_b"] == before
    (on_disk.folder / "mine_b.py").write_text("x = 1000\n")
    assert user_modules()["mine_b"] != before


def test_the_fingerprint_changes_when_a_module_is_imported_anew(on_disk):
    module = on_disk("mine_c", "x = 1\n")
    before = user_modules()["mine_c"]
    del sys.modules["mine_c"]
    again = importlib.import_module("mine_c")
    assert again is not module
    assert user_modules()["mine_c"] != before
