"""Tests of `recurrent_rl.algorithms.unroll`: stored sequences run through a policy again."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import collect, double, jitter, make_policy, spoil, walk
from support.pairs import examples
from support.updates import (
    CASES,
    CONFIG,
    EVERY_VARIANT,
    VARIANTS,
    Case,
    collected,
    learned,
    rollout,
)
from torch import Tensor

from recurrent_rl.algorithms.unroll import refresh_hidden_state, replay
from recurrent_rl.networks.policy import ActorCritic

# --- ratio one --------------------------------------------------------------------------------


@settings(max_examples=examples(30))
@given(CASES, st.booleans())
@double()
def test_ratio_one_before_the_first_update(case: Case, masked: bool) -> None:
    """Replaying gives what stepping gave, for any resets, absences, L, burn-in, and encoders."""
    policy, buffer = collected(case, masked=masked)
    log_prob, value = replay(policy, buffer)
    active = buffer.active
    torch.testing.assert_close(log_prob[active], buffer.log_prob[active], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(value[active], buffer.value[active], rtol=1e-9, atol=1e-9)
    assert log_prob[~active].isnan().all()
    assert value[~active].isnan().all()


@EVERY_VARIANT
@pytest.mark.parametrize("burn_in", [0, 3])
def test_ratio_one_in_single_precision(variant: str, burn_in: int) -> None:
    policy = make_policy(**VARIANTS[variant])
    buffer = rollout(policy, steps=100, burn_in=burn_in if policy.memory else 0)
    log_prob, value = replay(policy, buffer)
    active = buffer.active
    torch.testing.assert_close(log_prob[active], buffer.log_prob[active], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(value[active], buffer.value[active], rtol=1e-4, atol=1e-4)


@double()
def test_moved_weights_break_ratio_one() -> None:
    """The invariant above is not one that anything would satisfy."""
    policy = make_policy()
    buffer = rollout(policy)
    log_prob, _ = replay(jitter(policy), buffer)
    assert not torch.allclose(log_prob[buffer.active], buffer.log_prob[buffer.active], atol=0.01)


def test_masks_are_applied_again_in_learning() -> None:
    policy = make_policy()
    buffer = rollout(policy, masked=True)
    with_mask, _ = replay(policy, buffer)
    active = buffer.active
    torch.testing.assert_close(with_mask[active], buffer.log_prob[active], rtol=1e-4, atol=1e-4)
    assert buffer.action_mask is not None
    buffer.action_mask.fill_(True)
    without, _ = replay(policy, buffer)
    assert (without[active] < with_mask[active] - 1e-3).any()


# --- burn-in ----------------------------------------------------------------------------------


@settings(max_examples=examples(20))
@given(CASES)
@double()
def test_burn_in_joins_sequences_as_if_they_were_one(case: Case) -> None:
    """From states that are exact, for any resets and absences on the way."""
    (f, _, _), variant, seed = case
    if not VARIANTS[variant].get("recurrent", True) or f.shape[0] < 2:
        return
    steps = f.shape[0]
    longest = steps - steps // 2
    policy = make_policy(seed=seed % 1000, **VARIANTS[variant])
    buffer, initial = collect(policy, f, max_seq_len=longest, burn_in=longest - 1, seed=seed)
    times = buffer.state_at
    jitter(policy)
    memory = walk(policy, buffer, initial).memory
    for i, stored in enumerate(buffer.hidden):
        stored[:] = torch.stack([memory[t][i].transpose(0, 1) for t in times])
    reference, _ = collect(policy, f, max_seq_len=steps, seed=seed)
    for i, stored in enumerate(reference.hidden):
        stored[0] = initial.tensors[i].transpose(0, 1)
    for name in ("obs", "action", "extra", "action_mask"):
        setattr(reference, name, getattr(buffer, name))
    for ours, expected in zip(replay(policy, buffer), replay(policy, reference), strict=True):
        torch.testing.assert_close(ours[f.active], expected[f.active], rtol=1e-9, atol=1e-9)


# --- refreshed states -------------------------------------------------------------------------


@settings(max_examples=examples(20))
@given(CASES)
@double()
def test_refreshed_states_are_those_that_collecting_with_the_new_weights_would_store(
    case: Case,
) -> None:
    (f, max_seq_len, burn_in), variant, seed = case
    policy = make_policy(seed=seed % 1000, **VARIANTS[variant])
    if not policy.memory:
        max_seq_len, burn_in = 1, 0
    buffer, initial = collect(policy, f, max_seq_len=max_seq_len, burn_in=burn_in, seed=seed)
    old = [h.clone() for h in buffer.hidden]
    refresh_hidden_state(policy, buffer)
    for ours, stored in zip(buffer.hidden, old, strict=True):
        torch.testing.assert_close(ours, stored, rtol=1e-9, atol=1e-11)

    jitter(policy)
    memory = walk(policy, buffer, initial).memory
    spoil(policy, buffer)
    refresh_hidden_state(policy, buffer)
    for i, stored in enumerate(buffer.hidden):
        assert torch.equal(stored[0], old[i][0]), "the first is where the rollout began"
        expected = torch.stack([memory[t][i].transpose(0, 1) for t in buffer.state_at])
        torch.testing.assert_close(stored, expected, rtol=1e-9, atol=1e-11)


def test_states_are_refreshed_before_each_epoch_but_the_first() -> None:
    def states_after(epochs: int, refresh: bool) -> tuple[Tensor, Tensor, ActorCritic, Any]:
        policy = make_policy()
        buffer = rollout(policy)
        before = buffer.hidden[0].clone()
        learned(policy, buffer, CONFIG.replace(update_epochs=epochs, refresh_hidden_state=refresh))
        return before, buffer.hidden[0], policy, buffer

    for epochs, refresh in ((1, True), (4, False)):
        before, after, *_ = states_after(epochs, refresh)
        assert torch.equal(before, after)
    before, after, _, _ = states_after(2, refresh=True)
    assert not torch.equal(before, after)
    # What the second epoch used: the weights after the first.
    _, _, policy, buffer = states_after(1, refresh=False)
    refresh_hidden_state(policy, buffer)
    assert torch.equal(buffer.hidden[0], after)


def test_variants_cover_what_they_are_meant_to() -> None:
    """That no later edit quietly drops an option from all the properties above."""
    policies = [make_policy(**variant) for variant in VARIANTS.values()]
    assert {len(p.encoders) for p in policies} == {1, 2}
    assert {p.memory for p in policies} == {0, 1, 2, 4}
    assert {p.extra.action > 0 for p in policies} == {True, False}
    assert {p.extra.reward for p in policies} == {True, False}
    assert {k for k, _ in itertools.chain(*(p.state_shapes for p in policies))} == {1, 2}
