"""What users say of an episode, checked and brought into one form before it is kept.

Letters: T steps of an episode, n choices.
"""

from typing import Any

import numpy as np
from torch import Tensor

from recurrent_rl.spaces.actions import ActionCodec
from recurrent_rl.spaces.array import Array, as_array
from recurrent_rl.spaces.layout import ObservationLayout
from recurrent_rl.spaces.masks import check_mask, flat_mask, part_mask
from recurrent_rl.validation import shown


def checked_actions(codec: ActionCodec, actions: Any) -> Array:
    """Return an episode's actions in the environment's form, [T, *env_shape].

    Raises:
        ValueError: none, another shape, or an action that is not in the space; names the step.

    """
    try:
        array = as_array(actions)
    except ValueError:
        raise ValueError(
            f"actions: expected one action of {codec.space} for each step, got actions of "
            f"different shapes"
        ) from None
    if array.shape[1:] == (1,) and codec.env_shape == ():
        array = array[:, 0]
    if array.ndim == 0 or array.shape[1:] != codec.env_shape or not len(array):
        raise ValueError(
            f"actions: expected shape [T, *shape] = {['T', *codec.env_shape]}, T >= 1, one action "
            f"of {codec.space} for each step, got {list(array.shape)}"
        )
    if not _all_inside(codec, array):
        for t, action in enumerate(array):
            try:
                codec.check(action)
            except ValueError as error:
                raise ValueError(f"actions[{t}]: {error}") from None
    return array.astype(codec.env_dtype)


def _all_inside(codec: ActionCodec, array: Array) -> bool:
    """Whether all actions are in the space, by three looks rather than T."""
    if array.dtype.kind not in "biuf":
        return False
    whole = codec.env_dtype.kind in "iub" and array.dtype.kind == "f"
    if whole and not np.equal(array, np.floor(array)).all():
        return False
    try:  # each space is an interval in each of its numbers
        codec.check(array.min(0))
        codec.check(array.max(0))
    except ValueError:
        return False
    return True


def checked_observations(
    layout: ObservationLayout, observations: Any, steps: int, *, masked: bool
) -> tuple[Tensor, Any]:
    """Return what was seen in stored form, [T, *shape], and the masks that came with it, or None.

    Args:
        layout: of the space.
        observations: a list with one for each step, or arrays [T, *shape] in the structure of the
            space; what was seen after the last action may be there and is left out.
        steps: T.
        masked: masks may come with them.

    Raises:
        TypeError: not of the space's structure.
        ValueError: wrong shapes, numbers that are not finite, indices out of range.

    """
    if isinstance(observations, list) and (layout.nested or _are_mappings(observations)):
        _check_count(len(observations), steps)
        each = [part_mask(one) if masked else (one, None) for one in observations[:steps]]
        stored = np.concatenate([_alone(layout, one, t) for t, (one, _) in enumerate(each)])
        masks = [mask for _, mask in each]
        without = [t for t, mask in enumerate(masks) if mask is None]
        if without and len(without) < steps:
            raise ValueError(
                f"observations: expected an action_mask with each or with none, got none with "
                f"observations[{without[0]}]"
            )
        found = None if without else np.stack([flat_mask(mask) for mask in masks])
        return layout.tensor(stored), found
    value, mask = part_mask(observations) if masked else (observations, None)
    value, rows, single = layout.batched(value)
    if single:
        raise ValueError(
            "observations: expected those of an episode's steps, [T, *shape], got a single one"
        )
    stored = layout.check(value, rows)
    _check_count(rows, steps)
    # A copy: what was given stays the user's.
    return layout.tensor(stored[:steps].copy()), None if mask is None else flat_mask(mask)[:steps]


def _are_mappings(observations: list[Any]) -> bool:
    return any(hasattr(one, "keys") for one in observations)


def _check_count(count: int, steps: int) -> None:
    if count not in (steps, steps + 1):
        raise ValueError(
            f"observations: expected one for each of the {steps} actions, which was seen before "
            f"it, and at most one more behind the last, got {count}"
        )


def _alone(layout: ObservationLayout, observation: Any, step: int) -> Array:
    try:
        value, rows, _ = layout.batched(observation)
        if rows != 1:
            raise ValueError(f"observation: expected a single one of {layout.space}, got {rows}")
        return layout.check(value, 1)
    except (TypeError, ValueError) as error:
        error.add_note(f"in observations[{step}]")
        raise


def checked_mask(codec: ActionCodec, mask: Any, action: Array, weight: Array) -> Array | None:
    """Return which actions were allowed, bool [T, n], or None.

    Raises:
        ValueError: another shape, masks for actions that are no choices, or an action that was
            demonstrated although its mask forbids it.

    """
    if mask is None:
        return None
    counts = weight > 0
    allowed = check_mask(mask, codec.space, len(action), asked=counts, name="step {}".format)
    chosen = codec.encode(codec.from_env(action)).bool().numpy()
    wrong = np.flatnonzero((chosen & ~allowed).any(-1) & counts)
    if len(wrong):
        raise ValueError(
            f"actions[{wrong[0]}]: expected one that its action mask allows, got "
            f"{action[wrong[0]]}, which it forbids; leave such steps out of the lesson by a weight "
            f"of 0, or correct the masks"
        )
    return allowed


def checked_numbers(name: str, value: Any, steps: int, *, least: float = -np.inf) -> Array:
    """Return a number for each step, float32 [T].

    Args:
        name: for errors.
        value: one number, or [T].
        steps: T.
        least: what they must not be below.

    Raises:
        ValueError: another shape, or numbers that are not finite (as float32) or too low.

    """
    array = as_array(value)
    if array.shape not in ((), (steps,)):
        raise ValueError(
            f"{name}: expected a number for each step, shape [T] = [{steps}], got "
            f"{list(array.shape)}"
        )
    usual = array.dtype.kind in "biuf"
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32) if usual else np.full((), np.nan, np.float32)
    if not np.isfinite(numbers).all() or (numbers < least).any():
        bound = "" if least == -np.inf else f" of at least {least:g}"
        raise ValueError(f"{name}: expected finite numbers{bound}, got {shown(value)}")
    return np.broadcast_to(numbers, (steps,)).copy()
