"""Does evolution find good hyper-parameters? Against random ones that stay as they are.

For each seed a population of 4 on Pendulum without velocities, started from learning rates spread
over 1e-4 to 1e-2, and 12 single agents with random learning rates and batch sizes from the same
ranges, all for as many environment steps each. Deterministic evaluation over 100 episodes.

    python benchmarks/evolution.py                       # seeds 10 to 12, 150,000 steps
    python benchmarks/evolution.py --plain               # from a tutorial's untuned settings
    python benchmarks/evolution.py --speed               # one worker against two
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
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


@dataclass(frozen=True)
class Recipe:
    """What agents start from, what is searched, and how."""

    net_config: dict[str, Any]
    init_hp: dict[str, Any]
    searched: HyperparameterConfig
    eval_loop: int  # evaluations that fitness is the mean of
    mutations: tuple[float, ...]


SETTINGS = load_tuned("Pendulum-v1")
FOUND = ("lr", "batch_size", "lr_schedule")
TUNED = Recipe(
    SETTINGS.net_config,
    {k.upper(): v for k, v in SETTINGS.hyperparameters.items() if k not in FOUND},
    HyperparameterConfig(
        lr=RLParameter(min=1e-4, max=1e-2, shrink_factor=0.5, grow_factor=2),
        batch_size=RLParameter(min=64, max=1024, shrink_factor=0.5, grow_factor=2, dtype=int),
    ),
    2,
    (0.3, 0.2, 0.3, 0.1, 0.1, 0.5),
)
# What a tutorial for another library starts from, and searches. Long rollouts, few updates.
PLAIN = Recipe(
    {"encoder_config": {"hidden_state_size": 64, "num_layers": 1, "max_seq_len": 1024}},
    {
        "BATCH_SIZE": 256,
        "LR": 1e-3,
        "LEARN_STEP": 1024,
        "GAMMA": 0.9,
        "GAE_LAMBDA": 0.95,
        "ACTION_STD_INIT": 0.6,
        "CLIP_COEF": 0.2,
        "ENT_COEF": 0.0,
        "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5,
        "UPDATE_EPOCHS": 4,
    },
    HyperparameterConfig(
        lr=RLParameter(min=1e-4, max=1e-2), batch_size=RLParameter(min=8, max=1024, dtype=int)
    ),
    3,
    (0.4, 0.2, 0.2, 0.2, 0.2, 0.2),
)


def make_env() -> gym.Env:
    """One pendulum without its velocity."""
    return MaskVelocityWrapper(gym.make("Pendulum-v1", disable_env_checker=True))


def build(num_envs: int = SETTINGS.num_envs) -> gym.vector.VectorEnv:
    """A vector of them in this process."""
    return make_vect_envs(make_env=make_env, num_envs=num_envs, should_async_vector=False)


def population(recipe: Recipe, size: int, seed: int) -> list[PPO]:
    """Agents from spread hyper-parameters; the first has the recipe's own."""
    env = build(1)
    return create_population(
        "PPO",
        env.single_observation_space,
        env.single_action_space,
        recipe.net_config,
        recipe.init_hp,
        recipe.searched,
        size,
        seed=seed,
    )


def evolve(
    recipe: Recipe, agents: list[PPO], seed: int, options: argparse.Namespace, workers: int
) -> PPO:
    """The best member of an evolved population."""
    with tempfile.TemporaryDirectory() as folder:
        elite = Path(folder) / "elite.pt"
        train_on_policy(
            build(),
            "Pendulum-v1",
            "PPO",
            agents,
            max_steps=options.steps,
            evo_steps=options.evo_steps,
            eval_loop=options.eval_loop,
            tournament=TournamentSelection(2, True, len(agents), recipe.eval_loop, rand_seed=seed),
            mutation=Mutations(*recipe.mutations, rand_seed=seed),
            save_elite=True,
            elite_path=elite,
            log_dir=folder,
            workers=workers,
            verbose=False,
        )
        return PPO.load(elite)


