"""Values that stay as they came from worker processes, loaded when somebody looks at them.

Who loads them outlives the run in its result: it holds no run, so that no cycle keeps large values.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from flowyml.errors import ValueLoadError
from flowyml.store.encoding import decoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.planning.layout import Layout
    from flowyml.planning.plan import Plan


def decoder(plan: Plan, layout: Layout) -> Callable[[Any, int], Any]:
    """Return what loads the encoded value of an item, or says of which step it is that does not load."""
    return functools.partial(_decode, plan, layout)


def _decode(plan: Plan, layout: Layout, raw: Any, item: int) -> Any:
    """Load the value of an item.

    Raises:
        ValueLoadError: If it does not load; names the step.
    """
    try:
        return decoded(raw)
    except (Exception, SystemExit, GeneratorExit) as error:
        producer = f"step {plan.item_name(*layout.place_of(item))!r}"
        raise ValueLoadError(producer, f"{type(error).__name__}: {error}") from error
