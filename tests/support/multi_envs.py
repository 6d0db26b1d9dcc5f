"""PettingZoo environments whose every number is known in advance, and probes of memory."""

import copy
import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils import seeding
from pettingzoo import AECEnv, ParallelEnv
from support.envs import NAN_REWARD, told

Life = tuple[int, int, str]
"""(number of the first observation, number of the last one, how it ends: t, l or b)"""

Episode = Mapping[str, Sequence[Life]]
"""Agent -> its lives; agents that are left out have none."""


def observation_space(kind: str) -> gym.Space[Any]:
    """Spaces that do not begin at 0, and that are told apart by their sizes."""
    return {
        "box": Box(-1, 1, (3,)),
        "narrow": Box(-1, 1, (1,)),
        "wide": Box(-1, 1, (5,)),
        "matrix": Box(-1, 1, (2, 3)),
        "discrete": Discrete(5, start=2),
    }[kind]


def action_space(kind: str) -> gym.Space[Any]:
    """Spaces that do not begin at 0, and bounds that are not symmetric."""
    return {
        "discrete": Discrete(3, start=1),
        "many": Discrete(5, start=-1),
        "box": Box(np.array([-1, -2], np.float32), np.array([1, 3], np.float32)),
    }[kind]


def observed(space: gym.Space[Any], index: int, number: int, episode: int, step: int) -> Any:
    """An observation that tells environments, agents, episodes and steps apart."""
    place = 1 + 0.7071 * index + 0.3717 * number + 1.3147 * episode + 0.5309 * step
    if isinstance(space, Discrete):
        return 2 + int(7 * place) % 5
    assert isinstance(space, Box)
    return np.sin(place + 2.0 * np.arange(np.prod(space.shape))).reshape(space.shape).astype("f4")


def allowed(count: int, index: int, number: int, episode: int, step: int) -> np.ndarray:
    """An int8 mask that forbids every third action, others from step to step."""
    return ((index + number + episode + step + np.arange(count)) % 3 != 0).astype(np.int8)


def earned(index: int, number: int, episode: int, step: int, action: Any) -> float:
    """A reward that tells the same apart, and the actions too."""
    return float(np.cos(index + 0.61 * number + episode + 0.9 * step) + 0.3 * np.sum(action))


def state_of(index: int, episode: int, step: int) -> np.ndarray:
    """A state that tells environments, episodes and steps apart."""
    return np.cos(0.3 + index + 1.7 * episode + 0.43 * step + np.arange(4)).astype("f4")


