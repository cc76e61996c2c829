"""Whether a file can have a pipeline of some name, told from its text: before any of it is executed.

```
text ──▶ every word and text in it ── the name is among them ──────────────────────────▶ may be: execute it
                                   └─ names may come from elsewhere (`exec`, imports, ...) ─▶ may be: execute it
                                   └─ neither ──▶ refused, and nothing has run
```

A file that can have it is never refused. One that cannot is let through where that takes more than a look at its text.
"""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

_MAKERS = frozenset(
    [
        "exec",
        "eval",
        "globals",
        "locals",
        "vars",
        "setattr",
        "getattr",
        "__dict__",
        "__import__",
        "__builtins__",
        "import_module",
        "run_path",
        "run_module",
        "exec_module",
        "load_module",
        "modules",
        "pickle",
        "shelve",
        "dill",
        "cloudpickle",
        "joblib",
    ]
)
"""Words with which a file can make names that do not stand in it."""


def cannot_have(name: str, tree: ast.Module, code: CodeType) -> bool:
    """Tell whether no pipeline of a file can go by a name: as its variable, a function that returns it, its own name.

    Args:
        name: The name.
        tree: The file.
        code: The same, compiled.
    """
    words = set(_words(code))
    return name not in words and _MAKERS.isdisjoint(words) and not _may_bring_names(tree)


def likely(tree: ast.Module) -> list[str]:
    """Return the names that the pipelines of a file seem to go by."""
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(map(_is_pipeline, ast.walk(node.value))):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            found += [node.name] * any(map(_is_pipeline, ast.walk(node.returns)))
    for each in ast.walk(tree):
        if isinstance(each, ast.Call) and _is_pipeline(each.func) and (text := _text(_own_name(each))) is not None:
            found.append(text)
    return list(dict.fromkeys(found))


def _words(code: CodeType) -> Iterator[str]:
    """Go through the names in a code and in what is defined there, and through the texts."""
    yield from (*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars)
    todo = list(code.co_consts)
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, tuple | frozenset):
            todo += each
        elif isinstance(each, type(code)):
            yield from _words(each)


def _may_bring_names(tree: ast.Module) -> bool:
    """Tell whether names may come in that stand nowhere in the file: by an import, or in a name that is made."""
    harmless: set[ast.AST] = set()
    pipelines: set[ast.AST] = set()
    for node in ast.walk(tree):
        if not _brings_nothing(node):
            return True
        if isinstance(node, ast.Attribute) and node.attr == "name" and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.Call):
            if any(word.arg in {"pipeline", None} and _text(word.value) is None for word in node.keywords):
                return True
            if _text(_own_name(node)) is not None:
                harmless.add(node.func)
        for annotation in (getattr(node, "returns", None), getattr(node, "annotation", None)):
            harmless.update(ast.walk(annotation) if isinstance(annotation, ast.AST) else ())
        if _is_pipeline(node):
            pipelines.add(node)
    return not pipelines <= harmless  # its name is made, or what is made of it has another word


def _brings_nothing(node: ast.AST) -> bool:
    """Tell whether an import brings no pipelines but those of names that stand in it."""
    if isinstance(node, ast.Import):
        return all(_is_known(each.name) for each in node.names)
    if isinstance(node, ast.ImportFrom):
        strange = any(each.name == "*" or _is_renamed(each) for each in node.names)
        return not node.level and not strange and _is_known(node.module or "")
    return True


def _is_renamed(alias: ast.alias) -> bool:
    return alias.name == "Pipeline" and alias.asname not in {None, "Pipeline"}


def _is_known(module: str) -> bool:
    """Tell whether a module is known to have no pipelines of its own: flowyml, Python's, one that does not need us."""
    top = module.partition(".")[0]
    if top == "flowyml" or top in sys.stdlib_module_names:
        return True
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return not any("flowyml" in each for each in requires(top) or ())
    except PackageNotFoundError:
        return False


def _is_pipeline(node: ast.AST) -> bool:
    """Tell whether an expression is the class `Pipeline`."""
    return (isinstance(node, ast.Name) and node.id == "Pipeline") or (
        isinstance(node, ast.Attribute) and node.attr == "Pipeline"
    )


def _own_name(call: ast.Call) -> ast.AST | None:
    """Return what a call of `Pipeline` gives as its name."""
    if call.args:
        return call.args[0]
    return next((each.value for each in call.keywords if each.arg == "name"), None)


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
