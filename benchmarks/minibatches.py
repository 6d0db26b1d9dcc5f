"""What dealing sequences into minibatches at random costs, and what it is good for.

    python benchmarks/minibatches.py                          # time, padding, composition
    python benchmarks/minibatches.py --learn --seeds 20 21    # masked CartPole, 100,000 steps

Compared are sequences sorted by length, as they were dealt before, with a random deal, in one
rectangle for each minibatch and in several (``recurrent_rl.buffers.minibatches``).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

import recurrent_rl.algorithms.ppo_update as learner
from recurrent_rl import (
    PPO,
    MaskVelocityWrapper,
    collect_rollouts_recurrent,
    load_tuned,
    make_vect_envs,
)
from recurrent_rl.buffers.minibatches import dealt, minibatches, rectangles

SHAPES = (  # environments, steps, batch size, chance that an episode ends at a step
    (8, 128, 256, 0.005),
    (8, 128, 256, 0.05),
    (16, 256, 512, 0.05),
    (64, 128, 2048, 0.01),
    (64, 128, 2048, 0.05),
)


def sorted_by_length(length: Tensor) -> Callable[..., Iterator[Tensor]]:
    """Return the deal of before: sequences of like length together."""

    def deal(active: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        shuffled = torch.randperm(len(active), generator=generator)
        order = shuffled[length[shuffled].argsort(stable=True)]
        return dealt(order, active, batch_size, generator)

    return deal


def whole(which: Tensor, length: Tensor) -> list[Tensor]:
    """A minibatch in one rectangle."""
    return [which]


class Endings(gym.Env[Any, Any]):
    """Noise, in episodes whose lengths are drawn; long ones are worth more."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, chance: float) -> None:
        """Args: the chance that an episode ends at a step."""
        self.chance = chance

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode."""
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 4).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        """Take a step."""
        seen = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return seen, 1.0, bool(self.np_random.random() < self.chance), False, {}


def compare(rounds: int, cell: str) -> None:
    """Print a line for each shape: time, padding and spread of mean advantages, by deal."""
    for num_envs, steps, batch_size, chance in SHAPES:
        env = make_vect_envs(
            make_env=lambda chance=chance: Endings(chance),  # type: ignore[misc]
            num_envs=num_envs,
            should_async_vector=False,
        )
        agent = PPO(
            env.single_observation_space,
            env.single_action_space,
            {"encoder_config": {"cell": cell}},
            seed=0,
            learn_step=steps,
            batch_size=batch_size,
        )
        collect_rollouts_recurrent(agent, env)
        assert agent.buffer is not None
        buffer, cuts = agent.buffer, agent.buffer.sequences()
        deals = {
            "sorted": (sorted_by_length(cuts.length), whole),
            "random": (minibatches, whole),
            "rectangles": (minibatches, rectangles),
        }
        seconds: dict[str, list[float]] = {name: [] for name in deals}
        padding = dict.fromkeys(deals, 0.0)
        for _ in range(rounds):
            for name, (learner.minibatches, learner.rectangles) in deals.items():  # type: ignore[assignment]
                agent.trainer.collected = True
                begin = time.perf_counter()
                padding[name] = agent.learn().padding
                seconds[name].append(time.perf_counter() - begin)
        advantage = buffer.targets(True)[2]
        spread = {}
        for name in ("sorted", "random"):
            generator, means = torch.Generator().manual_seed(0), []
            for _ in range(20):
                batches = [
                    buffer.batch(cuts, which, buffer.targets(True))
                    for which in deals[name][0](cuts.active, batch_size, generator)
                ]
                means.append(torch.stack([batch.advantage.mean() for batch in batches]).std())
            spread[name] = float(torch.stack(means).mean())
        base = np.median(seconds["sorted"])
        times = ", ".join(f"{np.median(seconds[name]) / base:.2f}" for name in deals)
        padded = ", ".join(f"{padding[name]:.0%}" for name in deals)
        print(
            f"{cell}, {num_envs} x {steps}, batches of {batch_size}, ends {chance}: time {times}; "
            f"padding {padded} (sorted, random, rectangles); spread of mean advantage "
            f"{spread['sorted']:.2f} sorted, {spread['random']:.2f} random; "
            f"deviation of advantages {float(advantage.std()):.2f}",
            flush=True,
        )


def learn(seeds: list[int]) -> None:
    """Train on CartPole without velocities with both deals, and test over 100 episodes."""
    tuned = load_tuned("CartPole-v1")
    cut_sequences = learner.SequenceRolloutBuffer.sequences
    for name in ("sorted", "rectangles"):
        results = []
        for seed in seeds:

            def make() -> gym.Env[Any, Any]:
                return MaskVelocityWrapper(gym.make("CartPole-v1"))

            env = make_vect_envs(make_env=make, num_envs=tuned.num_envs, should_async_vector=False)
            agent = PPO(
                env.single_observation_space,
                env.single_action_space,
                **{**tuned.agent_options(), "seed": seed},
            )
            while agent.env_steps < tuned.total_steps:
                collect_rollouts_recurrent(agent, env)
                assert agent.buffer is not None
                learner.minibatches, learner.rectangles = minibatches, rectangles
                if name == "sorted":
                    length = cut_sequences(agent.buffer).length
                    learner.minibatches = sorted_by_length(length)  # type: ignore[assignment]
                    learner.rectangles = whole
                agent.learn()
            results.append(float(agent.evaluate(make(), 100, seed=seed).mean()))
        print(f"{name}: {np.mean(results):.1f} +- {np.std(results):.1f} {results}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22, 23, 24])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.learn:
        learn(arguments.seeds)
    else:
        for cell in ("lstm", "gru"):
            compare(arguments.rounds, cell)
