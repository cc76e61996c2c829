"""Cache policies: what the key of a step's cached value is made of.

```
True, "code_hash"                   its code and everything that it reads
"input_hash"                        what it reads, whatever its code is
function(step, inputs, context)     what the function says
```

The module knows neither stores nor runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import did_you_mean
from flowyml.steps.signature import StepSignature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAMES = ("code_hash", "input_hash")
_OF_TWO, _OF_THREE = 2, 3


class CachePolicy(NamedTuple):
    """What a step's key is made of; false if the step is not cached.

    Attributes:
        name: "code_hash", "input_hash", "own" for a function of the user's, or "off".
        function: That function.
        takes_step: Whether it takes the step first.
    """

    name: str
    function: Callable[..., Any] | None = None
    takes_step: bool = True

    def __bool__(self) -> bool:
        """Return True if the step is cached."""
        return self.name != "off"

    def __str__(self) -> str:
        """Return it as it is written."""
        return self.name if self.function is None else getattr(self.function, "__qualname__", repr(self.function))

    def own_key(self, step: object, inputs: Mapping[str, Any], context: Mapping[str, Any]) -> str:
        """Call the user's function for a key.

        Raises:
            TypeError: If it returns no text.
        """
        assert self.function is not None  # noqa: S101  asked only where there is one
        key = self.function(step, inputs, context) if self.takes_step else self.function(inputs, context)
        if not isinstance(key, str):
            raise TypeError(f"cache={self} must return a string, it returned {type(key).__name__} {key!r:.60}")
        return key


CODE, INPUT, OFF = CachePolicy("code_hash"), CachePolicy("input_hash"), CachePolicy("off")


def checked_cache(cache: Any, step: str) -> CachePolicy:
    """Return what `cache=` says."""
    if isinstance(cache, bool):
        return CODE if cache else OFF
    if isinstance(cache, str):
        if cache not in _NAMES:
            known = "True, False, 'code_hash', 'input_hash' or a function"
            raise ValueError(f"cache of step {step!r} must be {known}, got {cache!r}{did_you_mean(cache, _NAMES)}")
        return CODE if cache == _NAMES[0] else INPUT
    if not callable(cache):
        raise TypeError(
            f"cache of step {step!r} must be True, False, 'code_hash', 'input_hash' or a function "
            f"(step, inputs, context) -> str, got {type(cache).__name__} {cache!r:.60}"
        )
    return CachePolicy("own", cache, takes_step=_takes_step(cache, step))


def _takes_step(function: Any, step: str) -> bool:
    signature = StepSignature.of(function)
    if not signature.readable or signature.var_positional:
        return True
    most = len(signature.positional)
    least = sum(name not in signature.defaults for name in signature.positional)
    if least <= _OF_THREE <= most:
        return True
    if least <= _OF_TWO <= most:
        return False
    raise TypeError(f"the cache function of step {step!r} must take (step, inputs, context), it takes {most} arguments")


def checked_ttl(ttl: Any, step: str) -> float:
    """Return how many seconds a cached value of a step may be used."""
    from datetime import timedelta

    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(
            f"cache_ttl of step {step!r} must be seconds or a timedelta, got {type(ttl).__name__} {ttl!r:.60}"
        )
    if not 0 < seconds < math.inf:
        raise ValueError(f"cache_ttl of step {step!r} must be above 0 seconds and finite, got {ttl!r}")
    return float(seconds)
