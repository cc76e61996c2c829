"""`validate_types=`: what contradicts is found, all of it, before anything runs; what only might, is not.

The pairs of hints are written as source, so that mypy can be asked about the same ones: whatever is called a
contradiction here, mypy refuses, too.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence  # noqa: TC003  hints of steps, resolved at run time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from flowyml import If, LocalExecutor, Pipeline, PipelineValidationError, context, dynamic, map_task, step
from flowyml.launch import run_plain
from flowyml.planning.type_checks import hints_of, is_assignable, is_instance, part_of
from flowyml.steps.map_task import MapTaskResult  # noqa: TC001  a hint of a step, resolved at run time

if TYPE_CHECKING:
    from nowhere import Unheard

PRELUDE = """
import collections, decimal, enum, fractions, io, os, pathlib, datetime
from collections.abc import (
    Awaitable, Callable, Collection, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Set, Sized
)
from typing import (
    Annotated, Any, Generic, Literal, LiteralString, NamedTuple, NewType, Optional, Protocol, SupportsFloat,
    SupportsInt, TextIO, TypedDict, TypeVar, Union, Never, Final, runtime_checkable,
)
import numpy as np
import numpy.typing as npt

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
UserId = NewType("UserId", int)

class Base: ...
class Derived(Base): ...
class Other: ...
class Closes(Protocol):
    def close(self) -> None: ...
@runtime_checkable
class Reads(Protocol):
    def read(self) -> int: ...
class Named(Protocol):
    name: str
class HasName:
    def __init__(self) -> None:
        self.name = "a"
class Anything:
    def __getattr__(self, name: str) -> Any: ...
class Box(Generic[T]): ...
class Sink(Generic[T_contra]): ...
class IntList(list[int]): ...
class Row(TypedDict):
    a: int
class Point(NamedTuple):
    x: int
    y: str
class Colour(enum.Enum):
    RED = 1
