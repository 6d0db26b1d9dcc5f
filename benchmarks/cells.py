"""What each kind of recurrent cell costs, against the LSTM in the same run.

    python benchmarks/cells.py                        # all cells, 64 and 128 units
    python benchmarks/cells.py --cells gru --units 64

For 8 x 128 steps (minibatches of 256) and 64 x 128 (2048), one torch thread: the processor's time
of a whole ``learn`` (PPO, one layer, the default MLP and heads), of the core alone (forward and
backward, with as many sequences as the learner has), and of one step while acting, each as a ratio
to the LSTM's. All sides take turns; ratios are medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch

from recurrent_rl import PPO, collect_rollouts_recurrent, make_vect_envs
from recurrent_rl.recurrent.cells import CellKind
from recurrent_rl.recurrent.core import RecurrentCore

SHAPES = ((8, 128, 256), (64, 128, 2048))  # environments, steps, batch size
LENGTH = 64  # of training sequences
INPUTS = 64


class Noise(gym.Env[Any, Any]):
    """Noise, in episodes of 200 steps."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode."""
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        """Take a step."""
        self.time += 1
        seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return seen, float(seen[0]), False, self.time == 200, {}


def learning(cell: CellKind, units: int, shape: tuple[int, int, int]) -> Callable[[], Any]:
    """Return a call that learns from one rollout, again and again."""
    num_envs, steps, batch_size = shape
    env = make_vect_envs(make_env=Noise, num_envs=num_envs, should_async_vector=False)
    encoder = {"cell": cell, "hidden_state_size": units, "max_seq_len": LENGTH}
    agent = PPO(
        env.single_observation_space,
        env.single_action_space,
        {"encoder_config": encoder},
        seed=0,
        learn_step=steps,
        batch_size=batch_size,
    )
    collect_rollouts_recurrent(agent, env)

    def learn() -> None:
        agent.trainer.collected = True
        agent.learn()

    return learn


def passing(cell: CellKind, units: int, shape: tuple[int, int, int]) -> Callable[[], Any]:
    """Return a call of the core's forward and backward pass over a minibatch."""
    core = RecurrentCore(INPUTS, units, 1, cell)
    x = torch.randn(LENGTH, shape[2] // LENGTH, INPUTS, requires_grad=True)
    state = core.initial_state(x.shape[1])
    return lambda: core(x, state)[0].sum().backward()


def acting(cell: CellKind, units: int, shape: tuple[int, int, int]) -> Callable[[], Any]:
    """Return a call of 50 steps of the core."""
    core = RecurrentCore(INPUTS, units, 1, cell)
    x, begin = torch.randn(shape[0], INPUTS), core.initial_state(shape[0])

    @torch.no_grad()
    def act() -> None:
        state = begin
        for _ in range(50):
            _, state = core.step(x, state)

    return act


def compare(calls: dict[str, Callable[[], Any]], rounds: int) -> tuple[float, dict[str, float]]:
    """Return the LSTM's median seconds, and the median ratio of each to it, from turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 2):  # the first two warm up
        for name, call in calls.items():
            begin = time.process_time()
            call()
            if i > 1:
                seconds[name].append(time.process_time() - begin)
    base = seconds["lstm"]
    ratios = {
        name: statistics.median(a / b for a, b in zip(each, base, strict=True))
        for name, each in seconds.items()
    }
    return statistics.median(base), ratios


def main() -> None:
    """Print a line for each size and kind of work."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    kinds = get_args(CellKind)
    parser.add_argument("--cells", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--units", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = list(dict.fromkeys(("lstm", *options.cells)))
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one torch thread")
    print(f"| work | LSTM, ms | {' | '.join(cells)} |\n|---|---|{'---|' * len(cells)}")
    for units in options.units:
        for shape in SHAPES:
            size = f"{shape[0]} x {shape[1]}, batch {shape[2]}, {units} units"
            for name, make in (("learn", learning), ("core alone", passing), ("step", acting)):
                calls = {cell: make(cell, units, shape) for cell in cells}
                rounds = options.rounds if make is learning else 4 * options.rounds
                base, ratios = compare(calls, rounds)
                scale = 1e3 / 50 if make is acting else 1e3
                row = " | ".join(f"{ratios[cell]:.2f}" for cell in cells)
                print(f"| {name}, {size} | {base * scale:.3f} | {row} |", flush=True)


if __name__ == "__main__":
    main()
