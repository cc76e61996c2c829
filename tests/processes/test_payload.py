"""What goes to a worker as function, argument or result, and what comes back, is what it was."""

import concurrent.futures.thread
import functools
import importlib
import importlib.util
import json
import math
import operator
import os
import pickle
import subprocess
import sys
import threading
import types
import warnings
import xml.dom.minidom

import cloudpickle
import pytest
from remote import HERE, Worker, run_script

from flowyml import ParallelExecutor, Pipeline
from flowyml.errors import FlowymlError, SerializationError
from flowyml.executors._processes.importable import user_modules
from flowyml.executors._processes.payload import build_payload
from flowyml.executors._processes.reducers import find_imported_submodules
from flowyml.executors._processes.values import dump_result, dump_value, load_value

CLASSES = """
    import dataclasses, enum, typing

    class Color(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int
        def norm(self):
            return double(self.x)

    class Pair(typing.NamedTuple):
        a: int

    class Refused(ValueError):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    class Outer:
        class Inner:
            pass

    def double(x):
        return x * 2
"""


@pytest.fixture
def worker():
    with Worker() as child:
        yield child


@pytest.fixture
def script(tmp_path):
    return functools.partial(run_script, folder=tmp_path)


@pytest.fixture
def by_hand():
    """Modules made by hand, as notebooks and --import-mode=importlib make them: loaded, found by no finder."""
    made = []

    def make(name, text, parents=()):
        module = types.ModuleType(name)
        sys.modules[name] = module
        made.append(name)
        for parent in parents:
            sys.modules[parent] = types.ModuleType(parent)
            made.append(parent)
        exec(compile(text, f"<{name}>", "exec"), module.__dict__)
        return module

    yield make
    for name in made:
        sys.modules.pop(name, None)


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


# ---- functions of __main__ --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["file", "c", "stdin"])
def test_main_works_however_it_was_started(script, how):
    script(
        """
        LIM = 3
        def triple(x): return x * LIM
        def step(x): return triple(x) + 1
        with Worker() as w: assert w.run(step, 2) == 7
        """,
        how=how,
    )


def test_two_steps_share_a_mutable_global(script):
    script("""
        COUNT = [0]
        def one(): COUNT[0] += 1; return COUNT[0]
        def two(): COUNT[0] += 1; return COUNT[0]
        with Worker() as w:
            w.load(one, two)
            assert (w.call(0), w.call(1), w.call(0)) == (1, 2, 3)
        assert COUNT == [0]
    """)


def test_a_global_assigned_in_a_step_is_seen_by_helpers_and_by_main(script):
    script("""
        LIM = 1
        def helper(): return LIM
        def step():
            global LIM, NEW
            LIM, NEW = 2, 3
            main = sys.modules["__main__"]
            return helper(), main.LIM, main.NEW, main.helper is helper, vars(main) is globals()
        with Worker() as w: assert w.run(step) == (2, 2, 3, True, True)
    """)


def test_main_of_a_worker_has_no_file_to_run_again_and_steps_still_see_theirs(script):
    script("""
        def step(): return __file__, getattr(sys.modules["__main__"], "__file__", None), __name__, __spec__
        with Worker() as w: assert w.run(step) == (__file__, None, "__main__", None)
    """)


def test_each_payload_gets_a_fresh_main(script):
    script("""
        def first(): globals()["LEFT"] = 1
        def second(): return "LEFT" in globals(), "first" in vars(sys.modules["__main__"])
        with Worker() as w:
            w.run(first)
            assert w.run(second) == (False, False)
    """)


def test_classes_of_main_keep_their_identity_on_both_sides_and_on_the_way_back(script):
    script(
        CLASSES
        + """
    def step(point, color, pair):
        assert type(point) is Point and color is Color.RED and type(pair) is Pair
        return Point(point.norm()), color, pair, Refused(7), Outer(), Outer.Inner(), Point

    with Worker() as w:
        point, color, pair, error, outer, inner, kind = w.run(step, Point(4), Color.RED, Pair(1))
        assert type(point) is Point and point == Point(8) and color is Color.RED
        assert type(pair) is Pair and isinstance(error, Refused) and error.code == 7
        assert type(outer) is Outer and type(inner) is Outer.Inner and kind is Point
        assert Point(1).norm.__func__.__globals__ is globals()
    """.replace("\n    ", "\n    ")
    )


