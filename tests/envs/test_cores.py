"""Tests of `recurrent_rl.envs.cores`: what a process may use, not what the machine has."""

import os
from pathlib import Path

import pytest

from recurrent_rl.envs import cores
from recurrent_rl.envs.cores import available_cores, container_cores


@pytest.mark.parametrize(
    ("files", "given"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({}, None),
    ],
)
def test_the_share_of_a_container_is_read_from_either_kind_of_file(
    files: dict[str, str], given: float | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert container_cores(tmp_path) == given


@pytest.mark.parametrize(("given", "expected"), [(None, 8), (0.5, 1), (1.5, 2), (64.0, 8)])
def test_there_are_no_more_cores_than_the_container_or_the_process_is_given(
    given: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "container_cores", lambda: given)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_cores() == expected
