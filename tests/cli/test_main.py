"""Tests of the command line as users meet it: what is trained, written, shown and refused."""

import csv
import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest

from recurrent_rl import PPO, checkpoint
from recurrent_rl.cli import seeds
from recurrent_rl.cli.errors import UsageError
from recurrent_rl.cli.main import COMMANDS, main
from recurrent_rl.cli.options import options_in
from recurrent_rl.cli.pictures import draw_curve, grouped
from recurrent_rl.cli.training import _groups
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.training.report import Rollout

ROOT = Path(__file__).parents[2]
NETS = "--encoder.hidden-size 4 --encoder.hidden-state-size 4 --head.hidden-size 4"
SHORT = f"--no-tuned --num-envs 2 --total-steps 96 --eval-every 32 --eval-episodes 2 {NETS}"
PPO_SHORT = f"{SHORT} --learn-step 16 --batch-size 16 --update-epochs 1"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that succeeds, and return what it prints."""

    def run(command: str, *more: str) -> str:
        code = main([*command.split(), *more])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if not name.startswith("time/")}
            for row in csv.DictReader(file)
        ]


class TestTrain:
    def test_leaves_a_folder_that_says_how_to_repeat_it(self, say: Callable[..., str]) -> None:
        said = say(f"train CartPole-v1 --mask-velocity --name a --seeds 3 {PPO_SHORT} --lr 2e-3")
        folder = Path("runs/CartPole-v1-masked/PPO/a")
        assert {path.name for path in (folder / "seed_3").iterdir()} >= {
            "best.pt",
            "latest.pt",
            "metrics.csv",
            "config.json",
        }
        described = json.loads((folder / "run.json").read_text())
        assert described["command"].startswith("recurrent_rl train CartPole-v1 --mask-velocity")
        assert described["versions"].keys() >= {"python", "torch", "recurrent_rl"}
        assert "git" in described
        run = described["run"]
        assert run["environment"]["mask_velocity"] is True
        assert (run["seeds"], run["total_steps"], run["agent"]["lr"]) == ([3], 96, 2e-3)
        agent = PPO.load(folder / "seed_3/latest.pt")
        assert (agent.env_steps, agent.seed) == (96, 3)
        assert (agent.config.lr, agent.config.total_steps, agent.config.batch_size) == (
            2e-3,
            96,
            16,
        )
        assert agent.net_config.encoder_config.hidden_state_size == 4
        assert f"evaluate {folder}" in said
        assert f"picture: {folder / 'curve.png'}" in said
        assert (folder / "curve.png").exists()
        assert "settings: PPO's defaults, as --no-tuned asks" in said
        assert "seed 3: best test" in said

    def test_takes_tuned_settings_unless_told_otherwise(self, say: Callable[..., str]) -> None:
        short = "--total-steps 64 --num-envs 2 --learn-step 16 --eval-episodes 1"
        say(f"train Pendulum-v1 --mask-velocity --name a --update-epochs 1 {short}")
        agent = PPO.load("runs/Pendulum-v1-masked/PPO/a/seed_0/best.pt")
        assert (agent.config.gamma, agent.config.update_epochs) == (0.97, 1)
        assert agent.config.squash_output is True
        assert agent.net_config.encoder_config.hidden_size == ()

    def test_teams(self, say: Callable[..., str]) -> None:
        pytest.importorskip("mpe2")
        team = f"{PPO_SHORT} --env-args max_cycles=5 --team-reward mean --encoder.cell gru"
        say(f"train simple_spread_v3 --name a {team}")
        (folder,) = Path("runs").glob("*/IPPO/a")
        said = say(f"evaluate {folder} --episodes 4")
        assert "over 4 episodes" in said
        assert said.count("agent_") == 3

    def test_from_a_replay(self, say: Callable[..., str]) -> None:
        replay = "--learning-starts 40 --batch-size 32 --no-recurrent --learn-step 16"
        say(f"train Pendulum-v1 --algo SAC --name a {SHORT} {replay}")
        data = checkpoint.load("runs/Pendulum-v1/SAC/a/seed_0/latest.pt")
        assert data["algorithm"] == "SAC"

    @pytest.mark.usefixtures("quick_workers")
    def test_seeds_side_by_side(self, say: Callable[..., str]) -> None:
        said = say(f"train CartPole-v1 --name a --seeds 0 1 {PPO_SHORT}")
        folder = Path("runs/CartPole-v1/PPO/a")
        one, two = (PPO.load(folder / f"seed_{seed}/latest.pt") for seed in (0, 1))
        assert (one.seed, two.seed, one.env_steps, two.env_steps) == (0, 1, 96, 96)
        assert "seed 0: best" in said
        assert "seed 1: best" in said
        # The same as in this process, to the last bit.
        say(f"train CartPole-v1 --name b --seeds 1 {PPO_SHORT}")
        assert rows_of(folder / "seed_1") == rows_of(folder.parent / "b/seed_1")
        assert "2 agents: " in say(f"evaluate {folder} --episodes 2")

    def test_ctrl_c_does_not_reach_a_seed_that_still_starts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run: Any = SimpleNamespace(threads=1, total_steps=10)
        both = seeds._SideBySide(run, tmp_path, (0, 1), resume=False)
        blocked: list[set[int]] = []

        def start(_: object) -> None:
            blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))

        monkeypatch.setattr(BaseProcess, "start", start)
        both._begin(0)
        assert [signal.SIGINT in each for each in blocked] == [True]

    def test_what_goes_wrong_in_a_seeds_process_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run: Any = SimpleNamespace(threads=1, total_steps=10)
        both = seeds._SideBySide(run, tmp_path, (0, 1), resume=False)
        with pytest.raises(UsageError, match="no such thing"):
            both._take(seeds._Message(1, error="no such thing", is_mistake=True))
        with pytest.raises(RuntimeError, match="seed 1: its training failed"):
            both._take(seeds._Message(1, error="Traceback ..."))
        assert "Traceback ..." in capsys.readouterr().err


def test_resumes_exactly(say: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"train CartPole-v1 {PPO_SHORT} --checkpoint-every 32 --name"
    say(f"{command} whole")
    folder = Path("runs/CartPole-v1/PPO")
    real = seeds.train

    def stopped(*arguments: Any, **options: Any) -> Any:
        def after(rollout: Rollout) -> None:
            if rollout.env_steps >= 64:
                rollout.stop()

        return real(*arguments, **{**options, "on_rollout": after})

    with monkeypatch.context() as patched:
        patched.setattr(seeds, "train", stopped)
        said = say(f"{command} cut")
    assert f"resume {folder / 'cut'}" in said
    assert len(rows_of(folder / "cut/seed_0")) < len(rows_of(folder / "whole/seed_0"))
    said = say(f"resume {folder / 'cut/seed_0'}")
    assert "resume" not in said
    assert rows_of(folder / "cut/seed_0") == rows_of(folder / "whole/seed_0")
    one, other = (
        PPO.load(folder / name / "seed_0/latest.pt").policy.state_dict()
        for name in ("whole", "cut")
    )
    assert all((one[name] == other[name]).all() for name in one)


class TestPictures:
    def test_a_line_for_each_run(
        self, say: Callable[..., str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("a", "b"):
            folder = Path("runs/CartPole-v1/PPO") / name
            for seed in (2, 10):
                (folder / f"seed_{seed}").mkdir(parents=True)
                log = "step,eval/mean_reward\n10,1\n20,2\n"
                (folder / f"seed_{seed}/metrics.csv").write_text(log)
            (folder / "run.json").write_text("{}")
        (folder / "seed_10/metrics.csv").write_text("step,eval/mean_reward\n10,5\n20,2\n")
        groups = grouped([Path("runs"), folder / "seed_2"])
        assert {name: [seed.name for seed in seeds] for name, seeds in groups.items()} == {
            "a": ["seed_2", "seed_10"],
            "b": ["seed_2", "seed_10"],
        }
        assert grouped([Path("runs/*/PPO/b")]).keys() == {"b"}
        assert say("plot runs") == "picture: curves.png\n"
        assert say(f"plot {folder}") == f"picture: {folder / 'curve.png'}\n"
        assert (folder / "curve.png").read_bytes()[:4] == b"\x89PNG"
        assert main(["plot", "runs", "--tag", "eval/mean_rewart"]) == 2
        assert "did you mean 'eval/mean_reward'?" in capsys.readouterr().err

    def test_a_run_without_the_extra_says_so(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("seed_0").mkdir()
        Path("seed_0/metrics.csv").write_text("step,eval/mean_reward\n10,1\n")
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        draw_curve(Path(), [Path("seed_0")], "title")
        said = capsys.readouterr().out
        assert said.startswith("picture: none, as of pictures: expected the package matplotlib")
        assert "pip install 'recurrent_rl[plots]'" in said

    def test_without_a_display(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "platform", "linux")
        env = gym.make("CartPole-v1")
        agent = PPO(env.observation_space, env.action_space, seed=0)
        agent.save_checkpoint("agent.pt")
        assert main(["enjoy", "agent.pt", "--env-id", "CartPole-v1"]) == 2
        assert "write a film instead: --film FOLDER" in capsys.readouterr().err

    def test_in_a_window(self, say: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("pygame")
        monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
        env = gym.make("CartPole-v1")
        agent = PPO(env.observation_space, env.action_space, seed=0)
        agent.save_checkpoint("agent.pt")
        where = "--env-id CartPole-v1 --env-args max_episode_steps=2"
        said = say(f"enjoy agent.pt {where} --episodes 2")
        assert "episode 1: return 2.00\nepisode 2: return 2.00\n" in said


def test_agents_are_tested_where_one_says(say: Callable[..., str]) -> None:
    say(f"train CartPole-v1 --name a {PPO_SHORT}")
    file = "runs/CartPole-v1/PPO/a/seed_0/latest.pt"
    assert "latest.pt (96 steps): " in say("evaluate runs/CartPole-v1/PPO/a --latest --episodes 1")
    Path("a_folder.onnx").mkdir()
    assert main(["export", file, "a_folder.onnx"]) == 2
    Path("alone.pt").write_bytes(Path(file).read_bytes())
    assert main(["evaluate", "alone.pt"]) == 2
    said = say("evaluate alone.pt --episodes 3 --env-id CartPole-v1 --env-args max_episode_steps=4")
    assert "4.00 +- 0.00 over 3 episodes (4.00 to 4.00)" in said


def test_agents_are_exported(
    say: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env = gym.make("CartPole-v1")
    agent = PPO(env.observation_space, env.action_space, recurrent=False, seed=0)
    agent.save_checkpoint("agent.pt")
    assert main(["export", "agent.pt", "policy.zip"]) == 2
    assert "expected a file that ends in .onnx or .pt2" in capsys.readouterr().err
    # What is written is tested where it is, and by the documentation's commands.
    given: list[Any] = []
    monkeypatch.setattr(PPO, "export", lambda _, path, **more: given.append((path, more)) or path)
    said = say("export agent.pt policy --format pt2 --no-action-mask")
    assert said == "agent.pt:\nexported: policy\n"
    assert given == [("policy", {"format": "pt2", "action_mask": False})]


class TestList:
    def test_lists(self, say: Callable[..., str]) -> None:
        said = say("list")
        assert "Pendulum-v1 --mask-velocity  " in said
        assert "  Pendulum-v1   " in said  # SAC's with velocities
        for name in (*ALGORITHMS, "MaskVelocityWrapper"):
            assert name in said
        assert say("list algorithms").count("\n") == len(ALGORITHMS)

    @pytest.mark.parametrize("algo", ALGORITHMS)
    def test_every_hyperparameter_is_an_option_of_train(
        self, algo: str, say: Callable[..., str]
    ) -> None:
        known = {option.name for option in options_in(_groups(algo, None))}
        names = set(ALGORITHMS[algo].config_type.names())
        assert names - known == set()
        assert {"encoder.cell", "encoder.cnn_config.channel_size", "head.hidden_size"} <= known
        said = say(f"list options {algo}")
        for name in names - {"total_steps"}:
            assert f"--{name.replace('_', '-')} (default" in said


class TestHelp:
    def test_of_all(self, say: Callable[..., str]) -> None:
        assert say("") == say("--help")
        for name in COMMANDS:
            assert f"  {name} " in say("")

    @pytest.mark.parametrize("name", COMMANDS)
    def test_of_each(self, name: str, say: Callable[..., str]) -> None:
        assert f"usage: recurrent_rl {name}" in say(f"{name} --help")

    def test_of_train_shows_types_ranges_and_tuned_defaults(self, say: Callable[..., str]) -> None:
        said = " ".join(say("train Pendulum-v1 --mask-velocity --help").split())
        assert "--gamma FLOAT" in said
        assert "[number in [0, 1]] (default: 0.97)" in said.replace(" │ │ ", " ")
        assert "--memory-size" not in said
        assert "--memory-size INT" in say("train --algo TD3 --help")


MISTAKES = [
    ("tran CartPole-v1", "did you mean 'train'?"),
    ("train", "ENV_ID: expected an environment"),
    ("train CartPole", "did you mean CartPole-v"),
    ("train CartPole-v1 --learning-rate 1e-3", "it is called --lr here"),
    ("train CartPole-v1 --lstm-hidden-size 8", "it is called --encoder.hidden-state-size here"),
    ("train CartPole-v1 --total_timesteps 1e5", "it is called --total-steps here"),
    ("train CartPole-v1 --algo DQN --clip-coef 0.1", "it is one of --algo PPO, IPPO, MAPPO"),
    ("train CartPole-v1 --policy-kwargs x", "here it is --encoder"),
    ("train CartPole-v1 --gama 0.9", "did you mean --gamma?"),
    ("train CartPole-v1 --gamma 1.5", "--gamma: expected a number in [0, 1], got 1.5"),
    ("train CartPole-v1 --gamma", "--gamma: expected a value behind it, got none"),
    ("train CartPole-v1 --lr fast", "--lr: expected a number above 0, got fast"),
    ("train CartPole-v1 --algo A2C", '--algo: expected "PPO"'),
    ("train CartPole-v1 --seeds", "--seeds: expected at least one"),
    ("train CartPole-v1 Pendulum-v1", "expected nothing more, got 'Pendulum-v1'"),
    ("train CartPole-v1 --burn-in 64 --max-seq-len 64", "burn_in: expected less than"),
    ("train Pendulum-v1 --algo DQN", "Pendulum-v1: "),
    ("train CartPole-v1 --algo DQN --learning-starts 50", "--learning-starts: expected at least b"),
    ("train CartPole-v1 --algo DQN --memory-size 99 --batch-size 100", "--memory-size: expected"),
    ("train CartPole-v1 --device tpu", "device: expected one that torch can use"),
    ("train CartPole-v1 --name a/b", "--name: expected letters"),
    ("train CartPole-v1 --name ..", "--name: expected letters"),
    ("train CartPole-v1 --num-envs 1_000_000_000", "--num-envs: expected a whole number in [1, 1"),
    ("train CartPole-v1 --threads 100_000", "--threads: expected a whole number in [1, 1,024]"),
    ("train CartPole-v1 --folder notes.txt", "--folder: "),
    ("train own:number", "own:number: expected an environment, got 3"),
    ("train own:broken", "own:broken: no such arm"),
    ("train own:broken", "own.py, line 3)"),
    ("evaluate", "AGENT: expected a run's folder or an agent's file"),
    ("evaluate runs/nothing", "runs/nothing: expected a run's folder or an agent's file"),
    ("evaluate .", "expected the folder of a run, with run.json in it"),
    ("evaluate notes.txt --env-id CartPole-v1", "notes.txt: expected a whole"),
    ("plot", "RUNS: expected folders of runs"),
    ("plot nothing", "nothing: expected a run's folder, or one above some, got nothing there"),
    ("export", "AGENT: expected an agent and a file"),
    ("export runs", "TO: expected an agent and a file"),
    ("resume", "RUN: expected a run's folder"),
    ("resume nothing", "nothing: expected the folder of a run"),
    ("list things", 'WHAT: expected "environments"'),
    ("list options A2C", "ALGO: expected one of PPO"),
]


OWN = """number = lambda: 3
def broken():
    raise ValueError("no such arm")
"""


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistakes_are_told_in_one_line(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("no agent")
    Path("own.py").write_text(OWN)
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not Path("runs").exists()


def test_a_name_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/CartPole-v1/PPO/a").mkdir(parents=True)
    Path("runs/CartPole-v1/PPO/a/run.json").write_text("{}")
    assert main(["train", "CartPole-v1", "--name", "a"]) == 2
    assert "go on with it (recurrent_rl resume runs/CartPole-v1/PPO/a)" in capsys.readouterr().err


def test_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert main(["train", "CartPole-v1"]) == 2
    assert "pip install 'recurrent_rl[cli]'" in capsys.readouterr().err


def test_console_script() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["recurrent_rl"].split(":")
    assert getattr(import_module(module), function) is main


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "recurrent_rl", "tran"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "did you mean 'train'?" in done.stderr
