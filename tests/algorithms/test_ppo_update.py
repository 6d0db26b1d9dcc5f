"""Tests of `recurrent_rl.algorithms.ppo_update`: the loss, its gradient, and updates."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import (
    Flags,
    collect,
    cut_by_hand,
    cuttings,
    double,
    gradients,
    jitter,
    loss_terms_by_hand,
    make_flags,
    make_policy,
    spoil,
)
from support.pairs import examples
from support.updates import (
    CASES,
    CONFIG,
    CPU,
    EVERY_VARIANT,
    VARIANTS,
    Case,
    adam,
    collected,
    flat_gradient,
    learned,
    rollout,
    weights,
    whole,
)
from torch import Tensor

from recurrent_rl.algorithms.ppo_loss import known_by_hand, ppo_loss
from recurrent_rl.algorithms.ppo_update import Diagnostics, ppo_update
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.buffers.minibatches import minibatches, rectangles
from recurrent_rl.buffers.rollout import Batch, SequenceRolloutBuffer
from recurrent_rl.networks.flat_parameters import flatten_parameters
from recurrent_rl.networks.policy import ActorCritic

# --- the loss ---------------------------------------------------------------------------------


@settings(max_examples=examples(25))
@given(CASES, st.booleans(), st.booleans(), st.booleans())
@double()
def test_loss_and_gradient_equal_those_of_stepping(
    case: Case, masked: bool, normalize: bool, known: bool
) -> None:
    """Of a minibatch, against a loop over rows and steps with torch's own distributions."""
    policy, buffer = collected(case, masked=masked)
    jitter(policy)  # ratio one would hide what clipping and the ratio's gradient do
    config = CONFIG.replace(normalize_advantage=normalize)
    cuts = buffer.sequences()
    if len(cuts) == 0:
        return
    terms = loss_terms_by_hand(policy, buffer, config)
    everything = []
    generator = torch.Generator().manual_seed(case[2])
    for which in minibatches(cuts.active, 6, generator):
        batch = buffer.batch(cuts, which, buffer.targets(normalize))
        by_hand = known_by_hand(policy, CPU, config.ent_coef) if known else None
        assert (by_hand is not None) == known
        loss, _ = ppo_loss(policy, [batch], config, CPU, by_hand=by_hand)
        expected = torch.stack([terms[i] for i in batch.step.tolist()]).mean()
        torch.testing.assert_close(loss, expected, rtol=1e-8, atol=1e-9)
        theirs = gradients(policy, expected)
        for name, grad in gradients(policy, loss).items():
            torch.testing.assert_close(grad, theirs[name], rtol=1e-7, atol=1e-9, msg=name)
        everything += batch.step.tolist()
    assert sorted(everything) == sorted(terms), "an active step is lost, or trained on twice"


@settings(max_examples=examples(20))
@given(CASES, st.booleans())
def test_garbage_where_nothing_counts_changes_no_bit_of_loss_or_gradient(
    case: Case, masked: bool
) -> None:
    policy, buffer = collected(case, masked=masked)
    jitter(policy)
    if not len(buffer.sequences()):
        return
    results = []
    for spoiled in (False, True):
        if spoiled:
            spoil(policy, buffer)
        loss, record = ppo_loss(policy, [whole(buffer)], CONFIG, CPU)
        results.append([loss, record, *gradients(policy, loss).values()])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
        assert torch.isfinite(clean).all()


@EVERY_VARIANT
@pytest.mark.parametrize("options", [{}, {"refresh_hidden_state": True}], ids=["", "refresh"])
def test_garbage_where_nothing_counts_changes_no_bit_of_an_update(
    variant: str, options: dict[str, Any]
) -> None:
    """From the returns on: also what advantages and their normalisation are computed from."""
    config = CONFIG.replace(batch_size=20, update_epochs=3, **options)
    results = []
    for spoiled in (False, True):
        policy = make_policy(**VARIANTS[variant])
        buffer = rollout(
            policy, absent=0.25, idle=0.25, masked=bool(policy.actions.mask_size), burn_in=0
        )
        if spoiled:
            spoil(policy, buffer)
        buffer.compute_returns(torch.ones(buffer.rows), 0.9, 0.8)
        if spoiled:
            spoil(policy, buffer)
        diagnostics = learned(policy, buffer, config)
        results.append((weights(policy), diagnostics))
    (clean, said), (dirty, also_said) = results
    assert torch.equal(clean, dirty)
    assert said == also_said
    assert torch.isfinite(clean).all()


