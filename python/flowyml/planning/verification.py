"""Verification: a plan is compared with the results of `bind`, step by step.

```
FLOWYML_VERIFY_FAST_PATHS=1 ──▶ DependencyBuilder (by its fast paths) == bind(spec, reads, without=step) of each step?
```

Steps that were added alike share the binding of the first one, as far as `DependencyBuilder` can see that they are
alike. With the environment variable each plan also binds every step by itself, and raises if the results differ: the
tests run this way. The module is imported for that only.
"""

from __future__ import annotations

import functools
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from flowyml.planning.binding import bind

if TYPE_CHECKING:
    from flowyml.planning.dependencies import DependencyBuilder
    from flowyml.planning.step_spec import StepColumns

_PLAIN = (int, str, bytes, range, frozenset, type(None))


def verify(columns: StepColumns, builder: DependencyBuilder) -> None:
    """Check that each step is bound as it would be by itself.

    Args:
        columns: The steps.
        builder: Their bindings and dependencies.

    Raises:
        AssertionError: If a step is bound differently; names the step and the difference.
    """
    dependencies: dict[int, list[int]] = {}
    for after, before in zip(builder.edges.dependents, builder.edges.dependencies, strict=True):
        dependencies.setdefault(after, []).append(before)
    undefined: dict[int, list[str]] = {}
    for asset, nodes in builder.undefined.items():
        for each in nodes:
            undefined.setdefault(each, []).append(asset)
    state = builder.assets.hints_left  # messages of the plan do not depend on this
    for at, (name, spec) in enumerate(zip(columns.names, columns.specs, strict=True)):
        node = builder.first + at
        plain = bind(spec, builder.assets, builder.scope, columns.reads[at], without=node)
        pairs = (
            ("arguments", plain.template, builder.templates[at]),
            ("references", plain.references, builder.references.get(node, ())),
            ("dependencies", sorted([*plain.producers, *plain.followed]), sorted(dependencies.get(node, ()))),
            ("undefined inputs", sorted(plain.undefined), sorted(undefined.get(node, ()))),
        )
        for what, expected, found in pairs:
            if _is_same(expected, found):
                continue
            raise AssertionError(
                f"internal error: step {name!r} ({spec.place}) has other {what} on the fast path than by itself: "
                f"{found!r:.300} instead of {expected!r:.300}; please report it"
            )
    builder.assets.hints_left = state


def _is_same(one: Any, other: Any) -> bool:
    """Compare two bindings part by part; users' values are compared by identity only."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, _PLAIN):
        return bool(one == other)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, functools.partial):
        return _is_same((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    return is_dataclass(one) and all(
        _is_same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one) if each.init
    )
