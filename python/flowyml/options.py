"""Options: how a step is run, beyond what it calls and what it reads.

The one list of the keywords that `@step`, `add_step` and `map` share. A pipeline whose steps have none pays nothing:
they all share `NO_OPTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowyml.retries import checked_retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowyml.retries import RetryConfig


@dataclass(frozen=True, slots=True)
class Options:
    """How a step is run.

    Attributes:
        retry: When it is tried again.
    """

    retry: RetryConfig | None = None

    def but(self, step: str, given: Mapping[str, Any]) -> Options:
        """Return these options with those that were given in their place; `None` means not given.

        Raises:
            TypeError: For a value that an option cannot have.
            ValueError: Likewise.
        """
        checked = {name: _CHECKS[name](value, step) for name, value in given.items() if value is not None}
        return replace(self, **checked) if checked else self


NO_OPTIONS = Options()

_CHECKS = {"retry": checked_retry}
OPTION_NAMES = tuple(_CHECKS)
