"""The `__main__` of a worker is filled from the payload: functions, globals and classes of a script as they were."""

import concurrent.futures.thread
import functools
import importlib
import importlib.util
import sys
import xml.dom.minidom

import cloudpickle
import pytest
from payload_child import run_script

from flowyml.executors.process.protocol.reducers import find_imported_submodules

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
def script(tmp_path):
    return functools.partial(run_script, folder=tmp_path)


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
        from payload_child import Worker
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
