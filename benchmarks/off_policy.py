"""Speed of learning from a replay, as ratios: both sides take turns, one torch thread each.

    python benchmarks/off_policy.py                # everything (peers are installed at first)
    python benchmarks/off_policy.py step learner   # some of it

    step      a gradient step of feed-forward SAC against Stable-Baselines3's
    learner   recurrent updates against the passes of bare nn.LSTMs that they need
    peer      recurrent updates against torchrl's
    memory    the replay's memory against its fields
    collect   time to collect a step, against what PPO collects with

Sampling from the replay is included on both sides. Times are the processor's, which other work on
the machine disturbs less than the clock; alone they are the same, as nothing here waits. Medians of
rounds that take turns; absolute figures drift from machine to machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from speed import resident
from speed_against import Free
from torch import nn

from recurrent_rl import DQN, PPO, SAC, TD3, collect_rollouts_recurrent, make_vect_envs
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.ring import ReplayLayout
from recurrent_rl.buffers.steps import StepShapes

HERE = Path(__file__).parent
SAC_PACKAGES = ["torch==2.13.0", "stable-baselines3==2.9.2"]
TORCHRL_PACKAGES = ["torch==2.13.0", "torchrl==0.14.1"]
ALGORITHMS: dict[str, Any] = {"SAC": SAC, "TD3": TD3, "DQN": DQN}


def seconds(work: Callable[[], object]) -> float:
    """Return the processor's time of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def alternate(
    a: Callable[[], float], b: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Return median of a, median of b, median of a/b, from calls that take turns."""
    pairs = [(a(), b()) for _ in range(rounds)]
    ratio = statistics.median(x / y for x, y in pairs)
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), ratio


def environments(name: str, count: int) -> VectorEnv[Any, Any, Any]:
    """Return environments in this process."""
    return make_vect_envs(
        make_env=lambda: gym.make(name, disable_env_checker=True),
        num_envs=count,
        should_async_vector=False,
    )


COMMON: dict[str, Any] = {}  # options of all agents that learn


def agent_of(name: str, env: VectorEnv[Any, Any, Any], **options: Any) -> Any:
    """Return an agent whose encoder is one LSTM layer of 64, or nothing."""
    net: dict[str, Any] = {
        "encoder_config": {"hidden_size": [], "hidden_state_size": 64},
        "head_config": {"hidden_size": options.pop("head", [64])},
    }
    options = {"learning_starts": 256, "learn_step": 1, **COMMON, **options}
    spaces = env.single_observation_space, env.single_action_space
    return ALGORITHMS[name](*spaces, net, seed=0, **options)


def fill(agent: Any, env: VectorEnv[Any, Any, Any], steps: int) -> None:
    """Collect without learning."""
    while agent.env_steps < steps:
        collect_rollouts_recurrent(agent, env, 64)


def updates(agent: Any, count: int) -> Callable[[], object]:
    """Return what takes a number of updates, sampling included, as after collection."""

    def work() -> None:
        agent._due = count * agent.config.learn_step  # as if so much had been collected
        assert agent.learn().updates == count

    return work


class Served:
    """A peer in an environment of its own, which measures when it is asked to."""

    def __init__(self, script: str, packages: list[str], folder: Path) -> None:
        """Start it; install ``packages`` into ``folder`` at first."""
        python = folder / "bin" / "python"
        if not python.exists():
            print(f"installing {' '.join(packages)} into {folder}", flush=True)
            venv.create(folder, with_pip=True)
            for package in packages:  # torch first: its pin decides what the rest brings
                subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [str(python), str(HERE / script)], env=environment, stdin=pipe, stdout=pipe, text=True
        )

    def ask(self, question: object) -> float:
        """Return what it has measured."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(question)}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """Let it end."""
        self._process.communicate()


def step(rounds: int, folder: Path) -> None:
    """Measure one update of SAC: two layers of 256 for the actor and two critics each, batch 256.

    Both learn the temperature, move targets at each update and sample from 5,000 steps of Pendulum.
    """
    env, count = environments("Pendulum-v1", 1), 40
    agent = agent_of("SAC", env, recurrent=False, head=[256, 256], batch_size=256)
    fill(agent, env, 5000)
    work, served = updates(agent, count), Served("peer_sac.py", SAC_PACKAGES, folder)
    work(), served.ask(count)
    theirs, ours, ratio = alternate(lambda: served.ask(count), lambda: seconds(work), rounds)
    print(
        f"step: {ours / count * 1e3:.2f} vs Stable-Baselines3's {theirs / count * 1e3:.2f} ms: "
        f"{ratio:.2f}x",
        flush=True,
    )
    served.end()


def bare(name: str, windows: int, length: int, inputs: int) -> Callable[[], object]:
    """Return what runs the nn.LSTM passes that one update of an algorithm needs, and no more.

    Targets take the value of one place more than is trained on. Values: forward and backward, and
    the target's forward. SAC: also the actor's forward and backward, which serves the targets. TD3:
    also the target actor's forward, and at every second update the actor's forward and backward.
    """
    lstm = nn.LSTM(inputs, 64)
    seen = torch.randn(length + 1, windows, inputs)
    state = (torch.zeros(1, windows, 64), torch.zeros(1, windows, 64))
    trained, free = {
        "DQN": ([length], 1.0),
        "SAC": ([length, length + 1], 1.0),
        "TD3": ([length, length], 2.0),
    }[name]
    taken = 0

    def work() -> None:
        nonlocal taken
        taken += 1
        for places in trained[: 1 if name == "TD3" and taken % 2 else None]:
            output, _ = lstm(seen[:places], state)
            output.sum().backward()
        with torch.no_grad():
            for _ in range(int(free)):
                lstm(seen, state)

    return work


def learner(rounds: int) -> None:
    """Measure samples/s of recurrent updates against the bare passes that they need."""
    for name, batch in (("SAC", 512), ("SAC", 2048), ("TD3", 1024), ("DQN", 512), ("DQN", 2048)):
        env = environments("CartPole-v1" if name == "DQN" else "Pendulum-v1", 8)
        for length in (16, 32, 64):
            agent = agent_of(name, env, max_seq_len=length, batch_size=batch)
            fill(agent, env, 6000)
            count, windows = 10, batch // length
            alone = bare(name, windows, length, env.single_observation_space.shape[0])
            work = updates(agent, count)
            work(), alone()

            def passes(alone: Callable[[], object] = alone, count: int = count) -> float:
                return seconds(lambda: [alone() for _ in range(count)])

            needed, whole, ratio = alternate(passes, lambda work=work: seconds(work), rounds)
            samples = count * batch
            print(
                f"learner: {name}, {windows} windows of {length}: {samples / whole:,.0f} vs bare "
                f"LSTMs {samples / needed:,.0f} samples/s: {ratio:.0%}",
                flush=True,
            )
        env.close()


def peer(rounds: int, folder: Path) -> None:
    """Measure samples/s of recurrent double DQN against torchrl's: LSTM 64, head of 64."""
    served = Served("peer_torchrl.py", TORCHRL_PACKAGES, folder)
    env = environments("CartPole-v1", 8)
    for windows, length in ((16, 32), (64, 32), (32, 64), (32, 16)):
        agent = agent_of("DQN", env, max_seq_len=length, batch_size=windows * length)
        fill(agent, env, 6000)
        memory, count = agent.memory, 10
        ends = memory.parts[""].arrays["terminated"].sum() + memory.parts[""].arrays["final"].sum()
        question = [windows, length, round(len(memory) / max(int(ends), 1)), count]
        work = updates(agent, count)
        work(), served.ask(question)
        theirs, ours, ratio = alternate(
            lambda question=question: served.ask(question), lambda work=work: seconds(work), rounds
        )
        samples = count * windows * length
        print(
            f"peer: DQN, {windows} windows of {length}: {samples / ours:,.0f} vs torchrl's "
            f"{samples / theirs:,.0f} samples/s: {ratio:.1f}x",
            flush=True,
        )
    served.end()
    env.close()


