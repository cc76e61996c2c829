"""Resources and limits: what running steps occupy, what they may occupy together, and the GPUs of this machine.

```
resources= of a step ─┐                        ┌─ limits: tokens of each         ┐
tags of a step        ├─▶ budget (one a run) ──┼─ classes: what a step occupies  ├─▶ _core.Scheduler
totals of an executor ┘                        └─ demands: the class of a step   ┘
```

The scheduler never hands out more tokens than exist and takes all or nothing for a batch, so it cannot deadlock. A
demand that the executor can never serve is a build error. A run without demands has no budget and pays nothing.

Amounts are integers: thousandths of a CPU, GPU or other unit, mebibytes of memory. The spellings of 2.x, which are
those of Kubernetes, are accepted: `{"cpu": "500m", "memory": "16Gi", "gpu": "nvidia-tesla-v100", "gpu_count": 2}`.

Devices have the names by which libraries select them:

    CUDA_VISIBLE_DEVICES=2,GPU-8f3e ──▶ ("2", "GPU-8f3e")      not set ──▶ ("0", "1", ...), as many as exist

A library reads the variable once, when it first looks for devices, so a process has its devices for its lifetime. The
variables of ROCm are read if CUDA's is not set. No driver is queried.
"""

from __future__ import annotations

import math
import os
import re
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import did_you_mean
from flowyml.units import checked_size, format_size

VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

_PRESENT = "/proc/driver/nvidia/gpus"


def variable() -> str:
    """Return the variable that says which devices a process sees: the first that is set, else CUDA's."""
    return next((name for name in VARIABLES if name in os.environ), VARIABLES[0])


def visible() -> tuple[str, ...] | None:
    """Return the devices that the variable names, each once; `None` if it is not set.

    Entries after one that names no device are ignored, as CUDA does.
    """
    found: dict[str, None] = {}
    text = os.environ.get(variable())
    for entry in [] if text is None else text.split(","):
        if entry.strip() in {"", "-1"}:
            break
        found[entry.strip()] = None
    return None if text is None else tuple(found)


def present() -> int:
    """Return how many devices this process may use."""
    names = visible()
    if names is not None:
        return len(names)
    return len(os.listdir(_PRESENT)) if os.path.isdir(_PRESENT) else 0  # noqa: PTH112, PTH208  pathlib takes ms to import


def named(count: int) -> tuple[str, ...]:
    """Return the names of the first devices."""
    names = visible()
    return tuple(map(str, range(count))) if names is None else names[:count]


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    class HasResources(Protocol):
        """The options of a step; see `options.py`."""

        @property
        def resources(self) -> Tokens:
            """What it takes."""

        @property
        def tags(self) -> Mapping[str, Any] | None:
            """Its tags."""


Tokens: TypeAlias = tuple[tuple[str, int], ...]
"""Names of resources with tokens of each."""
Resources: TypeAlias = "Mapping[str, float | str | Mapping[str, Any]]"
"""Names of resources with amounts; of "memory" bytes, or a string like "4GiB"; of "gpu" also a type, see `_of_gpu`."""

MEMORY = "memory"
GPU = "gpu"
# No resource has a blank in its name.
_TAG = "tag "
_OWN = " "  # of one step alone
_FRACTION = 1000
_MIB = 1 << 20
# The core counts tokens in 32 bits.
_MOST = (1 << 32) - 1
_NAME = r"[^\s=]+"
_NUMBER = r"(\d+(?:\.\d+)?)(m?)"


def checked_resources(value: Any, step: str) -> Tokens:
    """Return what a step takes.

    >>> checked_resources({"cpu": 0.5, "memory": "4GiB"}, "train")
    (('cpu', 500), ('memory', 4096))
    >>> checked_resources({"cpu": "500m", "memory": "4Gi", "gpu": "nvidia-tesla-v100", "gpu_count": 2}, "train")
    (('cpu', 500), ('gpu', 2000), ('memory', 4096))
    """
    return tuple(sorted(_tokens(value, f"resources of step {step!r}", least=1).items()))


def in_units(tokens: Tokens) -> dict[str, float]:
    """Return amounts as they were given, of memory in bytes.

    >>> in_units((("cpu", 500), ("memory", 4096)))
    {'cpu': 0.5, 'memory': 4294967296}
    """
    return {name: amount * _MIB if name == MEMORY else amount / _FRACTION for name, amount in tokens}


def checked_totals(where: str, value: Any) -> dict[str, int]:
    """Return the tokens of an executor."""
    return {} if value is None else _tokens(value, where, least=0)


def _tokens(value: Any, where: str, *, least: int) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise TypeError(f'{where} must be a mapping, like {{"cpu": 2, "memory": "4GiB"}}, got {value!r:.60}')
    tokens = {}
    for name, amount in _of_gpu(value).items():
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise TypeError(f"{where} must have names without blanks as keys, got {name!r:.60}")
        tokens[name] = _amount(f"{where}: {name}", name, amount)
        if tokens[name] < least:
            raise ValueError(f"{where}: {name} must be above 0, got {amount!r}")
    return tokens


