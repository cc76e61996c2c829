"""flowyml as dask's scheduler: a dask graph becomes a pipeline, each of its tasks a step.

```
dsk, keys ──convert, cull──▶ task ─▶ step, named by its index     ┐
                             data ─▶ value of run(inputs=)        ├─▶ Pipeline.run(keep=keys) ─▶ nested tuple of values
                             dependency ─▶ declared input         ┘
```

`dask.config.set(scheduler=Scheduler(executor))` makes dask use it. dask's own callbacks (`dask.diagnostics`) and the
options of its pools (`num_workers`, `pool`, `optimize_graph`, ...) have no meaning here.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dask._task_spec import DataNode, GraphNode, convert_legacy_graph
from dask.core import flatten
from dask.local import nested_get

from flowyml import Pipeline, StepError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowyml import Executor


class Scheduler:
    """A `get` function of dask that runs graphs on an executor.

    Attributes:
        graphs: How many graphs it was called with.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.graphs = 0

    def __call__(self, dsk: Mapping[Any, Any], keys: Any, **_options: object) -> Any:
        """Return the values of the keys, nested as they are; raise what a task raised."""
        self.graphs += 1
        nodes = culled(dsk, keys)
        names = {key: str(index) for index, key in enumerate(nodes)}
        values = {key: node.value for key, node in nodes.items() if isinstance(node, DataNode)}
        wanted = [key for key in set(flatten([keys])) if key not in values]
        if wanted:
            pipeline = Pipeline("dask", enable_cache=False)
            for key, task in nodes.items():
                if key not in values:
                    needs = tuple(task.dependencies)
                    needed = [names[each] for each in needs]
                    pipeline.add_step(run_task, names[key], {"task": task, "keys": needs}, inputs=needed or None)
            inputs = {names[key]: value for key, value in values.items()}
            run = pipeline.run(inputs, executor=self.executor, keep=[names[key] for key in wanted], fail_fast=True)
            try:
                run.raise_for_failure()
            except StepError as failure:
                raise run.step_results[failure.step_name].exception from None
            values |= {key: run.outputs[names[key]] for key in wanted}
        return nested_get(keys, values)


def culled(dsk: Mapping[Any, Any], keys: Any) -> dict[Any, GraphNode]:
    """Return the nodes that the keys need, in the form of dask's task specification."""
    graph = convert_legacy_graph(dsk.__dask_graph__() if hasattr(dsk, "__dask_graph__") else dsk)
    nodes: dict[Any, GraphNode] = {}
    stack = list(flatten([keys]))
    while stack:
        key = stack.pop()
        if key not in nodes:
            nodes[key] = graph[key]
            stack += graph[key].dependencies
    return nodes


def run_task(task: GraphNode, keys: tuple[Any, ...], *values: Any) -> Any:
    """Call a task with the values of its dependencies; a value that can be read only once becomes a list."""
    value = task(dict(zip(keys, values, strict=True)))
    is_read_once = isinstance(value, Iterator) and not isinstance(value, weakref.ProxyTypes)
    return list(value) if is_read_once else value
