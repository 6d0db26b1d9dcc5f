"""Tests of action masks from end to end: where they come from, and that they are obeyed."""

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from support.agents import make_agent, make_team, prepare, trainer_of
from support.masked_envs import (
    CHOICES,
    SOURCES,
    Masked,
    MaskedTeam,
    allowed_parts,
    moments,
    sizes_of,
)
from support.multi_envs import TurnTaking
from support.pairs import pairwise

from recurrent_rl import (
    IPPO,
    PPO,
    AsyncMultiAgentVectorEnv,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.algorithms.ppo_loss import ppo_loss
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.envs.gymnasium_vector import GymRows
from recurrent_rl.spaces.masks import flat_mask

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED
SCRIPTS = ["3t 5l", "4l 2t"]
KINDS = ["discrete", "multi", "matrix"]
ACTIONS = pytest.mark.parametrize("action", KINDS)
RECURRENT = pytest.mark.parametrize("recurrent", [True, False])


def vector(
    mode: AutoresetMode = SAME, kind: Any = SyncVectorEnv, *only: dict[str, Any], **options: Any
) -> Any:
    """A vector of two environments, with some options for one of them only."""
    makers = [
        functools.partial(Masked, script, i, **{**options, **(only[i] if only else {})})
        for i, script in enumerate(SCRIPTS)
    ]
    return kind(makers, autoreset_mode=mode)


def team_of(kind: Any = SyncMultiAgentVectorEnv, *only: dict[str, Any], **options: Any) -> Any:
    """The same for teams."""
    return kind(
        [
            functools.partial(MaskedTeam, script, i, **{**options, **(only[i] if only else {})})
            for i, script in enumerate(SCRIPTS)
        ]
    )


def expected_masks(action: str, index: int, script: str, steps: int, next_step: bool) -> Any:
    """What the environment allows at each step, bool [T, n]."""
    masks = [
        np.concatenate(allowed_parts(action, index, episode, time)) * (not final)
        for episode, time, final in moments(script, steps, next_step)
    ]
    return np.stack(masks).astype(bool)


def assert_obeyed(agent: PPO | OnPolicyTrainer, action: str) -> None:
    """Every action that was chosen is an allowed one, and something was forbidden."""
    buffer = trainer_of(agent).buffer
    assert buffer is not None
    assert buffer.action_mask is not None
    active = buffer.active & buffer.exists
    begin = 0
    # Stored are choices counted from zero.
    chosen = buffer.action.reshape(*active.shape, -1)
    for i, size in enumerate(sizes_of(action)):
        part = buffer.action_mask[..., begin : begin + size]
        assert part.gather(-1, chosen[..., i : i + 1])[..., 0][active].all()
        assert not part[active].all()
        begin += size
    assert begin == buffer.action_mask.shape[-1]


def assert_applied_again(agent: PPO | OnPolicyTrainer) -> None:
    """Ratio one with the masks, and with the masks only."""
    buffer = trainer_of(agent).buffer
    assert buffer is not None
    assert buffer.action_mask is not None
    active = buffer.active & buffer.exists
    log_prob, value = replay(agent.policy, buffer)
    torch.testing.assert_close(log_prob[active], buffer.log_prob[active])
    torch.testing.assert_close(value[active], buffer.value[active])
    kept = buffer.action_mask.clone()
    buffer.action_mask[:] = True
    unmasked, _ = replay(agent.policy, buffer)
    buffer.action_mask[:] = kept
    assert (unmasked[active] <= log_prob[active] + 1e-6).all()
    assert (unmasked[active] < log_prob[active] - 1e-3).float().mean() > 0.5


# --- collecting and learning --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "source", "action", "recurrent"),
    pairwise(AutoresetMode, SOURCES, KINDS, [True, False]),
)
def test_obeyed_stored_and_learned_with(
    mode: AutoresetMode, source: str, action: str, recurrent: bool
) -> None:
    env = vector(mode, source=source, action=action)
    agent = make_agent(env, learn_step=20, recurrent=recurrent)
    for begin in (0, 20):
        collect_rollouts_recurrent(agent, env)
        assert agent.buffer is not None
        assert agent.buffer.action_mask is not None
        for n, script in enumerate(SCRIPTS):
            masks = expected_masks(action, n, script, begin + 20, mode == NEXT)[begin:]
            np.testing.assert_array_equal(agent.buffer.action_mask[:, n], masks)
        assert_obeyed(agent, action)
        assert_applied_again(agent)
        assert agent.learn().updates > 0


