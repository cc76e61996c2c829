"""What a value depends on is changed between two runs, in processes of their own: it must not be taken from the cache.

Each case is a program of several files and a change of one of them. The program runs as a script and as a module, with
the cache and as a continued run, and once more without a change, which must change nothing.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELPERS = """
RATE = 2
def h(x):
    return deepest(x) * RATE
def deepest(x):
    return x + 1
class Model:
    bias = 0
    def predict(self, x):
        return deepest(x) + self.bias
"""
# name -> (the program, old text, new text); the text may be in the program or in helpers.
CASES: dict[str, tuple[str, str, str]] = {}


def case(name: str, program: str, old: str = "return x + 1", new: str = "return x + 3") -> None:
    """Add a case: the step `f` of a program, and what is to be changed."""
    assert name not in CASES
    CASES[name] = (program, old, new)


# -- modules

case(
    "a function of a submodule",
    """
import pkg.sub
def f(x):
    return pkg.sub.h(x)
""",
)
case(
    "a value of a submodule",
    """
import pkg.sub
def f(x):
    return pkg.sub.RATE * x
""",
    "RATE = 2",
    "RATE = 3",
)
case(
    "a class of a submodule",
    """
import pkg.sub
def f(x):
    return pkg.sub.Model().predict(x)
""",
)
case(
    "an attribute of a class of a submodule",
    """
import pkg.sub
def f(x):
    return pkg.sub.Model.bias
""",
    "bias = 0",
    "bias = 1",
)
case(
    "a submodule with another name",
    """
import pkg.sub as s
def f(x):
    return s.h(x)
""",
)
case(
    "a submodule from its package",
    """
from pkg import sub
def f(x):
    return sub.h(x)
""",
)
case(
    "names imported with a star",
    """
from pkg.sub import *
def f(x):
    return h(x)
""",
)
case(
    "a local alias of a module",
    """
import pkg.sub
def f(x):
    m = pkg.sub
    return m.h(x)
""",
)
case(
    "a module as an argument",
    """
import pkg.sub
def g(m, x):
    return m.h(x)
def f(x):
    return g(pkg.sub, x)
""",
)
case(
    "a module in an expression",
    """
import pkg.sub, json
def f(x):
    return (pkg.sub if x else json).h(x)
""",
)
case(
    "a module in a dict",
    """
import pkg.sub
ALL = {'s': pkg.sub}
def f(x):
    return ALL['s'].h(x)
""",
)
case(
    "a module in a list in the function",
    """
import pkg.sub
def f(x):
    return [pkg.sub][0].h(x)
""",
)
case(
    "a module in a closure",
    """
import pkg.sub
def made(m):
    def f(x):
        return m.h(x)
    return f
f = made(pkg.sub)
""",
)
case(
    "a module in a class attribute",
    """
import pkg.sub
class A:
    m = pkg.sub
def f(x):
    return A.m.h(x)
""",
)
case(
    "a module in an instance",
    """
import pkg.sub
class A: pass
a = A()
a.m = pkg.sub
def f(x):
    return a.m.h(x)
""",
)
case(
    "a module as a default",
    """
import pkg.sub
def f(x, m=pkg.sub):
    return m.h(x)
""",
)
case(
    "getattr of a module",
    """
import pkg.sub
def f(x):
    return getattr(pkg.sub, 'h')(x)
""",
)
case(
    "attrgetter of a module",
    """
import pkg.sub, operator
get = operator.attrgetter('sub.h')
def f(x):
    return get(pkg)(x)
""",
)
case(
    "a module in a comprehension",
    """
import pkg.sub
def f(x):
    return [pkg.sub.h(k) for k in [x]][0]
""",
)
case(
    "a module in a lambda in the function",
    """
import pkg.sub
def f(x):
    return (lambda k: pkg.sub.h(k))(x)
""",
)
case(
    "an import inside the function",
    """
def f(x):
    import pkg.sub
    return pkg.sub.h(x)
""",
)
case(
    "an import of a name inside the function",
    """
def f(x):
    from pkg.sub import h
    return h(x)
""",
)
case(
    "an import of a star of a package inside a helper",
    """
