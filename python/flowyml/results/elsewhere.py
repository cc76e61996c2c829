"""What the result of a run is in another process: its text, and an answer to whoever asks it for more.

The values of a run stay where it was made: they are not pickled with a global that a function happens to name, nor with
an exception that holds the result. It knows nothing of results but their text.
"""

from __future__ import annotations

from typing import Any, NoReturn


class ResultElsewhere:
    """Stands for a `PipelineResult` of another process.

    Args:
        text: How the result prints.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        """Print as the result does."""
        return self._text

    def __getattr__(self, name: str) -> Any:
        """Say where the values are."""
        raise AttributeError(name if name.startswith("_") else self._where())  # protocols ask for names of their own

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(self._where())

    def _where(self) -> str:
        return (
            f"{self._text} was pickled, and its values stayed in the process of its run: hand on what is needed of it, "
            "such as dict(result.outputs) or result.to_dict()"
        )

    __getitem__ = __contains__ = __iter__ = __len__ = __bool__ = _refuse
