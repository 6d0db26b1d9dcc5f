"""Tests of `recurrent_rl.functional.targets`: what decisions have led to, against plain loops."""

import math
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.helpers import SEEDS, double
from torch import Tensor

from recurrent_rl.functional.targets import NStep, n_step, rescaled, unscaled

# --- n-step targets against a loop ------------------------------------------------------------


@dataclass
class Window:
    """The fields that ``n_step`` reads, [W, R] each, in its order."""

    reward: Tensor
    active: Tensor
    exists: Tensor
    start: Tensor
    terminated: Tensor
    truncated: Tensor
    final: Tensor

    @classmethod
    def draw(cls, seed: int) -> "Window":
        """Any window: what may happen, more or less often, and what may not as well."""
        random = np.random.default_rng(seed)
        shape = random.integers(1, 13), random.integers(1, 4)

        def some(share: float) -> Tensor:
            likely = random.choice([share, 0.5, round(share)])
            return torch.from_numpy(random.random(shape) < likely)

        reward = torch.from_numpy(random.normal(size=shape))
        return cls(reward, some(0.8), some(0.85), some(0.1), some(0.1), some(0.1), some(0.1))

    @classmethod
    def of_one(cls, places: str, reward: list[float]) -> "Window":
        """One row: s start, . a decision, - seen without one, _ nothing seen, f final; then ends.

        A letter t, l or b behind a place says that its step terminates, is cut, or both.
        """
        rows: list[list[bool]] = []
        for mark in places:
            if mark in "tlb":
                rows[-1][3:5] = [mark in "tb", mark in "lb"]
                continue
            seen, chosen = mark != "_", mark in "s."
            rows.append([chosen, seen, mark == "s", False, False, mark == "f"])
        flags = torch.tensor(rows).T[..., None]
        return cls(torch.tensor(reward, dtype=torch.float64)[:, None], *flags)

    def n_step(self, gamma: float, **options: int) -> NStep:
        return n_step(*(getattr(self, field.name) for field in fields(self)), gamma, **options)


def by_hand(window: Window, row: int, t: int, gamma: float, n: int) -> tuple[float, float, int]:
    """Reward, discount and place of one decision; NaN where it is not known."""
    w = {field.name: getattr(window, field.name)[:, row].tolist() for field in fields(window)}
    places, found = len(w["reward"]), (math.nan, math.nan, t)
    if not (w["active"][t] and w["exists"][t]):
        return found
    total, discount, decisions = 0.0, 1.0, 0
    for k in range(t, places):
        total += discount * w["reward"][k]
        discount *= 1 if w["final"][k] else gamma
        if w["terminated"][k]:
            return total, 0.0, k
        is_last = k + 1 == places
        if w["truncated"][k]:
            if not is_last and w["exists"][k + 1] and not w["start"][k + 1]:
                return total, discount, k + 1
            return total, discount, max(i for i in range(k + 1) if w["exists"][i])
        if is_last or w["start"][k + 1]:
            break
        if w["active"][k + 1] and w["exists"][k + 1]:
            found, decisions = (total, discount, k + 1), decisions + 1
            if decisions == n:
                break
    return found


@given(seed=SEEDS, gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]), n=st.integers(1, 6), cut=SEEDS)
@example(seed=0, gamma=1.0, n=1000, cut=0)
def test_targets_are_those_of_a_loop(seed: int, gamma: float, n: int, cut: int) -> None:
    window = Window.draw(seed)
    places, rows = window.reward.shape
    random = np.random.default_rng(cut)
    first = int(random.integers(places))
    length = int(random.integers(1, places - first + 1))
    ours = window.n_step(gamma, steps=n, first=first, length=length)
    assert ours.known.shape == (length, rows)
    for t in range(length):
        for row in range(rows):
            reward, discount, place = by_hand(window, row, first + t, gamma, n)
            assert bool(ours.known[t, row]) == (not math.isnan(reward))
            if math.isnan(reward):
                reward, discount = 0.0, 0.0
            assert ours.reward[t, row].item() == pytest.approx(reward, abs=1e-12)
            assert ours.discount[t, row].item() == pytest.approx(discount, abs=1e-12)
            assert int(ours.place[t, row]) == place