def g(x):
    from pkg import sub as s
    return s.h(x)
def f(x):
    return g(x)
""",
)
case(
    "import_module of a constant",
    """
import importlib
def f(x):
    return importlib.import_module('pkg.sub').h(x)
""",
)
case(
    "import_module of a name that is put together",
    """
import importlib
def f(x):
    return importlib.import_module('pkg' + '.' + 'su' + str('b')).h(x)
""",
)
case(
    "import_module by its own name",
    """
from importlib import import_module as im
N = 'pkg.s'
def f(x):
    return im(N + 'ub').h(x)
""",
)
case(
    "__import__",
    """
def f(x):
    return __import__('pkg.sub', fromlist=['h']).h(x)
""",
)
case(
    "sys.modules",
    """
import sys, pkg.sub
def f(x):
    return sys.modules['pkg.' + 'sub'].h(x)
""",
)
case(
    "globals()",
    """
from pkg.sub import h
def f(x):
    return globals()['h'](x)
""",
)
case(
    "eval",
    """
from pkg.sub import h
def f(x):
    return eval('h(x)')
""",
)
case(
    "exec",
    """
from pkg.sub import h
def f(x):
    d = {}
    exec('r = h(%d)' % x, globals(), d)
    return d['r']
""",
)
case(
    "a module that makes its attributes",
    """
import lazy
def f(x):
    return lazy.h(x)
""",
)
case(
    "a value that is set by the program",
    """
import sys, pkg.sub
pkg.sub.RATE = 5
def f(x):
    import pkg.sub as s
    return s.RATE * x
""",
    "RATE = 5",
    "RATE = 6",
)

# -- containers of code

case(
    "a table by types",
    """
def a(x):
    return T[str] + x
def b(x):
    return x + 1
T = {int: a, str: 1, float: b}
def f(x):
    return T[int](x) + T[float](x)
""",
)
case(
    "a table of functions that use the table",
    """
def a(x):
    return T[str](x)
def b(x):
    return x + 1 if x else T[int](x)
T = {int: a, str: b}
def f(x):
    return T[int](x)
""",
)
case(
    "a set of functions that use the set",
    """
def a(x):
    return x + 1 if S else 0
def b(x):
    return 0
S = {a, b}
def f(x):
    return sum(g(x) for g in S)
""",
)
case(
    "a set of closures",
    """
def made(n):
    return lambda x: x + n if S else 0
S = {made(1), made(10)}
def f(x):
    return sum(g(x) for g in S)
""",
    "made(10)",
    "made(11)",
)
case(
    "objects linked by sets",
    """
class N:
    def __init__(self, v):
        self.v, self.peers = v, set()
a, b = N(1), N(2)
a.peers.add(b)
b.peers.add(a)
def f(x):
    return sum(p.v for p in a.peers) + x
""",
    "N(2)",
    "N(3)",
)
case(
    "a method of objects linked by sets",
    """
class N:
    def __init__(self):
        self.peers = set()
    def get(self, x):
        return x + 1
a, b = N(), N()
a.peers.add(b)
b.peers.add(a)
def f(x):
    return sum(p.get(x) for p in a.peers)
""",
)
case(
    "objects linked by lists",
    """
class N:
    def __init__(self, v):
        self.v, self.peers = v, []
a, b = N(1), N(2)
a.peers.append(b)
b.peers.append(a)
def f(x):
    return a.peers[0].v + x
""",
    "N(2)",
    "N(3)",
)
case(
    "a registry filled by a decorator",
    """
R = {}
def reg(g):
    R[g.__name__] = g
    return g
@reg
def a(x):
    return x + 1
def f(x):
    return R['a'](x)
""",
)
case(
    "a registry of subclasses",
    """
class Base:
    all = {}
    def __init_subclass__(cls):
        Base.all[cls.__name__] = cls
class A(Base):
    def get(self, x):
        return x + 1
def f(x):
    return Base.all['A']().get(x)
""",
)

# -- what looks like a change

case(
    "a method that is called add",
    """
class Rates:
    def __init__(self, v):
        self.v = v
    def add(self, x):
        return self.v + x