@pytest.mark.parametrize(("source", "action", "recurrent"), pairwise(SOURCES, KINDS, [True, False]))
def test_obeyed_stored_and_learned_with_by_teams(source: str, action: str, recurrent: bool) -> None:
    env = team_of(source=source, action=action)
    agent = make_team(env, learn_step=20, recurrent=recurrent)
    for begin in (0, 20):
        collect_rollouts_recurrent(agent, env)
        (trainer,) = agent.trainers.values()
        assert trainer.buffer is not None
        assert trainer.buffer.action_mask is not None
        for e, script in enumerate(SCRIPTS):
            for a in range(2):
                masks = expected_masks(action, 10 * e + a, script, begin + 20, False)[begin:]
                np.testing.assert_array_equal(trainer.buffer.action_mask[:, 2 * e + a], masks)
        assert_obeyed(trainer, action)
        assert_applied_again(trainer)
        assert all(result.updates > 0 for result in agent.learn().values())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", AutoresetMode)
def test_from_other_processes(mode: AutoresetMode, source: str) -> None:
    env = vector(mode, AsyncVectorEnv, source=source, action="multi")
    try:
        agent = make_agent(env, learn_step=15)
        collect_rollouts_recurrent(agent, env)
    finally:
        env.close()
    assert agent.buffer is not None
    assert agent.buffer.action_mask is not None
    for n, script in enumerate(SCRIPTS):
        masks = expected_masks("multi", n, script, 15, mode == NEXT)
        np.testing.assert_array_equal(agent.buffer.action_mask[:, n], masks)


@pytest.mark.parametrize("source", SOURCES)
def test_from_teams_in_other_processes(source: str) -> None:
    env = team_of(AsyncMultiAgentVectorEnv, source=source, action="multi")
    with env:
        agent = make_team(env, learn_step=15)
        collect_rollouts_recurrent(agent, env)
    (trainer,) = agent.trainers.values()
    assert trainer.buffer is not None
    assert trainer.buffer.action_mask is not None
    for e, script in enumerate(SCRIPTS):
        masks = expected_masks("multi", 10 * e + 1, script, 15, False)
        np.testing.assert_array_equal(trainer.buffer.action_mask[:, 2 * e + 1], masks)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", AutoresetMode)
def test_tuples_of_one_for_each_component(mode: AutoresetMode, source: str) -> None:
    env = vector(mode, source=source, action="multi", as_tuple=True)
    agent = make_agent(env, learn_step=20)
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    assert agent.buffer.action_mask is not None
    for n, script in enumerate(SCRIPTS):
        masks = expected_masks("multi", n, script, 20, mode == NEXT)
        np.testing.assert_array_equal(agent.buffer.action_mask[:, n], masks)
    agent.evaluate(env, 4)
    team = team_of(source=source, action="multi", as_tuple=True)
    agents = make_team(team)
    collect_rollouts_recurrent(agents, team)
    assert_obeyed(*agents.trainers.values(), "multi")
    agents.evaluate(team, 4)