def spread(seed: int) -> list[PPO]:
    """Four agents over the whole range: the first of five, with its own values, is left out."""
    return population(TUNED, 5, seed)[1:]


def fixed(seed: int, options: argparse.Namespace) -> list[PPO]:
    """Agents with random hyper-parameters, trained and tested alike, without selection."""
    agents = population(TUNED, options.random, seed + 1000)
    random = np.random.default_rng(seed)
    for agent in agents:
        ranges = TUNED.searched.parameters.items()
        agent.reconfigure(**{name: p.between(random.random()) for name, p in ranges})
    trained, _ = train_on_policy(
        build(),
        "Pendulum-v1",
        "PPO",
        agents,
        max_steps=options.steps,
        evo_steps=options.evo_steps,
        eval_loop=options.eval_loop,
        workers=options.workers,
        verbose=False,
    )
    return trained


def score(agent: PPO, episodes: int) -> float:
    """Mean return of deterministic episodes."""
    return float(agent.evaluate(build(20), episodes, seed=12345).mean())


def found(best: PPO, seed: int, episodes: int) -> dict[str, Any]:
    """What to report of the winner."""
    return {
        "seed": seed,
        "evolved": round(score(best, episodes), 1),
        "lr": float(f"{best.config.lr:.3g}"),
        "batch_size": best.config.batch_size,
    }


def compare(options: argparse.Namespace) -> None:
    """Evolution against fixed random settings."""
    for seed in options.seeds:
        best = evolve(TUNED, spread(seed), seed, options, options.workers)
        result = found(best, seed, options.episodes)
        scores = sorted(round(score(agent, options.episodes), 1) for agent in fixed(seed, options))
        result |= {"random_median": round(statistics.median(scores), 1), "random": scores}
        print(json.dumps(result), flush=True)


def plain(options: argparse.Namespace) -> None:
    """Evolution from a tutorial's settings, all else by default."""
    scores = []
    for seed in options.seeds:
        best = evolve(PLAIN, population(PLAIN, 4, seed), seed, options, options.workers)
        result = found(best, seed, options.episodes)
        scores.append(result["evolved"])
        changes = [birth.mutation for birth in best.lineage if birth.mutation]
        print(json.dumps({**result, "mutations": changes}), flush=True)
    print(json.dumps({"mean": round(np.mean(scores), 1), "std": round(np.std(scores), 1)}))


def speed(options: argparse.Namespace) -> None:
    """Wall time of a population with one worker and with two, alternating."""
    ratios = []
    for seed in range(options.repeats):
        seconds = {}
        for workers in (1, 2):
            begin = time.perf_counter()
            evolve(TUNED, spread(seed), seed, options, workers)
            seconds[workers] = round(time.perf_counter() - begin, 1)
        ratios.append(round(seconds[1] / seconds[2], 2))
        print(json.dumps({"seconds": seconds, "ratio": ratios[-1]}), flush=True)
    print(json.dumps({"median_ratio": statistics.median(ratios)}))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--steps", type=int, default=150_000, help="of each agent")
    parser.add_argument("--evo-steps", type=int, default=10_000)
    parser.add_argument("--random", type=int, default=12, help="agents with fixed settings")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="a tutorial's settings instead")
    parser.add_argument("--speed", action="store_true", help="measure workers instead")
    parser.add_argument("--repeats", type=int, default=3, help="of the measurement of speed")
    parser.add_argument("--eval-loop", type=int, default=3, help="episodes of each test")
    parser.add_argument("--episodes", type=int, default=100, help="of the final score")
    parser.add_argument("--learn-step", type=int, help="not the recipe's, for a quick look")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.learn_step:
        for recipe in (TUNED, PLAIN):
            recipe.init_hp["LEARN_STEP"] = options.learn_step
    part = plain if options.plain else speed if options.speed else compare
    part(options)


if __name__ == "__main__":
    main()
