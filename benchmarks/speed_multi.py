"""Speed with several agents, as ratios measured in one run.

    python benchmarks/speed_multi.py                # everything (the peer is installed at first)
    python benchmarks/speed_multi.py crowd workers  # some of it

    peer      end to end on simple_spread against AgileRL's feed-forward IPPO, the same work, all
              cores each
    workers   simple_spread in this process and in workers, alone and with a policy
    crowd     time for each agent step as the agents of a group grow, on an environment that costs
              next to nothing
    central   MAPPO against IPPO on simple_spread, with what all agents see and with the state

Medians over alternating rounds; absolute figures drift from machine to machine.
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

import numpy as np
import torch
from gymnasium import spaces
from mpe2 import simple_spread_v3
from pettingzoo import ParallelEnv

from recurrent_rl import IPPO, MAPPO, collect_rollouts_recurrent, make_multi_agent_vect_envs
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv

HERE = Path(__file__).parent
PEER_PACKAGES = ["torch==2.13.0", "agilerl==2.58.0", "peft", "mpe2==1.1.1"]
ROLLOUTS = 8  # to time
NETWORK = {"hidden_size": [], "hidden_state_size": 64, "max_seq_len": 16}


class Crowd(ParallelEnv):
    """Agents that see the same few numbers and are told nothing of interest: almost free."""

    metadata: dict[str, Any] = {"name": "crowd"}  # noqa: RUF012 - PettingZoo's own form

    def __init__(self, size: int, length: int = 64) -> None:
        """Build a crowd of ``size``."""
        self.possible_agents = [f"one_{i}" for i in range(size)]
        self.length = length
        self._seen = {a: np.full(8, 0.1, np.float32) for a in self.possible_agents}
        self._reward = dict.fromkeys(self.possible_agents, 1.0)
        self._no = dict.fromkeys(self.possible_agents, False)
        self._yes = dict.fromkeys(self.possible_agents, True)

    def observation_space(self, agent: str) -> spaces.Box:
        """Eight numbers."""
        return spaces.Box(-1, 1, (8,))

    def action_space(self, agent: str) -> spaces.Discrete:
        """Four choices."""
        return spaces.Discrete(4)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        """Start."""
        self.time, self.agents = 0, list(self.possible_agents)
        return self._seen, {}

    def step(self, actions: dict[str, Any]) -> Any:
        """Count."""
        self.time += 1
        over = self.time == self.length
        if over:
            self.agents = []
        return self._seen, self._reward, self._no, self._yes if over else self._no, {}


COMMON: dict[str, Any] = {}  # options of all agents


def make_agent(env: MultiAgentVectorEnv, kind: Any = IPPO, **options: Any) -> Any:
    """One LSTM(64) for actor and critic, heads with one hidden layer of 64."""
    net = {"encoder_config": NETWORK, "head_config": {"hidden_size": [64]}}
    options = {**COMMON, "normalize_reward": False, **options}  # as the peer does
    return kind(
        env.observation_spaces, env.action_spaces, env.possible_agents, net, seed=0, **options
    )


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def cycle(agent: Any, env: MultiAgentVectorEnv) -> None:
    """Collect one rollout and learn from it."""
    collect_rollouts_recurrent(agent, env)
    if not COMMON.get("compiled"):  # kernels in C take one thread
        torch.set_num_threads(os.cpu_count() or 1)  # while learning the workers are idle
    agent.learn()
    torch.set_num_threads(1)


def crowd(rounds: int) -> None:
    """Time for each agent step, learning included, as a group grows."""
    sizes, steps = (1, 4, 16, 64), 64
    runs = []
    for size in sizes:
        env = make_multi_agent_vect_envs(lambda n=size: Crowd(n), 8, should_async_vector=False)
        agent = make_agent(env, learn_step=steps, batch_size=steps * 8 * size // 4)
        cycle(agent, env)
        runs.append((agent, env))
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, (agent, env) in zip(sizes, runs, strict=True):
            times[size].append(seconds(lambda a=agent, e=env: cycle(a, e)))
    each = {size: statistics.median(t) / (steps * 8 * size) * 1e6 for size, t in times.items()}
    print("crowd: us an agent step, by agents in the group: ", end="")
    print(", ".join(f"{size}: {us:.1f}" for size, us in each.items()))


def workers(rounds: int) -> None:
    """Environment steps a second of simple_spread, 16 environments, 128 steps."""
    count, steps = 16, 128
    vectors = {
        name: make_multi_agent_vect_envs(
            simple_spread_v3.parallel_env, count, max_cycles=25, **options
        )
        for name, options in (
            ("in this process", {"should_async_vector": False}),
            ("in a worker for each core", {"num_workers": os.cpu_count()}),
            ("in workers and in this process", {"use_main_process": True}),
        )
    }

    def alone(env: MultiAgentVectorEnv) -> None:
        for _ in range(steps):
            env.step_rows()

    results: dict[tuple[str, str], list[float]] = {}
    agents = {name: make_agent(env, learn_step=steps) for name, env in vectors.items()}
    for name, env in vectors.items():
        collect_rollouts_recurrent(agents[name], env)
    for _ in range(rounds):
        for name, env in vectors.items():
            env.reset_rows(env.seeds(0))
            for what, work in (
                ("alone", lambda e=env: alone(e)),
                (
                    "with a policy",
                    lambda n=name, e=env: collect_rollouts_recurrent(agents[n], e, reset=True),
                ),
            ):
                results.setdefault((name, what), []).append(count * steps / seconds(work))
    for (name, what), rates in results.items():
        print(f"workers: {name}, {what}: {statistics.median(rates):,.0f} steps/s")
    for env in vectors.values():
        env.close()


def central(rounds: int) -> None:
    """MAPPO's time for a step against IPPO's, both with an encoder for the critic alone."""
    count, steps = 16, 128
    for what in ("joined", "state"):
        env = make_multi_agent_vect_envs(
            simple_spread_v3.parallel_env, count, should_async_vector=False, max_cycles=25
        )
        options = {"learn_step": steps, "batch_size": 512, "share_encoders": False}
        view = {"state_space": env.state_space} if what == "state" else {}
        sides = (
            make_agent(env, MAPPO, value_norm=True, **view, **options),
            make_agent(env, IPPO, **options),
        )
        for agent in sides:
            cycle(agent, env)
        times = [[seconds(lambda a=a, e=env: cycle(a, e)) for a in sides] for _ in range(rounds)]
        ratio = statistics.median(mappo / ippo for mappo, ippo in times)
        each = [statistics.median(t) / (count * steps) * 1e6 for t in zip(*times, strict=True)]
        print(
            f"central: {what}: MAPPO {each[0]:.0f} vs IPPO {each[1]:.0f} us a step: {ratio:.2f}x",
            flush=True,
        )
        env.close()


def peer_python(folder: Path) -> Path:
    """The peer's own environment, made when it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(PEER_PACKAGES)} into {folder}", flush=True)
        venv.create(folder, with_pip=True)
        for package in PEER_PACKAGES:  # torch first: its pin decides what the rest brings
            subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return python


