"""The pendulum without velocities again, learned from a replay: as well, from a fifth of the steps.

PPO learns from each rollout and throws it away. SAC keeps what it has gone through, and learns from
it again and again: sequences, each from the memory that the agent had when it began. This script
trains SAC with memory, SAC without, and PPO with memory, two of them at a time, and draws all three
over the environment's steps.

    make replay                                         # everything, from a fresh clone
    python tutorials/pendulum_off_policy.py --seed 3    # again, with another seed

It writes to runs/pendulum_off_policy: the learning curves as a picture, TensorBoard logs, and the
trained agent.
"""

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")  # a file, not a window
import matplotlib.pyplot as plt
import numpy as np
import torch

from recurrent_rl import (
    PPO,
    SAC,
    MaskVelocityWrapper,
    MetricsLogger,
    collect_rollouts_recurrent,
    load_tuned,
    make_vect_envs,
)

ENV_ID = "Pendulum-v1"
# Name, class, and what differs from its tuned settings.
AGENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SAC with memory": (SAC, {}),
    "SAC without memory": (SAC, {"recurrent": False, "batch_size": 256}),
    "PPO with memory": (PPO, {}),
}
Curve = list[tuple[int, float]]


def make_env() -> gym.Env:
    """One pendulum without its velocity."""
    return MaskVelocityWrapper(gym.make(ENV_ID))


def train(name: str, steps: int, seed: int, episodes: int, out: Path) -> tuple[Curve, np.ndarray]:
    """Train one agent, and save it.

    Returns:
        curve: the mean return of the episodes that ended, about each 800 steps.
        returns: of deterministic episodes at the end.

    """
    torch.set_num_threads(1)  # networks this small only lose by sharing their work
    kind, changes = AGENTS[name]
    settings = load_tuned(ENV_ID, kind.__name__)
    env = make_vect_envs(make_env=make_env, num_envs=settings.num_envs, should_async_vector=False)
    options = {**settings.agent_options(steps), **changes}
    agent = kind(env.single_observation_space, env.single_action_space, seed=seed, **options)

    curve: Curve = []
    ended: list[float] = []
    with MetricsLogger(out / name.replace(" ", "_")) as logger:
        while agent.env_steps < steps:
            # SAC learns after each few steps, PPO after each rollout; the loop is the same.
            ended += collect_rollouts_recurrent(agent, env).returns
            diagnostics = agent.learn()
            if len(ended) >= 4:
                curve.append((agent.env_steps, float(np.mean(ended))))
                ended.clear()
                values = {f"learn/{k}": v for k, v in diagnostics.to_dict().items()}
                logger.log(agent.env_steps, {"train/return": curve[-1][1], **values})
    env.close()
    agent.save_checkpoint(out / f"{name.replace(' ', '_')}.pt")
    test_env = make_vect_envs(make_env=make_env, num_envs=10, should_async_vector=False)
    returns = agent.evaluate(test_env, episodes, seed=12345)
    test_env.close()
    return curve, returns


def train_all(
    steps: dict[str, int], seed: int, episodes: int, out: Path
) -> dict[str, tuple[Curve, np.ndarray]]:
    """Train all agents, each in a process, two at a time."""
    results = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(train, name, steps[name], seed, episodes, out): name for name in steps}
        for job in as_completed(jobs):
            name = jobs[job]
            results[name] = job.result()
            returns = results[name][1]
            print(f"{name}: return {returns.mean():.0f} after {steps[name]:,} steps", flush=True)
    return {name: results[name] for name in steps}


def run_by_hand(path: Path) -> float:
    """What using a trained policy looks like: load it, and carry its memory yourself."""
    agent = SAC.load(path)
    env = make_env()
    obs, _ = env.reset(seed=7)
    hidden_state = agent.get_initial_hidden_state(1)
    done, total = False, 0.0
    while not done:
        action, _, _, _, hidden_state = agent.get_action(
            obs, hidden_state=hidden_state, deterministic=True
        )
        obs, reward, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
        total += float(reward)
    env.close()
    return total


def draw(curves: dict[str, Curve], path: Path) -> None:
    """All learning curves in one picture."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    colours: Sequence[str] = ("tab:blue", "tab:orange", "tab:green")
    for (name, curve), colour in zip(curves.items(), colours, strict=True):
        if curve:
            steps, returns = zip(*curve, strict=True)
            axes.plot(steps, returns, label=name, color=colour)
    axes.set_title("Pendulum-v1 without velocities")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of training episodes")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train all three, draw, load, run."""
    assert __doc__ is not None
    small = os.environ.get("CI") == "true"  # only to see that everything works
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, help="of each agent; the default is as tuned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pendulum_off_policy"))
    options = parser.parse_args()

    print(__doc__.split("\n\n", 2)[1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    tuned = {n: load_tuned(ENV_ID, kind.__name__).total_steps for n, (kind, _) in AGENTS.items()}
    given = 1_040 if small else options.steps  # SAC learns from 1,000 on
    steps = tuned if given is None else dict.fromkeys(tuned, given)
    results = train_all(steps, options.seed, 10 if small else 100, options.out)
    picture, path = options.out / "learning_curves.png", options.out / "SAC_with_memory.pt"
    draw({name: curve for name, (curve, _) in results.items()}, picture)

    print(f"\nOne episode by hand, from {path}: return {run_by_hand(path):.0f}")
    print(f"Learning curves: {picture}. Logs: tensorboard --logdir {options.out}")
    print(f"\nMean return of {len(next(iter(results.values()))[1])} deterministic episodes")
    print(f"(seed {options.seed}; a random policy gets about -1200):")
    for name, (_, returns) in results.items():
        print(f"  {name:20s} {returns.mean():7.0f} +- {returns.std():3.0f} ", end="")
        print(f"after {steps[name]:7,} steps")
    print(f"Took {time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
