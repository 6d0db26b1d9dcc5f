"""Two agents who must find words: trained by critics that see what both do.

The speaker sees which of three landmarks is the goal, but cannot move. The listener can move, but
does not know the goal; it hears the speaker, whose words mean nothing at first. While they learn, a
critic for each sees what both see and do, and learns from a replay; when they act, each has no more
than its own view. This is MATD3 (Ackermann et al. 2019), which is MADDPG (Lowe et al. 2017) with
two critics, the lesser of which is believed.

    make matd3                                             # everything, from a fresh clone
    python tutorials/speaker_listener_matd3.py --seed 3    # again, with another seed
    python tutorials/speaker_listener_matd3.py --steps 1000000

It writes to runs/speaker_listener_matd3: the learning curve as a picture, episodes as a GIF,
TensorBoard logs, and the trained agents.
"""

import argparse
import os
import time
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
    MATD3,
    MetricsLogger,
    MultiAgentVectorEnv,
    collect_rollouts_recurrent,
    load_tuned,
    make_multi_agent_vect_envs,
)

SETTINGS = load_tuned("simple_speaker_listener_v4", "MATD3")
SILENT = -34  # return of the best listener that cannot hear
Curve = list[tuple[int, float]]


def make_env(render_mode: str | None = None) -> ParallelEnv:
    """One pair, whose actions are forces and loudnesses rather than choices."""
    return simple_speaker_listener_v4.parallel_env(
        max_cycles=25, continuous_actions=True, render_mode=render_mode
    )


def vector(num_envs: int) -> MultiAgentVectorEnv:
    """Several, in this process: these environments are too cheap for processes of their own."""
    return make_multi_agent_vect_envs(make_env, num_envs, should_async_vector=False)


def train(steps: int, seed: int, out: Path) -> tuple[MATD3, Curve]:
    """Train a pair; its learning curve is the mean return of the episodes of 10,000 steps."""
    env = vector(SETTINGS.num_envs)
    spaces = (env.observation_spaces, env.action_spaces, env.possible_agents)
    agent = MATD3(*spaces, seed=seed, **SETTINGS.agent_options())
    print(f"\n{agent!r}")

    curve: Curve = []
    ended: list[float] = []
    bar = tqdm(total=steps, unit=" steps", desc="MATD3", mininterval=1)
    with MetricsLogger(out / "logs") as logger, bar:
        while agent.env_steps < steps:
            stats = collect_rollouts_recurrent(agent, env)
            diagnostics = agent.learn()
            ended += stats.returns
            bar.update(stats.steps)
            if len(ended) >= 400:  # of 25 steps each
                curve.append((agent.env_steps, float(np.mean(ended))))
                ended.clear()
                bar.set_postfix_str(f"return {curve[-1][1]:.1f}")
                logger.log(agent.env_steps, {"train/return": curve[-1][1]})
                for group, found in diagnostics.items():
                    values = {f"{group}/{k}": v for k, v in found.to_dict().items()}
                    logger.log(agent.env_steps, values)
    env.close()
    return agent, curve


def evaluate(agent: MATD3, episodes: int) -> np.ndarray:
    """Returns of deterministic episodes, summed over both agents."""
    env = vector(10)
    returns = agent.evaluate(env, episodes, seed=12345)
    env.close()
    both: np.ndarray = np.sum(list(returns.values()), axis=0)
    return both


def film(path: Path, checkpoint: Path, episodes: int = 4) -> float:
    """What using trained agents looks like: load them, and let each act on what it sees."""
    agent = MATD3.load(checkpoint)
    env = make_env("rgb_array")
    frames, total = [], 0.0
    for episode in range(episodes):
        obs, infos = env.reset(seed=episode)
        while env.agents:
            frames.append(Image.fromarray(np.asarray(env.render())).resize((350, 350)))
            actions = agent.get_action(obs, infos=infos, deterministic=True).action
            obs, rewards, _, _, infos = env.step(actions)
            total += sum(rewards.values())
    env.close()
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)
    return total / episodes


def draw(curve: Curve, path: Path) -> None:
    """The learning curve, and what a pair without words can reach."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    if curve:
        steps, returns = zip(*curve, strict=True)
        axes.plot(steps, returns, label="MATD3, while exploring", color="tab:blue")
    axes.axhline(SILENT, color="grey", linestyle=":", label="nobody says anything")
    axes.set_title("A speaker and a listener who must find words")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of training episodes, both agents")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axes.set_ylim(bottom=-100)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train, draw, save, load, film."""
    assert __doc__ is not None
    small = os.environ.get("CI") == "true"  # only to see that everything works
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = 4_000 if small else 400_000
    parser.add_argument("--steps", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/speaker_listener_matd3"))
    options = parser.parse_args()

    print(__doc__.split("\n\n", 2)[1])
    torch.set_num_threads(1)  # networks this small only lose by sharing their work
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    agent, curve = train(options.steps, options.seed, options.out)
    path, picture = options.out / "agents.pt", options.out / "learning_curve.png"
    agent.save_checkpoint(path)
    draw(curve, picture)
    returns = evaluate(agent, 10 if small else 100)
    film_path = options.out / "episodes.gif"
    by_hand = film(film_path, path)

    print(f"\nFour episodes by hand, from {path}: mean return {by_hand:.1f}; see {film_path}")
    print(f"Learning curve: {picture}. Logs: tensorboard --logdir {options.out}")
    print(f"\nMean return of {len(returns)} deterministic episodes, both agents,")
    print(f"after {options.steps:,} steps (seed {options.seed}; no communication: {SILENT}):")
    print(f"  {returns.mean():.1f} +- {returns.std():.1f}")
    print(f"Took {time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
