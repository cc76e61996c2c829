"""The root of the tree."""

from __future__ import annotations


class FlowymlError(Exception):
    """Base of all errors of this package."""