RATES = Rates(1)
def f(x):
    return RATES.add(x)
""",
    "Rates(1)",
    "Rates(2)",
)
case(
    "the class behind a method that is called update",
    """
class Rates:
    def update(self, x):
        x.append(len(x) + 1)
RATES = Rates()
def f(x):
    y = [x]
    RATES.update(y)
    return y[-1]
""",
    "len(x) + 1",
    "len(x) + 2",
)
case(
    "add of a series",
    """
import pandas as pd
RATES = pd.Series([1, 2])
def f(x):
    return int(RATES.add(x).sum())
""",
    "[1, 2]",
    "[1, 3]",
)
case(
    "a dict that is read and changed",
    """
RATES = {'a': 1}
def f(x):
    RATES.setdefault('b', 2)
    return RATES['a'] * x
""",
    "{'a': 1}",
    "{'a': 2}",
)
case(
    "a function of a module that is called append",
    """
import pkg.sub
def f(x):
    y = [x]
    pkg.sub.append(y)
    return y[-1]
""",
    "y.append(7)",
    "y.append(8)",
)
case(
    "a module that is written to",
    """
import pkg.sub
def f(x):
    pkg.sub.COUNT = 1
    return pkg.sub.h(x)
""",
)
case(
    "a counter that is read",
    """
N = 3
def f(x):
    global N
    N += 1
    return x * N
""",
    "N = 3",
    "N = 4",
)
case(
    "a list that is popped",
    """
L = [1, 2]
def f(x):
    return x + L.pop()
""",
    "[1, 2]",
    "[1, 3]",
)
case(
    "an object whose attribute is set",
    """
class S:
    def __setattr__(self, k, v):
        v.append(1)
s = S()
def f(x):
    y = []
    s.a = y
    return y[0] + x
""",
    "v.append(1)",
    "v.append(2)",
)
case(
    "the state of a decorator that is a class",
    """
import functools
class D:
    def __init__(self, g, n=1):
        self.g, self.n = g, n
        functools.update_wrapper(self, g)
    def __call__(self, x):
        return self.g(x) + self.n + 0
@D
def f(x):
    return x
""",
    "n=1",
    "n=2",
)
case(
    "the call of a decorator that is a class",
    """
import functools
class D:
    def __init__(self, g, n=1):
        self.g, self.n = g, n
        functools.update_wrapper(self, g)
    def __call__(self, x):
        return self.g(x) + self.n + 0
@D
def f(x):
    return x
""",
    "+ 0",
    "+ 5",
)
case(
    "what is wrapped by a decorator that is a class",
    """
import functools
class D:
    def __init__(self, g, n=1):
        self.g, self.n = g, n
        functools.update_wrapper(self, g)
    def __call__(self, x):
        return self.g(x) + self.n + 0
@D
def f(x):
    return x + 1
""",
)
case(
    "the call of such a decorator of a helper",
    """
import functools
class D:
    def __init__(self, g, n=1):
        self.g, self.n = g, n
        functools.update_wrapper(self, g)
    def __call__(self, x):
        return self.g(x) + self.n + 0
@D
def g(x):
    return x
def f(x):
    return g(x)
""",
    "+ 0",
    "+ 5",
)
case(
    "a decorator with slots",
    """
class D:
    __slots__ = ('g', 'n', '__wrapped__')
    def __init__(self, g):
        self.g, self.n, self.__wrapped__ = g, 1, g
    def __call__(self, x):
        return self.g(x) + self.n
@D
def g(x):
    return x
def f(x):
    return g(x)
""",
    "g, 1, g",
    "g, 2, g",
)
case(
    "lru_cache",
    """
import functools
@functools.lru_cache
def g(x):
    return x + 1
def f(x):
    return g(x)
""",
)
case(
    "singledispatch",
    """
import functools
@functools.singledispatch
def g(x):
    return 0
@g.register
def _(x: int):
    return x + 1
def f(x):
    return g(x)
""",
)
case(
    "a partial",
    """
import functools
def g(n, x):
    return n + x
p = functools.partial(g, 1)
def f(x):
    return p(x)
""",
    "(g, 1)",
    "(g, 2)",
)
case(
    "a callable object",
    """
