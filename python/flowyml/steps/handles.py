"""Handles: what stands for the name of a step or an asset where names are asked for.

`pipeline["load"]` is a handle, and a `Step` is one of its own name. As what a step reads it means the asset, as what a
step waits for it means the step. The module knows neither steps nor pipelines: what has `_as_asset` and `_as_step`
stands for a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.messages.words import listed

if TYPE_CHECKING:
    from typing import Self


class Handle(str):
    """The name of a step or asset that was added to a pipeline; `Pipeline.__getitem__` gives it.

    Args:
        name: The name that was asked for.
        step: Its step.
        assets: What the step produces, if the name is the step's; else that name alone.

    >>> from flowyml import Pipeline
    >>> pipeline = Pipeline("p").add_step(dict, name="raw")
    >>> pipeline = pipeline.add_step(len, inputs=[pipeline["raw"]])
    >>> pipeline["raw"], pipeline.run()["len"]
    ('raw', 0)
    """

    __slots__ = ("_assets", "_step")

    _step: str
    _assets: tuple[str, ...]

    def __new__(cls, name: str, step: str, assets: tuple[str, ...]) -> Self:
        """Make a name that knows what it is the name of."""
        self = super().__new__(cls, name)
        self._step, self._assets = step, assets
        return self

    def _as_asset(self) -> str:
        return only_asset(self._step, self._assets)

    def _as_step(self) -> str:
        return self._step

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the plain name."""
        return str, (str(self),)


def only_asset(step: str, assets: tuple[str, ...]) -> str:
    """Return the one asset of a step.

    Raises:
        ValueError: If it has several, or is a sub-pipeline.
    """
    if len(assets) == 1:
        return assets[0]
    if not assets:
        raise ValueError(f"{step!r} is a sub-pipeline and no asset; name an asset of it")
    raise ValueError(f"step {step!r} has several outputs, name one of them: {listed(assets)}")


def asset_of(name: Any) -> Any:
    """Return the name of the asset that something stands for; what stands for none as it is."""
    stands = getattr(type(name), "_as_asset", None)
    return name if stands is None else stands(name)


def step_of(name: Any) -> Any:
    """Return the name of the step that something stands for; what stands for none as it is."""
    stands = getattr(type(name), "_as_step", None)
    return name if stands is None else stands(name)
