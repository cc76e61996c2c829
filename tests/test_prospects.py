"""What a dry run says of an unfinished run: as the run that follows it says, and nothing is touched."""

from __future__ import annotations

import pytest

from flowyml import Pipeline

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


def test_what_has_changed_would_run_again(nightly, capsys):
    line = told(capsys, nightly(rows=2), resume="last")
    assert "run again: 'load' (argument 'rows' has changed) and 1 step that depends on what runs again" in line
    assert line == f"Continues run r1: {nightly(rows=2).run(resume='last').resumed}."


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
