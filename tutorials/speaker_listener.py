"""Two agents, one message: the listener must remember what it was told.

The speaker sees which of three landmarks is the goal, but cannot move. The listener can move, but
does not know the goal; it hears the speaker, who may say one of three words. Nobody tells them what
the words mean. First they learn to talk while the speaker is heard all the time. Then it is heard
in fewer and fewer steps, in the end in the first three of an episode only, so the listener has to
remember the word while it walks. This script trains a pair with memory and one without, the same
way, and compares.

    make speaker                                      # everything, from a fresh clone
    python tutorials/speaker_listener.py --seed 3     # again, with another seed
    python tutorials/speaker_listener.py --steps 200000

It writes to runs/speaker_listener: the learning curves as a picture, an episode as a GIF,
TensorBoard logs, and the trained agents.
"""

import argparse
import os
import time
from collections.abc import Callable
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
from tqdm import tqdm

from recurrent_rl import (
    IPPO,
    EarlyMessageWrapper,
    MetricsLogger,
    MultiAgentVectorEnv,
    collect_rollouts_recurrent,
    load_tuned,
    make_multi_agent_vect_envs,
)

SETTINGS = load_tuned("simple_speaker_listener_v4-early")
HEARD_STEPS = 3
# Up to these shares of the training the speaker is heard in more steps of an episode (None: all).
HEARD_AT_FIRST = ((0.5, None), (0.58, 12), (0.66, 6))
Curve = list[tuple[int, float]]


def make_env(heard: int | None = HEARD_STEPS, render_mode: str | None = None) -> ParallelEnv:
    """One pair, whose speaker is heard in the first ``heard`` steps of an episode."""
    env = simple_speaker_listener_v4.parallel_env(max_cycles=25, render_mode=render_mode)
    if heard is None:
        return env
    # What the speaker says when nobody hears it is nothing to learn from.
    return EarlyMessageWrapper(env, steps=heard, silent={"speaker_0": 0})


def vector(make: Callable[[], ParallelEnv], num_envs: int) -> MultiAgentVectorEnv:
    """Several, in this process: these environments are too cheap for processes of their own."""
    return make_multi_agent_vect_envs(make, num_envs, should_async_vector=False)


def train(recurrent: bool, steps: int, seed: int, out: Path) -> tuple[IPPO, Curve]:
    """Train one pair; its learning curve is the mean return of each rollout's episodes."""
    name = "recurrent" if recurrent else "feed-forward"
    stages = [
        (until, vector(partial(make_env, heard), SETTINGS.num_envs))
        for until, heard in (*HEARD_AT_FIRST, (1.0, HEARD_STEPS))
    ]
    env = stages[0][1]
    options = SETTINGS.agent_options(total_steps=steps)
    spaces = (env.observation_spaces, env.action_spaces, env.possible_agents)
    agent = IPPO(*spaces, seed=seed, recurrent=recurrent, **options)
    print(f"\n{name}: {agent!r}")

    curve: Curve = []
    bar = tqdm(total=steps, unit=" steps", desc=name, mininterval=1)
    with MetricsLogger(out / name) as logger, bar:
        while agent.env_steps < steps:
            done = agent.env_steps / steps
            env = next(stage for until, stage in stages if done < until)
            stats = collect_rollouts_recurrent(agent, env)
            diagnostics = agent.learn()
            if stats.returns:
                curve.append((agent.env_steps, stats.mean_return))
                bar.set_postfix_str(f"return {stats.mean_return:.1f}")
                logger.log(agent.env_steps, {"train/return": stats.mean_return})
            for group, found in diagnostics.items():
                values = {f"{group}/{k}": v for k, v in found.to_dict().items()}
                logger.log(agent.env_steps, values)
            bar.update(stats.steps)
    for _, stage in stages:
        stage.close()
    return agent, curve


def evaluate(agent: IPPO, episodes: int) -> np.ndarray:
    """Returns of deterministic episodes, summed over both agents."""
    env = vector(make_env, 10)
    returns = agent.evaluate(env, episodes, seed=12345)
    env.close()
    both: np.ndarray = np.sum(list(returns.values()), axis=0)
    return both


def film(path: Path, checkpoint: Path, episodes: int = 4) -> float:
    """What using trained agents looks like: load them, and carry each one's memory yourself."""
    agent = IPPO.load(checkpoint)
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
    for until, _ in HEARD_AT_FIRST:
        axes.axvline(until * total, color="grey", linestyle="--", linewidth=0.8)
    axes.set_title("A speaker, heard less at each dashed line, and a listener who must remember")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of training episodes, both agents")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axes.set_ylim(bottom=-100)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train both, draw, save, load, film."""
    assert __doc__ is not None
    small = os.environ.get("CI") == "true"  # only to see that everything works
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = 6_400 if small else SETTINGS.total_steps
    parser.add_argument("--steps", type=int, default=default, help="for each of the two pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/speaker_listener"))
    options = parser.parse_args()

    print(__doc__.split("\n\n", 2)[1])
    torch.set_num_threads(1)  # networks this small only lose by sharing their work
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    curves: dict[str, Curve] = {}
    scores: dict[str, np.ndarray] = {}
    path = options.out / "agents.pt"
    for recurrent in (True, False):
        agent, curve = train(recurrent, options.steps, options.seed, options.out)
        name = "with memory (LSTM)" if recurrent else "without memory (feed-forward)"
        curves[name], scores[name] = curve, evaluate(agent, 20 if small else 100)
        if recurrent:
            agent.save_checkpoint(path)
    picture, film_path = options.out / "learning_curves.png", options.out / "episodes.gif"
    draw(curves, options.steps, picture)
    by_hand = film(film_path, path)

    print(f"\nFour episodes by hand, from {path}: mean return {by_hand:.1f}; see {film_path}")
    print(f"Learning curves: {picture}. Logs: tensorboard --logdir {options.out}")
    print(
        f"\nMean return of {len(next(iter(scores.values())))} deterministic episodes, both agents"
    )
    print(f"after {options.steps:,} steps (seed {options.seed}; no communication: -34):")
    for name, returns in scores.items():
        print(f"  {name:30s} {returns.mean():7.1f} +- {returns.std():.1f}")
    print(f"Took {time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