def peer(rounds: int, folder: Path) -> None:
    """End to end: environment steps a second on simple_spread, collection and learning."""
    python = peer_python(folder)
    for count, steps, batch in ((8, 128, 256), (16, 128, 512)):

        def ours(count: int = count, steps: int = steps, batch: int = batch) -> float:
            env = make_multi_agent_vect_envs(
                simple_spread_v3.parallel_env, count, use_main_process=True, max_cycles=25
            )
            agent = make_agent(env, learn_step=steps, batch_size=batch, update_epochs=4)
            cycle(agent, env)
            took = seconds(lambda: [cycle(agent, env) for _ in range(ROLLOUTS)])
            env.close()
            return ROLLOUTS * count * steps / took

        def theirs(count: int = count, steps: int = steps, batch: int = batch) -> float:
            work = {"num-envs": count, "learn-step": steps, "batch-size": batch, "rollouts": 3}
            options = [f"--{name}={value}" for name, value in work.items()]
            done = subprocess.run(
                [python, HERE / "peer_agilerl.py", *options],
                capture_output=True,
                text=True,
                check=True,
            )
            return float(json.loads(done.stdout.splitlines()[-1])["steps_per_second"])

        pairs = [(ours(), theirs()) for _ in range(rounds)]
        rates = [statistics.median(side) for side in zip(*pairs, strict=True)]
        ratio = statistics.median(a / b for a, b in pairs)
        print(
            f"peer: {count} x {steps}, batch {batch}, 4 epochs: {rates[0]:,.0f} (LSTM 64) vs "
            f"{rates[1]:,.0f} (feed-forward) steps/s: {ratio:.1f}x",
            flush=True,
        )


def main() -> None:
    """Run the named parts."""
    parts = {"crowd": 9, "workers": 5, "central": 7, "peer": 3}
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    parser.add_argument("--rounds", type=int, help="of each part")
    parser.add_argument("--peer-venv", type=Path, default=Path(".venv-peer-agilerl"))
    parser.add_argument("--compiled", action="store_true", help="learn by kernels in C")
    options = parser.parse_args()
    COMMON["compiled"] = options.compiled
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    for name, rounds in parts.items():
        if options.parts and name not in options.parts:
            continue
        if name == "peer":
            peer(options.rounds or rounds, options.peer_venv)
        else:
            globals()[name](options.rounds or rounds)


if __name__ == "__main__":
    main()