def test_results_of_main_classes_go_by_name(script):
    script(
        CLASSES
        + """
    def step(): return Point(1), Pair(1), Color.RED, Refused(1)
    with Worker() as w:
        w.load(step)
        data = w.ask("call", 0, dump_value(()))
        assert b"Point" in data and b"cloudpickle" not in data and len(data) < 300, data
    """
    )


def test_a_class_that_no_function_names_travels_with_its_values(script):
    script(
        CLASSES
        + """
    def step(thing, again):
        import pickle
        assert type(thing) is type(again)
        pickle.dumps(thing)
        return type(thing).__name__, thing.norm(), thing
    with Worker() as w:
        for _ in range(2):
            name, norm, back = w.run(step, Point(2), Point(3))
            assert (name, norm, type(back)) == ("Point", 4, Point)
    """
    )


def test_an_argument_does_not_reset_what_steps_of_a_worker_share(script):
    script("""
        COUNT = [0]
        class Counter:
            def get(self): return COUNT[0]
        def callback(): return COUNT[0]
        def step(counter, function):
            COUNT[0] += 1
            return COUNT[0], counter.get(), isinstance(counter, Counter)
        with Worker() as w:
            w.load(step)
            assert w.call(0, Counter(), callback) == (1, 1, True)
            assert w.call(0, Counter(), callback) == (2, 2, True)
    """)


def test_a_result_does_not_change_the_classes_of_the_driver(script):
    script("""
        class Point:
            def where(self): return "driver"
        def step():
            point = Point()
            return [point, lambda: 1]   # the lambda makes plain pickle fail
        where = Point.where
        with Worker() as w:
            point, function = w.run(step)
        assert type(point) is Point and Point.where is where and function() == 1
    """)


def test_a_class_redefined_in_a_notebook_is_the_new_one_in_the_worker(script):
    script("""
        def step(thing): return thing.value()
        with Worker() as w:
            for value in (1, 2):
                exec(f"class Thing:\\n    def value(self): return {value}", globals())
                assert w.run(step, Thing()) == value
    """)


def test_multiprocessing_and_plain_pickle_work_inside_a_step(script):
    script("""
        def square(x): return x * x
        def step(function):
            import concurrent.futures, multiprocessing, pickle
            assert pickle.loads(pickle.dumps(square)) is square
            with multiprocessing.Pool(2) as pool:
                mine = pool.map(square, [1, 2, 3])
                theirs = pool.map(function, [1])
            with concurrent.futures.ProcessPoolExecutor(2) as pool:
                return mine, theirs, list(pool.map(square, [4, 5])), multiprocessing.get_start_method()
        def other(x): return -x
        with Worker() as w:
            w.load(step)
            for _ in range(2):
                assert w.call(0, other) == ([1, 4, 9], [-1], [16, 25], "fork")
    """)


def test_a_payload_can_be_built_and_loaded_again_below_a_worker(script):
    script(
        CLASSES
        + """
    def inner(point): return point.norm(), point
    def step():
        from remote import Worker
        with Worker() as w:
            norm, back = w.run(inner, Point(3))
            return norm, type(back) is Point, back
    with Worker() as w:
        norm, same, back = w.run(step)
        assert norm == 6 and same and type(back) is Point
    """
    )


def test_a_changed_global_changes_the_digest_and_the_same_functions_do_not(script):
    script("""
        LIM = 1
        def step(x): return x + LIM
        class Thing: pass
        def other(): return Thing, {"a", "b"}, step
        digest = lambda: build_payload([step, other], ["a", "b"]).digest
        first = digest()
        assert digest() == first
        with Worker() as w:
            assert w.run(step, 1) == 2
            assert digest() == first
            LIM = 2
            assert digest() != first
            assert w.run(step, 1) == 3
    """)


def test_tracebacks_show_file_and_source_of_the_step(script):
    script("""
        import linecache
        source = "def cell(): return 1 / 0\\n"
        linecache.cache["<cell 1>"] = (len(source), None, [source], "<cell 1>")
        exec(compile(source, "<cell 1>", "exec"))
        def in_file(): return 1 / 0
        def step(which):
            import traceback
            try: which()
            except ZeroDivisionError: return traceback.format_exc()
        def cells(): return step(cell)
        def files(): return step(in_file)
        with Worker() as w:
            w.load(cells, files)
            assert 'File "<cell 1>", line 1, in cell' in w.call(0) and "return 1 / 0" in w.call(0), w.call(0)
            assert __file__ in w.call(1) and "def in_file(): return 1 / 0" in w.call(1), w.call(1)
    """)