@settings(max_examples=examples(20))
@given(CASES)
@double()
def test_minibatch_losses_weighted_by_their_active_steps_sum_to_the_whole(case: Case) -> None:
    policy, buffer = collected(case)
    jitter(policy)
    cuts, targets = buffer.sequences(), buffer.targets(True)
    if len(cuts) == 0:
        return
    total = 0.0
    for which in minibatches(cuts.active, 5, torch.Generator()):
        batch = buffer.batch(cuts, which, targets)
        total += len(batch) * ppo_loss(policy, [batch], CONFIG, CPU)[0].item()
    expected = ppo_loss(policy, [whole(buffer)], CONFIG, CPU)[0].item()
    assert total / int(buffer.active.sum()) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@double()
def test_value_clipping_is_off_by_default_and_counts_when_asked_for() -> None:
    policy = make_policy()
    batch = whole(rollout(policy))
    jitter(policy)

    def value_loss(**options: Any) -> float:
        record = ppo_loss(policy, [batch], CONFIG.replace(**options), CPU)[1]
        return record[1].item()

    _, value = replay_of(policy, batch)
    plain = 0.5 * (value - batch.returns).square()
    assert value_loss() == pytest.approx(plain.mean().item())
    near = batch.value + (value - batch.value).clamp(-0.05, 0.05)
    clipped = torch.maximum(plain, 0.5 * (near - batch.returns).square()).mean().item()
    assert value_loss(clip_vf_coef=0.05) == pytest.approx(clipped)
    assert clipped > plain.mean().item()


