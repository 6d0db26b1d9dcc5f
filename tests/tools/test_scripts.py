"""The tutorials and the benchmarks run, at reduced size, as a user would start them.

Most run in this process, which has imported torch already; so do the jobs that tutorials give to
processes of their own, after the way through pickle that these would take. One tutorial and one
benchmark are started as they are.
"""

import concurrent.futures
import json
import os
import pickle
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> str:
    """Run a script of the repository in another folder; its output."""
    environment = {**os.environ, "CI": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


Script = Callable[..., str]


@pytest.fixture
def script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Script:
    """A function that runs a script of the repository in another folder and gives its output."""
    monkeypatch.chdir(tmp_path)

    def run_here(name: str, *arguments: str) -> str:
        script = str(ROOT / name)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        capsys.readouterr()
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as done:  # as those end that say whether they found what they looked for
            assert not done.code  # noqa: PT017 - an end, no error
        return capsys.readouterr().out

    return run_here


class Here(concurrent.futures.Executor):
    """Runs jobs at once, in this process, which they reach by pickle as they would another one."""

    def __init__(self, max_workers: int, mp_context: Any) -> None:
        assert mp_context.get_start_method() == "spawn"  # torch's threads survive no fork

    def submit(self, function: Any, /, *args: Any, **options: Any) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        function, args, options = pickle.loads(pickle.dumps((function, args, options)))
        future.set_result(pickle.loads(pickle.dumps(function(*args, **options))))
        return future


@pytest.fixture
def tutorial(script: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    """The same for a tutorial, at its small size."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Here)
    return lambda name, *arguments: script(f"tutorials/{name}", *arguments)


@pytest.fixture
def benchmark(script: Script) -> Script:
    """The same for a benchmark."""
    return lambda name, *arguments: script(f"benchmarks/{name}", *arguments)


@pytest.mark.slow
def test_tutorial_writes_what_it_promises(tmp_path):
    pytest.importorskip("matplotlib")
    out = run(tmp_path, str(ROOT / "tutorials" / "pendulum.py"), "--seed", "1")
    folder = tmp_path / "runs" / "pendulum"
    assert (folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "agent.pt").exists()
    for name in ("recurrent", "feed-forward"):
        assert list((folder / name).glob("events.out.tfevents.*"))
        header = (folder / name / "metrics.csv").read_text().splitlines()[0]
        assert "train/return" in header
        assert "learn/policy_loss" in header
    assert "with memory (LSTM)" in out
    assert "without memory (feed-forward)" in out
    assert "One episode by hand" in out


@pytest.mark.slow
def test_evolution_tutorial_writes_what_it_promises(tutorial, tmp_path):
    pytest.importorskip("matplotlib")
    out = tutorial("pendulum_evolution.py", "--seed", "1", "--steps", "768", "--workers", "1")
    folder = tmp_path / "runs" / "pendulum_evolution"
    assert (folder / "evolution.png").read_bytes().startswith(b"\x89PNG")
    for name in ("elite.pt", "population.pt", "population.csv", "metrics.csv", "config.json"):
        assert (folder / name).exists()
    assert "--- Generation 2:" in out
    assert "Family of the winner" in out
    assert "first generation" in out
    assert "the winner  " in out


def small_evolution(*arguments: str) -> list[str]:
    """The benchmark's arguments for a small size."""
    sizes = {"steps": 512, "evo-steps": 256, "learn-step": 32, "random": 2, "workers": 1}
    sizes |= {"eval-loop": 1, "episodes": 20}
    return [*arguments, *(x for name, size in sizes.items() for x in (f"--{name}", str(size)))]


def test_evolution_benchmark_reports_its_seeds(benchmark):
    result = json.loads(benchmark("evolution.py", *small_evolution("--seeds", "1")))
    assert result["seed"] == 1
    assert len(result["random"]) == 2
    assert min(result["random"]) <= result["random_median"] <= max(result["random"])


@pytest.mark.slow
def test_evolution_benchmark_from_plain_settings(benchmark):
    out = benchmark("evolution.py", *small_evolution("--plain", "--seeds", "1", "2"))
    assert [json.loads(line).get("seed") for line in out.splitlines()] == [1, 2, None]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_workers")
def test_evolution_benchmark_compares_workers(benchmark):
    out = benchmark("evolution.py", *small_evolution("--speed", "--repeats", "1"))
    assert json.loads(out.splitlines()[-1])["median_ratio"] > 0


@pytest.mark.slow
def test_off_policy_tutorial_writes_what_it_promises(tutorial, tmp_path):
    pytest.importorskip("matplotlib")
    out = tutorial("pendulum_off_policy.py", "--seed", "1")
    folder = tmp_path / "runs" / "pendulum_off_policy"
    assert (folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    for name in ("SAC_with_memory", "SAC_without_memory", "PPO_with_memory"):
        assert (folder / f"{name}.pt").exists()
        header = (folder / name / "metrics.csv").read_text().splitlines()[0]
        assert "train/return" in header
    for name in ("SAC with memory", "SAC without memory", "PPO with memory"):
        assert f"{name}: return" in out
    assert "One episode by hand" in out


@pytest.mark.slow
def test_matd3_tutorial_writes_what_it_promises(tutorial, tmp_path):
    for package in ("matplotlib", "mpe2", "PIL"):
        pytest.importorskip(package)
    out = tutorial("speaker_listener_matd3.py", "--seed", "1", "--steps", "2600")
    folder = tmp_path / "runs" / "speaker_listener_matd3"
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "episodes.gif").read_bytes().startswith(b"GIF8")
    assert (folder / "agents.pt").exists()
    assert "Mean return of 10 deterministic episodes" in out


@pytest.mark.slow
def test_speaker_listener_tutorial_writes_what_it_promises(tutorial, tmp_path):
    for package in ("matplotlib", "mpe2", "PIL"):
        pytest.importorskip(package)
    out = tutorial("speaker_listener.py", "--seed", "1", "--steps", "3200")
    folder = tmp_path / "runs" / "speaker_listener"
    assert (folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "episodes.gif").read_bytes().startswith(b"GIF8")
    for name in ("recurrent", "feed-forward"):
        assert (folder / name / "agents.pt").exists()
        header = (folder / name / "metrics.csv").read_text().splitlines()[0]
        assert "train/return" in header
        assert "listener/policy_loss" in header
    assert "with memory (LSTM)" in out
    assert "without memory (feed-forward)" in out
    assert "Four episodes by hand" in out


def test_learning_benchmark_reports_its_seeds(benchmark, tmp_path):
    settings = ("--set", "total_steps=1024", "learn_step=64", "max_seq_len=16", "cell=gru")
    out = benchmark(
        "learning.py", "CartPole-v1", "--seeds", "0", "1", "--episodes", "25", *settings
    )
    assert "CartPole-v1-total_steps=1024" in out
    assert "2 seeds" in out
    files = sorted((tmp_path / "runs" / "learning").glob("*.json"))
    assert len(files) == 2
    assert json.loads(files[0].read_text())[-1]["steps"] == 1024


@pytest.mark.parametrize("env_id", ["simple_spread_v3", "simple_speaker_listener_v4-early"])
def test_learning_benchmark_trains_several_agents(benchmark, env_id):
    pytest.importorskip("mpe2")
    settings = ("--set", "total_steps=1600", "learn_step=25")
    out = benchmark("learning.py", env_id, "--seeds", "0", "--episodes", "25", *settings)
    assert "final: -" in out


def test_probes_report_who_remembers(benchmark):
    options = ("--probes", "recall-16", "--encoders", "vector-lstm", "vector-none", "--seeds", "0")
    remembering, forgetting = benchmark("probes.py", *options).splitlines()[-2:]
    assert remembering.startswith("| recall-16 | vector-lstm | 100.0% | 100.0% |")
    assert "| never |" in forgetting


def test_benchmark_of_spaces_runs(benchmark):
    out = benchmark("speed_spaces.py", "dicts", "convolve", "--rounds", "1")
    assert "dicts:" in out
    assert "convolve:" in out


@pytest.mark.parametrize("part", ["memory", "resets"])
def test_speed_benchmark_runs(benchmark, part):
    assert part + ":" in benchmark("speed.py", part)


def test_equality_prints_the_same_digests_again(benchmark, tmp_path):
    options = ("--json", "--cases", "lstm", "ippo_deaths")
    first = run(tmp_path, str(ROOT / "benchmarks" / "equality.py"), *options)
    second = benchmark("equality.py", *options)  # this process, which has done other things before
    digests = json.loads(first)
    assert digests.keys() == {"lstm", "ippo_deaths"}
    assert len(set(digests.values())) == 2
    assert all(len(digest) == 16 for digest in digests.values())
    assert json.loads(second) == digests