def memory() -> None:
    """Measure what a replay takes against its fields: numbers, and images that it keeps once."""
    alive = []
    for label, shapes, layout, steps in (
        (
            "LSTM 64 twice, windows of 16",
            StepShapes((3,), (1,), state_shapes=[(1, 64)] * 4),
            ReplayLayout(16, 16),
            400_000,
        ),
        ("no memory", StepShapes((3,), (1,)), ReplayLayout(), 2_000_000),
        (
            "84 x 84 x 4 bytes",
            StepShapes((4, 84, 84), (), torch.uint8, torch.int64),
            ReplayLayout(),
            5_000,
        ),
    ):
        begin = resident()
        replay = SequenceReplayBuffer(steps)
        alive.append(replay)  # or the next one would take its pages
        replay.fit({"": shapes}, {"": 1}, 8, layout)
        for field in replay.parts[""].fields().values():
            field.fill_(1)  # touch the pages, so that they count
        grown = resident() - begin
        ideal = sum(x[0].nbytes for x in _of_a_step(shapes)) * steps
        print(
            f"memory: {label}: {grown / 2**20:.1f} MiB resident for {replay.nbytes() / 2**20:.1f} "
            f"MiB of fields: {grown / replay.nbytes():.3f}x; observations, actions and rewards "
            f"alone are {ideal / 2**20:.1f} MiB",
            flush=True,
        )


