"""Map inputs: the lists that a mapped step runs over, as `map` gets them and as a run reads them.

```
map(f, items)                            one column, the items themselves
map(f, over="raw")                       one column, the value of "raw"
map(f, over={"x": "raw", "y": [1, 2]})   two columns: zip, or combine="product"
```

Item i of a zip is the i-th of every column; in a product the last column varies fastest. Neither is ever written out:
items are computed from their index, so ten million combinations cost what their columns cost. The module knows neither
graphs nor runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml._containers import NamedTuple
from flowyml.steps.declarations import asset_of

if TYPE_CHECKING:
    from flowyml.steps.declarations import Inputs, Named
    from flowyml.steps.map_task import MapTaskPolicy

Lists: TypeAlias = "Named | Sequence[Named | Iterable[Any]] | Mapping[str, Named | Iterable[Any]]"
"""What `over=` takes: the name of a list, several of them, or names and lists by parameter."""


# How to list the rows of a table, by a method that identifies its class: pandas, polars, pyarrow.
_ROWS = {"itertuples": "list(df.itertuples())", "iter_rows": "list(df.iter_rows())", "itercolumns": "table.to_pylist()"}


class MapColumn(NamedTuple):
    """One of the lists that a mapped step runs over.

    Attributes:
        parameter: The parameter that takes its values; `None`: the next one that is free.
        source: The name of an asset, of a run input, or a glob; or else the values themselves.
        implicit: Whether the source was not named and has the parameter's name.
    """

    parameter: str | None
    source: str | Sequence[Any]
    implicit: bool = False


class MapInput(NamedTuple):
    """All that a mapped step runs over.

    Attributes:
        columns: The lists, in the order in which they were given.
        product: Whether every combination is an item, instead of the values at the same position.
        terms: What holds for the items of a map task.
    """

    columns: tuple[MapColumn, ...]
    product: bool = False
    terms: MapTaskPolicy | None = None

    @classmethod
    def items(cls, items: Sequence[Any]) -> MapInput:
        """Run over these items."""
        return cls((MapColumn(None, items),))

    def count(self, lengths: Sequence[int]) -> int:
        """Return how many items there are, from the lengths of the columns."""
        return prod(lengths) if self.product else lengths[0]

    def named(self, column: int) -> str:
        """Return what a column is called in messages."""
        parameter, source, _ = self.columns[column]
        if isinstance(source, str):
            return repr(source)
        return f"the list for {parameter!r}" if parameter else f"list {column + 1}"

    def table(self, columns: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Return the items: the only column itself, or tuples of the columns' values."""
        if len(columns) == 1:
            return columns[0]
        return ProductSequence(columns) if self.product else ZipSequence(columns)


def checked_over(items: Any, over: Any, combine: Any, step: str) -> MapInput:
    """Return what `map` runs over.

    Raises:
        TypeError: If it is neither items nor names, or both.
        ValueError: If there is nothing to run over, or for another way to combine.
    """
    if combine not in {"zip", "product"}:
        raise ValueError(f'combine of step {step!r} must be "zip" or "product", got {combine!r:.60}')
    if (items is None) == (over is None):
        given = "neither" if items is None else "both; give the items in over={parameter: items}"
        raise TypeError(f"map() of step {step!r} takes items or over=, got {given}")
    over = asset_of(over)
    if over is None:
        return MapInput.items(_items(items, f"map() of step {step!r}"))
    if isinstance(over, Mapping):
        columns = [MapColumn(_parameter(name, step), _source(each, step)) for name, each in over.items()]
    elif isinstance(over, str):
        columns = [MapColumn(None, _source(over, step))]
    elif isinstance(over, (Sequence, Iterable)) and not isinstance(over, (bytes, set, frozenset)):
        columns = [MapColumn(None, _source(each, step)) for each in over]
    else:
        raise TypeError(f"over of step {step!r} must be names of assets, got {type(over).__name__} {over!r:.60}")
    if not columns:
        raise ValueError(f"over of step {step!r} names nothing to run over")
    return MapInput(tuple(columns), product=combine == "product")


def over_of_task(
    parameters: Sequence[str], inputs: Inputs | None, params: Mapping[str, Any], step: str
) -> tuple[MapColumn, Inputs | None]:
    """Return what a map task runs over, and the inputs that are left for all of its items.

    That is the input of its first parameter that `params` leave free, or else the first one; without inputs what
    `params` give its first parameter, or what has that parameter's name.

    Raises:
        TypeError: If it has no parameter, or the input is more than one list.
    """
    first = next((name for name in parameters if inputs is None or name not in params), None)
    if inputs is None:
        if first is None:
            raise TypeError(f"map task {step!r} has no parameter for its items")
        if first in params:
            return MapColumn(first, _items(params[first], f"params[{first!r}] of map task {step!r}")), None
        return MapColumn(first, first, implicit=True), None
    if isinstance(inputs, Mapping):
        if first is None or first not in inputs:
            return MapColumn(first, first or "", implicit=True), inputs
        wanted, rest = inputs[first], {name: each for name, each in inputs.items() if name != first}
        if not isinstance(wanted, str):
            raise TypeError(f"map task {step!r} runs over one list, got inputs[{first!r}]={wanted!r:.60}")
        return MapColumn(first, wanted), rest or None
    names = [inputs] if isinstance(inputs, str) else list(inputs)
    wanted = names.pop(names.index(first) if first in names else 0)
    return MapColumn(first, wanted), tuple(names) or None


