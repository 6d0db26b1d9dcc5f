"""Tests of `recurrent_rl.algorithms.compiled_ppo`: gradients by kernels against autograd's.

That autograd's loss equals a plain loop's is tested in ``algorithms/test_ppo_update.py``.
"""

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compiled import needs_compiler
from support.helpers import SEEDS, collect, cuttings, jitter, make_policy, spoil
from support.pairs import examples
from support.updates import CONFIG, CPU, adam, learned, rollout, weights
from torch import Tensor, nn

from recurrent_rl import PPO
from recurrent_rl.algorithms import compiled_ppo as module
from recurrent_rl.algorithms import compiled_reach
from recurrent_rl.algorithms.compiled_ppo import CompiledGradient, compiled_gradient
from recurrent_rl.algorithms.compiled_reach import obstacle_of
from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.algorithms.ppo_loss import Update, known_by_hand, ppo_loss
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.compiled.structures import address
from recurrent_rl.networks.layers import mlp
from recurrent_rl.networks.policy import ActorCritic

pytestmark = needs_compiler

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers behind an mlp": {"num_layers": 2, "hidden_size": (4, 20)},
    "gru": {"cell": "gru", "num_layers": 2, "hidden_size": (4,), "previous_action": True},
    "gru separate": {"cell": "gru", "share_encoders": False, "action": "box"},
    "separate": {"share_encoders": False, "action": "box", "num_layers": 2},
    "previous inputs": {"previous_action": True, "previous_reward": True, "hidden_size": (7,)},
    "index": {"observation": "index", "action": "box", "share_encoders": False},
    "squashed": {"action": "box", "squash_output": True},
    "feed-forward": {"recurrent": False, "previous_reward": True},
    "feed-forward separate": {"recurrent": False, "share_encoders": False, "hidden_size": ()},
    "central": {
        "central": True,
        "share_encoders": False,
        "previous_action": True,
        "value_norm": True,
    },
}


def compiled(
    policy: ActorCritic, buffer: SequenceRolloutBuffer, config: PPOConfig
) -> CompiledGradient | None:
    """As an update asks for it."""
    heads = known_by_hand(policy, CPU, config.ent_coef)
    targets = buffer.targets(config.normalize_advantage)
    cuts, now = buffer.sequences(), config.coefficients(0)
    return compiled_gradient(Update(policy, heads, buffer, cuts, targets, config, now))


def both(
    policy: ActorCritic, buffer: SequenceRolloutBuffer, config: PPOConfig, which: Tensor
) -> list[list[Any]]:
    """Loss, record and gradient of some sequences, by kernels and by autograd."""
    vector = adam(policy).param_groups[0]["params"][0]
    by_kernels = compiled(policy, buffer, config)
    assert by_kernels is not None
    cuts = buffer.sequences()
    steps = 3 + int(cuts.active[which].sum())  # other ranks have three
    vector.grad.fill_(math.nan)  # whatever was there before
    loss, record = by_kernels.loss(which, steps, with_entropy=True)
    results: list[list[Any]] = [[loss, record, _gradients(policy)]]
    assert by_kernels.computed == int(cuts.length[which].sum())
    vector.grad.zero_()
    batch = buffer.batch(cuts, which, buffer.targets(config.normalize_advantage))
    loss, record = ppo_loss(policy, [batch], config, CPU, steps=steps)
    loss.backward()
    return [*results, [loss.detach(), record, _gradients(policy)]]


def _gradients(policy: ActorCritic) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


