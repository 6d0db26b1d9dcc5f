"""Two agents, one message: the listener must remember what it was told.

The speaker sees which of three landmarks is the goal, but cannot move. The listener can move, but
does not know the goal; it hears the speaker, who may say one of three words. Nobody tells them what
the words mean. First they learn to talk while the speaker is heard all the time; then, in half of
their episodes, and at last in all, it is heard in the first three steps only, so the listener has
to remember the word while it walks. The critics, which are needed for training only, see what both
see (MAPPO). This script trains a pair with memory and one without, the same way and at the same
time, and compares.

    make speaker                                      # everything, from a fresh clone
    python tutorials/speaker_listener.py --seed 3     # again, with another seed
    python tutorials/speaker_listener.py --steps 800000   # as in the table of results

It writes to runs/speaker_listener: the learning curves as a picture, an episode as a GIF,
TensorBoard logs, and the trained agents.
"""

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file, not a window
import matplotlib.pyplot as plt
import numpy as np
import torch
from mpe2 import simple_speaker_listener_v4
from pettingzoo import ParallelEnv
from PIL import Image

from recurrent_rl import (
    MAPPO,
    EarlyMessageWrapper,
    MetricsLogger,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
    load_tuned,
)

SETTINGS = load_tuned("simple_speaker_listener_v4-early")
HEARD_STEPS = 3
# Until this share of the training is over, the speaker is heard all the time in that share of the
# environments: a word must have a meaning before it is worth remembering.
STAGES = ((0.35, 1.0), (0.7, 0.5), (1.0, 0.0))
Curve = list[tuple[int, float]]


def make_env(heard: bool = False, render_mode: str | None = None) -> ParallelEnv:
    """One pair, whose speaker is heard all the time, or in the first steps of an episode only."""
    env = simple_speaker_listener_v4.parallel_env(max_cycles=25, render_mode=render_mode)
    if heard:
        return env
    # What the speaker says when nobody hears it is nothing to learn from.
    return EarlyMessageWrapper(env, steps=HEARD_STEPS, silent={"speaker_0": 0})


def vector(num_envs: int, heard_share: float = 0.0) -> SyncMultiAgentVectorEnv:
    """Several, in this process: these environments are too cheap for processes of their own."""
    heard = int(heard_share * num_envs)
    return SyncMultiAgentVectorEnv([partial(make_env, i < heard) for i in range(num_envs)])


def train(recurrent: bool, steps: int, seed: int, episodes: int, out: Path) -> tuple[Curve, float]:
    """Train, test and save one pair; return its learning curve and what it gets in the test.

    The curve is the mean return of each rollout's episodes.
    """
    torch.set_num_threads(1)  # networks this small only lose by sharing their work
    name = "recurrent" if recurrent else "feed-forward"
    stages = [(until, vector(SETTINGS.num_envs, share)) for until, share in STAGES]
    env = stages[0][1]
    options = SETTINGS.agent_options(total_steps=steps)
    spaces = (env.observation_spaces, env.action_spaces, env.possible_agents)
    agent = MAPPO(*spaces, seed=seed, recurrent=recurrent, **options)

    curve: Curve = []
    due = steps // 10
    with MetricsLogger(out / name) as logger:
        while agent.env_steps < steps:
            done = agent.env_steps / steps
            stats = collect_rollouts_recurrent(
                agent, next(stage for until, stage in stages if done < until)
            )
            diagnostics = agent.learn()
            if stats.returns:
                curve.append((agent.env_steps, stats.mean_return))
                logger.log(agent.env_steps, {"train/return": stats.mean_return})
            for group, found in diagnostics.items():
                values = {f"{group}/{k}": v for k, v in found.to_dict().items()}
                logger.log(agent.env_steps, values)
            if agent.env_steps >= due and curve:
                due += steps // 10
                print(f"  {name:12s} {agent.env_steps:9,} steps: {curve[-1][1]:6.1f}", flush=True)
    test = vector(10)
    returns = np.sum(list(agent.evaluate(test, episodes, seed=12345).values()), axis=0)
    for each in (*(stage for _, stage in stages), test):
        each.close()
    agent.save_checkpoint(out / name / "agents.pt")
    return curve, float(returns.mean())


def film(path: Path, checkpoint: Path, episodes: int = 4) -> float:
    """What using trained agents looks like: load them, and carry each one's memory yourself."""
    agent = MAPPO.load(checkpoint)
    env = make_env(render_mode="rgb_array")
    frames, total = [], 0.0
    for episode in range(episodes):
        obs, infos = env.reset(seed=episode)
        hidden_state = agent.get_initial_hidden_state(1)
        while env.agents:
            frames.append(Image.fromarray(np.asarray(env.render())).resize((350, 350)))
            actions, _, _, _, hidden_state = agent.get_action(
                obs, hidden_state=hidden_state, infos=infos, deterministic=True
            )
            obs, rewards, _, _, infos = env.step(actions)
            total += sum(rewards.values())
    env.close()
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)
    return total / episodes


def draw(curves: dict[str, Curve], total: int, path: Path) -> None:
    """Both learning curves in one picture, and when the speaker was turned down."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, curve), colour in zip(curves.items(), ("tab:blue", "tab:orange"), strict=True):
        steps, returns = zip(*curve, strict=True)
        axes.plot(steps, returns, label=name, color=colour)
    axes.axhline(-34, color="grey", linestyle=":", label="nobody says anything")
    for until, _ in STAGES[:-1]:
        axes.axvline(until * total, color="grey", linestyle="--", linewidth=0.8)
    axes.set_title("The speaker is heard less from each dashed line on")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of training episodes, both agents")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axes.set_ylim(bottom=-100)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train both, draw, load, film."""
    assert __doc__ is not None
    small = os.environ.get("CI") == "true"  # only to see that everything works
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = 6_400 if small else 600_000
    parser.add_argument("--steps", type=int, default=default, help="for each of the two pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/speaker_listener"))
    options = parser.parse_args()

    print(__doc__.split("\n\n", 2)[1] + "\n\nReturns of training episodes, both agents:")
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    episodes = 20 if small else 100
    names = {True: "with memory (LSTM)", False: "without memory (feed-forward)"}
    # Processes, as both can train at the same time; spawned, as torch's threads survive no fork.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        running = {
            name: pool.submit(train, recurrent, options.steps, options.seed, episodes, options.out)
            for recurrent, name in names.items()
        }
        results = {name: future.result() for name, future in running.items()}
    picture, film_path = options.out / "learning_curves.png", options.out / "episodes.gif"
    draw({name: curve for name, (curve, _) in results.items()}, options.steps, picture)
    path = options.out / "recurrent" / "agents.pt"
    by_hand = film(film_path, path)

    print(f"\nFour episodes by hand, from {path}: mean return {by_hand:.1f}; see {film_path}")
    print(f"Learning curves: {picture}. Logs: tensorboard --logdir {options.out}")
    print(f"\nMean return of {episodes} deterministic episodes, both agents, heard early only")
    print(f"after {options.steps:,} steps (seed {options.seed}; no communication: -34):")
    for name, (_, score) in results.items():
        print(f"  {name:30s} {score:7.1f}")
    print(f"Took {time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
