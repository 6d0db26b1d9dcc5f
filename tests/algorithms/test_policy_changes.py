"""Learning goes on whatever is done to a policy between rollouts, or it says what is wrong."""

import copy
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.agents import assert_same_weights, make_agent, team_weights
from support.contract import ON_POLICY, Case, train
from support.envs import scripted
from support.pairs import pairwise
from torch import nn

from recurrent_rl import PPO, SequenceNetwork, collect_rollouts_recurrent
from recurrent_rl.algorithms import policy_optimizer
from recurrent_rl.evolution.morphing import morph

EVERY = pytest.mark.parametrize("case", ON_POLICY.values(), ids=ON_POLICY.keys())
FEW = ("ppo", "ppo-feed-forward", "ippo")
# Of each kind of policy and optimiser one: what is done to them knows of no cell and no mask.
MANY = ("ppo", "ppo-sde", "ppo-feed-forward", "ippo", "mappo", "mappo-state")
SOME = pytest.mark.parametrize("case", [ON_POLICY[k] for k in FEW])
OPTIMISERS = ("one vector", "each parameter")


def in_pairs(names: Iterable[str], what: str, values: Iterable[Any]) -> pytest.MarkDecorator:
    """Each case with each value, under one of the two optimisers; each of these meets both."""
    return pytest.mark.parametrize(
        ("case", what, "_optimiser"),
        [
            pytest.param(ON_POLICY[name], value, optimiser, id=f"{name}-{value}-{optimiser}")
            for name, value, optimiser in pairwise(names, values, OPTIMISERS)
        ],
        indirect=["_optimiser"],
    )


@pytest.fixture(autouse=True, params=OPTIMISERS)
def _optimiser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam as it is on the CPU, and as on a GPU."""
    monkeypatch.setattr(
        policy_optimizer, "steps_one_vector", lambda device: request.param == "one vector"
    )


def policies(agent: Any) -> list[Any]:
    return [group.policy for group in agent.groups]


def assign_data(policy: Any) -> None:
    for p in policy.parameters():
        p.data = p.data.clone()


def other_optimizer(policy: Any) -> None:
    torch.optim.SGD(policy.parameters(), lr=0.1).zero_grad()


def vector_to_parameters(policy: Any) -> None:
    vector = nn.utils.parameters_to_vector(policy.parameters()).detach().clone()
    nn.utils.vector_to_parameters(vector, policy.parameters())


def load_assigned(policy: Any) -> None:
    policy.load_state_dict(copy.deepcopy(policy.state_dict()), assign=True)


def replace_parameters(policy: Any) -> None:
    for module in policy.modules():
        for name, p in list(module._parameters.items()):
            if p is not None:
                setattr(module, name, nn.Parameter(p.detach().clone()))


def transposed_storage(policy: Any) -> None:
    for p in policy.parameters():
        if p.ndim == 2:
            p.data = p.data.t().contiguous().t()


def replace_module(policy: Any) -> None:
    policy.value_head = copy.deepcopy(policy.value_head)


HARMLESS: dict[str, Callable[[Any], Any]] = {
    "zero_grad": lambda policy: policy.zero_grad(),
    "another optimiser's zero_grad": other_optimizer,
    "data": assign_data,
    "vector_to_parameters": vector_to_parameters,
    "load_state_dict(assign)": load_assigned,
    "double and back": lambda policy: policy.double().float(),
    "new parameters": replace_parameters,
    "a copied module": replace_module,
    "grads": lambda policy: [
        setattr(p, "grad", torch.full_like(p, 9)) for p in policy.parameters()
    ],
    "frozen and unfrozen": lambda policy: policy.requires_grad_(False).requires_grad_(True),
}


@functools.cache
def untouched_for(case: Case, optimiser: str) -> dict[str, torch.Tensor]:
    """The weights of a case after two rollouts; ``_optimiser`` has set which optimiser it has."""
    return team_weights(train(case.agent(), case.vector(), 2))


@pytest.fixture
def untouched(case: Case, request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    """The same, of this test's case and optimiser."""
    return untouched_for(case, request.node.callspec.params["_optimiser"])


