"""The tutorial and the benchmarks run, at reduced size, as a user would start them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> str:
    """Run a script of the repository in another folder; its output."""
    environment = {**os.environ, "CI": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def test_evolution_tutorial_writes_what_it_promises(tmp_path):
    pytest.importorskip("matplotlib")
    out = run(tmp_path, str(ROOT / "tutorials" / "pendulum_evolution.py"), "--seed", "1")
    folder = tmp_path / "runs" / "pendulum_evolution"
    assert (folder / "evolution.png").read_bytes().startswith(b"\x89PNG")
    for name in ("elite.pt", "population.pt", "population.csv", "metrics.csv", "config.json"):
        assert (folder / name).exists()
    assert "--- Generation 3:" in out
    assert "Family of the winner" in out
    assert "first generation" in out
    assert "the winner  " in out


def test_evolution_benchmark_reports_its_seeds(tmp_path):
    script = str(ROOT / "benchmarks" / "evolution.py")
    sizes = {"steps": 512, "evo-steps": 256, "learn-step": 32, "episodes": 20, "random": 2}
    options = [x for name, size in sizes.items() for x in (f"--{name}", str(size))]
    options += ["--workers", "1"]
    result = json.loads(run(tmp_path, script, "--seeds", "1", *options))
    assert result["seed"] == 1
    assert len(result["random"]) == 2
    assert min(result["random"]) <= result["random_median"] <= max(result["random"])
    plain = run(tmp_path, script, "--plain", "--seeds", "1", "2", *options)
    assert [json.loads(line).get("seed") for line in plain.splitlines()] == [1, 2, None]
    speed = run(tmp_path, script, "--speed", "--repeats", "1", *options)
    assert json.loads(speed.splitlines()[-1])["median_ratio"] > 0


def test_speaker_listener_tutorial_writes_what_it_promises(tmp_path):
    for package in ("matplotlib", "mpe2", "PIL"):
        pytest.importorskip(package)
    out = run(tmp_path, str(ROOT / "tutorials" / "speaker_listener.py"), "--seed", "1")
    folder = tmp_path / "runs" / "speaker_listener"
    assert (folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "episodes.gif").read_bytes().startswith(b"GIF8")
    assert (folder / "agents.pt").exists()
    for name in ("recurrent", "feed-forward"):
        header = (folder / name / "metrics.csv").read_text().splitlines()[0]
        assert "train/return" in header
        assert "listener/policy_loss" in header
    assert "with memory (LSTM)" in out
    assert "without memory (feed-forward)" in out
    assert "Four episodes by hand" in out


def test_learning_benchmark_reports_its_seeds(tmp_path):
    script = str(ROOT / "benchmarks" / "learning.py")
    settings = ("--set", "total_steps=1024", "learn_step=64", "max_seq_len=16", "cell=gru")
    out = run(tmp_path, script, "CartPole-v1", "--seeds", "0", "1", "--episodes", "25", *settings)
    assert "CartPole-v1-total_steps=1024" in out
    assert "2 seeds" in out
    files = sorted((tmp_path / "runs" / "learning").glob("*.json"))
    assert len(files) == 2
    assert json.loads(files[0].read_text())[-1]["steps"] == 1024


@pytest.mark.parametrize("env_id", ["simple_spread_v3", "simple_speaker_listener_v4-early"])
def test_learning_benchmark_trains_several_agents(tmp_path, env_id):
    pytest.importorskip("mpe2")
    script = str(ROOT / "benchmarks" / "learning.py")
    settings = ("--set", "total_steps=1600", "learn_step=25")
    out = run(tmp_path, script, env_id, "--seeds", "0", "--episodes", "25", *settings)
    assert "final: -" in out


def test_probes_report_who_remembers(tmp_path):
    script = str(ROOT / "benchmarks" / "probes.py")
    options = ("--probes", "recall-16", "--encoders", "vector-lstm", "vector-none", "--seeds", "0")
    remembering, forgetting = run(tmp_path, script, *options).splitlines()[-2:]
    assert remembering.startswith("| recall-16 | vector-lstm | 100.0% | 100.0% |")
    assert "| never |" in forgetting


def test_benchmark_of_spaces_runs(tmp_path):
    script = str(ROOT / "benchmarks" / "speed_spaces.py")
    out = run(tmp_path, script, "dicts", "convolve", "--rounds", "1")
    assert "dicts:" in out
    assert "convolve:" in out


@pytest.mark.parametrize("part", ["memory", "resets"])
def test_speed_benchmark_runs(tmp_path, part):
    assert part + ":" in run(tmp_path, str(ROOT / "benchmarks" / "speed.py"), part)
