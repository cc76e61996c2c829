"""The command `flowyml`: run a pipeline, show its graph, list unfinished runs, inspect and clear the cache.

```
argv ──parser.py──▶ one of run │ graph │ runs │ show │ cache │ bench ──▶ exit code
                      └─ loader.py: a file, a module or a registered name ──▶ a pipeline
```

It uses argparse and needs no extra, so that a line in a crontab or a container works with the plain install; the extra
`cli` adds rich for the progress bar. Messages about a run go to stderr, because stdout belongs to the steps' output.
Exit codes: 0 success, 1 a step failed or the script raised, 2 wrong use and nothing has run, 3 standard output or a
requested file could not be written, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute a command line and return the exit code.

    Args:
        arguments: The arguments after `flowyml`; those of this process by default.

    >>> main(["cache", "stats", "--dir", "/nowhere/at/all"])
    nothing is cached in /nowhere/at/all
    0
    """
    from flowyml.cli.entry_point import execute

    return execute(sys.argv[1:] if arguments is None else list(arguments))