@pytest.mark.parametrize("masks", ["info", "observation", "method"])
def test_from_turn_based_environments(masks: str) -> None:
    class AgentRequest(TurnTaking):
        """Says what all agents may do; nothing, but for the one whose turn it is."""

        def action_masks(self) -> dict[str, Any]:
            return {agent: self._mask(agent) for agent in self.agents}

    kind = AgentRequest if masks == "method" else TurnTaking
    env = SyncMultiAgentVectorEnv([lambda: kind("7t 4l", players=2, masks=masks)])
    agent = make_team(env, learn_step=20)
    collect_rollouts_recurrent(agent, env)
    (trainer,) = agent.trainers.values()
    assert trainer.buffer is not None
    assert trainer.buffer.action_mask is not None
    game = env.envs[0]
    for t, (episode, time, _) in enumerate(moments("7t 4l", 20)):
        player = time % 2
        assert trainer.buffer.decided()[t].tolist() == [player == 0, player == 1]
        mask = game.mask_of(f"player_{player}", episode, time).astype(bool)
        assert trainer.buffer.action_mask[t, player].tolist() == mask.tolist()
    assert_applied_again(trainer)
    agent.evaluate(env, 2)


# --- sources ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "decoys"),
    [
        ("info", ["observation", "method"]),
        ("info", ["beside"]),
        ("info", ["method"]),
        ("observation", ["method"]),
        ("beside", ["method"]),
    ],
)
def test_order_of_precedence(source: str, decoys: list[str]) -> None:
    env = vector(source=source, decoys=decoys, action="multi")
    agent = make_agent(env)
    collect_rollouts_recurrent(agent, env)
    assert_obeyed(agent, "multi")
    agent.evaluate(env, 4)
    team = team_of(source=source, decoys=decoys, action="multi")
    agents = make_team(team)
    collect_rollouts_recurrent(agents, team)
    assert_obeyed(*agents.trainers.values(), "multi")
    agents.evaluate(team, 4)


def test_none_in_the_info_leaves_it_to_the_others() -> None:
    class Silent(Masked):
        def _info(self) -> dict[str, Any]:
            return {"action_mask": None}

    class SilentTeam(MaskedTeam):
        def reset(self, *args: Any, **options: Any) -> Any:
            observations, _ = super().reset(*args, **options)
            return observations, {agent: {"action_mask": None} for agent in observations}

        def step(self, actions: Any) -> Any:
            *results, infos = super().step(actions)
            return *results, {agent: {"action_mask": None} for agent in infos}

    team = SyncMultiAgentVectorEnv([lambda: SilentTeam("3t 5l", source="observation")])
    agents = make_team(team)
    collect_rollouts_recurrent(agents, team)
    assert_obeyed(*agents.trainers.values(), "discrete")
    env = SyncVectorEnv([lambda: Silent("3t", source="method")], autoreset_mode=SAME)
    rows = GymRows(env)
    (observed,) = rows.reset()
    expected = np.concatenate(allowed_parts("discrete", 0, 0, 0)).astype(bool)
    np.testing.assert_array_equal(observed.action_mask, [expected])


@pytest.mark.parametrize("declared", [True, False])
def test_masks_of_some_in_the_info_of_a_vector(declared: bool) -> None:
    env = vector(source=None)
    rows = GymRows(env)
    mask = np.array([None, [1, 0, 0, 1]], dtype=object)
    info: dict[str, Any] = {"action_mask": mask}
    if declared:  # Gymnasium says so of whoever has the key, even if it is None
        info["_action_mask"] = np.array([True, True])
    env.reset = lambda **options: (np.zeros((2, 3)), info)
    (observed,) = rows.reset()
    assert observed.action_mask is not None
    assert observed.action_mask.astype(int).tolist() == [[1, 1, 1, 1], [1, 0, 0, 1]]


@ACTIONS
@pytest.mark.parametrize("as_tuple", [False, True])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_who_gives_none_may_do_anything(mode: AutoresetMode, as_tuple: bool, action: str) -> None:
    for silent in (0, 1):
        only: list[dict[str, Any]] = [{}, {}]
        only[silent] = {"source": None}
        env = vector(mode, SyncVectorEnv, *only, action=action, as_tuple=as_tuple)
        agent = make_agent(env, learn_step=20)
        collect_rollouts_recurrent(agent, env)
        assert agent.buffer is not None
        assert agent.buffer.action_mask is not None
        assert agent.buffer.action_mask[:, silent].all()
        masks = expected_masks(action, 1 - silent, SCRIPTS[1 - silent], 20, mode == NEXT)
        np.testing.assert_array_equal(agent.buffer.action_mask[:, 1 - silent], masks)
        agent.evaluate(env, 4)


