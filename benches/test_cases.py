"""Every measurement of every group: `run.py` has them run and reads the figures from `extra_info`."""

from __future__ import annotations

from dataclasses import asdict

from harness import measure


def test_case(job, data_for, benchmark):
    """One case in one fresh process; the time that pytest-benchmark keeps is that of the whole process."""
    figures = benchmark.pedantic(measure, args=(job, data_for(job.group, job.size)), rounds=1, iterations=1)
    benchmark.extra_info.update(job=asdict(job), figures=figures)
