"""`flowyml.core.subpipeline`, the path of 2.x; the home of `sub_pipeline` is `flowyml`.

>>> from flowyml import Pipeline
>>> from flowyml.core.subpipeline import SubPipelineStep
>>> words = Pipeline("words").add_step(str.upper, "loud", inputs=["word"])
>>> parent = Pipeline("parent").add_step(SubPipelineStep(sub_pipeline=words, name="w", outputs=["loud"]))
>>> parent.run({"word": "yes"})["loud"]
'YES'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.messages.frames import leaves_no_frames
from flowyml.planning import sub_pipelines
from flowyml.planning.sub_pipelines import sub_pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowyml.pipeline import Pipeline

__all__ = ["SubPipelineStep", "sub_pipeline"]


@leaves_no_frames
def SubPipelineStep(  # noqa: N802, PLR0917  a class with these arguments in 2.x
    sub_pipeline: Pipeline,
    name: str | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    input_mapping: Mapping[str, str] | None = None,
    output_mapping: Mapping[str, str] | None = None,
) -> sub_pipelines.SubPipeline:
    """Return a pipeline as a part of another, for `add_step`: `flowyml.sub_pipeline` under its name of 2.x."""
    mappings: dict[str, Any] = {"input_mapping": input_mapping, "output_mapping": output_mapping}
    return sub_pipelines.sub_pipeline(sub_pipeline, inputs, outputs, name=name, **mappings)
