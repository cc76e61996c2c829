"""How many examples are drawn: few in each run of the suite, more where FLOWYML_SLOW=1 asks for it (`make soak`)."""

from __future__ import annotations

import os

LONG = bool(os.environ.get("FLOWYML_SLOW"))


def examples(short: int, long: int) -> int:
    """Return how many examples hypothesis draws."""
    return long if LONG else short