class C:
    def __call__(self, x):
        return x + 1
c = C()
def f(x):
    return c(x)
""",
)
case(
    "frompyfunc",
    """
import numpy as np
def g(x):
    return x + 1
u = np.frompyfunc(g, 1, 1)
def f(x):
    return u(x)
""",
)
case(
    "vectorize",
    """
import numpy as np
def g(x):
    return x + 1
u = np.vectorize(g)
def f(x):
    return int(u(x))
""",
)
case(
    "a context manager",
    """
import contextlib
@contextlib.contextmanager
def g(x):
    yield x + 1
def f(x):
    with g(x) as y:
        return y
""",
    "yield x + 1",
    "yield x + 2",
)
case(
    "a map of a method",
    """
class A:
    def g(self, x):
        return x + 1
    def all(self, xs):
        return list(map(self.g, xs))
def f(x):
    return A().all([x])[0]
""",
)
case(
    "an attribute of a function",
    """
def g(x):
    return x * g.rate
g.rate = 2
def f(x):
    return g(x)
""",
    "g.rate = 2",
    "g.rate = 3",
)
case(
    "an attribute of the step",
    """
def f(x):
    return x * f.rate
f.rate = 2
""",
    "f.rate = 2",
    "f.rate = 3",
)
case(
    "a default that is a function",
    """
def g(x):
    return x + 1
def f(x, g=g):
    return g(x)
""",
)
case(
    "a cell that changed",
    """
def made():
    n = 1
    def f(x):
        return x + n
    n = 2
    return f
f = made()
""",
    "n = 2",
    "n = 3",
)
case(
    "a generator",
    """
def g(x):
    yield x + 1
def f(x):
    return next(g(x))
""",
    "yield x + 1",
    "yield x + 2",
)
case(
    "a coroutine",
    """
import asyncio
async def g(x):
    return x + 1
def f(x):
    return asyncio.run(g(x))
""",
)
case(
    "a nested function",
    """
def h2(x):
    return x + 1
def f(x):
    def inner():
        def innermost():
            return h2(x)
        return innermost()
    return inner()
""",
)
case(
    "a function that was put into an installed module",
    """
import json
def g(x):
    return x + 1
json.mine = g
def f(x):
    return json.mine(x)
""",
)

# -- classes

case(
    "a metaclass",
    """
class M(type):
    def make(cls, x):
        return x + 1
class A(metaclass=M): pass
def f(x):
    return A.make(x)
""",
)
case(
    "the call of a metaclass",
    """
class M(type):
    def __call__(cls, x):
        return x + 1
class A(metaclass=M): pass
def f(x):
    return A(x)
""",
)
case(
    "__hash__",
    """
class A:
    def __hash__(self):
        return 1
def f(x):
    return hash(A())
""",
    "return 1",
    "return 2",
)
case(
    "a property",
    """
class A:
    @property
    def p(self):
        return helper()
def helper():
    return 1
def f(x):
    return A().p
""",
    "return 1",
    "return 2",
)
case(
    "__getattr__",
    """
class A:
    def __getattr__(self, name):
        return len(name) + 1
def f(x):
    return A().abc
""",
    "+ 1",
    "+ 2",
)
case(
    "a descriptor",
    """
class D:
    def __get__(self, obj, kind):
        return 1
class A:
    d = D()
def f(x):
    return A().d
""",
    "return 1",
    "return 2",
)
case(
    "a class method in place of a static one",
    """
class A:
    @classmethod
    def g(cls, *args):
        return len(args)
def f(x):
    return A.g(x) if True else A().g(x)
""",
    "return len(args)",
    "return len(args) + 1",
)
case(
    "a base class",
    """
class B:
    def g(self, x):
        return x + 1
class A(B): pass
def f(x):
    return A().g(x)
""",
)
case(
    "a dataclass",
    """
from dataclasses import dataclass, field
def made():
    return 1
@dataclass
class A:
    n: int = field(default_factory=made)
def f(x):
    return A().n
""",
    "return 1",
    "return 2",
)
case(
    "an enum",
    """
import enum
class E(enum.Enum):
    A = 1
