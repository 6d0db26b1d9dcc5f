"""Agents that can imitate, and demonstrations by themselves."""

from typing import Any

from support.contract import CASES, Case

from recurrent_rl import record_demonstrations, record_team_demonstrations
from recurrent_rl.algorithms.multi_agent import MultiAgent

ACTORS = {name: case for name, case in CASES.items() if not name.startswith("dqn")}


def recorded(agent: Any, case: Case, episodes: int = 6, **options: Any) -> dict[str, Any]:
    """Demonstrations by an agent of a case, by the names of its groups."""
    options = {"deterministic": False, "seed": 0, **options}
    if isinstance(agent, MultiAgent):
        return record_team_demonstrations(case.vector(), agent, episodes, **options)
    return {"": record_demonstrations(case.vector(), agent, episodes, **options)}
