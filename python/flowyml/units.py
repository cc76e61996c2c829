"""Amounts of memory: parsed from numbers and strings, and formatted for people.

Decimal units (kB, MB, GB, TB) are powers of 1,000, binary ones (KiB, MiB, GiB, TiB) powers of 1,024. Without the B they
are the units of Kubernetes ("16Gi", "500M"), which flowyml 2.x documents.
"""

from __future__ import annotations

import re
from typing import Any

_UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
_BY_NAME = {name.casefold(): size for name, size in _UNITS.items()}
_BY_NAME |= {name.removesuffix("b"): size for name, size in _BY_NAME.items() if name != "b"}
# A worker process takes more than this before its first step.
_MIN_SIZE = 1 << 20
_PATTERN = r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-zA-Z]+)\s*"


def checked_size(what: str, size: Any) -> int:
    """Return an amount of memory in bytes, from an int or a string like "4GiB" or "500 MB".

    Raises:
        TypeError: If it is neither.
        ValueError: If the string cannot be parsed, or the amount is below 1 MiB: so small a number probably was
            meant in
            another unit.

    >>> (
    ...     checked_size("memory_limit", "1.5 GiB"),
    ...     checked_size("memory_limit", "2Mi"),
    ...     checked_size("memory_limit", 2_000_000),
    ... )
    (1610612736, 2097152, 2000000)
    """
    if isinstance(size, str):
        return _large_enough(what, size, _parse(what, size), "")
    if isinstance(size, bool) or not hasattr(type(size), "__index__"):
        raise TypeError(
            f'{what} must be an int (bytes) or a string like "4GiB", got {type(size).__name__} {size!r:.60}'
        )
    if size <= 0:
        raise ValueError(f"{what} must be more than 0 bytes, got {size!r}")
    return _large_enough(what, size, int(size.__index__()), " bytes")


def _large_enough(what: str, given: Any, size: int, unit: str) -> int:
    if size < _MIN_SIZE:
        raise ValueError(f'{what} must be at least 1 MiB, got {given!r}{unit}; write an amount like "4GiB" or "500 MB"')
    return size


def _parse(what: str, text: str) -> int:
    match = re.fullmatch(_PATTERN, text)
    unit = _BY_NAME.get(match["unit"].casefold()) if match else None
    size = int(float(match["number"]) * unit) if match and unit else 0
    if size <= 0:
        raise ValueError(
            f'{what} must be an amount of memory like "4GiB" or "500 MB", or an int (bytes), got {text!r:.60}'
        )
    return size


def format_size(size: int) -> str:
    """Return an amount of memory in the unit that suits its size.

    >>> format_size(3 * 2**30 // 2), format_size(10)
    ('1.5 GiB', '10 B')
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.1f} {unit}"
    return f"{size} B"