@settings(max_examples=examples(40))
@given(
    cuttings(max_steps=12, max_rows=6),
    st.sampled_from(list(VARIANTS)),
    st.booleans(),
    st.sampled_from([None, 0.05]),
    SEEDS,
)
def test_loss_and_gradient_equal_those_of_autograd(
    cutting: Any, variant: str, masked: bool, clip_vf_coef: float | None, seed: int
) -> None:
    """Of any sequences of any rollout, with resets, absences and idle steps."""
    f, max_seq_len, _ = cutting
    policy = make_policy(seed=seed % 1000, **VARIANTS[variant])
    masked = masked and policy.actions.mask_size > 0
    length = max_seq_len if policy.memory else 1
    buffer, _ = collect(policy, f, max_seq_len=length, masked=masked, seed=seed)
    jitter(policy)
    count = len(buffer.sequences())
    if count == 0:
        return
    entropy = 0.0 if variant == "squashed" else 0.03
    config = CONFIG.replace(compiled=True, clip_vf_coef=clip_vf_coef, ent_coef=entropy)
    generator = torch.Generator().manual_seed(seed)
    which = torch.randperm(count, generator=generator)[: 1 + seed % count]
    ours, theirs = both(policy, buffer, config, which)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=5e-6)


@pytest.mark.parametrize("units", [15, 64, 70])
@pytest.mark.parametrize(("action", "cell"), [("box", "lstm"), ("discrete", "gru")])
def test_at_sizes_that_are_trained(units: int, action: str, cell: str) -> None:
    """Vectors and blocks of rows are filled, and are not; long sums of terms of both signs."""
    policy = make_policy(action=action, cell=cell, hidden_state_size=units, hidden_size=(33,))
    for head, width in (
        (policy.action_head, policy.distribution.outputs),
        (policy.value_head, 1),
    ):
        head.layers = mlp(units, (64, 18), "ReLU", width)
    buffer = rollout(policy, steps=130, rows=9, max_seq_len=100, absent=0.05, reset=0.03)
    jitter(policy)
    config = CONFIG.replace(compiled=True)
    ours, theirs = both(policy, buffer, config, torch.arange(len(buffer.sequences())))
    torch.testing.assert_close(ours[:2], theirs[:2], rtol=1e-4, atol=1e-6)
    for name, gradient in ours[2].items():
        exact = theirs[2][name]
        assert float((gradient - exact).norm()) < 1e-5 * float(exact.norm()) + 1e-7, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_garbage_where_nothing_counts_changes_no_bit(variant: str) -> None:
    results = []
    for spoiled in (False, True):
        policy = make_policy(**VARIANTS[variant])
        masked = bool(policy.actions.mask_size)
        buffer = rollout(policy, absent=0.25, idle=0.25, masked=masked)
        if spoiled:
            spoil(policy, buffer)
            if variant == "index":
                buffer.obs[~buffer.exists] = 1_000  # in no space
        config = CONFIG.replace(compiled=True, ent_coef=0.0)
        adam(policy)
        by_kernels = compiled(policy, buffer, config)
        assert by_kernels is not None
        every = torch.arange(len(buffer.sequences()))
        loss, record = by_kernels.loss(every, 50, with_entropy=False)
        results.append([loss, *record[[0, 1, 3, 4]], *_gradients(policy).values()])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
        assert torch.isfinite(clean).all()


@pytest.mark.parametrize("variant", ["separate", "central", "feed-forward"])
@pytest.mark.parametrize("options", [{}, {"refresh_hidden_state": True}, {"target_kl": 1e-3}])
def test_an_update_is_the_one_of_autograd(variant: str, options: dict[str, Any]) -> None:
    results: list[Any] = []
    for by_kernels in (False, True):
        policy = make_policy(**VARIANTS[variant])
        config = CONFIG.replace(batch_size=20, compiled=by_kernels, **options)
        said = learned(policy, rollout(policy), config, lr=1e-3).to_dict()
        padding = said.pop("padding")
        assert padding == 0 or not by_kernels
        results.append([weights(policy), said])
    assert ("target_kl" in options) == (results[0][1]["updates"] < 16)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)


