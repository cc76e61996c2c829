"""`flowyml.core.cache`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.store.cache import CacheStore

__all__ = ["CacheStore"]