def test_what_pickles_only_by_name_works_in_main(script):
    script(
        """
        import functools, typing
        UserId = typing.NewType("UserId", int)
        P = typing.ParamSpec("P")
        T = typing.TypeVar("T")
        Ts = typing.TypeVarTuple("Ts")

        @functools.lru_cache(maxsize=7)
        def fib(n: int) -> int: return n if n < 2 else fib(n - 1) + fib(n - 2)

        def traced(f: typing.Callable[P, T]) -> typing.Callable[P, T]:
            @functools.wraps(f)
            def inner(*args: P.args, **kw: P.kwargs) -> T: return f(*args, **kw)
            return inner

        class Box(typing.Generic[T]):
            @functools.cached_property
            def size(self) -> int: return 5
            @functools.singledispatchmethod
            def show(self, x: typing.Tuple[typing.Unpack[Ts]]): return "x"

        @functools.singledispatch
        def show(x): return "any"
        @show.register
        def _(x: int): return "int"

        @traced
        def step(user: UserId, box: Box[int]) -> UserId:
            assert fib.cache_parameters()["maxsize"] == 7
            return UserId(fib(user)), box.size, type(box) is Box, show(1), show("")

        with Worker() as w: assert w.run(step, UserId(20), Box()) == (6765, 5, True, "int", "any")
        """
    )


def test_kinds_of_classes_of_main(script):
    script(
        """
        import abc, collections, dataclasses, enum, typing

        class Perm(enum.IntFlag): R = 4; W = 2
        class Mode(enum.StrEnum): A = enum.auto()
        class Shape(abc.ABC):
            @abc.abstractmethod
            def area(self): ...
        class Square(Shape):
            __slots__ = ("a",)
            kind: typing.ClassVar = "square"
            def __init__(self, a): super().__init__(); self.a = a
            def area(self): return self.a ** 2
            @property
            def twice(self): return 2 * self.a
            @classmethod
            def unit(cls): return cls(1)
            @staticmethod
            def name(): return "sq"
        @dataclasses.dataclass(frozen=True, slots=True, order=True)
        class Key: a: int = 0; b: list = dataclasses.field(default_factory=list)
        class Movie(typing.TypedDict): title: str
        class Area(typing.Protocol):
            def area(self): ...
        Old = collections.namedtuple("Old", "a b")
        class Meta(type):
            def __new__(mcs, name, bases, ns): return super().__new__(mcs, name, bases, {**ns, "made": name})
        class WithMeta(metaclass=Meta): pass
        class Rows(list): pass
        class Table(dict): pass

        def step(things):
            perm, mode, square, key, old, meta, rows, table = things
            assert perm == Perm.R | Perm.W and mode is Mode.A and isinstance(square, Shape)
            assert (square.area(), square.twice, square.unit().a, square.name()) == (9, 6, 1, "sq")
            assert isinstance(meta, WithMeta) and meta.made == "WithMeta"
            return [perm, mode, Square(2), Key(1), Old(1, 2), WithMeta(), Rows([1]), Table(a=1), Movie(title="a"), Area]

        things = [Perm.R | Perm.W, Mode.A, Square(3), Key(1), Old(1, 2), WithMeta(), Rows(), Table()]
        with Worker() as w:
            for _ in range(2):
                back = w.run(step, things)
                assert [type(x) for x in back[:8]] == [type(x) for x in things], back
                assert back[9] is Area and back[1] is Mode.A and back[3] == Key(1) and back[2].area() == 4
        """
    )


def test_submodules_that_a_step_uses_are_imported(script):
    script("""
        import xml, xml.etree.ElementTree
        def step(): return xml.etree.ElementTree.fromstring("<a/>").tag
        with Worker() as w: assert w.run(step) == "a"
    """)


def test_the_faster_search_of_submodules_finds_what_cloudpickle_finds():
    def uses():
        return xml.dom.minidom, concurrent.futures.thread, importlib.util

    dependencies = [xml, concurrent, importlib, sys, 3]
    ours = find_imported_submodules(uses.__code__, dependencies)
    theirs = cloudpickle.cloudpickle._find_imported_submodules(uses.__code__, dependencies)
    assert {module.__name__ for module in ours} == {module.__name__ for module in theirs}
    assert len(ours) == len(theirs) > 3


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
from remote import Worker
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


# ---- errors and warnings ----------------------------------------------------------------------------------------