"""

NO_CONTRADICTION = """
int > int; bool > int; int > float; float > complex; int > int | None
None > int | None; None > Optional[int]; Derived > Base; Derived > Base | None; Any > int
object > int; int > Any; int > object; T > int; int > T
Never > int; UserId > int; int > UserId; Annotated[int, 3] > int
int > Annotated[int, 3]; Literal["a"] > str; Literal["a"] > Literal["a", "b"]
str > Literal["a", "b"]; LiteralString > str; Colour > Colour
list > list[int]; list[int] > list; list[bool] > list[int]; list[int] > list[float]
list[int] > Sequence[int]; list[Any] > list[int]; set[int] > Collection[int]
dict[str, int] > Mapping[str, float]; dict[str, int] > Iterable[str]
dict > Mapping[str, int]; collections.Counter[str] > Mapping[str, int]
collections.defaultdict[str, int] > dict[str, int]
collections.OrderedDict[str, int] > Mapping[str, int]
tuple[int, str] > tuple[int, str]; tuple[int, ...] > tuple[int, int]; tuple[int, int] > tuple[int, ...]
tuple[int, bool] > Sequence[int]; tuple > tuple[int, str]; tuple[int, str] > tuple
str > Sequence[str]; str > Iterable[str]; range > Sequence[int]; bytes > Sequence[int]; bytearray > bytes
type[Derived] > type[Base]; type[Base] > Callable[..., Base]; type > type[int]
Callable[[int], str] > Callable[[str], int]; Callable[..., Any] > Callable[[], int]
io.StringIO > Closes; io.TextIOWrapper > TextIO; HasName > Named; Anything > Closes
Base > Closes; Base > Closes | None; Anything > Reads
int > SupportsFloat; int > SupportsInt; int > Hashable; list[int] > Sized; list[int] > Iterable[int]
Iterator[int] > Iterable[int]; Box[int] > Box[int]; Box > Box[int]; Box[bool] > Box[int]
Sink[object] > Sink[int]; IntList > list[str]; IntList > Sequence[int]
Row > dict[str, Any]; Row > Mapping[str, object]; dict[str, int] > Row
Point > tuple[int, str]; Point > tuple; datetime.datetime > datetime.date
pathlib.Path > os.PathLike[str]; pathlib.Path > str | os.PathLike[str]
fractions.Fraction > float; Awaitable[int] > int; Final[int] > str
np.float64 > float; np.int64 > int; np.float32 > float; np.bool_ > bool; np.ndarray > npt.ArrayLike
list[float] > npt.ArrayLike; npt.NDArray[np.float64] > np.ndarray
npt.NDArray[np.float64] > npt.NDArray[np.floating[Any]]
"NoSuchName" > int; int > "NoSuchName"; int | str > str | int | None; Union[int, str] > int | str
"""

CONTRADICTION = """
str > int; float > int; int > bool; int > str; int | None > int
None > int; int > None; object | None > int; Base > Derived; Base > Other
int | str > int; bytes > str; str > bytes; complex > float; decimal.Decimal > float
UserId > str; Annotated[int, 3] > str; Literal["a"] > int; int > Literal["a"]
Literal["a"] > Literal["b"]; LiteralString > int; Colour > int; Colour > str
list[int] > list[str]; list[int] > tuple[int, ...]; list[int] > set[int]; list[int] > Sequence[str]
tuple[int, str] > tuple[int, int]; tuple[int, str] > tuple[int]; tuple[int, str] > Sequence[int]
tuple[int, ...] > tuple[str, str]; set[int] > Iterable[str]; Sequence[int] > list[int]
dict[str, int] > Mapping[str, str]; dict[str, int] > Mapping[int, int]; dict[str, int] > Iterable[int]
dict[str, int] > list[int]; list[list[int]] > list[list[str]]; list[int | None] > list[int]
type[Base] > type[Other]; type[Base] > Base; Base > type[Base]
int > Callable[..., Any]; Base > Reads; Base > Reads | None
int > Sized; int > Iterable[int]; Box[int] > Box[str]; Box[int] > Other; IntList > Mapping[str, int]
Row > list[str]; Point > list[int]; datetime.date > datetime.datetime; pathlib.Path > str
str > os.PathLike[str]; np.float64 > int; np.ndarray > list[float]; np.ndarray > str
npt.NDArray[np.float64] > npt.NDArray[np.int64]
"""


def pairs(table: str) -> list[tuple[str, str]]:
    cells = (cell.strip().partition(" > ") for line in table.strip().splitlines() for cell in line.split(";"))
    return [(source, target) for source, _, target in cells]


NAMES: dict[str, Any] = {}
exec(PRELUDE, NAMES)


def hint(text: str) -> Any:
    """Return a hint from its source; a text in quotes stays one, as a forward reference does."""
    return eval(text, NAMES)


# ---- hints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), pairs(NO_CONTRADICTION))
def test_what_fits_or_might_is_no_finding(source: str, target: str) -> None:
    assert is_assignable(hint(source), hint(target))


@pytest.mark.parametrize(("source", "target"), pairs(CONTRADICTION))
def test_a_contradiction_is_found(source: str, target: str) -> None:
    assert not is_assignable(hint(source), hint(target))


@pytest.mark.timeout(240)
def test_mypy_refuses_every_contradiction(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    lines, at = PRELUDE.splitlines(), {}
    for k, (source, target) in enumerate(pairs(CONTRADICTION)):
        lines += [f"def give_{k}() -> {source}: raise SystemExit", f"def take_{k}(x: {target}) -> None: ..."]
        lines += [f"take_{k}(give_{k}())" if source != "None" else f"take_{k}(None)"]
        at[len(lines)] = f"{source} > {target}"
    (tmp_path / "edges.py").write_text("\n".join(lines))
    told = api.run([f"--cache-dir={tmp_path}", "--no-error-summary", str(tmp_path / "edges.py")])[0]
    refused = {int(line.split(":")[1]) for line in told.splitlines() if "arg-type" in line}
    assert [pair for line, pair in at.items() if line not in refused] == [], told


class Loads:
    def read(self) -> int:
        return 1


VALUES_THAT_FIT = [
    *[(3, "int"), (3, "float"), (True, "int"), (None, "int | None"), (None, "None"), ("a", 'Literal["a", "b"]')],
    *[([1], "list[str]"), ((1,), "Sequence[int]"), ({"a": 1}, "Mapping[str, int]"), ({"a": 1}, "Row"), (len, "Any")],
    *[(len, "Callable[..., int]"), (int, "type[int]"), (list[int], "type"), (np.int64(1), "int"), (1, "UserId")],
    *[(np.float32(1), "float"), (np.bool_(1), "bool"), (np.zeros(2), "npt.NDArray[np.int64]")],
    *[
        (np.zeros(2), "npt.ArrayLike"),
        (3, "Closes"),
        (np.zeros(2), 'Literal["a"]'),
        ("x", '"NoSuchName"'),
        (3, "T"),
        (3, "object"),
    ],
    pytest.param(Mock(), "str", id="Mock-str"),  # a mock's text differs from process to process
]
VALUES_THAT_DO_NOT = [
    *[("3", "int"), (3.5, "int"), (3, "str"), (None, "int"), (3, "None"), ("c", 'Literal["a", "b"]')],
    *[((1,), "list[int]"), ([1], "Mapping[str, int]"), (3, "Callable[..., int]"), (3, "type"), ("a", "UserId")],
    *[(3, "Reads"), ("a", "pathlib.Path"), ([1.0], "npt.NDArray[np.float64]"), (3, "str | bytes")],
]


@pytest.mark.parametrize(("value", "target"), VALUES_THAT_FIT, ids=str)
def test_a_value_fits(value: Any, target: str) -> None:
    assert is_instance(value, hint(target))


@pytest.mark.parametrize(("value", "target"), VALUES_THAT_DO_NOT, ids=str)
def test_a_value_does_not_fit(value: Any, target: str) -> None:
    assert not is_instance(value, hint(target))


def test_a_class_that_was_defined_again_is_the_same_type() -> None:
    first, second = {"__name__": "cell"}, {"__name__": "cell"}
    exec("class Row: ...", first)
    exec("class Row: ...", second)
    assert is_assignable(first["Row"], second["Row"])
    assert is_instance(first["Row"](), second["Row"])


def test_hints_that_refer_to_each_other_end() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("recursive aliases are statements of 3.12")
    names: dict[str, Any] = {}
    exec("type A = int | list[A]\ntype B = int | list[B]\ntype C = str | dict[str, C]", names)
    assert is_assignable(names["A"], names["B"])
    assert is_assignable(names["C"], names["C"])
    assert not is_assignable(names["A"], names["C"])


def test_aliases_are_what_they_stand_for_and_those_with_parameters_say_nothing() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("aliases with parameters are statements of 3.12")
    names: dict[str, Any] = {}
    exec("type Table[K, V] = list[dict[V, K]]\ntype Many[*Ts] = tuple[*Ts]", names)
    table, many = names["Table"], names["Many"]
    assert is_assignable(table[int, str], list[dict[str, int]])
    assert is_assignable(table[int, str], int)
    assert is_assignable(table, list[int]) is False
    assert is_assignable(many[int, str], tuple[int, str])


def test_a_hint_that_does_not_resolve_hides_no_other() -> None:
    def clean(rows: Unheard, n: int, more: NoSuchName = None) -> list[str]:  # noqa: F821
        return [str(rows), str(n), more]

    assert hints_of(clean) == {"n": int, "return": list[str]}


def test_hints_of_what_is_no_plain_function() -> None:
    @dataclass
    class Model:
        depth: int

        def __call__(self, x: float) -> str:
            return str(x * self.depth)

        def fit(self, rows: bytes) -> bool:
            return bool(rows)

    expected = {"x": float, "return": str}
    assert hints_of(Model) == {"depth": int, "return": Model}
    assert hints_of(Model(1)) == expected
    assert hints_of(Model(1).fit) == {"rows": bytes, "return": bool}
    assert hints_of(functools.partial(Model(1).fit, b"")) == {"rows": bytes, "return": bool}
    assert hints_of(len) == {}
    assert hints_of(np.add) == {}


class Pair(NamedTuple):
    low: int
    high: str


class Named(TypedDict):
    low: int
    high: str


@pytest.mark.parametrize("whole", [tuple[int, str], Pair, Named])
def test_each_of_several_outputs_has_its_type(whole: Any) -> None:
    assert [part_of(whole, part, name, 2) for part, name in enumerate(["low", "high"])] == [int, str]


def test_outputs_of_one_type_and_of_none() -> None:
    for whole in (tuple[int, ...], list[int], dict[str, int]):
        assert part_of(whole, 1, "high", 2) is int
    for whole in (tuple, dict, tuple[int, int, int], Any, "Unheard", int):
        assert part_of(whole, 1, "high", 2) is Any


# ---- pipelines -----------------------------------------------------------------------------------------------------


@step
def load() -> str:
    return "rows"


@step
def count(load: int, times: int = 1) -> int:
    return load * times


@step(outputs=["table", "labels"])
def split(source: Unheard) -> tuple[pd.DataFrame, list[int]]:
    return pd.DataFrame({"a": [source]}), [1]


@step
def fit(table: pd.DataFrame, labels: list[str], rate: float | None = None) -> float:
    return len(table) * len(labels) * (rate or 0.0)


def problems(pipeline: Pipeline, **given: Any) -> list[str]:
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.build(**given)
    return caught.value.problems


def place(marker: str) -> str:
    """Return "file:line" of the line of this file that ends with a comment."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return f"{__file__}:{next(k for k, line in enumerate(lines, 1) if line.endswith(f'# {marker}'))}"