def _of_a_step(shapes: StepShapes) -> list[torch.Tensor]:
    """Return an observation, an action and a reward, [1, *shape] each."""
    return [
        torch.zeros(1, *shapes.obs_shape, dtype=shapes.obs_dtype),
        torch.zeros(1, *shapes.action_shape, dtype=shapes.action_dtype),
        torch.zeros(1),
    ]


def collect(rounds: int) -> None:
    """Measure microseconds to collect a step of one environment, which costs nothing itself."""
    for recurrent in (True, False):
        for num_envs in (1, 8, 64):
            for steps in (1, 64):
                env = Free(num_envs)
                net = {"encoder_config": {"hidden_size": [] if recurrent else [64]}}
                spaces = env.single_observation_space, env.single_action_space
                agents: dict[str, Any] = {
                    "PPO": PPO(*spaces, net, seed=0, recurrent=recurrent, learn_step=steps),
                    "SAC": SAC(*spaces, net, seed=0, recurrent=recurrent, learning_starts=1),
                    "TD3": TD3(*spaces, net, seed=0, recurrent=recurrent, learning_starts=1),
                }
                times: dict[str, list[float]] = {name: [] for name in agents}
                calls = 128 // steps
                for i in range(rounds + 1):
                    for name, agent in agents.items():

                        def work(agent: Any = agent) -> None:
                            for _ in range(calls):  # noqa: B023 - called at once
                                collect_rollouts_recurrent(agent, env, steps)  # noqa: B023

                        wall = seconds(work)
                        if i:
                            times[name].append(wall)
                per = {
                    name: np.median(each) / (calls * steps) * 1e6 for name, each in times.items()
                }
                print(
                    f"collect: {'recurrent' if recurrent else 'feed-forward'}, {num_envs} "
                    f"environments, {steps} steps a call: us for a step of all: "
                    + ", ".join(f"{name} {us:.0f}" for name, us in per.items()),
                    flush=True,
                )


def main() -> None:
    """Run the named parts."""
    parts = {"memory": None, "step": 15, "learner": 9, "peer": 9, "collect": 7}
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    parser.add_argument("--compiled", action="store_true", help="learn by kernels in C")
    parser.add_argument("--rounds", type=int, help="of taking turns, instead of the usual ones")
    parser.add_argument("--sac-venv", type=Path, default=Path(".venv-peer-sac"))
    parser.add_argument("--torchrl-venv", type=Path, default=Path(".venv-peer-torchrl"))
    options = parser.parse_args()
    COMMON["compiled"] = options.compiled
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one torch thread")
    folders = {"step": [options.sac_venv], "peer": [options.torchrl_venv]}
    for name, rounds in parts.items():
        if options.parts and name not in options.parts:
            continue
        given = [] if rounds is None else [options.rounds or rounds]
        globals()[name](*given, *folders.get(name, []))


if __name__ == "__main__":
    main()
