"""Tests of `recurrent_rl.algorithms.mappo`: what central critics see, remember and learn."""

import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.agents import make_team, team_weights
from support.helpers import double
from support.multi_envs import (
    ScriptedParallel,
    TurnTaking,
    scripted_makers,
    state_of,
)
from torch import Tensor

from recurrent_rl import (
    MAPPO,
    PPO,
    AsyncMultiAgentVectorEnv,
    Mutations,
    NetConfig,
    SyncMultiAgentVectorEnv,
    TournamentSelection,
    collect_rollouts_recurrent,
    create_population,
    train_multi_agent_on_policy,
)
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.evolution.morphing import morph
from recurrent_rl.networks.configs import HeadConfig
from recurrent_rl.networks.heads import ValueHead

STATE = ScriptedParallel.state_space
# Deaths, late arrivals, a second life, and ends of all kinds.
SCRIPTS: list[list[dict[str, Any]]] = [
    [
        {"bob_0": [(0, 5, "t")], "fred_0": [(1, 3, "l")], "bob_1": [(0, 1, "l"), (3, 5, "b")]},
        {"bob_0": [(0, 4, "l")], "fred_0": [(0, 4, "l")], "bob_1": [(0, 2, "t")]},
    ],
    [{"bob_0": [(0, 3, "l")], "fred_0": [(0, 3, "t")], "bob_1": [(0, 3, "l")]}],
]
AGENTS = ["bob_0", "fred_0", "bob_1"]
STEPS = 23


def parallel(**options: Any) -> SyncMultiAgentVectorEnv:
    return SyncMultiAgentVectorEnv(scripted_makers(SCRIPTS, **options))


def turns(**options: Any) -> SyncMultiAgentVectorEnv:
    scripts = ["9t 4l 6b", "5l"]
    return SyncMultiAgentVectorEnv(
        [
            functools.partial(TurnTaking, script, 3, i, dies={"player_1": 4} if i else {})
            for i, script in enumerate(scripts)
        ]
    )


def team(env: Any, **options: Any) -> MAPPO:
    agent = make_team(env, kind=MAPPO, **{"learn_step": STEPS, "value_norm": False, **options})
    assert isinstance(agent, MAPPO)
    return agent


def collected(agent: MAPPO, env: Any, steps: int = STEPS) -> dict[str, Any]:
    collect_rollouts_recurrent(agent, env, steps)
    return {name: trainer.buffer for name, trainer in agent.trainers.items()}


def views(buffer: Any) -> Tensor:
    """[T, E, *shape]."""
    assert not buffer.lead
    return buffer.views.unflatten(0, (buffer.steps, -1))  # type: ignore[no-any-return]


# --- what critics see --------------------------------------------------------------------------


def moments(env: ScriptedParallel, steps: int) -> list[tuple[int, int]]:
    """Episode and number of the observation that each of the steps begins with."""
    found, episode, number = [], 0, 0
    for _ in range(steps):
        found.append((episode, number))
        number += 1
        play = env.episodes[episode % len(env.episodes)]
        if number == max(leave for lives in play.values() for _, leave, _ in lives):
            episode, number = episode + 1, 0
    return found


def seen_by_all(env: ScriptedParallel, episode: int, number: int) -> list[float]:
    """What is seen, agent by agent, and who is there; in a final moment of nobody's."""
    found, there = [], []
    for agent in env.possible_agents:
        lives = env.lives_of(agent, episode)
        alive = any(enter <= number < leave for enter, leave, _ in lives)
        # Who is not shown anything is there with what was shown last.
        shown = number
        while alive and (agent, shown) in env.absent:
            shown -= 1
            if not any(enter <= shown < leave for enter, leave, _ in lives):
                alive = False
        own = env.observation_of(agent, episode, shown) if alive else np.zeros(3)
        found += [float(x) for x in own]
        there.append(float(alive))
    return found + there


def test_all_observations_joined_with_who_is_there() -> None:
    env = parallel(absent=[("bob_0", 2), ("bob_0", 3), ("fred_0", 1)])
    buffers = collected(team(env), env)
    for buffer in buffers.values():
        assert views(buffer).shape == (STEPS, 2, 3 * 3 + 3)
        for e, one in enumerate(env.envs):
            for t, moment in enumerate(moments(one, STEPS)):
                expected = torch.tensor(seen_by_all(one, *moment))
                torch.testing.assert_close(views(buffer)[t, e], expected)


