"""What every test starts from: one torch thread, fixed seeds, reproducible properties.

Tests run in several processes at once (pytest-xdist), which must all collect the same tests in the
same order, whatever their PYTHONHASHSEED.
"""

import gc
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import types
from collections.abc import Generator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from recurrent_rl.cli import seeds
from recurrent_rl.envs.worker_process import Worker
from recurrent_rl.evolution import process_pool

# One thread, so that sums have one order and results do not depend on the machine's core count;
# the networks of the tests are too small to gain from more.
torch.set_num_threads(1)

# A process that a fork server starts finds imported what takes seconds: the package with torch, and
# the part of torch that the first optimiser imports.
multiprocessing.set_forkserver_preload(["recurrent_rl", "torch._dynamo"])

# "ci", the default, draws the same examples in every run: a red test stays red until it is fixed.
# HYPOTHESIS_PROFILE=explore draws new ones, and more of them. No deadline in either: the first
# call of a torch kernel is slower than all that follow, which is no fault of the test.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Seed the global generators, so that no test depends on those that ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that libraries use behind our back
    # Not torch.manual_seed, which formats three tracebacks, for devices that are not there.
    torch.default_generator.manual_seed(0)


@pytest.fixture
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers of populations, and seeds, come from the fork server: as spawned, but sooner."""
    forkserver.ensure_running()  # so that tests that count their children do not count it

    def start(method: str, *args: Any, **options: Any) -> Worker:
        assert method == "spawn"
        return Worker("forkserver", *args, **options)

    monkeypatch.setattr(process_pool, "Worker", start)
    server = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(seeds, "mp", types.SimpleNamespace(get_context={"spawn": server}.get))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what stays: half a million objects, over and over again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse parameters in a set, whose order differs from process to process."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        if any(
            isinstance(x, set | frozenset) for x in (*mark.args[1:2], mark.kwargs.get("argvalues"))
        ):
            raise pytest.UsageError(
                f"{metafunc.definition.nodeid}: expected parameters in an order, got a set; "
                "pass sorted(...)"
            )


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages as users get them: built as a wheel, and installed from it."""
    root, folder = Path(__file__).parents[1], tmp_path_factory.mktemp("installed")
    # Built from a copy: a build leaves files beside the source, and takes up what an earlier one
    # left there, which would hide that a folder is missing.
    source, wheels, target = folder / "source", folder / "wheels", folder / "site"
    for name in ("recurrent_rl", "wrappers"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)

    def pip(*arguments: object) -> None:
        command = [sys.executable, "-m", "pip", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source)
    (wheel,) = wheels.glob("recurrent_rl-*.whl")
    pip("install", "--no-deps", "--no-index", "--no-compile", "--target", target, wheel)
    return target
