"""Tests of `recurrent_rl.algorithms.replayed`: what networks give again for what is replayed."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from support.envs import scripted
from support.multi_envs import Episode, TurnTaking, scripted_makers
from support.recollected import Acted, acting_noted, all_windows, assert_replays
from support.replays import make_off_policy
from torch import Tensor

from recurrent_rl import SyncMultiAgentVectorEnv, collect_rollouts_recurrent
from recurrent_rl.algorithms.replayed import Replayed, joint
from recurrent_rl.buffers.replay import GroupWindows, Windows

CPU = torch.device("cpu")
SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP

# --- replayed equals collected ----------------------------------------------------------------


@pytest.fixture
def acted() -> Iterator[Acted]:
    """What policies gave while collecting; see ``acting_noted``."""
    with acting_noted() as found:
        yield found


PLAYS: list[list[Episode]] = [
    [
        {"bob_0": [(0, 5, "t")], "bob_1": [(0, 2, "t")], "eve_0": [(0, 3, "l")]},
        {"bob_0": [(0, 2, "l"), (4, 6, "b")], "bob_1": [(1, 6, "l")], "eve_0": [(3, 5, "t")]},
    ],
    [{"bob_0": [(0, 1, "l")], "bob_1": [(0, 4, "l")], "eve_0": [(1, 4, "l")]}],
]


def environment(kind: str, mode: AutoresetMode = SAME) -> Any:
    """Environments in which everything happens that may."""
    if kind == "turns":
        makers = [lambda i=i: TurnTaking("5t 9l", 3, i, masks="info") for i in range(2)]
        return SyncMultiAgentVectorEnv(makers)
    if kind.startswith("ma"):
        absent = [("bob_0", 1), ("eve_0", 2), ("bob_1", 3)]
        defined = {("bob_1", 1): 2, ("bob_0", 0): 3}
        return SyncMultiAgentVectorEnv(scripted_makers(PLAYS, absent=absent, defined=defined))
    action = "discrete" if kind == "dqn" else "box"
    scripts = ["3t 9l 4b 1l", "2l 1t 12l"]
    return scripted(scripts, mode, action=action, masked=kind == "dqn")


VARIANTS: list[dict[str, Any]] = [
    {},
    {"cell": "gru", "burn_in": 2},
    {"burn_in": 5, "max_seq_len": 6, "overlap": 2, "num_layers": 2},
    {"share_encoders": True, "previous_action": True, "previous_reward": True},
    {"recurrent": False, "previous_action": True},
    {"max_seq_len": 1, "previous_reward": True},
    {"normalize_obs": True, "burn_in": 1},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("dqn", SAME), ("dqn", NEXT), ("sac", SAME), ("td3", NEXT), ("maddpg", SAME), ("turns", SAME)],
)
def test_what_is_replayed_is_what_was_collected(
    kind: str, mode: AutoresetMode, options: dict[str, Any], acted: Acted
) -> None:
    """With the parameters that collected, from stored states, in pieces, past the ring's seam."""
    env = environment(kind, mode)
    if kind == "dqn":
        options = {k: x for k, x in options.items() if k != "share_encoders"}
    agent = make_off_policy(
        "matd3" if kind == "turns" else kind, env, **{"memory_size": 60, **options}
    )
    if options.get("normalize_obs"):
        agent.end_rollout = lambda steps: None  # statistics move, as weights do
    for steps in (1, 20, 3, 26):
        collect_rollouts_recurrent(agent, env, steps)
    assert assert_replays(agent, acted) > 50
    before = len(acted)
    collect_rollouts_recurrent(agent, env, 11, reset=True)
    assert len(acted) > before
    assert assert_replays(agent, acted) > 50


def test_memory_that_starts_from_elsewhere_is_noticed(acted: Acted) -> None:
    """So that the test above cannot pass by chance: states and burn-in do matter there."""
    env = environment("dqn")
    agent = make_off_policy("dqn", env)
    collect_rollouts_recurrent(agent, env, 30)
    with pytest.raises(AssertionError):
        assert_replays(agent, acted, owner=-1)


# --- burn-in ----------------------------------------------------------------------------------


def stale(agent: Any) -> None:
    """Let another agent, of other weights, have stored the states."""
    for part in agent.memory.parts.values():
        for state in part.hidden:
            state.normal_()


def windows_of_one_life(agent: Any) -> tuple[Windows, Replayed]:
    """All windows, and the first group's part."""
    windows = all_windows(agent.memory)
    (group,) = windows.groups.values()
    return windows, Replayed(group, windows.burn_in, windows.length, CPU)


