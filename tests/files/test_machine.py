"""Cores and memory are those that the process may use."""

import os
from pathlib import Path

import pytest

from pidgan.files import machine as resources


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no affinity"
)
def test_cores_are_those_of_the_affinity() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert resources.available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert resources.available_cores() == len(allowed)


def test_memory_is_bounded_by_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = resources.available_memory()
    assert free > 2**20
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(resources, "MEMORY_LIMITS", (limit,))
    limit.write_text("1000000\n")
    assert resources.available_memory() == 1_000_000
    limit.write_text("max\n")
    assert resources.available_memory() > 1_000_000
