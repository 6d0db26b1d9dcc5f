"""What observations that are not one vector cost: ratios measured in one run, one torch thread.

    python benchmarks/speed_spaces.py                     # everything
    python benchmarks/speed_spaces.py dicts images        # some of it

    dicts     observations in Dict spaces against the same numbers in one vector
    images    memory while learning from images, as rollouts grow
    convolve  learning from images against the bare convolutions and LSTM on the same shapes

Medians over alternating rounds; absolute figures drift from machine to machine.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import nn

from recurrent_rl import PPO, collect_rollouts_recurrent
from recurrent_rl.networks.layers import Cnn

HERE = Path(__file__).parent
STRUCTURES = {  # the same 12 numbers, in other structures
    "one vector": lambda box: box(12),
    "Dict of 4": lambda box: spaces.Dict(
        {"position": box(3), "velocity": box(3), "goal": box(2), "touch": box(4)}
    ),
    "nested, 6 parts": lambda box: spaces.Dict(
        {
            "body": spaces.Dict({"position": box(3), "velocity": box(3)}),
            "task": spaces.Tuple([box(2), spaces.Dict({"near": box(2), "far": box(1)})]),
            "clock": box(1),
        }
    ),
}


class Canned(VectorEnv[Any, Any, Any]):
    """An all but free environment: gives the same few random observations again and again."""

    def __init__(self, space: gym.Space[Any], num_envs: int, probability: float = 0.02) -> None:
        """Args: the space, E, and the probability of an episode's end at each step."""
        self.num_envs, self.probability = num_envs, probability
        self.single_observation_space, self.single_action_space = space, spaces.Discrete(4)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        batch = batch_space(space, num_envs)
        batch.seed(0)
        self.seen = [batch.sample() for _ in range(16)]
        self.rng, self.never = np.random.default_rng(0), np.zeros(num_envs, dtype=bool)
        self.clock = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Return the next observation."""
        self.clock += 1
        return self.seen[self.clock % len(self.seen)], {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Return the next observation and a random reward."""
        ended = self.rng.random(self.num_envs) < self.probability
        return self.reset()[0], self.rng.random(self.num_envs), ended, self.never, {}


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def dicts(rounds: int) -> None:
    """Collection and learning, 8 x 128, batch 256, 4 epochs, one LSTM 64, free environments."""
    agents = {}
    for name, build in STRUCTURES.items():
        env = Canned(build(lambda n: spaces.Box(-1, 1, (n,))), 8)
        agents[name] = (PPO(env.single_observation_space, env.single_action_space, seed=0), env)
    collecting: dict[str, list[float]] = {name: [] for name in agents}
    learning: dict[str, list[float]] = {name: [] for name in agents}
    for i in range(rounds + 1):
        for name, (agent, env) in agents.items():
            c = seconds(lambda agent=agent, env=env: collect_rollouts_recurrent(agent, env))
            le = seconds(agent.learn)
            if i:
                collecting[name].append(c)
                learning[name].append(le)
    flat = "one vector"
    for name in agents:
        if name == flat:
            continue
        pairs = [
            [a / b for a, b in zip(parts[name], parts[flat], strict=True)]
            for parts in (collecting, learning)
        ]
        both = [
            (c + le) / (fc + fl)
            for c, le, fc, fl in zip(
                collecting[name], learning[name], collecting[flat], learning[flat], strict=True
            )
        ]
        print(
            f"dicts: {name} against {flat}: {statistics.median(both):.2f}x (collecting "
            f"{statistics.median(pairs[0]):.2f}x, learning {statistics.median(pairs[1]):.2f}x)",
            flush=True,
        )


def images(_: int) -> None:
    """Peak memory of learning from 84 x 84 x 4 bytes, in a process of its own for each T."""
    for steps in (32, 128, 512):
        text = f"from speed_spaces import peak; peak({steps})"
        done = subprocess.run(
            [sys.executable, "-c", text], check=True, cwd=HERE, capture_output=True, text=True
        )
        print(done.stdout, end="", flush=True)


def peak(steps: int) -> None:
    """Print what a rollout of T steps of 8 environments takes, and what learning adds to it."""
    torch.set_num_threads(1)
    env = Canned(spaces.Box(0, 255, (84, 84, 4), np.uint8), 8)
    net = {"encoder_config": {"max_seq_len": 16}}
    agent = PPO(
        env.single_observation_space,
        env.single_action_space,
        net,
        learn_step=steps,
        batch_size=128,
        update_epochs=1,
    )
    collect_rollouts_recurrent(agent, env)
    collected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    agent.learn()
    learned = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert agent.buffer is not None
    raw = steps * 8 * 84 * 84 * 4 / 2**20
    print(
        f"images: T = {steps}: buffer {agent.buffer.nbytes() / 2**20:.1f} MiB (images as bytes "
        f"{raw:.1f}), learning adds {learned - collected:.0f} MiB to the peak",
        flush=True,
    )


def convolve(rounds: int) -> None:
    """Learner's samples/s on 7 x 7 x 3 images against its convolutions and LSTM alone."""
    env = Canned(spaces.Box(0, 255, (7, 7, 3), np.uint8), 16)
    agent = PPO(
        env.single_observation_space,
        env.single_action_space,
        learn_step=128,
        batch_size=512,
        update_epochs=1,
    )
    collect_rollouts_recurrent(agent, env)
    cnn = Cnn((3, 7, 7), agent.net_config.encoder_config.cnn_config, 128)
    lstm = nn.LSTM(128, 64)
    pictures = torch.rand(512, 3, 7, 7)

    def ours() -> float:
        agent.trainer.collected = True
        return seconds(agent.learn) / 2048

    def bare() -> float:
        def work() -> None:
            for _ in range(4):
                y, _ = lstm(cnn(pictures).view(64, 8, 128))
                y.sum().backward()

        return seconds(work) / 2048

    pairs = [(ours(), bare()) for _ in range(rounds + 1)][1:]
    ratio = statistics.median(b / a for a, b in pairs)
    a, b = (1 / statistics.median(p[i] for p in pairs) for i in (0, 1))
    print(f"convolve: {a:,.0f} vs {b:,.0f} samples/s: {ratio:.0%}", flush=True)


def main() -> None:
    """Run the named parts."""
    parts = {"dicts": 15, "images": 1, "convolve": 9}
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    parser.add_argument("--rounds", type=int, help="instead of each part's own number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one torch thread")
    for name, rounds in parts.items():
        if not options.parts or name in options.parts:
            globals()[name](options.rounds or rounds)


if __name__ == "__main__":
    main()
