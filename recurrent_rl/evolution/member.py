"""What one individual of a population does in a generation: train, then be tested."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recurrent_rl.acting.collect import collect_rollouts_recurrent
from recurrent_rl.algorithms.ppo_update import Diagnostics

Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class Plan:
    """What there is to do, the same for all individuals.

    Attributes:
        goal: train until ``agent.env_steps`` has reached this, but at least one rollout,
        max_steps: unless it has already reached this.
        eval_steps: of a test episode; None plays to its end.
        eval_loop: test episodes in each environment.
        eval_seed: of the first of them: all individuals meet the same episodes.
        last_seed: the last generation's.

    """

    goal: int
    max_steps: int
    eval_steps: int | None
    eval_loop: int
    eval_seed: int
    last_seed: int


@dataclass(frozen=True)
class Report:
    """What became of it.

    Attributes:
        steps: environment steps trained.
        score: mean return of the training episodes; NaN if none ended.
        fitness: mean return of the test episodes; minus infinity if training failed.
        seconds: it took.
        diagnostics: of learning, means over the rollouts; by group where there are several.
        agent_scores: with several agents each one's mean return.
        failed: why training failed; empty if it did not.

    """

    steps: int
    score: float
    fitness: float
    seconds: float
    diagnostics: dict[str, float] = field(default_factory=dict)
    agent_scores: dict[str, float] = field(default_factory=dict)
    failed: str = ""


def train_individual(agent: Any, env: Any, plan: Plan, progress: Progress) -> Report:
    """Train an individual up to the goal and test it.

    It starts from a reset, so what comes of it depends on the agent (its random state included)
    and the plan only, as long as the environment's resets do what their seeds say.

    Args:
        agent: ``PPO`` or ``IPPO``, changed in place.
        env: the vector environment for both.
        plan: the generation's.
        progress: called after each rollout with its steps and the mean return.

    """
    begin = time.perf_counter()
    test = {"max_steps": plan.eval_steps, "loop": plan.eval_loop, "seed": plan.eval_seed}
    birth = agent.lineage[-1]
    if birth.shrunk and birth.lost is None and birth.fitness is not None:
        now = agent.test(env, **{**test, "seed": plan.last_seed})
        agent.fitness.pop()  # it is no evaluation of what selection is to judge
        # The parent's fitness is that of the same episodes.
        agent.lineage[-1] = replace(birth, lost=birth.fitness - now)
    first, failed, steps = True, "", 0
    returns: list[float] = []
    by_agent: dict[str, list[float]] = {}
    learned: list[dict[str, float]] = []
    # Selection among individuals that have not trained would be a lottery.
    while agent.env_steps < (plan.max_steps if first else plan.goal) and not failed:
        stats = collect_rollouts_recurrent(agent, env, reset=True if first else None)
        first = False
        try:
            learned.append(_numbers(agent.learn()))
        except FloatingPointError as error:
            # A learning rate that is too high is a finding about this individual, no reason to end
            # the search.
            failed = str(error)
        agent.steps[-1] = agent.env_steps
        steps += stats.steps
        returns += stats.returns
        for name, values in stats.agent_returns.items():
            by_agent.setdefault(name, []).extend(values)
        progress(stats.steps, stats.mean_return)
    if failed:
        agent.fitness.append(-np.inf)
    else:
        agent.test(env, **test)
    score = _mean(returns)
    if returns:
        agent.scores.append(score)
    agent.collection.forget()  # the test has taken the environments elsewhere
    names = learned[0] if learned else {}
    return Report(
        steps,
        score,
        agent.fitness[-1],
        time.perf_counter() - begin,
        {name: _mean([each[name] for each in learned]) for name in names},
        {name: _mean(values) for name, values in by_agent.items()},
        failed,
    )


def _numbers(learned: Diagnostics | dict[str, Diagnostics]) -> dict[str, float]:
    if isinstance(learned, Diagnostics):
        return learned.to_dict()
    return {
        f"{group}/{name}": value
        for group, each in learned.items()
        for name, value in each.to_dict().items()
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
