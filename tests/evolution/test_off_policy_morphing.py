"""Tests of `recurrent_rl.evolution.morphing` for what learns from a replay: all its networks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.contract import team_env, train
from support.envs import scripted
from support.evolving import assert_same, snapshot
from support.growing import Own
from support.helpers import double
from support.off_policy import make, said
from torch import Tensor, nn

from recurrent_rl import (
    DDPG,
    DQN,
    MADDPG,
    MATD3,
    SAC,
    TD3,
    HiddenState,
    NetConfig,
    collect_rollouts_recurrent,
)
from recurrent_rl.buffers.replay import Windows
from recurrent_rl.evolution.morphing import morph
from recurrent_rl.evolution.origins import Transfer

SMALL: dict[str, Any] = {
    "encoder_config": {
        "hidden_size": [5],
        "hidden_state_size": 4,
        "activation": "Tanh",
        "residual_layers": 1,
    },
    "head_config": {"hidden_size": [6, 5], "activation": "ELU"},
}
LARGE: dict[str, Any] = {
    "encoder_config": {
        **SMALL["encoder_config"],
        "hidden_size": [7],
        "hidden_state_size": 9,
        "residual_layers": 2,
    },
    "head_config": {"hidden_size": [8, 9], "activation": "ELU", "residual_layers": 1},
}


@dataclass
class Kind:
    """An agent, and the group of it that changes."""

    kind: Any
    options: dict[str, Any]
    env: dict[str, Any]
    group: str = ""
    cell: str = "lstm"

    def net(self, large: bool = False, **head: Any) -> dict[str, Any]:
        """One of the two architectures, with something else about the heads."""
        net = LARGE if large else SMALL
        encoder = {**net["encoder_config"], "cell": self.cell}
        return {"encoder_config": encoder, "head_config": {**net["head_config"], **head}}

    def agent(self, seed: int = 0) -> Any:
        """One with some experience."""
        env = self.vector()
        # In whatever the default dtype is now.
        own = {name: Own(*sizes) for name, sizes in self.options.get("own", {}).items()}
        options = {name: value for name, value in self.options.items() if name != "own"}
        options = {"max_seq_len": 4, "net_config": self.net(), **options, **own}
        return train(make(self.kind, env, seed=seed, **options), env, 3)

    def vector(self) -> Any:
        if self.kind in (MADDPG, MATD3):
            return team_env(**self.env)
        return scripted(["3t 5l", "7b"], **self.env)


BOX = {"action": "box"}
SEVERAL = {
    "observation": {"bob": "box", "fred": "discrete"},
    "action": {"bob": "discrete", "fred": "box"},
}
KINDS = {
    "dqn": Kind(DQN, {"previous_action": True}, {}),
    "dqn, dueling": Kind(DQN, {"dueling": True, "lr_encoder": 1e-3}, {}, cell="gru"),
    "dqn, feed-forward": Kind(DQN, {"recurrent": False, "target_update": 3}, {"masked": True}),
    "ddpg": Kind(DDPG, {"previous_reward": True, "normalize_obs": True}, BOX),
    "ddpg, shared": Kind(DDPG, {"share_encoders": True}, BOX),
    "ddpg, own": Kind(DDPG, {"own": {"critic_network": (0, 3)}}, BOX),
    "td3": Kind(TD3, {"critics": 3, "lr_encoder": 1e-3}, BOX),
    "td3, feed-forward": Kind(TD3, {"recurrent": False}, {}),
    "sac": Kind(SAC, {}, BOX),
    "sac, choices": Kind(SAC, {"share_encoders": True, "lr_encoder": 1e-3}, {"masked": True}),
    "sac, sde": Kind(SAC, {"use_sde": True, "state_dependent_std": False}, BOX),
    "maddpg, two of three": Kind(MADDPG, {}, SEVERAL, "bob"),
    "matd3, one of three": Kind(MATD3, {"share_encoders": True}, SEVERAL, "fred"),
    "matd3, feed-forward": Kind(MATD3, {"recurrent": False}, {}, "bob"),
}
EACH = pytest.mark.parametrize("name", KINDS)


def change(agent: Any, kind: Kind, net: dict[str, Any] | None = None) -> Transfer:
    """Morph the group that changes; None: to the larger architecture."""
    net = kind.net(large=True) if net is None else net
    generator = torch.Generator().manual_seed(1)
    return morph(agent.trainers[kind.group], NetConfig.from_dict(net), generator)


def sample(agent: Any) -> Windows:
    return agent.memory.sample(6, torch.Generator().manual_seed(3), ahead=2, owner=0)


def carried(windows: Windows, transfer: Transfer, group: str) -> Windows:
    """The same with the states of a network that has changed."""
    mine = windows.groups[group]
    rows = mine.start.shape[1]
    extra = [torch.zeros(k, rows, h) for k, h in transfer.old.state_shapes[transfer.old.memory :]]
    state = transfer.state(HiddenState([*mine.state, *extra], rows))
    own = replace(mine, state=state.tensors[: transfer.new.memory])
    return replace(windows, groups={**windows.groups, group: own})


@EACH
@double()
def test_growing_changes_nothing_that_any_network_says(name: str) -> None:
    """Critics of all groups, actors, and the targets of both, within lives."""
    kind = KINDS[name]
    agent = kind.agent()
    windows = sample(agent)
    before = said(agent.learner, windows)
    weights = sum(p.numel() for p in agent.trainers[kind.group].policy.parameters())
    transfer = change(agent, kind)
    assert sum(p.numel() for p in agent.trainers[kind.group].policy.parameters()) > weights
    after = said(agent.learner, carried(windows, transfer, kind.group))
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-9, atol=1e-9, msg=key)
        assert value.std() > 1e-3, f"{key}: nothing to be preserved"
    for which in ("critic", "actor"):  # targets are not the same as what they follow
        if f"{which} {kind.group}" in after and f"target {which} {kind.group}" in after:
            assert not torch.equal(
                after[f"{which} {kind.group}"], after[f"target {which} {kind.group}"]
            )


@EACH
@pytest.mark.parametrize("large", [True, False], ids=["grow", "shrink"])
def test_moments_and_targets_follow_their_weights(name: str, large: bool) -> None:
    kind = KINDS[name]
    agent = kind.agent()
    if not large:
        change(agent, kind)
    learner = agent.learner
    for part, optimizer, parameters in parts_of(learner):
        moments = [
            {"step": torch.tensor(5.0), "exp_avg": 3 * p.detach(), "exp_avg_sq": p.detach() ** 2}
            for p in parameters
        ]
        optimizer.replace(part, moments)
    for _, target in learner.targets():
        for twin, source in target.pairs:
            twin.data.copy_(2 * source.data)
    updates, rates = learner.updates, [opt.lr for _, opt, _ in parts_of(learner)]
    transfer = change(agent, kind, kind.net(large))
    assert (learner.updates, [opt.lr for _, opt, _ in parts_of(learner)]) == (updates, rates)
    assert agent.trainers[kind.group].learner is learner is agent.learner
    taken = 0
    for part, optimizer, parameters in parts_of(learner):
        for p, moments in zip(parameters, optimizer.moments(part), strict=True):
            known = kept(transfer, p)
            assert torch.equal(moments["exp_avg"], torch.where(known, 3 * p, 0))
            assert torch.equal(moments["exp_avg_sq"][known], (p**2)[known])
            assert moments["step"] == 5
            taken += int(known.sum())
    assert taken > 100
    for name, policy in getattr(learner, "policies", {}).items():
        if name != kind.group:  # which has not changed at all
            assert all(bool(kept(transfer, p).all()) for p in policy.parameters())
    for _, target in learner.targets():
        for twin, source in target.pairs:
            known = kept(transfer, source)
            assert torch.equal(twin[known], 2 * source[known])
            assert not twin.requires_grad


def parts_of(learner: Any) -> Iterator[tuple[Any, Any, list[nn.Parameter]]]:
    for _, network in learner.networks():
        for name, optimizer in network.optimizers.items():
            part = network.parts[name]
            yield part, optimizer, part.trained_parameters()


def kept(transfer: Transfer, parameter: Tensor) -> Tensor:
    if parameter not in transfer.origin:
        return torch.zeros_like(parameter, dtype=torch.bool)
    return transfer.origin[parameter][1] >= 0


@EACH
def test_growing_and_shrinking_back_changes_nothing(name: str) -> None:
    kind = KINDS[name]
    if "use_sde" in kind.options:
        return  # whose units are all of use to the exploration
    agent = kind.agent()
    before = snapshot(agent)
    change(agent, kind)
    change(agent, kind, kind.net())
    after = snapshot(agent)
    for each in (before, after):
        each["collection"] = None
    assert_same(before, after)


@EACH
def test_another_activation_keeps_all(name: str) -> None:
    kind = KINDS[name]
    agent = kind.agent()
    before = snapshot(agent)
    change(agent, kind, kind.net(activation="ReLU"))
    after = snapshot(agent)
    assert after["groups"][kind.group].pop("net_config")["head_config"]["activation"] == "ReLU"
    before["groups"][kind.group].pop("net_config")
    for each in (before, after):
        each["collection"] = None
        each["groups"][kind.group]["explorer"] = None  # noise that a network was given is dropped
    assert_same(before, after)


@EACH
def test_goes_on_learning_and_is_saved(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    agent, env = kind.agent(), kind.vector()
    change(agent, kind)
    train(agent, env, 1)
    before = snapshot(agent)
    train(agent, env, 1)
    moved = snapshot(agent)
    for group in agent.group_names:
        ours, theirs = (each["groups"][group]["policy"] for each in (before, moved))
        assert any(not torch.equal(ours[key], theirs[key]) for key in ours)
    own = {key: Own(*sizes) for key, sizes in kind.options.get("own", {}).items()}
    agent.save_checkpoint(tmp_path / "agent.pt", save_replay=True)
    other = kind.kind.load(tmp_path / "agent.pt", **own)
    assert_same(moved, snapshot(other))
    twin = agent.clone()
    twin.memory = other.memory
    for each in (agent, other):
        collect_rollouts_recurrent(each, kind.vector())
        each.learn()
    assert_same(snapshot(agent), snapshot(other))


@pytest.mark.parametrize("reader", ["bob", "fred"])
def test_shrinking_keeps_the_features_that_any_critic_reads(reader: str) -> None:
    """Of any group, and of any of the group's agents: only the last agent's unit 3 is read."""
    kind = KINDS["matd3, feed-forward"]
    encoder = {"hidden_size": [6], "activation": "Tanh"}
    plain = {"encoder_config": encoder, "head_config": {"hidden_size": [5], "activation": "Tanh"}}
    options = {"recurrent": False, "net_config": plain}
    agent = train(make(MATD3, kind.vector(), **options), kind.vector(), 2)
    learner, windows = agent.learner, sample(agent)
    width = learner.critic.block(learner.policies["bob"])
    with torch.no_grad():
        agent.trainers["bob"].policy.action_head.layers[0].weight[:, 2] = 0
        for critic in (learner.critic, learner.target.module):
            for name in ("bob", "fred"):
                blocks = critic.blocks(name)
                of_bob = [i for i, block in enumerate(blocks) if block == "bob"]
                for head in critic.heads_of(name):
                    for i in of_bob:
                        read = name == reader and i == of_bob[-1]
                        unread = (2,) if read else (2, 3)
                        head[0].weight[:, [i * width + unit for unit in unread]] = 0
    before = said(learner, windows)
    smaller = {**plain, "encoder_config": {**encoder, "hidden_size": [5]}}
    change(agent, kind, smaller)
    for key, value in said(learner, windows).items():
        if "target actor" not in key:  # whose weights are others
            torch.testing.assert_close(value, before[key], msg=key)


def test_frozen_parts_stay_frozen() -> None:
    agent = KINDS["td3"].agent()
    agent.policy.action_head.requires_grad_(False)
    agent.critic.heads.requires_grad_(False)
    train(agent, KINDS["td3"].vector(), 1)
    change(agent, KINDS["td3"])
    frozen = [agent.policy.action_head, agent.critic.heads]
    assert not any(p.requires_grad for module in frozen for p in module.parameters())
    before = [p.clone() for module in frozen for p in module.parameters()]
    train(agent, KINDS["td3"].vector(), 2)
    after = [p for module in frozen for p in module.parameters()]
    assert all(map(torch.equal, before, after))
    agent.critic.heads.requires_grad_(True)
    train(agent, KINDS["td3"].vector(), 1)
    assert not any(map(torch.equal, before[-4:], list(agent.critic.heads.parameters())[-4:]))


def test_what_judges_an_action_is_the_new_critic() -> None:
    agent = KINDS["td3"].agent()
    observation, state = torch.zeros(2, 3).numpy(), agent.get_initial_hidden_state(2)
    before = agent.get_action(observation, state, deterministic=True).value
    change(agent, KINDS["td3"])
    state = agent.get_initial_hidden_state(2)
    after = agent.get_action(observation, state, deterministic=True).value
    torch.testing.assert_close(torch.from_numpy(after), torch.from_numpy(before))
    with torch.no_grad():
        for p in agent.critic.heads.parameters():
            p.zero_()
    assert not agent.get_action(observation, state, deterministic=True).value.any()
