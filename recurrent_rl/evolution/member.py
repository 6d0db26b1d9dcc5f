"""What one individual of a population does in a generation: it is trained, then tested."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from recurrent_rl.acting.collect import RolloutStats, collect_rollouts_recurrent
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.algorithms.scoring import is_constant_sum
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.sharing import News, copied, fit_states, news_since, seal
from recurrent_rl.envs.final_infos import SUCCESS, mean_of_known
from recurrent_rl.spaces.array import Array

# Called now and then with the steps since the last call and the mean return of recent episodes.
Progress = Callable[[int, float], None]
PROGRESS_SECONDS = 0.25  # between two calls, as a rollout off-policy may be a single step


class Learned(Protocol):
    """What ``learn`` returns, of each group if there are several."""

    def to_dict(self) -> dict[str, float]:
        """Names and values."""


@dataclass(frozen=True)
class Plan:
    """How the individuals of a generation are trained and tested, the same for all.

    Attributes:
        goal: ``agent.env_steps`` at which training stops, after one rollout at least.
        max_steps: ``agent.env_steps`` at which an individual is not trained any more.
        eval_steps: most steps of a test episode; None plays it to its end.
        eval_loop: test episodes in each environment.
        eval_seed: seed of the test episodes, which are the same for all individuals.
        last_seed: seed of the last generation's test episodes.
        scoring: options of ``test`` that say what its episodes are worth.
        learning_delay: environment steps that a shared replay is to have seen before anybody learns
            from it.

    """

    goal: int
    max_steps: int
    eval_steps: int | None
    eval_loop: int
    eval_seed: int
    last_seed: int
    scoring: dict[str, Any] = field(default_factory=dict)
    learning_delay: int = 0

    def test(self, agent: Any, env: Any, seed: int, infos: dict[str, Array] | None = None) -> float:
        """Test an agent on the episodes of a seed; the fitness, which the agent records, too.

        ``infos`` is filled as ``evaluate`` fills it.
        """
        fitness: float = agent.test(
            env,
            max_steps=self.eval_steps,
            loop=self.eval_loop,
            seed=seed,
            infos=infos,
            **self.scoring,
        )
        return fitness


@dataclass(frozen=True)
class Report:
    """The results of an individual in a generation.

    Attributes:
        steps: environment steps that it was trained for.
        score: mean return of the training episodes; NaN if none ended.
        fitness: what the test episodes are worth, in general their mean return; minus infinity if
            training failed.
        seconds: duration of training and testing.
        diagnostics: means over the calls of ``learn`` (of those which took updates, where agents
            learn from a replay; their number is ``updates``); names begin with the group where
            there are several.
        agent_scores: with several agents each one's mean return.
        failed: why training failed; empty if it did not.
        constant_sum: the returns of all agents added up to the same in all training episodes.
        infos: by name the means of the numbers that training episodes' last infos had; with several
            agents of all agents together.
        eval_success_rate: share of the test episodes that were successes; NaN if none says.

    """

    steps: int
    score: float
    fitness: float
    seconds: float
    diagnostics: dict[str, float] = field(default_factory=dict)
    agent_scores: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    constant_sum: bool = False
    infos: dict[str, float] = field(default_factory=dict)
    eval_success_rate: float = float("nan")

    @property
    def success_rate(self) -> float:
        """Share of the training episodes that were successes; NaN if none says."""
        return self.infos.get(SUCCESS, float("nan"))


class _Training:
    """What an individual's training has given so far.

    Attributes:
        steps: environment steps.
        returns: of all episodes that ended.
        agent_returns: each agent's returns, where there are several agents.
        infos: by name the numbers in the episodes' last infos; see ``RolloutStats``.
        diagnostics: by name, the values of all calls of ``learn``.
        failed: why training failed; empty if it did not.

    """

    def __init__(self, agent: Any, plan: Plan, progress: Progress) -> None:
        """Begin."""
        self._agent, self._plan, self._progress = agent, plan, progress
        self.steps, self.failed = 0, ""
        self.returns: list[float] = []
        self.agent_returns: dict[str, list[float]] = {}
        self.infos: dict[str, list[float]] = {}
        self.diagnostics: dict[str, list[float]] = {}
        self._ready = not isinstance(agent, OffPolicyAgent)
        self._said_at = time.perf_counter()
        self._unsaid = RolloutStats(0)

    def take(self, stats: RolloutStats) -> None:
        """Count what was collected."""
        self.steps += stats.steps
        self._unsaid.steps += stats.steps
        if stats.returns:
            self.returns += stats.returns
            self._unsaid.returns += stats.returns
            for name, values in stats.agent_returns.items():
                self.agent_returns.setdefault(name, []).extend(values)
            for name, values in stats.infos.items():
                self.infos.setdefault(name, []).extend(values)

    def mean_infos(self) -> dict[str, float]:
        """Return the means of what infos say, without each agent's own."""
        return {
            name: mean_of_known(values)
            for name, values in self.infos.items()
            if name.partition("/")[0] not in self.agent_returns
        }

    def learn(self) -> None:
        """Let the agent learn from what there is, if it may already."""
        agent = self._agent
        if not self._ready:
            self._ready = agent.memory.counter > self._plan.learning_delay and agent.can_learn()
        if not self._ready:
            agent.skip_updates()
            return
        try:
            learned = agent.learn()
        except FloatingPointError as error:
            # A learning rate that is too high is a result of the search, no reason to end it.
            self.failed = str(error)
            return
        for name, value in _by_name(learned).items():
            self.diagnostics.setdefault(name, []).append(value)

    def tell(self, *, last: bool = False) -> None:
        """Say how far it is, if that was not said just now."""
        now = time.perf_counter()
        if last or now - self._said_at >= PROGRESS_SECONDS:
            self._said_at = now
            self._progress(self._unsaid.steps, self._unsaid.mean_return)
            self._unsaid = RolloutStats(0)


