"""Section 1.11 of the table of what 2.2.1 does: probes J1 and J4, inverted; J2 and J3: test_j_resuming.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flowyml import Pipeline, PipelineCheckpoint, step

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_J1_a_checkpoint_inside_a_step_needs_no_arguments(folder):
    @step(retry=1)
    def training(epochs: int) -> list[int]:
        checkpoint = PipelineCheckpoint()
        done = checkpoint.load("epoch") if checkpoint.exists("epoch") else 0
        for epoch in range(done, epochs):
            if epoch == 2 and done == 0:
                raise OSError("power cut")
            checkpoint.save("epoch", epoch + 1)
        return [done, epochs]

    assert Pipeline("p").add_step(training, params={"epochs": 4}).run()["training"] == [2, 4]


def test_J4_methods_have_the_documented_signatures(folder):
    checkpoint = PipelineCheckpoint(run_id="run_123")
    assert not checkpoint.exists()
    checkpoint.save_step_state("step1", {"rows": 3})
    checkpoint.save_step_state("step2", [1, 2])
    again = PipelineCheckpoint(run_id="run_123")
    assert again.exists()
    assert again.load()["last_completed_step"] == again.resume_point() == "step2"
    assert again.load_step_state("step1") == {"rows": 3}
    again.clear()
    assert not again.exists()
