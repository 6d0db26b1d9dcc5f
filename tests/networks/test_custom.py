"""Tests of `recurrent_rl.networks.custom`: users' own networks in the encoders' places."""

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from support.agents import (
    LEARNING,
    assert_ratio_one,
    assert_same_weights,
    make_agent,
    make_team,
    prepare,
    randomise,
    team_weights,
    weights,
)
from support.envs import Recall, scripted
from support.evolving import assert_same, snapshot
from support.masked_envs import Masked
from support.multi_envs import scripted_makers
from support.pairs import pairwise
from support.spaces_of import samples
from torch import Tensor, nn

from recurrent_rl import (
    IPPO,
    PPO,
    CheckpointError,
    Mutations,
    SyncMultiAgentVectorEnv,
    TournamentSelection,
    checkpoint,
    collect_rollouts_recurrent,
    create_population,
    load_population,
    make_vect_envs,
    train_on_policy,
)
from recurrent_rl.networks.custom import CustomEncoder

VECTOR, CHOICE = Box(-1, 1, (3,)), Discrete(3, start=1)
COMING = {"bob_0": [(0, 5, "t")], "fred_0": [(1, 3, "l")], "bob_1": [(0, 1, "l"), (3, 5, "b")]}
STAYING = {"bob_0": [(0, 3, "l")], "fred_0": [(0, 3, "t")], "bob_1": [(0, 3, "l")]}


def joined(observation: Tensor, extra: Tensor | None) -> Tensor:
    """All that a network reads."""
    return observation if extra is None else torch.cat((observation, extra), -1)


class Remembering(nn.Module):
    """PyTorch's own LSTM."""

    def __init__(self, inputs: int = 3, units: int = 5) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, units)

    def initial_state(self, rows: int) -> list[Tensor]:
        return [torch.zeros(1, rows, self.rnn.hidden_size) for _ in range(2)]

    def forward(self, observation: Tensor, extra: Any, state: Any) -> Any:
        return self.rnn(joined(observation, extra), state)


class Forgetful(nn.Module):
    """No memory."""

    def __init__(self, inputs: int = 3, outputs: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        return ()

    def forward(self, observation: Tensor, extra: Any, state: Any) -> Any:
        return torch.tanh(self.layer(joined(observation, extra))), state


class Window(nn.Module):
    """Remembers what it saw in the last three steps, in order: a state of several layers."""

    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(4 * inputs, 6)
        self.inputs = inputs

    def initial_state(self, rows: int) -> list[Tensor]:
        return [torch.zeros(3, rows, self.inputs)]

    def forward(self, observation: Tensor, extra: Any, state: Any) -> Any:
        (window,), outputs = state, []
        for x in joined(observation, extra):
            seen = torch.cat((window, x[None]))  # [4, S, D]
            outputs.append(torch.tanh(self.layer(seen.movedim(0, 1).flatten(1))))
            window = seen[1:]
        return torch.stack(outputs), [window]


NETWORKS = [Remembering, Forgetful, Window]
# Which networks are the user's own, and what else there is.
ROLES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("actor",), {}),
    (("actor",), {"share_encoders": False}),
    (("critic",), {}),
    (("actor", "critic"), {}),
    (("actor",), {"burn_in": 2, "refresh_hidden_state": True}),
    (("critic",), {"burn_in": 3, "previous_action": True, "previous_reward": True}),
    (("actor", "critic"), {"refresh_hidden_state": True, "previous_action": True}),
]


def own(kind: Any, roles: tuple[str, ...], extra: int = 0, **options: Any) -> dict[str, Any]:
    """Networks for the roles; the critic's is another than the actor's."""
    networks = {"actor_network": functools.partial(kind, 3 + extra, **options)}
    networks["critic_network"] = functools.partial(Window, 3 + extra)
    return {name: make() for name, make in networks.items() if name.split("_")[0] in roles}


def extra_of(options: dict[str, Any]) -> int:
    """F: choices of the previous action, and the reward."""
    return 3 * options.get("previous_action", 0) + options.get("previous_reward", 0)


def assert_all_learned(trainer: Any, before: dict[str, Tensor]) -> None:
    after = weights(trainer)
    for name, _ in trainer.policy.named_parameters():
        assert not torch.equal(after[name], before[name]), name


