"""Tests of `recurrent_rl.acting.player`: the rule of memory, against a plain loop over rows."""

from typing import Any

import numpy as np
import pytest
import torch
from support.agents import make_agent, make_team
from support.envs import scripted
from support.multi_envs import scripted_makers
from torch import Tensor

from recurrent_rl import SyncMultiAgentVectorEnv
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import Player, SampledNoise
from recurrent_rl.envs.rows import Observed
from recurrent_rl.networks.policy import Acted
from recurrent_rl.recurrent.state import HiddenState

ROWS, STEPS = 6, 25
SCALE = 0.3


class OneRow:
    """The rule in plain words, for one row: what is remembered, kept apart from the policy."""

    def __init__(self, group: AgentGroup, agent: int) -> None:
        self.group, self.policy, self.agent = group, group.policy, agent
        self.begin()

    def begin(self) -> None:
        """A life begins: nothing has been seen, done or earned."""
        self.memory = [torch.zeros(k, 1, h) for k, h in self.policy.state_shapes]
        if self.policy.extra.action:
            self.memory.pop()
        self.last_action = torch.zeros(self.policy.actions.features)
        self.reward = 0.0

    @property
    def state(self) -> HiddenState:
        """The hidden state, which ends on the last action if the policy sees that."""
        last = [self.last_action[None, None]] if self.policy.extra.action else []
        return HiddenState([*self.memory, *last], 1)

    @property
    def extra(self) -> Tensor | None:
        """The inputs beside the observation."""
        config, parts = self.group.config, []
        if config.previous_action:
            parts.append(self.last_action)
        if config.previous_reward:
            parts.append(torch.tensor([self.reward], dtype=torch.float32))
        if self.group.identify:
            parts.append(torch.eye(self.group.size)[self.agent])
        return torch.cat(parts)[None] if parts else None

    def act(self, observation: Tensor, noise: Tensor, exists: bool, forced: Any) -> Acted:
        """Choose; who sees nothing remembers nothing of it."""
        acted = self.policy.act(observation[None], self.extra, self.state, noise[None])
        if exists:
            action = acted.action
            if forced is not None:
                action = self.policy.actions.from_env(np.asarray(forced)[None])
            self.memory = list(acted.state.tensors[: self.policy.memory])
            self.last_action = self.policy.actions.encode(action)[0]
        return acted

    def hear(self, reward: float, exists: bool) -> None:
        """The latest reward, or all since it last saw something."""
        self.reward = reward * SCALE + (0.0 if exists else self.reward)

    def value(self, observation: Tensor) -> Tensor:
        """V, without remembering anything."""
        return self.policy.value(observation[None], self.extra, self.state)[0]


def close(ours: Tensor, theirs: Tensor, what: str) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=lambda m: f"{what}: {m}")


def group_of(action: str, identify: bool = False, **options: Any) -> AgentGroup:
    """A group of one agent, or of three that the policy tells apart."""
    options = {"reward_scale": SCALE, **options}
    if not identify:
        return make_agent(scripted(["3t"], action=action), **options).group
    play = {f"bob_{i}": [(0, 3, "t")] for i in range(3)}
    env = SyncMultiAgentVectorEnv(scripted_makers([[play]], action=action))
    (group,) = make_team(env, agent_id_input=True, **options).groups
    return group


