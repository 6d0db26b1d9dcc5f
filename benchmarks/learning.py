"""Learning curves of the tuned settings: several seeds, deterministic evaluation.

    python benchmarks/learning.py Pendulum-v1                  # 5 seeds
    python benchmarks/learning.py simple_spread_v3             # several agents: IPPO
    python benchmarks/learning.py MiniGrid-MemoryS7-v0         # images; success in percent
    python benchmarks/learning.py connect_four_v3              # masks; wins against chance
    python benchmarks/learning.py Pendulum-v1 --feed-forward   # the same without memory
    python benchmarks/learning.py Pendulum-v1 --set lr=3e-3 num_layers=2
    python benchmarks/learning.py Pendulum-v1 --algo SAC       # from a replay
    python benchmarks/learning.py Pendulum-v1-observed --algo SAC  # with velocities

Writes one JSON file for each run and prints the table that benchmarks/README.md shows. Training
seconds exclude evaluation.
"""

import argparse
import ast
import dataclasses
import functools
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import torch
from gymnasium.wrappers import FilterObservation

import recurrent_rl
from recurrent_rl import (
    EarlyMessageWrapper,
    EncoderConfig,
    MaskVelocityWrapper,
    OpponentPool,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
    load_tuned,
    make_multi_agent_vect_envs,
    make_vect_envs,
)
from recurrent_rl.networks.configs import CONVOLUTIONS
from recurrent_rl.tuned import TunedSettings

# "Reached" means that the mean over the evaluation episodes is at least this.
TARGETS = {
    "Pendulum-v1": -200.0,
    "Pendulum-v1-observed": -165.0,
    "CartPole-v1": 490.0,
    "MountainCarContinuous-v0": 90.0,
    "LunarLander-v3": 150.0,
    "LunarLander-v3-observed": 200.0,
    "MiniGrid-MemoryS7-v0": 80.0,
    "connect_four_v3": 95.0,
    "simple_speaker_listener_v4": -25.0,
    "simple_speaker_listener_v4-early": -25.0,
    "simple_spread_v3": -45.0,
    "Foraging-2s-8x8-2p-2f-coop-v3": 0.9,
}
EVAL_ENVS = 25
ROWS, COLUMNS = 6, 7  # of connect four
# Moves upon planes [6, 7, 2] of its own and the other's pieces, the top row first, and columns that
# are not full, as PettingZoo shows them.
Opponent = Callable[[np.ndarray, np.ndarray, np.random.Generator], int]
HEARD_STEPS = 3  # of "-early": the speaker is heard in so many steps of an episode
# There, until so much of training is over, it is heard all the time in this share of environments:
# words must have a meaning before they are worth remembering.
HEARD_SHARES = ((0.35, 1.0), (0.7, 0.5), (1.0, 0.0))


def vector(
    env_id: str, num_envs: int, heard_share: float = 0.0, *, continuous: bool = False
) -> Any:
    """Build a vector of environments: without velocities, of images, or of several agents."""
    if env_id.startswith("connect_four"):
        return make_multi_agent_vect_envs(connect_four, num_envs, should_async_vector=False)
    if env_id.startswith("Foraging"):
        return make_multi_agent_vect_envs(env_id, num_envs, should_async_vector=False)
    name, early, _ = env_id.partition("-early")
    if name.startswith("simple_"):
        module = importlib.import_module(f"mpe2.{name}")

        def make_multi(heard: bool) -> Any:
            env = module.parallel_env(max_cycles=25, continuous_actions=continuous)
            if early and not heard:
                silent = np.zeros(3, np.float32) if continuous else 0
                env = EarlyMessageWrapper(env, HEARD_STEPS, silent={"speaker_0": silent})
            return env

        heard = int(heard_share * num_envs)
        return SyncMultiAgentVectorEnv(
            [functools.partial(make_multi, i < heard) for i in range(num_envs)]
        )

    def make() -> gym.Env[Any, Any]:
        if env_id.startswith("MiniGrid"):
            return grid_world(env_id)
        if env_id.endswith("-observed"):
            return gym.make(env_id.removesuffix("-observed"), disable_env_checker=True)
        return MaskVelocityWrapper(gym.make(env_id, disable_env_checker=True))

    return make_vect_envs(make_env=make, num_envs=num_envs, should_async_vector=False)


def grid_world(env_id: str) -> gym.Env[Any, Any]:
    """Build a MiniGrid environment that shows a picture, in one-hot cells, and the direction."""
    wrappers = importlib.import_module("minigrid.wrappers")
    env = wrappers.OneHotPartialObsWrapper(gym.make(env_id, disable_env_checker=True))
    return FilterObservation(env, ["image", "direction"])  # not the mission, a text


