"""Warned: a warning is for the user's line, however far below it what is odd was found."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from flowyml.messages.frames import is_own, is_pythons

if TYPE_CHECKING:
    from types import FrameType


def warn_caller(message: str) -> None:
    """Warn, with `UserWarning`, for the innermost line that is neither flowyml's nor Python's; of none where none is.

    Raises:
        UserWarning: Where the user's filters make errors of warnings.
    """
    level = 2
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  skip_file_prefixes= of warnings came with Python 3.12
    while frame is not None and (is_own(frame.f_code.co_filename) or is_pythons(frame.f_code.co_filename)):
        level, frame = level + 1, frame.f_back
    try:
        warnings.warn(message, UserWarning, stacklevel=level)
    except UserWarning as error:  # raised by a statement of ours, it leaves no frame of ours; see `frames.py`
        raise error.with_traceback(None) from None
