"""Let four agents that must remember search for their own hyper-parameters.

How fast should an agent learn? On Pendulum without velocities a learning rate of 1e-4 gets nowhere
in 100,000 steps, and 1e-2 is a gamble. Here nobody has to know: four agents start from learning
rates and batch sizes spread over two orders of magnitude. Every 10,000 steps all are tested on the
same episodes; tournaments decide who has children, and mutations change these a little: a learning
rate, a batch size, a wider LSTM, a further layer, another activation. Networks that grow compute
what they did before, so nothing that was learned is lost.

    make evolution                                       # everything, from a fresh clone
    python tutorials/pendulum_evolution.py --seed 3      # again, with another seed
    python tutorials/pendulum_evolution.py --workers 1   # in one process; the results are the same
    python tutorials/pendulum_evolution.py --resume      # after Ctrl-C: go on where it stopped

It writes to runs/pendulum_evolution: fitness and hyper-parameters over the generations as a
picture, population.csv with everybody's parents and mutations, TensorBoard logs, checkpoints of the
whole population, and the best agent.
"""

import argparse
import csv
import itertools
import os
import time
from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")  # a file, not a window
import matplotlib.pyplot as plt
import torch

from recurrent_rl import (
    PPO,
    HyperparameterConfig,
    MaskVelocityWrapper,
    Mutations,
    RLParameter,
    TournamentSelection,
    create_population,
    load_tuned,
    make_vect_envs,
    train_on_policy,
)

ENV_ID = "Pendulum-v1"
POPULATION = 4
SETTINGS = load_tuned(ENV_ID)
# All but what is to be found, in the form that create_population takes.
FOUND = ("lr", "batch_size", "lr_schedule")
INIT_HP = {k.upper(): v for k, v in SETTINGS.hyperparameters.items() if k not in FOUND}
SMALL = os.environ.get("CI") == "true"  # only to see that everything works
if SMALL:
    INIT_HP |= {"LEARN_STEP": 32, "UPDATE_EPOCHS": 2}
SEARCHED = HyperparameterConfig(
    lr=RLParameter(min=1e-4, max=1e-2, shrink_factor=0.5, grow_factor=2),
    batch_size=RLParameter(min=64, max=1024, shrink_factor=0.5, grow_factor=2, dtype=int),
)
Row = dict[str, str]


def make_env() -> gym.Env:
    """One pendulum without its velocity."""
    return MaskVelocityWrapper(gym.make(ENV_ID))


def evolve(
    steps: int, evo_steps: int, seed: int, workers: int, out: Path, resume: bool
) -> list[PPO]:
    """Train a population, and leave logs, checkpoints and the best agent behind."""
    env = make_vect_envs(make_env=make_env, num_envs=SETTINGS.num_envs, should_async_vector=False)
    population = create_population(
        "PPO",
        env.single_observation_space,
        env.single_action_space,
        SETTINGS.net_config,
        INIT_HP,
        SEARCHED,
        POPULATION,
        SETTINGS.num_envs,
        seed=seed,
    )
    tournament = TournamentSelection(
        tournament_size=2, elitism=True, population_size=POPULATION, eval_loop=2, rand_seed=seed
    )
    mutations = Mutations(
        no_mutation=0.3,
        architecture=0.2,
        new_layer_prob=0.3,
        parameters=0.1,
        activation=0.1,
        rl_hp=0.5,
        mutation_sd=0.1,
        rand_seed=seed,
    )
    trained, _ = train_on_policy(
        env,
        ENV_ID,
        "PPO",
        population,
        INIT_HP,
        max_steps=steps,
        evo_steps=evo_steps,
        eval_loop=1 if SMALL else 3,
        tournament=tournament,
        mutation=mutations,
        save_elite=True,
        elite_path=out / "elite.pt",
        checkpoint_path=out / "population.pt",
        log_dir=out,
        resume=out / "population.pt" if resume else None,
        workers=workers,
    )
    env.close()
    return trained


