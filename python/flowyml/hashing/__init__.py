"""BLAKE2, by which everything here is known by its content.

`hashlib` has the same function from the same place, and loads OpenSSL beside it: three milliseconds for each process.

Keys by content: what a value, and what a function, comes down to.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # another interpreter
    from hashlib import blake2b

__all__ = ["blake2b"]
