"""Demonstrations are checked where they come in, and come back from a file as they were."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from support.spaces_of import samples

from recurrent_rl import PPO, CheckpointError, Demonstrations

SEEN, DONE = Box(-1, 1, (2,)), Discrete(3, start=1)


def empty(observation: Any = SEEN, action: Any = DONE) -> Demonstrations:
    return Demonstrations(observation, action)


SPACES: dict[str, tuple[Any, Any]] = {
    "numbers": (SEEN, DONE),
    "index, numbers": (Discrete(4, start=2), Box(-2, 3, (2, 2))),
    "bytes, bits": (Box(0, 255, (4, 4, 1), np.uint8), MultiBinary((2, 2))),
    "nested, components": (
        Dict({"a": Box(-1, 1, (2,)), "b": Tuple([Discrete(3), MultiBinary(2)])}),
        MultiDiscrete([2, 3], start=[1, 0]),
    ),
    "tuple, whole numbers": (Tuple([Box(-1, 1, (1,)), Discrete(2)]), Box(0, 9, (2,), np.int16)),
}


def step_of(observations: Any, t: int) -> Any:
    if isinstance(observations, dict):
        return {key: step_of(part, t) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(step_of(part, t) for part in observations)
    return observations[t]


def drawn(space: Any, count: int) -> np.ndarray:
    space.seed(1)
    return np.stack([space.sample() for _ in range(count)])


@pytest.mark.parametrize("name", SPACES)
def test_arrays_and_lists_are_the_same_and_are_kept(name: str, tmp_path: Path) -> None:
    seen, done = SPACES[name]
    observations, actions = samples(seen, (6,), 0), drawn(done, 6)
    shown = empty(seen, done)
    shown.add(observations, actions, weights=[1, 0, 2, 1, 1, 1], rewards=np.arange(6), agent="a_0")
    shown.add([step_of(observations, t) for t in range(6)], list(actions))
    shown.add([step_of(observations, t) for t in range(6)], actions[:5])  # one more behind the last
    first, second, third = shown.episodes
    assert torch.equal(first.observation, second.observation)
    assert torch.equal(first.observation[:5], third.observation)
    np.testing.assert_array_equal(first.action, second.action)
    assert first.action.dtype == done.dtype
    assert shown.steps == 17
    assert shown.returns[0] == 15
    assert np.isnan(shown.returns[1:]).all()
    shown.save(tmp_path / "shown.pt")
    loaded = Demonstrations.load(tmp_path / "shown.pt")
    assert (loaded.observation_space, loaded.action_space) == (seen, done)
    for ours, theirs in zip(shown.episodes, loaded.episodes, strict=True):
        for field in ("observation", "action", "mask", "weight", "reward", "agent"):
            one, other = getattr(ours, field), getattr(theirs, field)
            assert type(one) is type(other)
            if one is not None:
                np.testing.assert_array_equal(one, other)


def test_masks_beside_and_within_observations(tmp_path: Path) -> None:
    masks = np.array([[1, 1, 0], [0, 1, 0]])
    inside = Dict({"observation": SEEN, "action_mask": MultiBinary(3)})
    shown = empty(inside)
    assert shown.observation_space == SEEN
    seen = np.zeros((2, 2))
    shown.add(seen, [1, 2], action_masks=masks)
    shown.add({"observation": seen, "action_mask": masks}, [1, 2])
    shown.add([{"observation": seen[t], "action_mask": masks[t]} for t in range(2)], [1, 2])
    shown.add(seen, [1, 2])
    shown.save(tmp_path / "shown.pt")
    *with_masks, without = Demonstrations.load(tmp_path / "shown.pt").episodes
    assert without.mask is None
    for episode in with_masks:
        np.testing.assert_array_equal(episode.mask, masks.astype(bool))
    components = empty(SEEN, MultiDiscrete([2, 2]))
    components.add(seen, [[0, 1], [1, 1]], action_masks=(np.ones((2, 2)), masks[:, 1:] | 1))
    components.add(
        [{"observation": x, "action_mask": (np.ones(2), np.ones(2))} for x in seen], [[0, 1]] * 2
    )


def test_what_is_given_stays_the_users() -> None:
    seen, done = np.zeros((2, 2), np.float32), np.ones(2, np.int64)
    shown = empty()
    shown.add(seen, done)
    seen += 1
    done += 1
    assert float(shown.episodes[0].observation.sum()) == 0
    assert shown.episodes[0].action.tolist() == [1, 1]


WRONG: dict[str, tuple[Callable[[Demonstrations], Any], str]] = {
    "an action outside": (
        lambda d: d.add(np.zeros((3, 2)), [1, 4, 2]),
        r"^actions\[1\]: expected an action in Discrete\(3, start=1\), got",
    ),
    "a fraction": (lambda d: d.add(np.zeros((3, 2)), [1, 2, 1.5]), r"^actions\[2\]: .*whole"),
    "not a number": (lambda d: d.add(np.zeros((1, 2)), [np.nan]), r"^actions\[0\]: "),
    "text": (lambda d: d.add(np.zeros((1, 2)), ["left"]), r"^actions\[0\]: expected numbers"),
    "one action": (lambda d: d.add(np.zeros((1, 2)), 1), r"^actions: expected shape \[T"),
    "no action": (lambda d: d.add(np.zeros((1, 2)), []), r"^actions: expected shape \[T"),
    "actions of two numbers": (lambda d: d.add(np.zeros((2, 2)), [[1, 1]] * 2), r"^actions: exp"),
    "actions of two shapes": (lambda d: d.add(np.zeros((2, 2)), [[1], [1, 1]]), r"different shap"),
    "too few observations": (lambda d: d.add(np.zeros((2, 2)), [1] * 3), r"each of the 3 actions"),
    "too many": (lambda d: d.add(np.zeros((5, 2)), [1] * 3), r"each of the 3 actions"),
    "one observation": (lambda d: d.add(np.zeros(2), [1]), r"got a single one"),
    "observations of another shape": (lambda d: d.add(np.zeros((2, 3)), [1] * 2), r"observation"),
    "an observation that is not finite": (
        lambda d: d.add(np.full((2, 2), np.inf), [1] * 2),
        r"observation: expected finite",
    ),
    "a negative weight": (
        lambda d: d.add(np.zeros((2, 2)), [1] * 2, weights=[1, -1]),
        r"^weights: expected finite numbers of at least 0",
    ),
    "weights of another shape": (
        lambda d: d.add(np.zeros((2, 2)), [1] * 2, weights=[1] * 3),
        r"^weights: expected a number for each step, shape \[T\] = \[2\], got \[3\]",
    ),
    "a reward that is not finite": (
        lambda d: d.add(np.zeros((2, 2)), [1] * 2, rewards=[0, np.nan]),
        r"^rewards: expected finite",
    ),
    "a forbidden action": (
        lambda d: d.add(np.zeros((2, 2)), [1, 2], action_masks=[[1, 1, 1], [1, 0, 1]]),
        r"^actions\[1\]: expected one that its action mask allows, got 2",
    ),
    "nothing allowed": (
        lambda d: d.add(np.zeros((2, 2)), [1, 2], action_masks=[[1, 1, 1], [0, 0, 0]]),
        r"^action_mask: expected at least one allowed action, got none from step 1",
    ),
    "masks here and there": (
        lambda d: d.add([{"observation": [0, 0], "action_mask": [1] * 3}, [0, 0]], [1, 1]),
        r"none with observations\[1\]",
    ),
    "nothing to save": (lambda d: d.save("nowhere"), "^save: expected at least one"),
    "others' spaces": (lambda d: d.extend(empty(SEEN, Discrete(3))), "^others: expected the act"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    do, message = WRONG[name]
    shown = empty()
    with pytest.raises(ValueError, match=message):
        do(shown)
    assert len(shown) == 0


def test_the_wrong_kind_is_named() -> None:
    with pytest.raises(TypeError, match=r"^observation_space: expected a gymnasium space"):
        Demonstrations(2, DONE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^agent: expected a name"):
        empty().add(np.zeros((1, 2)), [1], agent=3)  # type: ignore[arg-type]
    nested = empty(Dict({"a": SEEN}))
    with pytest.raises(TypeError, match=r"expected"):
        nested.add([{"b": np.zeros(2)}], [1])


def test_what_does_not_count_may_be_forbidden() -> None:
    shown = empty()
    mask = [[1, 1, 1], [0, 0, 0], [1, 0, 1]]
    shown.add(np.zeros((3, 2)), [1, 2, 2], action_masks=mask, weights=[1, 0, 0])
    assert shown.steps == 3


def test_some_and_more() -> None:
    shown = empty()
    for reward in (0.0, 1.0, 2.0):
        shown.add(np.zeros((2, 2)), [1, 1], rewards=[0, reward])
    good = shown.where(lambda episode: episode.total_reward > 0)
    assert good.returns.tolist() == [1, 2]
    good.extend(shown)
    assert (len(good), len(shown)) == (5, 3)
    assert repr(good) == "Demonstrations(5 episodes, 10 steps, mean return 1.2)"


def test_other_files_are_named(tmp_path: Path) -> None:
    PPO(SEEN, DONE, recurrent=False).save_checkpoint(tmp_path / "agent.pt")
    with pytest.raises(CheckpointError, match=r"expected saved demonstrations, got a saved PPO"):
        Demonstrations.load(tmp_path / "agent.pt")
    shown = empty()
    shown.add(np.zeros((2, 2)), [1, 1])
    shown.save(tmp_path / "shown.pt")
    with pytest.raises(CheckpointError, match=r"expected a saved PPO"):
        PPO.load(tmp_path / "shown.pt")
