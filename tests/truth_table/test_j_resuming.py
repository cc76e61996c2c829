"""Probes J1 to J4: runs that are continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline


def a(folder: str) -> int:
    with Path(folder, "ran").open("a") as file:
        file.write("a")
    return 1


def b(a: int, folder: str) -> int:
    with Path(folder, "ran").open("a") as file:
        file.write("b")
    if not Path(folder, "repaired").exists():
        raise OSError("not yet")
    return a + 1


def failing(folder: Path) -> Pipeline:
    made = Pipeline("p", enable_checkpointing=True, checkpoint_dir=folder / "journals", context={"folder": str(folder)})
    return made.add_steps([a, b])


def test_J2_the_next_run_continues_one_that_failed_and_says_so(
    executor: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = failing(tmp_path).run(executor=executor)
    (tmp_path / "repaired").touch()
    second = failing(tmp_path).run(executor=executor)
    assert (first.success, second["b"], (tmp_path / "ran").read_text()) == (False, 2, "abb")
    assert (second.run_id, str(second.step_results["a"].state)) == (first.run_id, "cached")
    assert f"continues run {first.run_id}" in caplog.text


def test_J2_a_run_starts_afresh_on_request(executor: Any, tmp_path: Path) -> None:
    failing(tmp_path).run(executor=executor)
    (tmp_path / "repaired").touch()
    failing(tmp_path).run(executor=executor, resume=False)
    assert (tmp_path / "ran").read_text() == "abab"


def test_J3_a_run_is_continued_by_its_id(executor: Any, tmp_path: Path) -> None:
    first = failing(tmp_path).run(executor=executor)
    (tmp_path / "repaired").touch()
    second = failing(tmp_path).run(executor=executor, resume=first.run_id)
    assert dict(second.outputs) == {"a": 1, "b": 2}
    assert (tmp_path / "ran").read_text() == "abb"


def test_J3_rerun_continues_a_run_from_a_step_on(executor: Any, tmp_path: Path) -> None:
    def pipeline() -> Pipeline:
        return failing(tmp_path).add_step(len, "beside", {"obj": "abc"})

    first = pipeline().run(executor=executor)
    with pytest.raises(ValueError, match=r"from_step names no step or sub-pipeline: 'aa'; did you mean 'a'\?"):
        pipeline().rerun(first.run_id, from_step="aa", executor=executor)
    (tmp_path / "repaired").touch()
    second = pipeline().rerun(first.run_id, from_step="a", executor=executor)
    assert (second.run_id, dict(second.outputs)) == (first.run_id, {"a": 1, "b": 2, "beside": 3})
    assert [str(step.state) for step in second.step_results.values()] == ["success", "success", "cached"]
    assert (tmp_path / "ran").read_text() == "abab"


def test_J3_rerun_without_a_step_continues_what_is_left(executor: Any, tmp_path: Path) -> None:
    first = failing(tmp_path).run(executor=executor)
    (tmp_path / "repaired").touch()
    second = failing(tmp_path).rerun(first.run_id, executor=executor, raise_on_failure=True)
    assert (dict(second.outputs), (tmp_path / "ran").read_text()) == ({"a": 1, "b": 2}, "abb")


def test_J_row_a_plain_run_keeps_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Pipeline("p", context={"folder": str(tmp_path)}).add_steps([a, b]).run()
    assert [path.name for path in tmp_path.iterdir()] == ["ran"]