LOCK = threading.Lock()


def test_a_global_that_does_not_pickle_is_named_with_its_step(by_hand):
    module = by_hand(
        "made_with_lock",
        "import threading\nLOCK = threading.Lock()\ndef helper():\n    with LOCK: pass\ndef step(): helper()\n",
    )
    with pytest.raises(SerializationError) as caught:
        build_payload([len, module.helper, module.step], ["a", "b", "c"])
    message = str(caught.value)
    assert "step 'b'" in message
    assert "global variable 'LOCK' of helper()" in message
    assert "_thread.lock" in message


def test_a_global_reached_through_a_helper_is_named(by_hand):
    text = "import socket\nCONF = {'s': [socket.socket()]}\ndef helper(): return CONF\ndef step(): helper()\n"
    module = by_hand("made_with_socket", text)
    try:
        with pytest.raises(
            SerializationError, match=r"'helper' of step\(\) > .*'CONF' of helper\(\) > \['s'\] > \[0\]"
        ):
            build_payload([module.step], ["a"])
    finally:
        module.CONF["s"][0].close()


def test_a_closure_variable_that_does_not_pickle_is_named():
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="closure variable 'lock'"):
        build_payload([lambda: lock], ["a"])


def test_a_part_of_a_partial_that_does_not_pickle_is_named():
    with pytest.raises(SerializationError, match="argument 'key'"):
        build_payload([functools.partial(sorted, key=threading.Lock())], ["a"])


def test_a_value_that_does_not_pickle_is_named():
    with pytest.raises(SerializationError, match=r"argument 'x' of step 'a' cannot be pickled: \['b'\]: .*lock"):
        dump_value({"b": threading.Lock()}, "argument 'x' of step 'a'")


@pytest.mark.parametrize("mode", ["r", "w", "r+"])
def test_an_open_file_is_refused_as_a_value_and_in_a_function(tmp_path, mode):
    file = tmp_path / "file.txt"
    file.write_text("line\n")
    with file.open(mode) as opened:
        for dump in (dump_value, dump_result, lambda value: build_payload([lambda: value], ["a"])):
            with pytest.raises(SerializationError, match=r"cannot pickle an open file \('.*file.txt'\)"):
                dump([opened])


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr", "__stdout__"])
def test_a_stream_of_sys_goes_by_name(name, tmp_path, monkeypatch):
    with (tmp_path / "stream").open("w") as stream:
        monkeypatch.setattr(sys, name, stream)
        assert load_value(dump_value([stream])) == [stream]


@pytest.mark.parametrize("make", ["threading.Lock()", "open(os.devnull)"])
def test_a_result_that_does_not_pickle_gets_its_own_advice(make):
    def step():
        return eval(make, {"os": os, "threading": threading})

    with ParallelExecutor(1) as executor:
        error = Pipeline("p").add_step(step).run(executor=executor).step_results["step"].exception
    assert isinstance(error, SerializationError)
    assert str(error).startswith("the result of step 'step' cannot be pickled: cannot pickle ")
    assert str(error).endswith(
        "; return plain data (no open file or connection, no lock, no iterator), or use backend='thread'"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_large_global_is_warned_of_once_and_by_name(by_hand):
    module = by_hand("made_large", "TABLE = bytes(11 * 2**20)\nSMALL = b'1'\ndef step(): return TABLE, SMALL\n")
    with pytest.warns(UserWarning, match=r"11\.0 MiB.*'TABLE' of step\(\) \(11\.0 MiB\)") as caught:
        build_payload([module.step], ["a"])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_payload([module.step], ["a"])


def test_a_module_that_runs_a_pipeline_on_import_is_named(on_disk, worker):
    text = "from flowyml._loading import refuse_if_loading\nrefuse_if_loading()\ndef step(): return 1\n"
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


def test_functions_of_modules_go_without_cloudpickle():
    """It takes long to import, and what goes by name does not need it."""
    code = "import json, sys; from flowyml.executors._processes.payload import build_payload as build\n"
    code += "build([json.dumps, json.loads], ['a', 'b']); assert 'cloudpickle' not in sys.modules\n"
    code += "build([lambda: 1], ['c']); assert 'cloudpickle' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- fingerprints of modules ------------------------------------------------------------------------------------


def test_user_modules_are_those_outside_the_installation(on_disk):
    on_disk("mine_a", "x = 1\n")
    known = user_modules()
    assert "mine_a" in known
    assert "remote" in known
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