@in_pairs(MANY, "what", HARMLESS)
def test_learning_goes_on_as_if_nothing_had_been_done(
    case: Case, what: str, untouched: dict[str, torch.Tensor]
) -> None:
    agent, env = case.agent(), case.vector()
    for _ in range(2):
        for policy in policies(agent):
            HARMLESS[what](policy)
        train(agent, env, 1)
    assert_same_weights(untouched, team_weights(agent))


@SOME
def test_other_strides_make_no_difference_beyond_rounding(
    case: Case, untouched: dict[str, torch.Tensor]
) -> None:
    agent, env = case.agent(), case.vector()
    train(agent, env, 1)
    for policy in policies(agent):
        transposed_storage(policy)
    ours = team_weights(train(agent, env, 1))
    for name in ours:
        torch.testing.assert_close(ours[name], untouched[name], rtol=1e-3, atol=1e-3)


@EVERY
def test_the_optimisers_own_zero_grad_does_no_harm(
    case: Case, untouched: dict[str, torch.Tensor]
) -> None:
    agent, env = case.agent(), case.vector()
    train(agent, env, 1)
    for trainer in agent.trainers.values():
        trainer.optimizer.zero_grad()
    assert_same_weights(untouched, team_weights(train(agent, env, 1)))


@SOME
def test_written_values_are_learned_from(case: Case) -> None:
    agent, env = case.trained(1), case.vector()
    for policy in policies(agent):
        nn.utils.vector_to_parameters(
            torch.full((sum(p.numel() for p in policy.parameters()),), 0.125), policy.parameters()
        )
    collect_rollouts_recurrent(agent, env)
    agent.reconfigure(lr=1e-9)
    agent.learn()
    for policy in policies(agent):
        for p in policy.parameters():
            torch.testing.assert_close(p, torch.full_like(p, 0.125), rtol=0, atol=1e-6)


# --- freezing -----------------------------------------------------------------------------------


def values(module: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(module: Any, before: list[torch.Tensor]) -> list[bool]:
    return [not torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True)]


@in_pairs(ON_POLICY, "rollouts_before", (0, 2))
def test_frozen_parts_stay_and_the_others_learn(case: Case, rollouts_before: int) -> None:
    agent, env = case.agent(), case.vector()
    train(agent, env, rollouts_before)
    for policy in policies(agent):
        policy.trunks.requires_grad_(False)
    frozen = [values(policy.trunks) for policy in policies(agent)]
    heads = [values(policy.value_head) for policy in policies(agent)]
    train(agent, env, 2)
    for policy, trunk, head in zip(policies(agent), frozen, heads, strict=True):
        assert not any(moved(policy.trunks, trunk))
        assert all(moved(policy.value_head, head))
        policy.requires_grad_(True)
    train(agent, env, 1)
    for policy, trunk in zip(policies(agent), frozen, strict=True):
        assert any(moved(policy.trunks, trunk))


def test_moments_rest_while_frozen_and_go_on_afterwards() -> None:
    agent, env = ON_POLICY["ppo-gru"].trained(2), ON_POLICY["ppo-gru"].vector()
    index = next(i for i, (n, _) in enumerate(named(agent)) if n == "value_head.layers.0.weight")
    before = agent.trainer.moments()[index]["exp_avg"].clone()
    agent.policy.value_head.requires_grad_(False)
    train(agent, env, 2)
    assert torch.equal(agent.trainer.moments()[index]["exp_avg"], before)
    agent.policy.value_head.requires_grad_(True)
    train(agent, env, 1)
    assert not torch.equal(agent.trainer.moments()[index]["exp_avg"], before)


def named(agent: Any) -> list[tuple[str, Any]]:
    names = {p: n for n, p in agent.policy.named_parameters()}
    return [(names[p], p) for p in agent.policy.trained_parameters()]


def test_parts_that_were_frozen_from_the_start_take_steps_of_the_usual_size() -> None:
    agent, env = ON_POLICY["ppo-gru"].agent(lr=1e-3), ON_POLICY["ppo-gru"].vector()
    agent.policy.value_head.requires_grad_(False)
    train(agent, env, 3)
    agent.policy.value_head.requires_grad_(True)
    before = values(agent.policy.value_head)
    collect_rollouts_recurrent(agent, env)
    updates = agent.learn().updates
    for p, q in zip(agent.policy.value_head.parameters(), before, strict=True):
        assert 0 < (p - q).abs().max() < 1.5e-3 * updates


