"""The Rust extension, checked on import against the stub `_core.pyi` next to this file.

```
_core.pyi on disk  ──the same bytes as _core.stub()?──▶ yes: export its classes    no: one ImportError with the remedy
```

The stub describes the whole boundary, so an extension with the same stub fits, and an older or newer one is detected
before it is called in a way that it does not know. `import flowyml` does not import this module. Nothing is compared if
the stub is missing, because some packagers of programs leave it out.
"""

from __future__ import annotations

import os
import sys

_STUB = os.path.join(os.path.dirname(__file__), "_core.pyi")  # noqa: PTH118, PTH120  workers do not import pathlib
_REMEDY = "build it again with `make develop` in a checkout, or `pip install --force-reinstall .`"


def _error(reason: str) -> ImportError:
    return ImportError(f"flowyml's extension _core {reason}; {_REMEDY}", name="flowyml._core")


def _stub_here() -> bytes | None:
    try:
        with open(_STUB, "rb") as stub:  # noqa: PTH123
            return stub.read()
    except OSError:
        return None


def _needs_gil() -> bool:
    """Return True if a Python without the GIL would load an extension built for one that has it, and crash."""
    if "t" not in getattr(sys, "abiflags", ""):
        return False
    from importlib.util import find_spec

    spec = find_spec("flowyml._core")
    return spec is not None and (spec.origin or "").endswith(".abi3.so")


if _needs_gil():
    raise _error("was built for Python with the GIL, and this Python has none")

try:
    from flowyml._core import (
        Batch,
        ClaimWords,
        DescriptorCheck,
        EndTimes,
        Graph,
        NameIndex,
        PrivateMap,
        ResultReader,
        Scheduler,
        ThreadCallLoop,
        WorkerCallLoop,
        punch_hole,
        stub,
    )
except ImportError as error:
    python = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"
    raise _error(f"is missing, older than the Python files next to it, or not built for {python}: {error}") from error

if _stub_here() not in {None, stub()}:
    raise _error("is older or newer than the Python files next to it")

__all__ = [
    "Batch",
    "ClaimWords",
    "DescriptorCheck",
    "EndTimes",
    "Graph",
    "NameIndex",
    "PrivateMap",
    "ResultReader",
    "Scheduler",
    "ThreadCallLoop",
    "WorkerCallLoop",
    "punch_hole",
]
