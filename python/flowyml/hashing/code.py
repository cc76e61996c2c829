"""Splits functions, classes and modules into parts: their code, and everything that it uses besides its arguments.

```
function ──parts_of()──▶ code · defaults · closure · attributes · globals: functions, classes, values ──▶ code_graph.py
                                                     imports inside it ──▶ module_source.py
```

Parts have labels, so that a change can be described ("clean() has changed"). Code of the user is followed: helpers,
their helpers, methods, decorated functions, and modules name by name (`pkg.sub.h`). A module that is used in any other
way counts as a whole. Installed code (the standard library, `site-packages`) counts by its name. This module hashes
nothing.
"""

from __future__ import annotations

import builtins
import collections
import functools
import gc
import inspect
import io
import queue
import sys
import threading
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml._containers import NamedTuple
from flowyml.hashing import bytecode, module_source
from flowyml.user_modules import is_package_module, is_user_module, module_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Part: TypeAlias = "tuple[str, Any]"
"""A label and an object."""

# Names in a class that Python, dataclasses, attrs and pydantic set.
_GENERATED_NAMES = frozenset(
    [
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"),
        "__slotnames__",  # set by copyreg when an object is pickled
        *("__static_attributes__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__abstractmethods__"),
        *("_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__annotations__"),
        *("__classdictcell__", "__parameters__", "__orig_bases__"),
    ]
)
_GENERATED_PREFIXES = ("__pydantic_", "__attrs_")
# Attributes that functools.wraps copies, and the prefix of those that flowyml's decorators set.
_COPIED = frozenset([*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "__firstlineno__", "__annotate__"])
_OWN_PREFIX = "__flowyml_"
# Their mutating methods, such as `append`, only write.
_CONTAINERS = frozenset(
    [
        *(list, dict, set, bytearray, collections.deque, collections.defaultdict, collections.OrderedDict),
        *(collections.Counter, queue.Queue, queue.SimpleQueue, queue.LifoQueue, io.StringIO, io.BytesIO),
        *(io.TextIOWrapper, io.BufferedWriter, io.FileIO),
    ]
)
# With these, `x[k] = v`, `x.a = v` and `x += v` run no code of the user.
_PLAIN = _CONTAINERS | {int, float, complex, str, bytes, bool, type(None), tuple, SimpleNamespace, FunctionType}
_PLAIN |= {ModuleType, threading.local}


class InstalledName(NamedTuple):
    """Something installed, which counts by its name."""

    name: str


def installed_name(obj: Any) -> str | None:
    """Return the full name of an installed function or class that is found under that name, else `None`.

    >>> import json
    >>> installed_name(json.dumps), installed_name(lambda: 0)
    ('json.dumps', None)
    """
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if isinstance(obj, FunctionType):
        module = obj.__globals__.get("__name__")
    if isinstance(obj, BuiltinFunctionType) and not isinstance(obj.__self__, ModuleType | None):
        return None
    if not isinstance(module, str) or not isinstance(name, str) or is_user_module(module):
        return None
    if _lookup(module, name) is obj:
        return f"{module}.{name}"
    module = obj.__module__  # of a function that another installed module wrapped
    if isinstance(obj, FunctionType) and not is_user_module(module) and _lookup(module, name) is obj:
        return f"{module}.{name}"
    return None