@in_pairs(MANY, "how", ("load", "clone", "deepcopy"))
def test_frozen_parts_and_resting_moments_are_saved(case: Case, how: str, tmp_path: Path) -> None:
    agent, env = case.trained(1), case.vector()
    for policy in policies(agent):
        policy.trunks.requires_grad_(False)
    train(agent, env, 1)
    if how == "load":
        agent.save_checkpoint(tmp_path / "agent.pt")
        other = case.kind.load(tmp_path / "agent.pt")
    else:
        other = agent.clone() if how == "clone" else copy.deepcopy(agent)
    for one in (agent, other):
        for policy in policies(one):
            assert not any(p.requires_grad for p in policy.trunks.parameters())
        train(one, case.vector(), 1, reset=True)
        for policy in policies(one):
            policy.requires_grad_(True)
        train(one, case.vector(), 1, reset=True)
    assert_same_weights(team_weights(agent), team_weights(other))


@SOME
def test_frozen_parts_stay_frozen_when_a_mutation_builds_the_policy_anew(case: Case) -> None:
    agent = case.trained(1)
    for trainer in agent.trainers.values():
        trainer.policy.value_head.requires_grad_(False)
        train(agent, case.vector(), 1)
        head = trainer.net_config.head_config
        wider = trainer.net_config.replace(head_config=head.replace(hidden_size=[9]))
        morph(trainer, wider, torch.Generator())
        assert not any(p.requires_grad for p in trainer.policy.value_head.parameters())
        before = values(trainer.policy.value_head)
        train(agent, case.vector(), 1)
        assert not any(moved(trainer.policy.value_head, before))


@SOME
def test_a_policy_that_is_frozen_as_a_whole_is_an_error(case: Case) -> None:
    agent, env = case.trained(1), case.vector()
    for policy in policies(agent):
        policy.requires_grad_(False)
    collect_rollouts_recurrent(agent, env)
    before = team_weights(agent)
    with pytest.raises(RuntimeError, match=r"^learn: expected parameters that require gradients"):
        agent.learn()
    assert_same_weights(before, team_weights(agent))
    for policy in policies(agent):
        policy.requires_grad_(True)
    agent.learn()  # from the same rollout


def test_a_group_may_be_frozen_as_a_whole() -> None:
    agent, env = ON_POLICY["ippo"].trained(1), ON_POLICY["ippo"].vector()
    first, second = agent.trainers.values()
    first.policy.requires_grad_(False)
    before, others = first.policy.state_dict(), values(second.policy)
    before = {name: x.clone() for name, x in before.items()}
    collect_rollouts_recurrent(agent, env)
    with pytest.warns(UserWarning, match="all parameters of a policy are frozen"):
        learned = agent.learn()
    assert [d.updates > 0 for d in learned.values()] == [False, True]
    assert all(torch.equal(x, before[name]) for name, x in first.policy.state_dict().items())
    assert any(moved(second.policy, others))
    train(agent, env, 1)  # once is enough


# --- what cannot work is refused ----------------------------------------------------------------


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "double": (lambda policy: policy.double(), "expected parameters of torch.float32 .*float64"),
    "half": (lambda policy: policy.half(), "expected parameters of torch.float32 .*float16"),
    "meta": (
        lambda policy: policy.value_head.to("meta"),
        "on cpu, as the agent was built, got .* on meta",
    ),
    "extra": (lambda policy: policy.add_module("mine", nn.Linear(1, 1)), "got 'mine.weight'"),
    "trunk": (
        lambda policy: policy.trunks.__setitem__(0, copy.deepcopy(policy.trunks[0])),
        r"^policy\.trunks: expected the trunks",
    ),
}


@pytest.mark.parametrize("collected", [True, False])
@in_pairs(FEW, "what", REFUSED)
def test_what_cannot_work_is_refused(case: Case, what: str, collected: bool) -> None:
    change, message = REFUSED[what]
    agent, env = case.trained(1), case.vector()
    if collected:
        collect_rollouts_recurrent(agent, env)
    change(policies(agent)[-1])
    with pytest.raises(RuntimeError, match=message):
        agent.learn() if collected else collect_rollouts_recurrent(agent, env)