def build(settings: TunedSettings, env: Any, seed: int) -> Any:
    """Build the agent for a vector's spaces."""
    kind = getattr(recurrent_rl, settings.algo)
    spaces: tuple[Any, ...]
    if hasattr(env, "possible_agents"):
        spaces = (env.observation_spaces, env.action_spaces, env.possible_agents)
    else:
        spaces = (env.single_observation_space, env.single_action_space)
    central = {"state_space": env.state_space} if settings.reads_state else {}
    agent = kind(*spaces, seed=seed, **central, **settings.agent_options())
    if settings.opponents is not None:
        agent.opponents = OpponentPool(seed=seed, **settings.opponents)
    return agent


def connect_four() -> Any:
    """Build PettingZoo's game; an illegal move would lose it."""
    return pettingzoo.make("aec", "classic/connect_four-v3")


def chance(planes: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> int:
    """Move anywhere that is allowed."""
    return int(random.choice(np.flatnonzero(mask)))


def lookahead(planes: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> int:
    """Win if a move does, or else block one by which the other would; otherwise anywhere."""
    allowed = np.flatnonzero(mask)
    for side in (0, 1):
        for column in allowed:
            if completes(planes, side, int(column)):
                return int(column)
    return int(random.choice(allowed))


def completes(planes: np.ndarray, side: int, column: int) -> bool:
    """Whether a piece of a side in a column makes four in a row."""
    free = np.flatnonzero(~planes[:, column].any(-1))
    if not len(free):
        return False
    row, own = int(free[-1]), planes[..., side]
    for down, right in ((1, 0), (0, 1), (1, 1), (1, -1)):
        count = 1
        for sign in (1, -1):
            r, c = row + sign * down, column + sign * right
            while 0 <= r < ROWS and 0 <= c < COLUMNS and own[r, c]:
                count, r, c = count + 1, r + sign * down, c + sign * right
        if count >= 4:
            return True
    return False


def play(agent: Any, other: Opponent, games: int, seed: int) -> np.ndarray:
    """Outcomes of an agent's games, [games]: 1 for a win, 0.5 for a draw, 0 for a loss.

    In every second game the other one begins.
    """
    env = connect_four()
    random, outcomes = np.random.default_rng(seed), []
    for game in range(games):
        env.reset(seed=seed + game)
        me = env.agents[game % 2]
        state = {me: agent.get_initial_hidden_state()[me]}
        reward = 0.0
        for player in env.agent_iter():
            seen, earned, terminated, truncated, _ = env.last()
            if terminated or truncated:
                reward = earned if player == me else reward
                env.step(None)
            elif player == me:
                out = agent.get_action({me: seen}, state, deterministic=True)
                state = out.hidden_state
                env.step(int(out.action[me]))
            else:
                env.step(other(seen["observation"], seen["action_mask"], random))
        outcomes.append((1 + reward) / 2)
    return np.array(outcomes)


def evaluate(agent: Any, env: Any, episodes: int, seed: int) -> np.ndarray:
    """Returns of deterministic episodes, summed over agents; of games against chance."""
    if getattr(agent, "agent_ids", None) == ["player_0", "player_1"]:
        return play(agent, chance, episodes, seed)
    returns = agent.evaluate(env, episodes, seed=seed)
    return np.sum(list(returns.values()), axis=0) if isinstance(returns, dict) else returns


def score(env_id: str, returns: np.ndarray) -> float:
    """What is reported: the mean return, or the percentage of successes."""
    if env_id.startswith("MiniGrid"):  # who fails gets nothing
        return float(100 * (returns > 0).mean())
    if env_id.startswith("connect_four"):
        return float(100 * returns.mean())
    return float(returns.mean())


def with_changes(settings: TunedSettings, changes: dict[str, Any]) -> TunedSettings:
    """Apply ``--set name=value`` to the field of that name, wherever it belongs."""
    encoder = dict(settings.net_config.get("encoder_config", {}))
    hyperparameters = dict(settings.hyperparameters)
    own: dict[str, Any] = {}
    heads, opponents = settings.net_config.get("head_config", {}), settings.opponents
    for name, value in changes.items():
        if name in ("num_envs", "total_steps", "reads_state"):
            own[name] = value
        elif name in ("size", "every", "choose", "past"):
            opponents = {**(opponents or {}), name: value}
        elif name == "head_size":
            heads = {**heads, "hidden_size": value}
        elif name in hyperparameters:  # before others of that name: max_seq_len stands in one place
            hyperparameters[name] = value
        elif name in {f.name for f in dataclasses.fields(EncoderConfig)}:
            encoder[name] = value
        elif name in CONVOLUTIONS:
            encoder["cnn_config"] = {**encoder.get("cnn_config", {}), name: value}
        else:
            hyperparameters[name] = value
    net = {**settings.net_config, "encoder_config": encoder, "head_config": heads}
    own |= {"net_config": net, "hyperparameters": hyperparameters, "opponents": opponents}
    return dataclasses.replace(settings, **own)


def train(settings: TunedSettings, seed: int, every: int, episodes: int) -> list[dict[str, float]]:
    """Train once; evaluate after about each ``every`` steps, on other seeds than training's."""
    continuous = settings.env_kwargs.get("continuous_actions", False)
    make = functools.partial(vector, settings.env_id, continuous=continuous)
    shares = HEARD_SHARES if settings.env_id.endswith("-early") else ((1.0, 0.0),)
    stages = [(until, make(settings.num_envs, share)) for until, share in shares]
    env = stages[0][1]
    eval_env = make(EVAL_ENVS)
    agent = build(settings, env, seed)
    curve, seconds, due = [], 0.0, every
    while agent.env_steps < settings.total_steps:
        begin = time.perf_counter()
        done = agent.env_steps / settings.total_steps
        collect_rollouts_recurrent(agent, next(stage for until, stage in stages if done < until))
        agent.learn()
        seconds += time.perf_counter() - begin
        if agent.env_steps >= due or agent.env_steps >= settings.total_steps:
            due += every
            returns = evaluate(agent, eval_env, episodes, 1_000_000 + 1000 * seed)
            result = score(settings.env_id, returns)
            curve.append({"steps": agent.env_steps, "seconds": seconds, "return": result})
            if settings.env_id.startswith("connect_four"):
                ahead = play(agent, lookahead, episodes, 2_000_000 + 1000 * seed)
                curve[-1]["against lookahead"] = 100 * float(ahead.mean())
            print(f"  seed {seed}: {curve[-1]}", flush=True)
    for each in (*(stage for _, stage in stages), eval_env):
        each.close()
    return curve


def report(name: str, curves: dict[int, list[dict[str, float]]], target: float | None) -> str:
    """One table row a seed, then the mean curve and when it first reached the target."""
    lines = [f"{name}: {len(curves)} seeds", "| seed | final | best | reached at | seconds |"]
    lines.append("|---|---|---|---|---|")
    for seed, curve in curves.items():
        returns = [p["return"] for p in curve]
        first = next((p for p in curve if target is not None and p["return"] >= target), None)
        reached = f"{first['steps']:,.0f} ({first['seconds']:.1f} s)" if first else "never"
        lines.append(
            f"| {seed} | {returns[-1]:.4g} | {max(returns):.4g} | {reached} | "
            f"{curve[-1]['seconds']:.1f} |"
        )
    table = np.array([[p["return"] for p in curve] for curve in curves.values()])
    steps = [p["steps"] for p in next(iter(curves.values()))]
    seconds = np.mean([[p["seconds"] for p in curve] for curve in curves.values()], axis=0)
    mean = table.mean(0)
    lines.append(f"final: {mean[-1]:.4g} +- {table[:, -1].std():.4g} (mean and std over seeds)")
    pairs = ", ".join(f"{s / 1000:.0f}k: {m:.3g}" for s, m in zip(steps, mean, strict=True))
    lines.append(f"mean curve: {pairs}")
    if target is not None:
        first_at = next((i for i, m in enumerate(mean) if m >= target), None)
        lines.append(
            f"mean over seeds first reaches {target:g}: "
            + (
                f"{steps[first_at]:,.0f} steps, {seconds[first_at]:.1f} s of training"
                if first_at is not None
                else "never"
            )
        )
    return "\n".join(lines)


def main() -> None:
    """Train the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("env_id")
    # The settings were chosen on seeds 0 to 4; these they have not seen.
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--every", type=int, help="steps between evaluations (total / 20)")
    parser.add_argument("--episodes", type=int, default=100, help="in each evaluation")
    parser.add_argument("--algo", help="class of the agent (PPO or IPPO; MAPPO, SAC, ...)")
    parser.add_argument("--feed-forward", action="store_true", help="the same without memory")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    changes: dict[str, Any] = {}
    for change in options.set:
        name, _, value = change.partition("=")
        try:
            changes[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a bare word, such as a schedule's name
            changes[name] = value
    if options.feed_forward:
        changes["recurrent"] = False
    settings = with_changes(load_tuned(options.env_id, options.algo), changes)
    every = options.every or settings.total_steps // 20
    name = options.env_id + ("" if options.algo is None else f"-{options.algo}")
    name += "-feed-forward" if options.feed_forward else ""
    name += "".join(f"-{change}" for change in options.set)
    options.out.mkdir(parents=True, exist_ok=True)
    curves = {}
    for seed in options.seeds:
        curves[seed] = train(settings, seed, every, options.episodes)
        (options.out / f"{name}-seed{seed}.json").write_text(json.dumps(curves[seed], indent=1))
        print(f"seed {seed}: {curves[seed][-1]}", flush=True)
    print(report(name, curves, TARGETS.get(options.env_id)))


if __name__ == "__main__":
    main()