def f(x):
    return E.A.value
""",
    "A = 1",
    "A = 2",
)
case(
    "a method of an enum",
    """
import enum
class E(enum.Enum):
    A = 1
    def g(self, x):
        return x + 1
def f(x):
    return E.A.g(x)
""",
)
case(
    "a named tuple",
    """
from typing import NamedTuple
class N(NamedTuple):
    n: int = 1
def f(x):
    return N().n
""",
    "= 1",
    "= 2",
)
case(
    "__init_subclass__",
    """
class B:
    def __init_subclass__(cls):
        cls.n = 1
class A(B): pass
def f(x):
    return A.n
""",
    "cls.n = 1",
    "cls.n = 2",
)
case(
    "a type alias",
    """
class A:
    n = 1
T = A
def f(x):
    return T.n
""",
    "n = 1",
    "n = 2",
)
case(
    "partialmethod",
    """
import functools
class A:
    def g(self, n, x):
        return n + x
    p = functools.partialmethod(g, 1)
def f(x):
    return A().p(x)
""",
    "(g, 1)",
    "(g, 2)",
)
case(
    "a cached property",
    """
import functools
class A:
    @functools.cached_property
    def p(self):
        return 1
def f(x):
    return A().p
""",
    "return 1",
    "return 2",
)
case(
    "an abstract base class",
    """
import abc
class B(abc.ABC):
    @abc.abstractmethod
    def g(self): ...
    def h(self, x):
        return x + 1
class A(B):
    def g(self): ...
def f(x):
    return A().h(x)
""",
)
case(
    "an object known by its name",
    """
class S:
    n = 1
    def __reduce__(self):
        return 'THE'
THE = S()
def f(x):
    return THE.n
""",
    "n = 1",
    "n = 2",
)
case(
    "slots",
    """
class A:
    __slots__ = ('n',)
a = A()
a.n = 1
def f(x):
    return a.n
""",
    "a.n = 1",
    "a.n = 2",
)
case(
    "a class decorator",
    """
def deco(cls):
    cls.n = 1
    return cls
@deco
class A: pass
def f(x):
    return A.n
""",
    "cls.n = 1",
    "cls.n = 2",
)
case(
    "a class made in the function",
    """
def g(x):
    return x + 1
def f(x):
    class A:
        n = g(x)
    return A.n
""",
)

# -- steps

case(
    "a method as a step",
    """
class A:
    def f(self, x):
        return g(x)
def g(x):
    return x + 1
f = A().f
""",
)
case(
    "a partial as a step",
    """
import functools
def g(n, x):
    return h2(x)
def h2(x):
    return x + 1
f = functools.partial(g, 1)
""",
)
case(
    "a partial of a function that imports by a name that is put together",
    """
import functools, importlib
def g(n, x):
    return importlib.import_module("pkg" + ".sub").h(x)
f = functools.partial(g, 1)
""",
)
case(
    "a method that finds a function by its name",
    """
class A:
    def f(self, x):
        return eval("g(x)")
def g(x):
    return x + 1
f = A().f
""",
)
case(
    "a lambda as a step",
    """
def g(x):
    return x + 1
f = lambda x: g(x)
""",
)
case(
    "a class as a step",
    """
class f:
    def __init__(self, x):
        self.n = x + 1
    def __eq__(self, o):
        return self.n == o.n
    def __repr__(self):
        return str(self.n)
""",
    "x + 1",
    "x + 2",
)

RUN = """
import os, sys
def main():
    from flowyml import Pipeline
    import logging
    logging.basicConfig(level=logging.WARNING)
    here = os.path.dirname(os.path.abspath(__file__))
    if MODE == "cache":
        p = Pipeline("p", cache_dir=here + "/cache").add_step(f, name="f", params={"x": 4}, cache=True)
    else:
        p = Pipeline("p", enable_checkpointing=True, checkpoint_dir=here + "/runs")
        p.add_step(f, name="f", params={"x": 4}).add_step(lambda f: 1 / 0, name="fails", inputs=["f"])
    r = p.run(resume="last") if MODE != "cache" else p.run()
    print(r.step_results["f"].state.value, r["f"])
