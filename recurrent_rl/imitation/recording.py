"""Recording demonstrations: agents, or functions of one's own, play, and all is kept.

Letters: E environments, A agents in a group, N = E * A rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv

from recurrent_rl.acting.rounds import Side, play_round, rounds
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.single_agent import SingleAgent, one_environment
from recurrent_rl.algorithms.team import Team
from recurrent_rl.envs.gymnasium_vector import GymRows
from recurrent_rl.envs.multi_agent_sync import SyncMultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv
from recurrent_rl.envs.rows import Observed, Outcome, RowSource
from recurrent_rl.imitation.demonstrations import Demonstrations
from recurrent_rl.imitation.experts import (
    Expert,
    Experts,
    FunctionExperts,
    PolicyExperts,
    ShownObservation,
)
from recurrent_rl.imitation.lives import Lives
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, SEED, checked, shown


def record_demonstrations(
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    expert: SingleAgent | Expert,
    episodes: int,
    *,
    max_steps: int | None = None,
    deterministic: bool = True,
    seed: int | None = None,
) -> Demonstrations:
    """Let somebody play in Gymnasium environments, and keep what was seen and done.

    >>> import gymnasium as gym
    >>> push = lambda observation: int(observation[2] > 0)
    >>> record_demonstrations(gym.make("CartPole-v1"), push, episodes=2, max_steps=5, seed=0)
    Demonstrations(2 episodes, 10 steps, mean return 5)

    Args:
        env: one environment, or for an agent a vector of E; left open, and its next collection
            starts afresh.
        expert: an agent, or a function that is given one observation and returns an action. Where
            there are action masks it is given what the environment shows if they are a part of
            that, and else ``{"observation": ..., "action_mask": ...}``. If it has a method
            ``reset()``, as what remembers needs, that is called at the start of each episode.
        episodes: at least this many; rounded up to a multiple of E.
        max_steps: stop each episode here; None plays to its end.
        deterministic: an agent takes its most likely actions.
        seed: of the first reset, from which the others' follow; the same as in ``evaluate``.

    Raises:
        TypeError: something else than an environment, an agent or a function.
        ValueError: the agent's spaces are others; an action that is not in the space; a function
            in a vector of several environments, between which it could not tell.

    """
    single = not hasattr(env, "num_envs")
    vector: Any = one_environment(env) if single else env  # type: ignore[arg-type]
    if isinstance(expert, SingleAgent):
        rows = expert.rows_of(vector)
        sides: list[Experts] = [PolicyExperts(expert.group, deterministic)]
    else:
        rows = GymRows(vector)
        _check_experts({"expert": expert}, rows.num_envs)
        space, actions = vector.single_observation_space, vector.single_action_space
        shown_to = ShownObservation(space, rows.observation_space, actions)
        sides = [FunctionExperts([expert], shown_to)]
    spaces = (rows.observation_space, vector.single_action_space)
    kept = [Lives(Demonstrations(*spaces), [None])]
    _record(rows, sides, kept, episodes, max_steps, seed)
    return kept[0].demonstrations


def record_team_demonstrations(
    env: Any,
    experts: MultiAgent | Mapping[str, Expert],
    episodes: int,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    max_steps: int | None = None,
    deterministic: bool = True,
    seed: int | None = None,
) -> dict[str, Demonstrations]:
    """Let a team play in PettingZoo environments, and keep what each agent saw and did.

    Each life of an agent is an episode. Steps at which it sees nothing are left out; actions that
    the environment chose itself have the weight 0.

    Args:
        env: a PettingZoo environment, or for agents of this package a vector of E; left open, and
            its next collection starts afresh.
        experts: a team, or a function for each agent by its name, see ``record_demonstrations``.
        episodes: at least this many; rounded up to a multiple of E.
        groups: names and members, for functions; None groups agents by their names, as ``IPPO``
            does.
        max_steps: stop each episode here; None plays to its end.
        deterministic: a team takes its most likely actions.
        seed: of the first reset, from which the others' follow.

    Returns:
        demonstrations by group, as ``clone_behaviour`` takes them.

    Raises:
        TypeError: something else than an environment, a team or functions.
        ValueError: the team's spaces are others; agents without a function; an action that is not
            in the space.

    """
    single = not isinstance(env, MultiAgentVectorEnv)
    vector = SyncMultiAgentVectorEnv([lambda: env]) if single else env
    if isinstance(experts, MultiAgent):
        if groups is not None:
            raise ValueError("groups: expected None with a team, which has its own")
        team, rows = experts.team, experts.rows_of(vector)
        sides: list[Experts] = [PolicyExperts(group, deterministic) for group in experts.groups]
    else:
        spaces = vector.observation_spaces, vector.action_spaces
        team = Team.resolve(*spaces, list(vector.possible_agents), groups, None)
        rows = team.rows_of(vector)
        _check_experts(experts, rows.num_envs, team.agent_ids)
        sides = []
        for agents in team.grouped_agents.values():
            first = agents[0]
            shown_to = ShownObservation(
                vector.observation_spaces[first],
                team.observation_spaces[first],
                team.action_spaces[first],
            )
            sides.append(FunctionExperts([experts[agent] for agent in agents], shown_to))
    kept = {}
    for name, agents in team.grouped_agents.items():
        own = team.observation_spaces[agents[0]], team.action_spaces[agents[0]]
        kept[name] = Lives(Demonstrations(*own), agents)
    _record(rows, sides, list(kept.values()), episodes, max_steps, seed)
    return {name: each.demonstrations for name, each in kept.items()}


def _check_experts(
    experts: Mapping[str, Any], envs: int, agents: Sequence[str] | None = None
) -> None:
    """Check functions that are to play."""
    if agents is not None and (not isinstance(experts, Mapping) or set(experts) != set(agents)):
        given = list(experts) if isinstance(experts, Mapping) else shown(experts)
        raise ValueError(
            f"experts: expected a team, or a function for each agent of {list(agents)}, got {given}"
        )
    for name, expert in experts.items():
        if not callable(expert):
            raise TypeError(
                f"{name}: expected an agent for such environments, or a function of one "
                f"observation, got {shown(expert)}"
            )
    if envs != 1:
        raise ValueError(
            f"env: expected one environment for functions, which may remember what they were shown "
            f"and could not tell several apart, got a vector of {envs}"
        )


@torch.no_grad()
def _record(
    rows: RowSource,
    sides: Sequence[Experts],
    kept: Sequence[Lives],
    episodes: int,
    max_steps: int | None,
    seed: int | None,
) -> None:
    """Play episodes to their ends, and keep them."""
    episodes = checked("episodes", episodes, Annotated[int, COUNT])
    max_steps = checked("max_steps", max_steps, Annotated[int | None, COUNT])
    seed = checked("seed", seed, Annotated[int | None, SEED])
    both = list(zip(sides, kept, strict=True))
    with rounds(rows, episodes, seed) as resets:
        for seen in resets:
            for side, one in zip(sides, seen, strict=True):
                side.begin(len(one.observation))
            play_round(rows, [_Kept(*each) for each in both], seen, max_steps)
            for lives in kept:
                lives.end_all()


class _Kept(Side):
    """Somebody who plays, and all of it is kept."""

    def __init__(self, experts: Experts, lives: Lives) -> None:
        self.experts, self.lives = experts, lives

    def act(self, seen: Observed, playing: Array, name: Callable[[int], str]) -> tuple[Array, None]:
        asked = playing if seen.active is None else playing & seen.active
        action = self.experts.act(seen, asked)
        self.lives.act(seen, action, playing)
        return action, None

    def take(self, outcome: Outcome, seen: Observed, playing: Array) -> None:
        self.lives.earn(outcome, playing)
        self.experts.hear(outcome, seen)
