"""Tests of `recurrent_rl.recurrent.growth`: origins of weights, by hand."""

import torch

from recurrent_rl.recurrent.growth import (
    FRESH,
    ZERO,
    gate_origins,
    largest,
    matrix_origins,
    most_useful,
    need_of_inputs,
    row_norms,
    same_origins,
    spread_origins,
    take,
)


def test_old_rows_read_nothing_of_new_columns_and_new_rows_read_what_they_like() -> None:
    # Old: 2 x 3. New: its second row and a new one; its third column, a new one, its first.
    rows, columns = torch.tensor([1, FRESH]), torch.tensor([2, FRESH, 0])
    origin = matrix_origins(rows, columns, 3)
    assert origin.tolist() == [[5, ZERO, 3], [FRESH, FRESH, FRESH]]
    old, fresh = torch.arange(6.0).view(2, 3) + 10, torch.full((2, 3), 0.5)
    assert take(origin, old, fresh).tolist() == [[15, 0, 13], [0.5, 0.5, 0.5]]


def test_stacked_gates_and_flattened_channels_follow_their_units() -> None:
    units = torch.tensor([2, FRESH, 0])
    assert gate_origins(units, 2, 3).tolist() == [2, FRESH, 0, 5, FRESH, 3]
    assert spread_origins(units, 2).tolist() == [4, 5, FRESH, FRESH, 0, 1]
    assert same_origins(3).tolist() == [0, 1, 2]


def test_growing_keeps_all_units_and_shrinking_the_best_in_their_order() -> None:
    useful = torch.tensor([3.0, 1.0, 4.0, 2.0])
    assert most_useful(useful, 6).tolist() == [0, 1, 2, 3, FRESH, FRESH]
    assert most_useful(useful, 4).tolist() == [0, 1, 2, 3]
    assert most_useful(useful, 2).tolist() == [0, 2]
    assert largest([1.0, 3.0, 2.0], 2) == [1, 2]
    assert largest([1.0, 1.0, 1.0], 2) == [0, 1]  # the first, of equals
    assert largest([1.0], 3) == [0]


def test_inputs_are_needed_as_much_as_weights_say() -> None:
    weight = torch.tensor([[3.0, 0.0], [4.0, 2.0]])
    assert need_of_inputs(weight, torch.ones(2)).tolist() == [5, 2]
    assert need_of_inputs(weight, torch.tensor([1.0, 0.0])).tolist() == [3, 0]
    assert row_norms([weight, torch.tensor([[4.0], [4.0]])]).tolist() == [5, 6]
