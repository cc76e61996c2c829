"""What tests see of a pipeline that users do not: its plan, and the types of its keywords."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from flowyml import Pipeline
    from flowyml.planning.plan import Plan


def planned(pipeline: Pipeline) -> Plan:
    """Return the plan of a run without inputs."""
    preparation = pipeline._preparation
    return preparation.plan(preparation.scope({}, {}, complete=True))


def typed_keywords(module: ModuleType, name: str) -> list[str]:
    """Return the names in a `TypedDict` that only type checkers import."""
    classes = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ClassDef)]
    (body,) = [node.body for node in classes if node.name == name]
    return [node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