@in_pairs(FEW, "wrap", ("OptimizedModule", "DataParallel"))
def test_wrapped_policies_are_refused(case: Case, wrap: str) -> None:
    agent = case.agent()
    for group in agent.groups:
        wrapped: Any = nn.DataParallel(group.policy)
        if wrap == "OptimizedModule":
            wrapped = torch.compile(group.policy, backend="eager")
        with pytest.raises(TypeError, match=f"ActorCritic, got {wrap}"):
            group.policy = wrapped


@SOME
@pytest.mark.filterwarnings("ignore:compiled=True")  # which they are too much for
def test_parametrised_weights_learn_but_are_not_saved(case: Case, tmp_path: Path) -> None:
    agent, env = case.trained(1), case.vector()
    for policy in policies(agent):
        nn.utils.parametrizations.weight_norm(policy.value_head.layers[0])
    before = [values(policy.value_head) for policy in policies(agent)]
    train(agent, env, 1)
    for policy, head in zip(policies(agent), before, strict=True):
        assert all(moved(policy.value_head, head))
    with pytest.raises(ValueError, match=r"^policy: expected the weights .*value_head\.layers\.0"):
        agent.save_checkpoint(tmp_path / "agent.pt")
    assert not list(tmp_path.iterdir())


class Frozen(nn.Module, SequenceNetwork):
    """A network of the user's own, whose first layer is trained already."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
        self.first.requires_grad_(False)

    def initial_state(self, rows: int) -> tuple[torch.Tensor, ...]:
        return ()

    def forward(self, observation: Any, extra: Any, state: Any) -> Any:
        return torch.tanh(self.second(torch.tanh(self.first(observation)))), state


def test_networks_of_ones_own() -> None:
    env = scripted(["3t 5l", "7b"])
    agent = PPO(
        env.single_observation_space,
        env.single_action_space,
        actor_network=Frozen(),
        learn_step=10,
        seed=0,
    )
    network = agent.policy.encoders[0].network
    first, second = values(network.first), values(network.second)
    train(agent, env, 2)
    assert not any(moved(network.first, first))
    assert all(moved(network.second, second))
    network.requires_grad_(True)
    copied = agent.clone()
    assert all(p.requires_grad for p in copied.policy.parameters())
    train(agent, env, 1)
    assert all(moved(network.first, first))


def test_tied_weights_learn_but_are_not_saved(tmp_path: Path) -> None:
    agent, env = ON_POLICY["ppo"].agent(), ON_POLICY["ppo"].vector()
    first, second = agent.policy.trunks
    second.encoder.core = first.encoder.core
    before = values(agent.policy)
    train(agent, env, 2)
    assert all(moved(agent.policy, before))
    with pytest.raises(
        ValueError, match=r"^policy: expected the weights .*trunks\.1\.encoder\.core"
    ):
        agent.save_checkpoint(tmp_path / "agent.pt")


@EVERY
def test_learning_does_not_ask_whether_gradients_are_switched_off(
    case: Case, untouched: dict[str, torch.Tensor]
) -> None:
    agent, env = case.agent(), case.vector()
    train(agent, env, 1)
    with torch.no_grad():
        train(agent, env, 1)
    assert_same_weights(untouched, team_weights(agent))
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"^learn: expected a call outside of torch\.inference"),
    ):
        train(agent, env, 1)


def test_groups_that_never_decide_are_reported() -> None:
    agent, env = ON_POLICY["ppo-gru"].agent(), ON_POLICY["ppo-gru"].vector()
    for i in range(11):
        collect_rollouts_recurrent(agent, env)
        agent.buffer.active.fill_(False)
        if i == 9:
            with pytest.warns(UserWarning, match=r"^learn: in 10 rollouts in a row"):
                agent.learn()
        else:
            assert agent.learn().updates == 0


# --- settings that would do nothing -------------------------------------------------------------


@in_pairs(FEW, "name", ("lr", "gamma", "batch_size", "total_steps", "normalize_reward"))
def test_hyperparameters_are_no_attributes(case: Case, name: str) -> None:
    agent = case.agent()
    for holder in (agent, *agent.trainers.values()):
        with pytest.raises(AttributeError, match=rf"\.{name}: .*agent\.reconfigure\({name}=1\)"):
            setattr(holder, name, 1)


@pytest.mark.parametrize("name", ["policy", "optimizer", "config", "learn_step"])
def test_parts_of_an_agent_are_not_replaced(name: str) -> None:
    agent = ON_POLICY["ppo"].agent()
    with pytest.raises(AttributeError, match=rf"^PPO\.{name}: expected"):
        setattr(agent, name, None)


@SOME
def test_step_sizes_that_learning_would_overwrite_are_refused(case: Case) -> None:
    agent, env = case.trained(1, lr_schedule="constant"), case.vector()
    trainer = list(agent.trainers.values())[-1]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.5)
    collect_rollouts_recurrent(agent, env)
    trainer.optimizer.step()
    scheduler.step()
    before = team_weights(agent)
    with pytest.raises(RuntimeError, match=r"expected lr 0\.01 .*, got 0\.005.*reconfigure\(lr="):
        agent.learn()
    assert_same_weights(before, team_weights(agent))
    agent.reconfigure(lr=0.005)
    learned = agent.learn()
    assert (learned if isinstance(agent, PPO) else learned[trainer_name(agent)]).lr == 0.005


def trainer_name(agent: Any) -> str:
    return list(agent.trainers)[-1]


def test_parameters_added_to_the_optimiser_are_refused() -> None:
    agent, env = ON_POLICY["ppo"].agent(), ON_POLICY["ppo"].vector()
    agent.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    collect_rollouts_recurrent(agent, env)
    with pytest.raises(RuntimeError, match="as its one group, got 2 groups"):
        agent.learn()


def test_amsgrad_is_for_the_start() -> None:
    agent, env = ON_POLICY["ppo"].agent(), ON_POLICY["ppo"].vector()
    agent.optimizer.param_groups[0]["amsgrad"] = True
    train(agent, env, 2)
    other = agent.clone()
    train(other, env, 1)
    agent = ON_POLICY["ppo"].trained(1)
    agent.optimizer.param_groups[0]["amsgrad"] = True
    collect_rollouts_recurrent(agent, env)
    with pytest.raises(RuntimeError, match=r"^optimizer: expected amsgrad"):
        agent.learn()


def test_other_settings_of_the_optimiser_count_and_are_saved(tmp_path: Path) -> None:
    env = scripted(["3t 5l", "7b"])
    agents = [make_agent(env) for _ in range(2)]
    agents[0].optimizer.param_groups[0]["weight_decay"] = 10.0
    for agent in agents:
        train(agent, scripted(["3t 5l", "7b"]), 2)
    sizes = [sum(float(p.norm().detach()) for p in agent.policy.parameters()) for agent in agents]
    assert sizes[0] < sizes[1]
    agents[0].save_checkpoint(tmp_path / "agent.pt")
    assert PPO.load(tmp_path / "agent.pt").optimizer.param_groups[0]["weight_decay"] == 10.0


@SOME
def test_training_beyond_total_steps_says_so_once_and_how_to_go_on(
    case: Case, tmp_path: Path
) -> None:
    agent, env = case.agent(lr_schedule="linear", total_steps=20), case.vector()
    train(agent, env, 1)
    agent.save_checkpoint(tmp_path / "agent.pt")
    other = case.kind.load(tmp_path / "agent.pt")
    for one in (agent, other):
        collect_rollouts_recurrent(one, case.vector())
        with pytest.warns(UserWarning, match=r"total_steps = 20 are over, .* factor of 0 \("):
            one.learn()
        train(one, case.vector(), 1)
        one.reconfigure(lr_schedule="constant")
        before = team_weights(one)
        train(one, case.vector(), 1)
        assert any(not torch.equal(x, before[k]) for k, x in team_weights(one).items())


def test_an_error_leaves_adams_moments_as_they_were() -> None:
    agent, env = ON_POLICY["ppo-gru"].trained(1), ON_POLICY["ppo-gru"].vector()
    collect_rollouts_recurrent(agent, env)
    agent.buffer.value[3] = float("inf")
    before = team_weights(agent)
    with pytest.raises(FloatingPointError, match="expected a finite gradient"):
        agent.learn()
    assert_same_weights(before, team_weights(agent))
    train(agent, env, 1)
    assert all(bool(torch.isfinite(x).all()) for x in team_weights(agent).values())
