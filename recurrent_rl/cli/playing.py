"""The commands ``evaluate`` and ``enjoy``."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.cli.environments import Environment, EnvironmentOptions
from recurrent_rl.cli.errors import UsageError, command, told_in_one_line
from recurrent_rl.cli.options import Group, parse, written
from recurrent_rl.cli.run_folder import Saved, saved_agents
from recurrent_rl.cli.settings import TEST_ENVS
from recurrent_rl.cli.values import rounded, spread
from recurrent_rl.envs.final_infos import SUCCESS, mean_of_known
from recurrent_rl.plots.film import film
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, SEED

EVALUATE = "Test saved agents in many episodes: the mean and the deviation of their returns."
ENJOY = "Watch an agent play, in a window or in a film."


@dataclass(frozen=True)
class PlayOptions(EnvironmentOptions):
    """Whose episodes, and how they are played.

    Attributes, beside those of ``EnvironmentOptions``:
        agent: the folder of a run, of one of its seeds, or an agent's file. Environments are the
            run's, unless env_id names another.
        latest: the latest agents rather than the best ones.
        deterministic: take the most likely actions rather than drawn ones.
        seed: of the first episode; tests in training are others.
        device: "cpu", "cuda", or "auto".

    """

    POSITIONAL = ("agent",)

    agent: str | None = None
    latest: bool = False
    deterministic: bool = True
    seed: Annotated[int, SEED] = 1_000_000
    device: str = "cpu"


@dataclass(frozen=True)
class EvaluateOptions(PlayOptions):
    """How an agent is tested.

    Attributes, beside those of ``PlayOptions``:
        episodes: of each agent, at least.

    """

    episodes: Annotated[int, COUNT] = 100


@dataclass(frozen=True)
class EnjoyOptions(PlayOptions):
    """How an agent is watched.

    Attributes, beside those of ``PlayOptions``:
        episodes: to watch.
        film: write a film of each episode into this folder instead of opening a window; of a single
            episode it may be a file.mp4.

    """

    episodes: Annotated[int, COUNT] = 3
    film: str | None = None


def evaluate(words: Sequence[str]) -> None:
    """Do what ``recurrent_rl evaluate`` says."""
    (options,) = parse("evaluate", EVALUATE, words, [Group(EvaluateOptions)])
    means = []
    for saved in _agents(options, "evaluate"):
        agent, environment = saved.load(options["device"]), _environment(saved, options)
        returns, infos = _tested(agent, environment, options)
        total = np.sum(list(returns.values()), axis=0)  # [episodes]
        means.append(total.mean())
        print(f"{saved.path} ({agent.env_steps:,} steps): {_in_words(total)}{_rate(infos)}")
        for name, own in returns.items() if len(returns) > 1 else ():
            print(f"  {name}: {_in_words(own)}")
        sys.stdout.flush()
    if len(means) > 1:
        between = spread(float(np.mean(means)), float(np.std(means)))
        print(f"{len(means)} agents: {between} between them")


def enjoy(words: Sequence[str]) -> None:
    """Do what ``recurrent_rl enjoy`` says."""
    (options,) = parse("enjoy", ENJOY, words, [Group(EnjoyOptions)])
    saved, *others = _agents(options, "enjoy")
    agent, environment = saved.load(options["device"]), _environment(saved, options)
    print(f"{saved.path}{', the first of several' if others else ''}, in {environment}", flush=True)
    if options["film"] is not None:
        _film(agent, environment, options)
        return
    _check_display()
    env = _drawing(environment, "human")
    try:
        for i in range(options["episodes"]):
            how = {"deterministic": options["deterministic"], "seed": options["seed"] + i}
            returns = _by_agent(_evaluate(agent, env, 1, **how))
            total = sum(float(own[0]) for own in returns.values())
            print(f"episode {i + 1}: return {rounded(total)}", flush=True)
    finally:
        env.close()


def _drawing(environment: Environment, mode: str) -> Any:
    """Build an environment that draws itself."""
    with told_in_one_line(f"{environment}: expected one that takes render_mode={mode!r}"):
        return environment.build(render_mode=mode)


def _film(agent: Agent, environment: Environment, options: Mapping[str, Any]) -> None:
    """Write films of episodes, and say where."""
    env = _drawing(environment, "rgb_array")
    try:
        with told_in_one_line("--film"):
            paths = film(
                agent,
                env,
                options["film"],
                options["episodes"],
                deterministic=options["deterministic"],
                seed=options["seed"],
            )
    finally:
        env.close()
    for path in paths:
        print(f"film: {path}")


def _agents(options: Mapping[str, Any], name: str) -> list[Saved]:
    if options["agent"] is None:
        raise UsageError(
            f"AGENT: expected a run's folder or an agent's file, got none: {command(name)} runs/..."
        )
    return saved_agents(Path(options["agent"]), latest=options["latest"])


def _environment(saved: Saved, options: Mapping[str, Any]) -> Environment:
    """Return what an agent plays in: what options name, or what it was trained in."""
    if options["env_id"] is not None:
        return Environment.from_options(options)
    given = [name for name in ("mask_velocity", "wrapper", "env_args") if options[name]]
    if given:
        raise UsageError(
            f"{written(given[0])}: expected it with --env-id, as environments of a run "
            f"are what they were in training; add --env-id"
        )
    if saved.run is None:
        raise UsageError(
            f"{saved.path}: expected a run's folder around it, which says what it was trained in, "
            f"got a file alone; add --env-id (and --mask-velocity, --wrapper)"
        )
    return saved.run.environment


def _tested(
    agent: Agent, environment: Environment, options: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return returns by agent, [episodes], and what the episodes' last infos say."""
    episodes, infos = options["episodes"], dict[str, Array]()
    with told_in_one_line(str(environment)):
        env = environment.vector(min(episodes, TEST_ENVS), team=isinstance(agent, MultiAgent))
    try:
        own = {"deterministic": options["deterministic"], "seed": options["seed"]}
        return _by_agent(_evaluate(agent, env, episodes, infos=infos, **own)), infos
    finally:
        env.close()


def _evaluate(agent: Any, env: Any, episodes: int, **options: Any) -> Any:
    """Let an agent play, if it fits the environments."""
    with told_in_one_line():
        if hasattr(env, "num_envs"):
            agent.rows_of(env)  # refuses what the agent cannot play in
    return agent.evaluate(env, episodes, **options)


def _by_agent(returns: Any) -> dict[str, Array]:
    return returns if isinstance(returns, dict) else {"": returns}


def _in_words(returns: Array) -> str:
    """Say in words what returns, [episodes], are."""
    return (
        f"{spread(returns.mean(), returns.std())} over {len(returns)} episodes "
        f"({rounded(returns.min())} to {rounded(returns.max())})"
    )


def _rate(infos: Mapping[str, Array]) -> str:
    """Say how many episodes were successes, where environments tell."""
    if SUCCESS not in infos:
        return ""
    return f", {mean_of_known(infos[SUCCESS]):.0%} successes"


def _check_display() -> None:
    """Refuse to open a window where there are none."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in names):
        raise UsageError(
            "enjoy: expected a display to open a window on, got none (DISPLAY is not set); write a "
            "film instead: --film FOLDER"
        )