def test_spaces_of_all_kinds_are_joined() -> None:
    kinds = {"bob_0": "box", "fred_0": "discrete", "bob_1": "matrix"}
    env = parallel(observation=kinds)
    agent = team(env, groups={name: [name] for name in AGENTS})
    buffer = collected(agent, env)["bob_0"]
    codec = agent.trainers["bob_0"].policy.view_codec
    assert codec is not None
    for e, one in enumerate(env.envs):
        for t, moment in enumerate(moments(one, STEPS)):
            bob, fred, other, there = codec.layout.unpack(views(buffer)[t, e].numpy())
            expected = [
                any(enter <= moment[1] < leave for enter, leave, _ in one.lives_of(a, moment[0]))
                for a in AGENTS
            ]
            assert there.tolist() == expected
            for agent_id, seen, blank in zip(AGENTS, (bob, fred, other), (0, 2, 0), strict=True):
                own = one.observation_of(agent_id, *moment)
                alive = expected[AGENTS.index(agent_id)]
                np.testing.assert_allclose(seen, own if alive else blank, rtol=1e-6)


@pytest.mark.parametrize("vector", ["sync", "workers"])
def test_states(vector: str) -> None:
    env: Any = parallel()
    if vector == "workers":
        env = AsyncMultiAgentVectorEnv(scripted_makers(SCRIPTS), num_workers=2)
    with env:
        agent = team(env, state_space=STATE)
        buffers = collected(agent, env)
        for e, one in enumerate(parallel().envs):
            for t, moment in enumerate(moments(one, STEPS)):
                expected = torch.from_numpy(state_of(e, *moment))
                for buffer in buffers.values():
                    torch.testing.assert_close(views(buffer)[t, e], expected)
        at = [moments(one, STEPS + 1)[-1] for one in parallel().envs]
        now = np.stack([state_of(e, *moment) for e, moment in enumerate(at)])
        np.testing.assert_array_equal(env.state(), now)


def test_states_are_there_at_once_and_cost_nothing_unless_asked_for() -> None:
    env = parallel()
    env.reset(seed=0)
    calls = []
    for one in env.envs:
        one.state = lambda state=one.state: calls.append(1) or state()
    env.step({agent: np.ones(2, int) for agent in env.possible_agents})
    assert not calls
    np.testing.assert_array_equal(env.state(), [state_of(e, 0, 1) for e in range(2)])
    env.step({agent: np.ones(2, int) for agent in env.possible_agents})
    assert len(calls) == 4


def test_in_turns_everybody_is_seen_as_last_shown() -> None:
    env = turns()
    buffer = collected(team(env), env)["player"]
    for e, one in enumerate(env.envs):
        episode = turn = 0
        latest: dict[int, int] = {}
        for t in range(STEPS):
            dead = [one.dies.get(a, 99) <= turn for a in one.possible_agents]
            (player,) = buffer.exists[t, 3 * e : 3 * e + 3].nonzero().flatten().tolist()
            latest[player] = turn
            view = views(buffer)[t, e]
            for i, agent in enumerate(one.possible_agents):
                there = i in latest and not dead[i]
                expected = np.zeros(3)
                if there:
                    expected = one.observation_of(agent, episode, latest[i])
                np.testing.assert_allclose(view[3 * i : 3 * i + 3], expected, rtol=1e-6)
                assert view[9 + i] == there
            turn += 1
            if turn == one.script[episode % len(one.script)][0]:
                episode, turn, latest = episode + 1, 0, {}


# --- memory and values -------------------------------------------------------------------------

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "joined": (parallel, {}),
    "state": (parallel, {"state_space": STATE, "cell": "gru"}),
    "identity": (parallel, {"agent_id_input": "critic", "previous_action": True}),
    "all-inputs": (
        parallel,
        {"agent_id_input": True, "previous_reward": True, "normalize_obs": True, "num_layers": 2},
    ),
    "absent": (functools.partial(parallel, absent=[("bob_0", 2), ("fred_0", 1)]), {"burn_in": 2}),
    "feed-forward": (parallel, {"recurrent": False, "state_space": STATE}),
    "value-norm": (parallel, {"value_norm": True}),
    "turns": (turns, {}),
    "turns-state": (turns, {"state_space": STATE, "discount_by": "decision"}),
}


