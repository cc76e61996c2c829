"""What a dry run says of an unfinished run: as the run that follows it says, and nothing is touched."""

from __future__ import annotations

import pytest

from flowyml import Pipeline, dynamic

TROUBLE = {"disk": True}


def load(rows):
    return list(range(rows))


def square(x):
    return x * x


def save(square):
    if TROUBLE["disk"]:
        raise OSError("no space left")
    return sum(square)


@pytest.fixture
def nightly(tmp_path):
    """A pipeline of which a run has failed at its last step."""
    TROUBLE["disk"] = True

    def made(rows=3, name="nightly"):
        pipeline = Pipeline(name, enable_checkpointing=True, checkpoint_dir=tmp_path)
        return pipeline.add_step(load, params={"rows": rows}).map(square, over="load").add_step(save)

    made().run(run_id="r1")
    TROUBLE["disk"] = False
    return made


def told(capsys, pipeline, **arguments) -> str:
    capsys.readouterr()
    pipeline.run(dry_run=True, **arguments)
    return capsys.readouterr().out.splitlines()[-1]


def files(folder) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_what_is_finished_would_be_taken_over(nightly, capsys, tmp_path):
    before = files(tmp_path)
    line = told(capsys, nightly())
    assert line == "Continues run r1: 1 finished step and 3 finished items taken over."
    assert files(tmp_path) == before
    assert line == f"Continues run r1: {nightly().run().resumed}."


def test_what_has_changed_would_run_again(nightly, capsys, caplog):
    line = told(capsys, nightly(rows=2), resume="last")
    assert "run again: 'load' (argument 'rows' has changed) and 1 step that depends on what runs again" in line
    result = nightly(rows=2).run(resume="last")
    assert (
        f"pipeline 'nightly' continues run r1: {line.removeprefix('Continues run r1: ')}" == f"{caplog.messages[-1]}."
    )
    assert result.resumed == "2 finished items taken over; runs again: 'load' (argument 'rows' has changed)"


def test_explain_says_what_would_run_again_and_why(nightly):
    """Of each step: whether it is taken over."""
    pipeline = nightly()
    assert pipeline.explain("load").resume == "taken over, from run r1"
    assert "  Resume: runs: it had not ended, from run r1" in str(pipeline.explain("save"))


def test_explain_says_nothing_where_run_has_to_give_more(nightly):
    pipeline = nightly().add_step(lambda unknown: unknown, name="open")
    assert pipeline.explain("load").resume is None


def test_explain_compares_code_and_arguments(tmp_path):
    def run(made, **params):
        pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path)
        pipeline.add_step(lambda: 1, name="first").add_step(made, "second", params)
        return pipeline.add_step(lambda second: 1 / 0, name="third")

    run(lambda n: n, n=1).run()
    assert run(lambda n: n, n=1).explain("second").resume.startswith("taken over")
    assert run(lambda n: n, n=2).explain("second").resume.startswith("runs again: argument 'n' has changed, from run")
    assert run(lambda n: n + 1, n=1).explain("second").resume.startswith("runs again: its code has changed")


def test_a_run_that_nobody_asked_for_has_to_have_something_in_common(nightly, capsys):
    assert told(capsys, nightly(rows=2)).startswith("Dry run: ")


@pytest.mark.parametrize("arguments", [{"resume": False}, {}])
def test_nothing_is_said_where_a_run_begins_anew(nightly, capsys, arguments):
    pipeline = nightly() if arguments else nightly(name="other")
    assert told(capsys, pipeline, **arguments).startswith("Dry run: ")


def test_a_run_that_is_not_there_is_an_error(nightly):
    with pytest.raises(ValueError, match="there is no unfinished run 'r2'"):
        nightly().run(dry_run=True, resume="r2")


def test_a_damaged_journal_is_left_alone(nightly, capsys, tmp_path):
    (tmp_path / "r1" / "journal").write_bytes(b"nothing of the kind, but long enough")
    assert told(capsys, nightly()).startswith("Dry run: ")


def test_a_dynamic_step_is_no_reason(tmp_path, folder):
    """It says once more which steps there are, and those behind it are taken over all the same."""

    @dynamic
    def grow(first):
        return Pipeline("inner").add_step(lambda: first + 1, name="inner")

    def run():
        pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path).add_step(lambda: 1, name="first")
        pipeline.add_step(grow).add_step(lambda grow: grow * 2, name="behind")
        return pipeline.add_step(lambda behind: 1 / TROUBLE["zero"], name="last")

    TROUBLE["zero"] = 0
    run().run()
    assert run().explain("behind").resume.startswith("not known before the dynamic step")
    TROUBLE["zero"] = 1
    again = run().run()
    assert again.resumed == "3 finished steps taken over"
    assert [name for name, each in again.step_results.items() if each.cached] == ["first", "grow.inner", "behind"]


@pytest.mark.parametrize("keep", ["all", "leaves"])
def test_what_came_with_a_dynamic_step_is_told_at_the_end(tmp_path, capsys, caplog, keep):
    def run(factor):
        inner = Pipeline("inner").add_step(lambda: 1, name="same").add_step(lambda same: same * factor, name="changed")
        inner.add_step(lambda changed: -changed, name="behind").add_step(lambda behind: 1 / 0, name="last")
        pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path)
        return pipeline.add_step(dynamic(lambda: inner), name="grow").add_step(lambda: factor, name="beside")

    run(1).run(keep=keep)
    begins = "0 finished steps taken over; runs again: 'beside' (closure value 'factor' has changed)"
    begins += "; what comes with or after a dynamic step, or after what had failed, is looked up as it comes"
    assert told(capsys, run(2), resume="last").endswith(f"{begins}.")
    result = run(2).run(resume="last", keep=keep)
    assert any(each.endswith(begins) for each in caplog.messages)
    assert result.resumed == (
        "1 finished step taken over; run again: 'beside' (closure value 'factor' has changed), "
        "'grow.changed' (closure value 'factor' has changed) and 1 step that depends on what runs again"
    )
    assert "grow.changed" in result.summary()