class ScriptedParallel(ParallelEnv[str, Any, Any]):
    """Plays episodes in which agents come and go as they are told.

    A life ``(enter, leave, how)`` shows the agent the observations ``enter`` to ``leave`` and takes
    its actions in the steps ``enter + 1`` to ``leave``; observation 0 comes from ``reset``,
    observation k from step k. The last is final: ``how`` is ``"t"``, terminated, ``"l"``, a limit,
    thus truncated, or ``"b"``, both. The episode ends when nobody is left.

    Observations depend on the environment's index, the agent, the episode and the step; rewards
    also on the action, so that an action which was stored but not sent (or sent for somebody else)
    is noticed. ``observation_of``, ``mask_of`` and ``reward_of`` are those numbers, for tests to
    compare with. ``reset(seed=...)`` begins the script anew, ``reset()`` plays its next episode.

    What else may trip a user up: the dictionaries are ordered backwards in every second step,
    agents that enter come last in ``agents``, and ``agents`` is one list that changes in place.

    >>> env = ScriptedParallel([{"bob_0": [(0, 3, "t")], "bob_1": [(0, 1, "l"), (2, 3, "t")]}])
    >>> _ = env.reset(seed=0)
    >>> env.step({"bob_0": 1, "bob_1": 3})[3], env.agents
    ({'bob_1': True, 'bob_0': False}, ['bob_0'])
    >>> env.step({"bob_0": 1})[3], env.agents
    ({'bob_0': False, 'bob_1': False}, ['bob_0', 'bob_1'])
    >>> env.step({"bob_0": 1, "bob_1": 1})[2], env.agents
    ({'bob_1': True, 'bob_0': True}, [])
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "scripted_v0", "render_modes": []}
    render_mode = None
    state_space: gym.Space[Any] = Box(-1, 1, (4,))

    def __init__(
        self,
        episodes: Sequence[Episode],
        index: int = 0,
        *,
        observation: str | Mapping[str, str] = "box",
        action: str | Mapping[str, str] = "discrete",
        masks: str | None = None,
        absent: Collection[Any] = (),
        defined: Mapping[Any, Any] | None = None,
        poison: Mapping[Any, Any] | None = None,
        asks: str = "agents",
        reuse: bool = False,
        tells: bool = False,
    ) -> None:
        """Take a script, which begins again after its last episode, and what is odd about it.

        A moment is ``(agent, step)`` in every episode or ``(agent, episode, step)``, with the
        number of the observation, reward or info; of the state it is ``("state", step)``.

        Args:
            episodes: The script; ``possible_agents`` are in the order of their first appearance.
            index: The environment's number among several.
            observation: A kind of ``observation_space``, or kinds by agent or by group.
            action: A kind of ``action_space``, or kinds by agent or by group.
            masks: ``"info"`` or ``"observation"``, as in ``{"observation", "action_mask"}``.
            absent: Moments in which an agent that lives is left out of the observations.
            defined: Moment -> the action to come, which ``env_defined_actions`` in the info asks
                for; otherwise this is None (in even steps) or missing (in odd ones).
            poison: Moment -> the first value of the observation, or ``NAN_REWARD``.
            asks: Whose actions it expects: of all ``"agents"``, or of those ``"shown"`` something.
            reuse: Overwrites the arrays of the last observations instead of making new ones.
            tells: Infos say what ``told`` says of the agent's return in the episode.
        """
        self.episodes, self.index, self.masks = episodes, index, masks
        self.absent, self.defined, self.poison = absent, defined or {}, poison or {}
        self.asks, self.reuse, self.tells = asks, reuse, tells
        self.possible_agents = list(dict.fromkeys(agent for play in episodes for agent in play))
        self.agents: list[str] = []
        self.action_spaces, self.observation_spaces = {}, {}
        for agent in self.possible_agents:
            self.action_spaces[agent] = action_space(_kind(action, agent))
            self.observation_spaces[agent] = observation_space(_kind(observation, agent))
            if masks == "observation":
                mask = Box(0, 1, (self.action_spaces[agent].n,), np.int8)
                self.observation_spaces[agent] = Dict(
                    observation=self.observation_spaces[agent], action_mask=mask
                )
        for play in episodes:
            _check_episode(play)
        self.episode, self.time, self.closed = -1, 0, False
        self.received: dict[str, list[Any]] = {agent: [] for agent in self.possible_agents}
        self.seeds: list[int | None] = []
        self._shown: set[str] = set()
        self._arrays: dict[Any, np.ndarray] = {}

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.action_spaces[agent]

    def lives_of(self, agent: str, episode: int) -> Sequence[Life]:
        """The agent's lives in an episode."""
        return self.episodes[episode % len(self.episodes)].get(agent, ())

    def observation_of(self, agent: str, episode: int, step: int) -> Any:
        """The observation number ``step``, without poison."""
        moment = self.index, self.possible_agents.index(agent), episode, step
        space = self.observation_spaces[agent]
        if not isinstance(space, Dict):
            return observed(space, *moment)
        mask = self.mask_of(agent, episode, step)
        return {"observation": observed(space["observation"], *moment), "action_mask": mask}

    def mask_of(self, agent: str, episode: int, step: int) -> np.ndarray:
        """The mask beside observation ``step``; in a final one nothing is allowed."""
        count = self.action_spaces[agent].n
        if any(leave == step for _, leave, _ in self.lives_of(agent, episode)):
            return np.zeros(count, np.int8)
        return allowed(count, self.index, self.possible_agents.index(agent), episode, step)

    def reward_of(self, agent: str, episode: int, step: int, action: Any) -> float:
        """What ``action`` brings in step number ``step``, without poison."""
        return earned(self.index, self.possible_agents.index(agent), episode, step, action)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.seeds.append(seed)
        self.episode = self.episode + 1 if seed is None else 0
        self.time, self.totals = 0, dict.fromkeys(self.possible_agents, 0.0)
        self.agents[:] = self._agents_at(enter=0)
        return self._observe(self.agents), self._infos(self.agents)

    def step(self, actions: dict[str, Any]) -> Any:
        assert self.agents, "stepped behind the end of an episode"
        asked = [agent for agent in self.agents if self.asks == "agents" or agent in self._shown]
        assert set(actions) == set(asked), f"expected actions of {asked}, got {list(actions)}"
        for agent, action in actions.items():
            self._check_action(agent, action)
            self.received[agent].append(copy.copy(action))

        self.time += 1
        left, entered = self._agents_at(leave=self.time), self._agents_at(enter=self.time)
        rewards = {agent: self._reward(agent, actions.get(agent, 0)) for agent in self.agents}
        rewards |= dict.fromkeys(entered, 0.0)
        for agent, reward in rewards.items():
            self.totals[agent] += reward
        present = self._ordered(list(rewards))
        self.agents[:] = [agent for agent in self.agents if agent not in left] + entered
        return (
            self._observe(present),
            {agent: rewards[agent] for agent in present},
            {agent: left.get(agent, "") in ("t", "b") for agent in present},
            {agent: left.get(agent, "") in ("l", "b") for agent in present},
            self._infos(present),
        )

    def state(self) -> np.ndarray:
        assert self.episode >= 0, "asked for a state before the first reset"
        state = state_of(self.index, self.episode, self.time)
        if (bad := self.poison.get(("state", self.time))) is not None:
            state[0] = bad
        return state

    def close(self) -> None:
        self.closed = True

    def _agents_at(self, enter: int | None = None, leave: int | None = None) -> Any:
        """Those who enter, as a list, or leave now, with how."""
        lives = [
            (agent, life)
            for agent in self.possible_agents
            for life in self.lives_of(agent, self.episode)
        ]
        if leave is not None:
            return {agent: life[2] for agent, life in lives if life[1] == leave}
        return [agent for agent, life in lives if life[0] == enter]

    def _moment(self, table: Collection[Any], agent: str) -> Any:
        """The key of ``table`` that means this agent now, or None."""
        keys = [(agent, self.episode, self.time), (agent, self.time)]
        return next((key for key in keys if key in table), None)

    def _ordered(self, agents: list[str]) -> list[str]:
        return agents[::-1] if self.time % 2 else agents

    def _observe(self, agents: list[str]) -> dict[str, Any]:
        seen = [agent for agent in agents if self._moment(self.absent, agent) is None]
        self._shown = set(seen)
        return {agent: self._kept(agent, self._poisoned(agent)) for agent in seen}

    def _poisoned(self, agent: str) -> Any:
        observation = self.observation_of(agent, self.episode, self.time)
        bad = self.poison.get(self._moment(self.poison, agent), NAN_REWARD)
        if bad != NAN_REWARD:
            values = observation["observation"] if self.masks == "observation" else observation
            values.flat[0] = bad
        return observation

    def _kept(self, name: Any, observation: Any) -> Any:
        """The observation itself, or its values in the array that showed the last one."""
        if isinstance(observation, dict):
            return {key: self._kept((name, key), value) for key, value in observation.items()}
        if not self.reuse or not isinstance(observation, np.ndarray):
            return observation
        array = self._arrays.setdefault(name, observation)
        array[...] = observation
        return array

    def _infos(self, agents: list[str]) -> dict[str, dict[str, Any]]:
        infos: dict[str, dict[str, Any]] = {agent: {} for agent in agents}
        for agent, info in infos.items():
            if self.tells:
                info |= told(self.totals[agent], self.episode)
            if self.masks == "info":
                info["action_mask"] = self.mask_of(agent, self.episode, self.time)
            action = self.defined.get(self._moment(self.defined, agent))
            if action is not None:
                dtype = self.action_spaces[agent].dtype
                info["env_defined_actions"] = np.atleast_1d(np.array(action, dtype))
            elif self.defined and self.time % 2 == 0:
                info["env_defined_actions"] = None
        return infos

    def _check_action(self, agent: str, action: Any) -> None:
        space = self.action_spaces[agent]
        assert space.contains(action), f"{agent}: expected an action of {space}, got {action!r}"
        defined = self.defined.get(self._moment(self.defined, agent))
        if defined is not None:
            assert np.array_equal(action, defined), f"{agent}: told {defined}, got {action}"
        elif self.masks == "info" or (self.masks and agent in self._shown):
            mask = self.mask_of(agent, self.episode, self.time)
            assert mask[action - space.start], f"{agent}: {action} is forbidden by {mask}"

    def _reward(self, agent: str, action: Any) -> float:
        if self.poison.get(self._moment(self.poison, agent)) == NAN_REWARD:
            return np.nan
        return self.reward_of(agent, self.episode, self.time, action)


