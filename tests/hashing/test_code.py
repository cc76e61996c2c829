"""Fingerprints of functions: another one for whatever may change what a function does, the same for all else."""

from __future__ import annotations

import functools
import sys
import threading
import types

import pytest

from flowyml import Step
from flowyml.hashing.code_graph import UnhashableCodeError
from flowyml.hashing.fingerprint import CoveredPart, covered, differences, fingerprint


def module(source: str, name: str = "made_by_hand") -> types.ModuleType:
    """Return a module made of source, loaded under its name."""
    made = types.ModuleType(name)
    sys.modules[name] = made
    exec(compile(source, f"{name}.py", "exec"), vars(made))
    return made


def of(source: str, function: str = "f") -> bytes:
    """Return the fingerprint of a function in a module made of source."""
    return fingerprint(getattr(module(source), function)).digest


PLAIN = """
def f(x, n=2):
    total = x + n
    return [total for _ in range(3)]
"""
SAME = {
    "comments": "# one\n" + PLAIN.replace("total = x + n", "total = x + n  # more\n    # and more"),
    "blank lines": "\n\n\n" + PLAIN.replace("return", "\n\n    return"),
    "a docstring": PLAIN.replace("    total =", "    '''What it does.'''\n    total ="),
    "annotations": PLAIN.replace("x, n=2)", "x: int, n: int = 2) -> list"),
    "another function beside it": PLAIN + "\ndef g():\n    return 7\n",
    "a global that it does not read": "LIMIT = 3\n" + PLAIN,
}
OTHER = {
    "a constant": PLAIN.replace("range(3)", "range(4)"),
    "the type of a constant": PLAIN.replace("range(3)", "range(True)"),
    "an operator": PLAIN.replace("x + n", "x - n"),
    "a name": PLAIN.replace("range", "reversed"),
    "a default": PLAIN.replace("n=2", "n=3"),
    "the type of a default": PLAIN.replace("n=2", "n=2.0"),
    "a default by keyword": PLAIN.replace("n=2", "*, n=2"),
    "what is inside a comprehension": PLAIN.replace("[total for", "[-total for"),
}


@pytest.mark.parametrize("source", SAME.values(), ids=SAME)
def test_what_does_not_change_a_function_does_not_count(source):
    assert of(source) == of(PLAIN)


@pytest.mark.parametrize("source", OTHER.values(), ids=OTHER)
def test_what_changes_a_function_counts(source):
    assert of(source) != of(PLAIN)


def test_the_names_of_arguments_in_a_call_count():
    assert of("def f(x):\n    return dict(a=x)") != of("def f(x):\n    return dict(b=x)")


def test_a_docstring_that_is_used_counts():
    assert of("def f():\n    'a'\n    return 'a'") != of("def f():\n    'b'\n    return 'b'")


CALLS = """
import json, functools

RATE = {{"a": 0.5}}
TEXTS = frozenset(["a", "b"])

def deepest(x):
    return x {deepest}

def helper(x):
    return deepest(x) {helper}

class Model:
    factor = {attribute}
    def predict(self, x):
        return self.half(x) {method}
    @staticmethod
    def half(x):
        return x / 2

class Small(Model):
    def predict(self, x):
        return super().predict(x)

def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) {decorator}
    return wrapper

@logged
def f(x):
    return helper(x) + RATE["a"] + Small().predict(x) {own}, json.dumps(x), x in TEXTS
"""
NOTHING = dict.fromkeys(["deepest", "helper", "method", "decorator", "own"], "")


@pytest.mark.parametrize("where", NOTHING)
def test_what_a_function_calls_counts_however_far_away(where):
    texts = NOTHING | {"attribute": "1"}
    assert of(CALLS.format(**texts | {where: "+ 1"})) != of(CALLS.format(**texts))
    assert of(CALLS.format(**texts)) == of("# more\n" + CALLS.format(**texts))


def test_attributes_of_a_class_and_global_values_count():
    texts = NOTHING | {"attribute": "1"}
    assert of(CALLS.format(**texts | {"attribute": "2"})) != of(CALLS.format(**texts))
    assert of(CALLS.format(**texts).replace("0.5", "0.6")) != of(CALLS.format(**texts))


def test_functions_of_other_modules_that_the_user_wrote_count():
    source = (
        "import made_helpers\nfrom made_helpers import twice\ndef f(x):\n    return twice(x) + made_helpers.once(x)"
    )
    helpers = "def twice(x):\n    return 2 * x\ndef once(x):\n    return x"
    prints = []
    for text in (helpers, helpers.replace("2 *", "3 *"), helpers.replace("return x", "return -x"), helpers):
        module(text, "made_helpers")
        prints.append(of(source))
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3


def test_installed_functions_count_by_name():
    assert of("import json\ndef f(x):\n    return json.dumps(x)") != of(
        "import json\ndef f(x):\n    return json.loads(x)"
    )
    assert of("from json import dumps as g\ndef f(x):\n    return g(x)") != of(
        "from json import loads as g\ndef f(x):\n    return g(x)"
    )


def test_functions_that_call_each_other_have_fingerprints():
    source = "def f(n):\n    return n and g(n - 1)\ndef g(n):\n    return n and f(n - {})"
    assert of(source.format(1)) == of(source.format(1)) != of(source.format(2))


def test_closure_values_count():
    def made(value):
        return lambda x: x + value

    prints = [fingerprint(made(value)).digest for value in (1, 2, 1.0, 1)]
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3


def test_a_closure_that_is_changed_by_others_counts_by_its_contents():
    config = {"rate": 1}

    def read():
        return config["rate"]

    before = fingerprint(read).digest
    config["rate"] = 2
    assert fingerprint(read).digest != before