class Script:
    """What happens to the rows, at random: one step's observations, actions and rewards."""

    def __init__(self, group: AgentGroup, seed: int) -> None:
        self.group, self.random = group, np.random.default_rng(seed)

    def observed(self, rare: bool) -> Observed:
        """What is seen; ``rare`` leaves out what usually is not there."""
        random = self.random
        observation = random.normal(size=(ROWS, 3)).astype(np.float32)
        if rare:
            return Observed(observation)
        exists = random.random(ROWS) < 0.6
        start = exists & (random.random(ROWS) < 0.3)
        forced = exists & (random.random(ROWS) < 0.3)
        space = self.group.action_space
        actions = np.stack([space.sample() for _ in range(ROWS)])
        return Observed(observation, start, exists, exists & ~forced, None, forced, actions)


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"previous_action": True, "previous_reward": True},
        {"previous_action": True, "previous_reward": True, "identify": True},
        {"cell": "gru", "previous_action": True, "num_layers": 2, "share_encoders": False},
        {"previous_reward": True, "identify": True},
        {"recurrent": False, "previous_action": True, "previous_reward": True},
        {"recurrent": False},
    ],
    ids=str,
)
@torch.no_grad()
def test_rule_of_memory_equals_a_plain_loop(action: str, options: dict[str, Any]) -> None:
    group = group_of(action, **options)
    group.action_space.seed(0)
    player, script = group.player(ROWS), Script(group, 1)
    rows = [OneRow(group, n % group.size) for n in range(ROWS)]
    generator = torch.Generator().manual_seed(2)
    explorer = SampledNoise(group.policy.distribution, ROWS, generator, group.device)
    for t in range(STEPS):
        seen = script.observed(rare=t % 5 == 4)
        observation = torch.from_numpy(seen.observation)
        noise = explorer.noise(STEPS - t)
        exists = np.ones(ROWS, bool) if seen.exists is None else seen.exists
        for n, row in enumerate(rows):
            if seen.start is not None and seen.start[n]:
                row.begin()
        before = [(row.state, row.extra) for row in rows]
        acted = [
            row.act(
                observation[n],
                noise[n],
                bool(exists[n]),
                None if seen.forced is None or not seen.forced[n] else seen.forced_action[n],
            )
            for n, row in enumerate(rows)
        ]
        turn = player.act(seen, observation, noise)
        for n, (state, extra) in enumerate(before):
            for ours, theirs in zip(turn.before[n].tensors, state.tensors, strict=True):
                close(ours, theirs, f"state before step {t} of row {n}")
            assert (turn.extra is None) == (extra is None)
            if turn.extra is not None and extra is not None:
                close(turn.extra[n], extra[0], f"extra inputs of step {t} of row {n}")
            if seen.forced is None or not seen.forced[n]:
                chosen = acted[n].action[0]
                close(turn.acted.action[n], chosen, f"action of step {t} of row {n}")
            close(turn.acted.dist_params[n], acted[n].dist_params[0], f"parameters of step {t}")
        reward = script.random.normal(size=ROWS)
        player.hear(reward, seen.exists)
        for n, row in enumerate(rows):
            row.hear(float(reward[n]), bool(exists[n]))
            for ours, theirs in zip(player.state[n].tensors, row.state.tensors, strict=True):
                close(ours, theirs, f"state after step {t} of row {n}")
            if group.config.previous_reward:
                close(player.reward[n], torch.tensor(row.reward).float(), f"reward of row {n}")
        final = torch.from_numpy(script.random.normal(size=(ROWS, 3)).astype(np.float32))
        values = torch.stack([row.value(final[n]) for n, row in enumerate(rows)])
        close(player.value(final), values, f"values after step {t}")
        some = np.array([4, 1])
        close(player.value(final[some], some), values[some], f"values of some after step {t}")


@torch.no_grad()
def test_value_leaves_the_memory_as_it_is() -> None:
    group = group_of("box", previous_action=True, previous_reward=True)
    player = group.player(2)
    observation = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    player.act(Observed(observation.numpy()), observation, None)
    player.hear(np.array([1.0, 2.0]), None)
    before, reward = player.state.clone(), player.reward.clone()
    first = player.value(observation)
    assert torch.equal(first, player.value(observation))
    assert torch.equal(player.reward, reward)
    assert all(map(torch.equal, player.state.tensors, before.tensors))


@torch.no_grad()
def test_zero_at_start_frozen_where_absent_and_rewards_add_up() -> None:
    """Golden numbers of three rows: one goes on, one is absent for a step, one starts anew."""
    group = group_of("box", previous_action=True, previous_reward=True)
    player = group.player(3)
    observation = torch.ones(3, 3)
    exists = np.array([True, False, True])
    player.act(Observed(observation.numpy()), observation, None)
    player.hear(np.array([1.0, 2.0, 3.0]), None)
    assert player.reward.tolist() == pytest.approx([0.3, 0.6, 0.9])
    before = player.state.clone()
    assert all(x.ne(0).any(-1).all() for x in before.tensors)
    # The absent one earns something that it does not see yet, and remembers what it did.
    turn = player.act(Observed(observation.numpy(), exists=exists), observation, None)
    player.hear(np.array([1.0, 10.0, 3.0]), exists)
    assert player.reward.tolist() == pytest.approx([0.3, 3.6, 0.9])
    for x, y in zip(player.state.tensors, before.tensors, strict=True):
        assert torch.equal(x[:, 1], y[:, 1])
        assert not torch.equal(x[:, 0], y[:, 0])
    player.begin(np.array([False, False, True]))
    assert player.reward.tolist() == pytest.approx([0.3, 3.6, 0])
    assert all((x[:, 2] == 0).all() for x in player.state.tensors)
    assert torch.equal(player.state.tensors[-1][0, 0], turn.acted.action[0])
    # It sees something again: all that it earned meanwhile, and what it did last.
    turn = player.act(Observed(observation.numpy()), observation, None)
    assert turn.extra is not None
    assert turn.extra[1, -1].item() == pytest.approx(3.6)
    assert torch.equal(turn.extra[1, :-1], before.tensors[-1][0, 1])
    player.hear(np.array([0.0, 5.0, 0.0]), None)
    assert player.reward.tolist() == pytest.approx([0, 1.5, 0])


def test_starts_with_what_it_is_given() -> None:
    group = group_of("discrete", previous_reward=True)
    state = HiddenState([torch.randn_like(x) for x in group.policy.initial_state(2).tensors], 2)
    reward = torch.tensor([1.0, 2.0])
    player = Player(group.policy, state, reward)
    assert player.state is state
    assert player.reward is reward
    fresh = Player(group.policy, state)
    assert fresh.reward.tolist() == [0, 0]
    kept = [x.clone() for x in state.tensors]
    player.begin(np.array([True, False]))  # the state that was given is the giver's
    assert all(map(torch.equal, state.tensors, kept))
    assert reward.tolist() == [1, 2]