def test_teams_that_give_none_may_do_anything() -> None:
    env = team_of(SyncMultiAgentVectorEnv, {"source": None}, {}, action="multi")
    agent = make_team(env, learn_step=20)
    collect_rollouts_recurrent(agent, env)
    (trainer,) = agent.trainers.values()
    buffer = trainer.buffer
    assert buffer is not None
    assert buffer.action_mask is not None
    assert buffer.action_mask[:, :2].all()
    assert not buffer.action_mask[:, 2:].all()


def test_nobody_gives_any() -> None:
    env = vector(source=None, action="multi")
    agent = make_agent(env)
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    assert agent.buffer.action_mask is None


def test_a_method_behind_wrappers_is_found() -> None:
    def make() -> Any:
        return gym.wrappers.TimeLimit(Masked("9t", source="method"), 4)

    for kind in (SyncVectorEnv, AsyncVectorEnv):
        env = kind([make] * 2, autoreset_mode=SAME)
        (observed,) = GymRows(env).reset()
        env.close()
        assert observed.action_mask is not None
        assert observed.action_mask.shape == (2, 4)


def test_a_method_behind_wrappers_of_the_vector_is_found() -> None:
    """Those do not pass on what they do not know."""
    env = gym.wrappers.vector.RecordEpisodeStatistics(vector(source="method"))
    agent = make_agent(env)
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    assert agent.buffer.action_mask is not None
    agent.evaluate(env, 4)


@pytest.mark.parametrize("other", ["beside", "method"])
def test_each_row_takes_what_it_finds_first(other: str) -> None:
    """An info that speaks of one environment leaves the others what else they say."""

    class Alternating(Masked):
        """Has its mask in every second info only."""

        def _info(self) -> dict[str, Any]:
            if (self.clock + self.index) % 2:
                return {}
            parts = self.parts()
            return {"action_mask": np.concatenate(parts)}

        def reset(self, **options: Any) -> Any:
            observation, _ = super().reset(**options)
            return observation, self._info()

        def step(self, action: Any) -> Any:
            *rest, _ = super().step(action)
            return (*rest, self._info())

    def maker(i: int) -> Any:
        return lambda: Alternating(SCRIPTS[i], i, source=other, action="multi")

    env = SyncVectorEnv([maker(0), maker(1)], autoreset_mode=SAME)
    agent = make_agent(env, learn_step=20)
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    assert agent.buffer.action_mask is not None
    for i in range(2):
        masks = expected_masks("multi", i, SCRIPTS[i], 20, False)
        np.testing.assert_array_equal(agent.buffer.action_mask[:, i], masks)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("count", [1, 2])
def test_final_states_need_no_mask(mode: AutoresetMode, count: int) -> None:
    class Silent(Masked):
        """Says nothing about states in which nobody is asked."""

        def step(self, action: Any) -> Any:
            *rest, info = super().step(action)
            return (*rest, {} if rest[2] or rest[3] else info)

    def maker(i: int) -> Any:
        return lambda: Silent("3t 2l", i)

    env = SyncVectorEnv([maker(i) for i in range(count)], autoreset_mode=mode)
    agent = make_agent(env, learn_step=12)
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    assert agent.buffer.action_mask is not None
    active = agent.buffer.active
    assert not agent.buffer.action_mask[active].all(-1).any()


def test_masks_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"^action_mask: expected an array, or a tuple"):
        flat_mask([[1, 0], [1, 0, 1]])
    nested = (np.array([1, 0]), (np.array([1]), np.array([0, 1])))
    assert flat_mask(nested).tolist() == [True, False, True, False, True]