"""


SERVER = """
import io, os, sys, traceback, logging
import flowyml, flowyml.hashing.code_graph, flowyml.caching.step_cache, flowyml.caching.run_journal, numpy, pandas

def child(folder, form):
    os.chdir(folder)
    sys.dont_write_bytecode = True
    sys.path.insert(0, folder)
    sys.stdout = sys.stderr = io.StringIO()
    try:
        if form == "script":
            import types
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            main.__file__ = os.path.join(folder, "main.py")
            exec(compile(open("main.py").read(), main.__file__, "exec"), vars(main))
        else:
            import main
            main.main()
    except BaseException:
        traceback.print_exc()
    return sys.stdout.getvalue()

for line in sys.stdin:
    folder, form = line.rstrip().split("|")
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, child(folder, form).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        print(repr(pipe.read()), flush=True)
    os.waitpid(pid, 0)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    """Start a process that forks one for each run: all is imported, nothing of a program is."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


class Program:
    """A program in a directory, and its changes."""

    def __init__(
        self, server: subprocess.Popen[str], folder: Path, program: str, mode: str, form: str, run: str = RUN
    ) -> None:
        (folder / "pkg").mkdir()
        self._server, self._folder, self.form, self._edits = server, folder, form, 0
        self._files = {
            "pkg/__init__.py": "",
            "pkg/sub.py": HELPERS + "def append(y):\n    y.append(7)\n",
            "lazy.py": "def __getattr__(name):\n    import pkg.sub\n    return getattr(pkg.sub, name)\n",
            "main.py": f"{program}\nMODE = {mode!r}\n{run}\nif __name__ == '__main__':\n    main()\n",
        }
        self._write()

    def change(self, old: str, new: str) -> None:
        """Put another text in the place of one."""
        assert any(old in text for text in self._files.values()), old
        self._files = {file: text.replace(old, new) for file, text in self._files.items()}
        self._write()

    def _write(self) -> None:
        """Write the files with times of change of their own: within one second Python takes old bytecode for new."""
        self._edits += 1
        for file, text in self._files.items():
            path = self._folder / file
            path.write_text(text)
            changed = path.stat().st_mtime + 2 * self._edits
            os.utime(path, (changed, changed))

    def run(self) -> tuple[str, ...]:
        """Run the program in a process of its own; return what it prints last."""
        self._server.stdin.write(f"{self._folder}|{self.form}\n")
        self._server.stdin.flush()
        said = ast.literal_eval(self._server.stdout.readline())
        *messages, last = said.strip().split("\n")
        assert not [each for each in messages if "cannot be hashed" in each], said
        return tuple(last.split())


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_seen(tmp_path, server, name):
    program, old, new = CASES[name]
    number = [*CASES].index(name)
    mode, form = ["cache", "journal"][number % 2], ["script", "module"][number // 2 % 2]
    one = Program(server, tmp_path, program, mode, form)
    state, before = one.run()
    assert state == "success"
    assert one.run() == ("cached", before)
    one.change(old, new)
    state, after = one.run()
    assert (state, after != before) == ("success", True)


# -- values of other steps, items, the context

CHAIN = """
import os
def main():
    import logging
    from flowyml import Pipeline, LocalExecutor, ParallelExecutor
    logging.basicConfig(level=logging.WARNING)
    here = os.path.dirname(os.path.abspath(__file__))
    with (ParallelExecutor(max_workers=1) if MODE == "process" else LocalExecutor()) as executor:
        p = add(Pipeline("p", cache_dir=here + "/cache"))
        r = p.run(executor=executor)
        print(p.explain("last").cache is not None, r.step_results["last"].state.value, repr(r["last"]).replace(" ", ""))
"""
CHAINS = {
    "a class in a value": """
import pickle
class Model:
    rate = 1
    def predict(self, x):
        return helper(x) * self.rate
def helper(x):
    return x + 1
def train():
    return pickle.loads(pickle.dumps(Model()))
def last(train):
    return train.predict(4)
def add(p):
    return p.add_step(train, cache="input_hash").add_step(last, cache=True)
""",
    "a class in a value that a step found by its name": """
import pkg.sub
def train():
    return made()
