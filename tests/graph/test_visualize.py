"""Pictures of a pipeline: the documented text, what is folded, and three formats that others can read."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml import If, Pipeline, Switch, step
from flowyml.graph.layout import layout
from flowyml.graph.model import GraphModel, NodeBox
from flowyml.graph.ordering import add_order, fold
from flowyml.graph.svg import svg

FORMATS = ["text", "mermaid", "dot", "svg"]
UGLY = 'say "x" & <b>#1\n`$100%`\\ ]] --> {y}'
SVG = "{http://www.w3.org/2000/svg}"


@step
def load_data():
    return [1]


@step
def preprocess(load_data):
    return load_data


@step
def process_chunk(chunk_id, extra=None):
    return chunk_id, extra


def chunks(count: int) -> Pipeline:
    pipeline = Pipeline("chunks")
    for i in range(count):
        pipeline.add_step(process_chunk, name=f"chunk_{i}", params={"chunk_id": i})
    return pipeline


def numbered(pipeline: Pipeline) -> list[str]:
    return re.findall(r"^  \d+\. (.*)$", pipeline.visualize(), flags=re.MULTILINE)


# -- text


def test_i1_the_documented_lines():
    text = Pipeline("training").add_steps([load_data, preprocess]).visualize()
    assert text.split("\n") == [
        "Pipeline DAG: training",
        "",
        "Step Execution Order:",
        "  1. load_data",
        "  2. preprocess (depends on: load_data)",
    ]


def test_the_dag_draws_the_same():
    pipeline = Pipeline("training").add_steps([load_data, preprocess])
    assert [pipeline.dag.visualize(form) for form in FORMATS] == [pipeline.visualize(form) for form in FORMATS]


def test_dependencies_come_in_execution_order():
    pipeline = Pipeline("p").add_step(max, name="last", inputs=["b", "a", "c"])
    for name in "cab":
        pipeline.add_step(dict, name=name)
    assert numbered(pipeline) == ["c", "a", "b", "last (depends on: c, a, b)"]


def test_twenty_alike_are_told_one_by_one():
    assert numbered(chunks(20)) == [f"chunk_{i}" for i in range(20)]


def test_more_are_folded():
    assert numbered(chunks(10_000)) == ["chunk_0 ... chunk_9999 (10,000 x process_chunk)"]


def test_rows_of_chains_are_folded_too():
    pipeline = chunks(30)
    for i in range(30):
        pipeline.add_step(preprocess, name=f"clean_{i}", inputs=[f"chunk_{i}"])
    pipeline.add_step(len, inputs=["clean_*"])
    assert numbered(pipeline) == [
        "chunk_0 ... chunk_29 (30 x process_chunk)",
        "clean_0 ... clean_29 (30 x preprocess) (depends on: chunk_0 ... chunk_29)",
        "len (depends on: clean_0 ... clean_29)",
    ]


def test_steps_with_other_options_are_not_folded_in():
    pipeline = Pipeline("chunks")
    for i in range(50):
        pipeline.add_step(process_chunk, name=f"chunk_{i}", params={"chunk_id": i}, retry=i % 2)
    assert numbered(pipeline) == [
        "chunk_0 ... chunk_48 (25 x process_chunk)",
        "chunk_1 ... chunk_49 (25 x process_chunk)",
    ]


def test_conditions_that_a_loop_makes_are_alike():
    pipeline = Pipeline("chunks")
    for i in range(30):
        pipeline.add_step(process_chunk, name=f"chunk_{i}", params={"chunk_id": i}, condition=lambda chunk_id: chunk_id)
    pipeline.add_step(process_chunk, name="other", params={"chunk_id": 0}, condition=lambda chunk_id: not chunk_id)
    assert numbered(pipeline) == [
        "chunk_0 ... chunk_29 (30 x process_chunk, conditional)",
        "other (conditional)",
    ]


def test_what_waits_for_something_else_is_not_folded_in():
    pipeline = chunks(25).add_step(load_data)
    pipeline.add_step(process_chunk, name="other", params={"chunk_id": 1}, inputs={"extra": "load_data"})
    assert numbered(pipeline) == [
        "chunk_0 ... chunk_24 (25 x process_chunk)",
        "load_data",
        "other (depends on: load_data)",
    ]


def test_a_map_has_its_number_of_items():
    pipeline = Pipeline("p").map(len, range(1_000), name="sizes").map(len, ["a"])
    assert numbered(pipeline) == ["sizes (1,000 items of len)", "len (1 item)"]


def test_many_maps_are_folded():
    pipeline = Pipeline("p")
    for i in range(21):
        pipeline.map(len, ["a", "b"], name=f"m{i}")
    assert numbered(pipeline) == ["m0 ... m20 (21 x len, 2 items each)"]


def test_what_run_must_give_stands_above():
    pipeline = Pipeline("p").add_step(process_chunk, inputs=["raw"])
    text = pipeline.visualize()
    assert "Inputs of the run: raw\n" in text
    assert numbered(pipeline) == ["process_chunk (depends on: raw)"]


def test_a_cycle_is_shown_and_not_raised():
    pipeline = Pipeline("p").add_step(dict, name="first")
    for name, before in [("a", "b"), ("b", "a"), ("c", "b")]:
        pipeline.add_step(len, name=name, inputs=[before])
    text = pipeline.visualize()
    assert numbered(pipeline) == ["first"]
    assert "because of a cycle:\n  - a (depends on: b)\n  - b (depends on: a)\n  - c (depends on: b)" in text


def test_long_lists_are_cut():
    pipeline = Pipeline("p")
    for i in range(50):
        pipeline.add_step(lambda: 0, name=f"s{i}")
    pipeline.add_step(len, inputs=["s*"])
    assert numbered(pipeline)[-1].endswith("s18, s19 and 30 more)")


def test_an_empty_pipeline_is_drawn():
    assert Pipeline("none").visualize() == "Pipeline DAG: none\n\nStep Execution Order:"
    assert [bool(Pipeline("none").visualize(form)) for form in FORMATS] == [True] * 4


@pytest.mark.parametrize("form", ["png", "SVG", ""])
def test_an_unknown_format_is_an_error(form):
    with pytest.raises(ValueError, match="must be one of 'text', 'mermaid', 'dot', 'svg'"):
        Pipeline("p").visualize(form)


def test_a_format_is_a_string():
    with pytest.raises(TypeError, match="got int 1"):
        Pipeline("p").visualize(1)


@pytest.mark.parametrize("form", FORMATS)
def test_a_drawing_is_the_same_each_time(form):
    assert chunks(50).add_step(load_data).visualize(form) == chunks(50).add_step(load_data).visualize(form)


# -- labels that look like syntax


def test_text_stays_on_its_line():
    assert len(numbered(Pipeline("p").add_step(len, name=UGLY))) == 1


def test_mermaid_escapes_labels():
    lines = Pipeline("p").add_step(load_data, name=UGLY).visualize("mermaid").split("\n")
    assert len(lines) == 2
    label = re.fullmatch(r'    n0\["(.*)"\]', lines[1])
    assert label
    assert not set('"<>`$%\\') & set(label[1])
    assert re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label[1]) == UGLY.replace("\n", " ")


@pytest.mark.parametrize("name", ["1. first", "2) second", "- third", "* fourth", "+ fifth"])
def test_mermaid_sees_no_list_in_a_label(name):
    """Mermaid draws "Unsupported markdown: list" for what begins like one."""
    text = Pipeline("p").add_step(load_data, name=name).visualize("mermaid")
    assert name not in text
    assert name.replace(" ", "\N{NO-BREAK SPACE}") in text


def test_dot_escapes_labels():
    lines = Pipeline(UGLY).add_step(load_data, name=UGLY).visualize("dot").split("\n")
    label = re.fullmatch(r'    n0 \[label="((?:[^"\\]|\\.)*)"\];', lines[3])
    assert label
    assert re.sub(r"\\(.)", r"\1", label[1]) == UGLY.replace("\n", " ")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_svg_is_xml_whatever_a_name_holds(name):
    root = ET.fromstring(svg(GraphModel(name, (NodeBox(name, name),), 1)))
    assert root.tag == f"{SVG}svg"


# -- svg


def boxes(text: str) -> list[tuple[str, float, float, float, float]]:
    """Return title, left, top, right and bottom of each box."""
    found = []
    for group in ET.fromstring(text).iter(f"{SVG}g"):
        rect = group.findall(f"{SVG}rect")[-1].attrib
        left, top, width, height = (float(rect[key]) for key in ["x", "y", "width", "height"])
        found.append((group.findtext(f"{SVG}title"), left, top, left + width, top + height))
    return found


def test_svg_has_a_box_for_each_and_a_line_for_each_edge():
    text = Pipeline("p").add_steps([load_data, preprocess]).add_step(dict, name="alone").visualize("svg")
    assert [title for title, *_ in boxes(text)] == ["load_data", "preprocess", "alone: dict"]
    assert text.count('fill="none"') == 1


def test_svg_wraps_boxes_that_nothing_connects():
    pipeline = Pipeline("p").add_steps([load_data, preprocess])
    for k in range(20):
        pipeline.add_step(dict, name=f"a_step_with_quite_a_name_{k}", tags={"own": k})
    text = pipeline.visualize("svg")
    placed = boxes(text)
    assert float(re.search(r'viewBox="0 0 (\d+)', text)[1]) < 1_100
    assert len({top for name, _, top, *_ in placed}) > 3
    loaded = max(bottom for name, *_, bottom in placed if name in {"load_data", "preprocess"})
    assert all(top > loaded for name, _, top, *_ in placed if name.startswith("a_step"))


def test_svg_piles_what_is_folded():
    text = chunks(30).visualize("svg")
    assert [title for title, *_ in boxes(text)] == ["chunk_0 ... chunk_29: 30 x process_chunk"]
    assert text.count("<rect") == 2


@st.composite
def pictures(draw: st.DrawFn) -> GraphModel:
    count = draw(st.integers(1, 25))
    before = [draw(st.sets(st.integers(0, node - 1), max_size=3)) if node else set() for node in range(count)]
    names = [f"step_{node}" * draw(st.integers(1, 4)) for node in range(count)]
    return GraphModel(
        "p", tuple(NodeBox(name, name, tuple(sorted(b))) for name, b in zip(names, before, strict=True)), count
    )


@given(pictures())
def test_svg_boxes_are_apart_inside_and_below_what_they_wait_for(picture):
    text = svg(picture)
    placed, (width, height) = boxes(text), re.search(r'viewBox="0 0 (\d+) (\d+)"', text).groups()
    for number, (_, left, top, right, bottom) in enumerate(placed):
        assert 0 <= left < right <= float(width)
        assert 0 <= top < bottom <= float(height)
        for before in picture.boxes[number].dependencies:
            assert placed[before][4] < top
        for _, other_left, other_top, other_right, other_bottom in placed[:number]:
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top


def test_a_ladder_is_drawn_without_crossings():
    edges = [(0, 3), (1, 2), (2, 5), (3, 4)]
    found = layout([50.0] * 6, edges, 10.0)
    assert (found.x[0] < found.x[1]) == (found.x[3] < found.x[2]) == (found.x[4] < found.x[5])


# -- decisions, conditions, joins


def accurate(measure):
    return measure > 0.9


def release() -> Pipeline:
    """A decision with two branches and a join, and steps with conditions."""
    pipeline = Pipeline("release").add_step(lambda: 0.93, name="measure")
    pipeline.add_step(len, name="ship", inputs=["measure"], condition=accurate)
    pipeline.add_step(len, name="warn", inputs=["measure"], skip_if=lambda measure: measure > 0.9)
    deploy, retrain = step(lambda: "deployed", name="deploy"), step(lambda: "trained", name="retrain")
    pipeline.add_control_flow(If(lambda ctx: ctx["measure"] > 0.9, deploy, retrain, after="measure", name="good"))
    return pipeline.add_step(lambda done: done[0], name="report", inputs={"done": ["deploy", "retrain"]}, run_if="any")


def switch() -> Pipeline:
    cases = Switch(lambda ctx: "en", name="language")
    for value in ("en", "fr", 'the "longest" of all the answers'):
        cases.case(value, step(lambda: 1, name=f"case_{value[:2]}"))
    return Pipeline("words").add_control_flow(cases.default(step(lambda: 2, name="other")))


def test_text_says_on_what_a_step_depends_beside_steps():
    assert numbered(release()) == [
        "measure",
        "ship (if accurate) (depends on: measure)",
        "warn (conditional) (depends on: measure)",
        "good (decision) (depends on: measure)",
        "deploy (depends on: good is True)",
        "retrain (depends on: good is False)",
        "report (join) (depends on: deploy, retrain)",
    ]
    assert numbered(switch())[1:] == [
        "case_en (depends on: language is 'en')",
        "case_fr (depends on: language is 'fr')",
        "case_th (depends on: language is 'the \"longest\" of all the answers')",
        "other (depends on: language is anything else)",
    ]


def test_several_conditions_are_named():
    pipeline = Pipeline("p").add_step(lambda: 1, name="measure")
    pipeline.add_step(len, inputs=["measure"], condition=accurate, skip_if=accurate, run_if="any")
    pipeline.map(len, ["a"], name="sizes", condition=bool)
    assert numbered(pipeline)[1:] == [
        "len (if accurate, unless accurate, join) (depends on: measure)",
        "sizes (1 item of len, if bool)",
    ]


def test_mermaid_has_diamonds_answers_and_dashes():
    lines = release().visualize("mermaid").split("\n")
    assert '    n3{"good"}' in lines
    assert '    n3 -->|"True"| n4' in lines
    assert [line for line in lines if ":::optional" in line] == [
        '    n1["ship<br/>if accurate"]:::optional',
        '    n2["warn<br/>conditional"]:::optional',
        '    n4["deploy"]:::optional',
        '    n5["retrain"]:::optional',
    ]
    assert lines[-1] == "    classDef optional stroke-dasharray: 5 4"
    assert "    n0 -->|\"'the #34;longest#34; of all the answers'\"| n3" in switch().visualize("mermaid").split("\n")


def test_dot_has_diamonds_answers_and_dashes():
    lines = release().visualize("dot").split("\n")
    assert '    n3 [label="good", shape=diamond, style=solid];' in lines
    assert '    n3 -> n4 [label="True"];' in lines
    assert '    n1 [label="ship\\nif accurate", style="rounded,dashed"];' in lines
    assert '    n0 -> n3 [label="\'the \\"longest\\" of all the answers\'"];' in switch().visualize("dot").split("\n")


def test_svg_has_a_shape_for_decisions_and_their_answers():
    root = ET.fromstring(release().visualize("svg"))
    assert [
        group.findtext(f"{SVG}title") for group in root.iter(f"{SVG}g") if group.find(f"{SVG}polygon") is not None
    ] == ["good: decision"]
    assert [text.text for text in root.findall(f"{SVG}text")] == ["True", "False"]


def test_svg_answers_are_apart_and_inside():
    text = switch().visualize("svg")
    ends = sorted(
        (float(rect.attrib["x"]), float(rect.attrib["x"]) + float(rect.attrib["width"]))
        for rect in ET.fromstring(text).findall(f"{SVG}rect")
    )
    width = float(re.search(r'viewBox="0 0 (\d+)', text)[1])
    assert len(ends) == 4
    assert ends[0][0] >= 0
    assert ends[-1][1] <= width
    assert all(one[1] < other[0] for one, other in pairwise(ends))


def test_a_decision_of_a_sub_pipeline_has_its_answers():
    pipeline = Pipeline("all").add_sub_pipeline(release())
    assert "deploy (depends on: release.good is True)" in pipeline.visualize().replace("release.deploy", "deploy")


# -- notebooks


def test_a_notebook_gets_the_picture_and_the_text():
    pipeline = Pipeline("p").add_steps([load_data, preprocess])
    bundle = pipeline._repr_mimebundle_(include=None, exclude=None)
    assert bundle == {"text/plain": pipeline.visualize(), "image/svg+xml": pipeline.visualize("svg")}
    assert pipeline.dag._repr_mimebundle_() == bundle


def test_a_notebook_gets_lines_of_a_large_graph():
    pipeline = Pipeline("p")
    for i in range(1_000):
        pipeline.add_step(lambda: 0, name=f"s{i}")
    bundle = pipeline._repr_mimebundle_()
    assert list(bundle) == ["text/plain"]
    assert bundle["text/plain"].endswith("... and 803 more lines")


# -- folding


def test_folding_keeps_a_graph_acyclic():
    groups = fold("aabb", [[], [2], [], [0]], most=0)
    assert groups == [[0], [2], [1], [3]]


@given(pictures(), st.integers(0, 3))
def test_every_node_is_in_one_group_and_groups_have_an_order(picture, most):
    before = [list(box.dependencies) for box in picture.boxes]
    groups = fold([node % 2 for node in range(len(before))], before, most)
    assert sorted(node for nodes in groups for node in nodes) == list(range(len(before)))
    group_of = {node: at for at, nodes in enumerate(groups) for node in nodes}
    folded = [sorted({group_of[each] for node in nodes for each in before[node]}) for nodes in groups]
    assert len(add_order(folded)) == len(groups)


# -- sub-pipelines


def nested() -> Pipeline:
    inner = Pipeline("in").add_steps([load_data, preprocess])
    middle = Pipeline("mid").add_step(load_data, name="first").add_sub_pipeline(inner)
    return Pipeline("whole").add_sub_pipeline(middle).add_step(len, name="last", inputs=["mid.in.preprocess"])


def test_mermaid_has_a_subgraph_for_each_sub_pipeline():
    assert nested().visualize("mermaid").split("\n") == [
        "flowchart TD",
        '    subgraph g0["mid"]',
        '        n0["first"]',
        '        subgraph g1["in"]',
        '            n1["load_data"]',
        '            n2["preprocess"]',
        "        end",
        "    end",
        '    n3["last"]',
        "    n1 --> n2",
        "    n2 --> n3",
    ]


def test_dot_has_a_cluster_for_each_sub_pipeline():
    lines = [line.strip() for line in nested().visualize("dot").split("\n")]
    assert [line for line in lines if line.startswith("subgraph")] == ["subgraph cluster_0 {", "subgraph cluster_1 {"]
    assert 'label="in"; style=rounded; color=gray; fontname="Helvetica";' in lines
    assert lines.count("}") == 3


def framed(pipeline: Pipeline) -> dict[str | None, list[tuple[float, float, float, float]]]:
    """Return left, top, right, bottom of the frames, and of the boxes by their names."""
    found: dict[str | None, list[tuple[float, float, float, float]]] = {}
    root = ET.fromstring(pipeline.visualize("svg"))
    frames = [each for each in root if each.tag == f"{SVG}rect"]
    boxes = [(each.find(f"{SVG}title").text, each.find(f"{SVG}rect")) for each in root.iter(f"{SVG}g")]
    for name, rect in [(None, each) for each in frames] + boxes:
        x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        found.setdefault(name, []).append((x, y, x + width, y + height))
    return found


def test_svg_frames_a_sub_pipeline_that_stands_alone():
    found = framed(nested())
    outer, inner = found.pop(None)
    assert inside(inner, outer)
    assert outer[:2] >= (0, 0)
    assert {name.partition(":")[0] for name, (box,) in found.items() if inside(box, inner)} == {
        "mid.in.load_data",
        "mid.in.preprocess",
    }
    assert not any(inside(box, outer) for name, (box,) in found.items() if name.startswith("last"))
    assert "subgraph" not in Pipeline("flat").add_step(load_data).visualize("mermaid")


def inside(box: tuple[float, ...], frame: tuple[float, ...]) -> bool:
    return all(a >= b for a, b in zip(box[:2], frame[:2], strict=True)) and all(
        a <= b for a, b in zip(box[2:], frame[2:], strict=True)
    )


def test_svg_frames_nothing_that_others_stand_between():
    child = Pipeline("child").add_step(load_data).add_step(len, name="end", inputs=["between"])
    whole = Pipeline("whole").add_sub_pipeline(child).add_step(preprocess, name="between", inputs=["child.load_data"])
    assert None not in framed(whole)


def test_like_steps_of_two_sub_pipelines_are_two_boxes():
    whole = Pipeline("whole").add_sub_pipeline(chunks(30)).add_sub_pipeline(chunks(30), name="again")
    assert numbered(whole) == [
        "chunks.chunk_0 ... chunks.chunk_29 (30 x process_chunk)",
        "again.chunk_0 ... again.chunk_29 (30 x process_chunk)",
    ]
