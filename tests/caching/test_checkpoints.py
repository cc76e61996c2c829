"""PipelineCheckpoint, on every executor: what a step puts aside is there when it runs again, until it is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowyml import (
    FlowymlError,
    ParallelExecutor,
    Pipeline,
    PipelineCheckpoint,
    SerializationError,
    StoreError,
    get_context,
)


def train(epochs: int, stop: int = -1, folder: str = "") -> list[int]:
    checkpoint = PipelineCheckpoint()
    done = checkpoint.load("done") if checkpoint.exists("done") else []
    for epoch in range(len(done), epochs):
        if epoch == stop and get_context().attempt == 1:
            raise OSError("power cut")
        done.append(epoch)
        checkpoint.save("done", done)
        with (Path(folder) / "log").open("a") as file:
            file.write(f"{get_context().step_name} {epoch}\n")
    return done


def pipeline(tmp_path: Path, **options: Any) -> Pipeline:
    return Pipeline("p", context={"folder": str(tmp_path)}, checkpoint_dir=tmp_path / "runs", **options)


def ran(tmp_path: Path) -> list[str]:
    return sorted((tmp_path / "log").read_text().splitlines())


def left(tmp_path: Path) -> list[str]:
    steps = tmp_path / "runs" / "steps"
    return sorted(str(path.relative_to(steps)) for path in steps.glob("*/*/*"))


def test_the_next_attempt_goes_on_where_the_last_one_stopped(tmp_path, executor):
    result = pipeline(tmp_path).add_step(train, params={"epochs": 4, "stop": 2}, retry=1).run(executor=executor)
    assert (result["train"], ran(tmp_path)) == ([0, 1, 2, 3], [f"train {epoch}" for epoch in range(4)])
    assert left(tmp_path) == []


@pytest.mark.parametrize("journal", [False, True])
def test_the_next_run_goes_on_where_the_last_one_stopped(tmp_path, executor, journal):
    def run(stop: int) -> Any:
        made = pipeline(tmp_path, enable_checkpointing=journal)
        return made.add_step(train, params={"epochs": 4, "stop": stop}).run(executor=executor)

    assert not run(2).success
    assert left(tmp_path) == ["p/train/.gitignore", "p/train/done"]
    assert run(-1)["train"] == [0, 1, 2, 3]
    assert ran(tmp_path) == [f"train {epoch}" for epoch in range(4)]
    assert left(tmp_path) == []
    run(-1)
    assert len(ran(tmp_path)) == 8  # it was done: it begins anew


def test_each_item_and_each_step_has_its_own(tmp_path, executor):
    def each(epochs: int, folder: str) -> list[int]:
        return train(epochs, 1 if epochs == 2 else -1, folder)

    made = pipeline(tmp_path).map(each, [1, 2, 3], name="a/b").add_step(train, "other", {"epochs": 2, "stop": 1})
    result = made.run(executor=executor)
    assert [str(item.state) for item in result.step_results["a/b"].items] == ["success", "failed", "success"]
    assert [name for name in left(tmp_path) if "git" not in name] == ["p/a%2Fb[1]/done", "p/other/done"]


def crash(folder: str) -> str:
    checkpoint = PipelineCheckpoint()
    if not checkpoint.exists("half"):
        checkpoint.save("half", np.arange(1000))
        os._exit(3)
    return f"{checkpoint.load('half').sum()} of {checkpoint.names()}"


def test_a_crash_costs_nothing_that_was_put_aside(tmp_path):
    with ParallelExecutor(1) as executor:
        assert pipeline(tmp_path).add_step(crash, retry=1).run(executor=executor)["crash"] == "499500 of ['half']"


def test_what_a_step_can_do_with_it(tmp_path, executor):
    def step(folder: str) -> Any:
        checkpoint = PipelineCheckpoint()
        assert repr(checkpoint) == "<PipelineCheckpoint of this step: nothing saved>"
        for name in ("epoch_1", "epoch_2", "../up", ".", "x" * 300, "ü"):
            checkpoint.save(name, name)
            assert checkpoint.exists(name)
            assert checkpoint.load(name) == name
        checkpoint.save("epoch_1", None)
        assert (checkpoint.load("epoch_1"), len(checkpoint.names()), checkpoint.exists()) == (None, 6, True)
        with pytest.raises(KeyError, match="step 'step' has saved nothing under 'epohc_2'; did you mean 'epoch_2'"):
            checkpoint.load("epohc_2")
        with open("/dev/null") as file, pytest.raises(SerializationError, match="cannot be pickled"):  # noqa: PTH123
            checkpoint.save("file", file)
        for call in (checkpoint.load, checkpoint.resume_point, checkpoint.get_completed_steps):
            with pytest.raises(FlowymlError, match=r"is for the checkpoint of a run: PipelineCheckpoint\(run_id=...\)"):
                call()
        checkpoint.clear()
        return checkpoint.names(), checkpoint.exists()

    assert pipeline(tmp_path).add_step(step).run(executor=executor).step_results["step"].output == ([], False)
    assert not (tmp_path / "up").exists()


def test_a_damaged_state_is_never_served(tmp_path):
    def step(folder: str) -> None:
        checkpoint = PipelineCheckpoint()
        checkpoint.save("state", [1, 2, 3])
        (path,) = (path for path in (Path(folder) / "runs").rglob("state") if path.is_file())
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        checkpoint.load("state")

    result = pipeline(tmp_path).add_step(step).run()
    with pytest.raises(StoreError, match="state is damaged: its content is not what was saved"):
        raise result.step_results["step"].exception


def test_outside_a_step_it_needs_a_run():
    with pytest.raises(FlowymlError, match=r"none is running here; use PipelineCheckpoint\(run_id=...\) outside"):
        PipelineCheckpoint()


def test_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def step() -> None:
        PipelineCheckpoint().save("a", 1)
        raise OSError("no")

    Pipeline("p").add_step(step).run()
    assert (tmp_path / ".flowyml" / "checkpoints" / "steps" / "p" / "step" / "a").exists()


# -- of a run


def test_states_of_a_run_by_step(tmp_path):
    checkpoint = PipelineCheckpoint(run_id="run_1", checkpoint_dir=tmp_path)
    assert (checkpoint.exists(), checkpoint.resume_point(), checkpoint.get_completed_steps()) == (False, None, [])
    checkpoint.save_step_state("load", {"rows": 3})
    checkpoint.save_step_state("train", [1], metadata={"epoch": 5})
    again = PipelineCheckpoint(run_id="run_1", checkpoint_dir=tmp_path)
    assert (again.exists(), again.resume_point()) == (True, "train")
    assert (again.load_step_state("load"), again.load_step_state("train")) == ({"rows": 3}, [1])
    known = again.load()
    assert known.pop("timestamp")
    assert known == {
        "run_id": "run_1",
        "completed_steps": ["load", "train"],
        "last_completed_step": "train",
        "metadata": {"epoch": 5},
    }
    again.save({"custom": 7})
    assert again.load()["custom"] == 7
    with pytest.raises(KeyError, match="run 'run_1' has finished no step 'laod'; did you mean 'load'"):
        again.load_step_state("laod")
    again.clear()
    assert (again.exists(), list(tmp_path.glob("run_1"))) == (False, [])


def test_what_the_journal_of_a_run_has(tmp_path, executor):
    def load() -> dict[str, Any]:
        return {"array": np.arange(5)}

    def parts() -> tuple[int, str]:
        return 1, "x" * 100_000

    def item(i: int) -> list[int]:
        return [1 // (i - 2)]

    made = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path).add_step(load)
    made.add_step(parts, outputs=["a", "b"]).map(item, [1, 2, 3]).add_step(load, "never", condition=lambda: False)
    made.run(executor=executor, run_id="r")
    checkpoint = PipelineCheckpoint("r", tmp_path)
    before = (tmp_path / "r" / "journal").read_bytes()
    assert checkpoint.exists()
    assert sorted(checkpoint.get_completed_steps()) == ["item", "load", "parts"]
    assert checkpoint.resume_point() in checkpoint.get_completed_steps()
    assert checkpoint.load_step_state("load")["array"].sum() == 10
    assert checkpoint.load_step_state("parts") == (1, "x" * 100_000)
    assert sorted(checkpoint.load_step_state("item")) == [[-1], [1]]
    assert (tmp_path / "r" / "journal").read_bytes() == before
    checkpoint.clear()
    with pytest.raises(ValueError, match="there is no unfinished run 'r'"):
        made.run(resume="r")


def test_a_run_that_is_going_on_is_looked_at_and_not_cleared(tmp_path):
    def look() -> list[str]:
        checkpoint = PipelineCheckpoint("r", tmp_path)
        with pytest.raises(StoreError, match="is in use: run 'r' is executing now"):
            checkpoint.clear()
        return checkpoint.get_completed_steps()

    made = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path).add_step(lambda: 1, name="first")
    assert made.add_step(look, after=["first"]).run(run_id="r")["look"] == ["first"]