def made():
    return getattr(pkg.sub, "Model")()
def last(train):
    return train.predict(4)
def add(p):
    return p.add_step(train, cache="input_hash").add_step(last, cache=True)
""",
    "a function in a value": """
def helper(x):
    return x + 1
def train():
    return {"f": [helper], "g": 1}
def last(train):
    return train["f"][0](4)
def add(p):
    return p.add_step(train, cache="input_hash").add_step(last, cache=True)
""",
    "a class in one of several outputs": """
class Model:
    def predict(self, x):
        return helper(x)
def helper(x):
    return x + 1
def train():
    return 1, Model()
def last(model):
    return model.predict(4)
def add(p):
    return p.add_step(train, cache="input_hash", outputs=["n", "model"]).add_step(last, cache=True)
""",
    "functions as items": """
def helper(x):
    return x + 1
def call(g):
    return g(4)
def add(p):
    return p.map(call, [helper], name="calls", cache=True).add_step(last, cache=True)
def last(calls):
    return list(calls)
""",
    "an object as a parameter": """
class Model:
    def predict(self, x):
        return helper(x)
def helper(x):
    return x + 1
def last(model):
    return model.predict(4)
def add(p):
    return p.add_step(last, params={"model": Model()}, cache=True)
""",
    "objects with cycles as a parameter": """
class Node:
    def __init__(self):
        self.peers = {self}
    def predict(self, x):
        return helper(x)
def helper(x):
    return x + 1
def last(node):
    return [each.predict(4) for each in node.peers]
def add(p):
    return p.add_step(last, params={"node": Node()}, cache=True)
""",
    "what a method is bound to, with the inputs alone": """
class Model:
    def last(self, x):
        return x
    def __init__(self):
        self.n = helper
def helper(x):
    return x + 1
model = Model()
def add(p):
    return p.add_step(lambda x: model.n(x), name="last", params={"x": 4}, cache=True)
""",
}


@pytest.mark.parametrize("mode", ["local", "process"])
@pytest.mark.parametrize("name", CHAINS)
def test_code_that_a_value_brings_along_counts(tmp_path, server, name, mode):
    one = Program(server, tmp_path, CHAINS[name], mode, "module", CHAIN)
    _, state, before = one.run()
    assert state == "success"
    assert one.run() == ("True", "cached", before)
    one.change("return x + 1", "return x + 3")
    _, state, after = one.run()
    assert (state, after != before) == ("success", True)


def test_what_was_stored_by_a_script_is_found_by_a_program_that_imports_it(tmp_path, server):
    one = Program(server, tmp_path, CHAINS["an object as a parameter"], "local", "script", CHAIN)
    before = one.run()
    one.form = "module"
    assert one.run() == ("True", "cached", before[-1])


CONTEXT = """
from flowyml import get_context
import flowyml
def place():
    return get_context().step_name, get_context().index
def number(x):
    return helper()
def helper():
    here = flowyml.get_context()
    return here.index
def late(x):
    from flowyml import get_context as g
    return g().index
def none(x):
    return x
def main():
    import os
    from flowyml import Pipeline, LocalExecutor
    here = os.path.dirname(os.path.abspath(__file__))
    def pipeline():
        p = Pipeline("p", cache_dir=here + "/cache")
        for each in (number, late, none):
            p.map(each, [7, 7, 7], cache=True)
        p.map(number, [7, 7, 7], name="inputs", cache="input_hash")
        return p.add_step(place, "one", cache=True).add_step(place, "two", cache=True)
    for _ in range(2):
        r = pipeline().run()
    values = [[*r["number"]], [*r["late"]], [*r["none"]], [*r["inputs"]], r["one"], r["two"]]
    print(repr(values).replace(" ", ""), *(each.state.value for each in r.step_results.values()))
"""


def test_a_step_that_may_ask_for_its_place_is_cached_by_it(tmp_path, server):
    one = Program(server, tmp_path, CONTEXT, "", "module", "")
    values, *states = one.run()
    assert values == "[[0,1,2],[0,1,2],[7,7,7],[0,1,2],('one',None),('two',None)]"
    assert states == ["cached"] * 6