@pytest.mark.parametrize("off", [None, False])
def test_nothing_is_looked_at_unless_asked_for(off: bool | None) -> None:
    Pipeline("p", validate_types=off).add_steps([load, count]).build()


def test_both_steps_types_and_places_are_named() -> None:
    pipeline = Pipeline("p", validate_types=True)
    pipeline.add_step(load)  # first
    pipeline.add_step(count)  # second
    (found,) = problems(pipeline)
    assert found == (
        f"Type mismatch on 'load': step 'load' outputs str ({place('first')}) → "
        f"step 'count' expects int ({place('second')})"
    )


def test_types_stand_beside_everything_else_that_is_wrong() -> None:
    pipeline = Pipeline("p", validate_types="error").add_steps([load, count])
    pipeline.add_step(fit, inputs=["nothing"], params={"rate": "fast"})
    pipeline.add_step(count, name="again", params={"times": "two"}, inputs=["load"])
    found = problems(pipeline)
    assert [re.split(r":| \(", sentence)[0] for sentence in found] == [
        *["Node 'fit' requires undefined asset 'nothing'", "Type mismatch on 'load'"],
        *["Type mismatch on 'load'", "Type mismatch on 'times'", "Node 'fit' is not wired"],
    ]
    assert "params give str → step 'again' expects int" in found[-2]