def test_what_has_sunk_below_the_least_deviation_comes_back() -> None:
    policy = make_policy(action="box")
    buffer = rollout(policy)
    policy.get_parameter("action_head.distribution.log_std").data.copy_(torch.tensor([-9.0, 0.5]))
    config = CONFIG.replace(compiled=True)
    every = torch.arange(len(buffer.sequences()))
    for sign in (1.0, -1.0):  # one of them would raise it
        buffer.advantage *= sign
        ours, theirs = both(policy, buffer, config, every)
        name = "action_head.distribution.log_std"
        torch.testing.assert_close(ours[2][name], theirs[2][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "where", ["action_head.layers.0.weight", "trunks.0.encoder.core.rnn.bias_hh_l0"]
)
def test_a_loss_that_is_not_finite_is_refused(where: str) -> None:
    policy = make_policy()
    buffer = rollout(policy)
    policy.get_parameter(where).data.view(-1)[1] = math.nan
    before = weights(policy)
    with pytest.raises(FloatingPointError, match="expected a finite gradient"):
        learned(policy, buffer, CONFIG.replace(compiled=True))
    torch.testing.assert_close(weights(policy), before, rtol=0, atol=0, equal_nan=True)


# --- what is left to autograd -------------------------------------------------------------------


@pytest.fixture
def nothing_said_yet() -> None:
    """Warnings are given once in a process."""
    module._warn_of.cache_clear()


def frozen(policy: ActorCritic) -> None:
    policy.value_head.requires_grad_(False)


def tied(policy: ActorCritic) -> None:
    policy.value_head.layers[0] = policy.action_head.layers[0]


def hooked(policy: ActorCritic) -> None:
    policy.trunks[0].encoder.core.register_forward_hook(lambda *_: None)  # type: ignore[union-attr]


def has_masked_gradient(policy: ActorCritic) -> None:
    policy.trunks[0].encoder.core.rnn.weight_hh_l0.register_hook(lambda g: 0 * g)  # type: ignore[union-attr]


def has_masked_head(policy: ActorCritic) -> None:
    policy.action_head.layers[0].bias.register_post_accumulate_grad_hook(lambda p: None)  # type: ignore[union-attr, operator]


def has_own_forward(policy: ActorCritic) -> None:
    layer = policy.trunks[0].encoder.mlp[0]  # type: ignore[union-attr, index]
    plain = layer.forward
    layer.forward = lambda x: 0.5 * plain(x)


def head_has_own_forward(policy: ActorCritic) -> None:
    layer = policy.action_head.layers[0]
    plain = layer.forward
    layer.forward = lambda x: 0.5 * plain(x)  # type: ignore[method-assign]


def replaced(policy: ActorCritic) -> None:
    policy.trunks[0].encoder.mlp = nn.Sequential(nn.Linear(3, 4), nn.GELU())  # type: ignore[union-attr]


ALTERED = "hooks, or a forward of a module's own"


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        (frozen, None),
        (tied, "parameters that serve twice"),
        (hooked, ALTERED),
        (has_masked_gradient, ALTERED),
        (has_masked_head, "heads or a distribution"),
        (has_own_forward, ALTERED),
        (head_has_own_forward, "heads or a distribution"),
        (replaced, "other layers than linear ones"),
    ],
)
@pytest.mark.usefixtures("nothing_said_yet")
def test_policies_that_were_changed_are_left_to_autograd(
    change: Callable[[ActorCritic], None], obstacle: str | None
) -> None:
    """And learn what they learn without the option."""
    results = []
    for config in (CONFIG, CONFIG.replace(compiled=True)):
        policy = make_policy(hidden_size=(4,))
        buffer = rollout(policy)
        adam(policy)
        assert (compiled(policy, buffer, config) is not None) == config.compiled
        change(policy)
        if config.compiled and obstacle:
            with pytest.warns(RuntimeWarning, match=f"compiled=True: expected .* got {obstacle}"):
                assert compiled(policy, buffer, config) is None
        assert compiled(policy, buffer, config) is None  # and says no more
        if change is not frozen:  # which agents take out of the optimiser
            learned(policy, buffer, config.replace(update_epochs=1))
        results.append(weights(policy))
    torch.testing.assert_close(*results)


def test_hooks_of_all_modules_are_called() -> None:
    policy, called = make_policy(), []
    buffer, config = rollout(policy), CONFIG.replace(compiled=True)
    adam(policy)
    for register in (
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_full_backward_hook,
    ):
        with register(lambda *_: called.append(1)):  # type: ignore[arg-type, operator]
            assert obstacle_of(policy, known_by_hand(policy, CPU, 0.0), buffer)
    assert compiled(policy, buffer, config) is not None