def test_a_method_of_a_team_that_gives_no_dictionary() -> None:
    env = team_of(SyncMultiAgentVectorEnv, source=None, action="multi")
    env.envs[0].action_masks = lambda: np.ones(9)
    env = SyncMultiAgentVectorEnv([lambda: env.envs[0]])
    with pytest.raises(TypeError, match=r"^action_masks\(\): expected a dictionary by agent"):
        env.reset()


def test_a_method_of_the_vector_itself() -> None:
    class WithMasks(gym.vector.VectorWrapper):
        def action_masks(self) -> Any:
            return [env.parts()[0] for env in self.env.unwrapped.envs]  # type: ignore[attr-defined]

    env = WithMasks(vector(source=None))
    for single in env.env.unwrapped.envs:  # type: ignore[attr-defined]
        single.source = "method"  # it checks what it gets
    agent = make_agent(env)
    collect_rollouts_recurrent(agent, env)
    assert_obeyed(agent, "discrete")


def test_a_method_of_some_environments_only_is_an_error() -> None:
    env = vector(SAME, SyncVectorEnv, {"source": "method"}, {"source": None})
    with pytest.raises(ValueError, match=r"^env: expected a method .*none in \[1\]"):
        GymRows(env)


# --- acting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deterministic", "source", "recurrent", "action"),
    pairwise([True, False], SOURCES, [True, False], KINDS),
)
def test_never_violated_in_evaluation(
    deterministic: bool, source: str, recurrent: bool, action: str
) -> None:
    # The environments themselves check each action.
    env = vector(NEXT, source=source, action=action)
    agent = make_agent(env, recurrent=recurrent)
    agent.evaluate(env, 8, deterministic=deterministic)
    agent.evaluate(Masked("6t", source=source, action=action), 2, deterministic=deterministic)
    team = team_of(source=source, action=action)
    make_team(team, recurrent=recurrent).evaluate(team, 8, deterministic=deterministic)


def only_one(action: str, rows: int, seed: int) -> tuple[Any, Any]:
    """Masks that leave one choice to each component, [rows, n], and the actions that remain."""
    random = np.random.default_rng(seed)
    sizes, space = sizes_of(action), CHOICES[action]
    chosen = np.stack([random.integers(n, size=rows) for n in sizes], axis=1)
    parts = tuple(np.eye(n, dtype=np.int8)[chosen[:, i]] for i, n in enumerate(sizes))
    return parts, chosen.reshape(rows, *space.shape) + space.start  # type: ignore[attr-defined]