@given(seed=SEEDS, n=st.integers(1, 4))
def test_garbage_that_nothing_leads_to_changes_no_bit(seed: int, n: int) -> None:
    window = Window.draw(seed)
    clean = window.n_step(0.9, steps=n)
    if bool(clean.known.any()):  # rewards before anybody decided anything lead nowhere
        decided = (window.active & window.exists).cummax(0).values
        window.reward[~decided] = math.nan
    for ours, theirs in zip(window.n_step(0.9, steps=n), clean, strict=True):
        assert torch.equal(ours, theirs)


# --- golden values ----------------------------------------------------------------------------

GOLDEN = [
    # One step: each decision is worth its reward, and goes on at the next.
    ("s...", [1, 2, 3, 4], 1, [1, 2, 3, None], [0.5, 0.5, 0.5, None], [1, 2, 3, None]),
    # Two steps, fewer where the window ends.
    ("s...", [1, 2, 3, 4], 2, [2, 3.5, 3, None], [0.25, 0.25, 0.5, None], [2, 3, 3, None]),
    # A terminal state is worth nothing, whatever follows.
    ("s.ts.", [1, 2, 3, 4], 3, [2, 2, 3, None], [0, 0, 0.5, None], [1, 1, 3, None]),
    # A limit: the value of what the life ended with, in a place of its own.
    ("s.lfs", [1, 2, 9, 4], 3, [2, 2, None, None], [0.25, 0.5, None, None], [2, 2, None, None]),
    # The same where nobody acts there, but where it takes a step (next-step autoreset).
    ("s.l-s", [1, 2, 0, 4], 3, [2, 2, None, None], [0.25, 0.5, None, None], [2, 2, None, None]),
    # A limit whose observation was not shown: the value of what was seen last.
    ("s.ls", [1, 2, 4], 3, [2, 2, None], [0.25, 0.5, None], [1, 1, None]),
    # Both flags: a terminal state.
    ("s.bf", [1, 2, 9], 3, [2, 2, None], [0, 0, None], [1, 1, None]),
    # Rewards while others act belong to the decision before; time goes on, discounted.
    ("s__.", [1, 2, 4, 8], 1, [3, None, None, None], [0.125, None, None, None], [3] + [None] * 3),
    # Another agent's final observation in between takes no time.
    ("sf.", [1, 0, 4], 1, [1, None, None], [0.5, None, None], [2, None, None]),
    # A life that breaks off without an end: nobody knows.
    ("s.s.", [1, 2, 3, 4], 1, [1, None, 3, None], [0.5, None, 0.5, None], [1, None, 3, None]),
]


@pytest.mark.parametrize(("places", "reward", "n", "total", "discount", "place"), GOLDEN)
def test_golden_targets(
    places: str,
    reward: list[float],
    n: int,
    total: list[float | None],
    discount: list[float | None],
    place: list[int | None],
) -> None:
    ours = Window.of_one(places, reward).n_step(0.5, steps=n)
    for t, known in enumerate(ours.known[:, 0].tolist()):
        assert known == (total[t] is not None)
        if known:
            got = [x[t, 0].item() for x in (ours.reward, ours.discount, ours.place)]
            assert got == [total[t], discount[t], place[t]]


# --- rescaled values --------------------------------------------------------------------------


@double()
def test_rescaling_is_undone() -> None:
    value = torch.tensor([-1e6, -100.0, -1.0, -1e-3, 0.0, 1e-6, 3.0, 1e4])
    torch.testing.assert_close(unscaled(rescaled(value)), value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rescaled(torch.tensor([3.0, -8.0])), torch.tensor([1.003, -2.008]))
