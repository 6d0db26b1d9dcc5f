"""How fast is this version of the package against another, side by side?

    python benchmarks/speed_against.py 86a96a9

Two processes, one for each version, take turns: each collects and learns for some rollouts while
the other waits. Prints the median of the ratios of neighbouring turns (below 1: this version is
faster) for collecting, for learning and for both: what belongs to which may differ from version to
version. The environment costs nothing, so that all time is the package's. One torch thread; keep
the machine otherwise idle.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from equality import checkout
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv

from recurrent_rl import PPO, collect_rollouts_recurrent

SIZES = {"8 x 128": (8, 128, 256), "64 x 128": (64, 128, 2048)}


class Free(VectorEnv[Any, Any, Any]):
    """Environments that cost nothing: what they show has been computed beforehand."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - Gymnasium's way

    def __init__(self, num_envs: int, length: int = 200) -> None:
        """Args: E, steps of an episode."""
        self.num_envs, self.length, self.time = num_envs, length, 0
        self.single_observation_space = Box(-1, 1, (3,))
        self.single_action_space = Box(-2, 2, (1,))
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        random = np.random.default_rng(0)
        self.seen = random.uniform(-1, 1, (length + 1, num_envs, 3)).astype(np.float32)
        self.reward = random.normal(size=(length + 1, num_envs))
        self.no, self.yes = np.zeros(num_envs, bool), np.ones(num_envs, bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.time = 0
        return self.seen[0], {}

    def step(self, actions: Any) -> Any:
        self.time += 1
        if self.time < self.length:
            return self.seen[self.time], self.reward[self.time], self.no, self.no, {}
        self.time = 0
        info = {"final_obs": self.seen[self.length], "_final_obs": self.yes}
        return self.seen[0], self.reward[self.length], self.no, self.yes, info


def serve() -> None:
    """Measure whenever a line comes in: its size's name; answer with seconds."""
    torch.set_num_threads(1)
    runs: dict[str, tuple[PPO, Free]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in runs:
            num_envs, steps, batch_size = SIZES[name]
            env = Free(num_envs)
            net = {"encoder_config": {"hidden_size": [], "hidden_state_size": 64}}
            options: dict[str, Any] = {"learn_step": steps, "batch_size": batch_size}
            spaces = env.single_observation_space, env.single_action_space
            runs[name] = PPO(*spaces, net, seed=0, **options), env
        agent, env = runs[name]
        collecting = learning = 0.0
        for _ in range(4):
            begin = time.process_time()
            collect_rollouts_recurrent(agent, env)
            middle = time.process_time()
            agent.learn()
            collecting += middle - begin
            learning += time.process_time() - middle
        print(json.dumps([collecting, learning]), flush=True)


def process(folder: Path) -> "subprocess.Popen[str]":
    """Start a process that measures the version in a folder."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def ask(server: "subprocess.Popen[str]", name: str) -> list[float]:
    """Let one of them measure."""
    stdin, stdout = server.stdin, server.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(f"{name}\n")
    stdin.flush()
    seconds: list[float] = json.loads(stdout.readline())
    return seconds


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("revision", nargs="?", help="of git, to compare with")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    with tempfile.TemporaryDirectory() as folder:
        checkout(options.revision, Path(folder))
        here, there = process(Path(__file__).parent.parent), process(Path(folder))
        for name in SIZES:
            ask(here, name), ask(there, name)  # the first turn warms up
            rounds = []
            for i in range(options.rounds):
                order = (here, there) if i % 2 else (there, here)
                measured = {server.pid: ask(server, name) for server in order}
                mine, other = measured[here.pid], measured[there.pid]
                pairs = zip([*mine, sum(mine)], [*other, sum(other)], strict=True)
                rounds.append([a / b for a, b in pairs])
            medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
            parts = zip(("collecting", "learning", "both"), medians, strict=True)
            print(f"{name}:", ", ".join(f"{part} {ratio:.3f}" for part, ratio in parts))
        for server in (here, there):
            server.communicate()


if __name__ == "__main__":
    main()