def test_nothing_runs() -> None:
    ran: list[int] = []
    pipeline = Pipeline("p", validate_types=True).add_step(ran.append, params={}, name="run", inputs=["load"])
    pipeline.add_steps([load, count])
    with pytest.raises(PipelineValidationError, match="Type mismatch"):
        pipeline.run()
    assert ran == []


def test_what_fits_runs(executor: Any) -> None:
    pipeline = Pipeline("p", context={"rate": 2}, validate_types=True).add_step(load)
    pipeline.add_step(len, inputs=["load"]).add_step(count, inputs=["len"], name="twice", params={"times": 2})
    assert pipeline.run(executor=executor)["twice"] == 8


def test_each_of_several_outputs_is_compared() -> None:
    pipeline = Pipeline("p", validate_types=True).add_steps([split, fit])
    (found,) = problems(pipeline, inputs={"source": 3})
    assert "'labels': step 'split' outputs list[int]" in found
    assert "'fit' expects list[str]" in found


@pytest.mark.parametrize(
    ("where", "given"),
    [
        ("the context", lambda pipeline, wrong: pipeline.context.update(wrong)),
        ("run(context=)", lambda pipeline, wrong: {"context": wrong}),
        ("run(inputs=)", lambda pipeline, wrong: {"inputs": wrong}),
    ],
)
def test_named_values_are_compared(where: str, given: Any) -> None:
    pipeline = Pipeline("p", validate_types=True)
    pipeline.add_step(lambda: 1, name="load").add_step(count)
    pipeline.build()
    (found,) = problems(pipeline, **(given(pipeline, {"times": "2"}) or {}))
    assert found.startswith(f"Type mismatch on 'times': {where} gives str → step 'count' expects int")