def _lookup(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def full_name(obj: Any) -> str:
    """Return the name of a function or class with its module; the script has its import name.

    >>> full_name(full_name)
    'flowyml.hashing.code.full_name'
    """
    if isinstance(obj, ModuleType):
        return module_source.canonical_name(obj.__name__)
    if isinstance(obj, (module_source.Source, module_source.Project)):
        return obj[0]
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(name, str):
        obj, module, name = type(obj), type(obj).__module__, type(obj).__qualname__
    return f"{module_source.canonical_name(module) if isinstance(module, str) else '?'}.{name}"


# ---- functions -------------------------------------------------------------------------------------------------------


def parts_of(function: FunctionType) -> Iterator[Part]:
    """Yield the parts of a Python function."""
    code = function.__code__
    uses = bytecode.uses(code)
    yield "its code", bytecode.plain(code)
    yield from _defaults(function)
    cells = dict(zip(code.co_freevars, map(_cell_value, function.__closure__ or ()), strict=True))
    closure = frozenset(path for path in uses.closure if path[0] in cells)
    yield from _read("closure value", cells, closure, uses)
    yield from _attributes(function, uses)
    module = function.__globals__.get("__name__")
    if is_user_module(module):
        fixed = {path for path, _ in uses.importers if _is_import_function(function, path)} - uses.open_importers
        yield from _read("global", function.__globals__, uses.names - fixed, uses)
        yield from _imports(function, uses)


def _defaults(function: FunctionType) -> Iterator[Part]:
    values = function.__defaults__ or ()
    code = function.__code__
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    for name, value in (*zip(names, values, strict=True), *sorted((function.__kwdefaults__ or {}).items())):
        yield f"default of {name!r}", value


def _cell_value(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "nothing yet"


def _attributes(function: FunctionType, uses: bytecode.NameUsage) -> Iterator[Part]:
    """Yield the attributes of a function, except counters that it updates itself."""
    names = function.__dict__
    if not names:
        return
    if _is_single_dispatch(function):
        yield "what it wraps", names["__wrapped__"]
        yield "its registry", dict(names["registry"])
        return
    own = function.__name__
    is_counter = ((own,), "") in uses.written
    for name in sorted(names):
        if name == "__wrapped__":
            yield "what it wraps", names[name]
        elif name in _COPIED or name.startswith(_OWN_PREFIX):
            continue
        elif not is_counter or (own, name) in uses.names or (own,) in uses.names:
            yield f"its attribute {name!r}", names[name]


def _is_single_dispatch(function: Any) -> bool:
    return (
        isinstance(function, FunctionType)
        and function.__globals__.get("__name__") == "functools"
        and "registry" in function.__dict__
        and "__wrapped__" in function.__dict__
    )


# ---- names that a function reads -------------------------------------------------------------------------------------


def _read(
    kind: str, names: Mapping[str, Any], paths: frozenset[bytecode.Path], uses: bytecode.NameUsage
) -> Iterator[Part]:
    """Yield the values that code reads by name, each path as far as it passes through modules."""
    values: dict[str, Any] = {}
    for path in sorted(paths | _opaque_writes(names, paths, uses)):
        values.update(_followed(names, path))
    for text, value in sorted(values.items(), key=lambda pair: pair[0]):
        yield _label(kind, text, value), value


def _opaque_writes(
    names: Mapping[str, Any], paths: frozenset[bytecode.Path], uses: bytecode.NameUsage
) -> frozenset[bytecode.Path]:
    """Return the paths that code only writes to but whose objects are not plain containers, so may run any code."""
    if not uses.written:
        return frozenset()
    opaque = set()
    for path, method in uses.written:
        if path[0] in names and path not in paths:
            ends = _followed(names, path)
            allowed = _CONTAINERS if method else _PLAIN
            if not all(type(value) in allowed for _, value in ends):
                opaque.add((*path, method) if method else path)
    return frozenset(opaque)


def _followed(names: Mapping[str, Any], path: bytecode.Path) -> list[tuple[str, Any]]:
    """Return the first object on a path that is not a module, with its name."""
    name, *rest = path
    if name not in names:
        if not hasattr(builtins, name):
            return [(name, "not defined")]
        return [(name, InstalledName(f"builtins.{name}"))] if name in _DYNAMIC_BUILTINS else []
    value, text = names[name], name
    while rest and isinstance(value, ModuleType):
        inner: dict[str, Any] = ModuleType.__getattribute__(value, "__dict__")
        is_user = is_user_module(value.__name__)
        attribute = rest[0]
        if attribute not in inner:
            missing = _missing_attribute(value, attribute, text) if is_user else []
            return missing or [(f"{text}.{attribute}", InstalledName(f"{value.__name__}.{attribute}"))]
        module, value, text = value, inner[attribute], f"{text}.{attribute}"
        rest.pop(0)
        if not is_user and not isinstance(value, ModuleType):
            named = InstalledName(f"{module.__name__}.{attribute}")
            return [(text, value if is_users_object(value) else named)]
    return [(text, value)]


def _missing_attribute(module: ModuleType, attribute: str, text: str) -> list[tuple[str, Any]]:
    """Return what stands for an attribute that a module lacks so far: the module, and a submodule of that name."""
    source = module_source.source_of(f"{module.__name__}.{attribute}")
    return [(text, module), *([] if source is None else [(f"{text}.{attribute}", source)])]


def is_users_object(value: Any) -> bool:
    """Return True if an object in an installed module belongs to the user."""
    if isinstance(value, FunctionType):
        return is_user_module(value.__globals__.get("__name__"))
    kind = value if isinstance(value, type) else type(value)
    return is_user_module(kind.__module__)


def _label(kind: str, name: str, value: Any) -> str:
    if isinstance(value, type):
        return f"class {name}"
    if isinstance(value, ModuleType):
        return f"module {name}"
    return f"{name}()" if callable(value) else f"{kind} {name!r}"


# ---- code that cannot be followed name by name -----------------------------------------------------------------------

_DYNAMIC_BUILTINS = frozenset(["eval", "exec", "globals", "__import__"])
# Functions that find code of the user by strings: the first set finds loaded names of the module,
_FINDS_NAMES = frozenset(["builtins.eval", "builtins.exec", "builtins.globals"])
# the second set everything that can be imported.
_FINDS_MODULES = frozenset(
    [
        *("builtins.__import__", "importlib.__import__", "importlib.import_module", "importlib", "sys.modules"),
        *("importlib.reload", "sys._getframe", "inspect.currentframe", "inspect.getmodule", "inspect.stack"),
        *("gc.get_objects", "gc.get_referrers", "pydoc.locate", "pkgutil.resolve_name", "runpy", "runpy.run_path"),
        *("runpy.run_module", "pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.load", "_pickle.loads"),
        *("_pickle.Unpickler", "pickle._load", "pickle._loads", "shelve.open", "marshal.loads", "unittest.mock.patch"),
        *("dill.load", "dill.loads", "dill._dill.load", "dill._dill.loads", "joblib.load"),
        *("joblib.numpy_pickle.load", "cloudpickle.load", "cloudpickle.loads", "pandas.read_pickle"),
        *("pandas.io.pickle.read_pickle", "torch.load", "torch.serialization.load"),
    ]
)
_IMPORT_FUNCTIONS = frozenset(["importlib.import_module", "builtins.__import__", "importlib.__import__"])
_CONTEXT = frozenset(["flowyml", "flowyml.get_context", "flowyml.steps.context", "flowyml.steps.context.get_context"])


def finds_names(name: str) -> bool:
    """Return True if something installed may call functions of the user by name.

    >>> finds_names("builtins.eval"), finds_names("builtins.len")
    (True, False)
    """
    return name in _FINDS_NAMES or name in _FINDS_MODULES


def reads_context(name: str) -> bool:
    """Return True if something installed gives access to the context of the step.

    >>> reads_context("flowyml.get_context")
    True
    """
    return name in _CONTEXT


def reachable(module: Any, name: str) -> Iterator[Part]:
    """Yield the code of a user's module that a function such as `eval` may call by name."""
    loaded = sys.modules.get(module) if isinstance(module, str) else None
    if loaded is not None and is_user_module(module):
        yield f"module {module}", loaded
    project = module_source.project_of(module) if name in _FINDS_MODULES and isinstance(module, str) else None
    if project is not None:
        yield f"the files of {module}", project


def _imports(function: FunctionType, uses: bytecode.NameUsage) -> Iterator[Part]:
    package = function.__globals__.get("__package__") or ""
    names = {name for path, name in uses.importers if _is_import_function(function, path)}
    statements = uses.imports | {(name, 0, ()) for name in names}
    for name, level, of in sorted(statements):
        for module_name in module_source.imported(name, level, of, package):
            yield from _import(module_name, function)


def _is_import_function(function: FunctionType, path: bytecode.Path) -> bool:
    ends = [value for _, value in _followed(function.__globals__, path)]
    return all(
        (end.name if isinstance(end, InstalledName) else installed_name(end)) in _IMPORT_FUNCTIONS for end in ends
    )


def _import(name: str, function: FunctionType) -> Iterator[Part]:
    source = module_source.source_of(name)
    if source is not None:
        loaded = sys.modules.get(name)
        yield f"module {name}", source if loaded is None else loaded
        return
    parent = name.rpartition(".")[0]
    module = sys.modules.get(parent)
    if module is not None and is_user_module(parent):
        return  # the attribute of a module that counts as a whole
    yield f"import {name}", InstalledName(name)
    for attribute in sorted(_all_names(function.__code__)):
        if finds_names(f"{name}.{attribute}") or reads_context(f"{name}.{attribute}"):
            yield f"import {name}.{attribute}", InstalledName(f"{name}.{attribute}")


@functools.lru_cache(maxsize=1024)
def _all_names(code: Any) -> frozenset[str]:
    inner = (_all_names(constant) for constant in code.co_consts if isinstance(constant, type(code)))
    return frozenset(code.co_names).union(*inner)


# ---- classes ---------------------------------------------------------------------------------------------------------


def parts_of_class(cls: type) -> Iterator[Part]:
    """Yield the parts of a class: its bases, metaclass, methods and other attributes."""
    yield "bases", cls.__bases__
    if type(cls) is not type:
        yield "metaclass", type(cls)
    for name, value in sorted(vars(cls).items()):
        if name in _GENERATED_NAMES or name.startswith(_GENERATED_PREFIXES):
            continue
        kind, function = _function_in(value)
        if function is not None:
            yield f"{cls.__name__}.{name}()", (kind, function)
        elif not inspect.ismemberdescriptor(value) and not inspect.isgetsetdescriptor(value):
            yield f"{cls.__name__}.{name}", value
    yield from _annotations(cls)
    if not (file := module_file(sys.modules.get(cls.__module__)) or ".py").endswith((".py", ".pyw")):
        yield "its extension", module_source.Source(cls.__module__, file)


def _function_in(value: Any) -> tuple[str, Any]:
    kind = type(value).__name__
    if isinstance(value, (staticmethod, classmethod)):
        return kind, value.__func__
    if type(value) is property:
        return kind, (value.fget, value.fset, value.fdel)
    if type(value) is functools.cached_property:
        return kind, value.func
    return kind, value if isinstance(value, FunctionType) else None


def _annotations(cls: type) -> Iterator[Part]:
    """Yield the annotations of a class, from which dataclasses, pydantic and others generate code."""
    try:
        annotations = inspect.get_annotations(cls)
    except Exception:  # noqa: BLE001  Python 3.14 evaluates them here
        return
    names = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    for name, value in annotations.items():
        yield f"annotation of {cls.__name__}.{name}", value
        if isinstance(value, str):
            yield from _names_in(value, names)


def _names_in(annotation: str, names: Mapping[str, Any]) -> Iterator[Part]:
    try:
        paths = bytecode.uses(compile(annotation, "annotation", "eval")).names
    except (SyntaxError, ValueError):
        return
    for path in sorted(paths):
        if path[0] in names:
            for text, value in _followed(names, path):
                if is_users_object(value):
                    yield _label("global", text, value), value


def parts_of_builtin(function: Any) -> Iterator[Part]:
    """Yield the file of a function of an extension module."""
    source = module_source.source_of(function.__module__) if isinstance(function.__module__, str) else None
    if source is not None:
        yield "its extension", source


# ---- modules ---------------------------------------------------------------------------------------------------------


def parts_of_module(module: ModuleType) -> Iterator[Part]:
    """Yield the parts of a loaded module: its file, and its values."""
    source = module_source.source_of(module.__name__)
    if source is not None:
        yield "its file", source
    for name, value in module_source.data_of(module):
        if not is_package_module(type(value).__module__):
            yield _label("global", name, value), value


def parts_of_source(source: module_source.Source) -> Iterator[Part]:
    """Yield the parts of a file: its code, and the files of the modules that it imports."""
    code = module_source.code_of(source)
    yield "its code", code if isinstance(code, bytes) else bytecode.plain(code)
    for imported_source in module_source.imports_of(source):
        yield f"import {imported_source.name}", imported_source


def parts_of_project(project: module_source.Project) -> Iterator[Part]:
    """Yield the code of the files of a directory."""
    for file in module_source.files_of(project):
        source = module_source.Source(file, file)
        code = module_source.code_of(source)
        yield file.removeprefix(project.folder), code if isinstance(code, bytes) else bytecode.plain(code)


# ---- wrappers of functions ------------------------------------------------------------------------------------------


def unwrapped(obj: Any) -> tuple[tuple[Any, ...], Any] | None:  # noqa: PLR0911  one return for each kind of wrapper
    """Return the wrapper in an object and the function that it wraps: a method, a partial, a decorated function.

    `None` if the object is no wrapper.
    """
    if isinstance(obj, MethodType):
        return ("method", obj.__self__), obj.__func__
    if type(obj) is functools.partial:
        return ("partial", obj.args, obj.keywords), obj.func
    kind = type(obj)
    if isinstance(obj, (type, FunctionType)) or not callable(obj):
        return None
    if kind.__module__ == "numpy" and kind.__name__ == "ufunc":
        return _in_ufunc(obj)
    wrapped = getattr(obj, "__dict__", {}).get("__wrapped__")
    if wrapped is None:
        return None
    if not is_user_module(kind.__module__):
        return ("wrapped", f"{kind.__module__}.{kind.__qualname__}"), wrapped
    return ("decorated", kind, _state(obj)), wrapped


def _in_ufunc(obj: Any) -> tuple[tuple[Any, ...], Any] | None:
    """Return the function of a ufunc made by `numpy.frompyfunc`; others count by name."""
    inner = [referent for referent in gc.get_referents(obj) if callable(referent)]
    return (("ufunc", obj.nin, obj.nout, repr(obj.identity)), inner[0]) if len(inner) == 1 else None


def _state(obj: Any) -> dict[str, Any]:
    """Return the attributes of a user's decorator without those that it copied from the function."""
    state = {name: value for name, value in vars(obj).items() if name not in _COPIED}
    for base in type(obj).__mro__:
        for name, member in vars(base).items():
            if inspect.ismemberdescriptor(member) and hasattr(obj, name):
                state[name] = getattr(obj, name)
    return state


def innermost(function: Any) -> Any:
    """Return the function inside all wrappers."""
    while (inner := unwrapped(function)) is not None:
        function = inner[1]
    return function


def labelled(function: Any) -> Iterator[Part]:
    """Yield the parts of anything that can be a step, with labels."""
    while (inner := unwrapped(function)) is not None:
        wrapper, function = inner
        yield _WRAPPER_LABELS[wrapper[0]], wrapper[1:]
    if isinstance(function, FunctionType) and installed_name(function) is None:
        yield from parts_of(function)
    else:
        yield "its code", function


_WRAPPER_LABELS = {
    "method": "the object that it is bound to",
    "partial": "the arguments of the partial",
    "wrapped": "its decorator",
    "decorated": "its decorator",
    "ufunc": "what makes it a ufunc",
}