def test_burn_in_makes_stale_states_fresh(acted: Acted) -> None:
    """Exactly, where a life begins in it; otherwise the error fades."""
    env = scripted(["60t"])
    errors = {}
    for burn_in in (0, 2, 5, 11):
        acted.clear()
        agent = make_off_policy("dqn", env, burn_in=burn_in, max_seq_len=12, overlap=8)
        collect_rollouts_recurrent(agent, env, 40, reset=True)
        stale(agent)
        windows, replay = windows_of_one_life(agent)
        values = agent.policy.q_head(replay.features(agent.policy.trunk)).detach()
        errors[burn_in] = [
            float((values[0, b] - acted["", 0, int(slot) * 4, 0][0]).abs().max())
            for b, slot in enumerate(windows.slot)
        ]
        fresh = [4 * c <= burn_in for c in range(10)]
        assert all(error < 1e-5 for error, x in zip(errors[burn_in], fresh, strict=True) if x)
    mean = {burn_in: np.mean(error[3:]) for burn_in, error in errors.items()}
    assert mean[0] > mean[2] > mean[5] > mean[11]
    assert mean[11] < 0.05 * mean[0]


@pytest.mark.parametrize("ends", [False, True])
def test_burn_in_has_no_gradient_and_the_rest_has(ends: bool) -> None:
    env = scripted(["4t 3l"] if ends else ["60t"])
    agent = make_off_policy("dqn", env, burn_in=3, max_seq_len=4)
    collect_rollouts_recurrent(agent, env, 40)
    windows = all_windows(agent.memory)
    group = windows.groups[""]
    obs = group.obs.clone().requires_grad_()
    group = GroupWindows(**{**vars(group), "obs": obs})
    replay = Replayed(group, 3, 4, CPU)
    replay.features(agent.policy.trunk, 0, 4).sum().backward()
    assert obs.grad is not None
    moved = obs.grad.abs().sum(-1) > 0
    assert not moved[:3].any()
    assert torch.equal(moved[3:7], group.exists[3:7])
    assert not moved[7:].any()


# --- what does not exist ----------------------------------------------------------------------