def test_a_default_is_the_functions_own_business() -> None:
    def odd(x: int = None, y: str = Ellipsis, /, *, z: int = "z") -> None:  # noqa: RUF013
        return None

    pipeline = Pipeline("p", validate_types=True).add_step(odd)
    pipeline.add_step(odd, name="again", params={"x": None, "z": 3}).build()


def test_items_of_a_map_are_compared() -> None:
    pipeline = Pipeline("p", validate_types=True).map(count, ["a", 1, "b", None, 2.5], name="mixed")
    found = [sentence.split(" → ")[0] for sentence in problems(pipeline)]
    assert found == [f"Type mismatch on 'load': items give {kind}" for kind in ("str", "None", "float")]
    Pipeline("p", validate_types=True).map(count, range(5)).build()


def test_a_mapped_step_gives_a_list() -> None:
    def total(values: list[int]) -> int:
        return sum(values)

    def join(values: list[str]) -> str:
        return ",".join(values)

    pipeline = Pipeline("p", validate_types=True).map(count, range(3)).add_step(total, inputs=["count"])
    pipeline.build()
    (found,) = problems(pipeline.add_step(join, inputs=["count"]))
    assert "step 'count' outputs list[int]" in found
    assert "step 'join' expects list[str] as 'values'" in found


def test_globs_and_rest_parameters_are_compared_value_by_value() -> None:
    def join(values: list[str], *more: str) -> str:
        return ",".join([*values, *more])

    pipeline = Pipeline("p", validate_types=True).add_step(load)
    for k in range(3):
        pipeline.add_step(lambda: 1, name=f"untyped_{k}").add_step(count, name=f"count_{k}", params={"load": k})
    pipeline.add_step(join, name="fine", inputs=["untyped_*", "load"])
    pipeline.build()
    pipeline.add_step(join, name="list", inputs=["count_*"]).add_step(join, name="rest", inputs=["load", "count_1"])
    several, rest, *_ = [sentence.split(" (")[0] + sentence[sentence.index(" → ") :] for sentence in problems(pipeline)]
    assert several.startswith("Type mismatch on 'count_0': step 'count_0' outputs list[int] → step 'list' expects list")
    assert several.endswith(", and 2 others like it")
    assert "outputs str → step 'rest' expects list[str] as 'values'" in rest


def test_a_million_alike_would_be_one_sentence() -> None:
    pipeline = Pipeline("p", validate_types=True).add_step(load)
    for k in range(1_000):
        pipeline.add_step(count, name=f"count_{k}", params={"times": "x"}, inputs=["load"])
    found = problems(pipeline)
    assert len(found) == 2
    assert all(sentence.endswith("and 999 others like it") for sentence in found)


def test_a_condition_has_parameters_of_its_own() -> None:
    def wanted(limit: str, load: str) -> bool:
        return load > limit

    pipeline = Pipeline("p", context={"limit": 3}, validate_types=True).add_step(load)
    pipeline.add_step(len, inputs=["load"], condition=wanted).build()


def test_branches_and_joins_are_compared() -> None:
    def join() -> str:
        return "b"

    @step(run_if="any")
    def use(chosen: list[int | str], one: int = 0) -> int:
        return len(chosen) + one

    pipeline = Pipeline("p", validate_types=True).add_step(load)
    pipeline.add_control_flow(If(lambda ctx: ctx["load"] == "rows", then_step=count, else_step=join))
    pipeline.add_step(use, inputs={"chosen": ["count", "join"], "one": "join"})
    of_branch, of_one, *of_join = problems(pipeline)
    assert "'load' outputs str" in of_branch
    assert "'join' outputs str" in of_one
    assert ["outputs list[str]" in sentence for sentence in of_join] == []