def test_what_a_function_only_writes_to_does_not_count():
    calls, counts, state, total = [], {}, types.SimpleNamespace(n=0), 0

    def noting(x):
        nonlocal total
        calls.append(x)
        counts["sum"] += x
        counts[x] = 1
        state.n += 1
        total += 1
        noting.calls += 1
        return x

    noting.calls = 0
    before = fingerprint(noting).digest
    calls.append(1)
    counts["all"] = state.n = total = noting.calls = 9
    assert fingerprint(noting).digest == before


def test_what_a_function_changes_and_reads_counts():
    seen, counts, rates = set(), {}, {"a": 1}

    def noting(x):
        if x not in seen:
            seen.add(x)
        counts["all"] = counts.get("all", 0) + 1
        return rates.setdefault("b", 2)

    prints = [fingerprint(noting).digest]
    seen.add(7)
    prints.append(fingerprint(noting).digest)
    counts["all"] = 5
    prints.append(fingerprint(noting).digest)
    rates["a"] = 2
    prints.append(fingerprint(noting).digest)
    assert len(set(prints)) == 4


def holding(thing):
    def step(x):
        with thing:
            return x

    return step


def test_locks_count_by_their_kind():
    assert fingerprint(holding(threading.Lock())).digest == fingerprint(holding(threading.Lock())).digest
    assert fingerprint(holding(threading.Lock())).digest != fingerprint(holding(threading.RLock())).digest
    assert fingerprint(holding(threading.Semaphore(1))).digest != fingerprint(holding(threading.Semaphore(2))).digest


def test_what_a_fingerprint_covers_is_listed():
    function = module(CALLS.format(**NOTHING | {"attribute": "1"})).f
    found = covered(function)
    names = {(each.kind, each.name) for each in found}
    assert {("function", f"made_by_hand.{name}") for name in ("helper", "deepest")} < names
    assert {("class", f"made_by_hand.{name}") for name in ("Model", "Small")} < names
    assert {("value", "global 'RATE'"), ("value", "Model.factor"), ("installed", "json.dumps")} < names
    assert CoveredPart("function", "made_by_hand.deepest", "made_by_hand.helper") in found


def test_what_is_called_by_its_name_is_covered_by_its_module():
    function = module("def g(): pass\ndef f(name):\n    return globals()[name]").f
    assert ("module", "made_by_hand") in {(each.kind, each.name) for each in covered(functools.partial(function, "g"))}


def test_standard_streams_count_by_name(monkeypatch):
    streams = [open("/dev/null", "w") for _ in range(2)]  # noqa: PTH123, SIM115
    prints = []
    for stream in streams:
        monkeypatch.setattr(sys, "stderr", stream)
        prints.append(fingerprint(lambda x, file=stream: print(x, file=file)).digest)
        stream.close()
    assert prints[0] == prints[1]


def test_what_does_not_pickle_is_no_part_of_a_fingerprint():
    with (
        open("/dev/null") as file,  # noqa: PTH123
        pytest.raises(
            UnhashableCodeError, match=r"closure value 'thing' of .*step cannot be hashed: TypeError: cannot pickle"
        ),
    ):
        fingerprint(holding(file))


class Adder:
    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        return x + self.n

    def add(self, x):
        return x + self.n

    @classmethod
    def made(cls, x):
        return cls(x)


def test_the_object_behind_a_method_counts():
    assert fingerprint(Adder(1).add).digest == fingerprint(Adder(1).add).digest
    assert fingerprint(Adder(1).add).digest != fingerprint(Adder(2).add).digest
    assert fingerprint(Adder(1)).digest != fingerprint(Adder(2)).digest
    assert fingerprint(Adder.made).digest != fingerprint(Adder(1).add).digest


def test_the_arguments_of_a_partial_count():
    prints = [
        fingerprint(functools.partial(each, 1)).digest for each in (max, min, Adder(1).add, functools.partial(max, 2))
    ]
    assert len(set(prints)) == 4
    assert fingerprint(functools.partial(max, 1)) == fingerprint(functools.partial(max, 1))


def test_what_a_wrapper_hides_counts():
    def made(n):
        @functools.lru_cache
        def inner(x):
            return x + n

        return inner

    assert fingerprint(made(1)).digest == fingerprint(made(1)).digest != fingerprint(made(2)).digest
    one, two = (Step(lambda x, n=n: x + n, name="s") for n in (1, 2))

    def calls(inner):
        return lambda x: [inner(x)]

    assert fingerprint(calls(one)).digest != fingerprint(calls(two)).digest


def test_changes_are_told_in_words():
    texts = NOTHING | {"attribute": "1"}

    def parts(**changed):
        return fingerprint(module(CALLS.format(**texts | changed)).f.__wrapped__).parts

    before = parts()
    assert list(differences(before, parts(deepest="+ 1"))) == ["helper() has changed"]
    assert list(differences(before, parts(method="+ 1"))) == ["class Small has changed"]
    assert list(differences(before, parts(own="+ 1"))) == ["its code has changed"]


def test_a_function_that_is_rebuilt_in_another_process_has_the_same_fingerprint():
    cloudpickle = pytest.importorskip("cloudpickle")
    base = 3
    function = lambda x, n=2: [x + n + base for _ in range(n)]  # noqa: E731
    copy = cloudpickle.loads(cloudpickle.dumps(function))
    assert copy is not function
    assert fingerprint(copy).digest == fingerprint(function).digest


@pytest.mark.parametrize(
    "function", [len, max, str.upper, dict, Adder, print, "abc".upper, functools.partial(int, base=2)]
)
def test_everything_that_can_be_a_step_has_a_fingerprint(function):
    assert fingerprint(function) == fingerprint(function)
