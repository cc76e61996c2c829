"""Every measurement of every group: `run.py` has them run and reads the figures from `extra_info`."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from harness import calmest, lacking


def test_case(job, data_for, benchmark, pytestconfig):
    """One case in one fresh process; the time that pytest-benchmark keeps is that of the whole process."""
    reason = lacking(job)
    if reason is not None:
        pytest.skip(f"{job.case}: {reason}")
    arguments = (job, data_for(job.group, job.size), pytestconfig.getoption("tries"))
    figures = benchmark.pedantic(calmest, args=arguments, rounds=1, iterations=1)
    benchmark.extra_info.update(job=asdict(job), figures=figures)