def _parameter(name: Any, step: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"over of step {step!r} must have parameter names as keys, got {name!r:.60}")
    return name


def _source(source: Any, step: str) -> str | Sequence[Any]:
    source = asset_of(source)
    if isinstance(source, str):
        if not source:
            raise ValueError(f"over of step {step!r} must not be empty names")
        return str(source)
    if not isinstance(source, Iterable) and not hasattr(type(source), "__getitem__"):
        raise TypeError(
            f"over of step {step!r} takes names of assets and lists of values, got {type(source).__name__} "
            f"{source!r:.40}; the items themselves go to map(step, items)"
        )
    return _items(source, f"over of step {step!r}")


def _items(items: Any, what: str) -> Sequence[Any]:
    """Return items as a sequence of their own; a `range` as it is.

    Raises:
        TypeError: If they are not iterable, one string, or something whose items are not its rows or entries.
    """
    if isinstance(items, range):
        return items
    if isinstance(items, str):
        raise TypeError(
            f"{what} takes items one by one, got the str {items!r:.40}; over={items!r:.40} runs over what a step "
            "produces, list(...) over letters"
        )
    if isinstance(items, (bytes, bytearray)):
        raise TypeError(
            f"{what} takes items one by one, got the {type(items).__name__} {items!r:.40}; use list(...) if you mean it"
        )
    if not isinstance(items, Iterable) and not hasattr(type(items), "__getitem__"):
        raise TypeError(
            f"{what} takes an iterable of items, got {type(items).__name__} {items!r:.40}; what a step produces is "
            "named in over="
        )
    if (reason := _not_by_item(items)) is not None:
        raise TypeError(f"{what} takes items one by one, got {reason}")
    return list(items)


def _not_by_item(value: Any) -> str | None:
    """Return the kind of a value that iterates over its keys or columns, and what to write instead; else `None`."""
    kind = type(value)
    if isinstance(value, Mapping):
        return f"a {kind.__name__}; make it list(d.items()), list(d) or list(d.values())"
    rows = next((rows for method, rows in _ROWS.items() if hasattr(kind, method)), None)
    if rows is not None:
        return f"a {kind.__name__}, whose items would be its columns; make it a list of its rows: {rows}"
    return None


class ZipSequence(Sequence[Any]):
    """Tuples of the values at the same position of columns of one length."""

    __slots__ = ("_columns",)

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self._columns = tuple(columns)

    def __len__(self) -> int:
        """Return the length of the columns."""
        return len(self._columns[0])

    def __getitem__(self, index: Any) -> Any:
        """Return the tuple at an index, or a list of tuples for a slice."""
        if type(index) is slice:
            return list(zip(*[column[index] for column in self._columns], strict=True))
        return tuple([column[index] for column in self._columns])


class ProductSequence(Sequence[Any]):
    """Tuples of all combinations in the order of `itertools.product`: the last column varies fastest.

    >>> list(ProductSequence([range(2), "ab"]))
    [(0, 'a'), (0, 'b'), (1, 'a'), (1, 'b')]
    """

    __slots__ = ("_length", "_steps")

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        lengths = [len(column) for column in columns]
        self._length = prod(lengths)
        # Each column, for how many items it stays the same, and its length.
        self._steps = [(column, prod(lengths[at + 1 :]), lengths[at]) for at, column in enumerate(columns)]

    def __len__(self) -> int:
        """Return the number of combinations."""
        return self._length

    def __getitem__(self, index: Any) -> Any:
        """Return the tuple at an index, or a list of tuples for a slice."""
        if type(index) is slice:
            return [self[at] for at in range(*index.indices(self._length))]
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(index)
        return tuple([column[at // step % length] for column, step, length in self._steps])


def as_items(value: Any) -> Sequence[Any]:
    """Return a value of a run as the items of a map: a copy, unless it is immutable.

    Raises:
        TypeError: If it is not a list of items; the message says what it is, and what to write instead.
    """
    if isinstance(value, (range, tuple)):
        return value
    kind = type(value)
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"one {kind.__name__}, {value!r:.40}; its items would be single characters or bytes")
    if (reason := _not_by_item(value)) is not None:
        raise TypeError(reason)
    if hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
        raise TypeError(f"a {kind.__name__}, which can be read only once; make it list(...)")
    if not isinstance(value, Iterable) and not hasattr(kind, "__getitem__"):
        raise TypeError(f"{kind.__name__} {value!r:.40}")
    return list(value)