def _kind(kinds: str | Mapping[str, str], agent: str) -> str:
    if isinstance(kinds, str):
        return kinds
    return kinds[agent] if agent in kinds else kinds[agent.rpartition("_")[0]]


def _check_episode(play: Episode) -> None:
    """Lives last a step or more and do not touch; somebody lives until the last one leaves."""
    living: set[int] = set()
    for agent, lives in play.items():
        ends = [-1, *(step for enter, leave, _ in lives for step in (enter, leave))]
        assert ends == sorted(set(ends)), f"{agent}: {lives} touch or last no step"
        assert all(how in ("t", "l", "b") for *_, how in lives), f"{agent}: how ends {lives}?"
        living.update(step for enter, leave, _ in lives for step in range(enter, leave))
    assert living == set(range(len(living))), f"nobody lives between the steps of {living}"


def scripted_makers(
    scripts: Sequence[Sequence[Episode]],
    only: Mapping[int, Mapping[str, Any]] | None = None,
    **options: Any,
) -> list[Callable[[], ScriptedParallel]]:
    """Make environment i play script i; ``options`` are for all, ``only`` by environment.

    The functions can be pickled, as worker processes need them.
    """
    return [
        functools.partial(ScriptedParallel, script, i, **{**options, **(only or {}).get(i, {})})
        for i, script in enumerate(scripts)
    ]


