"""`flowyml.core.error_handling`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.errors import CircuitOpenError
from flowyml.steps.breakers import CircuitBreaker
from flowyml.steps.fallbacks import on_failure
from flowyml.steps.retries import ExponentialBackoff, RetryConfig, retry

__all__ = ["CircuitBreaker", "CircuitOpenError", "ExponentialBackoff", "RetryConfig", "on_failure", "retry"]
