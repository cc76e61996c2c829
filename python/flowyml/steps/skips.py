"""How a step says that it is not to run.

Apart from `conditions.py` because every worker needs it, and most need nothing else of that.
"""


class Skipped(BaseException):
    """A step is not to run; raised by `conditions.Guarded` and caught by every executor."""