@ACTIONS
@pytest.mark.parametrize("how", ["joined", "tuple", "observation", "both"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_never_violated_in_get_action(action: str, how: str, deterministic: bool) -> None:
    agent = make_agent(vector(source="beside", action=action))
    team = make_team(team_of(source="beside", action=action))
    state, states = agent.get_initial_hidden_state(5), team.get_initial_hidden_state(5)
    random = np.random.default_rng(0)
    seen: dict[str, Any] = {
        "numbers": random.normal(size=(5, 3)),
        "last": random.integers(2, size=5),
    }
    for seed in range(20):
        parts, expected = only_one(action, 5, seed)
        joined = np.concatenate(parts, -1)
        given: dict[str, Any] = {"joined": joined, "tuple": parts, "both": joined}
        mask = given.get(how)
        if how in ("observation", "both"):  # what is given apart goes before it
            seen["action_mask"] = joined if how == "observation" else 0 * joined
        out = agent.get_action(seen, state, mask, deterministic=deterministic)
        np.testing.assert_array_equal(out.action, expected)
        np.testing.assert_allclose(out.log_prob, 0, atol=1e-6)
        np.testing.assert_allclose(out.entropy, 0, atol=1e-6)
        masks = None if mask is None else {"a_1": mask}
        both = team.get_action({"a_1": seen}, states, masks, deterministic=deterministic)
        np.testing.assert_array_equal(both.action["a_1"], expected)
        np.testing.assert_allclose(both.log_prob["a_1"], 0, atol=1e-6)


@ACTIONS
def test_of_a_single_observation(action: str) -> None:
    agent = make_agent(vector(action=action))
    team = make_team(team_of(action=action))
    for seed in range(5):
        parts, (expected,) = only_one(action, 1, seed)
        for mask in (tuple(part[0] for part in parts), np.concatenate(parts, -1)[0]):
            out = agent.get_action(np.zeros(3), agent.get_initial_hidden_state(), mask)
            np.testing.assert_array_equal(out.action, expected)
            ours = team.get_action(
                {"a_0": np.zeros(3)}, team.get_initial_hidden_state(), {"a_0": mask}
            )
            np.testing.assert_array_equal(ours.action["a_0"], expected)


# --- learning -----------------------------------------------------------------------------------


@ACTIONS
def test_entropy_is_that_of_what_is_allowed(action: str) -> None:
    env = vector(NEXT, action=action)
    agent = make_agent(env, update_epochs=1, batch_size=256, lr=1e-9)
    with torch.no_grad():
        for parameter in agent.policy.action_head.layers[-1].parameters():
            parameter.zero_()  # uniform over what is allowed
    collect_rollouts_recurrent(agent, env)
    buffer = agent.buffer
    assert buffer is not None
    assert buffer.action_mask is not None
    parts = buffer.action_mask[buffer.active].split(list(sizes_of(action)), -1)
    by_hand = sum(part.sum(-1).double().log() for part in parts)
    assert isinstance(by_hand, torch.Tensor)
    torch.testing.assert_close(buffer.log_prob[buffer.active].double(), -by_hand)
    assert agent.learn().entropy == pytest.approx(float(by_hand.mean()), rel=1e-5)


@ACTIONS
@pytest.mark.parametrize("garbage", [1e30, -1e30, 50.0])
def test_garbage_logits_of_what_is_forbidden_change_nothing(action: str, garbage: float) -> None:
    class LastIsForbidden(Masked):
        def parts(self) -> list[Any]:
            parts = super().parts()
            for part in parts:
                part[0], part[-1] = 1, 0
            return parts

    env = SyncVectorEnv(
        [lambda i=i: LastIsForbidden("3t 5l", i, action=action) for i in range(2)],  # type: ignore
        autoreset_mode=SAME,
    )
    agent = make_agent(env, learn_step=16, ent_coef=0.1)
    collect_rollouts_recurrent(agent, env)
    prepare(agent)
    assert agent.buffer is not None
    last = np.cumsum(sizes_of(action)) - 1
    cuts = agent.buffer.sequences()
    batch = agent.buffer.batch(cuts, torch.arange(len(cuts)), agent.buffer.targets(True))
    results = []
    for value in (0.0, garbage):
        with torch.no_grad():
            agent.policy.action_head.layers[-1].bias[last] = value
        loss, record = ppo_loss(agent.policy, [batch], agent.config, torch.device("cpu"))
        assert torch.isfinite(loss)
        grads = torch.autograd.grad(loss, list(agent.policy.parameters()))
        named = dict(zip(dict(agent.policy.named_parameters()), grads, strict=True))
        width = len(agent.policy.action_head.layers) - 1
        for name in ("weight", "bias"):
            grad = named[f"action_head.layers.{width}.{name}"]
            assert (grad[last] == 0).all()
            assert (grad != 0).any()
        results.append([loss, record, *grads])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("component", [0, 1, 2])
def test_nothing_to_choose_from_is_an_error_that_says_where(source: str, component: int) -> None:
    only: list[dict[str, Any]] = [{}, {"stuck": (3, component)}]
    makers, games = (
        [
            functools.partial(kind, "9t", i, source=source, action="multi", **own)
            for i, own in enumerate(only)
        ]
        for kind in (Masked, MaskedTeam)
    )
    env = SyncVectorEnv(makers, autoreset_mode=SAME)
    message = r"action_mask.*at least one allowed action, got none from environment 1 at step 3 of"
    agent = make_agent(env)
    before = [p.clone() for p in agent.policy.parameters()]
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(agent, env)
    assert all(map(torch.equal, before, agent.policy.parameters()))
    assert agent.collection.carries is None
    team = SyncMultiAgentVectorEnv(games)
    message = r"action_mask.*at least one allowed action, got none from agent 'a_1' in env\w+ 1 at"
    with pytest.raises(ValueError, match=message + " step 3"):
        collect_rollouts_recurrent(make_team(team), team)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("as_tuple", [True, False])
@pytest.mark.parametrize("action", ["discrete", "multi"])
def test_wrong_sizes_are_errors(source: str, as_tuple: bool, action: str) -> None:
    options: dict[str, Any] = {"source": source, "as_tuple": as_tuple, "action": action}
    env = vector(wrong_size=True, **options)
    size = sum(sizes_of(action))
    message = (
        rf"^action_mask: expected shape \[N, n\] = \[2, {size}\] for .*, "
        rf"got shape \[2, {size + 1}\]"
    )
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(make_agent(env), env)
    team = team_of(wrong_size=True, **options)
    message = rf"^action_mask: expected {size} values for .*, got shape \[{size + 1}\] from env"
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(make_team(team), team)


@pytest.mark.parametrize("action", ["box", "bits"])
def test_masks_of_other_actions_are_errors(action: str) -> None:
    name = "Box" if action == "box" else "MultiBinary"
    env = vector(source="info", action=action)
    with pytest.raises(ValueError, match=rf"^info\['action_mask'\]: expected none for {name}\("):
        collect_rollouts_recurrent(make_agent(env), env)
    team = team_of(source="info", action=action)
    with pytest.raises(ValueError, match=rf"^action_mask: expected none for {name}\(.*agent 'a_0'"):
        collect_rollouts_recurrent(make_team(team), team)
    agent = make_agent(vector(source=None, action=action))
    with pytest.raises(ValueError, match=rf"^action_mask: expected none for {name}\("):
        agent.get_action(np.zeros((1, 3)), agent.get_initial_hidden_state(), np.ones((1, 1)))
    agents = make_team(team_of(source=None, action=action))
    with pytest.raises(ValueError, match=rf"^action_mask: expected none for {name}\(.*\n.*'a_0'"):
        agents.get_action(
            {"a_0": np.zeros((1, 3))},
            agents.get_initial_hidden_state(),
            {"a_0": np.ones((1, 1))},
        )


@pytest.mark.parametrize("action", ["box", "bits"])
def test_beside_other_actions_it_is_an_observation_like_any_other(action: str) -> None:
    env = vector(source="beside", action=action)
    agent = make_agent(env)
    assert set(agent.observation_space.spaces) == {"numbers", "last", "action_mask"}  # type: ignore
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    assert agent.buffer.action_mask is None
    agent.learn()


@pytest.mark.parametrize("kind", [PPO, IPPO])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 8)), r"expected shape \[\w+, \w+\] = \[2, 9\] for MultiDiscrete.*got shape"),
        (np.ones((1, 9)), r"expected shape \[\w+, \w+\] = \[2, 9\].*got shape \[1, 9\]"),
        (np.ones(9), r"expected shape \[\w+, \w+\] = \[2, 9\].*got shape \[9\]"),
        (
            np.repeat([[1, 0], [0, 1]], [4, 5], 1),
            r"expected at least one allowed action, got none from .*row 0",
        ),
        (np.array([[1] * 9, [1, 1, 1, 1, 1, 1, 0, 0, 0]]), r"at least one .*got none from .*row 1"),
    ],
)
def test_bad_masks_in_get_action(kind: Any, mask: Any, message: str) -> None:
    action, zeros = {"source": None, "action": "multi"}, np.zeros((2, 3))
    if kind is PPO:
        agent = make_agent(vector(**action))
        ask = functools.partial(agent.get_action, zeros, agent.get_initial_hidden_state(2), mask)
    else:
        team = make_team(team_of(**action))
        states = team.get_initial_hidden_state(2)
        ask = functools.partial(team.get_action, {"a_0": zeros}, states, {"a_0": mask})
    with pytest.raises(ValueError, match="^action_mask: .*" + message):
        ask()