def replay_of(policy: ActorCritic, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of a batch without burn-in."""
    with torch.no_grad():
        params, value = policy.unroll(
            batch.observation, batch.extra, batch.state, batch.active_index, batch.mask
        )
        return policy.action_head.distribution.log_prob(params, batch.action), value


@double()
def test_record_of_a_minibatch() -> None:
    policy = make_policy()
    batch = whole(rollout(policy))
    jitter(policy)
    loss, record = ppo_loss(policy, [batch], CONFIG, CPU)
    pi_loss, v_loss, entropy, kl, clip_fraction = record.tolist()
    assert not record.requires_grad
    expected = pi_loss + CONFIG.vf_coef * v_loss - CONFIG.ent_coef * entropy
    assert loss.item() == pytest.approx(expected)
    log_prob, _ = replay_of(policy, batch)
    ratio = (log_prob - batch.log_prob).exp()
    assert kl == pytest.approx((ratio - 1 - ratio.log()).mean().item())
    assert clip_fraction == pytest.approx(((ratio < 0.8) | (ratio > 1.2)).double().mean().item())
    assert 0 < clip_fraction < 1
    assert 0 < entropy < math.log(3)


def test_without_an_entropy_bonus_entropy_is_reported_and_has_no_gradient() -> None:
    policy = make_policy(action="box")
    batch = whole(rollout(policy))
    batch.advantage.zero_()
    for ent_coef, moves in ((0.0, False), (0.1, True)):
        loss, record = ppo_loss(policy, [batch], CONFIG.replace(ent_coef=ent_coef), CPU)
        assert record[2].item() == pytest.approx(
            policy.action_head.distribution.entropy(batch.action)[0].item()
        )
        assert bool(gradients(policy, loss)["action_head.distribution.log_std"].any()) == moves


# --- few active steps, or none ----------------------------------------------------------------


def idle_but(
    policy: ActorCritic, buffer: SequenceRolloutBuffer, *steps: tuple[int, int]
) -> SequenceRolloutBuffer:
    buffer.active.zero_()
    for step in steps:
        buffer.active[step] = True
    spoil(policy, buffer)
    return buffer


@EVERY_VARIANT
@pytest.mark.parametrize("absent", [False, True])
def test_a_rollout_without_active_steps_does_nothing(variant: str, absent: bool) -> None:
    policy = make_policy(**VARIANTS[variant])
    buffer = rollout(policy, absent=0.0)
    if absent:
        buffer.exists.zero_()
    idle_but(policy, buffer)
    before = weights(policy).clone()
    diagnostics = learned(policy, buffer, CONFIG.replace(refresh_hidden_state=True))
    assert torch.equal(weights(policy), before)
    assert diagnostics.updates == 0
    assert diagnostics.padding == 0
    values = diagnostics.to_dict()
    assert math.isnan(values.pop("explained_variance"))  # of nothing
    assert all(math.isfinite(x) for x in values.values())


@EVERY_VARIANT
def test_a_single_active_step_gives_no_nan(variant: str) -> None:
    policy = make_policy(**VARIANTS[variant])
    buffer = idle_but(policy, rollout(policy, absent=0.0), (10, 1))
    before = weights(policy).clone()
    diagnostics = learned(policy, buffer, CONFIG.replace(update_epochs=2))
    assert diagnostics.updates == 2
    assert torch.isfinite(weights(policy)).all()
    assert not torch.equal(weights(policy), before), "its value is still learned"
    assert diagnostics.policy_loss == pytest.approx(0, abs=1e-6), "no advantage over itself"


def test_a_row_that_is_never_active_counts_as_little_as_an_absent_one() -> None:
    results = []
    for absent in (False, True):
        policy = make_policy()
        buffer = rollout(policy)
        buffer.active[:, 3] = False
        if absent:
            buffer.exists[:, 3] = False
            spoil(policy, buffer)
        learned(policy, buffer)
        results.append(weights(policy))
    assert torch.equal(*results)


def test_a_mask_that_allows_nothing_in_a_step_that_counts_gives_no_nan() -> None:
    # Collection refuses such a step; a loss of NaN would be a far worse way to find out.
    policy = make_policy()
    buffer = rollout(policy, masked=True)
    assert buffer.action_mask is not None
    buffer.action_mask[tuple(buffer.active.nonzero()[0])] = False
    loss, record = ppo_loss(policy, [whole(buffer)], CONFIG, CPU)
    loss.backward()
    assert torch.isfinite(record[:3]).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in policy.parameters())


# --- burn-in ----------------------------------------------------------------------------------


@double()
def test_burn_in_refreshes_the_first_state_and_has_no_gradient() -> None:
    policy = make_policy(num_layers=2, share_encoders=False)
    f = make_flags(12, 1, reset=0.0)
    buffer, _ = collect(policy, f, max_seq_len=4, burn_in=2)
    jitter(policy)
    cuts, targets = buffer.sequences(), buffer.targets(True)
    assert len(cuts) == 3
    buffer.obs.requires_grad_()
    batch = buffer.batch(cuts, torch.tensor([1]), targets)  # steps 4..7, burnt in by 2 and 3
    loss, _ = ppo_loss(policy, [batch], CONFIG, CPU)
    (grad,) = torch.autograd.grad(loss, buffer.obs)
    assert grad.abs().sum((1, 2)).gt(0).tolist() == [False] * 4 + [True] * 4 + [False] * 4

    # It is the burn-in that is not differentiated, not one that does not happen.
    for t, matters in ((0, False), (1, False), (2, True), (3, True)):
        with torch.no_grad():
            changed = buffer.obs.clone()
            changed[t] += 1
        kept, buffer.obs = buffer.obs, changed
        other, _ = ppo_loss(policy, [buffer.batch(cuts, torch.tensor([1]), targets)], CONFIG, CPU)
        buffer.obs = kept
        assert (other.item() != loss.item()) == matters


# --- updates ----------------------------------------------------------------------------------


@EVERY_VARIANT
@pytest.mark.parametrize("max_grad_norm", [1e-3, 1e3])
def test_an_update_is_a_step_along_the_clipped_gradient(variant: str, max_grad_norm: float) -> None:
    """Plain gradient descent on one minibatch: the gradient, its clipping, and lr all show."""
    policy = make_policy(**VARIANTS[variant])
    buffer = rollout(policy)
    config = CONFIG.replace(update_epochs=1, batch_size=1000, max_grad_norm=max_grad_norm)
    loss, record = ppo_loss(policy, [whole(buffer)], config, CPU)
    grad = flat_gradient(policy, loss)
    before = weights(policy).clone()
    optimizer = torch.optim.SGD([flatten_parameters(policy.trained_parameters())], lr=77.0)
    said = ppo_update(
        policy,
        optimizer,
        buffer,
        config,
        config.coefficients(0)._replace(lr=0.5),
        torch.Generator(),
    )
    scale = min(1.0, max_grad_norm / float(grad.norm()))
    torch.testing.assert_close(weights(policy), before - 0.5 * scale * grad, rtol=1e-4, atol=1e-6)
    assert said.grad_norm == pytest.approx(float(grad.norm()), rel=1e-4)
    assert said.lr == optimizer.param_groups[0]["lr"] == 0.5
    assert [said.policy_loss, said.value_loss, said.entropy] == pytest.approx(
        record[:3].tolist(), rel=1e-3, abs=1e-5
    )


def test_learning_works_the_same_with_separate_parameters() -> None:
    results = []
    for shared in (True, False):
        policy = make_policy()
        buffer = rollout(policy)
        parameters = policy.trained_parameters()
        if shared:
            parameters = [flatten_parameters(parameters)]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        config = CONFIG.replace(batch_size=30)
        ppo_update(
            policy,
            optimizer,
            buffer,
            config,
            config.coefficients(0)._replace(lr=0.1),
            torch.Generator().manual_seed(0),
        )
        results.append(weights(policy))
    torch.testing.assert_close(*results)


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    def run(seed: int) -> Tensor:
        policy = make_policy()
        learned(policy, rollout(policy), CONFIG.replace(batch_size=20), seed=seed)
        return weights(policy)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_learning_leaves_the_rollout_as_it_is() -> None:
    policy = make_policy(previous_action=True)
    buffer = rollout(policy, burn_in=2, masked=True)
    before = copy.deepcopy(vars(buffer))
    learned(policy, buffer, CONFIG.replace(batch_size=20))
    for name, value in vars(buffer).items():
        if isinstance(value, Tensor):
            assert torch.equal(value, before[name]), name
    for ours, theirs in zip(buffer.hidden, before["hidden"], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("variant", ["lstm", "separate-box", "feed-forward"])
def test_updates_raise_the_probability_of_what_turned_out_well(variant: str) -> None:
    policy = make_policy(**VARIANTS[variant])
    buffer = rollout(policy)
    active = buffer.active
    error = (buffer.value - buffer.returns)[active].square().mean()
    learned(policy, buffer, CONFIG.replace(update_epochs=10, ent_coef=0.0), lr=3e-3)
    log_prob, value = replay(policy, buffer)
    both = torch.stack(((log_prob - buffer.log_prob)[active], buffer.advantage[active]))
    assert torch.corrcoef(both)[0, 1] > 0.1
    assert (value - buffer.returns)[active].square().mean() < error


def test_target_kl_stops_before_the_minibatch_that_exceeds_it() -> None:
    def run(**options: Any) -> tuple[Diagnostics, Tensor]:
        policy = make_policy()
        # One minibatch an epoch. The first has a KL of (but for rounding) zero.
        config = CONFIG.replace(batch_size=1000, **options)
        said = learned(policy, rollout(policy), config, lr=0.05)
        return said, weights(policy)

    endless, _ = run(update_epochs=6)
    assert (endless.updates, endless.epochs) == (6, 6)
    stopped, ours = run(update_epochs=6, target_kl=1e-4)
    assert (stopped.updates, stopped.epochs) == (1, 2)
    _, expected = run(update_epochs=1)
    assert torch.equal(ours, expected), "the offending minibatch is not learned from"
    lenient, _ = run(update_epochs=6, target_kl=1e6)
    assert (lenient.updates, lenient.epochs) == (6, 6)
    between, _ = run(update_epochs=6, target_kl=0.02)
    assert 1 < between.updates < 6


def test_target_kl_stops_in_the_middle_of_an_epoch() -> None:
    policy = make_policy()
    config = CONFIG.replace(batch_size=10, update_epochs=5, target_kl=1e-3)
    said = learned(policy, rollout(policy), config, lr=0.05)
    assert said.epochs == 1
    assert 1 <= said.updates < 8


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_an_error_and_leaves_the_weights(bad: float) -> None:
    policy = make_policy()
    buffer = rollout(policy)
    optimizer, before = adam(policy), weights(policy).clone()
    step = tuple(buffer.active.nonzero()[3])
    good, buffer.returns[step] = buffer.returns[step].clone(), bad
    with pytest.raises(FloatingPointError, match="expected a finite gradient"):
        ppo_update(
            policy,
            optimizer,
            buffer,
            CONFIG,
            CONFIG.coefficients(0)._replace(lr=1e-2),
            torch.Generator().manual_seed(0),
        )
    assert torch.equal(weights(policy), before)
    # Nothing of it lingers: the next call is as if it had not happened.
    buffer.returns[step] = good
    ppo_update(
        policy,
        optimizer,
        buffer,
        CONFIG,
        CONFIG.coefficients(0)._replace(lr=1e-2),
        torch.Generator().manual_seed(0),
    )
    untouched = make_policy()
    learned(untouched, rollout(untouched))
    assert torch.equal(weights(policy), weights(untouched))


def test_an_error_later_on_keeps_the_updates_before_it() -> None:
    policy = make_policy()
    buffer = rollout(policy)
    buffer.returns[tuple(buffer.active.nonzero()[3])] = math.nan
    with pytest.raises(FloatingPointError, match="weights are those before this step"):
        learned(policy, buffer, CONFIG.replace(batch_size=10))
    assert torch.isfinite(weights(policy)).all()


# --- diagnostics ------------------------------------------------------------------------------


@EVERY_VARIANT
def test_diagnostics_of_a_first_minibatch_are_sane(variant: str) -> None:
    policy = make_policy(**VARIANTS[variant])
    buffer = rollout(policy)
    said = learned(policy, buffer, CONFIG.replace(update_epochs=1, batch_size=1000), lr=1e-3)
    # The ratio is one, and normalised advantages have mean zero.
    assert said.approx_kl == pytest.approx(0, abs=1e-6)
    assert said.clip_fraction == 0
    assert said.policy_loss == pytest.approx(0, abs=1e-5)
    active = buffer.active
    value, returns = buffer.value[active].double(), buffer.returns[active].double()
    units = policy.value_head.units
    error = (value - returns) / (1.0 if units is None else units.deviation)
    assert said.value_loss == pytest.approx(0.5 * error.square().mean().item(), rel=1e-3)
    explained = 1 - (returns - value).var() / returns.var()
    assert said.explained_variance == pytest.approx(explained.item(), rel=1e-3)
    assert said.grad_norm > 0
    assert (said.updates, said.epochs, said.lr) == (1, 1, 1e-3)
    assert set(said.to_dict()) == set(Diagnostics.__dataclass_fields__)
    assert said.to_dict()["updates"] == 1


@settings(max_examples=examples(15))
@given(cuttings(), st.integers(1, 30), st.integers(1, 3))
def test_updates_epochs_and_padding_are_counted(
    case: tuple[Flags, int, int], batch_size: int, epochs: int
) -> None:
    """The share of padding of all epochs, from sequences cut by hand."""
    f, max_seq_len, burn_in = case
    policy = make_policy()
    buffer, _ = collect(policy, f, max_seq_len=max_seq_len, burn_in=burn_in)
    pieces = cut_by_hand(f, max_seq_len)
    config = CONFIG.replace(batch_size=batch_size, update_epochs=epochs)
    said = learned(policy, buffer, config, lr=1e-6, seed=3)
    lengths = torch.tensor([len(p.steps) for p in pieces], dtype=torch.int64)
    active = torch.tensor([len(p.active) for p in pieces], dtype=torch.int64)
    generator = torch.Generator().manual_seed(3)
    dealt = [
        [lengths[part] for part in rectangles(which, lengths)]
        for _ in range(epochs)
        for which in minibatches(active, batch_size, generator)
    ]
    assert said.updates == len(dealt)
    parts = [part for minibatch in dealt for part in minibatch]
    assert said.epochs == epochs
    computed = sum(int(part.max()) * len(part) for part in parts)
    own = sum(int(part.sum()) for part in parts)
    assert said.padding == pytest.approx(1 - own / computed if dealt else 0)


def test_diagnostics_are_means_over_the_updates() -> None:
    """Of those taken: replayed one by one with the same shuffles."""
    config = CONFIG.replace(batch_size=30, update_epochs=2)
    policy = make_policy()
    buffer = rollout(policy)
    said = learned(policy, buffer, config, lr=0.02, seed=5)

    again = make_policy()
    optimizer, generator = adam(again), torch.Generator().manual_seed(5)
    optimizer.param_groups[0]["lr"] = 0.02
    cuts, targets, records = buffer.sequences(), buffer.targets(True), []
    for _ in range(2):
        for which in minibatches(cuts.active, 30, generator):
            parts = [buffer.batch(cuts, part, targets) for part in rectangles(which, cuts.length)]
            by_hand = known_by_hand(again, CPU, config.ent_coef)
            loss, record = ppo_loss(again, parts, config, CPU, by_hand=by_hand)
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(
                optimizer.param_groups[0]["params"], config.max_grad_norm
            )
            optimizer.step()
            records.append([*record.tolist(), norm.item()])
    assert torch.equal(weights(policy), weights(again))
    mean = torch.tensor(records, dtype=torch.float64).mean(0).tolist()
    names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm")
    assert [said.to_dict()[name] for name in names] == pytest.approx(mean, rel=1e-4, abs=1e-6)
    assert said.updates == len(records)


# --- feed-forward -----------------------------------------------------------------------------


@double()
def test_a_feed_forward_policy_learns_as_if_from_a_flat_batch() -> None:
    """Sequences of length one: no padding, no states, and the order of time does not matter."""
    policy = make_policy(recurrent=False)
    buffer = rollout(policy)
    said = learned(policy, buffer, CONFIG.replace(update_epochs=1, batch_size=1000))
    assert said.padding == 0
    assert buffer.hidden == []

    policy = make_policy(recurrent=False)
    active = buffer.active
    obs, action = buffer.obs[active], buffer.action[active]  # [M, ...]
    state = policy.initial_state(len(obs))
    acted = policy.act(obs, None, state, None)
    log_prob = policy.action_head.distribution.log_prob(acted.dist_params, action)
    advantage = buffer.advantage[active]
    advantage = (advantage - advantage.mean()) / advantage.std(unbiased=False)
    ratio = (log_prob - buffer.log_prob[active]).exp()
    loss = (
        -(ratio * advantage).mean()
        + 0.5
        * CONFIG.vf_coef
        * (policy.value_of(acted.critic_features) - buffer.returns[active]).square().mean()
        - CONFIG.ent_coef * policy.action_head.distribution.entropy(acted.dist_params).mean()
    )
    grad = flat_gradient(policy, loss)
    assert said.grad_norm == pytest.approx(float(grad.norm()), rel=1e-6)


@pytest.mark.parametrize(
    "device",
    [
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
        )
    ],
)
@EVERY_VARIANT
def test_learning_on_another_device(variant: str, device: str) -> None:
    """Rollouts stay on the CPU; the policy, its updates and its refreshed states need not."""
    config = CONFIG.replace(batch_size=40, update_epochs=2, refresh_hidden_state=True)
    results = []
    for place in ("cpu", device):
        policy = make_policy(**VARIANTS[variant])
        buffer = rollout(policy, burn_in=2 if policy.memory else 0)
        policy.to(place)
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
        ppo_update(
            policy,
            optimizer,
            buffer,
            config,
            config.coefficients(0)._replace(lr=0.1),
            torch.Generator().manual_seed(0),
        )
        results.append(weights(policy).cpu())
    torch.testing.assert_close(*results, rtol=1e-2, atol=1e-3)