class OneAgent(ParallelEnv[str, Any, Any]):
    """A Gymnasium environment as a team of one, ``agent_0``; seeds and numbers are passed on."""

    metadata: ClassVar[dict[str, Any]] = {"name": "one_agent_v0", "render_modes": []}
    render_mode = None

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = env
        self.possible_agents = ["agent_0"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.env.observation_space

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.env.action_space

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.agents = ["agent_0"]
        observation, info = self.env.reset(seed=seed, options=options)
        return {"agent_0": observation}, {"agent_0": info}

    def step(self, actions: dict[str, Any]) -> Any:
        assert self.agents, "stepped behind the end of an episode"
        observation, reward, terminated, truncated, info = self.env.step(actions["agent_0"])
        if terminated or truncated:
            self.agents = []
        results = observation, float(reward), terminated, truncated, info
        return tuple({"agent_0": result} for result in results)

    def close(self) -> None:
        self.env.close()


class TurnTaking(AECEnv[str, Any, Any]):
    """Agents ``player_0``, ``player_1``, ... act in turn; each turn rewards everybody.

    Episodes end after given numbers of turns, as in "9t 4l" for ``envs.Scripted``: by termination
    or at a limit, for all who live. Those in ``dies`` die before, at the end of the given turn,
    whoever acted. The dead and the ended are stepped with None, one by one, as PettingZoo demands.

    Observations depend on the environment's index, the agent, the episode and the turn; rewards
    also on the action. Only the agent whose turn it is may do anything, the masks say.

    >>> env = TurnTaking("4t", dies={"player_1": 2})
    >>> env.reset(seed=0)
    >>> turns = []
    >>> for agent in env.agent_iter():
    ...     dead = env.terminations[agent]
    ...     turns.append(agent + " dead" * dead)
    ...     env.step(None if dead else 3)
    >>> print(", ".join(turns))
    player_0, player_1, player_1 dead, player_2, player_0, player_0 dead, player_2 dead
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "turn_taking_v0",
        "render_modes": [],
        "is_parallelizable": False,
    }
    render_mode = None
    state_space: gym.Space[Any] = Box(-1, 1, (4,))

    def __init__(
        self,
        script: str,
        players: int = 3,
        index: int = 0,
        *,
        dies: Mapping[str, int] | None = None,
        masks: str | None = None,
        tells: bool = False,
    ) -> None:
        """Args: script, e.g. "9t 4l 6b"; dies by turns taken; masks None, info or observation.

        With ``tells`` infos say what ``told`` says of the agent's return.
        """
        self.script = [(int(n), end) for n, end in re.findall(r"(\d+)([tlb])", script)]
        self.index, self.dies, self.masks, self.tells = index, dies or {}, masks, tells
        self.possible_agents = [f"player_{i}" for i in range(players)]
        self.agents: list[str] = []
        self._action_space = action_space("discrete")
        self._observation_space: gym.Space[Any] = observation_space("box")
        if masks == "observation":
            mask = Box(0, 1, (3,), np.int8)
            self._observation_space = Dict(observation=self._observation_space, action_mask=mask)
        self.action_spaces = dict.fromkeys(self.possible_agents, self._action_space)
        self.observation_spaces = dict.fromkeys(self.possible_agents, self._observation_space)
        self.episode, self.time = -1, 0
        self.received: dict[str, list[int]] = {agent: [] for agent in self.possible_agents}
        self.seeds: list[int | None] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self._observation_space

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self._action_space

    def observation_of(self, agent: str, episode: int, turn: int) -> np.ndarray:
        """What an agent sees after ``turn`` turns, without the mask."""
        number = self.possible_agents.index(agent)
        return observed(observation_space("box"), self.index, number, episode, turn)

    def mask_of(self, agent: str, episode: int, turn: int) -> np.ndarray:
        """What an agent may do after ``turn`` turns, if it is its turn."""
        return allowed(3, self.index, self.possible_agents.index(agent), episode, turn)

    def reward_of(self, agent: str, episode: int, turn: int, action: int) -> float:
        """What an agent earns in the turn number ``turn`` by what its actor did."""
        return earned(self.index, self.possible_agents.index(agent), episode, turn, action)

    def state(self) -> np.ndarray:
        return state_of(self.index, self.episode, self.time)

    def observe(self, agent: str) -> Any:
        observation = self.observation_of(agent, self.episode, self.time)
        if self.masks == "observation":
            return {"observation": observation, "action_mask": self._mask(agent)}
        return observation

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        self.seeds.append(seed)
        self.episode = self.episode + 1 if seed is None else 0
        self.time = 0
        self.agents = self.possible_agents[:]
        self.totals = dict.fromkeys(self.agents, 0.0)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.agent_selection = self.agents[0]
        self._skip_agent_selection = None
        self._inform()

    def step(self, action: Any) -> None:
        agent = self.agent_selection
        if self._is_dead(agent):
            self._was_dead_step(action)
        else:
            assert self._action_space.contains(action), f"{agent}: got {action!r}"
            if self.masks:
                assert self._mask(agent)[action - 1], f"{agent}: {action} is forbidden"
            self._act(agent, int(action))
        self._inform()

    def _act(self, agent: str, action: int) -> None:
        self.received[agent].append(action)
        self._cumulative_rewards[agent] = 0.0
        self.time += 1
        for other in self.agents:
            self.rewards[other] = self.reward_of(other, self.episode, self.time, action)
            self.totals[other] += self.rewards[other]
        self._accumulate_rewards()
        turns, end = self.script[self.episode % len(self.script)]
        for other in self.agents:
            ended = self.time == turns
            died = self.dies.get(other) == self.time
            self.terminations[other] = died or (ended and end in "tb")
            self.truncations[other] = ended and end in "lb"
        later = self.agents[self.agents.index(agent) + 1 :] + self.agents
        living = [other for other in later if not self._is_dead(other)]
        self.agent_selection = [*living, *later][0]
        self._deads_step_first()

    def _is_dead(self, agent: str) -> bool:
        return self.terminations[agent] or self.truncations[agent]

    def _mask(self, agent: str) -> np.ndarray:
        if agent != self.agent_selection or self._is_dead(agent):
            return np.zeros(3, np.int8)
        return self.mask_of(agent, self.episode, self.time)

    def _inform(self) -> None:
        """Every agent's info; masks change with each turn."""
        self.infos = {
            agent: {"action_mask": self._mask(agent)} if self.masks == "info" else {}
            for agent in self.agents
        }
        for agent, info in self.infos.items() if self.tells else ():
            info |= told(self.totals[agent], self.episode)


class RecallTeam(ParallelEnv[str, Any, Any]):
    """Shows each agent a bit of its own once, and asks it for that bit k steps later.

    Rewards are individual: 1 for the right answer, else 0. The bits are independent, so who answers
    from another agent's memory is right half the time. An agent leaves when it has answered;
    agent i is asked ``stagger * i`` steps later than the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "recall_team_v0", "render_modes": []}
    render_mode = None

    def __init__(self, agents: int = 3, k: int = 8, stagger: int = 0) -> None:
        self.possible_agents = [f"a_{i}" for i in range(agents)]
        self.agents: list[str] = []
        self.asked = {agent: k + stagger * i for i, agent in enumerate(self.possible_agents)}
        self._observation_space = Box(-1, 1, (2,))  # the bit (then 0), and whether it is asked for
        self._action_space = Discrete(2)
        self.np_random, _ = seeding.np_random()

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self._observation_space

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self._action_space

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self.np_random, _ = seeding.np_random(seed)
        self.time, self.agents = 0, self.possible_agents[:]
        self.bits = {agent: int(self.np_random.integers(2)) for agent in self.agents}
        shown = {agent: np.array([2 * bit - 1, 0], np.float32) for agent, bit in self.bits.items()}
        return shown, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        answered = {agent: self.asked[agent] == self.time for agent in self.agents}
        right = {agent: answered[agent] and actions[agent] == self.bits[agent] for agent in actions}
        self.time += 1
        shown = {agent: np.array([0, self.asked[agent] == self.time], "f4") for agent in answered}
        self.agents = [agent for agent in self.agents if not answered[agent]]
        return (
            shown,
            {agent: float(right[agent]) for agent in answered},
            answered,
            dict.fromkeys(answered, False),
            {agent: {} for agent in answered},
        )


class Crowd(ParallelEnv[str, Any, Any]):
    """Any number of agents in one group that cost next to nothing: all is computed beforehand.

    For measuring what a library's own work costs. A step only looks up the dictionaries that it
    returns, the same objects in each episode, so they must not be modified. Episodes end by
    truncation after ``length`` steps; actions have no effect.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "crowd_v0", "render_modes": []}
    render_mode = None

    def __init__(self, agents: int = 4, length: int = 64) -> None:
        self.possible_agents = [f"walker_{i}" for i in range(agents)]
        self.agents: list[str] = []
        self._observation_space, self._action_space = Box(-1, 1, (8,)), Discrete(4)
        random = np.random.default_rng(0)
        values = random.uniform(-1, 1, (length + 1, agents, 8)).astype(np.float32)
        rewards = random.normal(size=(length + 1, agents)).tolist()
        never = dict.fromkeys(self.possible_agents, False)
        always = dict.fromkeys(self.possible_agents, True)
        self._infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.possible_agents}
        self._results = [
            (
                dict(zip(self.possible_agents, values[t], strict=True)),
                dict(zip(self.possible_agents, rewards[t], strict=True)),
                never,
                always if t == length else never,
                self._infos,
            )
            for t in range(length + 1)
        ]
        self.time, self.length = 0, length

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self._observation_space

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self._action_space

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.time, self.agents = 0, self.possible_agents[:]
        return self._results[0][0], self._infos

    def step(self, actions: dict[str, Any]) -> Any:
        self.time += 1
        if self.time == self.length:
            self.agents = []
        return self._results[self.time]
