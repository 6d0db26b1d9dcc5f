"""The commands ``train`` and ``resume``."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.off_policy_configs import OffPolicyConfig
from recurrent_rl.cli.environments import Environment
from recurrent_rl.cli.errors import UsageError, command, told_in_one_line
from recurrent_rl.cli.exporting import export_name
from recurrent_rl.cli.options import Group, Options, parse
from recurrent_rl.cli.pictures import draw_curve
from recurrent_rl.cli.run_folder import new_folder, run_and_seeds, seed_folder
from recurrent_rl.cli.seeds import Results, train_seeds
from recurrent_rl.cli.settings import (
    HIDDEN,
    Run,
    Start,
    TrainOptions,
    agent_groups,
    start_of,
    team_options,
)
from recurrent_rl.cli.values import spread
from recurrent_rl.descriptions import default_of
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.validation import Config

TRAIN = "Train an agent in an environment: recurrent_rl train Pendulum-v1 --mask-velocity"
RESUME = "Go on with a run from its checkpoints, exactly where it stopped."


@dataclass(frozen=True)
class ResumeOptions(Options):
    """Which run.

    Attributes:
        run: a run's folder, or that of one of its seeds.

    """

    POSITIONAL = ("run",)

    run: str | None = None


def train(words: Sequence[str]) -> None:
    """Do what ``recurrent_rl train`` says."""
    start, options, agent = _read(words)
    own: dict[str, Any] = {
        "environment": start.environment,
        "algo": start.algo,
        "team": start.team,
        "agent": agent,
        "seeds": tuple(dict.fromkeys(options["seeds"])),
    }
    run = Run(**{name: options[name] for name in Run.names() if name not in own}, **own)
    _check(run)
    folder = new_folder(run, options["folder"], options["name"], ["train", *words])
    print(f"{run.algo} on {run.environment}: {_plan(run, run.seeds)}")
    print(f"settings: {start.note}")
    print(f"folder: {folder}", flush=True)
    _report(folder, run, train_seeds(run, folder, run.seeds))


def resume(words: Sequence[str]) -> None:
    """Do what ``recurrent_rl resume`` says."""
    (options,) = parse("resume", RESUME, words, [Group(ResumeOptions)])
    if options["run"] is None:
        raise UsageError(f"RUN: expected a run's folder, got none: {command('resume')} runs/...")
    folder, run, seeds = run_and_seeds(Path(options["run"]))
    print(f"{run.algo} on {run.environment}: {_plan(run, seeds)}", flush=True)
    _report(folder, run, train_seeds(run, folder, seeds, resume=True))


def _read(words: Sequence[str]) -> tuple[Start, dict[str, Any], dict[str, Any]]:
    """Return what a command begins with, its options' values, and the agent's arguments.

    The words are read twice: once for the environment and the algorithm, and then with the
    defaults that these have, which the help shows, too.
    """
    named = _algo_in(words)
    without_help = [word for word in words if word not in ("-h", "--help")]
    asks_for_help = len(without_help) < len(words)
    groups = _groups(named, None)
    options = parse("train", TRAIN, without_help, groups, _others())[0]
    if options["env_id"] is None and asks_for_help:
        parse("train", TRAIN, words, groups)
    start = start_of(Environment.from_options(options), options["algo"], tuned=options["tuned"])
    if asks_for_help:  # with what is known of the environment in it
        without_help = ["--help"]
    groups = _groups(start.algo, start)
    options, hyper, encoder, head, *team = parse("train", TRAIN, without_help, groups)
    config = ALGORITHMS[start.algo].config_type
    agent = {**_changed(config, hyper), **(team[0] if team else {})}
    if "total_steps" in config.names():
        agent["total_steps"] = options["total_steps"]  # the schedules' horizon
    agent["net_config"] = {"encoder_config": encoder, "head_config": head}
    return start, options, agent


def _changed(cls: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs from the defaults: agents may know better what to leave out."""
    return {name: value for name, value in values.items() if value != default_of(cls, name)}


def _others() -> dict[str, str]:
    """Say of each hyper-parameter whose it is."""
    owners: dict[str, list[str]] = {}
    for algo, kind in ALGORITHMS.items():
        for name in kind.config_type.names():
            owners.setdefault(name, []).append(algo)
    return {
        name: f"it is one of --algo {', '.join(algos)}"
        for name, algos in owners.items()
        if name not in HIDDEN
    }


def _algo_in(words: Sequence[str]) -> str | None:
    """Return the algorithm that words name, if they do."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--algo":
            named = value if equals else next(iter(words[i + 1 :]), None)
            return named if named in ALGORITHMS else None
    return None


def _groups(algo: str | None, start: Start | None) -> list[Group]:
    """Return the options of ``train`` for an algorithm, with their defaults, if they are known."""
    training = {} if start is None else start.training()
    groups = [Group(TrainOptions, "run", defaults=training), *agent_groups(algo or "PPO", start)]
    # Where nothing is known yet there may be a team.
    return groups if algo is not None else [*groups, Group(team_options("IPPO"), "team")]


def _check(run: Run) -> None:
    """Build everything once, so that what does not fit is said before anything is written."""
    if not run.seeds:
        raise UsageError("--seeds: expected at least one, got none; leave it out for seed 0")
    with told_in_one_line(str(run.environment)):
        env = run.vector(1)
    try:
        agent = run.new_agent(env, run.seeds[0])
    finally:
        env.close()
    if isinstance(agent.config, OffPolicyConfig):
        _check_first_batch(agent, agent.config, run.num_envs)


def _check_first_batch(agent: Agent, config: OffPolicyConfig, num_envs: int) -> None:
    """Refuse to learn before the replay has a batch, which would end training at its beginning."""
    steps = agent.rollout_steps(num_envs) * num_envs
    collected = max(math.ceil(config.learning_starts / steps), 1) * steps
    held = min(collected, config.memory_size)
    if held < config.batch_size:
        name = "learning-starts" if held == collected else "memory-size"
        raise UsageError(
            f"--{name}: expected at least batch_size = {config.batch_size} steps before learning "
            f"starts, got {held}; give more, or a smaller --batch-size"
        )


def _plan(run: Run, seeds: Sequence[int]) -> str:
    """Say in words what is done."""
    who = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    return f"{run.total_steps:,} steps in {run.num_envs} environments, {who}"


def _report(folder: Path, run: Run, results: Results) -> None:
    """Say how training went, draw its curve, and say what may be done next."""
    ends: Mapping[str, str] = {
        "stop_at": f"stopped, as --stop-at {run.stop_at} is reached",
        "interrupt": "interrupted",
        "on_rollout": "interrupted",
    }
    for seed, result in results.items():
        best = result.best
        tested = (
            f"best test {spread(best.mean, best.std)} at {best.env_steps:,} steps"
            if best is not None and not math.isnan(best.mean)
            else "no test has ended"
        )
        end = ends.get(result.stopped_by, "")
        print(
            f"seed {seed}: {tested}; {result.env_steps:,} steps in {result.seconds:.0f} s"
            f"{'; ' * bool(end)}{end}"
        )
    draw_curve(
        folder,
        [seed_folder(folder, seed) for seed in run.seeds],
        f"{run.algo} on {run.environment}",
    )
    print("next:")
    if any(result.stopped_by in ("interrupt", "on_rollout") for result in results.values()) or len(
        results
    ) < len(run.seeds):
        print(f"  {command('resume', folder)}")
    for name, *more in (["evaluate"], ["enjoy"], ["plot"], ["export", export_name(run.team)]):
        print(f"  {command(name, folder, *more)}")
    sys.stdout.flush()
