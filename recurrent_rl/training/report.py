"""What training says of itself: evaluations, results, and what callbacks are given."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from recurrent_rl.acting.collect import RolloutStats
from recurrent_rl.envs.final_infos import SUCCESS, mean_of_known

WINDOW = 100  # episodes that rollout/* are means over, as in Stable-Baselines3
StoppedBy = Literal["total_steps", "stop_at", "on_rollout", "interrupt"]


@dataclass(frozen=True)
class Evaluation:
    """One test of an agent.

    Attributes:
        env_steps: of training before it.
        mean: of the episodes' returns; of a team, of the sum of its agents'.
        std: their standard deviation.
        success_rate: mean of ``is_success``, in [0, 1]; None where nobody says.

    """

    env_steps: int
    mean: float
    std: float
    success_rate: float | None = None


@dataclass
class TrainingResult:
    """How training went.

    Attributes:
        env_steps: of the agent in the end.
        evaluations: in order.
        best: the one with the greatest mean, the earliest of equal ones; None without any.
        stopped_by: "total_steps", "stop_at", "on_rollout", or "interrupt" (Ctrl-C).
        seconds: of training, evaluations included, interruptions left out.

    """

    env_steps: int
    evaluations: list[Evaluation]
    best: Evaluation | None
    stopped_by: StoppedBy
    seconds: float


@dataclass
class Rollout:
    """What ``on_rollout`` is given, after each rollout has been learned from.

    Attributes:
        agent: as it is now; ``agent.reconfigure(lr=...)`` acts from the next rollout on.
        env_steps: so far.
        total_steps: of the whole training.
        stats: of this rollout's episodes.
        diagnostics: what ``agent.learn()`` has returned.
        evaluation: of this moment; None where there was none.
        values: what is logged at this step, names and numbers; more may be put there.
        stops: training ends after this rollout.

    """

    agent: Any
    env_steps: int
    total_steps: int
    stats: RolloutStats
    diagnostics: Any
    evaluation: Evaluation | None = None
    values: dict[str, float] = field(default_factory=dict)
    stops: bool = False

    def stop(self) -> None:
        """End training after this rollout."""
        self.stops = True


@dataclass
class State:
    """What goes on in a resumed run, beside the agent."""

    evaluations: list[Evaluation] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    infos: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    updates: dict[str, float] = field(default_factory=dict)  # so far, by tag
    due: dict[str, int] = field(default_factory=dict)  # environment steps, by what is due then

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the greatest mean, the earliest of equal ones; None without any."""
        known = [one for one in self.evaluations if not math.isnan(one.mean)]
        return max(known, key=lambda one: one.mean) if known else None

    def take(self, stats: RolloutStats) -> None:
        """Take a rollout's episodes in; the last ``WINDOW`` count."""
        self.returns = [*self.returns, *stats.returns][-WINDOW:]
        self.lengths = [*self.lengths, *map(float, stats.lengths)][-WINDOW:]
        for name in {*self.infos, *stats.infos}:
            new = stats.infos.get(name, [math.nan] * len(stats.returns))
            self.infos[name] = [*self.infos.get(name, []), *new][-WINDOW:]

    def values(self) -> dict[str, float]:
        """Return means over the last episodes, by their usual names."""
        if not self.returns:
            return {}
        found = {
            "rollout/ep_rew_mean": float(np.mean(self.returns)),
            "rollout/ep_len_mean": float(np.mean(self.lengths)),
        }
        for name, numbers in self.infos.items():
            mean = mean_of_known(numbers)
            if "/" not in name and not math.isnan(mean):
                tag = "success_rate" if name == SUCCESS else name
                found[f"rollout/{tag}"] = mean
        return found

    def to_data(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {**asdict(self), "evaluations": [asdict(one) for one in self.evaluations]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "State":
        """Rebuild what ``to_data`` described."""
        evaluations = [Evaluation(**one) for one in data["evaluations"]]
        return cls(**{**data, "evaluations": evaluations})