def train_individual(
    agent: Any,
    env: Any,
    plan: Plan,
    progress: Progress,
    memory: SequenceReplayBuffer | None = None,
) -> tuple[Report, News | None]:
    """Train an individual up to the goal and test it.

    It starts from a reset, so the results depend only on the agent (its random state included), the
    plan and the shared replay, as long as the environment's resets do what their seeds say.

    Args:
        agent: of any algorithm, changed in place.
        env: the vector environment for both.
        plan: how to train and test.
        progress: called now and then.
        memory: the shared replay, sealed, of agents that learn from one; they begin with a copy.

    Returns:
        the results, and what is new for the shared replay.

    """
    begin = time.perf_counter()
    if memory is not None:
        agent.memory = copied(memory)
        shapes = {name: trainer.shapes(False) for name, trainer in agent.trainers.items()}
        fit_states(agent.memory, shapes)
    _measure_shrinking(agent, env, plan)
    training = _train(agent, env, plan, progress)
    news = None
    if memory is not None:
        seal(agent.memory)
        news = news_since(memory, agent.memory)
        agent.memory = SequenceReplayBuffer(agent.config.memory_size)
    tested: dict[str, Array] = {}
    if training.failed:
        agent.fitness.append(-np.inf)
    else:
        plan.test(agent, env, plan.eval_seed, tested)
    score = _mean(training.returns)
    if training.returns:
        agent.scores.append(score)
    agent.collection.forget()  # the test has stepped the environments
    report = Report(
        steps=training.steps,
        score=score,
        fitness=agent.fitness[-1],
        seconds=time.perf_counter() - begin,
        diagnostics=_summary(training.diagnostics, summed=memory is not None),
        agent_scores={name: _mean(values) for name, values in training.agent_returns.items()},
        failed=training.failed,
        constant_sum=is_constant_sum(
            np.array(training.returns),
            {name: np.array(values) for name, values in training.agent_returns.items()},
        ),
        infos=training.mean_infos(),
        eval_success_rate=mean_of_known(tested.get(SUCCESS, ())),
    )
    return report, news


def _measure_shrinking(agent: Any, env: Any, plan: Plan) -> None:
    """If a mutation made a network smaller, record in the birth how much fitness it cost."""
    birth = agent.lineage[-1]
    if birth.shrunk and birth.lost is None and birth.fitness is not None:
        # On the episodes on which the parent was tested.
        fitness = plan.test(agent, env, plan.last_seed)
        agent.fitness.pop()  # selection is to judge the trained individual only
        agent.lineage[-1] = replace(birth, lost=birth.fitness - fitness)


def _train(agent: Any, env: Any, plan: Plan, progress: Progress) -> _Training:
    """Collect and learn until the goal is reached or learning fails."""
    training = _Training(agent, plan, progress)
    first = True
    # One rollout at least: selection among individuals that have not trained would be arbitrary.
    while agent.env_steps < (plan.max_steps if first else plan.goal) and not training.failed:
        stats = collect_rollouts_recurrent(agent, env, reset=True if first else None)
        first = False
        training.take(stats)
        training.learn()
        agent.steps[-1] = agent.env_steps
        training.tell()
    training.tell(last=True)
    return training


def _by_name(learned: Learned | Mapping[str, Learned]) -> dict[str, float]:
    """Return diagnostics as numbers by name; the names of several groups' begin with the group."""
    if not isinstance(learned, Mapping):
        return learned.to_dict()
    return {
        f"{group}/{name}": value
        for group, diagnostics in learned.items()
        for name, value in diagnostics.to_dict().items()
    }


def _summary(diagnostics: Mapping[str, list[float]], *, summed: bool) -> dict[str, float]:
    """Return means by name; ``summed``: of ``updates`` the sum, as many calls take none."""
    return {
        name: float(np.sum(values))
        if summed and name.rsplit("/", 1)[-1] == "updates"
        else _mean(values)
        for name, values in diagnostics.items()
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
