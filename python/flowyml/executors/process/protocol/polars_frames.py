"""Large polars frames as Arrow buffers, out of band: polars' own pickle copies each byte into the stream and out again.

```
DataFrame ──to_arrow, no copy──▶ pyarrow.Table ──pickle──▶ stream + buffers ──from_arrow──▶ DataFrame over the buffers
```

polars' own pickle remains for small frames, lazy frames, frames that Arrow cannot represent (128-bit integers, no
columns), and if pyarrow is not installed. A column of objects is sent as a list. This module is imported once polars is
loaded; it imports pyarrow with the first large frame.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Below it a frame is pickled by polars: pyarrow takes a tenth of a second to import.
MIN_BYTES = 1 << 20
MAX_BUFFER_RATIO = 2  # times as many bytes as the rows have


def dumps(obj: Any, apart: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    """Pickle as `pickle.dumps` does, with the buffers of polars frames out of band."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5, buffer_callback=apart)
    if apart is not None:
        pickler.dispatch_table = {**copyreg.dispatch_table, **reducers()}
    pickler.dump(obj)
    return file.getvalue()


def reducers() -> dict[type, Callable[[Any], Any]]:
    """Return the reducers of polars' classes; none before polars is loaded."""
    polars: Any = sys.modules.get("polars")
    if not hasattr(polars, "DataFrame"):  # also while it is being imported
        return {}
    return {polars.DataFrame: _reduce_frame, polars.Series: _reduce_series}


def _reduce_frame(frame: Any) -> Any:
    columns = frame.get_columns()
    objects = {k: each.to_list() for k, each in enumerate(columns) if _holds_objects(each)}
    if not objects and frame.estimated_size() < MIN_BYTES:
        return frame.__reduce_ex__(5)
    rest = [each.alias(str(k)) for k, each in enumerate(columns) if k not in objects]
    table = _table(type(frame)(rest)) if rest else None
    if table is None and (rest or not objects):
        return frame.__reduce_ex__(5)
    return frame_of, (frame.columns, table, objects, [_order(each) for each in columns])


def _reduce_series(series: Any) -> Any:
    if not _holds_objects(series) and series.estimated_size() < MIN_BYTES:
        return series.__reduce_ex__(5)
    make, *arguments = _reduce_frame(series.to_frame())
    return series.__reduce_ex__(5) if make is not frame_of else (series_of, *arguments)


def _holds_objects(series: Any) -> bool:
    return bool(series.dtype == sys.modules["polars"].Object)


def _order(series: Any) -> bool | None:
    """Return whether a column is known to be sorted in descending order; `None` if it is not known to be sorted."""
    flags = series.flags
    return True if flags["SORTED_DESC"] else False if flags["SORTED_ASC"] else None


def _table(frame: Any) -> Any:
    """Return the Arrow table of a frame, which shares its memory; `None` if it cannot be one."""
    level: Any = sys.modules["polars"].CompatLevel
    try:
        table = frame.to_arrow(compat_level=level.newest())
        if table.get_total_buffer_size() > MAX_BUFFER_RATIO * frame.estimated_size() + MIN_BYTES:
            table = frame.to_arrow(compat_level=level.oldest())  # strings of a few rows, which share buffers with many
    except (ImportError, ValueError, NotImplementedError, sys.modules["polars"].exceptions.PolarsError):
        return None
    return table


def frame_of(names: list[str], table: Any, objects: dict[int, list[Any]], orders: list[bool | None]) -> Any:
    """Rebuild a frame.

    Args:
        names: The names of its columns.
        table: The columns that are not objects, in order; `None` if all are.
        objects: The others, by position.
        orders: See `_order`.
    """
    import polars as pl

    rest = iter([] if table is None else pl.from_arrow(table, rechunk=False).get_columns())
    columns = {}
    for k, name in enumerate(names):
        if k in objects:
            column = pl.Series(name, objects[k], dtype=pl.Object)
        else:
            column = next(rest).alias(name)
            order = orders[k]
            column = column if order is None else column.set_sorted(descending=order)
        columns[name] = column
    return pl.DataFrame(columns)  # a list of columns would give a name to one without


def series_of(names: list[str], table: Any, objects: dict[int, list[Any]], orders: list[bool | None]) -> Any:
    """Rebuild a series; see `frame_of`."""
    return frame_of(names, table, objects, orders).to_series()
