"""Content hashes of values and functions, which are the keys of cached and resumed steps.

BLAKE2 is imported from `_blake2` because `hashlib` also loads OpenSSL, which takes three milliseconds in each process.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # not CPython
    from hashlib import blake2b

__all__ = ["blake2b"]
