"""The command `flowyml`: run a pipeline, look at its graph, at what a run has left, at the cache.

```
argv ──options.py──▶ one of run │ graph │ runs │ show │ cache │ bench ──▶ exit code
                      └─ loading.py: a file, a module or a name ──▶ a pipeline
```

It is made with argparse of the standard library and needs no extra, so that the line in a crontab or a container works
with the plain install; the extra `cli` adds rich, for the bar of `flowyml run`. What it says of a run goes
to stderr: stdout belongs to what steps print. Exit codes: 0 success, 1 a step has failed or the script has raised, 2 it
was called in a wrong way and nothing has run, 3 standard output or a file that was asked for could not be written, 130
Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code.

    Args:
        arguments: The words behind `flowyml`; those of this process by default.

    >>> main(["cache", "stats", "--dir", "/nowhere/at/all"])
    nothing is cached in /nowhere/at/all
    0
    """
    from flowyml.cli.entry_point import called

    return called(sys.argv[1:] if arguments is None else list(arguments))
