"""Do the default hyper-parameters get anywhere? Six small problems that need memory.

    python benchmarks/defaults.py                                  # 3 seeds, 200,000 steps each
    python benchmarks/defaults.py --problems recall-16 --seeds 0
    python benchmarks/defaults.py --set lr=3e-4 update_epochs=4    # others, to compare

PPO as it is built by ``PPO(observation_space, action_space)``, on 8 environments. Prints, for each
problem, the mean return of 100 deterministic episodes of each seed, and on how many it has learned:
reached a score that nobody reaches without memory (or, for the car, without having seen the goal).
"""

import argparse
import ast
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from probes import Probe

from recurrent_rl import PPO, MaskVelocityWrapper, collect_rollouts_recurrent, make_vect_envs

NUM_ENVS = 8


@dataclass(frozen=True)
class Problem:
    """An environment, and the return from which on it counts as learned."""

    make: Callable[[], gym.Env[Any, Any]]
    learned: float


def masked(env_id: str) -> gym.Env[Any, Any]:
    """Build Gymnasium's environment without velocities."""
    return MaskVelocityWrapper(gym.make(env_id, disable_env_checker=True))


PROBLEMS = {
    # At random -1200; without memory -1136 (100,000 steps of tuned settings), with it -180.
    "Pendulum-v1": Problem(partial(masked, "Pendulum-v1"), -600.0),
    # At random 22; a pole whose speed is not seen falls after some 50 steps, with memory never.
    "CartPole-v1": Problem(partial(masked, "CartPole-v1"), 200.0),
    # Who never sees the goal learns to do nothing: 0.
    "MountainCarContinuous-v0": Problem(partial(masked, "MountainCarContinuous-v0"), 50.0),
    # Chance, and all that can be had without memory, is 0.5.
    "recall-16": Problem(partial(Probe, "recall-16", "vector"), 0.9),
    "repeat-4": Problem(partial(Probe, "repeat-4", "vector"), 0.9),
    "recall-16, Dict": Problem(partial(Probe, "recall-16", "dict"), 0.9),
}


def run(problem: Problem, seed: int, steps: int, changes: dict[str, Any]) -> float:
    """Train, and return the mean return of 100 deterministic episodes."""
    env = make_vect_envs(make_env=problem.make, num_envs=NUM_ENVS, should_async_vector=False)
    test = make_vect_envs(make_env=problem.make, num_envs=25, should_async_vector=False)
    agent = PPO(env.single_observation_space, env.single_action_space, seed=seed, **changes)
    while agent.env_steps < steps:
        collect_rollouts_recurrent(agent, env)
        agent.learn()
    returns = agent.evaluate(test, 100, seed=1_000_000 + 1000 * seed)
    env.close()
    test.close()
    return float(np.mean(returns))


def main() -> None:
    """Train the seeds of each problem, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()

    torch.set_num_threads(1)
    changes = {k: ast.literal_eval(v) for k, v in (c.split("=", 1) for c in options.set)}
    print("| problem | learned from | returns | seeds that learned | seconds of a seed |")
    print("|---|---|---|---|---|")
    for name in options.problems:
        problem, begin = PROBLEMS[name], time.process_time()
        returns = [run(problem, seed, options.steps, changes) for seed in options.seeds]
        seconds = (time.process_time() - begin) / len(returns)
        learned = sum(r >= problem.learned for r in returns)
        figures = ", ".join(f"{r:.4g}" for r in returns)
        print(
            f"| {name} | {problem.learned:g} | {figures} | {learned} of {len(returns)} | "
            f"{seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