# --- collecting and learning --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "roles_and_options", "kind"), pairwise(AutoresetMode, ROLES, NETWORKS), ids=str
)
def test_ratio_one_and_learning(
    mode: AutoresetMode, roles_and_options: tuple[tuple[str, ...], dict[str, Any]], kind: Any
) -> None:
    roles, options = roles_and_options
    env = scripted(["3t 5l", "7l 2t", "30t"], mode)
    networks = own(kind, roles, extra_of(options))
    kept = copy.deepcopy(networks)
    agent = make_agent(env, learn_step=11, **options, **networks)
    for _ in range(3):
        collect_rollouts_recurrent(agent, env)
        assert_ratio_one(agent)
        before = weights(agent)
        agent.learn()
        assert_all_learned(agent, before)
    for name, network in networks.items():  # they are copied
        assert_same_weights(network.state_dict(), kept[name].state_dict())
    shared = roles == ("actor",) and options.get("share_encoders", True)
    assert len(agent.policy.encoders) == (1 if shared else 2)
    mine = [isinstance(encoder, CustomEncoder) for encoder in agent.policy.encoders]
    assert mine == [role in roles for role in ("actor", "critic")[: len(mine)]]
    agent.evaluate(env, 3)


@pytest.mark.parametrize("recurrent", [True, False])
def test_networks_without_memory_need_no_state(recurrent: bool) -> None:
    env = scripted(["3t 5l", "7l 2t"])
    agent = make_agent(env, recurrent=recurrent, actor_network=Forgetful())
    assert agent.policy.state_shapes == []
    out = agent.get_action(np.zeros((2, 3)))
    assert list(out.hidden_state.tensors) == []
    collect_rollouts_recurrent(agent, env)
    assert_ratio_one(agent)
    agent.learn()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("roles", "options"), ROLES, ids=str)
def test_teams(roles: tuple[str, ...], options: dict[str, Any], kind: Any) -> None:
    # Agents come and go, and come again.
    env = SyncMultiAgentVectorEnv(scripted_makers([[COMING, STAYING], [STAYING, COMING]]))
    agent = make_team(env, learn_step=11, **options, **own(kind, roles, extra_of(options)))
    for _ in range(2):
        collect_rollouts_recurrent(agent, env)
        trainers = list(agent.trainers.values())
        for trainer in trainers:
            assert_ratio_one(trainer)
        before = [weights(trainer) for trainer in trainers]
        agent.learn()
        for trainer, old in zip(trainers, before, strict=True):
            assert_all_learned(trainer, old)
    bob, fred = agent.groups
    ours = {p.data_ptr() for p in bob.policy.parameters()}
    assert ours.isdisjoint({p.data_ptr() for p in fred.policy.parameters()})


def test_networks_by_group() -> None:
    env = SyncMultiAgentVectorEnv(
        scripted_makers([[STAYING]], observation={"bob": "box", "fred": "discrete"})
    )
    agent = make_team(
        env, actor_network={"fred": Forgetful(5)}, critic_network={"bob": Remembering()}
    )
    kinds = {
        name: [type(getattr(e, "network", None)).__name__ for e in group.policy.encoders]
        for name, group in agent.trainers.items()
    }
    assert kinds == {"bob": ["NoneType", "Remembering"], "fred": ["Forgetful"]}
    collect_rollouts_recurrent(agent, env)
    for trainer in agent.trainers.values():
        assert_ratio_one(trainer)
    agent.learn()
    with pytest.raises(ValueError, match=r"^actor_network has no option 'bop'; .*'bob'"):
        make_team(env, actor_network={"bop": Remembering()})