def test_a_warning_says_all_of_it_once(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    pipeline = Pipeline("p", validate_types="warn").add_steps([load, count])
    pipeline.add_step(count, name="again", params={"times": "2"}, inputs=["load"])
    result = pipeline.run()
    (warning,) = recwarn.list
    assert warning.filename == __file__
    assert str(warning.message).startswith("types of pipeline 'p' do not fit:\nType mismatch on 'load'")
    assert str(warning.message).count("Type mismatch") == 3
    assert result["count"] == "rows"


@pytest.mark.parametrize(
    "use",
    [Pipeline.build, Pipeline.run, lambda pipeline: run_plain(pipeline, LocalExecutor(), fail_fast=False)],
    ids=["build", "run", "run_plain"],
)
def test_the_warning_is_for_the_line_that_asked(use: Any) -> None:
    pipeline = Pipeline("p", validate_types="warn").add_steps([load, count])
    with pytest.warns(UserWarning, match="do not fit") as caught:
        use(pipeline)
    assert caught[0].filename == __file__


def test_the_graph_as_an_object_tells_them_too() -> None:
    pipeline = Pipeline.from_steps(load, count, validate_types=True)
    errors, _ = pipeline.dag.validate()
    assert [error.split(":")[0] for error in errors] == ["Type mismatch on 'load'"]


@pytest.mark.parametrize("added", ["add_step(dict)", "add_step(dynamic(lambda: Pipeline('q').add_step(dict)))"])
def test_the_module_is_loaded_for_those_who_ask(added: str) -> None:
    code = (
        f"import sys; from flowyml import Pipeline, dynamic; assert Pipeline('p').{added}.run();"
        "print([name for name in sys.modules if name.partition('.')[0] == 'beartype' or name.endswith('type_checks')])"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("asked", [True, "warn", "error"])
def test_without_beartype_the_error_names_the_extra(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "beartype", None)
    with pytest.raises(ImportError, match="needs beartype, which the extra `types` installs"):
        Pipeline("p", validate_types=asked)
    for off in (None, False):
        Pipeline("p", validate_types=off).add_steps([load, count]).build()


def test_dynamic_steps_run_without_beartype() -> None:
    code = (
        "import sys; sys.modules['beartype'] = None\nfrom flowyml import Pipeline, dynamic\n"
        "@dynamic\ndef grow(): return Pipeline('inner').add_step(lambda: 7, name='seven')\n"
        "print(Pipeline('p').add_step(grow).run().success)"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "True", done.stderr


def test_a_context_parameter_is_a_mapping() -> None:
    def read(context: Mapping[str, int]) -> int:
        return context["a"]

    assert Pipeline("p", context=context(a=1), validate_types=True).add_step(read).run()["read"] == 1


def test_steps_of_a_sub_pipeline_are_compared_by_its_own_names() -> None:
    @step(outputs=["table", "labels"])
    def parts() -> dict[str, int]:
        return {"table": 1, "labels": 2}

    child = Pipeline("child", context={"times": "2"}).add_step(parts).add_step(count, inputs={"load": "table"})
    child.add_step(len, inputs=["labels"]).add_step(hints_of, name="typed", inputs=["labels"])
    pipeline = Pipeline("p", validate_types=True).add_step(load).add_sub_pipeline(child, outputs=["labels"])
    pipeline.add_step(count, name="last", inputs=["labels"], params={"times": 1})
    (found,) = problems(pipeline)
    assert found.startswith("Type mismatch on 'times': the context gives str → step 'child.count' expects int")


def test_a_list_that_is_mapped_over_gives_its_elements() -> None:
    def words() -> list[str]:
        return ["a"]

    pipeline = Pipeline("p", validate_types=True).add_step(words).map(count, over="words")
    pipeline.map(count, over="count", name="again")
    (found,) = problems(pipeline)
    assert "step 'words' outputs str" in found


def test_a_map_task_gives_its_result_or_a_list() -> None:
    @map_task
    def twice(x: int) -> int:
        return 2 * x

    def whole(twice: MapTaskResult[int]) -> int:
        return twice.total

    def several(twice: Sequence[int]) -> int:
        return sum(twice)

    def plain(twice: list[int]) -> int:
        return sum(twice)

    def both(results: list[MapTaskResult[int]]) -> int:
        return sum(map(sum, results))

    def wrong(twice: list[str]) -> str:
        return twice[0]

    def words() -> list[str]:
        return ["a"]

    pipeline = Pipeline("p", validate_types=True).add_step(lambda: [1, 2], name="x").add_step(twice)
    pipeline.add_step(both, inputs={"results": ["twice", "twice"]}).add_steps([whole, several, plain])
    assert pipeline.run()["both"] == 12
    of_items, of_result = problems(pipeline.add_step(wrong).add_step(words).add_step(twice, "again", inputs=["words"]))
    assert "step 'twice' outputs list[int]" in of_items
    assert "step 'words' outputs str" in of_result


def test_a_fan_in_as_an_iterator_is_compared_by_its_elements() -> None:
    def total(counts: Iterator[int]) -> int:
        return sum(counts)

    def join(counts: Iterator[str]) -> str:
        return ",".join(counts)

    pipeline = Pipeline("p", validate_types=True).map(count, range(3)).add_step(total, inputs=["count"])
    assert pipeline.run()["total"] == 3
    (found,) = problems(pipeline.add_step(join, inputs=["count"]))
    assert "step 'join' expects str" in found


# ---- maps, sub-pipelines, steps that come during the run ------------------------------------------------------------


def text() -> str:
    return "a"


def number(x: int) -> int:
    return x


def numbers_or_none() -> list[int] | None:
    return None


def anything() -> Any:
    return None


def wrong(**options: Any) -> Pipeline:
    return Pipeline("wrong", **options).add_step(text).add_step(number, inputs=["text"])


@pytest.mark.parametrize(("made", "fits"), [(number, False), (text, False), (numbers_or_none, True), (anything, True)])
def test_a_map_runs_over_a_list(made: Any, fits: bool) -> None:
    pipeline = (
        Pipeline("p", {"x": 1}, validate_types=True).add_step(made, "made").map(lambda y: y, over="made", name="m")
    )
    if fits:
        pipeline.build()
        return
    with pytest.raises(PipelineValidationError, match=r"'made' outputs \w+ \(.*'m' runs over it, so it must be a list"):
        pipeline.build()


def test_a_sub_pipeline_says_it_for_its_own_steps() -> None:
    for inner, outer in ((True, None), (None, True), (True, "warn")):
        whole = Pipeline("whole", validate_types=outer).add_sub_pipeline(wrong(validate_types=inner))
        with pytest.raises(PipelineValidationError, match=r"Type mismatch on 'wrong\.text'"):
            whole.build()
    Pipeline("whole").add_sub_pipeline(wrong()).build()
    with pytest.warns(UserWarning, match=r"do not fit:\nType mismatch on 'wrong\.text'") as caught:
        Pipeline("whole").add_sub_pipeline(wrong(validate_types="warn")).build()
    assert caught[0].filename == __file__


@pytest.mark.parametrize(("own", "around"), [(True, None), (None, True), (None, None), (None, "warn")])
def test_what_a_dynamic_step_returns_is_looked_at(
    executor: Any, own: Any, around: Any, caplog: pytest.LogCaptureFixture
) -> None:
    build = dynamic(name="build")(lambda: wrong(validate_types=own))
    result = Pipeline("p", validate_types=around).add_step(build).run(executor=executor)
    line = result.step_results["build"].error_line or ""
    assert ("Type mismatch on 'build.text'" in line) == (own is True or around is True)
    assert ("types of pipeline 'p' do not fit" in caplog.text) == (around == "warn")
