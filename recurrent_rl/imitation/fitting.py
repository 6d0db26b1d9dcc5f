"""Whether demonstrations are some that an agent can imitate."""

from collections.abc import Mapping
from typing import Any

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.imitation.demonstrations import Demonstrations
from recurrent_rl.networks.off_policy import QNetwork
from recurrent_rl.spaces.serialization import same_space
from recurrent_rl.validation import shown, unknown_name


def demonstrations_by_group(agent: Any, demonstrations: Any) -> dict[str, Demonstrations]:
    """Return demonstrations by the names of an agent's groups.

    Raises:
        TypeError: no agent, or no demonstrations.
        ValueError: a group that there is not, or several and nothing that says whose they are.

    """
    if not isinstance(agent, Agent):
        raise TypeError(f"agent: expected an agent of this package, got {shown(agent)}")
    names = agent.group_names
    if isinstance(demonstrations, Demonstrations):
        if len(names) > 1:
            raise ValueError(
                f"demonstrations: expected a dictionary by group, out of {names}, as this agent "
                f"has several, got {demonstrations}"
            )
        return {names[0]: demonstrations}
    if not isinstance(demonstrations, Mapping) or not demonstrations:
        raise TypeError(
            f"demonstrations: expected Demonstrations, or a dictionary of them by group, got "
            f"{shown(demonstrations)}"
        )
    for name, each in demonstrations.items():
        if name not in names:
            message = unknown_name("The agent", name, names)
            raise ValueError(f"demonstrations: {message.replace('option', 'group')}")
        if not isinstance(each, Demonstrations):
            raise TypeError(f"demonstrations[{name!r}]: expected Demonstrations, got {shown(each)}")
    return dict(demonstrations)


def check_fits(group: AgentGroup, demonstrations: Demonstrations, name: str = "") -> None:
    """Check that a group's policy can imitate demonstrations.

    Raises:
        TypeError: it is no policy but values of actions.
        ValueError: there are none, they are of other spaces, show what the policy cannot read, or
            lack what it sees beside observations.

    """
    what = f"demonstrations[{name!r}]" if name else "demonstrations"
    policy = group.policy
    if isinstance(policy, QNetwork):
        raise TypeError(
            "agent: expected one with a policy, got DQN, whose network gives the values of "
            "actions: demonstrations say what to do, but not what that is worth, and values that "
            "are merely in the right order are undone by the first updates (Hester et al. 2018); "
            "clone into PPO or SAC, which take Discrete actions too"
        )
    if not len(demonstrations):
        raise ValueError(f"{what}: expected at least one episode, got none; add some first")
    for which, expected, got in (
        ("observation", group.observation_space, demonstrations.observation_space),
        ("action", group.action_space, demonstrations.action_space),
    ):
        if not same_space(expected, got, bounds=which == "action"):
            raise ValueError(
                f"{what}: expected the agent's {which} space {expected}, got {got}; record or add "
                f"episodes of the environment that the agent is built for, wrapped alike"
            )
    layout, apart = policy.codec.layout, policy.tells_apart
    for i, episode in enumerate(demonstrations.episodes):
        where = f"{what}.episodes[{i}]"
        if episode.observation.dtype != layout.dtype or bool(
            policy.codec.invalid(episode.observation).any()
        ):
            raise ValueError(
                f"{where}: expected observations that the policy can read, got some that are out "
                f"of the bounds of {group.observation_space}, or not finite"
            )
        if policy.extra.reward and episode.reward is None:
            raise ValueError(
                f"{where}: expected rewards, as this agent was built with previous_reward=True, "
                f"got none; add episodes with rewards="
            )
        if apart and episode.agent not in group.agents:
            raise ValueError(
                f"{where}: expected one of the agents {list(group.agents)}, as their policy is "
                f"shown which of them it acts for, got {episode.agent!r}; add episodes with agent="
            )
