"""The Rust extension, checked when it is first needed: it was built from the stub that lies beside this file.

```
_core.pyi here  ──the same bytes as _core.stub()?──▶ yes: its classes    no: one ImportError that says what to do
```

The stub describes the whole boundary, so that an extension with the same one fits, and an older or a newer one is found
before it is called in a way that it does not know. `import flowyml` does not come here. Where the stub is left out, as
some who pack programs do, nothing is compared.
"""

from __future__ import annotations

import os
import sys

_STUB = os.path.join(os.path.dirname(__file__), "_core.pyi")  # noqa: PTH118, PTH120  a worker needs no `pathlib` else
_REMEDY = "build it again with `make develop` in a checkout, or `pip install --force-reinstall .`"


def _unfit(reason: str) -> ImportError:
    return ImportError(f"flowyml's extension _core {reason}; {_REMEDY}", name="flowyml._core")


def _stub_here() -> bytes | None:
    try:
        with open(_STUB, "rb") as stub:  # noqa: PTH123
            return stub.read()
    except OSError:
        return None


def _is_for_the_lock() -> bool:
    """Tell whether a Python without the global lock would load what was built for one that has it, and crash."""
    if "t" not in getattr(sys, "abiflags", ""):
        return False
    from importlib.util import find_spec

    found = find_spec("flowyml._core")
    return found is not None and (found.origin or "").endswith(".abi3.so")


if _is_for_the_lock():
    raise _unfit("was built for Pythons that have the global lock, and this one has none")

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
    raise _unfit(f"is missing, older than the Python files beside it, or not for {python}: {error}") from error

if _stub_here() not in {None, stub()}:
    raise _unfit("is older or newer than the Python files beside it")

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