def critic_by_hand(agent: MAPPO, name: str, buffer: Any, env: Any) -> tuple[Tensor, Tensor]:
    """V of each row at each step, and of truncated rows' final views, stepping row by row.

    The critic's memory is zero where the row's life begins, and rests where it sees nothing.
    """
    trainer = agent.trainers[name]
    policy, size = trainer.policy, trainer.group.size
    trunk = policy.trunks[1]
    value, final = (torch.full((buffer.steps, buffer.rows), torch.nan) for _ in range(2))
    for row in range(buffer.rows):
        state = policy.initial_state(1).tensors
        for t in range(buffer.steps):
            if buffer.start[t, row]:
                state = policy.initial_state(1).tensors
            if not buffer.exists[t, row]:
                continue
            extra = None if buffer.extra is None else buffer.extra[t, [row]]
            view = views(buffer)[t, [row // size]]
            features, after = trunk.step(trunk.inputs(view), extra, state)
            value[t, row] = policy.value_of(features)[0]
            state = [*state[: trunk.place.start], *after, *state[trunk.place.stop :]]
            if buffer.truncated[t, row] and not agent.config.previous_action:
                one, (episode, number) = env.envs[row // size], moments_of(env, row // size)[t]
                end = torch.tensor(final_view(agent, one, episode, number + 1))[None].float()
                extra = None if extra is None else extra.clone()
                if extra is not None and agent.config.previous_reward:
                    extra[0, 0] = buffer.reward[t, row]
                features, _ = trunk.step(trunk.inputs(end), extra, state)
                final[t, row] = policy.value_of(features)[0]
    return value, final


def moments_of(env: Any, index: int) -> list[tuple[int, int]]:
    return moments(env.envs[index], STEPS)


def final_view(agent: MAPPO, env: Any, episode: int, number: int) -> list[float]:
    """What there is to see where somebody ends: those cut now, and those who live on."""
    if agent.state_space is not None:
        return [float(x) for x in state_of(env.index, episode, number)]
    found, there = [], []
    for name in env.possible_agents:
        lives = env.lives_of(name, episode)
        seen = any(
            enter <= number < leave or (leave == number and how in "l")
            for enter, leave, how in lives
        )
        own = env.observation_of(name, episode, number) if seen else np.zeros(3)
        found += [float(x) for x in own]
        there.append(float(seen))
    return found + there


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_values_are_those_of_stepping_and_of_learning(case: str) -> None:
    make, options = CASES[case]
    env = make()
    agent = team(env, **options)
    for _ in range(2):  # statistics have moved in the second
        buffers = collected(agent, env)
        for name, trainer in agent.trainers.items():
            buffer = buffers[name]
            log_prob, value = replay(trainer.policy, buffer)
            active = buffer.active & buffer.exists
            assert active.any()
            close = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(value[active], buffer.value[active], **close)
            torch.testing.assert_close(log_prob[active], buffer.log_prob[active], **close)
        agent.learn()


@pytest.mark.parametrize("case", [name for name, (make, _) in CASES.items() if make is parallel])
@torch.no_grad()
def test_values_from_the_first_step_on(case: str) -> None:
    make, options = CASES[case]
    env = make()
    agent = team(env, **options)
    for name, buffer in collected(agent, env).items():
        value, final = critic_by_hand(agent, name, buffer, env)
        there, ends = buffer.exists, ~final.isnan() & ~buffer.terminated
        close = {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(value[there], buffer.value[there], **close)
        torch.testing.assert_close(final[ends], buffer.bootstrap[ends], **close)
        if not agent.config.previous_action:
            assert ends.any()


def test_a_moved_critic_state_would_be_noticed() -> None:
    """The critic's memory is stored and begun anew with the actor's, not a step later."""
    env = parallel()
    agent = team(env)
    buffer = collected(agent, env)["bob"]
    trainer = agent.trainers["bob"]
    buffer.start[1:] = buffer.start[:-1].clone()
    _, value = replay(trainer.policy, buffer)
    active = buffer.active & buffer.exists
    assert not torch.allclose(value[active], buffer.value[active], atol=1e-3)


# --- acting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state_space", [None, STATE])
def test_acting_needs_nothing_central(state_space: Any) -> None:
    env = parallel()
    agent = team(env, state_space=state_space)
    collected(agent, env)
    agent.learn()
    obs, _ = env.reset(seed=0)
    state = agent.get_initial_hidden_state(2)
    out = agent.get_action(obs, state)
    assert all(np.isnan(value).all() for value in out.value.values())
    policy = agent.trainers["bob"].policy
    actors, critics = (trunk.place for trunk in policy.trunks)
    after = out.hidden_state["bob_0"].tensors
    assert all(x.abs().sum() > 0 for x in after[actors])
    assert all(x.abs().sum() == 0 for x in after[critics])
    returns = agent.evaluate(env, 4, seed=0)
    assert all(np.isfinite(each).all() for each in returns.values())


def test_actions_are_those_that_collection_took() -> None:
    """The actor's memory does not depend on whether the critic runs beside it."""
    env = parallel()
    agent = team(env, seed=3)
    policy = agent.trainers["bob"].policy
    obs, view = torch.randn(5, 3), torch.randn(5, 12)
    state = policy.initial_state(5)
    with torch.no_grad():
        alone = policy.act(obs, None, state, None)
        judged = policy.act(obs, None, state, None, view=view)
    assert torch.equal(alone.dist_params, judged.dist_params)
    place = policy.trunks[0].place
    for one, other in zip(alone.state.tensors[place], judged.state.tensors[place], strict=True):
        assert torch.equal(one, other)


def test_only_the_critic_is_told_who_acts() -> None:
    env = parallel()
    agent = team(env, agent_id_input="critic")
    buffer = collected(agent, env)["bob"]
    policy = agent.trainers["bob"].policy
    changed = buffer.extra.flip(-1)
    ends = []
    for extra in (buffer.extra, changed):
        buffer.extra = extra
        ends.append(replay(policy, buffer))
    (log_prob, value), (other_log_prob, other_value) = ends
    active = buffer.active & buffer.exists
    assert torch.equal(log_prob[active], other_log_prob[active])
    assert not torch.allclose(value[active], other_value[active], atol=1e-3)


# --- units of values ---------------------------------------------------------------------------


def test_values_stay_as_they_are_while_their_units_follow_the_returns() -> None:
    torch.manual_seed(0)
    head = ValueHead(5, HeadConfig((4,)), standardised=True)
    features = torch.randn(7, 5)
    assert head.units is not None
    for i, returns in enumerate((torch.tensor([1.0, 3.0]), torch.randn(50) * 40 - 200)):
        before = head(features).detach()
        head.follow(returns)
        torch.testing.assert_close(head(features).detach(), before, rtol=1e-4, atol=1e-3)
        if i == 0:
            assert head.units.mean == pytest.approx(2)
            assert head.units.deviation == pytest.approx(1)
    # 0.95 of what was, 0.05 of what is new, and what was began with 0.05.
    first = (0.95 * 0.05 * 2 + 0.05 * float(returns.double().mean())) / (0.95 * 0.05 + 0.05)
    assert head.units.mean == pytest.approx(first)


def test_units_of_returns_that_do_not_vary_stay_one() -> None:
    head = ValueHead(5, HeadConfig(()), standardised=True)
    head.follow(torch.full((9,), 3.0))
    assert head.units is not None
    assert (head.units.mean, head.units.deviation) == (3.0, 1.0)
    head.follow(torch.zeros(0))
    assert head.units.mean == 3.0


def test_a_frozen_value_head_keeps_its_units() -> None:
    env = parallel()
    agent = team(env, value_norm=True)
    policy = agent.trainers["bob"].policy
    policy.value_head.requires_grad_(False)
    collected(agent, env)
    before = {name: x.clone() for name, x in policy.value_head.state_dict().items()}
    agent.learn()
    after = policy.value_head.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())


def test_single_agents_have_them_on_request() -> None:
    agent = PPO(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), value_norm=True)
    assert agent.policy.value_head.units is not None
    assert PPO(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)).policy.value_head.units is None


# --- saving, and what is refused ---------------------------------------------------------------


@pytest.mark.parametrize("make", [parallel, turns])
def test_going_on_from_a_checkpoint_is_exact(make: Any, tmp_path: Path) -> None:
    """Also where decisions are open, and where someone's last observation is from before."""
    ends = []
    for saves in (False, True):
        env = make()
        agent = team(env, learn_step=7, value_norm=True)
        for i in range(4):
            collect_rollouts_recurrent(agent, env, reset=False if i else None)
            agent.learn()
            if saves:
                agent.save_checkpoint(tmp_path / "agent.pt")
                agent = MAPPO.load(tmp_path / "agent.pt")
        ends.append(team_weights(agent))
    for name, x in ends[0].items():
        assert torch.equal(x, ends[1][name]), name


def test_environments_with_another_state_are_refused() -> None:
    env = parallel()
    agent = team(env, state_space=gym.spaces.Box(-1, 1, (5,)))
    with pytest.raises(ValueError, match=r"state_space .*\(5,\).*got .*\(4,\).*leave it out"):
        collect_rollouts_recurrent(agent, env)
    with pytest.raises(TypeError, match=r"state_space: expected a Gymnasium space"):
        team(env, state_space=env.state)


def test_share_encoders_is_refused() -> None:
    with pytest.raises(ValueError, match="share_encoders: expected False"):
        team(parallel(), share_encoders=True)


def test_a_state_of_another_shape_or_without_numbers_is_refused() -> None:
    env = parallel()
    agent = team(env, state_space=STATE)
    env.envs[1].state = lambda: np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"environment 1: expected a state\(\) of shape \[4\]"):
        collect_rollouts_recurrent(agent, env)
    bad = parallel(only={1: {"poison": {("state", 2): np.nan}}})
    weights = team_weights(agent)
    with pytest.raises(ValueError, match=r"state: .*nan.*environment 1 at step 2"):
        collect_rollouts_recurrent(agent, bad)
    assert all(torch.equal(x, weights[name]) for name, x in team_weights(agent).items())


