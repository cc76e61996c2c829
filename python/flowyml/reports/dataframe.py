"""A timeline as a pandas DataFrame with one row for each call. pandas is imported only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.state import CACHED, STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from flowyml.reports.timeline import Timeline


def dataframe(
    timeline: Timeline, errors: Mapping[int, str], cpu: Sequence[float], memory: Sequence[int]
) -> pd.DataFrame:
    """Return a row for each call; `errors` has messages by position. See `PipelineResult.to_dataframe`."""
    try:
        import numpy as np
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_dataframe() needs pandas: pip install pandas") from error
    steps = np.asarray(timeline.step_of, dtype=np.int64)
    attempts = np.frombuffer(timeline.attempts, dtype=np.uint8)
    states = np.frombuffer(timeline.states, dtype=np.int8)
    ran = attempts > 0
    starts, ends = np.asarray(timeline.starts, dtype=float), np.asarray(timeline.ends, dtype=float)
    zero = pd.Timestamp(timeline.began)
    messages: Any = np.full(len(timeline), None, dtype=object)
    for at, line in errors.items():
        messages[at] = _without_surrogates(line)
    columns: dict[str, Any] = {
        "step": _texts(np.asarray([*map(_without_surrogates, timeline.names)], dtype=object), steps),
        "item": _indices(timeline, steps),
        "state": pd.Categorical.from_codes(states, categories=[str(state) for state in STATES]),
        "worker": pd.array(np.where(ran, np.asarray(timeline.workers), 0), dtype="UInt16"),
        "attempts": attempts,
        "start": zero + pd.to_timedelta(starts, unit="s"),
        "end": zero + pd.to_timedelta(ends, unit="s"),
        "duration": np.where(ran & (states != CACHED), ends - starts, np.nan),
        "cpu_seconds": np.asarray(cpu, dtype=float),
        "max_rss": pd.array(np.asarray(memory, dtype=np.int64) << 10, dtype="Int64"),
        "error": messages,
    }
    columns["max_rss"][np.asarray(memory) == 0] = pd.NA
    columns["worker"][~ran] = pd.NA
    return pd.DataFrame(columns)


def _without_surrogates(text: str) -> str:
    r"""Escape lone surrogates (from file names that are not UTF-8), which pandas strings cannot hold.

    >>> _without_surrogates("\udce9t\xe9") == "\\udce9t\xe9"
    True
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _texts(names: Any, steps: Any) -> Any:
    return names[steps] if len(names) else names


def _indices(timeline: Timeline, steps: Any) -> Any:
    import numpy as np
    import pandas as pd

    firsts = np.asarray(timeline.firsts, dtype=np.int64)
    mapped: Any = np.zeros(len(timeline.names), dtype=bool)
    mapped[list(timeline.mapped)] = True
    items = pd.array(np.arange(len(steps)) - (firsts[steps] if len(firsts) else 0), dtype="Int64")
    items[~mapped[steps] if len(mapped) else []] = pd.NA
    return items