def _of_gpu(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return how many devices are wanted where 2.x names their type, which nothing follows from here."""
    gpu = value.get("gpu")
    if isinstance(gpu, Mapping):
        return {**value, "gpu": gpu.get("count", 1)}
    if isinstance(gpu, str) and not re.fullmatch(_NUMBER, gpu):
        others = {name: amount for name, amount in value.items() if name != "gpu_count"}
        return {**others, "gpu": value.get("gpu_count", 1)}
    return value


def _amount(where: str, name: str, amount: Any) -> int:
    if name == MEMORY:
        return math.ceil(checked_size(where, amount) / _MIB)
    found = re.fullmatch(_NUMBER, amount) if isinstance(amount, str) else None
    if found is not None:
        amount = float(found[1]) / (_FRACTION if found[2] else 1)
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"{where} must be a number, got {amount!r:.60}")
    if not 0 <= amount * _FRACTION <= _MOST:
        raise ValueError(f"{where} must be from 0 to {_MOST // _FRACTION:,}, got {amount!r}")
    return math.ceil(amount * _FRACTION)


def checked_tag_limits(value: Any) -> dict[str, int]:
    """Return how many steps with a tag may run at once."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f'tag_limits must be a mapping, like {{"db": 3}}, got {value!r:.60}')
    for tag, most in value.items():
        if not isinstance(tag, str) or isinstance(most, bool) or not isinstance(most, int):
            raise TypeError(f"tag_limits must map tags to whole numbers, got {tag!r:.40}: {most!r:.40}")
        if not 1 <= most <= _MOST:
            raise ValueError(f"tag_limits: {tag!r} must be at least 1, got {most}")
    return dict(value)


class Capacity:
    """What an executor has.

    Args:
        given: Tokens of each resource, as far as they were given.
        tag_limits: How many steps with a tag may run at once.
        detect: Returns the amounts that were not given. Called only if a step occupies something: detection costs more
            than a small pipeline.
    """

    def __init__(
        self, given: Mapping[str, int], tag_limits: Mapping[str, int], detect: Callable[[], Mapping[str, float]] = dict
    ) -> None:
        self.tag_limits = tag_limits
        self._given = given
        self._detect = detect

    def totals(self) -> dict[str, int]:
        """Return the tokens of each resource, and those of each limited tag."""
        tags = {_TAG + tag: most for tag, most in self.tag_limits.items()}
        totals = {**checked_totals("detected", self._detect()), **self._given, **tags}
        if GPU in totals and (named := visible()) is not None:
            totals[GPU] = min(totals[GPU], len(named) * _FRACTION)
        return totals


class SchedulerLimits(NamedTuple):
    """The limits of one run as the core takes them; see `Scheduler`."""

    limits: array[int]
    demands: array[int]
    classes: list[list[tuple[int, int]]]
    divided: tuple[int, int] | None


def budget(
    options: Sequence[HasResources],
    capacity: Capacity | None,
    alone: Mapping[int, int],
    problems: list[tuple[int, str]],
    *,
    numbers: dict[str, int] | None = None,
    first: int = 0,
) -> SchedulerLimits | None:
    """Return the limits of a run, or of steps that are added to it; `None` if there are none.

    Args:
        options: Of each step.
        capacity: What the executor has; `None` where one step runs at a time.
        alone: For some steps, how many of their items may run at once.
        problems: Gets the steps that can never run, and why.
        numbers: The numbers of the limits that the run has; gets those of new ones.
        first: The number of the first step.
    """
    if capacity is None:
        capacity = Capacity({}, {})
        known: dict[int, Tokens] = {}
    else:
        distinct = {id(each): each for each in options}
        known = {key: wants for key, each in distinct.items() if (wants := _wanted(each, capacity))}
    if not known and not alone:
        return None
    totals = capacity.totals()
    numbers = {} if numbers is None else numbers
    before = len(numbers)
    classes: dict[Tokens, int] = {(): 0}
    limits, demands = array("I"), array("I", bytes(4 * len(options)))
    for node, each in enumerate(options):
        wants = known.get(id(each), ())
        complaint = next(filter(None, (_impossible(name, amount, totals) for name, amount in wants)), None)
        if complaint:
            problems.append((node, complaint))
            continue
        if node in alone:
            own = f"{_OWN}{first + node}"
            totals[own] = alone[node]
            wants = (*wants, (own, 1))
        for name, _ in wants:
            if name not in numbers:
                numbers[name] = len(numbers)
                limits.append(totals[name])
        demands[node] = classes.setdefault(wants, len(classes))
    divided = (numbers[GPU], _FRACTION) if numbers.get(GPU, -1) >= before else None
    needs = [[(numbers[name], amount) for name, amount in wants] for wants in classes]
    return SchedulerLimits(limits, demands, needs, divided)


def device_count(amount: int) -> int:
    """Return on how many devices so many tokens of "gpu" lie.

    >>> device_count(1000), device_count(500), device_count(1500)
    (1, 1, 2)
    """
    return -(-amount // _FRACTION)


def split_devices(amount: int) -> tuple[int, int]:
    """Return how many devices so many tokens of "gpu" take whole, and the tokens of one more.

    >>> split_devices(1500)
    (1, 500)
    """
    return divmod(amount, _FRACTION)


def _wanted(options: HasResources, capacity: Capacity) -> Tokens:
    tags = ((_TAG + tag, 1) for tag in capacity.tag_limits if tag in (options.tags or ()))
    return (*options.resources, *tags)


def _impossible(name: str, amount: int, totals: Mapping[str, int]) -> str | None:
    if name not in totals:
        hint = did_you_mean(name, totals) or "; give one: ParallelExecutor(resources={...})"
        return f"requires {_told(name, amount)}, of which the executor has no total{hint}"
    if amount > totals[name]:
        named = visible() if name == GPU else None
        why = "" if named is None else f" ({variable()} names {len(named)})"
        return f"requires {_told(name, amount)}, the executor has {_told(name, totals[name])} in all{why}"
    return None


def _told(name: str, amount: int) -> str:
    if name == MEMORY:
        return f"{format_size(amount * _MIB)} of memory"
    if name.startswith(_TAG):
        return f"{amount} of {name}"
    return f"{amount / _FRACTION:g} {name}"
