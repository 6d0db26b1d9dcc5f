"""Swing up a pendulum whose velocity you cannot see.

Pendulum-v1 shows its angle (as cosine and sine) and its angular velocity. Here the velocity is
masked. From one picture of a pendulum nobody can tell whether it rises or falls, so a policy that
sees one observation at a time must fail. Two observations tell; a policy that remembers finds the
velocity by itself. This script trains one of each, the same way, and compares.

    make pendulum                              # everything, from a fresh clone
    python tutorials/pendulum.py --seed 3      # again, with another seed
    python tutorials/pendulum.py --steps 40000

It writes to runs/pendulum: the learning curves as a picture, TensorBoard logs, and the trained
agent.
"""

import argparse
import os
import time
from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")  # a file, not a window
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from recurrent_rl import (
    PPO,
    MaskVelocityWrapper,
    MetricsLogger,
    collect_rollouts_recurrent,
    load_tuned,
    make_vect_envs,
)

ENV_ID = "Pendulum-v1"
Curve = list[tuple[int, float]]


def make_env() -> gym.Env:
    """One pendulum without its velocity."""
    return MaskVelocityWrapper(gym.make(ENV_ID))


def train(recurrent: bool, steps: int, seed: int, out: Path) -> tuple[PPO, Curve]:
    """Train one agent; its learning curve is the mean return of each rollout's episodes."""
    name = "recurrent" if recurrent else "feed-forward"
    settings = load_tuned(ENV_ID)
    env = make_vect_envs(make_env=make_env, num_envs=settings.num_envs, should_async_vector=False)
    options = settings.agent_options(total_steps=steps)
    spaces = (env.single_observation_space, env.single_action_space)
    agent = PPO(*spaces, seed=seed, recurrent=recurrent, **options)
    print(f"\n{name}: {agent!r}")

    curve: Curve = []
    bar = tqdm(total=steps, unit=" steps", desc=name, mininterval=1)
    with MetricsLogger(out / name) as logger, bar:
        while agent.env_steps < steps:
            stats = collect_rollouts_recurrent(agent, env)
            diagnostics = agent.learn()
            if stats.returns:  # a short rollout may not see an episode end
                curve.append((agent.env_steps, stats.mean_return))
                bar.set_postfix_str(f"return {stats.mean_return:.0f}")
                logger.log(agent.env_steps, {"train/return": stats.mean_return})
            values = {f"learn/{k}": v for k, v in diagnostics.to_dict().items()}
            logger.log(agent.env_steps, values)
            bar.update(stats.steps)
    env.close()
    return agent, curve


def evaluate(agent: PPO, episodes: int) -> np.ndarray:
    """Deterministic episodes; no exploration noise, no learning."""
    env = make_vect_envs(make_env=make_env, num_envs=10, should_async_vector=False)
    returns = agent.evaluate(env, episodes, seed=12345)
    env.close()
    return returns


def run_by_hand(path: Path) -> float:
    """What using a trained policy looks like: load it, and carry its memory yourself."""
    agent = PPO.load(path)
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
    """Both learning curves in one picture."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, curve), colour in zip(curves.items(), ("tab:blue", "tab:orange"), strict=True):
        steps, returns = zip(*curve, strict=True)
        axes.plot(steps, returns, label=name, color=colour)
    axes.set_title("Pendulum-v1 without velocities")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of training episodes")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train both, draw, save, load, run."""
    assert __doc__ is not None
    small = os.environ.get("CI") == "true"  # only to see that everything works
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = 2_048 if small else load_tuned(ENV_ID).total_steps
    parser.add_argument("--steps", type=int, default=default, help="for each of the two agents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pendulum"))
    options = parser.parse_args()

    print(__doc__.split("\n\n", 2)[1])
    torch.set_num_threads(1)  # networks this small only lose by sharing their work
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    curves: dict[str, Curve] = {}
    scores: dict[str, np.ndarray] = {}
    path = options.out / "agent.pt"
    for recurrent in (True, False):
        agent, curve = train(recurrent, options.steps, options.seed, options.out)
        name = "with memory (LSTM)" if recurrent else "without memory (feed-forward)"
        curves[name], scores[name] = curve, evaluate(agent, 10 if small else 100)
        if recurrent:
            agent.save_checkpoint(path)
    picture = options.out / "learning_curves.png"
    draw(curves, picture)
    by_hand = run_by_hand(path)

    print(f"\nOne episode by hand, from {path}: return {by_hand:.0f}")
    print(f"Learning curves: {picture}. Logs: tensorboard --logdir {options.out}")
    print(f"\nMean return of {len(next(iter(scores.values())))} deterministic episodes")
    print(f"after {options.steps:,} steps (seed {options.seed}; a random policy gets about -1200):")
    for name, returns in scores.items():
        print(f"  {name:30s} {returns.mean():7.0f} +- {returns.std():.0f}")
    print(f"Took {time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