@pytest.mark.parametrize(
    "options", [{}, {"burn_in": 2}, {"refresh_hidden_state": True, "burn_in": 1}], ids=str
)
def test_the_same_network_as_ones_own_learns_the_same(options: dict[str, Any]) -> None:
    """Step by step, in sequences, through burn-in and in refreshing: all that an encoder does."""
    env, other = (scripted(["3t 5l", "7l 2t", "30t"]) for _ in range(2))
    built_in = make_agent(env, learn_step=11, update_epochs=3, **options)
    agent = make_agent(
        other, learn_step=11, update_epochs=3, actor_network=Remembering(), **options
    )
    with torch.no_grad():
        for name, p in built_in.policy.encoders[0].core.rnn.named_parameters():
            dict(agent.policy.encoders[0].network.rnn.named_parameters())[name].copy_(p)
        for part in ("action_head", "value_head"):
            theirs = getattr(built_in.policy, part).state_dict()
            getattr(agent.policy, part).load_state_dict(theirs)
    agent.group.generator.set_state(built_in.group.generator.get_state())
    for _ in range(3):
        collect_rollouts_recurrent(built_in, env)
        collect_rollouts_recurrent(agent, other)
        prepare(built_in)
        prepare(agent)
        assert agent.buffer is not None
        assert built_in.buffer is not None
        for name in ("obs", "action", "log_prob", "value", "returns"):
            ours, theirs = (getattr(a.buffer, name) for a in (agent, built_in))
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        agent.learn()
        built_in.learn()
    for p, q in zip(
        agent.policy.action_head.layers.parameters(),
        built_in.policy.action_head.layers.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", NETWORKS)
def test_state_after_sequences_of_different_lengths(kind: Any) -> None:
    agent = make_agent(scripted(["3t"]), actor_network=kind())
    (encoder,) = agent.policy.encoders
    x, length = torch.randn(6, 4, 3), torch.tensor([0, 6, 2, 5])
    state = [torch.randn(k, 4, h) for k, h in encoder.shapes]
    with torch.no_grad():
        after = encoder.run(x, None, length, state)
        for s in range(4):
            now = [part[:, [s]] for part in state]
            for t in range(int(length[s])):
                _, now = encoder.step(x[t, [s]], None, now)
            for ours, theirs in zip(after, now, strict=True):
                torch.testing.assert_close(ours[:, [s]], theirs)


# --- what it reads ------------------------------------------------------------------------------

NESTED = Dict(
    image=Box(0, 255, (5, 4, 3), np.uint8),
    rest=Tuple([VECTOR, MultiDiscrete([2, 3], start=[1, 0])]),
)


class ReadsAll(nn.Module):
    """Notes the shapes that it reads, and that images are scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3 * 5 * 4 + 3 + 5 + 1, 6)
        self.shapes: list[Any] = []

    def initial_state(self, rows: int) -> list[Tensor]:
        return [torch.zeros(1, rows, 6)]

    def forward(self, observation: Any, extra: Any, state: Any) -> Any:
        image, (vector, chosen) = observation["image"], observation["rest"]
        assert image.min() >= 0
        assert image.max() <= 1
        assert (chosen.sum(-1) == 2).all()
        self.shapes.append([tuple(x.shape) for x in (image, vector, chosen, extra)])
        y, after = self.rnn(torch.cat((image.flatten(2), vector, chosen, extra), -1), state[0])
        return y, [after]


class Shows(Masked):
    """Samples of ``NESTED``."""

    def __init__(self, index: int) -> None:
        super().__init__("3t 5l", index, source=None)
        self.observation_space = NESTED

    def _observation(self) -> Any:
        return samples(NESTED, (), seed=100 * self.index + 10 * self.episode + self.time)


def test_nested_observations() -> None:
    env = SyncVectorEnv(
        [functools.partial(Shows, i) for i in range(3)], autoreset_mode=AutoresetMode.NEXT_STEP
    )
    agent = make_agent(env, learn_step=9, actor_network=ReadsAll(), previous_reward=True, burn_in=2)
    for _ in range(2):
        collect_rollouts_recurrent(agent, env)
        assert_ratio_one(agent)
        agent.learn()
    noted = agent.policy.encoders[0].network.shapes
    rows = {(length, n) for ((length, n, *_), *_) in noted}
    assert {(1, 1), (1, 3)} <= rows  # trying out and acting
    assert max(length for length, _ in rows) > 1
    for (length, n), shapes in zip([x[0][:2] for x in noted], noted, strict=True):
        widths = [(3, 5, 4), (3,), (5,), (1,)]
        assert shapes == [(length, n, *width) for width in widths]
    one = samples(NESTED, ())
    out = agent.get_action(one, agent.get_initial_hidden_state(), reward=0.0)
    batch = agent.get_action(
        samples(NESTED, (4,)), agent.get_initial_hidden_state(4), reward=np.zeros(4)
    )
    assert agent.action_space.contains(out.action)
    assert batch.action.shape == (4,)


# --- saving -------------------------------------------------------------------------------------


def trained(**options: Any) -> tuple[PPO, Any]:
    env = scripted(["3t 5l", "7l"])
    agent = make_agent(env, **options)
    collect_rollouts_recurrent(agent, env)
    agent.learn()
    return agent, env


def assert_acts_alike(ours: PPO, theirs: PPO) -> None:
    assert_same_weights(weights(ours), weights(theirs))
    x = np.random.default_rng(0).normal(size=(4, 3))
    a, b = (agent.get_action(x, agent.get_initial_hidden_state(4)) for agent in (ours, theirs))
    for name in ("action", "log_prob", "value"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("roles", [("actor",), ("critic",), ("actor", "critic")], ids=str)
def test_save_and_load(roles: tuple[str, ...], tmp_path: Path) -> None:
    agent, _ = trained(**own(Remembering, roles))
    agent.save_checkpoint(tmp_path / "a.pt")
    fresh = own(Remembering, roles)
    loaded = PPO.load(tmp_path / "a.pt", **fresh)
    assert_acts_alike(loaded, agent)
    for network in fresh.values():  # copied here, too
        ours = {p.data_ptr() for p in network.parameters()}
        assert ours.isdisjoint({p.data_ptr() for p in loaded.policy.parameters()})


@pytest.mark.parametrize("role", ["actor", "critic"])
def test_loading_without_the_module_says_which_is_missing(role: str, tmp_path: Path) -> None:
    agent, _ = trained(**own(Remembering, (role,)))
    agent.save_checkpoint(tmp_path / "a.pt")
    message = rf"{role}_network: expected a module, .*saved, got none; .*: {role}_network=\.\.\."
    with pytest.raises(CheckpointError, match=message):
        PPO.load(tmp_path / "a.pt")
    other = {"actor": "critic", "critic": "actor"}[role]
    with pytest.raises(CheckpointError, match=r"_network: expected (a module|none), as in the"):
        PPO.load(tmp_path / "a.pt", **own(Remembering, (other,)))
    with pytest.raises(CheckpointError, match="do not fit together"):
        PPO.load(tmp_path / "a.pt", **{f"{role}_network": Forgetful(3, 7)})


def test_loading_a_module_where_there_was_none(tmp_path: Path) -> None:
    agent, _ = trained()
    agent.save_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"actor_network: expected none, .*, got one"):
        PPO.load(tmp_path / "a.pt", actor_network=Remembering())


def test_checkpoints_have_weights_but_no_code(tmp_path: Path) -> None:
    agent, _ = trained(actor_network=Remembering())
    agent.save_checkpoint(tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=True)
    assert checkpoint.load(tmp_path / "a.pt")["groups"][""]["networks"] == [True, False]


def test_load_checkpoint(tmp_path: Path) -> None:
    agent, _ = trained(**own(Remembering, ("actor", "critic")))
    agent.save_checkpoint(tmp_path / "a.pt")
    other = make_agent(scripted(["3t"]), seed=5, **own(Remembering, ("actor", "critic")))
    other.load_checkpoint(tmp_path / "a.pt")
    assert_acts_alike(other, agent)
    plain = make_agent(scripted(["3t"]))
    before = weights(plain)
    with pytest.raises(CheckpointError, match="actor_network: expected a module"):
        plain.load_checkpoint(tmp_path / "a.pt")
    assert_same_weights(before, weights(plain))


@pytest.mark.parametrize("copied", [lambda agent: agent.clone(), copy.deepcopy])
def test_copies_are_independent(copied: Any) -> None:
    agent, env = trained(**own(Window, ("actor", "critic")))
    twin = copied(agent)
    assert_same_weights(weights(agent), weights(twin))
    collect_rollouts_recurrent(twin, scripted(["3t 5l", "7l"]))
    before = weights(agent)
    twin.learn()
    assert_same_weights(before, weights(agent))
    assert twin.policy.encoders[0].network is not agent.policy.encoders[0].network
    collect_rollouts_recurrent(agent, env, reset=True)
    agent.learn()
    assert_ratio_one_of_next(twin)


def assert_ratio_one_of_next(agent: PPO) -> None:
    collect_rollouts_recurrent(agent, scripted(["4l", "9t"]))
    assert_ratio_one(agent)


def test_saving_teams(tmp_path: Path) -> None:
    env = SyncMultiAgentVectorEnv(scripted_makers([[STAYING], [COMING]]))
    networks = {"bob": Remembering(), "fred": Window()}
    agent = make_team(env, actor_network=networks)
    collect_rollouts_recurrent(agent, env)
    agent.learn()
    agent.save_checkpoint(tmp_path / "team.pt")
    fresh = {"bob": Remembering(), "fred": Window()}
    loaded = IPPO.load(tmp_path / "team.pt", actor_network=fresh)
    for other in (loaded, agent.clone(), copy.deepcopy(agent)):
        assert_same_weights(team_weights(agent), team_weights(other))
        other.evaluate(env, 2)
    loaded.load_checkpoint(tmp_path / "team.pt")
    with pytest.raises(CheckpointError, match="actor_network: expected a module"):
        IPPO.load(tmp_path / "team.pt")
    with pytest.raises(CheckpointError, match="actor_network: expected a module"):
        IPPO.load(tmp_path / "team.pt", actor_network={"bob": Remembering()})


def test_stop_and_resume_equals_never_stopping(tmp_path: Path) -> None:
    env = scripted(["3t 5l", "7l"])
    agent = make_agent(env, actor_network=Window())
    collect_rollouts_recurrent(agent, env)
    agent.learn()
    agent.save_checkpoint(tmp_path / "a.pt")
    same = copy.deepcopy(env)
    resumed = PPO.load(tmp_path / "a.pt", actor_network=Window())
    for one, where in ((agent, env), (resumed, same)):
        collect_rollouts_recurrent(one, where, reset=False)
        one.learn()
    assert_same_weights(weights(agent), weights(resumed))


# --- bad ones -----------------------------------------------------------------------------------


class Bad(Forgetful):
    """Does what it is told to."""

    def __init__(self, state: Any = None, after: Any = None, output: Any = None) -> None:
        super().__init__()
        self.state, self.after, self.output = state or [], after, output

    def initial_state(self, rows: int) -> Any:
        return self.state

    def forward(self, observation: Tensor, extra: Any, state: Any) -> Any:
        given, _ = super().forward(observation, extra, state)
        given = given if self.output is None else self.output
        return given, state if self.after is None else self.after


ZEROS = torch.zeros(1, 1, 4)


@pytest.mark.parametrize(
    ("network", "options", "error", "message"),
    [
        (3, {}, TypeError, r"expected a torch.nn.Module with initial_state\(rows\) .*got int"),
        (nn.Linear(3, 4), {}, TypeError, r"expected .*SequenceNetwork describes, got Linear"),
        (Remembering, {}, TypeError, r"expected a torch.nn.Module .*got type"),
        (Bad([ZEROS + 1]), {}, ValueError, r"zeros of shape \[K, 1, H\], got \[\[1, 1, 4\]\]"),
        (Bad([ZEROS[0]]), {}, ValueError, r"zeros of shape \[K, 1, H\], got \[\[1, 4\]\]"),
        (Bad([torch.zeros(1, 2, 4)]), {}, ValueError, r"zeros of shape .*, got \[\[1, 2, 4\]\]"),
        (
            Remembering(),
            {"recurrent": False},
            ValueError,
            r"a network without state, as recurrent=False, got one with 2 state tensors; leave",
        ),
        (
            Bad(output=torch.zeros(1, 4)),
            {},
            ValueError,
            r"forward to give \[L, S, \.\.\.\] and a state .*, got \[1, 4\] and \[\] from one step",
        ),
        (
            Bad([ZEROS], after=[ZEROS, ZEROS]),
            {},
            ValueError,
            r"forward to give .*, got \[1, 1, 4\] and \[\[1, 1, 4\], \[1, 1, 4\]\] from",
        ),
        (Bad([ZEROS], after=[torch.zeros(1, 1, 5)]), {}, ValueError, r"got .* \[\[1, 1, 5\]\]"),
        (Bad([ZEROS], after=[]), {}, ValueError, r"got \[1, 1, 4\] and \[\] from one step"),
    ],
)
@pytest.mark.parametrize("name", ["actor_network", "critic_network"])
def test_bad_networks(name: str, network: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=rf"^{name}: expected .*" + message.removeprefix("expected ")):
        PPO(VECTOR, CHOICE, **{name: network}, **options)
    spaces = {"a_0": VECTOR}
    with pytest.raises(error, match=rf"^{name}: expected "):
        IPPO(spaces, {"a_0": CHOICE}, **{name: network}, **options)


def test_what_goes_wrong_within_a_network_is_told_when_it_is_built() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        PPO(VECTOR, CHOICE, actor_network=Forgetful(7))


def test_the_heads_stand_on_its_outputs() -> None:
    network = {"head_config": {"hidden_size": [6]}}
    agent = PPO(VECTOR, CHOICE, network, actor_network=Forgetful(3, 11), **LEARNING)
    assert (
        agent.policy.action_head.layers[0].in_features
        == agent.policy.value_head.layers[0].in_features
        == 11
    )
    agent = PPO(VECTOR, CHOICE, network, critic_network=Forgetful(3, 11), **LEARNING)
    assert agent.policy.value_head.layers[0].in_features == 11
    assert agent.policy.action_head.layers[0].in_features == 64


def test_its_first_weights_are_left_alone() -> None:
    network = Remembering()
    agent = PPO(VECTOR, CHOICE, actor_network=network, seed=3)
    assert_same_weights(agent.policy.encoders[0].network.state_dict(), network.state_dict())
    randomise(agent.policy, 0)
    assert not torch.equal(agent.policy.encoders[0].network.rnn.bias_hh_l0, network.rnn.bias_hh_l0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Dropout(0.1), r"Dropout\(p=0.1, .* at 'read.1'"),
        (nn.BatchNorm1d(5), r"BatchNorm1d\(5"),
        (nn.LSTM(3, 5, num_layers=2, dropout=0.2), r"LSTM\(3, 5"),
    ],
)
def test_layers_that_depend_on_chance_or_on_others_are_refused(
    layer: nn.Module, message: str
) -> None:
    network = Remembering()
    network.read = nn.Sequential(nn.Linear(3, 5), layer)
    with pytest.raises(ValueError, match=rf"^actor_network: expected layers whose .* {message}"):
        PPO(VECTOR, CHOICE, actor_network=network)


def test_parameters_of_another_dtype_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^critic_network: expected parameters of torch.float32"):
        PPO(VECTOR, CHOICE, critic_network=Remembering().double())


# --- in populations ---------------------------------------------------------------------------


def own_population(env: Any) -> list[PPO]:
    """Two agents around an LSTM of their own, with seeds."""
    torch.manual_seed(0)  # of the module, which is taken as it is
    settings = {**LEARNING, "learn_step": 16, "max_grad_norm": 1.0}
    return create_population(
        "PPO",
        env.single_observation_space,
        env.single_action_space,
        {"head_config": {"hidden_size": [6]}, "encoder_config": {"max_seq_len": 8}},
        INIT_HP={name.upper(): value for name, value in settings.items()},
        population_size=2,
        actor_network=Remembering(inputs=2),
        seed=3,
    )


def evolve(env: Any, pop: list[PPO], max_steps: int, **options: Any) -> list[PPO]:
    """Two generations of 64 steps, whose mutations change widths (of the heads: all there is)."""
    found, _ = train_on_policy(
        env,
        "Recall",
        "PPO",
        pop,
        max_steps=max_steps,
        evo_steps=64,
        eval_loop=1,
        tournament=TournamentSelection(2, True, 2, 1, rand_seed=0),
        mutation=Mutations(0, 1, 0, 0, 0, 0, min_width=2, rand_seed=0),
        save_elite=False,
        verbose=False,
        **options,
    )
    return found


@pytest.mark.usefixtures("quick_workers")
def test_populations_train_mutate_resume_and_load(tmp_path: Path) -> None:
    """In this process, in two, and after a stop: the same agents, around the same module."""
    env = make_vect_envs(make_env=Recall, num_envs=2, should_async_vector=False)
    pop = own_population(env)
    start = snapshot(pop[0])
    whole = evolve(env, pop, 128)
    assert isinstance(whole[1].policy.encoders[0], CustomEncoder)
    assert any("head.hidden_size" in agent.mut for agent in whole)
    assert not torch.equal(
        whole[1].policy.state_dict()["trunks.0.encoder.network.rnn.weight_ih_l0"],
        start["groups"][""]["policy"]["trunks.0.encoder.network.rnn.weight_ih_l0"],
    ), "it has not been trained"
    for theirs, ours in zip(evolve(env, own_population(env), 128, workers=2), whole, strict=True):
        assert_same(snapshot(theirs), snapshot(ours))

    path = tmp_path / "population.pt"
    evolve(env, own_population(env), 64, checkpoint_path=path)
    resumed = evolve(env, own_population(env), 128, resume=path)
    assert len(resumed) == 2
    assert all(agent.steps[-1] >= 128 for agent in resumed)
    loaded = load_population(path, actor_network=Remembering(inputs=2))
    assert all(isinstance(agent.policy.encoders[0], CustomEncoder) for agent in loaded)
    with pytest.raises(CheckpointError, match="actor_network: expected a module"):
        load_population(path)