def test_vectors_without_states_say_so() -> None:
    env = parallel()
    env.state_space = None
    with pytest.raises(ValueError, match=r"state: expected environments with a state\(\)"):
        env.state()


# --- populations -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"state_space": STATE, "agent_id_input": "critic"}])
@double()
def test_growth_changes_no_action_and_no_value(options: dict[str, Any]) -> None:
    env = parallel()
    agent = team(env, value_norm=True, normalize_obs=True, **options)
    trainer = agent.trainers["bob"]
    old = trainer.policy
    view_width = 4 if options else 12
    old.preprocessors[1].update(torch.randn(9, 5, view_width), torch.ones(9, 5).bool())
    assert old.value_head.units is not None
    old.value_head.follow(torch.randn(30) * 7 + 3)
    inputs = torch.randn(6, 4, 3), torch.randn(6, 4, view_width)
    extra = torch.randn(6, 4, old.extra.width) if old.extra.width else None

    def played(policy: Any) -> tuple[Tensor, Tensor]:
        state = policy.initial_state(4).tensors
        with torch.no_grad():
            found: tuple[Tensor, Tensor] = policy.unroll(
                inputs[0], extra, state, None, view=inputs[1]
            )
        return found

    before = played(old)
    larger = {"encoder_config": {"hidden_size": [], "hidden_state_size": 9}}
    larger["head_config"] = {"hidden_size": [11]}
    morph(trainer, NetConfig.from_dict(larger), torch.Generator().manual_seed(0))
    assert trainer.policy is not old
    for ours, theirs in zip(played(trainer.policy), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    collected(agent, env)
    agent.learn()


def test_a_population_of_them() -> None:
    env = parallel()
    net = {"encoder_config": {"hidden_size": [], "hidden_state_size": 5}}
    agents = create_population(
        "MAPPO",
        env.observation_spaces,
        env.action_spaces,
        net,
        {"STATE_SPACE": STATE, "LEARN_STEP": 8},
        population_size=2,
        num_envs=2,
    )
    assert all(type(agent) is MAPPO and agent.state_space == STATE for agent in agents)
    mutation = Mutations(0, 1, 0, 0, 0, 0, rand_seed=1)
    trained, _ = train_multi_agent_on_policy(
        env,
        "scripted",
        "MAPPO",
        agents,
        max_steps=32,
        evo_steps=16,
        tournament=TournamentSelection(2, True, 2, 1, rand_seed=0),
        mutation=mutation,
        verbose=False,
    )
    assert all(agent.env_steps >= 32 for agent in trained)