def garbled(windows: Windows) -> Windows:
    """Put garbage into all that does not exist, or is known to mean nothing."""
    groups = {}
    for name, group in windows.groups.items():
        fields: dict[str, Any] = {**vars(group)}
        gone = ~group.exists
        for field in ("obs", "extra", "action", "action_mask"):
            tensor = fields[field]
            if tensor is None:
                continue
            tensor = fields[field] = tensor.clone()
            if tensor.is_floating_point():
                tensor[gone] = torch.nan
            elif field == "action":  # some other choice
                tensor[gone] = 2 - tensor[gone]
            else:
                tensor[gone] = ~tensor[gone]
        # Before the first decision that the window knows of, rewards belong to nobody.
        decided = (group.active & group.exists)[windows.burn_in :].cummax(0).values
        fields["reward"] = group.reward.clone()
        fields["reward"][windows.burn_in :][~decided] = torch.nan
        fields["reward"][: windows.burn_in] = torch.nan
        # Outcomes of what never was.
        states = []
        fresh = group.start[windows.burn_in]
        for state in group.state:
            state = state.clone()
            state[:, fresh] = torch.nan
            states.append(state)
        fields["state"] = states
        groups[name] = GroupWindows(**fields)
    return Windows(groups, windows.burn_in, windows.length, windows.slot, windows.weight)


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("kind", ["dqn", "ddpg", "td3", "sac", "maddpg", "turns"])
def test_garbage_in_what_does_not_exist_changes_no_bit(kind: str, recurrent: bool) -> None:
    """Of the loss, of priorities, and of all weights after three updates."""
    env = environment(kind)
    options: dict[str, Any] = {"burn_in": 2, "n_step": 2} if recurrent else {"n_step": 2}
    agent = make_off_policy(
        "matd3" if kind == "turns" else kind,
        env,
        recurrent=recurrent,
        previous_reward=True,
        **options,
    )
    collect_rollouts_recurrent(agent, env, 40)
    windows = all_windows(agent.memory)
    assert not all(group.exists.all() for group in windows.groups.values())
    results = []
    for sample in (windows, garbled(windows)):
        other = agent.clone()
        updates = [other.learner.update(sample) for _ in range(3)]
        weights = [x for group in other.groups for x in group.policy.state_dict().values()]
        numbers = [x for records, _ in updates for r in records.values() for x in r.values()]
        results.append([*weights, *numbers, *(order for _, order in updates)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.isfinite().all()


def test_states_before_a_life_mean_nothing() -> None:
    """Also in windows without any start within them, which are run in one piece."""
    env = scripted(["4l"], NEXT)
    agent = make_off_policy("dqn", env, max_seq_len=5)  # a window for each life
    collect_rollouts_recurrent(agent, env, 20)
    group = all_windows(agent.memory, ahead=0).groups[""]
    assert group.start[0].all()
    assert group.exists.all()
    assert not group.start[1:].any()
    ours = Replayed(group, 0, 5, CPU).features(agent.policy.trunk)
    state = [torch.full_like(x, torch.nan) for x in group.state]
    other = GroupWindows(**{**vars(group), "state": state})
    assert torch.equal(Replayed(other, 0, 5, CPU).features(agent.policy.trunk), ours)


@pytest.mark.parametrize("kind", ["dqn", "maddpg"])
def test_padding_of_episodes_has_no_effect(kind: str) -> None:
    """Among longer ones each has the features and targets that it has alone."""
    env = environment(kind)
    agent = make_off_policy(kind, env, sampling="episodes", memory_size=60)
    collect_rollouts_recurrent(agent, env, 60)
    memory = agent.memory
    episodes = list(zip(*memory._episodes(), strict=True))
    assert len({length for *_, length in episodes}) > 1
    together = memory.sample_episodes(20, torch.Generator().manual_seed(0))
    for name, group in together.groups.items():
        policy = agent.trainers[name].policy
        trunk = policy.trunk if kind == "dqn" else policy.critic_trunk
        replay = Replayed(group, 0, together.length, CPU)
        features, targets = replay.features(trunk), replay.targets(0.9, 3)
        alone = []
        for place in episodes:
            e, begin, length = (np.array([x]) for x in place)
            slot, end = np.array([-1]), begin + length
            one = memory._gather(e, begin, (0, int(length[0]), 0), -1, slot, end=end)
            each = Replayed(one.groups[name], 0, int(length[0]), CPU)
            alone.append((each.windows.obs, each.features(trunk), each.targets(0.9, 3)))
        for b in range(20):
            rows = slice(b * group.agents, (b + 1) * group.agents)
            at = group.obs[:, rows]
            (found,) = [x for x in alone if torch.equal(at[: len(x[0])], x[0])]
            length = len(found[0])
            torch.testing.assert_close(features[:length, rows], found[1])
            assert (features[length:, rows] == 0).all()
            for ours, theirs in zip(targets, found[2], strict=True):
                assert torch.equal(ours[:length, rows], theirs)
            assert not targets.known[length:, rows].any()


def test_windows_in_which_nothing_exists_give_zeros() -> None:
    env = environment("maddpg")
    agent = make_off_policy("maddpg", env, burn_in=2)
    collect_rollouts_recurrent(agent, env, 20)
    for name, group in all_windows(agent.memory).groups.items():
        blank = {f: torch.zeros_like(getattr(group, f)) for f in ("exists", "active", "start")}
        replay = Replayed(GroupWindows(**{**vars(group), **blank}), 2, 4, CPU)
        policy = agent.trainers[name].policy
        features = replay.features(policy.critic_trunk, 0, 4)
        assert features.shape == (4, replay.rows, policy.critic_trunk.outputs)
        assert (features == 0).all()
        assert not replay.targets(0.9, 1).known.any()


def test_states_of_a_network_of_another_shape_are_zeros() -> None:
    """As after a mutation, while the memory has states of the network before."""
    env = environment("sac")
    agent = make_off_policy("sac", env, hidden_state_size=5, burn_in=1)
    collect_rollouts_recurrent(agent, env, 20)
    other = make_off_policy("sac", env, hidden_state_size=7, cell="gru", burn_in=1)
    windows = all_windows(agent.memory)
    zeros = copy.copy(windows.groups[""])
    for trunk in (other.policy.actor_trunk, other.policy.critic_trunk):
        ours = Replayed(zeros, 1, 4, CPU).features(trunk)
        state = [torch.zeros(k, zeros.start.shape[1], h) for k, h in other.policy.state_shapes]
        theirs = Replayed(GroupWindows(**{**vars(zeros), "state": state}), 1, 4, CPU)
        assert torch.equal(ours, theirs.features(trunk))
    other.memory = agent.memory
    other.learner.update(windows)
    collect_rollouts_recurrent(other, env, 20)  # its states are not kept, but its steps are
    assert agent.memory.counter == 80


# --- joint views ------------------------------------------------------------------------------


def test_joint_views_put_the_judged_agent_first() -> None:
    """Its own block, then its group's others, then all agents of the other groups."""

    def blocks(first: int, agents: int, width: int) -> Tensor:
        """[P, B * A, Z]: 1000 place + 100 window + 10 agent + number."""
        grid = torch.stack(
            torch.meshgrid(*(torch.arange(n) for n in (2, 3, agents, width)), indexing="ij")
        )
        number = (grid * torch.tensor([1000, 100, 10, 1]).view(4, 1, 1, 1, 1)).sum(0)
        return (number + 10 * first).flatten(1, 2).float()

    others = [blocks(0, 2, 2), blocks(2, 1, 3)]
    judged = [-others[0], -others[1]]
    ours = joint(judged, others, 0, 3)
    assert ours.shape == (2, 6, 2 + 2 + 3)
    for place in range(2):
        for window in range(3):
            base = 1000 * place + 100 * window
            for agent in range(2):
                mate = base + 10 * (1 - agent)
                own = base + 10 * agent
                expected = [-own, -own - 1, mate, mate + 1, *(base + 20 + i for i in range(3))]
                assert ours[place, 2 * window + agent].tolist() == expected
            theirs = joint(judged, others, 1, 3)[place, window].tolist()
            own = base + 20
            expected = [-own, -own - 1, -own - 2, base, base + 1, base + 10, base + 11]
            assert theirs == expected
