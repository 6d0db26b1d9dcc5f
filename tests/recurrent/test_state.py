"""Tests of `recurrent_rl.recurrent.state`: rows selected, reset and mixed."""

import numpy as np
import pytest
import torch

from recurrent_rl.recurrent.state import HiddenState


def numbered_state() -> HiddenState:
    """Two tensors [2, 4, 3] in which row n holds n + 1 and -(n + 1)."""
    h = torch.arange(1.0, 5.0)[None, :, None].expand(2, 4, 3).clone()
    return HiddenState([h, -h], 4)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (2, [3]),
        (-1, [4]),
        (np.int64(1), [2]),
        (slice(1, 3), [2, 3]),
        (slice(None, None, 2), [1, 3]),
        ([3, 0], [4, 1]),
        ([], []),
        (np.array([1, 1]), [2, 2]),
        (torch.tensor([2, 3]), [3, 4]),
        (torch.tensor([True, False, False, True]), [1, 4]),
        (np.array([False, True, False, False]), [2]),
        ([True, True, False, False], [1, 2]),
    ],
)
def test_hidden_state_selects_rows(rows: object, expected: list[int]) -> None:
    chosen = numbered_state()[rows]  # type: ignore[index]
    assert chosen.rows == len(expected)
    for tensor, sign in zip(chosen.tensors, (1, -1), strict=True):
        assert tensor.shape == (2, len(expected), 3)
        assert tensor[0, :, 0].tolist() == [sign * n for n in expected]


def test_hidden_state_resets_and_mixes_rows_without_touching_itself() -> None:
    state, which = numbered_state(), torch.tensor([True, False, True, False])
    assert state.reset(which).tensors[1][1, :, 2].tolist() == [0, -2, 0, -4]
    mixed = state.where(which, state.reset(torch.ones(4, dtype=torch.bool)))
    assert mixed.tensors[0][0, :, 0].tolist() == [1, 0, 3, 0]
    assert mixed.rows == 4
    assert torch.equal(state.tensors[0], numbered_state().tensors[0])


MASKS = [
    [True, False, True, False],
    (True, False, True, False),
    np.array([True, False, True, False]),
    np.array([False, True, False, True])[::-1],  # torch knows no negative strides
    [np.True_, np.False_, np.True_, np.False_],
    torch.tensor([True, False, True, False]),
]


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: type(mask).__name__)
def test_masks_come_in_any_form(mask: object) -> None:
    state = numbered_state()
    assert state.reset(mask).tensors[0][0, :, 0].tolist() == [0, 2, 0, 4]  # type: ignore[arg-type]
    mixed = state.where(mask, state[[3, 3, 3, 3]])  # type: ignore[arg-type]
    assert mixed.tensors[0][0, :, 0].tolist() == [1, 4, 3, 4]
    assert state[mask].tensors[0][0, :, 0].tolist() == [1, 3]  # type: ignore[index]


@pytest.mark.parametrize("flag", [True, np.True_, np.array(True), torch.tensor(True)])
def test_one_flag_is_a_mask_of_one_row(flag: object) -> None:
    one = numbered_state()[2]
    assert (one.reset(flag).tensors[0] == 0).all()  # type: ignore[arg-type]
    assert one[flag].rows == 1  # type: ignore[index]
    for use in (numbered_state().reset, numbered_state().__getitem__):
        with pytest.raises(ValueError, match=r"^rows: expected a bool mask \[N\] = \[4\], got"):
            use(flag)  # type: ignore[arg-type]


@pytest.mark.parametrize("mask", [[True] * 3, np.ones(5, bool), torch.ones(4, 1).bool(), []])
def test_masks_of_another_length_are_refused(mask: object) -> None:
    state = numbered_state()
    for use in (state.reset, lambda rows: state.where(rows, state)):
        with pytest.raises(ValueError, match=r"^rows: expected a bool mask \[N\] = \[4\], got"):
            use(mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [[1, 0, 0, 1], np.zeros(4), torch.ones(4), 0, "yes", None])
def test_a_mask_must_be_of_bools(flags: object) -> None:
    """Indices in a mask's place, or flags in that of indices, would zero other rows in silence."""
    with pytest.raises(TypeError, match=r"^rows: expected .*a bool mask \[N\]"):
        numbered_state().reset(flags)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "error"),
    [(4, IndexError), ([-5], IndexError), ([0.5], TypeError), ("a", TypeError), (None, TypeError)],
)
def test_what_selects_no_row_is_refused(rows: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^rows: expected indices"):
        numbered_state()[rows]  # type: ignore[index]


def test_only_states_of_the_same_shapes_mix() -> None:
    with pytest.raises(ValueError, match=r"^other: expected a state like HiddenState\(rows=4"):
        numbered_state().where([True] * 4, numbered_state()[:3])


def test_a_reset_forgets_even_nan() -> None:
    # NaN * 0 is NaN: a reset by multiplication would keep it for good.
    state = HiddenState([torch.full((1, 2, 3), torch.nan)], 2)
    assert (state.reset(torch.tensor([True, True])).tensors[0] == 0).all()


def test_a_cloned_hidden_state_shares_neither_memory_nor_gradients() -> None:
    h = torch.ones(1, 2, 3, requires_grad=True)
    state = HiddenState([h * 2], 2)
    copy = state.clone()
    assert not copy.tensors[0].requires_grad
    copy.tensors[0].zero_()
    assert (state.tensors[0] == 2).all()
    assert state.to("cpu").rows == 2


def test_hidden_state_of_a_policy_without_memory_still_counts_rows() -> None:
    state = HiddenState([], 5)
    assert state[2].rows == 1
    assert state[torch.tensor([True, False, True, False, False])].rows == 2
    assert state.reset(torch.ones(5, dtype=torch.bool)).rows == 5
    assert repr(state) == "HiddenState(rows=5, shapes=[])"
    assert repr(numbered_state()) == "HiddenState(rows=4, shapes=[[2, 4, 3], [2, 4, 3]])"
