"""Warnings, issued for the user's line, and the keywords of flowyml 2.2.1 that get nothing but a warning."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from flowyml.messages.frames import is_internal, is_pythons
from flowyml.messages.words import unknown_keywords

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

# Keywords of the 2.2.1 documentation for what this package does not do, with a hint if there is one.
_OUT_OF_SCOPE = {
    "stack": "",
    "project": "",
    "project_name": "",
    "version": "",
    "env": "",
    "tracking": "",
    "auto_track": "",
    "enable_experiment_tracking": "",
    "auto_start_ui": "",
    "orchestrator": "",
    "docker_config": "",
    "resources": "the totals are set in ParallelExecutor(resources=)",
    "execution_group": "the executor decides where steps run",
}


def warn_caller(message: str) -> None:
    """Warn, with `UserWarning`, for the innermost line that is neither flowyml's nor Python's; of none where none is.

    Raises:
        UserWarning: Where the user's filters make errors of warnings.
    """
    level = 2
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  skip_file_prefixes= of warnings came with Python 3.12
    while frame is not None and (is_internal(frame.f_code.co_filename) or is_pythons(frame.f_code.co_filename)):
        level, frame = level + 1, frame.f_back
    try:
        warnings.warn(message, UserWarning, stacklevel=level)
    except UserWarning as error:  # raised by a statement of ours, it leaves no frame of ours; see `frames.py`
        raise error.with_traceback(None) from None


def warn_out_of_scope(where: str, unknown: Mapping[str, object], known: Sequence[str]) -> None:
    """Warn once of unknown keywords that 2.2.1 has and this package does not have.

    Args:
        where: The called function, for messages.
        unknown: The keywords that it does not know.
        known: The keywords that it knows.

    Raises:
        TypeError: For any other unknown keyword, with the nearest known one.
    """
    strange = [name for name in unknown if name not in _OUT_OF_SCOPE]
    if strange:
        raise TypeError(unknown_keywords(where, strange, known))
    if unknown:
        names = ", ".join(sorted(unknown))
        hints = "".join(f"; {_OUT_OF_SCOPE[name]}" for name in sorted(unknown) if _OUT_OF_SCOPE[name])
        warn_caller(f"{where} ignores {names}: out of scope of this package{hints}")
