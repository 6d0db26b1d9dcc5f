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
from pathlib import Path

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

SETTINGS = load_tuned("Pendulum-v1")
FOUND = ("lr", "batch_size", "lr_schedule")
INIT_HP = {k.upper(): v for k, v in SETTINGS.hyperparameters.items() if k not in FOUND}
SEARCHED = HyperparameterConfig(
    lr=RLParameter(min=1e-4, max=1e-2, shrink_factor=0.5, grow_factor=2),
    batch_size=RLParameter(min=64, max=1024, shrink_factor=0.5, grow_factor=2, dtype=int),
)
# What a tutorial for another library starts from, and searches. Long rollouts, few updates.
PLAIN_HP = {
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
}
PLAIN_NET = {"encoder_config": {"hidden_state_size": 64, "num_layers": 1, "max_seq_len": 1024}}
PLAIN_SEARCHED = HyperparameterConfig(
    lr=RLParameter(min=1e-4, max=1e-2), batch_size=RLParameter(min=8, max=1024, dtype=int)
)


def make_env() -> gym.Env:
    """One pendulum without its velocity."""
    return MaskVelocityWrapper(gym.make("Pendulum-v1", disable_env_checker=True))


def build(num_envs: int = SETTINGS.num_envs) -> gym.vector.VectorEnv:
    """A vector of them in this process."""
    return make_vect_envs(make_env=make_env, num_envs=num_envs, should_async_vector=False)


def population(size: int, seed: int) -> list[PPO]:
    """Agents from spread hyper-parameters; only the first has fixed ones."""
    env = build(1)
    return create_population(
        "PPO",
        env.single_observation_space,
        env.single_action_space,
        SETTINGS.net_config,
        INIT_HP,
        SEARCHED,
        size,
        seed=seed,
    )


def evolve(seed: int, steps: int, evo_steps: int, workers: int, folder: Path) -> PPO:
    """The best member of an evolved population."""
    # Spread over the whole range: the first of five, with its fixed values, is left out.
    agents = population(5, seed)[1:]
    train_on_policy(
        build(),
        "Pendulum-v1",
        "PPO",
        agents,
        max_steps=steps,
        evo_steps=evo_steps,
        eval_loop=3,
        tournament=TournamentSelection(2, True, 4, 2, rand_seed=seed),
        mutation=Mutations(0.3, 0.2, 0.3, 0.1, 0.1, 0.5, rand_seed=seed),
        save_elite=True,
        elite_path=folder / "elite.pt",
        log_dir=folder,
        workers=workers,
        verbose=False,
    )
    return PPO.load(folder / "elite.pt")


def fixed(seed: int, steps: int, evo_steps: int, workers: int, count: int) -> list[PPO]:
    """Agents with random hyper-parameters, trained and tested alike, without selection."""
    agents = population(count, seed + 1000)
    random = np.random.default_rng(seed)
    for agent in agents:
        agent.reconfigure(
            **{name: p.between(random.random()) for name, p in SEARCHED.parameters.items()}
        )
    trained, _ = train_on_policy(
        build(),
        "Pendulum-v1",
        "PPO",
        agents,
        max_steps=steps,
        evo_steps=evo_steps,
        eval_loop=3,
        workers=workers,
        verbose=False,
    )
    return trained


def evolve_plain(seed: int, steps: int, evo_steps: int, workers: int, folder: Path) -> PPO:
    """The best member of a population with a tutorial's settings, and all else by default."""
    env = build()
    agents = create_population(
        "PPO",
        env.single_observation_space,
        env.single_action_space,
        PLAIN_NET,
        PLAIN_HP,
        PLAIN_SEARCHED,
        4,
        env.num_envs,
        seed=seed,
    )
    train_on_policy(
        env,
        "Pendulum-v1",
        "PPO",
        agents,
        max_steps=steps,
        evo_steps=evo_steps,
        eval_loop=3,
        tournament=TournamentSelection(2, True, 4, 3, rand_seed=seed),
        mutation=Mutations(0.4, 0.2, 0.2, 0.2, 0.2, 0.2, rand_seed=seed),
        save_elite=True,
        elite_path=folder / "elite.pt",
        log_dir=folder,
        workers=workers,
        verbose=False,
    )
    return PPO.load(folder / "elite.pt")


def plain(options: argparse.Namespace) -> None:
    """Evolution from a tutorial's settings."""
    scores = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            run = (seed, options.steps, options.evo_steps, options.workers, Path(folder))
            best = evolve_plain(*run)
        scores.append(score(best))
        result = {
            "seed": seed,
            "evolved": round(scores[-1], 1),
            "lr": float(f"{best.config.lr:.3g}"),
            "batch_size": best.config.batch_size,
            "mutations": [b.mutation for b in best.lineage if b.mutation],
        }
        print(json.dumps(result), flush=True)
    print(json.dumps({"mean": round(np.mean(scores), 1), "std": round(np.std(scores), 1)}))


def score(agent: PPO) -> float:
    """Mean return of 100 deterministic episodes."""
    return float(agent.evaluate(build(20), 100, seed=12345).mean())


def compare(options: argparse.Namespace) -> None:
    """Evolution against fixed random settings."""
    for seed in options.seeds:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            best = evolve(seed, options.steps, options.evo_steps, options.workers, Path(folder))
        others = fixed(seed, options.steps, options.evo_steps, options.workers, options.random)
        scores = sorted(score(agent) for agent in others)
        result = {
            "seed": seed,
            "evolved": round(score(best), 1),
            "lr": float(f"{best.config.lr:.3g}"),
            "batch_size": best.config.batch_size,
            "random_median": round(statistics.median(scores), 1),
            "random": [round(s, 1) for s in scores],
            "seconds": round(time.perf_counter() - begin),
        }
        print(json.dumps(result), flush=True)


def speed(options: argparse.Namespace) -> None:
    """Wall time of a population with one worker and with two, alternating."""
    ratios = []
    for repeat in range(options.repeats):
        seconds = {}
        for workers in (1, 2):
            begin = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                evolve(repeat, options.steps, options.evo_steps, workers, Path(folder))
            seconds[workers] = time.perf_counter() - begin
        ratios.append(seconds[1] / seconds[2])
        line = {"seconds": {k: round(v, 1) for k, v in seconds.items()}, "ratio": ratios[-1]}
        print(json.dumps(line), flush=True)
    print(json.dumps({"median_ratio": round(statistics.median(ratios), 2)}))


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
    options = parser.parse_args()
    torch.set_num_threads(1)
    part = plain if options.plain else speed if options.speed else compare
    part(options)


if __name__ == "__main__":
    main()