def family(agent: PPO) -> str:
    """The winner's ancestors, from the first generation on."""
    lines = []
    for birth in agent.lineage:
        came = f"child of {birth.parent}" if birth.parent is not None else "first generation"
        told = birth.mutation or ""
        if birth.lost is not None:
            told += f", which cost {birth.lost:z.0f}"
        lines.append(f"  {birth.steps:7,} steps  {birth.index:3d}  {came:17s}  {told}".rstrip())
    return "\n".join(lines)


def read(path: Path) -> list[Row]:
    """Everybody in every generation."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw(rows: list[Row], winner: PPO, path: Path) -> None:
    """Fitness, learning rate and batch size over the generations; the winner's line in colour."""
    figure, axes = plt.subplots(3, figsize=(8, 9), sharex=True, layout="constrained")
    # Each ancestor, and its steps when the next one was born; it may have lived on.
    births = winner.lineage
    until = {str(a.index): b.steps for a, b in itertools.pairwise(births)}
    until[str(winner.index)] = winner.steps[-1]
    before: dict[str, Row] = {}  # the last generation, by number
    for generation in range(int(rows[-1]["generation"]) + 1):
        now = {row["index"]: row for row in rows if row["generation"] == str(generation)}
        for index, row in now.items():
            came_from = before.get(index) or before.get(row["parent"])
            ours = int(row["steps"]) <= until.get(index, 0)
            style = {"color": "tab:blue" if ours else "0.75", "zorder": 2 + ours}
            for ax, name in zip(axes, ("fitness", "lr", "batch_size"), strict=True):
                points = [row] if came_from is None else [came_from, row]
                x, y = ([float(p[key]) for p in points] for key in ("steps", name))
                ax.plot(x, y, linewidth=2 if ours else 1, **style)
                ax.plot(x[-1:], y[-1:], "o", markersize=5 if ours else 4, **style)
        before = now
    axes[0].set_title(f"{POPULATION} agents on Pendulum-v1 without velocities")
    axes[0].plot([], [], "o-", color="tab:blue", label="the winner and its ancestors")
    axes[0].plot([], [], "o-", color="0.75", label="the others")
    axes[0].legend(loc="lower right")
    for ax, name in zip(
        axes, ("mean return of test episodes", "learning rate", "batch size"), strict=True
    ):
        ax.set_ylabel(name)
        ax.grid(alpha=0.3)
    axes[1].set_yscale("log")
    axes[2].set_yscale("log", base=2)
    axes[2].yaxis.set_major_formatter("{x:.0f}")
    axes[-1].set_xlabel("environment steps of each individual")
    axes[-1].xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Evolve, draw, load the winner, test it."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = 1_024 if SMALL else 150_000
    parser.add_argument("--steps", type=int, default=default, help="of each individual")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that train at once")
    parser.add_argument("--resume", action="store_true", help="the run in --out")
    parser.add_argument("--out", type=Path, default=Path("runs/pendulum_evolution"))
    options = parser.parse_args()

    print(__doc__.split("\n\n", 2)[1])
    torch.set_num_threads(1)  # networks this small only lose by sharing their work
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    evo_steps = 256 if SMALL else 10_000
    run = (options.steps, evo_steps, options.seed, options.workers, options.out, options.resume)
    if evolve(*run)[0].steps[-1] < options.steps:
        return  # Ctrl-C; what can be gone on with has been said

    winner = PPO.load(options.out / "elite.pt")
    env = make_vect_envs(make_env=make_env, num_envs=10, should_async_vector=False)
    returns = winner.evaluate(env, 10 if SMALL else 100, seed=12345)
    env.close()
    picture = options.out / "evolution.png"
    draw(read(options.out / "population.csv"), winner, picture)
    print(f"\nFamily of the winner, number {winner.index}:\n{family(winner)}")
    print(f"\nThe winner: {winner!r}")
    print(f"learning rate {winner.config.lr:.2g}, batch size {winner.config.batch_size}")
    print(f"Fitness and hyper-parameters over the generations: {picture}")
    print(f"Logs: {options.out / 'population.csv'}, tensorboard --logdir {options.out}")
    print(
        f"\nMean return of {len(returns)} deterministic episodes after {options.steps:,} steps "
        f"each\n(seed {options.seed}; a random policy gets about -1200):"
    )
    print(f"  the winner  {returns.mean():7.0f} +- {returns.std():.0f}")
    print(f"Took {time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
