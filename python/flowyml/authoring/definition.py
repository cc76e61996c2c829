"""The definition of a pipeline: a JSON-safe description for tools that store or draw it.

A pipeline cannot be rebuilt from it: functions are described by name and source. Imported on demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowyml.graph.dag import DAG


def definition_of(dag: DAG) -> dict[str, Any]:
    """Return the description of a graph; see `Pipeline.to_definition`."""
    steps = [_step(dag, name) for name in dag.nodes]
    edges = [{"source": before, "target": name} for name, others in dag.edges.items() for before in others]
    nodes = [{key: each[key] for key in ("name", "inputs", "outputs")} for each in steps]
    return {"name": dag.name, "steps": steps, "dag": {"nodes": nodes, "edges": edges}}


def _step(dag: DAG, name: str) -> dict[str, Any]:
    node, options = dag.nodes[name], dag.explain(name).options
    return {
        "name": name,
        "function": _path(node.step.func),
        "inputs": node.inputs,
        "outputs": node.outputs,
        "params": node.params,
        "mapped": node.mapped,
        "items": node.items,
        "source_code": node.step.source_code,
        "tags": node.tags,
        "options": {key: _plain(value) for key, value in options.items() if key != "tags"},
    }


def _path(func: Any) -> str:
    module, name = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
    return f"{module or type(func).__module__}:{name or type(func).__qualname__}"


def _plain(value: Any) -> Any:
    """Return an option as JSON: numbers and strings as they are, anything else as its `repr`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else repr(value)