@pytest.mark.parametrize(
    ("options", "obstacle"),
    [
        ({"cell": "mingru"}, "recurrent layers"),
        ({"cell": "lru"}, "recurrent layers"),
        ({"encoder": {"residual_layers": 1}}, "recurrent layers|other layers"),
        ({"encoder": {"core_residual": True}}, "core_residual"),
        ({"encoder": {"core_layer_norm": True}}, "core_layer_norm"),
        ({"action": "box", "state_dependent_std": True}, "a distribution"),
        ({"action": "box", "use_sde": True}, "a distribution"),
    ],
)
@pytest.mark.usefixtures("nothing_said_yet")
def test_policies_that_kernels_do_not_know_are_left_to_autograd(
    options: dict[str, Any], obstacle: str
) -> None:
    policy = make_policy(**options)
    buffer = rollout(policy)
    adam(policy)
    with pytest.warns(RuntimeWarning, match=obstacle):
        assert compiled(policy, buffer, CONFIG.replace(compiled=True)) is None


@pytest.mark.usefixtures("nothing_said_yet")
def test_rollouts_of_other_floats_are_converted_or_left_to_autograd() -> None:
    """As after ``torch.set_default_dtype``."""
    policy, config = make_policy(recurrent=False), CONFIG.replace(compiled=True)
    buffer = rollout(policy)
    every = torch.arange(len(buffer.sequences()))
    plain = both(policy, buffer, config, every)[0]
    for name in ("log_prob", "value", "advantage", "returns"):
        setattr(buffer, name, getattr(buffer, name).double())
    targets = buffer.targets(config.normalize_advantage)
    assert targets.dtype == torch.float64
    by_kernels = compiled(policy, buffer, config)
    assert by_kernels is not None
    steps = 3 + int(buffer.sequences().active.sum())
    loss, record = by_kernels.loss(every, steps, with_entropy=True)
    torch.testing.assert_close([loss, record], plain[:2], rtol=1e-5, atol=1e-6)
    policy = make_policy()
    buffer = rollout(policy)
    adam(policy)
    buffer.hidden = [h.double() for h in buffer.hidden]
    with pytest.warns(RuntimeWarning, match="numbers that are not float32"):
        assert compiled(policy, buffer, config) is None


@pytest.mark.usefixtures("nothing_said_yet")
def test_burn_in_is_left_to_autograd() -> None:
    policy = make_policy()
    buffer = rollout(policy, burn_in=3)
    adam(policy)
    with pytest.warns(RuntimeWarning, match="burn-in"):
        assert compiled(policy, buffer, CONFIG.replace(compiled=True)) is None


@pytest.mark.usefixtures("nothing_said_yet")
def test_features_that_take_much_room_are_left_to_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices do; numbers, which are their own features, never."""
    monkeypatch.setattr(compiled_reach, "ROOM", 100)
    known = {}
    for observation in ("vector", "index"):
        policy = make_policy(observation)
        buffer = rollout(policy)
        buffer.obs = buffer.obs.float() if observation == "vector" else buffer.obs.to(torch.int8)
        known[observation] = obstacle_of(policy, known_by_hand(policy, CPU, 0.0), buffer)
    assert known["vector"] is None
    assert "MiB as features" in str(known["index"])


def test_agents_on_other_devices_say_that_kernels_are_not_for_them() -> None:
    spaces = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
    with pytest.warns(RuntimeWarning, match="compiled=True: expected device='cpu'.*got 'meta'"):
        PPO(*spaces, device="meta", compiled=True)
    PPO(*spaces, device="meta")


def test_what_a_kernel_would_misread_is_refused() -> None:
    """As is what lies elsewhere."""
    numbers = torch.zeros(3)
    for wrong in (numbers.double(), numbers.half(), numbers.to("meta")):
        with pytest.raises(
            TypeError, match=f"expected torch.float32 on cpu, dense, got {wrong.dtype}"
        ):
            address(wrong)
    with pytest.raises(TypeError, match="not dense"):
        address(torch.zeros(3, 2).t())
